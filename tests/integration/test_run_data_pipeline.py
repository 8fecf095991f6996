"""A run's weights, validation rows and earlier model reach the pipeline: the model is that of the pooled rows."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bank_node import pipeline, warm_up
from bank_node.boosting import read_booster, row_keys
from bank_node.boosting.row_files import BankRows
from bank_node.config import ShardsConfig, load_config
from bank_node.dataset.feature_tables import feature_blocks, feature_rows
from bank_node.dataset.run_rows import held_rows
from bank_node.dataset.splits import columns_of, labels_of, split_block, weigher
from bank_node.models.registry import released_model
from bank_node.secure_aggregation.ledger_audit import verify_run
from bank_node.secure_aggregation.session import RunSession
from bank_node.training.tuning import STATE
from features import load_contract
from protocol.errors import ConfigError, LocalError
from protocol.halving import total_trees
from protocol.run_plan import RunPlan, TuningPlan
from simulator.generator import GeneratorSettings, generate
from simulator.harness.tables import SimulatedTable
from simulator.harness.training import federate
from tests.conftest import BANKS, Node, in_parallel
from tests.integration.test_contracts import configure

CONTRACT = load_contract()
SMALL = {"n_estimators": 2, "max_depth": 3, "max_bin": 16}
STOPPING = SMALL | {"n_estimators": 12, "early_stopping_rounds": 1, "subsample": 0.8, "eta": 0.9}
DATES = {"train_until": "2026-03-01T00:00:00", "validate_from": "2026-02-10T00:00:00"}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Path]]:
    """Each bank's payments, weights and work_dir after extraction, made once."""
    folder = tmp_path_factory.mktemp("extracted")
    made = generate(GeneratorSettings(banks=3, customers=150, merchants=60, days=70, seed=3), folder / "data")
    found = {}
    for bank, events in zip(BANKS, made.events.values(), strict=True):
        ids = pd.read_parquet(events)["payment_id"].iloc[::3]
        weights, work = folder / f"{bank}_weights.parquet", folder / bank
        pd.DataFrame({"payment_id": ids, "certainty": np.linspace(0.5, 3.0, len(ids))}).to_parquet(weights)
        node = {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}
        document = {"bank_id": bank, "events": str(events), "work_dir": str(work), "aggregator": node}
        path = folder / f"{bank}.yaml"
        path.write_text(yaml.safe_dump(document))
        pipeline.extract(path, log=lambda _: None)
        found[bank] = (events, weights, work)
    return found


@pytest.fixture
def configs(node: Node, extracted: dict[str, tuple[Path, Path, Path]]) -> dict[str, Path]:
    found = {}
    for bank, (events, weights, work) in extracted.items():
        # One bank's rows are on Dask workers.
        more = {"shards": {"workers": 2, "shards": 3}} if bank == BANKS[1] else {}
        found[bank] = configure(node, bank, events, "data", row_weights=str(weights), **more)
        shutil.copytree(work, load_config(found[bank]).work_dir)
    return found


def trained(node: Node, configs: dict[str, Path], plan: RunPlan) -> dict[str, dict[str, Any]]:
    run = node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan.to_json())

    def take_part(bank: str) -> dict[str, Any]:
        result = pipeline.train(configs[bank], run, log=lambda _: None)
        pipeline.evaluate(configs[bank], run, log=lambda _: None)
        return result | pipeline.register(configs[bank], run, log=lambda _: None)

    return in_parallel(BANKS, take_part)


