"""Generates payments of several banks with frauds, some of which show only across banks. No model is trained here.

Everything follows from the seed. What is modelled, and what is not, is in docs/generator.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from protocol.errors import ConfigError

__all__ = ["BANK_NAMES", "FRAUD_TYPES", "GeneratedConsortium", "GeneratorSettings", "generate"]

BANK_NAMES = ("north_bank", "harbour_bank", "city_bank", "union_bank", "valley_bank", "coast_bank")
FRAUD_TYPES = ("stolen_card", "account_takeover", "merchant_compromise", "mule_chain", "app_scam")

#: Category: (share of card payments, median amount, sigma of its log, online).
_CATEGORIES: dict[str, tuple[float, float, float, bool]] = {
    "grocery_pos": (0.24, 38.0, 0.7, False),
    "gas_transport": (0.15, 42.0, 0.4, False),
    "food_dining": (0.17, 24.0, 0.6, False),
    "shopping_pos": (0.10, 45.0, 0.9, False),
    "shopping_net": (0.09, 40.0, 1.0, True),
    "misc_net": (0.05, 30.0, 1.1, True),
    "entertainment": (0.06, 28.0, 0.8, True),
    "health_fitness": (0.05, 40.0, 0.8, False),
    "home": (0.05, 60.0, 0.9, False),
    "travel": (0.04, 110.0, 1.1, True),
}
_SECONDS_A_DAY = 86_400
_START = pd.Timestamp("2026-01-05")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """What to generate. Sizes are over all banks together."""

    banks: int = 4
    customers: int = 4000
    merchants: int = 900
    days: int = 120
    seed: int = 7
    fraud_episodes_per_1000_customers: float = 170.0
    never_reported: float = 0.06
    false_claims: float = 0.0003

    def __post_init__(self) -> None:
        if not 1 <= self.banks <= 100:
            raise ConfigError("the generator makes 1 to 100 banks")
        if self.customers < 20 * self.banks or self.merchants < 50 or self.days < 40:
            raise ConfigError("the generator needs 20 customers a bank, 50 merchants and 40 days at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedConsortium:
    """Where the banks' tables are."""

    events: dict[str, Path]
    truth: Path | None = None


@dataclass(slots=True)
class _World:
    """The population: who banks where and how they spend."""

    settings: GeneratorSettings
    rng: np.random.Generator
    bank: npt.NDArray[np.int64]
    daily: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    transfer_share: npt.NDArray[np.float64]
    night: npt.NDArray[np.float64]
    favourites: npt.NDArray[np.int64]
    payees: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    popularity: npt.NDArray[np.float64]


def generate(
    settings: GeneratorSettings, out: Path, on_progress: Callable[[str], None] | None = None
) -> GeneratedConsortium:
    """Write ``out/<bank>/events.parquet`` for every bank, and ``out/truth.parquet`` with each fraud's type.

    Args:
        settings: what to make.
        out: the folder; made if missing.
        on_progress: told what is being made.

    Returns:
        The tables' paths. The same settings give the same rows.
    """
    say = on_progress or (lambda _: None)
    rng = np.random.default_rng(settings.seed)
    world = _populate(settings, rng)
    say("payments of daily life")
    parts = [_card_payments(world), _transfers(world), _rents_and_salaries(world)]
    say("frauds")
    parts += _frauds(world, parts[0])
    events = pd.concat(parts, ignore_index=True).sort_values(["second", "account"], kind="stable")
    events = events[(events["second"] >= 0) & (events["second"] < settings.days * _SECONDS_A_DAY)]
    events = events.reset_index(drop=True)
    return _write(world, events, out)


def _names(count: int) -> list[str]:
    return [BANK_NAMES[i] if count <= len(BANK_NAMES) else f"bank_{i + 1:03d}" for i in range(count)]


def _populate(settings: GeneratorSettings, rng: np.random.Generator) -> _World:
    n, banks = settings.customers, settings.banks
    weights = 0.7 ** np.arange(banks) if banks <= 6 else rng.lognormal(0, 0.7, banks)
    bank = rng.choice(banks, n, p=weights / weights.sum())
    bank[:banks] = np.arange(banks)
    mix = np.clip(rng.normal(0.22, 0.1, banks), 0.05, 0.5)
    shares = np.array([share for share, *_ in _CATEGORIES.values()])
    category = rng.choice(len(shares), settings.merchants, p=shares / shares.sum())
    popularity = 1.0 / np.arange(1, settings.merchants + 1) ** 0.8
    rng.shuffle(popularity)
    popularity /= popularity.sum()
    payees = rng.integers(0, n, (n, 5))
    same = rng.random((n, 5)) < 0.45
    members = [np.flatnonzero(bank == b) for b in range(banks)]
    for b in range(banks):
        rows = np.flatnonzero(bank == b)
        payees[rows] = np.where(same[rows], rng.choice(members[b], (len(rows), 5)), payees[rows])
    return _World(
        settings=settings,
        rng=rng,
        bank=bank,
        daily=rng.lognormal(-0.75, 0.6, n),
        scale=rng.lognormal(0.0, 0.5, n),
        transfer_share=np.clip(mix[bank] + rng.normal(0, 0.05, n), 0.02, 0.7),
        night=rng.beta(1.2, 12, n),
        favourites=rng.choice(settings.merchants, (n, 8), p=popularity),
        payees=payees,
        category=category,
        popularity=popularity,
    )


