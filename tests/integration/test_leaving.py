"""A bank that can't go on says so and the others go on at once; no ended run leaves keys on a bank's disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from bank_node.pipeline import data_steps, model_steps, working
from bank_node.secure_aggregation.leaving import SECRETS, leave_run, wipe_ended_runs
from bank_node.secure_aggregation.session import RunSession
from features import load_contract
from protocol.errors import DamagedRunFiles, LocalError, NothingToLearn, RosterChanged, RunAborted
from protocol.messages import RunView
from protocol.run_plan import RunPlan
from protocol.run_state import Phase
from simulator.generator import GeneratorSettings, generate
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel
from tests.integration.test_contracts import configure

CONTRACT = load_contract()
FOUR = [*BANKS, "dune_bank"]
SMALL = {"n_estimators": 3, "max_depth": 2, "max_bin": 16}


def view_of(node: Node, run: str) -> RunView:
    with node.operator() as operator:
        return operator.get_run(run)


def keyed(node: Node, banks: list[str], **settings: Any) -> tuple[str, dict[str, RunSession]]:
    """A run whose banks have exchanged keys."""
    run = node.open(banks, **settings)
    sessions = {bank: node.session(bank, run) for bank in banks}

    def begin(bank: str) -> None:
        sessions[bank].join(FINGERPRINT)
        sessions[bank].exchange_keys()

    in_parallel(banks, begin)
    return run, sessions


def keys_of(node: Node, bank: str, run: str) -> Path:
    return node.folder / bank / run / SECRETS


def leave(node: Node, bank: str, run: str, reason: str = "its files of the run are damaged") -> list[str]:
    said: list[str] = []
    client = node.client(bank)
    leave_run(client, run, node.folder / bank / run, reason, said.append)
    client.close()
    return said


def wipe(node: Node, bank: str, held: str = "") -> list[str]:
    """What the bank's next step, whatever it is, does first."""
    return wipe_ended_runs(
        node.folder / bank, node.folder / bank / "rows", lambda: node.client(bank), lambda _: None, held=held
    )


# -- leaving ------------------------------------------------------------------------------------------------------


def test_the_others_go_on_at_once_when_a_bank_withdraws(node: Node) -> None:
    run, sessions = keyed(node, FOUR, step_seconds=3000, pause_seconds=3000)
    lost, others = FOUR[3], FOUR[:3]

    def add(bank: str) -> np.ndarray:
        while True:
            try:
                return sessions[bank].secure_sum("bins/0/0", np.full(5, 1 + FOUR.index(bank)))
            except RosterChanged:
                sessions[bank].adopt_roster()
                sessions[bank].rewind("keys")

    with ThreadPoolExecutor(3) as pool:
        sums = [pool.submit(add, bank) for bank in others]
        while len(view_of(node, run).step) == 0:
            time.sleep(0.05)
        said = leave(node, lost, run)
        # Without the withdrawal they would wait for 3000 s.
        assert [found.result(timeout=60).tolist() for found in sums] == [[6] * 5] * 3
    view = view_of(node, run)
    assert set(view.members) == set(others) and view.phase == "BINNING"
    assert any(e.text.endswith(f"bank {lost} withdrew: its files of the run are damaged") for e in view.events)
    assert "withdrew from run" in said[0] and not keys_of(node, lost, run).exists()
    assert leave(node, lost, run) == [], "saying it twice changes nothing"
    with pytest.raises(RunAborted, match="it withdrew, or did not answer in time"):
        sessions[lost].adopt_roster()


def test_with_too_few_left_the_run_ends_at_once_and_everybody_knows_why(node: Node) -> None:
    run, sessions = keyed(node, BANKS, step_seconds=3000, pause_seconds=3000)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(sessions[bank].secure_sum, "bins/0/0", np.ones(3)) for bank in BANKS[:2]]
        leave(node, BANKS[2], run, "it has no labelled rows for the run's dates")
        for each in waiting:
            with pytest.raises(
                RunAborted, match=r"withdrew: it has no labelled rows .*; 2 banks are left, 3 are needed"
            ):
                each.result(timeout=60)
    assert view_of(node, run).phase == "ABORTED"
    assert not [bank for bank in BANKS if keys_of(node, bank, run).exists()]


def test_a_bank_leaves_before_the_keys_and_while_they_are_exchanged(node: Node) -> None:
    run = node.open(FOUR, enrol_seconds=3000, step_seconds=3000)
    sessions = {bank: node.session(bank, run) for bank in FOUR}
    sessions[FOUR[3]].join(FINGERPRINT)
    said = leave(node, FOUR[3], run, "its data can't be used")
    view = view_of(node, run)
    assert view.joined == () and view.phase == "ENROLLING" and "does not join" in said[0]
    # It may change its mind, as one that had declined may.
    sessions[FOUR[3]].join(FINGERPRINT)
    for bank in FOUR[:3]:
        sessions[bank].join(FINGERPRINT)
    assert view_of(node, run).phase == "KEYING"
    with ThreadPoolExecutor(3) as pool:
        begun = [pool.submit(sessions[bank].exchange_keys) for bank in FOUR[:3]]
        leave(node, FOUR[3], run)
        for each in begun:
            each.result(timeout=60)
    assert view_of(node, run).phase == "BINNING" and len(view_of(node, run).members) == 3


