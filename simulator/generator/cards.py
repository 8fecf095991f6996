"""Honest card payments: daily life, and bursts that look odd and are not. No fraud is made here."""

import numpy as np

from simulator.generator.payments import SECONDS_PER_DAY, Floats, Ints, Payments, episode_times, joined, payments
from simulator.generator.population import CATEGORIES, World, ordinary_times

__all__ = ["card_amounts", "card_payments"]

# Episodes for each customer and 30 days.
_HOLIDAYS = 0.05
_SPREES = 0.05
_TRIALS = 0.06
_GIFTS = 0.08


def card_payments(world: World, rng: np.random.Generator) -> Payments:
    """All honest card payments of the period."""
    return joined(
        [_everyday(world, rng), _holidays(world, rng), _sprees(world, rng), _trials(world, rng), _gifts(world, rng)]
    )


def card_amounts(world: World, rng: np.random.Generator, customers: Ints, merchants: Ints) -> Floats:
    """What customers spend at merchants, by the merchant's category and the customer's habit."""
    _, median, sigma = np.array(list(CATEGORIES.values())).T
    category = world.category[merchants]
    amounts: Floats = median[category] * world.scale[customers] * rng.lognormal(0, sigma[category])
    return amounts


def _everyday(world: World, rng: np.random.Generator) -> Payments:
    settings = world.settings
    expected = world.daily * settings.days * (1 - world.transfer_share)
    customers = np.repeat(np.arange(settings.customers), rng.poisson(expected))
    count = len(customers)
    # Favourites are drawn unevenly: the first is the shop next door.
    place = np.minimum(rng.geometric(0.25, count) - 1, world.favourites.shape[1] - 1)
    anywhere = rng.choice(settings.merchants, count, p=world.popularity)
    merchant = np.where(rng.random(count) < 0.72, world.favourites[customers, place], anywhere)
    amount = card_amounts(world, rng, customers, merchant)
    # Now and then a purchase that is large for the customer, and honest.
    amount = np.where(rng.random(count) < 0.015, amount * rng.uniform(4, 12, count), amount)
    return payments(ordinary_times(world, rng, customers), customers, amount, merchant=merchant)


def _holidays(world: World, rng: np.random.Generator) -> Payments:
    """A week or two elsewhere: more payments, larger ones, at places never seen before, at any hour."""
    customers, begins = _episodes(world, rng, _HOLIDAYS)
    length = rng.integers(4, 15, len(customers)) * SECONDS_PER_DAY
    counts = rng.poisson(1.8 * length / SECONDS_PER_DAY)
    who = np.repeat(customers, counts)
    second = np.repeat(begins, counts) + (rng.random(len(who)) * np.repeat(length, counts)).astype(np.int64)
    merchant = rng.integers(0, world.settings.merchants, len(who))
    amount = 1.4 * card_amounts(world, rng, who, merchant)
    return payments(second, who, amount, merchant=merchant)


def _sprees(world: World, rng: np.random.Generator) -> Payments:
    """An evening of buying online: several payments within an hour or two, mostly at new merchants."""
    customers, begins = _episodes(world, rng, _SPREES)
    counts = rng.integers(2, 7, len(customers))
    who = np.repeat(customers, counts)
    second = episode_times(begins, counts, rng.integers(90, 3600, len(who)))
    shops = world.merchants_of("shopping_net", "misc_net", "shopping_pos", "travel")
    merchant = rng.choice(shops, len(who))
    return payments(second, who, 1.5 * card_amounts(world, rng, who, merchant), merchant=merchant)


def _trials(world: World, rng: np.random.Generator) -> Payments:
    """A trial subscription or a checked card: a very small payment online, sometimes a full one soon after."""
    customers, begins = _episodes(world, rng, _TRIALS)
    counts = 1 + rng.binomial(2, 0.4, len(customers))
    who = np.repeat(customers, counts)
    second = episode_times(begins, counts, rng.integers(60, 5400, len(who)))
    first = np.concatenate([[True], who[1:] != who[:-1]]) if len(who) else np.zeros(0, dtype=bool)
    merchant = rng.choice(world.merchants_of("misc_net", "shopping_net", "entertainment"), len(who))
    amount = np.where(first, rng.uniform(0.5, 6, len(who)), card_amounts(world, rng, who, merchant))
    return payments(second, who, amount, merchant=merchant)


def _gifts(world: World, rng: np.random.Generator) -> Payments:
    """Vouchers and presents bought online, 60 to 260, late in the evening as often as not."""
    customers, begins = _episodes(world, rng, _GIFTS)
    merchant = rng.choice(world.merchants_of("shopping_net", "misc_net", "grocery_net"), len(customers))
    return payments(begins, customers, rng.uniform(60, 260, len(customers)), merchant=merchant)


def _episodes(world: World, rng: np.random.Generator, rate: float) -> tuple[Ints, Ints]:
    """Customers and begins of episodes, ``rate`` for each customer and 30 days, more for the active."""
    expected = rate * world.settings.days / 30 * np.minimum(world.daily / world.daily.mean(), 3)
    customers = np.repeat(np.arange(world.settings.customers), rng.poisson(expected))
    begins = ordinary_times(world, rng, customers)
    # Half of them later in the day than the customer's other payments.
    later = rng.integers(0, 9 * 3600, len(customers)) * (rng.random(len(customers)) < 0.5)
    return customers, begins + later