def pooled(configs: dict[str, Path], plan: RunPlan, warm: bytes, folder: Path) -> str:
    """The digest of one bank with everybody's rows, by hand."""
    begin, end = pd.Timestamp(plan.validate_from), pd.Timestamp(plan.train_until)
    gap = pd.Timedelta(days=CONTRACT.label.delay_days)
    parts: dict[str, list[BankRows]] = {"train": [], "validation": []}
    for path in configs.values():
        config = load_config(path)
        table = feature_rows(config, CONTRACT)
        table = table[table["is_fraud"].notna()]
        weights = weigher(config, CONTRACT, plan.weight_column)(table)
        times = table["event_time"]
        for part, here in {"train": times < begin, "validation": (times >= begin + gap) & (times < end)}.items():
            rows = table[here]
            parts[part].append(
                BankRows(
                    columns=columns_of(rows, CONTRACT),
                    labels=labels_of(rows),
                    weights=weights[here],
                    keys=row_keys(rows["row_id"]),
                )
            )
    assert sum(len(rows.labels) for rows in parts["validation"]) > 100
    one = {
        part: BankRows(
            **{
                name: np.concatenate([getattr(rows, name) for rows in found])
                for name in ("columns", "labels", "weights", "keys")
            }
        )
        for part, found in parts.items()
    }
    table = SimulatedTable(
        feature_names=CONTRACT.feature_names,
        grids=tuple(feature.grid.edges() for feature in CONTRACT.features),
        train={"one": one["train"]},
        test={"one": one["train"]},
        in_sample=True,
        validation={"one": one["validation"]},
    )
    results, _ = federate(table, plan.boosting, folder, mode="plain", alert_budget=0.01, warm=warm)
    return str(results["one"]["model_sha256"])


