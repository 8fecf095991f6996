"""`aggregator open-run`: what it puts into a run's plan, and files that people get wrong."""

import datetime as dt
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from aggregator.cli import app
from aggregator.pki.ca import revoke
from protocol.errors import ConfigError, CrossbankError, PlanError
from protocol.messages import RunView
from protocol.parameters import BoostingParameters
from protocol.run_plan import RunPlan, RunRequest, announced_plan
from simulator.harness.processes import operator_files
from tests.conftest import BANKS, FINGERPRINT, Node


@pytest.fixture
def command(node: Node) -> list[str]:
    files = operator_files(node.certificates)
    config = node.folder / "operator.yaml"
    keys = {"address": node.address, "ca": files.ca, "certificate": files.certificate, "key": files.key}
    config.write_text(yaml.safe_dump({name: str(value) for name, value in keys.items()}))
    banks = [word for bank in BANKS for word in ("--bank", bank)]
    return ["open-run", "--config", str(config), "--contract-fingerprint", FINGERPRINT, *banks]


def test_a_search_is_in_the_plan_and_the_run_has_its_rounds(node: Node, command: list[str], tmp_path: Path) -> None:
    search = tmp_path / "search.yaml"
    search.write_text("sets: [{max_depth: 3}, {max_depth: 5}]\nrungs: [2, 6]\n")
    words = ["--tune", str(search), "--validate-from", "2026-02-01", "--train-until", "2026-03-01"]
    result = CliRunner().invoke(app, [*command, *words, "--weight-column", "amount"])
    assert result.exit_code == 0, result.output
    view = node.server.coordinator.run(result.output.strip())
    plan = RunPlan.from_json(view.settings.parameters_json)
    assert plan.tuning is not None and plan.tuning.rungs == (2, 6)
    assert plan.weight_column == "amount" and plan.validate_from is not None
    assert view.settings.rounds == 2 * 2 + 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "search.yaml can't be read"),
        ("sets: [", "search.yaml is not YAML"),
        ("- 1", "search.yaml must be a mapping"),
        ("sets: [{}]", "tuning.sets: Tuple should have at least 2 items"),
        ("sets: [{}, {}]\nrungs: [3]\nrung: 1", "tuning.rung: unknown key; did you mean rungs?"),
        ("sets: abc\nrungs: [2]", "tuning.sets: "),
        ("sets: [{}, {}]\nrungs: [6, 2]", "increasing numbers of trees"),
        ("sets: [{}, {}]\nrungs: [a]", "tuning.rungs.0: "),
        ("sets: [{}, {}]\nrungs: [1000000000]", "tuning.rungs.0: Input should be less than or equal to 10000"),
        ("sets: [{}, {max_dept: 3}]\nrungs: [2]", "set 2: unknown parameter 'max_dept'; did you mean max_depth?"),
    ],
)
def test_a_bad_search_is_named_and_opens_no_run(
    node: Node, command: list[str], tmp_path: Path, text: str | None, said: str
) -> None:
    search = tmp_path / "search.yaml"
    if text is not None:
        search.write_text(text)
    result = CliRunner().invoke(app, [*command, "--tune", str(search), "--validate-from", "2026-02-01"])
    assert isinstance(result.exception, CrossbankError) and said in str(result.exception)
    assert node.server.coordinator.runs() == []


def _config(node: Node, command: list[str], run: dict[str, object]) -> list[str]:
    """The command's arguments with no options but --config, whose file has a section ``run``."""
    path = Path(command[2])
    keys = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({"aggregator": keys, "run": run}))
    return command[:3]


def _opened(node: Node, words: list[str]) -> RunView:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception
    return node.server.coordinator.run(result.stdout.strip())


def _plan(view: RunView) -> RunPlan:
    return announced_plan(view.settings)