def test_nobody_makes_another_bank_leave(node: Node) -> None:
    run, _ = keyed(node, FOUR)
    client = node.client(FOUR[0])
    client.bank = FOUR[3]
    said: list[str] = []
    leave_run(client, run, node.folder / "nowhere", "x", said.append)
    client.close()
    assert "could not say that it leaves" in said[0]
    assert len(view_of(node, run).members) == 4


def test_a_withdrawal_outlives_the_node_s_restart(node: Node) -> None:
    from aggregator.persistence.store import Store
    from aggregator.runs.coordinator import Coordinator

    run, _ = keyed(node, FOUR)
    leave(node, FOUR[3], run)
    enrolling = node.open(FOUR)
    session = node.session(FOUR[0], enrolling)
    session.join(FINGERPRINT)
    leave(node, FOUR[0], enrolling)
    again = Coordinator(Store(f"sqlite:///{node.folder / 'aggregator.db'}"))
    assert set(again.run(run).members) == set(BANKS)
    assert again.run(enrolling).joined == ()


# -- keys ---------------------------------------------------------------------------------------------------------


def _released(node: Node, run: str, sessions: dict[str, RunSession]) -> None:
    """All but one bank's process sees the release; that one's was killed right after its vote."""

    def finish(bank: str) -> None:
        session = sessions[bank]
        for phase in (Phase.BINNING, Phase.TRAINING, Phase.EVALUATING, Phase.VOTING):
            session.report(phase, "ab" * 32)

    in_parallel(list(sessions), finish)


def _aborted(node: Node, run: str, sessions: dict[str, RunSession]) -> None:
    with node.operator() as operator:
        operator.abort_run(run, "the operator ended it")


def _dropped(node: Node, run: str, sessions: dict[str, RunSession]) -> None:
    coordinator = node.server.coordinator
    with coordinator._lock:
        coordinator._drop(coordinator._run(run), [FOUR[0]], "no answer within 1 s")


def _lost(node: Node, run: str, sessions: dict[str, RunSession]) -> None:
    node.server.coordinator._runs.pop(run)


@pytest.mark.parametrize("end", [_released, _aborted, _dropped, _lost])
def test_the_keys_of_a_run_that_ended_meanwhile_are_gone_with_the_bank_s_next_step(
    node: Node, end: Callable[[Node, str, dict[str, RunSession]], None]
) -> None:
    run, sessions = keyed(node, FOUR)
    away = FOUR[0]
    assert keys_of(node, away, run).exists() and wipe(node, away) == [], "a run under way keeps its keys"
    end(node, run, sessions)
    rows = node.folder / away / "rows" / run
    rows.mkdir(parents=True)
    assert wipe(node, away) == [run]
    assert not keys_of(node, away, run).exists() and not rows.exists()
    assert wipe(node, away) == []


def test_a_node_that_can_t_be_asked_wipes_nothing_and_it_is_said(node: Node) -> None:
    run, _ = keyed(node, FOUR)
    said: list[str] = []
    client = node.client(FOUR[0], patience_seconds=0.1)
    node.server.stop()
    assert wipe_ended_runs(node.folder / FOUR[0], node.folder / "rows", lambda: client, said.append) == []
    assert keys_of(node, FOUR[0], run).exists() and "its keys stay" in said[0]


# -- by the bank's own steps --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("extracted")
    made = generate(GeneratorSettings(banks=4, customers=80, merchants=50, days=40, seed=5), folder / "data")
    found = {}
    for bank, events in zip(FOUR, made.events.values(), strict=True):
        path = folder / f"{bank}.yaml"
        node = {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}
        document = {"bank_id": bank, "events": str(events), "work_dir": str(folder / bank), "aggregator": node}
        path.write_text(yaml.safe_dump(document))
        pipeline.extract(path, log=lambda _: None)
        found[bank] = (events, folder / bank)
    return found


@pytest.fixture
def configs(node: Node, extracted: dict[str, tuple[Path, Path]]) -> Iterator[dict[str, Path]]:
    found = {}
    for bank, (events, work) in extracted.items():
        found[bank] = configure(node, bank, events, "data")
        shutil.copytree(work, load_config(found[bank]).work_dir)
    yield found


def opened(node: Node, banks: list[str], params: dict[str, Any], **settings: Any) -> str:
    plan = RunPlan(params=params, train_until=settings.pop("train_until", None)).to_json()
    wanted = {"contract_fingerprint": CONTRACT.fingerprint, "parameters_json": plan} | settings
    return node.open(banks, rounds=params["n_estimators"], **wanted)


