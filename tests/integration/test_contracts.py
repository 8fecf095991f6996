"""A bank on a later, compatible contract takes part in a run under the older one, and the model is the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from bank_node.dataset.run_contract import contract_for_run
from features import load_contract
from features.engineering.catalogue import CATALOGUE
from features.errors import ContractError
from protocol.errors import LocalError
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from simulator.harness.processes import bank_files
from tests.conftest import BANKS, Node, in_parallel

V1 = load_contract()
MAJOR, MINOR, _ = V1.version.split(".")
LATER = f"{MAJOR}.{int(MINOR) + 1}.0"


def contract_file(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(V1.model_dump(mode="json") | changes, sort_keys=False))
    return path


def later(folder: Path) -> Path:
    """A minor version later: a feature more, in front, and a category more."""
    document = V1.model_dump(mode="json")
    unused = next(name for name in CATALOGUE if name not in V1.feature_names)
    extra = {"name": unused, "description": "x", "grid": {"kind": "values", "values": [1.0]}}
    words = V1.vocabularies | {"category": (*V1.vocabularies["category"], "crypto")}
    return contract_file(
        folder,
        "later",
        version=LATER,
        features=[extra, *document["features"]],
        vocabularies={name: list(codes) for name, codes in words.items()},
    )


@pytest.fixture
def events(tmp_path: Path) -> dict[str, Path]:
    made = generate(GeneratorSettings(banks=3, customers=150, merchants=60, days=45, seed=3), tmp_path / "data")
    return dict(zip(BANKS, made.events.values(), strict=True))


def configure(node: Node, bank: str, events: Path, name: str, **changes: Any) -> Path:
    files = bank_files(node.certificates, bank)
    document = {
        "bank_id": bank,
        "events": str(events),
        "work_dir": str(node.folder / name / bank),
        "aggregator": {
            "address": node.address,
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "key": str(files.key),
        },
    } | changes
    path = node.folder / f"{name}_{bank}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def trained(node: Node, configs: dict[str, Path]) -> dict[str, dict[str, Any]]:
    for config in configs.values():
        pipeline.extract(config, log=lambda _: None)
    plan = RunPlan(params={"n_estimators": 2, "max_depth": 3, "max_bin": 16})
    run = node.open(contract_fingerprint=V1.fingerprint, parameters_json=plan.to_json())
    return in_parallel(BANKS, lambda bank: pipeline.train(configs[bank], run, log=lambda _: None) | {"run": run})


@pytest.mark.slow
def test_a_compatible_minor_change_is_bridged_and_logged(node: Node, events: dict[str, Path], tmp_path: Path) -> None:
    plain = trained(node, {bank: configure(node, bank, events[bank], "plain") for bank in BANKS})
    ahead = {bank: configure(node, bank, events[bank], "ahead") for bank in BANKS}
    newer = {"contract": str(later(tmp_path)), "older_contracts": [str(contract_file(tmp_path, "v1"))]}
    ahead[BANKS[1]] = configure(node, BANKS[1], events[BANKS[1]], "ahead", **newer)
    mixed = trained(node, ahead)
    digests = {result["model_sha256"] for results in (plain, mixed) for result in results.values()}
    assert len(digests) == 1
    assert mixed[BANKS[1]]["contract"] == f"payments {V1.version}"
    folder = load_config(ahead[BANKS[1]]).run_dir(mixed[BANKS[1]]["run"])
    records = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    noted = [record for record in records if record["kind"] == "contract"]
    assert noted == [{"kind": "contract", "fingerprint": V1.fingerprint, "own": f"payments {LATER}"}]
    said: list[str] = []
    contract_for_run(load_config(ahead[BANKS[1]]), V1.fingerprint, said.append)
    assert f"the run uses contract payments {V1.version}" in said[0] and "vocabularies.category" in said[0]


def test_a_bank_with_another_contract_can_t_join(node: Node, events: dict[str, Path], tmp_path: Path) -> None:
    alone = load_config(configure(node, BANKS[0], events[BANKS[0]], "alone", contract=str(later(tmp_path))))
    with pytest.raises(LocalError, match="install the consortium's contract"):
        contract_for_run(alone, V1.fingerprint, lambda _: None)
    broken = contract_file(tmp_path, "v2", version="2.0.0", label=V1.label.model_dump() | {"delay_days": 30})
    listed = {"contract": str(broken), "older_contracts": [str(contract_file(tmp_path, "v1"))]}
    other = load_config(configure(node, BANKS[0], events[BANKS[0]], "other", **listed))
    with pytest.raises(ContractError, match="can't serve"):
        contract_for_run(other, V1.fingerprint, lambda _: None)