def test_a_parameters_file_trains_as_many_trees_as_it_says(node: Node, command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("n_estimators: 20\neta: 0.2\n")
    view = _opened(node, [*command, "--params", str(file)])
    assert (view.settings.rounds, _plan(view).boosting.n_estimators, _plan(view).boosting.eta) == (20, 20, 0.2)
    file.write_text("num_boost_round: 20\neta: 0.2\n")
    view = _opened(node, [*command, "--params", str(file), "--rounds", "3"])
    assert (view.settings.rounds, _plan(view).boosting.n_estimators, _plan(view).boosting.eta) == (3, 3, 0.2)
    file.write_text("eta: 0.2\n")
    assert _opened(node, [*command, "--params", str(file)]).settings.rounds == 100
    file.write_text("etta: 0.2\n")
    result = CliRunner().invoke(app, [*command, "--params", str(file)])
    assert isinstance(result.exception, PlanError)
    assert f"parameters {file}: unknown parameter 'etta'; did you mean eta?" in str(result.exception)


RUN: dict[str, object] = {
    "title": "weekly",
    "roster": BANKS,
    "contract_fingerprint": FINGERPRINT,
    "params": {"n_estimators": 7, "max_depth": 3},
    "train_until": dt.date(2026, 3, 1),
    "validate_from": "2026-02-01",
    "weight_column": "amount",
    "data_until": dt.date(2026, 3, 20),
    "alert_budget": 0.02,
    "enrol_seconds": 61,
    "step_seconds": 62,
    "pause_seconds": 63,
    "minimum_roster": 2,
}


def test_the_run_section_is_what_the_dag_opens_and_options_replace_its_keys(node: Node, command: list[str]) -> None:
    words = _config(node, command, RUN)
    same = _opened(node, words)
    assert same.settings == RunRequest.of(RUN).settings
    assert set(RunRequest.model_fields) == {*RUN, "tuning"}, "the test gives every key"
    other = {
        "title": "mine", "roster": BANKS[:2], "contract_fingerprint": "cd" * 32, "train_until": "2026-03-02",
        "validate_from": "2026-02-02", "weight_column": "hour", "data_until": "2026-03-21", "alert_budget": 0.03,
        "enrol_seconds": 71, "step_seconds": 72, "pause_seconds": 73, "minimum_roster": 2,
    }  # fmt: skip
    options = {"roster": "--bank"}
    given = []
    for name, value in other.items():
        for each in value if isinstance(value, list) else [value]:
            given += [options.get(name, f"--{name.replace('_', '-')}"), str(each)]
    changed = _opened(node, [*words, *given, "--rounds", "9"])
    assert changed.settings == RunRequest.of(RUN, other, {"params": {"n_estimators": 9, "max_depth": 3}}).settings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train-until", "soon"], "train_until: "),
        (["--train-until", "20260301"], "train_until: must be a date such as 2026-03-01"),
        (["--bank", "alder bank"], "bank id"),
        (["--bank", "a", "--bank", "a", "--bank", "b"], "different banks"),
        (["--contract-fingerprint", "abc"], "contract fingerprint"),
        (["--rounds", "1000000000"], "n_estimators must be between 1 and 10000"),
        (["--alert-budget", "2"], "alert_budget: "),
        (["--two-bank", "--minimum-roster", "3"], "--two-bank does not go with"),
        (["--step-seconds", "0"], "deadlines must be positive"),
    ],
)
def test_a_wrong_option_is_named_and_opens_no_run(node: Node, command: list[str], words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, [*_config(node, command, RUN), *words])
    assert isinstance(result.exception, (PlanError, ConfigError)) and said in str(result.exception)
    assert node.server.coordinator.runs() == []


def test_what_the_file_lacks_or_has_too_much_is_said(node: Node, command: list[str]) -> None:
    for run, said in (
        ({}, "roster: is missing; contract_fingerprint: is missing"),
        (RUN | {"rooster": []}, "rooster: unknown key; did you mean roster?"),
        (RUN | {"params": [1]}, "params: "),
        (RUN | {"params": {"early_stopping_rounds": 3}, "validate_from": None}, "names no validate_from"),
    ):
        result = CliRunner().invoke(app, _config(node, command, run))
        assert isinstance(result.exception, PlanError) and said in str(result.exception)
        Path(command[2]).write_text(yaml.safe_dump(yaml.safe_load(Path(command[2]).read_text())["aggregator"]))
    words = _config(node, command, RUN)
    Path(words[2]).write_text(Path(words[2]).read_text() + "rnu: {}\n")
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError) and "unknown key rnu" in str(result.exception)


def test_a_bank_without_a_certificate_is_refused_where_the_ca_is_at_hand(node: Node, command: list[str]) -> None:
    words = [*_config(node, command, RUN), "--ca-folder", str(node.certificates)]
    _opened(node, words)
    result = CliRunner().invoke(app, [*words, "--bank", "alder_bank", "--bank", "brich_bank"])
    assert isinstance(result.exception, ConfigError)
    assert "no certificate in force for brich_bank; did you mean birch_bank?" in str(result.exception)
    revoke(node.certificates, "birch_bank", "test")
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError) and "birch_bank" in str(result.exception)


def test_the_help_tells_the_schema_s_defaults() -> None:
    command = typer.main.get_command(app).commands["open-run"]  # type: ignore[attr-defined]
    helps = {option.name: option.help for option in command.params}
    assert "the contract's" in helps["alert_budget"]
    for name in ("enrol_seconds", "step_seconds", "pause_seconds", "minimum_roster"):
        assert f"(default {RunRequest.model_fields[name].default})" in helps[name]
    assert BoostingParameters().base_score is None and "XGBoost's defaults" in helps["params"]
