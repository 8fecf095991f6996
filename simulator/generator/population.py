"""Who there is: customers with their banks, habits and payees; merchants; accounts outside. Nobody pays here."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.generator.payments import NOBODY, SECONDS_PER_DAY, Floats, Ints
from simulator.generator.settings import GeneratorSettings

__all__ = ["CATEGORIES", "FIRST_DAY", "ONLINE", "World", "bank_sizes", "ordinary_times", "populate"]

FIRST_DAY = pd.Timestamp("2026-01-05")
"""Second 0 of every generated table, a Monday, UTC."""

CATEGORIES: dict[str, tuple[float, float, float]] = {
    "grocery_pos": (0.22, 38.0, 0.7),
    "gas_transport": (0.13, 42.0, 0.4),
    "food_dining": (0.16, 24.0, 0.6),
    "shopping_pos": (0.10, 45.0, 0.9),
    "shopping_net": (0.10, 42.0, 1.0),
    "misc_net": (0.06, 30.0, 1.1),
    "grocery_net": (0.03, 48.0, 0.6),
    "entertainment": (0.05, 28.0, 0.8),
    "health_fitness": (0.04, 40.0, 0.8),
    "home": (0.04, 60.0, 0.9),
    "kids_pets": (0.03, 36.0, 0.7),
    "travel": (0.04, 110.0, 1.1),
}
"""Category: (share of merchants, median amount in currency units, sigma of the amount's logarithm)."""

ONLINE = ("shopping_net", "misc_net", "grocery_net", "travel")
"""Categories of merchants without a region."""

# Share of transfers among a bank's payments, over and over: mixed, transfer-heavy, card-heavy, mixed.
_TRANSFER_SHARES = (0.20, 0.42, 0.09, 0.27)
_REGIONS = 6
_FAVOURITES = 10
_PAYEES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The population. Arrays over customers (n,) or merchants (m,); see the comments.

    Attributes:
        bank: (n,) number of the customer's bank.
        region: (n,) where the customer lives.
        daily: (n,) expected payments a day, heavy-tailed.
        scale: (n,) factor of the customer's amounts.
        transfer_share: (n,) of the customer's payments.
        night: (n,) share of the customer's payments made late.
        favourites: (n, 10) merchants.
        payees: (n, 6) customers that this one pays again and again.
        employer: (n,) outside account, or `NOBODY`.
        salary: (n,) currency units a month.
        payday: (n,) day of the month.
        category: (m,) place in `CATEGORIES`.
        shop_region: (m,) region, or `NOBODY` for online and nation-wide ones.
        popularity: (m,) share of choices, Zipf.
        day_of_month: (days,) 1 to 31.
    """

    settings: GeneratorSettings
    bank: Ints
    region: Ints
    daily: Floats
    scale: Floats
    transfer_share: Floats
    night: Floats
    favourites: Ints
    payees: Ints
    employer: Ints
    salary: Floats
    payday: Ints
    category: Ints
    shop_region: Ints
    popularity: Floats
    day_of_month: Ints

    @property
    def end(self) -> int:
        """First second after the last day."""
        return self.settings.days * SECONDS_PER_DAY

    def merchants_of(self, *categories: str) -> Ints:
        """Merchants of these categories."""
        places = [list(CATEGORIES).index(category) for category in categories]
        return np.asarray(np.isin(self.category, places).nonzero()[0], dtype=np.int64)


def bank_sizes(banks: int, customers: int) -> Ints:
    """Customers of each bank, the largest first: 4, 3, 2, 1 parts for four banks; no bank is tiny among many."""
    parts = np.maximum(np.arange(banks, 0, -1.0), banks / 6 if banks <= 6 else banks / 3)
    exact = parts / parts.sum() * customers
    sizes: Ints = np.floor(exact).astype(np.int64)
    left_over = np.argsort(sizes - exact, kind="stable")[: customers - int(sizes.sum())]
    sizes[left_over] += 1
    return sizes


def populate(settings: GeneratorSettings, rng: np.random.Generator) -> World:
    """Draw the population."""
    n, banks, regions = settings.customers, settings.banks, min(settings.banks, _REGIONS)
    bank = rng.permutation(np.repeat(np.arange(banks), bank_sizes(banks, n)))
    region = np.where(rng.random(n) < 0.75, bank % regions, rng.integers(0, regions, n))
    share = np.array(_TRANSFER_SHARES)[np.arange(banks) % len(_TRANSFER_SHARES)]
    category, shop_region, popularity = _merchants(settings, regions, rng)
    employed = rng.random(n) < 0.72
    employers = max(5, n // 40)
    return World(
        settings=settings,
        bank=bank,
        region=region,
        daily=np.minimum(rng.lognormal(-0.62, 0.65, n), 6.0),
        scale=rng.lognormal(0.0, 0.5, n),
        transfer_share=np.clip(share[bank] * rng.lognormal(0, 0.3, n), 0.02, 0.75),
        night=rng.beta(1.2, 10, n),
        favourites=_favourites(region, regions, shop_region, popularity, rng),
        payees=_payees(bank, banks, rng),
        employer=np.where(employed, rng.integers(0, employers, n), NOBODY),
        salary=np.round(rng.lognormal(7.6, 0.4, n), 2),
        payday=rng.choice([1, 15, 25, 28], n, p=[0.35, 0.15, 0.3, 0.2]),
        category=category,
        shop_region=shop_region,
        popularity=popularity,
        day_of_month=_days_of_month(settings.days),
    )


def ordinary_times(world: World, rng: np.random.Generator, customers: Ints) -> Ints:
    """Times of ordinary payments: more at weekends, by day; at night for the few who live so."""
    count = len(customers)
    days = np.arange(world.settings.days)
    weight = np.where(days % 7 >= 5, 1.3, 1.0) * np.where(world.day_of_month <= 3, 1.2, 1.0)
    day = rng.choice(days, count, p=weight / weight.sum())
    hour = np.where(rng.random(count) < 0.6, rng.normal(17.5, 2.8, count), rng.normal(11.5, 2.2, count))
    late = rng.random(count) < world.night[customers]
    hour = np.where(late, rng.normal(25.0, 2.5, count), hour) % 24
    times: Ints = (day * SECONDS_PER_DAY + hour * 3600 + rng.integers(0, 60, count)).astype(np.int64)
    return times


def _days_of_month(days: int) -> Ints:
    return np.asarray(pd.date_range(FIRST_DAY, periods=days, freq="D").day, dtype=np.int64)


def _merchants(settings: GeneratorSettings, regions: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    count = settings.merchants
    shares = np.array([share for share, *_ in CATEGORIES.values()])
    category = rng.choice(len(shares), count, p=shares / shares.sum())
    # Every category has merchants, however few there are in all.
    category[: len(shares)] = np.arange(len(shares))
    online = np.isin(category, [list(CATEGORIES).index(name) for name in ONLINE])
    nationwide = online | (rng.random(count) < 0.15)
    shop_region = np.where(nationwide, NOBODY, rng.integers(0, regions, count))
    popularity = 1.0 / np.arange(1, count + 1) ** 0.85
    rng.shuffle(popularity)
    return category, shop_region, popularity / popularity.sum()


def _favourites(region: Ints, regions: int, shop_region: Ints, popularity: Floats, rng: np.random.Generator) -> Ints:
    chosen = np.empty((len(region), _FAVOURITES), dtype=np.int64)
    for place in range(regions):
        near = popularity * np.where(shop_region == place, 1.5, np.where(shop_region == NOBODY, 0.8, 0.02))
        rows = region == place
        chosen[rows] = rng.choice(len(popularity), (int(rows.sum()), _FAVOURITES), p=near / near.sum())
    return chosen


def _payees(bank: Ints, banks: int, rng: np.random.Generator) -> Ints:
    n = len(bank)
    payees = rng.integers(0, n, (n, _PAYEES))
    same: npt.NDArray[np.bool_] = rng.random((n, _PAYEES)) < 0.4
    for number in range(banks):
        rows = np.flatnonzero(bank == number)
        payees[rows] = np.where(same[rows], rng.choice(rows, (len(rows), _PAYEES)), payees[rows])
    own = payees == np.arange(n)[:, None]
    return np.where(own, (payees + 1) % n, payees)
