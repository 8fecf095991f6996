"""The exchange among banks in threads, over sums in memory: key, days, tables, newcomers, crashes, lies."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.shared_risk.exchange import Exchanged, Period, agreed_key, exchange, key_id, relayed_tables
from bank_node.shared_risk.store import SharedStore
from features.contract.sections import EntityKind, SharedRiskSpec
from features.shared_risk import Facts, day_tables, tokens_of
from protocol.errors import LocalError, ProtocolViolation
from tests.unit.bank_node.boosting.lockstep import run_banks

SPEC = SharedRiskSpec(
    kinds=(EntityKind(name="merchant", channels=("card",), width=50, depth=2),), payments_below=1, history_days=60
)
KIND = SPEC.kinds[0]
START = 20_468  # 2026-01-15


class Stop(Exception):
    """A crash."""


class Consortium:
    """Sums in memory that remember, as the node does, so that a bank may come back for one; anchors that hold."""

    def __init__(self, secure_sum: Callable, kept: dict[str, np.ndarray], crash_after: str = "") -> None:
        self._sum, self._kept, self._crash_after = secure_sum, kept, crash_after
        self.steps: list[str] = []
        self.anchors = ["keys"]
        self.sent: dict[str, bytes] = {}

    def secure_sum(self, step: str, vector: np.ndarray, *, bound: int | None = None) -> np.ndarray:
        assert vector.dtype == np.int64 and np.abs(vector).max(initial=0) < 1 << 56
        self.steps.append(step)
        assert self.sent.setdefault(step, vector.tobytes()) == vector.tobytes(), f"other numbers for {step}"
        if step not in self._kept:
            self._kept[step] = self._sum(step, vector)
        if step == self._crash_after:
            self._crash_after = ""
            raise Stop
        return self._kept[step]

    def commit(self, name: str, digest: str) -> None:
        self.anchors.append(name)

    def rewind(self, name: str) -> None:
        assert name in self.anchors
        del self.anchors[self.anchors.index(name) + 1 :]

    def adopt_roster(self) -> None:
        raise AssertionError

    report = reported = adopt_roster


def facts(seed: int, days: range, key: bytes) -> dict[str, Facts]:
    rng = np.random.default_rng(seed)
    tokens = tokens_of(key, "merchant", [f"m{i}" for i in range(30)])
    paid, told = rng.integers(0, 30, 400), rng.integers(0, 30, 40)
    return {
        "merchant": Facts(
            tokens=tokens,
            paid_entity=paid,
            paid_day=rng.integers(days.start, days.stop, 400),
            told_entity=told,
            told_day=rng.integers(days.start, days.stop + 10, 40),
            told_customer=rng.integers(0, 9, 40),
        )
    }


def one(folder: Path, bank: int, days: range | None, consortium: Consortium, run: str = "run") -> Exchanged:
    run_dir = folder / f"{bank}" / run
    run_dir.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([100 + bank, *run.encode()])
    period = None if days is None else Period(first=days.start, last=days.stop - 1)
    return exchange(
        SPEC,
        SharedStore(folder / f"{bank}" / "shared"),
        period,
        lambda key: facts(bank, days or range(START - 900, START - 899), key),
        consortium,
        run_dir,
        random.bytes,
        lambda text: None,
    )


def run(folder: Path, days: dict[int, range | None], name: str = "run") -> tuple[dict[int, Exchanged], list[str]]:
    steps: list[list[str]] = []

    def bank(number: int) -> Callable:
        def work(secure_sum: Callable) -> Exchanged:
            consortium = Consortium(secure_sum, {})
            steps.append(consortium.steps)
            return one(folder, number, days[number], consortium, name)

        return work

    found = run_banks([bank(number) for number in days])
    assert all(each == steps[0] for each in steps)
    return dict(zip(days, found, strict=True)), steps[0]


def tables(folder: Path, bank: int, result: Exchanged) -> np.ndarray:
    assert result.agreed is not None
    first, last = result.agreed
    store = SharedStore(folder / f"{bank}" / "shared")
    return store.read(SPEC, key_id(result.key), KIND, first, last - first + 1)


def pooled(banks: dict[int, range], key: bytes, first: int, last: int) -> np.ndarray:
    return sum(
        day_tables(facts(bank, days, key)["merchant"], KIND, first, last - first + 1) for bank, days in banks.items()
    )


def test_every_bank_ends_with_the_sum_of_all_banks_tables(tmp_path: Path) -> None:
    days = {0: range(START, START + 50), 1: range(START + 7, START + 48), 2: range(START - 3, START + 49)}
    found, steps = run(tmp_path, days)
    assert len({result.key for result in found.values()}) == 1
    assert {result.agreed for result in found.values()} == {(START - 3, START + 47)}
    assert found[0].new_days == 51 and found[0].relayed_days == 0
    expected = pooled(days, found[0].key, START - 3, START + 47)
    for bank, result in found.items():
        assert np.array_equal(tables(tmp_path, bank, result), expected)
    assert steps[:2] == ["bins/0/link", "bins/0/days"] and steps[-1] == f"bins/{found[0].next_unit - 1}/day"
    assert found[0].anchor == f"shared/{found[0].next_unit - 1}"


def test_the_next_day_costs_one_days_table(tmp_path: Path) -> None:
    days = {bank: range(START, START + 20) for bank in range(3)}
    before, _ = run(tmp_path, days)
    kept = tables(tmp_path, 0, before[0])
    later = {bank: range(START, START + 21) for bank in range(3)}
    found, steps = run(tmp_path, later, "next")
    assert steps == ["bins/0/link", "bins/0/days", "bins/1/day"] and found[1].new_days == 1
    assert found[0].key == before[0].key
    assert np.array_equal(tables(tmp_path, 2, found[2])[:20], kept)


def test_a_newcomer_gets_key_and_tables_and_adds_nothing_to_the_days_before(tmp_path: Path) -> None:
    """Else the others could subtract the old sum from the new one, and would have the newcomer's own table."""
    old = {bank: range(START, START + 20) for bank in range(3)}
    before, _ = run(tmp_path, old)
    kept = tables(tmp_path, 0, before[0])
    found, steps = run(tmp_path, old | {3: range(START, START + 21)}, "next")
    assert found[3].key == before[0].key and found[3].relayed_days == 20 and found[3].new_days == 0
    assert np.array_equal(tables(tmp_path, 3, found[3]), kept)
    assert all("/day" not in step or step == "bins/0/days" for step in steps)


