"""The banks' exchange of shared counterparty risk: link key, days, daily tables, by secure sum. Opens no connection.

The link key is itself a sum: of random numbers of all banks, so nobody chooses it, and the aggregator, which sees no
sum, never has it. Who holds a key gives it to those who don't by the same step. A day's table is agreed once. A bank
that lacks it gets that table, not a new sum: of two sums, with and without a bank, the difference would be the bank.
"""

import calendar
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.dtypes import Integers
from bank_node.files import write_atomic
from bank_node.shared_risk.store import SharedStore
from features.contract.sections import SharedRiskSpec
from features.shared_risk import FIELD_BITS, Facts, day_tables, pack, slots, unpack
from protocol.errors import LocalError, ProtocolViolation
from protocol.layout import PAYLOAD_SLOTS
from protocol.private_files import write_secret
from protocol.steps import Point, Step

__all__ = ["Exchanged", "Period", "agreed_key", "exchange", "key_id", "own_days", "relayed_tables"]

logger = logging.getLogger(__name__)

FactsFor = Callable[[bytes], Mapping[str, Facts]]
"""A bank's facts by kind, once it has the link key."""

KEY_BYTES = 32
_LIMB = 16
_LIMBS = KEY_BYTES * 8 // _LIMB
_MARK_LIMBS = 4
_FRESH_LIMBS, _FRESH_BITS = 16, 32
_FIRST_YEAR, _MONTHS = 1990, 110 * 12
#: Numbers of one step, 48 ciphertexts: a step costs a round trip, and memory for its vectors.
_STEP_NUMBERS = 48 * PAYLOAD_SLOTS
_EPOCH = dt.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """First day with a payment of ours and last day that is over, from 1970-01-01."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What an exchange left: where the run goes on, and what it took.

    Attributes:
        key: the link key; never log it.
        agreed: first and last day that have a table; None if there is none.
        anchor: the point in the run up to which all is agreed.
        next_unit: number of the run's next unit of steps.
        new_days, relayed_days: days summed, and days handed on, in this run.
        numbers: how long the vectors were, in all.
    """

    key: bytes
    agreed: tuple[int, int] | None
    anchor: str
    next_unit: int
    new_days: int
    relayed_days: int
    numbers: int
    seconds: float

    @property
    def words(self) -> str:
        """One line for the operator."""
        size = -(-self.numbers // PAYLOAD_SLOTS)
        return (
            f"shared risk: {self.new_days} days summed, {self.relayed_days} handed on, {size} ciphertexts a bank, "
            f"{self.seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What the first steps agreed; in the run's folder, so that a restart goes on by it."""

    key_id: str
    first: int
    last: int
    fresh: tuple[int, ...]
    relayed: tuple[int, ...]
    ours: tuple[int, ...]
    numbers: int


def exchange(
    spec: SharedRiskSpec,
    store: SharedStore,
    period: Period | None,
    facts_for: FactsFor,
    consortium: Consortium,
    run_dir: Path,
    random: Callable[[int], bytes],
    log: Log,
) -> Exchanged:
    """Bring the bank's tables of the consortium up to date, at the beginning of a run's BINNING.

    Safe to repeat after a crash: a batch of days is agreed, then written, then counted as done.

    Args:
        spec: the contract's section.
        store: the bank's tables and link key.
        period: the days of the bank's payments; None if it has none, then it adds zeros.
        facts_for: called once the link key is known; the same facts every time in one run.
        consortium: secure sums, and points to go on from.
        run_dir: the run's folder.
        random: so many random bytes.
        log: told in words.

    Raises:
        ProtocolViolation: banks hand on different tables of a day, or numbers that are none.
    """
    started = perf_counter()
    plan = whatever_the_roster(consortium, lambda: _agree_plan(spec, store, period, consortium, run_dir, random), log)
    key = store.key()
    if key is None or key_id(key) != plan.key_id:
        raise LocalError(f"the link key in {store.folder} is not the one of this run; end the run and open a new one")
    done = run_dir / "shared_done"

    def batches() -> tuple[int, Integers]:
        return _run_batches(spec, store, plan, key, facts_for, consortium, done)

    unit, numbers = whatever_the_roster(consortium, batches, log)
    store.keep_from(plan.last - spec.history_days + 1, key_id(key), spec.sketch_digest)
    days = max(0, plan.last - plan.first + 1)
    result = Exchanged(
        key=key,
        agreed=(plan.first, plan.last) if days else None,
        anchor=Point.shared(unit).text,
        next_unit=unit + 1,
        new_days=len(plan.fresh),
        relayed_days=len(plan.relayed),
        numbers=plan.numbers + int(numbers.sum()),
        seconds=perf_counter() - started,
    )
    log(f"{result.words}; {days} days of tables in all, {slots(spec)} numbers a day")
    return result


def key_id(key: bytes) -> str:
    """A name of the link key that tells nothing of it, hex."""
    return hashlib.sha256(b"crossbank/1 link key id\0" + key).hexdigest()


# -- what to do -----------------------------------------------------------------------------------------------


def _agree_plan(
    spec: SharedRiskSpec,
    store: SharedStore,
    period: Period | None,
    consortium: Consortium,
    run_dir: Path,
    random: Callable[[int], bytes],
) -> _Plan:
    path = run_dir / "shared_plan.json"
    if path.exists():
        return _plan_from(path)
    consortium.rewind(Point.keys().text)
    begin = run_dir / "shared_begin.npy"
    if not begin.exists():
        # Kept before it is sent: a repeated step must carry the same random numbers.
        write_secret(begin, _begin_vector(store.key(), period, random).astype("<i8").tobytes())
    vector = np.frombuffer(begin.read_bytes(), dtype="<i8").astype(np.int64)
    total = consortium.secure_sum(Step.bins(0, "link").text, vector)
    members = int(total[0])
    key = agreed_key(total)
    kept = begin.with_name("shared_held.json")
    first_month, last_month = _months_of(total, members)
    first, last = max(first_month, last_month - spec.history_days - 31), last_month
    fresh: list[int] = []
    relayed: list[int] = []
    ours: list[int] = []
    numbers = len(vector)
    if first <= last:
        if not kept.exists():
            found = [day for day in store.days(key_id(key), spec.sketch_digest) if first <= day <= last]
            write_atomic(kept, json.dumps(found).encode())
        held = json.loads(kept.read_bytes())
        asked = _days_vector(period, held, first, last)
        counts = consortium.secure_sum(Step.bins(0, "days").text, asked).reshape(3, -1)
        numbers += len(asked)
        present, over = np.flatnonzero(counts[0]), np.flatnonzero(counts[1] == members)
        begins, first = first, first + int(present[0]) if len(present) else last + 1
        last = begins + int(over[-1]) if len(over) else first - 1
        first = max(first, last - spec.history_days + 1)
        for day in range(first, last + 1):
            holders = int(counts[2][day - begins])
            if holders == 0:
                fresh.append(day)
            elif holders < members:
                relayed.append(day)
        ours = [day for day in relayed if day in set(held)]
    plan = _Plan(
        key_id=key_id(key),
        first=first,
        last=last,
        fresh=tuple(fresh),
        relayed=tuple(relayed),
        ours=tuple(ours),
        numbers=numbers,
    )
    agreed = f"{plan.key_id} {plan.first} {plan.last} {plan.fresh} {plan.relayed}"
    consortium.commit(Point.shared(0).text, hashlib.sha256(agreed.encode()).hexdigest())
    store.set_key(key)
    write_atomic(path, json.dumps({name: getattr(plan, name) for name in plan.__dataclass_fields__}).encode())
    begin.unlink()
    return plan


def _plan_from(path: Path) -> _Plan:
    found = json.loads(path.read_text())
    for name in ("fresh", "relayed", "ours"):
        found[name] = tuple(found[name])
    return _Plan(**found)


def _begin_vector(key: bytes | None, period: Period | None, random: Callable[[int], bytes]) -> Integers:
    """One bank, whether it holds a key, the key and its mark, fresh random numbers, months begun, months over."""
    limbs = np.zeros(_LIMBS + _MARK_LIMBS, dtype=np.int64)
    if key is not None:
        limbs[:] = np.frombuffer(key + _mark(key), dtype="<u2")
    fresh = np.frombuffer(random(_FRESH_LIMBS * _FRESH_BITS // 8), dtype="<u4").astype(np.int64)
    months = np.arange(_MONTHS)
    begun, over = np.zeros(_MONTHS, np.int64), np.ones(_MONTHS, np.int64)
    if period is not None:
        begun = (months >= _month(period.first)).astype(np.int64)
        over = (months <= _month(period.last)).astype(np.int64)
    return np.concatenate([[1, int(key is not None)], limbs, fresh, begun, over]).astype(np.int64)


def agreed_key(total: Integers) -> bytes:
    """The link key from the sum of all banks' first vectors: the one that is there, or a fresh one.

    Holders of different keys make sums that are no key: then all take the fresh one and begin anew.
    """
    holders, limbs = int(total[1]), total[2 : 2 + _LIMBS + _MARK_LIMBS]
    if holders and not (limbs % holders).any() and (limbs // holders < 1 << _LIMB).all():
        raw = (limbs // holders).astype("<u2").tobytes()
        if _mark(raw[:KEY_BYTES]) == raw[KEY_BYTES:]:
            return raw[:KEY_BYTES]
    fresh = total[2 + _LIMBS + _MARK_LIMBS :][:_FRESH_LIMBS] % (1 << _FRESH_BITS)
    return hashlib.sha256(b"crossbank/1 link key\0" + fresh.astype("<u4").tobytes()).digest()


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"crossbank/1 link key mark\0" + key).digest()[: _MARK_LIMBS * _LIMB // 8]


def _month(day: int) -> int:
    date = dt.date.fromordinal(day + _EPOCH)
    return (date.year - _FIRST_YEAR) * 12 + date.month - 1


def _months_of(total: Integers, members: int) -> tuple[int, int]:
    """First day of the first month in which any bank has payments, last of the last that is over at all banks."""
    begun, over = total[-2 * _MONTHS : -_MONTHS], total[-_MONTHS:]
    some, all_over = np.flatnonzero(begun), np.flatnonzero(over == members)
    if not len(some) or not len(all_over):
        return 0, -1
    year, month = divmod(int(some[0]), 12)
    first = dt.date(_FIRST_YEAR + year, month + 1, 1)
    year, month = divmod(int(all_over[-1]), 12)
    year += _FIRST_YEAR
    last = dt.date(year, month + 1, calendar.monthrange(year, month + 1)[1])
    return first.toordinal() - _EPOCH, last.toordinal() - _EPOCH


def _days_vector(period: Period | None, held: Sequence[int], first: int, last: int) -> Integers:
    """For each day: whether our payments have begun, whether it is over with us, whether we have its table."""
    days = np.arange(first, last + 1)
    begun, over = np.zeros(len(days), np.int64), np.ones(len(days), np.int64)
    if period is not None:
        begun, over = (days >= period.first).astype(np.int64), (days <= period.last).astype(np.int64)
    return np.concatenate([begun, over, np.isin(days, list(held)).astype(np.int64)])


# -- the tables -----------------------------------------------------------------------------------------------


def _run_batches(
    spec: SharedRiskSpec,
    store: SharedStore,
    plan: _Plan,
    key: bytes,
    facts_for: FactsFor,
    consortium: Consortium,
    done: Path,
) -> tuple[int, Integers]:
    """All batches from the first that is not done; gives the last unit's number and the numbers sent."""
    name = (key_id(key), spec.sketch_digest)
    size = slots(spec)
    a_step = max(1, _STEP_NUMBERS // size)
    half_a_step = max(1, a_step // 2)
    work = [("relay", plan.relayed[i : i + half_a_step]) for i in range(0, len(plan.relayed), half_a_step)]
    work += [("day", plan.fresh[i : i + a_step]) for i in range(0, len(plan.fresh), a_step)]
    kept = int(done.read_text()) if done.exists() else 0
    if kept < len(work):
        # When all is done the run may be far beyond: nothing is to be taken back then.
        consortium.rewind(Point.shared(kept).text)
    facts: Mapping[str, Facts] | None = None
    numbers = []
    for unit, (what, days) in enumerate(work, 1):
        numbers.append(len(days) * (size if what == "day" else 2 * size + 1))
        if unit <= kept:
            continue
        if what == "day":
            facts = facts_for(key) if facts is None else facts
            total = consortium.secure_sum(Step.bins(unit, "day").text, own_days(spec, facts, days))
            tables = total.reshape(len(days), size)
        else:
            own = {day: pack(store.load(day, spec, *name)) for day in days if day in plan.ours}
            total = consortium.secure_sum(Step.bins(unit, "relay").text, _relay_vector(own, days, size))
            tables = relayed_tables(total, own, days, size)
        for table in tables:
            unpack(table, spec)  # nothing is kept that is no table
        consortium.commit(Point.shared(unit).text, hashlib.sha256(tables.astype("<i8").tobytes()).hexdigest())
        for day, table in zip(days, tables, strict=True):
            store.save(day, unpack(table, spec), *name)
        write_atomic(done, str(unit).encode())
    return len(work), np.array(numbers, dtype=np.int64)


def own_days(spec: SharedRiskSpec, facts: Mapping[str, Facts], days: Sequence[int]) -> Integers:
    """The vector of one bank's tables of consecutive or scattered days, one after the other."""
    first, count = days[0], days[-1] - days[0] + 1
    made = [day_tables(facts[kind.name], kind, first, count, payments_below=spec.payments_below) for kind in spec.kinds]
    return np.concatenate([pack([table[day - first] for table in made]) for day in days])


def _relay_vector(own: Mapping[int, Integers], days: Sequence[int], size: int) -> Integers:
    """For each day 1 and the two halves of each number if we have its table, else zeros: halves have room to add up."""
    vector = np.zeros((len(days), 1 + 2 * size), dtype=np.int64)
    for place, day in enumerate(days):
        if day in own:
            vector[place, 0] = 1
            vector[place, 1 : 1 + size] = own[day] & ((1 << FIELD_BITS) - 1)
            vector[place, 1 + size :] = own[day] >> FIELD_BITS
    return vector.reshape(-1)


def relayed_tables(total: Integers, own: Mapping[int, Integers], days: Sequence[int], size: int) -> Integers:
    """The tables that all holders handed on alike, int64 (days, size).

    Raises:
        ProtocolViolation: they were not alike, or no holder is left.
    """
    rows = total.reshape(len(days), 1 + 2 * size)
    tables = np.empty((len(days), size), dtype=np.int64)
    for place, (day, row) in enumerate(zip(days, rows, strict=True)):
        holders = int(row[0])
        if holders < 1 or (row[1:] % holders).any():
            raise ProtocolViolation(f"the banks hand on different shared tables of day {day}, or none")
        halves = row[1:] // holders
        tables[place] = halves[:size] + (halves[size:] << FIELD_BITS)
        if day in own and not np.array_equal(tables[place], own[day]):
            raise ProtocolViolation(f"another bank hands on a shared table of day {day} that is not ours")
    return tables
