"""Every sample configuration is read by the code that reads a real one, and refused with a key that nobody knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.config import load_config as load_node
from aggregator.config import load_operator_config
from bank_node.config import load_config as load_bank
from docs.generate.samples import FOLDER, SHOWN
from features import load_contract
from features.contract.mapping import load_mapping
from features.contract.schema import DataContract
from protocol.run_plan import RunRequest
from simulator.harness.search import load_search

CONTRACT = load_contract()
PACKAGED = Path(__file__).parents[2] / "features" / "contract" / "packaged" / "payments_v1.yaml"


def _mapping(path: Path) -> Any:
    return load_mapping(path, CONTRACT)


def _excerpt(path: Path) -> Any:
    return DataContract.model_validate(yaml.safe_load(PACKAGED.read_text()) | yaml.safe_load(path.read_text()))


def _operator(path: Path) -> Any:
    return load_operator_config(path), RunRequest.of(yaml.safe_load(path.read_text())["run"]).settings


LOADERS: dict[str, Callable[[Path], Any]] = {
    "aggregator": load_node,
    "bank": load_bank,
    "contract": _excerpt,
    "mapping": _mapping,
    "operator": _operator,
    "search": load_search,
}
SAMPLES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))


def _load(path: Path) -> Any:
    kind = "mapping" if path.parent.name == "mappings" else path.name.split("_")[0].removesuffix(".yaml")
    return LOADERS[kind](path)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read(name: str) -> None:
    assert _load(FOLDER / name) is not None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_key_that_nobody_knows_is_refused_everywhere_in_it(name: str, tmp_path: Path) -> None:
    document = yaml.safe_load((FOLDER / name).read_text())
    places = _places(document)
    assert places
    for place in places:
        wrong = yaml.safe_load((FOLDER / name).read_text())
        inner = wrong
        for key in place:
            inner = inner[key]
        inner["no_such_key"] = 1
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(wrong, sort_keys=False))
        if name == "operator.yaml" and not place:
            continue  # its top has a section for the commands and one for the DAG; each looks at its own
        with pytest.raises(Exception, match="no_such_key"):
            _load(tmp_path / name)


#: Mappings whose keys are the writer's own: codes, features, parameters of another library.
_OPEN = ("codes", "params", "settings", "monotone_constraints")


def _places(document: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(document, list):
        return [found for n, each in enumerate(document) for found in _places(each, (*place, n))]
    if not isinstance(document, dict) or (place and place[-1] in _OPEN):
        return []
    return [place, *(found for key, value in document.items() for found in _places(value, (*place, key)))]


def test_the_operator_s_sample_names_the_packaged_contract() -> None:
    run = yaml.safe_load((FOLDER / "operator.yaml").read_text())["run"]
    assert run["contract_fingerprint"] == CONTRACT.fingerprint, "run `make docs`"


def test_pages_show_samples_that_exist_and_every_sample_is_listed() -> None:
    assert {name for _, name in SHOWN} <= set(SAMPLES)
    listed = (FOLDER / "README.md").read_text()
    assert [name for name in SAMPLES if f"]({name})" not in listed] == []