def test_a_bank_without_rows_holds_nobody_up(tmp_path: Path) -> None:
    days = {0: range(START, START + 9), 1: None, 2: range(START, START + 9)}
    found, _ = run(tmp_path, days)
    assert found[1].agreed == (START, START + 8)
    nobody, steps = run(tmp_path / "none", {0: None, 1: None})
    assert nobody[0].agreed is None and steps == ["bins/0/link"]


def test_old_days_are_not_asked_for_and_go(tmp_path: Path) -> None:
    days = {bank: range(START - 100, START + 20) for bank in range(2)}
    found, _ = run(tmp_path, days)
    assert found[0].agreed == (START + 19 - 59, START + 19) and found[0].new_days == 60
    run(tmp_path, {bank: range(START - 100, START + 30) for bank in range(2)}, "next")
    held = SharedStore(tmp_path / "0" / "shared").days(key_id(found[0].key), SPEC.sketch_digest)
    assert held == list(range(START + 29 - 59, START + 30))


def test_a_lost_key_at_one_bank_is_brought_again_and_two_keys_make_a_new_one(tmp_path: Path) -> None:
    days = {bank: range(START, START + 5) for bank in range(3)}
    first, _ = run(tmp_path, days)
    (tmp_path / "1" / "shared" / "link.key").unlink()
    second, _ = run(tmp_path, days, "b")
    assert second[1].key == first[0].key and second[1].new_days == 0
    SharedStore(tmp_path / "1" / "shared").set_key(b"x" * 32)
    third, _ = run(tmp_path, days, "c")
    assert len({result.key for result in third.values()}) == 1
    assert third[0].key not in (first[0].key, b"x" * 32) and third[0].new_days == 5
    assert len(list((tmp_path / "0" / "shared" / "tables").iterdir())) == 1


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=32, max_size=32) | st.none(), min_size=1, max_size=6), st.integers(0, 2**32))
def test_the_key_is_the_holders_or_fresh_and_the_same_for_all(held: list[bytes | None], seed: int) -> None:
    from bank_node.shared_risk import exchange as shared_risk

    rng = np.random.default_rng(seed)
    total = sum(shared_risk._begin_vector(key, None, rng.bytes) for key in held)
    holders = {key for key in held if key is not None}
    key = agreed_key(total)
    assert len(key) == 32
    if len(holders) == 1:
        assert key == holders.pop()
    else:
        assert key not in holders


@pytest.mark.parametrize("step", ["bins/0/link", "bins/0/days", "bins/1/day", "bins/2/day"])
def test_a_bank_that_crashes_after_any_step_goes_on_and_sends_the_same_numbers(tmp_path: Path, step: str) -> None:
    days = {bank: range(START, START + 10) for bank in range(3)}
    monkey = pytest.MonkeyPatch()
    monkey.setattr("bank_node.shared_risk.exchange._STEP_NUMBERS", 1200)  # six days a step
    try:
        whole, steps = run(tmp_path / "whole", days)
        assert step in steps

        def bank(number: int) -> Callable:
            def work(secure_sum: Callable) -> Exchanged:
                consortium = Consortium(secure_sum, {}, step if number == 1 else "")
                try:
                    return one(tmp_path / "torn", number, days[number], consortium)
                except Stop:
                    return one(tmp_path / "torn", number, days[number], consortium)

            return work

        found = run_banks([bank(number) for number in days])
    finally:
        monkey.undo()
    assert dataclasses.replace(found[1], seconds=0) == dataclasses.replace(whole[1], seconds=0)
    assert np.array_equal(tables(tmp_path / "torn", 1, found[1]), tables(tmp_path / "whole", 0, whole[0]))


def test_a_bank_that_hands_on_another_table_is_found_out(tmp_path: Path) -> None:
    days = {bank: range(START, START + 5) for bank in range(3)}
    found, _ = run(tmp_path, days)
    store = SharedStore(tmp_path / "1" / "shared")
    name = (key_id(found[0].key), SPEC.sketch_digest)
    table = store.load(START + 1, SPEC, *name)
    table[0][1, 0, 3] += 1
    store.save(START + 1, table, *name)
    with pytest.raises(ProtocolViolation, match=f"day {START + 1}"):
        run(tmp_path, days | {3: range(START, START + 5)}, "next")
    with pytest.raises(ProtocolViolation, match="or none"):
        relayed_tables(np.zeros(5, np.int64), {}, [7], 2)


def test_the_link_key_is_a_secret_file_and_never_in_a_table(tmp_path: Path) -> None:
    found, _ = run(tmp_path, {bank: range(START, START + 5) for bank in range(2)})
    path = tmp_path / "0" / "shared" / "link.key"
    assert path.stat().st_mode & 0o077 == 0
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "link.key":
            content = file.read_bytes()
            assert found[0].key not in content and found[0].key.hex().encode() not in content
    path.write_text("nonsense")
    path.chmod(0o600)
    with pytest.raises(LocalError, match="damaged"):
        SharedStore(tmp_path / "0" / "shared").key()
