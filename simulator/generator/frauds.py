"""Frauds of five types: where and when they strike, and the payments of each episode. No label is set here.

Every type is hidden in honest look-alikes (sprees, trials, vouchers, large round sums, money that passes through).
"""

import numpy as np

from simulator.generator.cards import card_amounts
from simulator.generator.payments import (
    FRAUD_TYPES,
    NOBODY,
    SECONDS_PER_DAY,
    Floats,
    Ints,
    Payments,
    episode_times,
    joined,
    payments,
)
from simulator.generator.population import World
from simulator.generator.transfers import OUTSIDE_SERVICES

__all__ = ["fraud_pressure", "frauds"]

#: Share of the episodes.
_SHARES = dict(zip(FRAUD_TYPES, (0.24, 0.20, 0.24, 0.12, 0.20), strict=True))
_QUIET_DAYS = 3
#: A type is at one of so many groups of banks at a time.
_GROUPS = 4


def frauds(world: World, rng: np.random.Generator, cards: Payments) -> Payments:
    """All frauds of the period.

    Args:
        world: the population.
        rng: the random generator.
        cards: honest card payments, which tell who was at a compromised merchant.
    """
    pressure = fraud_pressure(world, rng)
    mules = _recruit(world, rng)
    parts = [
        _stolen_cards(world, rng, *_episodes(world, rng, "stolen_card", pressure)),
        _takeovers(world, rng, *_episodes(world, rng, "account_takeover", pressure), mules),
        _app_scams(world, rng, *_episodes(world, rng, "app_scam", pressure), mules),
        _mule_chains(world, rng, *_episodes(world, rng, "mule_chain", pressure), mules, pressure),
        _compromised_merchants(world, rng, cards),
    ]
    return joined(parts)


