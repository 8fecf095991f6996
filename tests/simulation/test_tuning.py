"""A search among parameter sets in one run: the same sets are dropped, and the same bytes result, over any split."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bank_node.boosting import BoostingParameters, read_booster
from bank_node.boosting.row_files import BankRows
from bank_node.training.checkpoint import TreeFile
from bank_node.training.training_input import TrainingInput
from bank_node.training.tuning import STATE, tune_model, tuned_parameters
from protocol.errors import ConfigError, LocalError
from protocol.halving import sets_at_rungs, total_trees
from protocol.run_plan import RunPlan, TuningPlan
from simulator.harness.search import load_search
from simulator.harness.search import search as run_search
from simulator.harness.tables import SimulatedTable, auto_grid
from simulator.harness.training import federate, load_params, put_level
from simulator.harness.worker import PlainSums
from tests.simulation.tables import rows_and_labels

N = 2400
COLUMNS, LABELS = rows_and_labels(N, 5)
VALIDATES = np.arange(N) >= 1600
PARAMS = BoostingParameters.from_mapping({"max_bin": 16})
TUNING = TuningPlan(
    sets=({"max_depth": 1, "eta": 0.01}, {"max_depth": 4, "eta": 0.3}, {"max_depth": 3, "learning_rate": 0.1}),
    rungs=(2, 5),
)


def table(banks: int) -> SimulatedTable:
    split = np.random.default_rng(banks).integers(0, banks, N)
    train, validation = (
        {
            f"bank_{b}": BankRows(columns=COLUMNS[(split == b) & here], labels=LABELS[(split == b) & here])
            for b in range(banks)
        }
        for here in (~VALIDATES, VALIDATES)
    )
    return SimulatedTable(
        feature_names=tuple(f"f{i}" for i in range(5)),
        grids=tuple(auto_grid(COLUMNS[:, i]) for i in range(5)),
        train=train,
        test=validation,
        in_sample=False,
        validation=validation,
    )


def search(banks: int, mode: str, folder: Path, **options: object) -> tuple[str, dict]:
    results, _ = federate(table(banks), PARAMS, folder, mode=mode, alert_budget=0.01, tuning=TUNING, **options)
    assert len({json.dumps([r["model_sha256"], r["tuning"]]) for r in results.values()}) == 1
    return results["bank_0"]["model_json"], results["bank_0"]["tuning"]


def test_encrypted_over_three_banks_it_finds_what_one_bank_finds(tmp_path: Path) -> None:
    model, found = search(1, "plain", tmp_path)
    assert search(3, "threads", tmp_path) == (model, found)
    # Of three sets the worst was dropped at the first rung, and the best has gone on to the second.
    reached = [len(each["scores"]) for each in found["sets"]]
    first = [each["scores"][0] for each in found["sets"]]
    assert sorted(reached) == [1, 2, 2] and reached[first.index(min(first))] == 1
    last = [each["scores"][-1] if len(each["scores"]) == 2 else -1.0 for each in found["sets"]]
    assert found["best"] == last.index(max(last))
    # The model is that of the best set alone.
    best = tuple_of(found)
    alone, _ = federate(table(1), best, tmp_path / "alone", mode="plain", alert_budget=0.01)
    assert alone["bank_0"]["model_json"] == model and len(read_booster(model.encode()).trees) == 5


def tuple_of(found: dict) -> BoostingParameters:
    return BoostingParameters.from_mapping({"max_bin": 16, "n_estimators": 5} | found["sets"][found["best"]]["params"])


def test_real_processes_find_the_same(tmp_path: Path) -> None:
    assert search(2, "processes", tmp_path) == search(1, "plain", tmp_path / "one")


@pytest.mark.parametrize("stop_at", ["train/3/0", "train/6/rung", "train/8/0"])
def test_a_search_goes_on_after_a_stop(tmp_path: Path, stop_at: str) -> None:
    given = table(1)
    steps: list[str] = []

    def run(folder: Path, stop: str = "") -> bytes:
        seat = PlainSums(["bank_0"]).seat("bank_0")

        class Stopping:
            bank, members = seat.bank, seat.members
            commit, rewind, report, reported = seat.commit, seat.rewind, seat.report, seat.reported
            adopt_roster = seat.adopt_roster

            def secure_sum(self, step: str, vector: np.ndarray, *, bound: int | None = None) -> np.ndarray:
                if step == stop:
                    raise KeyboardInterrupt
                steps.append(step)
                return vector

        ours = TrainingInput(
            rows=given.train["bank_0"],
            feature_names=given.feature_names,
            grids=given.grids,
            params=PARAMS,
            validation=given.validation["bank_0"],
        )
        model, _ = tune_model(ours, TUNING, Stopping(), folder, lambda _: None)
        return model.model_json

    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole")
    asked = list(steps)
    assert len(asked) == len(set(asked)), "no step is asked twice in a run"
    rounds = [int(step.split("/")[1]) for step in asked if step.startswith("train/")]
    assert rounds == sorted(rounds) and rounds[-1] == total_trees(3, TUNING.rungs) == 12
    steps.clear()
    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at)
    done = len(steps)
    assert run(tmp_path / "cut") == whole
    assert steps[done] == stop_at, "nothing that was done is done again"
    assert steps[:done] + steps[done:] == asked
    assert tuned_parameters(tmp_path / "cut", PARAMS, TUNING) == tuple_of(
        json.loads((tmp_path / "cut" / STATE).read_text())
    )
    assert tuned_parameters(tmp_path / "cut", PARAMS, None) == PARAMS


def test_banks_that_stopped_apart_are_put_level(tmp_path: Path) -> None:
    model, _ = search(2, "plain", tmp_path / "cut", resume=True)
    work = tmp_path / "cut" / "work"
    state = json.loads((work / "bank_1" / STATE).read_text())
    (work / "bank_1" / STATE).write_text(json.dumps({"known": state["known"][:2]}))
    third = work / "bank_0" / "set_2" / "trees.bin"
    data = third.read_bytes()
    third.write_bytes(data[: len(data) // 2])
    put_level(work, ["bank_0", "bank_1"])
    assert json.loads((work / "bank_0" / STATE).read_text())["known"] == state["known"][:2]
    files = [TreeFile(work / bank / "set_2" / "trees.bin") for bank in ("bank_0", "bank_1")]
    assert len(files[0].trees) == len(files[1].trees) < 5
    for file in files:
        file.close()
    assert search(2, "plain", tmp_path / "cut", resume=True)[0] == model
    (work / "bank_0" / "bins.npz").unlink()
    put_level(work, ["bank_0", "bank_1"])
    assert not work.exists(), "without bins there is nothing to go on from"


def test_halving_counts() -> None:
    assert sets_at_rungs(7, (1, 2, 3)) == [7, 4, 2] and sets_at_rungs(2, (5,)) == [2]
    assert total_trees(7, (10, 20, 50)) == 7 * 10 + 4 * 10 + 2 * 30


@pytest.mark.parametrize(
    ("tuning", "params", "text"),
    [
        ({"sets": [{}, {"eta": 2}], "rungs": [1]}, {}, "tuning, set 2: parameter eta must be above 0"),
        ({"sets": [{}, {"deep": 2}], "rungs": [1]}, {}, "tuning, set 2: unknown parameter 'deep'"),
        ({"sets": [{"max_bin": 9}, {}], "rungs": [1]}, {}, "tuning, set 1: max_bin can't differ"),
        ({"sets": [{}, {}], "rungs": [4, 4]}, {}, "rungs must be increasing"),
        ({"sets": [{}], "rungs": [4]}, {}, "tuning.sets"),
        ({"sets": [{}, {}], "rungs": [4]}, {"early_stopping_rounds": 3}, "leave out early_stopping_rounds"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_plan_that_can_t_work_is_refused_before_a_bank_joins(tuning: dict, params: dict, text: str) -> None:
    with pytest.raises(LocalError, match=text):
        RunPlan.from_json(json.dumps({"params": params, "tuning": tuning}))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = pd.DataFrame(COLUMNS[:, :3], columns=["a", "b", "c"])
    frame["bank"], frame["y"], frame["t"] = np.where(np.arange(N) % 2, "x", "z"), LABELS, np.arange(N)
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    frame.to_parquet(path)
    return path


@pytest.mark.slow
def test_the_command_searches_tells_and_goes_on(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text(
        "params: {max_bin: 16}\nsets: [{max_depth: 2}, {max_depth: 4}]\nrungs: [2, 4]\n"
    )
    command = [sys.executable, "-m", "simulator", "tune", "--table", str(rows), "--bank-column", "bank", "--label", "y"]
    command += ["--features", "a,b,c", "--time-column", "t", "--train-until", "2000", "--validate-from", "1500"]
    command += ["--search", str(tmp_path / "sets.yaml"), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "tuning.json").read_text())
    assert [len(each["scores"]) for each in report["sets"]].count(2) == 1 and report["metric"] == "aucpr"
    assert "<svg" in (tmp_path / "o" / "tuning.svg").read_text()
    best = (tmp_path / "o" / "best.yaml").read_text()
    assert f"max_depth: {report['sets'][report['best']]['params']['max_depth']}" in best and "n_estimators: 4" in best
    assert "max_depth" in done.stdout and (tmp_path / "o" / "model.json").exists()
    # Another search in the same folder would mix up two.
    (tmp_path / "sets.yaml").write_text(
        "params: {max_bin: 16}\nsets: [{max_depth: 1}, {max_depth: 4}]\nrungs: [2, 4]\n"
    )
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "holds another search" in again.stderr
    wrong = [part if part != "1500" else "999999" for part in command]
    assert "validation rows are none" in subprocess.run(wrong, capture_output=True, text=True, check=False).stderr


def test_the_best_sets_file_is_one_that_training_takes_and_other_rows_are_another_search(tmp_path: Path) -> None:
    plan = TuningPlan(sets=({"learning_rate": 0.1}, {"learning_rate": 0.6}), rungs=(1, 2))
    params = BoostingParameters.from_mapping({"eta": 0.2, "max_depth": 2, "max_bin": 8})
    run_search(table(2), params, plan, tmp_path / "o")
    assert load_params(tmp_path / "o" / "best.yaml").eta in (0.1, 0.6)
    changed = table(2)
    rows = changed.train["bank_0"]
    columns = rows.columns.copy()
    columns[0, 0] += 1e-3
    changed.train["bank_0"] = replace(rows, columns=columns)
    with pytest.raises(ConfigError, match="holds another search"):
        run_search(changed, params, plan, tmp_path / "o")


@pytest.mark.parametrize("text", ["params: [1]", "params: text"])
def test_parameters_of_a_search_must_be_a_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"s\.yaml: params must be a mapping"):
        load_search(tmp_path / "s.yaml")
