"""The gate: a bank with a broken feed is stopped with the reason, at its own side and at the node; the others go on."""

import datetime as dt
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from bank_node import pipeline
from bank_node.cli import app
from bank_node.config import load_config
from bank_node.data_governance.quality_report import expected_until
from features import load_contract
from protocol.errors import ProtocolViolation, QualityGateClosed
from protocol.messages import JoinRequest
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from tests.conftest import BANKS, Node, in_parallel
from tests.integration.test_contracts import configure

CONTRACT = load_contract()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Each bank's payments, the last one's feed broken, and its work folder after an extraction."""
    folder = tmp_path_factory.mktemp("extracted")
    made = generate(GeneratorSettings(banks=3, customers=150, merchants=60, days=80, seed=3), folder / "data")
    events = dict(zip(BANKS, made.events.values(), strict=True))
    table = pd.read_parquet(events[BANKS[2]])
    early = table["event_time"] < table["event_time"].max() - pd.Timedelta(days=9)
    table[early | (table.index % 20 == 0)].to_parquet(events[BANKS[2]], index=False)
    for bank in BANKS:
        node = {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}
        document = {"bank_id": bank, "events": str(events[bank]), "work_dir": str(folder / bank), "aggregator": node}
        (folder / f"{bank}.yaml").write_text(yaml.safe_dump(document))
        pipeline.extract(folder / f"{bank}.yaml", log=lambda _: None)
    return {bank: (events[bank], folder / bank) for bank in BANKS}


@pytest.fixture
def configs(node: Node, extracted: dict[str, tuple[Path, Path]], tmp_path: Path) -> dict[str, Path]:
    found = {}
    for bank, (events, work) in extracted.items():
        (tmp_path / "data" / bank).mkdir(parents=True)
        found[bank] = configure(node, bank, Path(shutil.copy(events, tmp_path / "data" / bank)), "gated")
        shutil.copytree(work, load_config(found[bank]).work_dir)
    return found


def opened(node: Node, minimum: int, **plan: object) -> str:
    parameters = RunPlan(params={"n_estimators": 2, "max_depth": 3}, **({"data_until": "2026-03-22"} | plan)).to_json()
    return node.open(
        contract_fingerprint=CONTRACT.fingerprint,
        parameters_json=parameters,
        minimum_roster=minimum,
        rounds=2,
        enrol_seconds=600,
    )


def two_banks(configs: dict[str, Path]) -> None:
    for config in configs.values():
        config.write_text(config.read_text() + "minimum_roster: 2\n")


def test_a_broken_feed_is_stopped_and_the_others_go_on(node: Node, configs: dict[str, Path]) -> None:
    two_banks(configs)
    run = opened(node, 2)

    def take_part(bank: str) -> dict:
        try:
            pipeline.gate(configs[bank], run, log=lambda _: None)
        except QualityGateClosed as closed:
            return {"closed": str(closed)}
        return pipeline.train(configs[bank], run, log=lambda _: None)

    found = in_parallel(BANKS, take_part)
    broken = found.pop(BANKS[2])
    assert "does not join run" in broken["closed"] and "of the last 14 days have a volume" in broken["closed"]
    assert len({result["model_sha256"] for result in found.values()}) == 1
    with node.operator() as operator:
        view = operator.get_run(run)
    told = [event.text for event in view.events if event.bank == BANKS[2]]
    assert told == ["does not join: data quality gate: volume"], "the rule, and no count"
    ended = [event.text for event in view.events if event.text.startswith("ended BINNING")]
    assert len(ended) == 2 and all("shared risk: " in text and "drift (largest PSI): " in text for text in ended)
    assert len({text.partition("all banks read ")[2].partition(";")[0] for text in ended}) == 1
    assert " rows, 0 quarantined" in ended[0]
    folder = load_config(configs[BANKS[0]])
    drift = json.loads((folder.run_dir(run) / "drift.json").read_text())
    assert set(drift["consortium"]) == set(CONTRACT.feature_names) == set(drift["own_past"])

    quality = load_config(configs[BANKS[2]]).work_dir / "quality"
    report = json.loads(next(quality.glob("*.json")).read_text())
    assert report["passed"] is False and len(report["days"]) == 80
    page = next(quality.glob("*.html")).read_text()
    assert "The gate is closed: data quality gate: volume." in page and page.count("<svg") >= 3


def test_with_too_few_banks_left_the_run_ends_at_once(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, 3)
    with pytest.raises(QualityGateClosed):
        pipeline.gate(configs[BANKS[2]], run, log=lambda _: None)
    with node.operator() as operator:
        assert operator.get_run(run).phase == "ENROLLING", "the others have not answered"
    for bank in BANKS[:2]:
        assert pipeline.gate(configs[bank], run, log=lambda _: None)["passed"]


def test_train_by_hand_asks_the_gate(node: Node, configs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    two_banks(configs)
    run = opened(node, 2)
    trained: list[str] = []
    monkeypatch.setattr(pipeline, "train", lambda config, run_id, log: trained.append(str(config)) or {})

    def train(bank: str, *options: str) -> Result:
        return CliRunner().invoke(app, ["train", "--config", str(configs[bank]), "--run", run, *options])

    stopped = train(BANKS[2])
    assert isinstance(stopped.exception, QualityGateClosed) and not trained
    with node.operator() as operator:
        texts = [event.text for event in operator.get_run(run).events if event.bank == BANKS[2]]
    assert texts == ["does not join: data quality gate: volume"]
    assert train(BANKS[0]).exit_code == 0 and trained == [str(configs[BANKS[0]])]
    ignored = train(BANKS[2], "--ignore-gate")
    assert ignored.exit_code == 0 and "the quality gate is not asked, by --ignore-gate" in ignored.output
    assert trained[1:] == [str(configs[BANKS[2]])]


def test_a_stale_feed_is_stopped_where_the_run_says_until_when(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, 3, data_until="2026-06-01")
    with pytest.raises(QualityGateClosed, match="the newest payment is of 2026-03-25, 68 days before 2026-06-01"):
        pipeline.gate(configs[BANKS[0]], run, log=lambda _: None)


def test_a_reason_of_a_peer_is_bounded() -> None:
    digest = "0" * 64
    for text in ("x" * 3000, "two\nlines", "\x1b[31m"):
        with pytest.raises(ProtocolViolation):
            JoinRequest(run_id="r", bank="b", contract_fingerprint=digest, he_fingerprint=digest, declined=text)


def test_a_drift_warns_above_one_bound_and_closes_the_gate_above_another(node: Node, configs: dict[str, Path]) -> None:
    """Amounts of the last weeks in another unit: no rule of counts sees it."""
    run, bank = opened(node, 3), BANKS[1]
    events = Path(load_config(configs[bank]).events)
    table, said = pd.read_parquet(events), []
    late = table["event_time"] > table["event_time"].max() - pd.Timedelta(days=25)

    def judged(factor: float) -> None:
        table.assign(amount=table["amount"].where(~late, table["amount"] * factor).round(2)).to_parquet(
            events, index=False
        )
        pipeline.extract(configs[bank], log=lambda _: None)
        said.clear()
        pipeline.gate(configs[bank], run, log=said.append)

    judged(1.0)
    told = [text for text in said if text.startswith("drift")]
    assert told and not [text for text in told if "history_days" in text or "pair_count" in text], "they only grow"
    judged(2.0)
    warned = [text for text in said if text.startswith("drift account_max_30d: warning: feature account_max_30d: PSI ")]
    assert warned and "a warning from 0.25 on, no joining from 1 on" in warned[0], said
    with pytest.raises(QualityGateClosed, match="feature amount: PSI"):
        judged(100.0)
    with node.operator() as operator:
        texts = [event.text for event in operator.get_run(run).events if event.bank == bank]
    assert len(texts) == 1 and "drift of amount" in texts[0]


def test_freshness_is_judged_whatever_the_plan_leaves_out() -> None:
    opening = dt.datetime(2026, 4, 1, 13, tzinfo=dt.UTC)
    assert expected_until(RunPlan(), opening) == dt.date(2026, 4, 1)
    assert expected_until(RunPlan(train_until="2026-03-01"), opening) == dt.date(2026, 3, 1)
    assert expected_until(RunPlan(train_until="2026-03-01", data_until="2026-03-20"), opening) == dt.date(2026, 3, 20)


def test_a_run_opened_as_documented_finds_a_stale_feed(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, 3, data_until=None)
    with pytest.raises(QualityGateClosed, match="the newest payment is of 2026-03-2"):
        pipeline.gate(configs[BANKS[0]], run, log=lambda _: None)