def test_a_bank_has_its_kernels_ready_before_it_joins(
    node: Node, configs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has joined, the others wait for its compiler."""
    plan = RunPlan(params=SMALL, train_until=DATES["validate_from"])
    run = node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan.to_json())
    ready = warm_up.warm_up
    said: list[str] = []

    def watched() -> float:
        said.append("ready")
        return ready()

    def joining(self: RunSession, *arguments: Any, **named: Any) -> None:
        said.append("joins")
        raise KeyboardInterrupt

    monkeypatch.setattr(warm_up, "warm_up", watched)
    monkeypatch.setattr(RunSession, "join", joining)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(configs[BANKS[0]], run, log=said.append)
    assert said.index("ready") < said.index("joins") and any(line.startswith("kernels are ready") for line in said)


@pytest.mark.slow
def test_the_banks_model_is_that_of_the_pooled_rows(node: Node, configs: dict[str, Path], tmp_path: Path) -> None:
    first = trained(node, configs, RunPlan(params=SMALL, train_until=DATES["validate_from"]))
    (digest,) = {result["model_sha256"] for result in first.values()}
    warm = released_model(load_config(configs[BANKS[0]]), digest)
    plan = RunPlan(params=STOPPING | {"warm_start": digest}, weight_column="certainty", **DATES)
    second = trained(node, configs, plan)
    assert {result["model_sha256"] for result in second.values()} == {pooled(configs, plan, warm, tmp_path / "one")}
    assert all(result["validation_rows"] > 0 for result in second.values())
    assert not [file for path in configs.values() for file in load_config(path).rows_dir.rglob("*.bin")]
    released = load_config(configs[BANKS[0]]).registry / "current.json"
    trees = read_booster(released.read_bytes()).trees
    assert 2 < len(trees) < 14, "it went on from the first, and stopped early"
    start = read_booster(warm).trees
    assert all((old.value == new.value).all() for old, new in zip(start, trees, strict=False))


@pytest.mark.slow
def test_a_run_searches_and_a_bank_that_stops_goes_on(
    node: Node, configs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = TuningPlan(sets=({"max_depth": 1, "eta": 0.01}, {"max_depth": 3, "eta": 0.5}), rungs=(2, 4))
    plan = RunPlan(params={"max_bin": 16}, tuning=tuning, **DATES)
    run = node.open(
        contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan.to_json(), rounds=total_trees(2, tuning.rungs)
    )
    whole, stopped = RunSession.secure_sum, []

    def stopping(self: RunSession, step: str, vector: np.ndarray, **options: Any) -> np.ndarray:
        if self.bank == BANKS[1] and step in ("train/2/rung", "train/5/0") and step not in stopped:
            stopped.append(step)
            raise OSError("stopped")
        return whole(self, step, vector, **options)

    monkeypatch.setattr(RunSession, "secure_sum", stopping)

    def take_part(bank: str) -> dict[str, Any]:
        while True:
            try:
                result = pipeline.train(configs[bank], run, log=lambda _: None)
                break
            except OSError:
                continue
        pipeline.evaluate(configs[bank], run, log=lambda _: None)
        return result | pipeline.register(configs[bank], run, log=lambda _: None)

    results = in_parallel(BANKS, take_part)
    assert stopped == ["train/2/rung", "train/5/0"]
    assert len({result["model_sha256"] for result in results.values()}) == 1
    config = load_config(configs[BANKS[1]])
    found = [json.loads((load_config(path).run_dir(run) / STATE).read_text()) for path in configs.values()]
    assert found[0] == found[1] == found[2]
    scores = [each["scores"] for each in found[0]["sets"]]
    assert found[0]["best"] == scores.index(max(scores, key=len))
    assert results[BANKS[0]]["params"]["max_depth"] == tuning.sets[found[0]["best"]]["max_depth"]
    assert results[BANKS[0]]["trees"] == 4
    assert len(read_booster((config.registry / "current.json").read_bytes()).trees) == 4
    findings = verify_run(config.run_dir(run), run, config.bank_id, config.aggregator.ca)
    assert not [finding.wrong for finding in findings if finding.wrong]


def test_a_bank_without_the_model_says_so_before_it_joins(node: Node, configs: dict[str, Path]) -> None:
    plan = RunPlan(params=SMALL | {"warm_start": "ab" * 32})
    run = node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan.to_json())
    with pytest.raises(LocalError, match=f"goes on from model abababababab, which bank {BANKS[0]} does not have"):
        pipeline.train(configs[BANKS[0]], run, log=lambda _: None)
    with node.operator() as operator:
        assert operator.get_run(run).joined == ()
    registry = load_config(configs[BANKS[0]]).registry
    registry.mkdir(parents=True)
    (registry / "any name.json").write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    assert released_model(load_config(configs[BANKS[0]]), digest) == b"{}"
    assert released_model(load_config(configs[BANKS[0]]), "") == b""


def test_weights_come_from_a_feature_or_the_banks_table(configs: dict[str, Path], tmp_path: Path) -> None:
    config = load_config(configs[BANKS[0]])
    table = feature_rows(config, CONTRACT)
    assert weigher(config, CONTRACT, "")(table) is None
    amounts = weigher(config, CONTRACT, "amount")(table)
    assert (amounts == table["amount"].to_numpy(np.float32)).all()
    weights = weigher(config, CONTRACT, "certainty")(table)
    assert 0.2 < (weights != 1).mean() < 0.5 and weights.min() >= 0.5 and weights.max() <= 3.0
    with pytest.raises(ConfigError, match=r"has no column 'doubt'; the run weighs rows by 'doubt'"):
        weigher(config, CONTRACT, "doubt")(table)
    with pytest.raises(LocalError, match="has no row_weights in its configuration"):
        weigher(config.model_copy(update={"row_weights": None}), CONTRACT, "doubt")(table)
    written = pd.read_parquet(config.events)["payment_id"].iloc[0]
    for text, message in {
        "payment_id,w\na,1\na,2\n": "missing or there twice",
        "payment_id,w\na,high\n": "must be a number",
        f"payment_id,w\n{written},-3\n": r"w\.csv, w: weights must lie between 0 and",
    }.items():
        path = tmp_path / "w.csv"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            weigher(config.model_copy(update={"row_weights": path}), CONTRACT, "w")(table)


def test_rows_in_files_are_those_of_the_whole_table(configs: dict[str, Path]) -> None:
    config = load_config(configs[BANKS[1]])
    table = feature_rows(config, CONTRACT)
    for block_rows in (1, 1000):
        blocks = list(feature_blocks(config, CONTRACT, block_rows=block_rows))
        assert len(blocks) > 2
        pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), table)
    plan = RunPlan(params=STOPPING, weight_column="certainty", **DATES)
    parts = split_block(CONTRACT, table, plan)
    with held_rows(config, CONTRACT, CONTRACT, plan, "run") as held:
        for files, part in (
            (held.training, parts.training),
            (held.validation, parts.validation),
            (held.test, parts.test),
        ):
            assert np.array_equal(files.part().columns, columns_of(part, CONTRACT), equal_nan=True)
            assert np.array_equal(files.part().labels, labels_of(part))
        rows = held.training.part()
        assert np.array_equal(rows.weights, weigher(config, CONTRACT, "certainty")(parts.training))
        assert np.array_equal(rows.keys, row_keys(parts.training["row_id"]))
        assert np.array_equal(held.times, parts.training["event_time"].to_numpy("datetime64[us]"))
        assert list(config.rows_dir.rglob("*.bin"))
    assert not list(config.rows_dir.rglob("*"))


def test_a_plan_that_can_t_work_is_refused(configs: dict[str, Path]) -> None:
    with pytest.raises(LocalError, match="validate_from must be before train_until"):
        RunPlan.from_json('{"validate_from": "2026-03-01T00:00:00", "train_until": "2026-03-01"}')
    with pytest.raises(LocalError, match="validate_from must be before train_until"):
        RunPlan.from_json('{"validate_from": "2026-03-01T00:30:00+00:00", "train_until": "2026-03-01"}')
    config = load_config(configs[BANKS[0]])
    table = feature_rows(config, CONTRACT)
    plan = RunPlan(params=STOPPING, train_until=DATES["train_until"])
    with (
        pytest.raises(LocalError, match="its plan names no validate_from"),
        held_rows(config, CONTRACT, CONTRACT, plan, "run"),
    ):
        pass
    early = RunPlan(params=SMALL, validate_from="2020-01-01")
    with (
        pytest.raises(LocalError, match="has no labelled row before 2020-01-01"),
        held_rows(config, CONTRACT, CONTRACT, early, "run"),
    ):
        pass
    parts = split_block(CONTRACT, table, RunPlan(params=STOPPING, **DATES))
    assert parts.validation is not None
    gap = pd.Timedelta(days=CONTRACT.label.delay_days)
    assert parts.training["event_time"].max() < pd.Timestamp(DATES["validate_from"])
    assert parts.validation["event_time"].min() >= pd.Timestamp(DATES["validate_from"]) + gap
    assert parts.validation["event_time"].max() < pd.Timestamp(DATES["train_until"])
    assert parts.test["event_time"].min() >= pd.Timestamp(DATES["train_until"]) + gap


def test_a_folder_that_can_t_hold_rows_is_named_and_left_as_it_was(configs: dict[str, Path], tmp_path: Path) -> None:
    config = load_config(configs[BANKS[0]])
    blocked = tmp_path / "file"
    blocked.write_text("")
    broken = config.model_copy(update={"work_dir": config.work_dir, "shards": ShardsConfig(workers=1, folder=blocked)})
    with (
        pytest.raises(LocalError, match=rf"bank {config.bank_id}: the run's rows can't be written to .*file"),
        held_rows(broken, CONTRACT, CONTRACT, RunPlan(params=SMALL), "run"),
    ):
        pass
    assert blocked.read_text() == ""


def test_rows_have_keys_where_one_set_of_a_search_samples(configs: dict[str, Path]) -> None:
    config = load_config(configs[BANKS[0]])
    search = TuningPlan(sets=({}, {"subsample": 0.5}), rungs=(1, 2))
    plan = RunPlan(params=SMALL, tuning=search, **DATES)
    with held_rows(config, CONTRACT, CONTRACT, plan, "run") as held:
        assert held.training.keyed
    with held_rows(config, CONTRACT, CONTRACT, RunPlan(params=SMALL, **DATES), "run") as held:
        assert not held.training.keyed


def test_a_search_is_checked_before_a_bank_joins() -> None:
    params = {"grow_policy": "lossguide", "max_leaves": 31}

    def plan(*sets: dict[str, object]) -> RunPlan:
        tuning = {"sets": list(sets), "rungs": [1, 2]}
        return RunPlan.from_json(json.dumps({"params": params, "tuning": tuning}))

    found = plan({"max_depth": 0}, {"learning_rate": 0.5}).parameter_sets
    assert [(each.max_depth, each.eta, each.n_estimators) for each in found] == [(0, 0.3, 2), (6, 0.5, 2)]
    with pytest.raises(LocalError, match="set 2: n_estimators can't differ"):
        plan({}, {"num_boost_round": 500})
    with pytest.raises(LocalError, match=r"set 1: .*nope"):
        plan({"monotone_constraints": {"nope": 1}}, {}).check_features(["amount"])