def _seconds(world: _World, customers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Times of ordinary payments: more at weekends, by day, or at night for the few who live so."""
    rng, count = world.rng, len(customers)
    days = np.arange(world.settings.days)
    weight = np.where(days % 7 >= 5, 1.3, 1.0)
    day = rng.choice(days, count, p=weight / weight.sum())
    hour = np.where(rng.random(count) < 0.6, rng.normal(17.5, 2.8, count), rng.normal(11.5, 2.2, count))
    late = rng.random(count) < world.night[customers]
    hour = np.where(late, rng.normal(25.0, 2.5, count), hour) % 24
    return (day * _SECONDS_A_DAY + hour * 3600 + rng.integers(0, 60, count)).astype(np.int64)


def _frame(**columns: Any) -> pd.DataFrame:
    base: dict[str, Any] = {"fraud": "", "to_customer": -1, "channel": "card", "category": "transfer"}
    return pd.DataFrame(base | columns)


def _card_payments(world: _World) -> pd.DataFrame:
    rng, settings = world.rng, world.settings
    expected = world.daily * settings.days * (1 - world.transfer_share)
    customers = np.repeat(np.arange(settings.customers), rng.poisson(expected))
    count = len(customers)
    usual = world.favourites[customers, rng.integers(0, 8, count)]
    merchant = np.where(rng.random(count) < 0.65, usual, rng.choice(settings.merchants, count, p=world.popularity))
    return _frame(
        second=_seconds(world, customers),
        account=customers,
        counterparty=[f"m{m:05d}" for m in merchant],
        amount=_card_amounts(world, customers, merchant),
        category=np.array(list(_CATEGORIES))[world.category[merchant]],
    )


def _card_amounts(
    world: _World, customers: npt.NDArray[np.int64], merchant: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    rng = world.rng
    median = np.array([m for _, m, _, _ in _CATEGORIES.values()])[world.category[merchant]]
    sigma = np.array([s for _, _, s, _ in _CATEGORIES.values()])[world.category[merchant]]
    amount = median * world.scale[customers] * rng.lognormal(0, sigma)
    # Now and then a purchase that is large for the customer, and honest.
    return np.where(rng.random(len(customers)) < 0.02, amount * rng.uniform(4, 12, len(customers)), amount)


def _transfers(world: _World) -> pd.DataFrame:
    rng, settings = world.rng, world.settings
    expected = world.daily * settings.days * world.transfer_share
    customers = np.repeat(np.arange(settings.customers), rng.poisson(expected))
    count = len(customers)
    known = world.payees[customers, rng.integers(0, 5, count)]
    to = np.where(rng.random(count) < 0.88, known, rng.integers(0, settings.customers, count))
    amount = 70 * world.scale[customers] * rng.lognormal(0, 1.0, count)
    # Honest payments that look like a scam: a large round sum to somebody new.
    large = rng.random(count) < 0.012
    amount = np.where(large, rng.integers(5, 60, count) * 100.0, np.round(amount, 2))
    to = np.where(large, rng.integers(0, settings.customers, count), to)
    return _transfer_frame(_seconds(world, customers), customers, to, amount)


def _transfer_frame(second: Any, account: Any, to: Any, amount: Any, fraud: str = "") -> pd.DataFrame:
    to = np.asarray(to)
    return _frame(
        second=np.asarray(second, dtype=np.int64),
        account=np.asarray(account),
        counterparty=[f"a{t:06d}" for t in to],
        to_customer=to,
        amount=np.asarray(amount, dtype=np.float64),
        channel="transfer",
        fraud=fraud,
    )


def _rents_and_salaries(world: _World) -> pd.DataFrame:
    """Monthly fixed payments, and pass-through that is honest: money in, then on to savings elsewhere."""
    rng, settings = world.rng, world.settings
    payers = np.flatnonzero(rng.random(settings.customers) < 0.35)
    landlord = rng.integers(0, settings.customers, len(payers))
    rent = np.round(rng.lognormal(6.4, 0.35, len(payers)), 0)
    parts = []
    for month in range(settings.days // 30 + 1):
        second = (month * 30 + rng.integers(0, 4, len(payers))) * _SECONDS_A_DAY + rng.integers(
            6, 20, len(payers)
        ) * 3600
        parts.append(_transfer_frame(second, payers, landlord, rent))
    movers = rng.choice(settings.customers, settings.customers // 12, replace=False)
    second = rng.integers(0, settings.days * _SECONDS_A_DAY, len(movers))
    source, target = rng.integers(0, settings.customers, (2, len(movers)))
    sums = rng.integers(3, 40, len(movers)) * 100.0
    parts.append(_transfer_frame(second, source, movers, sums))
    parts.append(_transfer_frame(second + rng.integers(3600, 40 * 3600, len(movers)), movers, target, sums - 50))
    return pd.concat(parts, ignore_index=True)


def _frauds(world: _World, cards: pd.DataFrame) -> list[pd.DataFrame]:
    """Episodes of each type; what is new at one bank is known at another."""
    rng, settings = world.rng, world.settings
    total = int(settings.customers * settings.fraud_episodes_per_1000_customers / 1000)
    # Campaigns move: every month each bank is hit by another mix of types.
    months = settings.days // 30 + 1
    leaning = rng.dirichlet([0.35] * len(FRAUD_TYPES), (settings.banks, months)) * 0.9 + 0.1 / len(FRAUD_TYPES)
    victims = rng.choice(settings.customers, total)
    begins = rng.integers(8 * _SECONDS_A_DAY, settings.days * _SECONDS_A_DAY, total)
    month = begins // (30 * _SECONDS_A_DAY)
    kinds = np.array(
        [rng.choice(len(FRAUD_TYPES), p=leaning[world.bank[v], m]) for v, m in zip(victims, month, strict=True)]
    )
    mules = rng.choice(settings.customers, max(12, settings.customers // 60), replace=False)
    cash_out = rng.choice(settings.merchants, 25, replace=False)
    parts: list[pd.DataFrame] = []
    for victim, kind, begin in zip(victims, kinds, begins, strict=True):
        name = FRAUD_TYPES[kind]
        if name == "stolen_card":
            parts.append(_stolen_card(world, victim, begin))
        elif name == "account_takeover":
            parts.append(_takeover(world, victim, begin, mules))
        elif name == "mule_chain":
            parts += _mule_chain(world, victim, begin, mules)
        elif name == "app_scam":
            parts.append(_app_scam(world, victim, begin, mules))
    parts += _compromised_merchants(world, cards, int((kinds == 2).sum()), cash_out)
    return parts


def _online(world: _World, count: int) -> npt.NDArray[np.int64]:
    online = np.array([o for *_, o in _CATEGORIES.values()])[world.category]
    return world.rng.choice(np.flatnonzero(online), count)


def _card_frame(world: _World, second: Any, victim: int, merchant: Any, amount: Any, fraud: str) -> pd.DataFrame:
    merchant = np.asarray(merchant)
    return _frame(
        second=np.asarray(second, dtype=np.int64),
        account=victim,
        counterparty=[f"m{m:05d}" for m in merchant],
        amount=np.asarray(amount, dtype=np.float64),
        category=np.array(list(_CATEGORIES))[world.category[merchant]],
        fraud=fraud,
    )


def _stolen_card(world: _World, victim: int, begin: int) -> pd.DataFrame:
    rng = world.rng
    tests, spends = int(rng.integers(0, 4)), int(rng.integers(1, 6))
    second = begin + np.cumsum(rng.integers(60, 4000, tests + spends))
    amount = np.concatenate([rng.uniform(0.5, 4, tests), 90 * rng.lognormal(0, 0.8, spends)])
    return _card_frame(world, second, victim, _online(world, tests + spends), amount, "stolen_card")


def _takeover(world: _World, victim: int, begin: int, mules: npt.NDArray[np.int64]) -> pd.DataFrame:
    rng = world.rng
    count = int(rng.integers(1, 5))
    second = begin + np.cumsum(rng.integers(120, 2400, count))
    to = np.where(rng.random(count) < 0.7, rng.choice(mules, count), rng.integers(0, world.settings.customers, count))
    return _transfer_frame(second, [victim] * count, to, 320 * rng.lognormal(0, 0.7, count), "account_takeover")


def _mule_chain(world: _World, victim: int, begin: int, mules: npt.NDArray[np.int64]) -> list[pd.DataFrame]:
    """Money taken from a victim runs through accounts at several banks, a little less at each."""
    rng = world.rng
    hops = rng.choice(mules, int(rng.integers(2, 5)), replace=False)
    amount, second, sender = float(rng.uniform(600, 4200)), int(begin), victim
    parts = []
    for mule in hops:
        parts.append(_transfer_frame([second], [sender], [mule], [round(amount, 2)], "mule_chain"))
        second += int(rng.integers(600, 10 * 3600))
        amount *= rng.uniform(0.88, 0.98)
        sender = int(mule)
    parts.append(
        _transfer_frame([second], [sender], [rng.integers(0, world.settings.customers)], [amount], "mule_chain")
    )
    return parts


def _app_scam(world: _World, victim: int, begin: int, mules: npt.NDArray[np.int64]) -> pd.DataFrame:
    rng = world.rng
    count = int(rng.integers(1, 3))
    by_day = begin - begin % _SECONDS_A_DAY + rng.integers(9 * 3600, 19 * 3600)
    second = by_day + np.arange(count) * rng.integers(1800, 90_000)
    return _transfer_frame(
        second, [victim] * count, [rng.choice(mules)] * count, rng.integers(8, 70, count) * 100.0, "app_scam"
    )


def _compromised_merchants(
    world: _World, cards: pd.DataFrame, episodes: int, cash_out: npt.NDArray[np.int64]
) -> list[pd.DataFrame]:
    """Cards used at a merchant while it was compromised are hit later, at every bank, at a few places."""
    rng, days = world.rng, world.settings.days
    parts: list[pd.DataFrame] = []
    popular = np.argsort(-world.popularity)[10:80]
    while episodes > 0:
        merchant, since = int(rng.choice(popular)), int(rng.integers(0, max(1, days - 25)))
        at = cards[cards["counterparty"] == f"m{merchant:05d}"]
        window = at["second"].between(since * _SECONDS_A_DAY, (since + 12) * _SECONDS_A_DAY)
        victims = at.loc[window, "account"].unique()
        for victim in victims[rng.random(len(victims)) < 0.4]:
            count = int(rng.integers(1, 4))
            begin = (since + 12 + rng.integers(1, 14)) * _SECONDS_A_DAY + rng.integers(0, _SECONDS_A_DAY)
            second = begin + np.cumsum(rng.integers(300, 9000, count))
            amount = 140 * rng.lognormal(0, 0.5, count)
            where = rng.choice(cash_out, count)
            parts.append(_card_frame(world, second, int(victim), where, amount, "merchant_compromise"))
            episodes -= 1
        episodes -= 1
    return parts


def _write(world: _World, events: pd.DataFrame, out: Path) -> GeneratedConsortium:
    rng, settings = world.rng, world.settings
    count = len(events)
    names = np.array(_names(settings.banks))
    time = (_START + pd.to_timedelta(events["second"], unit="s")).astype("datetime64[us]")
    fraud = (events["fraud"] != "").to_numpy()
    reported = fraud & (rng.random(count) >= settings.never_reported)
    reported |= ~fraud & (rng.random(count) < settings.false_claims)
    delay = np.where(reported, np.clip(rng.lognormal(0.9, 0.8, count), 0.1, 14), 14.0)
    to = events["to_customer"].to_numpy()
    base = pd.DataFrame(
        {
            "payment_id": [f"p{i:08d}" for i in range(count)],
            "event_time": time,
            "account_id": [f"a{a:06d}" for a in events["account"]],
            "counterparty_id": events["counterparty"],
            "counterparty_bank": pd.array(
                np.where(to >= 0, names[world.bank[np.maximum(to, 0)]], None), dtype="string"
            ),
            "direction": "out",
            "channel": events["channel"],
            "amount": np.maximum(events["amount"].round(2), 0.01),
            "category": events["category"],
            "is_fraud": reported.astype(np.int64),
            "label_time": (time + pd.to_timedelta(np.round(delay * _SECONDS_A_DAY), unit="s")).astype("datetime64[us]"),
        }
    )
    sender_bank = world.bank[events["account"].to_numpy()]
    incoming = base[to >= 0].assign(
        direction="in",
        account_id=[f"a{t:06d}" for t in to[to >= 0]],
        counterparty_id=base.loc[to >= 0, "account_id"],
        counterparty_bank=pd.array(names[sender_bank[to >= 0]], dtype="string"),
        # The receiver's bank does not know the sender's label.
        is_fraud=0,
    )
    receiver_bank = world.bank[to[to >= 0]]
    paths: dict[str, Path] = {}
    for index, name in enumerate(names):
        mine = pd.concat([base[sender_bank == index], incoming[receiver_bank == index]])
        mine = mine.sort_values(["event_time", "payment_id", "direction"], kind="stable")
        paths[str(name)] = out / str(name) / "events.parquet"
        paths[str(name)].parent.mkdir(parents=True, exist_ok=True)
        mine.to_parquet(paths[str(name)], index=False)
    truth = pd.DataFrame({"payment_id": base["payment_id"], "bank": names[sender_bank], "fraud_type": events["fraud"]})[
        fraud
    ]
    truth.to_parquet(out / "truth.parquet", index=False)
    return GeneratedConsortium(events=paths, truth=out / "truth.parquet")
