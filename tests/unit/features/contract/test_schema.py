"""The data contract: what loads, what is refused and with which words, and what the fingerprint depends on."""

import copy
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import features
from features import DataContract, load_contract
from features.contract.compatibility import serves
from features.contract.sections import SHARED_FEATURES
from features.engineering.catalogue import CATALOGUE
from features.errors import ContractError, DataError

TEXT = resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_text(encoding="utf-8")
RAW: dict[str, Any] = yaml.safe_load(TEXT)

Path_ = tuple[str | int, ...]


def saved(raw: Any, folder: Path) -> Path:
    path = folder / "contract.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


def leaves(node: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from leaves(value, (*path, place))
    else:
        yield path


def at(raw: Any, path: Path_) -> Any:
    for step in path:
        raw = raw[step]
    return raw


def test_the_packaged_contract_loads() -> None:
    contract = load_contract()
    assert (contract.name, contract.version) == ("payments", "1.1.0")
    assert contract.label.delay_days == 7
    assert 0 < contract.alert_budget < 0.1
    assert 30 <= len(contract.features) == len(set(contract.feature_names))


def test_the_packaged_contract_tells_what_the_catalogue_tells() -> None:
    for feature in load_contract().features:
        words = SHARED_FEATURES.get(feature.name) or CATALOGUE[feature.name].description
        assert feature.description == words


def test_shared_features_need_their_section_and_channels_of_the_vocabulary() -> None:
    raw = load_contract().model_dump(mode="json")
    with pytest.raises(ValidationError, match="needs the section shared_risk"):
        DataContract.model_validate(raw | {"shared_risk": None})
    kinds = [{"name": "merchant", "channels": ["cheque"], "width": 10, "depth": 1}]
    with pytest.raises(ValidationError, match="channel cheque, which is not in its vocabulary"):
        DataContract.model_validate(raw | {"shared_risk": {"kinds": kinds}})
    shared_only = [feature for feature in raw["features"] if feature["name"] in SHARED_FEATURES]
    with pytest.raises(ValidationError, match="the bank's own"):
        DataContract.model_validate(raw | {"features": shared_only})


def test_bounds_of_drift_and_growing_features_must_make_sense() -> None:
    raw = load_contract().model_dump(mode="json")
    for changes, text in (
        ({"drift_warn": 2.0}, "drift_warn must not be above drift_stop"),
        ({"growing": ["nothing"]}, "quality.growing names nothing, which is no feature"),
    ):
        with pytest.raises(ValidationError, match=text):
            DataContract.model_validate(raw | {"quality": raw["quality"] | changes})


def test_every_grid_of_the_packaged_contract_is_usable() -> None:
    for feature in load_contract().features:
        edges = feature.grid.edges()
        assert 1 <= len(edges) <= 1023
        assert (edges[1:] > edges[:-1]).all()


def test_code_grids_tell_every_code_apart() -> None:
    contract = load_contract()
    grids = {feature.name: list(feature.grid.edges()) for feature in contract.features}
    for column in ("category", "channel"):
        assert grids[f"{column}_code"] == list(range(1, len(contract.codes(column))))
    assert grids["hour_of_day"] == list(range(1, 24))


def test_the_public_names() -> None:
    assert sorted(features.__all__) == [
        "DataContract",
        "FeatureSpec",
        "extract_features",
        "labelled_rows",
        "labelled_split",
        "load_contract",
        "time_split",
    ]
    assert issubclass(ContractError, DataError)


def test_the_fingerprint_is_pinned() -> None:
    # Banks compare this value. When the packaged contract changes on purpose, change its version and this line.
    assert load_contract().fingerprint == "a12c5bcc3a1117b79ea41666987c5ea53f35ca3237eff58f2805e67d91e68b8f"


def test_version_1_1_is_version_1_0_and_the_counterparty_as_the_bank_alone_saw_it() -> None:
    now = load_contract()
    own = {f"counterparty_{what}_{span}" for what in ("fraud_count", "risk") for span in ("1d", "7d", "30d")}
    assert own < set(now.local_names)
    kept = [feature for feature in now.model_dump(mode="json")["features"] if feature["name"] not in own]
    before = DataContract.model_validate(now.model_dump(mode="json") | {"version": "1.0.0", "features": kept})
    # The fingerprint that version 1.0.0 was pinned to: a bank that goes on can still serve runs under it.
    assert before.fingerprint == "352ec8b0feb0a9df0bb1930921a244dcdd8c61a1bd7e0754943794167d72bce7"
    assert {change.place.split(".")[1] for change in serves(now, before)} == own


def test_comments_layout_and_order_of_keys_are_not_in_the_fingerprint(tmp_path: Path) -> None:
    plain = yaml.safe_dump(RAW, sort_keys=True, default_flow_style=True)
    assert load_contract(saved("# a remark\n" + plain, tmp_path)).fingerprint == load_contract().fingerprint


def test_any_edit_changes_the_fingerprint() -> None:
    fingerprints = {load_contract().fingerprint}
    edits = 0
    for path in leaves(RAW):
        raw = copy.deepcopy(RAW)
        parent, value = at(raw, path[:-1]), at(raw, path)
        if isinstance(value, bool):
            parent[path[-1]] = not value
        elif isinstance(value, int | float):
            parent[path[-1]] = value + 0.25 if isinstance(value, float) else value + 1
        elif isinstance(value, str):
            parent[path[-1]] = value + "x"
        else:
            parent[path[-1]] = value.replace(year=2001)
        try:
            edited = DataContract.model_validate(raw)
        except ValidationError:
            continue
        edits += 1
        assert edited.fingerprint not in fingerprints, path
        fingerprints.add(edited.fingerprint)
    assert edits > 150


def test_the_order_of_features_is_in_the_fingerprint() -> None:
    raw = copy.deepcopy(RAW)
    raw["features"].reverse()
    assert DataContract.model_validate(raw).fingerprint != load_contract().fingerprint


@pytest.mark.parametrize("path", [(), ("label",), ("columns", 0), ("features", 0), ("features", 0, "grid")], ids=str)
def test_an_unknown_key_is_refused_and_named(path: Path_, tmp_path: Path) -> None:
    raw = copy.deepcopy(RAW)
    at(raw, path)["colour"] = "blue"
    with pytest.raises(ContractError, match=r"colour: unknown key\.") as caught:
        load_contract(saved(raw, tmp_path))
    assert "contract.yaml" in str(caught.value)


def _set(*path: str | int, value: Any) -> Any:
    def change(raw: Any) -> None:
        at(raw, path[:-1])[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("version", value="one"), "version"),
        (_set("alert_budget", value=0), "alert_budget"),
        (_set("alert_budget", value=1.5), "alert_budget"),
        (_set("label", "delay_days", value=-1), "delay_days"),
        (_set("columns", 0, "name", value="Payment Id"), "columns.0.name"),
        (_set("columns", 0, "name", value="payer"), "must have a column payment_id of type string"),
        (_set("columns", 7, "type", value="string"), "above is for columns of type number"),
        (_set("columns", 6, "vocabulary", value="nothing"), "names the vocabulary nothing, which is not there"),
        (_set("columns", 6, "vocabulary", value=None), "column channel must name a vocabulary"),
        (_set("vocabularies", "direction", value=["out", "back"]), "exactly out and in"),
        (_set("vocabularies", "channel", value=["card", "card"]), "code in vocabulary channel card is there twice"),
        (_set("features", 1, "name", value="amount"), "feature amount is there twice"),
        (_set("features", 1, "name", value="moon_phase"), "not in the catalogue: moon_phase"),
        (_set("features", 0, "grid", "kind", value="square"), "features.0.grid"),
        (_set("features", 0, "grid", "cells", value=1023), "features.0.grid.log.cells"),
        (_set("features", value=[]), "features"),
        (lambda raw: raw.pop("label"), "label: Field required"),
    ],
)
def test_a_contradiction_is_refused_and_named(change: Any, words: str, tmp_path: Path) -> None:
    raw = copy.deepcopy(RAW)
    change(raw)
    with pytest.raises(ContractError) as caught:
        load_contract(saved(raw, tmp_path))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("name: [unclosed", "is not valid YAML at line"),
        ("name: a\nname: b\n", "key name is there twice"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
        ("a: !!python/object:os.system {}\n", "is not valid YAML"),
        ("? [a, b]\n: c\n", "is not valid"),
        ("#" * 1_000_001, "is larger than"),
    ],
)
def test_a_file_that_is_no_contract_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"contract\.yaml") as caught:
        load_contract(saved(text, tmp_path))
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.yaml can't be read: No such file"):
        load_contract(tmp_path / "none.yaml")


def test_a_contract_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_contract().version = "2.0.0"  # type: ignore[misc]
