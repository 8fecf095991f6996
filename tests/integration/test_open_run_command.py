"""`aggregator open-run`: what it puts into a run's plan, and files that people get wrong."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from aggregator.cli import app
from bank_node.plan import RunPlan
from protocol.errors import ConfigError
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
        ("sets: [{}]", "must have sets and rungs"),
        ("sets: [{}, {}]\nrungs: [3]\nrung: 1", "and nothing else"),
        ("sets: abc\nrungs: [2]", "a list of sets and a list of rungs"),
        ("sets: [{}, {}]\nrungs: [6, 2]", "increasing numbers of trees"),
        ("sets: [{}, {}]\nrungs: [a]", "increasing numbers of trees"),
    ],
)
def test_a_bad_search_is_named_and_opens_no_run(
    node: Node, command: list[str], tmp_path: Path, text: str | None, said: str
) -> None:
    search = tmp_path / "search.yaml"
    if text is not None:
        search.write_text(text)
    result = CliRunner().invoke(app, [*command, "--tune", str(search), "--validate-from", "2026-02-01"])
    assert isinstance(result.exception, ConfigError) and said in str(result.exception)
    assert node.server.coordinator.runs() == []
