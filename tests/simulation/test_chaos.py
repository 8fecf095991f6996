"""Banks, the aggregator, both are killed, and the network spoiled: every run ends, with the right model or none.

What can be resumed must end with the bytes of an undisturbed run; a bank that stays away is dropped, and the rest end
with the bytes that its absence, from that round on, must give.
"""

import random
import time
from pathlib import Path

import pytest

from simulator.harness.tables import SimulatedTable
from tests.simulation.chaos import PARAMS, Chaos, Proxy, after_drop, chaos, undisturbed
from tests.simulation.tables import small_table


@pytest.fixture(scope="module")
def table() -> SimulatedTable:
    return small_table(banks=4, rows=1200, features=4)


@pytest.fixture(scope="module")
def expected(table: SimulatedTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    return undisturbed(table, tmp_path_factory.mktemp("undisturbed"))


def _start_all(run: Chaos) -> None:
    for bank in run.table.train:
        run.start(bank)


def _agree(run: Chaos, expected: str, banks: list[str] | None = None) -> None:
    results = run.finish(banks)
    assert {result["model_sha256"] for result in results.values()} == {expected}


def _kill_a_bank_and_start_it_again(tmp_path: Path, table: SimulatedTable, expected: str, seed: int) -> None:
    chance = random.Random(seed)
    with chaos(tmp_path / str(seed), table) as run:
        _start_all(run)
        for _ in range(chance.choice([1, 1, 2])):
            victim = chance.choice(list(table.train))
            run.some_moment(chance)
            if run.banks[victim].is_alive():
                run.kill(victim)
                time.sleep(chance.choice([0, 0, 0.5]))
                run.start(victim)
        _agree(run, expected)


def _kill_a_bank_for_good(tmp_path: Path, table: SimulatedTable, seed: int) -> None:
    chance = random.Random(seed)
    with chaos(tmp_path / str(seed), table, step_seconds=2) as run:
        _start_all(run)
        victim = chance.choice(list(table.train))
        run.some_moment(chance)
        run.kill(victim)
        left = [bank for bank in table.train if bank != victim]
        results = run.finish(left)
        # A bank killed after the last round, or after the release, has given all it had to give.
        rounds = run.rounds_before_drop(left[0]) if run.view().attempt else PARAMS.n_estimators
        expected = after_drop(table, tmp_path / f"expected-{seed}", victim, rounds)
        assert {result["model_sha256"] for result in results.values()} == {expected}, rounds


def _kill_the_node(tmp_path: Path, table: SimulatedTable, expected: str, seed: int, *, bank_too: bool) -> None:
    chance = random.Random(seed)
    with chaos(tmp_path / str(seed), table) as run:
        _start_all(run)
        for _ in range(chance.choice([1, 1, 2])):
            run.some_moment(chance)
            victim = chance.choice(list(table.train))
            if bank_too and run.banks[victim].is_alive():
                run.kill(victim)
                run.kill_node()
                run.start(victim)
            else:
                run.kill_node()
            run.node.start()
        _agree(run, expected)


def _spoil_the_network(tmp_path: Path, table: SimulatedTable, expected: str, seed: int) -> None:
    proxy = Proxy(seed)
    with chaos(tmp_path / str(seed), table, proxy=proxy) as run:
        _start_all(run)
        _agree(run, expected)
        assert sum(proxy.faults.values()), "the proxy did nothing"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_bank_that_comes_back_ends_with_the_same_bytes(
    tmp_path: Path, table: SimulatedTable, expected: str, seed: int
) -> None:
    _kill_a_bank_and_start_it_again(tmp_path, table, expected, seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_bank_that_stays_away_is_dropped_and_the_rest_release(
    tmp_path: Path, table: SimulatedTable, seed: int
) -> None:
    _kill_a_bank_for_good(tmp_path, table, seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_aggregator_goes_on_with_the_same_bytes(
    tmp_path: Path, table: SimulatedTable, expected: str, seed: int
) -> None:
    _kill_the_node(tmp_path, table, expected, seed, bank_too=False)


def test_a_killed_aggregator_and_bank_go_on_with_the_same_bytes(
    tmp_path: Path, table: SimulatedTable, expected: str
) -> None:
    _kill_the_node(tmp_path, table, expected, 3, bank_too=True)


@pytest.mark.slow
def test_a_network_that_spoils_everything_changes_no_byte(tmp_path: Path, table: SimulatedTable, expected: str) -> None:
    _spoil_the_network(tmp_path, table, expected, 1)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_fifty_kills_of_a_bank(tmp_path: Path, table: SimulatedTable, expected: str, block: int) -> None:
    for seed in range(100 + 10 * block, 110 + 10 * block):
        if seed % 2:
            _kill_a_bank_and_start_it_again(tmp_path, table, expected, seed)
        else:
            _kill_a_bank_for_good(tmp_path, table, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_fifty_kills_of_the_aggregator(tmp_path: Path, table: SimulatedTable, expected: str, block: int) -> None:
    for seed in range(200 + 10 * block, 210 + 10 * block):
        _kill_the_node(tmp_path, table, expected, seed, bank_too=seed % 3 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_ten_spoilt_networks(tmp_path: Path, table: SimulatedTable, expected: str, block: int) -> None:
    for seed in range(300 + 2 * block, 302 + 2 * block):
        _spoil_the_network(tmp_path, table, expected, seed)


def test_a_run_with_too_few_banks_left_pauses_and_goes_on_when_one_comes_back(
    tmp_path: Path, table: SimulatedTable, expected: str
) -> None:
    with chaos(tmp_path, table, step_seconds=1, minimum_roster=4) as run:
        _start_all(run)
        victim = next(iter(table.train))
        run.wait(lambda v: v.rounds_done >= 1)
        run.kill(victim)
        view = run.wait(lambda v: v.paused_since > 0)
        assert view.waiting_for == (victim,)
        run.start(victim)
        _agree(run, expected)
        assert any(f"paused at step {view.step}" in event.text for event in run.view().events)


def test_a_run_that_pauses_too_long_is_ended(tmp_path: Path, table: SimulatedTable) -> None:
    with chaos(tmp_path, table, step_seconds=1, pause_seconds=1, minimum_roster=4) as run:
        _start_all(run)
        victim = next(iter(table.train))
        run.wait(lambda v: v.rounds_done >= 1)
        run.kill(victim)
        view = run.wait(lambda v: v.phase == "ABORTED")
        assert victim in view.reason and "nor in 1 s of waiting" in view.reason
        for bank, process in run.banks.items():
            process.join(60)
            assert not (run.folder / bank / "secrets.json").exists() or bank == victim


def test_a_dropped_bank_that_comes_back_too_late_is_told_so(tmp_path: Path, table: SimulatedTable) -> None:
    with chaos(tmp_path, table, step_seconds=1) as run:
        _start_all(run)
        victim = next(iter(table.train))
        run.wait(lambda v: v.rounds_done >= 1)
        run.kill(victim)
        run.wait(lambda v: v.attempt == 1)
        run.start(victim)
        run.banks[victim].join(60)
        assert "went on without bank" in run.errors()[victim]
        run.finish([bank for bank in table.train if bank != victim])
