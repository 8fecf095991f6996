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
from features.identifiers import create_key
from features.incremental import extract_days
from features.store.partitions import FeatureStore
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


#: A bank's file, as each mapping reads it: name, text, and more files beside it.
FILES = {
    "mapping_cards.yaml": (
        "cards.csv",
        "auth_id,auth_ts,pan_token,merchant_id,merchant_country,amount_minor,mcc,chargeback,chargeback_ts\n"
        "1,1772323200,t1,m1,CHE,1250,5411,0,1772582400\n"
        "2,1772326800,t1,m2,CH,99900,5812,1,1772668800\n"
        "3,1772330400,t2,m1,756,300,5411,,\n",
    ),
    "mapping_csv.yaml": (
        "booked.csv",
        "batch;number;booked;account;partner;amount;ccy;type;fraud;fraud_known;updated_at\n"
        "b1;1;01.03.2026 09:00:00;a1;p1;-1.250,00;USD;SAL;N;1772582400000;1\n"
        "b1;2;01.03.2026 10:00:00;a1;p2;-12,00;EUR;GRO;;;1\n"
        "b1;2;01.03.2026 10:00:00;a1;p2;-12,50;EUR;GRO;Y;1772668800000;2\n",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mapping_reads_a_file_of_its_kind_without_setting_a_row_aside(name: str, tmp_path: Path) -> None:
    file, text = FILES[name]
    source, folder = tmp_path / "payments", tmp_path / "config"
    source.mkdir()
    folder.mkdir()
    (source / file).write_text(text)
    (folder / name).write_text((FOLDER / name).read_text())
    (folder / "rates.csv").write_text("day,currency,rate\n2026-02-27,EUR,1.1\n")
    done = extract_days(
        CONTRACT,
        source,
        FeatureStore(tmp_path / "store"),
        key=create_key(tmp_path / "key"),
        mapping=load_mapping(folder / name, CONTRACT),
    )
    assert done.rows == 3 and not done.quarantined
    # In the CSV the second row is an earlier version of the third.
    assert (done.stored, done.repeated) == ((3, 0) if name == "mapping_cards.yaml" else (2, 1))
    assert done.frauds == 1
