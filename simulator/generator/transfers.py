"""Honest transfers: to known and new payees, salaries, rents, money that passes through. No fraud is made here."""

import numpy as np

from simulator.generator.payments import NOBODY, SECONDS_PER_DAY, Payments, joined, payments
from simulator.generator.population import World, ordinary_times

__all__ = ["OUTSIDE_LANDLORDS", "OUTSIDE_SERVICES", "transfers"]

OUTSIDE_LANDLORDS = 10_000
"""Number of the first outside landlord; employers are below."""
OUTSIDE_SERVICES = 20_000
"""Number of the first outside savings bank, dealer or exchange."""

_LARGE = 0.012
_PASSES_PER_30_DAYS = 0.06


def transfers(world: World, rng: np.random.Generator) -> Payments:
    """All honest transfers of the period."""
    return joined([_between_customers(world, rng), _salaries(world, rng), _rents(world, rng), _passes(world, rng)])


def _between_customers(world: World, rng: np.random.Generator) -> Payments:
    settings = world.settings
    expected = world.daily * settings.days * world.transfer_share
    customers = np.repeat(np.arange(settings.customers), rng.poisson(expected))
    count = len(customers)
    known = world.payees[customers, rng.integers(0, world.payees.shape[1], count)]
    stranger = rng.integers(0, settings.customers, count)
    to = np.where(rng.random(count) < 0.9, known, stranger)
    amount = 65 * world.scale[customers] * rng.lognormal(0, 1.0, count)
    # A deposit, a used car, a gift to a child: a large round sum, mostly to somebody new; honest all the same.
    large = rng.random(count) < _LARGE
    amount = np.where(large, rng.integers(5, 60, count) * 100.0, amount)
    to = np.where(large & (rng.random(count) < 0.7), stranger, to)
    away = large & (rng.random(count) < 0.4)
    outside = np.where(away, OUTSIDE_SERVICES + rng.integers(0, 60, count), NOBODY)
    to = np.where(away, NOBODY, np.where(to == customers, (to + 1) % settings.customers, to))
    return payments(ordinary_times(world, rng, customers), customers, amount, payee=to, outside=outside)


def _salaries(world: World, rng: np.random.Generator) -> Payments:
    """From employers outside: the receiver's bank sees them arrive."""
    employed = np.flatnonzero(world.employer != NOBODY)
    day, place = np.nonzero(world.day_of_month[:, None] == world.payday[employed][None, :])
    who = employed[place]
    second = day * SECONDS_PER_DAY + rng.integers(4 * 3600, 9 * 3600, len(who))
    return payments(second, NOBODY, world.salary[who], payee=who, outside=world.employer[who])


def _rents(world: World, rng: np.random.Generator) -> Payments:
    """Once a month, the same sum to the same landlord outside."""
    tenants = np.flatnonzero(rng.random(world.settings.customers) < 0.4)
    rent = np.round(rng.lognormal(6.4, 0.35, len(tenants)), 0)
    landlord = OUTSIDE_LANDLORDS + rng.integers(0, max(3, world.settings.customers // 30), len(tenants))
    due = rng.integers(1, 6, len(tenants))
    day, place = np.nonzero(world.day_of_month[:, None] == due[None, :])
    second = day * SECONDS_PER_DAY + rng.integers(6 * 3600, 20 * 3600, len(day))
    return payments(second, tenants[place], rent[place], outside=landlord[place])


def _passes(world: World, rng: np.random.Generator) -> Payments:
    """Money in and soon out again, honestly: a sale spent at once, savings moved on, a shared bill collected."""
    settings = world.settings
    count = int(rng.poisson(_PASSES_PER_30_DAYS * settings.customers * settings.days / 30))
    middle, source, target = rng.integers(0, settings.customers, (3, count))
    source = np.where(source == middle, (source + 1) % settings.customers, source)
    second = ordinary_times(world, rng, middle)
    amount = np.round(rng.lognormal(6.6, 0.8, count), 2)
    share = np.where(rng.random(count) < 0.4, rng.uniform(0.9, 1.0, count), rng.uniform(0.2, 1.0, count))
    wait = np.exp(rng.uniform(np.log(900), np.log(40 * 3600), count)).astype(np.int64)
    known = world.payees[middle, rng.integers(0, world.payees.shape[1], count)]
    to = np.where(rng.random(count) < 0.5, known, target)
    to = np.where(to == middle, (to + 1) % settings.customers, to)
    away = rng.random(count) < 0.35
    outside = np.where(away, OUTSIDE_SERVICES + rng.integers(0, 60, count), NOBODY)
    onward = payments(
        second + wait, middle, np.round(amount * share, 2), payee=np.where(away, NOBODY, to), outside=outside
    )
    return joined([payments(second, source, amount, payee=middle), onward])