def test_a_bank_with_nothing_to_learn_declines_with_a_reason_and_no_count(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, BANKS, SMALL, train_until="2020-01-01T00:00:00")
    with pytest.raises(NothingToLearn, match="no labelled row before 2020-01-01"):
        pipeline.train(configs[BANKS[0]], run, log=lambda _: None)
    texts = [event.text for event in view_of(node, run).events if event.bank == BANKS[0]]
    assert texts == ["does not join: it has no labelled rows for the run's dates"]


def test_a_bank_that_refuses_the_roster_s_minimum_declines(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, BANKS, SMALL, minimum_roster=2)
    with pytest.raises(LocalError, match="accepts no fewer than 3"):
        pipeline.train(configs[BANKS[0]], run, log=lambda _: None)
    assert [e.text for e in view_of(node, run).events if e.bank == BANKS[0]] == [
        "does not join: an error on its own side"
    ]


@pytest.mark.slow
def test_a_bank_with_a_damaged_checkpoint_withdraws_and_the_others_end_with_a_model(
    node: Node, configs: dict[str, Path]
) -> None:
    """One bank's process is killed in the middle of training and its checkpoint is damaged before it comes back."""
    params = SMALL | {"n_estimators": 40}
    run = opened(node, FOUR, params, step_seconds=3000, pause_seconds=3000)
    hurt, config = FOUR[3], load_config(configs[FOUR[3]])
    trees = config.run_dir(run) / "trees.bin"
    command = [sys.executable, "-m", "bank_node", "train", "--config", str(configs[hurt]), "--run", run]
    command.append("--ignore-gate")
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(pipeline.train, configs[bank], run, log=lambda _: None) for bank in BANKS]
        first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not trees.exists() or trees.stat().st_size < 600:
            assert first.poll() is None
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        body = bytearray(trees.read_bytes())
        body[60] ^= 1
        trees.write_bytes(body)
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert again.returncode == 2 and "Traceback" not in again.stderr, again.stderr
        assert f"checkpoint {trees} is damaged at tree 0; the bank can't go on with this run" in again.stderr
        assert "withdrew from run" in again.stderr and not (config.run_dir(run) / SECRETS).exists()
        assert len({other.result(timeout=100)["model_sha256"] for other in others}) == 1
    view = view_of(node, run)
    assert view.phase == "EVALUATING" and set(view.members) == set(BANKS)


@pytest.mark.slow
def test_the_keys_of_a_run_that_was_aborted_while_no_process_ran_go_with_any_step(
    node: Node, configs: dict[str, Path]
) -> None:
    run = opened(node, BANKS, SMALL | {"n_estimators": 400})
    path, config = configs[BANKS[0]], load_config(configs[BANKS[0]])
    secrets = config.run_dir(run) / SECRETS
    command = [sys.executable, "-m", "bank_node"]
    train = [*command, "train", "--config", str(path), "--run", run, "--ignore-gate"]
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(pipeline.train, configs[bank], run, log=lambda _: None) for bank in BANKS[1:]]
        process = subprocess.Popen(train, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (secrets.exists() and view_of(node, run).phase == "TRAINING"):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with node.operator() as operator:
            operator.abort_run(run, "enough")
        for other in others:
            with pytest.raises(RunAborted):
                other.result(timeout=60)
    assert secrets.exists()
    done = subprocess.run([*command, "wipe-keys", "--config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout) == {"wiped": [run]}, done.stderr
    assert not secrets.exists() and "it ended in ABORTED" in done.stderr


def test_every_step_wipes_first(node: Node, configs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for steps in (data_steps, model_steps, working):
        monkeypatch.setattr(steps, "wipe_keys", lambda config, *, log, held="": seen.append(held))
    run = opened(node, BANKS, SMALL, train_until="2020-01-01T00:00:00")
    path = configs[BANKS[0]]
    pipeline.extract(path, log=lambda _: None)
    pipeline.purge(path, log=lambda _: None)
    pipeline.gate(path, run, log=lambda _: None)
    for step in (pipeline.train, pipeline.evaluate, pipeline.register):
        with pytest.raises(LocalError):
            step(path, run, log=lambda _: None)
    with pytest.raises(LocalError):
        pipeline.score(path, log=lambda _: None)
    assert seen == ["", "", run, run, run, run, ""]


def test_a_decline_of_a_damaged_ledger_leaves_no_keys(node: Node) -> None:
    run, sessions = keyed(node, FOUR)
    folder = node.folder / FOUR[0] / run
    for session in sessions.values():
        session.client.close()
    (folder / "ledger.jsonl").write_bytes(b"{}\n")
    with pytest.raises(DamagedRunFiles):
        node.session(FOUR[0], run)