def fraud_pressure(world: World, rng: np.random.Generator) -> Floats:
    """How hard each type presses on each bank in each campaign period, 1 on average over periods.

    Fraud rings work on a few banks until it stops paying, and move on: banks are in four groups (fewer if there are
    fewer banks), and each type is at one group at a time, at the next in the next period. ``fraud_migration`` says
    how strictly. Merchant compromise does not move: a merchant's customers bank everywhere.

    Returns:
        (types, periods, banks), 0 or more.
    """
    settings = world.settings
    periods = -(-settings.days // settings.campaign_days)
    groups = min(_GROUPS, settings.banks)
    group = rng.permutation(settings.banks) % groups
    kind, period, bank = np.ogrid[: len(FRAUD_TYPES), :periods, : settings.banks]
    there = (group[bank] + kind + period) % groups == 0
    calm = 1 - settings.fraud_migration
    pressure: Floats = np.where(there, groups - (groups - 1) * calm, calm)
    return pressure


def _episodes(world: World, rng: np.random.Generator, name: str, pressure: Floats) -> tuple[Ints, Ints]:
    """Victims, and when it begins, by the pressure of the type on the victim's bank at the time."""
    settings = world.settings
    kind = FRAUD_TYPES.index(name)
    monthly = settings.fraud_episodes_per_1000_customers / 1000 * _SHARES[name] * settings.campaign_days / 30
    expected = monthly * pressure[kind][:, world.bank]
    period, victims = np.nonzero(rng.random(expected.shape) < expected)
    begins = (period * settings.campaign_days + rng.random(len(victims)) * settings.campaign_days) * SECONDS_PER_DAY
    late_enough = begins >= _QUIET_DAYS * SECONDS_PER_DAY
    return victims[late_enough], begins[late_enough].astype(np.int64)


def _recruit(world: World, rng: np.random.Generator) -> list[list[Ints]]:
    """Mule accounts by period and bank: customers who otherwise live as before."""
    settings = world.settings
    members = [np.flatnonzero(world.bank == number) for number in range(settings.banks)]
    periods = -(-settings.days // settings.campaign_days)
    share = settings.mules_per_1000_customers
    counts = [max(2, len(mine) * share // 1000) for mine in members]
    return [
        [rng.choice(mine, count, replace=False) for mine, count in zip(members, counts, strict=True)]
        for _ in range(periods)
    ]


def _at_hour(rng: np.random.Generator, begins: Ints, low: float, high: float, share: float) -> Ints:
    """The begins, a ``share`` of them moved to between two hours of their day."""
    hour = rng.uniform(low, high, len(begins)) % 24
    moved = begins - begins % SECONDS_PER_DAY + (hour * 3600).astype(np.int64)
    return np.where(rng.random(len(begins)) < share, moved, begins)


def _stolen_cards(world: World, rng: np.random.Generator, victims: Ints, begins: Ints) -> Payments:
    """Tried with very small sums online, then spent within hours."""
    tests, spends = rng.integers(1, 4, len(victims)), rng.integers(2, 6, len(victims))
    counts = tests + spends
    who = np.repeat(victims, counts)
    place = np.arange(len(who)) - np.repeat(np.cumsum(counts) - counts, counts)
    testing = place < np.repeat(tests, counts)
    gaps = np.where(testing, rng.integers(40, 900, len(who)), rng.integers(120, 2700, len(who)))
    second = episode_times(_at_hour(rng, begins, 10, 26, 0.6), counts, gaps)
    online = rng.choice(world.merchants_of("misc_net", "shopping_net", "entertainment"), len(who))
    shops = rng.choice(world.merchants_of("shopping_net", "shopping_pos", "travel", "misc_net"), len(who))
    merchant = np.where(testing, online, shops)
    spent = rng.choice([1.0, 2.4], len(who)) * 75 * rng.lognormal(0, 0.6, len(who))
    amount = np.where(testing, rng.uniform(0.5, 5, len(who)), spent)
    return payments(second, who, amount, merchant=merchant, fraud="stolen_card")


def _takeovers(
    world: World, rng: np.random.Generator, victims: Ints, begins: Ints, mules: list[list[Ints]]
) -> Payments:
    """Somebody else is in the account: transfers to mules or away, one after the other, often at night."""
    counts = rng.integers(1, 5, len(victims))
    who = np.repeat(victims, counts)
    second = episode_times(_at_hour(rng, begins, 21, 31, 0.55), counts, rng.integers(100, 3000, len(who)))
    amount = 260 * np.sqrt(world.scale[who]) * rng.lognormal(0, 0.6, len(who))
    payee, outside = _destinations(world, rng, np.repeat(begins, counts), who, mules, 0.3)
    return payments(second, who, amount, payee=payee, outside=outside, fraud="account_takeover")


def _app_scams(
    world: World, rng: np.random.Generator, victims: Ints, begins: Ints, mules: list[list[Ints]]
) -> Payments:
    """The customer is talked into paying: by day, large round sums to somebody new, again a day later."""
    counts = 1 + rng.binomial(3, 0.35, len(victims))
    who = np.repeat(victims, counts)
    second = episode_times(_at_hour(rng, begins, 8, 18, 0.9), counts, rng.integers(900, 30 * 3600, len(who)))
    amount = rng.integers(6, 55, len(who)) * 100.0
    first_payee, first_outside = _destinations(world, rng, begins, victims, mules, 0.4)
    return payments(
        second,
        who,
        amount,
        payee=np.repeat(first_payee, counts),
        outside=np.repeat(first_outside, counts),
        fraud="app_scam",
    )


def _destinations(
    world: World, rng: np.random.Generator, begins: Ints, payers: Ints, mules: list[list[Ints]], away: float
) -> tuple[Ints, Ints]:
    """Where stolen money goes: a mule of the time, or with probability ``away`` an account outside."""
    period = np.minimum(begins // (world.settings.campaign_days * SECONDS_PER_DAY), len(mules) - 1)
    payee = np.empty(len(begins), dtype=np.int64)
    for number, groups in enumerate(mules):
        rows = period == number
        payee[rows] = rng.choice(np.concatenate(groups), int(rows.sum()))
    payee = np.where(payee == payers, (payee + 1) % world.settings.customers, payee)
    leaves = rng.random(len(begins)) < away
    outside = np.where(leaves, OUTSIDE_SERVICES + rng.integers(0, 60, len(begins)), NOBODY)
    return np.where(leaves, NOBODY, payee), outside


def _mule_chains(
    world: World,
    rng: np.random.Generator,
    victims: Ints,
    begins: Ints,
    mules: list[list[Ints]],
    pressure: Floats,
) -> Payments:
    """Money taken from a victim runs through accounts at several banks, a little less at each, and leaves."""
    banks = world.settings.banks
    column: dict[str, list[float]] = {name: [] for name in ("second", "payer", "payee", "outside", "amount")}
    kind = FRAUD_TYPES.index("mule_chain")
    for victim, begin in zip(victims.tolist(), begins.tolist(), strict=True):
        period = min(begin // (world.settings.campaign_days * SECONDS_PER_DAY), len(mules) - 1)
        second, amount, sender = begin, float(rng.lognormal(7.0, 0.5)), victim
        for hop in range(int(rng.integers(2, 5)) + 1):
            here = int(world.bank[sender])
            weight = pressure[kind, period] + 0.05
            if banks > 1:
                weight = np.where(np.arange(banks) == here, 0.0, weight)
            others = mules[period][int(rng.choice(banks, p=weight / weight.sum()))]
            others = others[others != sender]
            last = hop > 1 and rng.random() < 0.4
            to = NOBODY if last else int(rng.choice(others))
            column["second"].append(second)
            column["payer"].append(sender)
            column["payee"].append(to)
            column["outside"].append(OUTSIDE_SERVICES + int(rng.integers(0, 60)) if last else NOBODY)
            column["amount"].append(amount)
            if last:
                break
            second += int(rng.integers(400, 7 * 3600))
            amount *= float(rng.uniform(0.86, 0.985))
            sender = to
    return payments(
        np.array(column["second"], dtype=np.int64),
        np.array(column["payer"], dtype=np.int64),
        np.array(column["amount"]),
        payee=np.array(column["payee"], dtype=np.int64),
        outside=np.array(column["outside"], dtype=np.int64),
        fraud="mule_chain",
    )


def _compromised_merchants(world: World, rng: np.random.Generator, cards: Payments) -> Payments:
    """Cards used at a merchant while it was compromised are hit later, at every bank, in the same manner."""
    settings = world.settings
    name = "merchant_compromise"
    monthly = settings.fraud_episodes_per_1000_customers / 1000 * _SHARES[name] * settings.customers
    nationwide = np.flatnonzero(world.shop_region == NOBODY)
    popular = nationwide[np.argsort(-world.popularity[nationwide], kind="stable")][: max(10, len(nationwide) // 6)]
    shops = world.merchants_of("shopping_net", "misc_net", "grocery_net")
    parts = []
    # A new compromise every two weeks.
    for day in range(0, settings.days - 14, 14):
        since, until = day * SECONDS_PER_DAY, (day + 10) * SECONDS_PER_DAY
        open_there = (cards.merchant == rng.choice(popular)) & (cards.second >= since) & (cards.second < until)
        seen = np.unique(cards.payer[open_there])
        victims = rng.permutation(seen)[: int(rng.poisson(monthly * 14 / 30))]
        counts = rng.integers(1, 4, len(victims))
        who = np.repeat(victims, counts)
        begins = until + (rng.uniform(0.5, 14, len(victims)) * SECONDS_PER_DAY).astype(np.int64)
        second = episode_times(_at_hour(rng, begins, 1, 6, 0.85), counts, rng.integers(300, 5000, len(who)))
        usual = card_amounts(world, rng, who, rng.choice(shops, len(who)))
        amount = np.where(rng.random(len(who)) < 0.85, rng.uniform(110, 230, len(who)), usual)
        merchant = rng.choice(rng.choice(shops, min(8, len(shops)), replace=False), len(who))
        parts.append(payments(second, who, amount, merchant=merchant, fraud=name))
    return joined(parts)
