"""What a training starts from where nobody says: one place for all, and nothing of it in parameters that are given."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.operator.request import run_request
from protocol.parameters import BoostingParameters
from protocol.run_plan import RunPlan, RunRequest, TuningPlan, announced_plan
from protocol.starting_parameters import EARLY_STOPPING, STARTING, STARTING_RUNGS, STARTING_SETS, starting_parameters
from simulator.harness.search import DEFAULT_SEARCH, load_search
from simulator.harness.training import load_params

BASE = {"roster": ["alpha", "beta", "gamma"], "contract_fingerprint": "ab" * 32}
SPLIT = {"validate_from": "2026-02-01", "train_until": "2026-03-01"}

given_parameters = st.dictionaries(
    st.sampled_from(["max_depth", "eta", "reg_lambda", "min_child_weight", "n_estimators", "max_bin"]),
    st.just(1),
).map(lambda names: {name: 2 if name in ("max_bin", "max_depth") else 1 for name in names})


def test_every_door_starts_from_the_same() -> None:
    starting = BoostingParameters.from_mapping(STARTING)
    assert RunRequest.of(BASE).boosting == starting
    assert run_request(BASE, {}).boosting == starting
    assert load_params(None) == starting
    assert announced_plan(RunRequest.of(BASE).settings).boosting == starting
    assert starting.base_score == 0.5 and starting.max_delta_step == 4.0


def test_banks_read_them_from_the_plan_and_fill_in_none() -> None:
    assert RunPlan.from_json("{}").boosting == BoostingParameters()
    assert RunPlan.from_json(RunRequest.of(BASE).to_json()).params == dict(STARTING)


@given(given_parameters)
def test_given_parameters_mean_what_they_mean_in_xgboost(params: dict[str, float]) -> None:
    """What is given is whole: nothing of the starting parameters comes in beside it, not even into an empty mapping."""
    assert RunRequest.of(BASE, {"params": params}).boosting == BoostingParameters(**params)
    assert RunRequest.of(BASE, SPLIT, {"params": params}).boosting.early_stopping_rounds == 0


def test_a_number_of_rounds_changes_the_trees_only() -> None:
    assert run_request(BASE, {}, rounds=8).boosting == BoostingParameters.from_mapping({**STARTING, "n_estimators": 8})
    given = run_request(BASE | {"params": {"eta": 0.1}}, {}, rounds=8).boosting
    assert given == BoostingParameters(eta=0.1, n_estimators=8)


def test_validation_rows_stop_it_early_and_a_search_does_not() -> None:
    stopped = RunRequest.of(BASE, SPLIT).boosting
    assert stopped == BoostingParameters.from_mapping({**STARTING, **EARLY_STOPPING})
    assert stopped == load_params(None, validated=True)
    tuning = {"sets": [{"eta": 0.1}, {"eta": 0.2}], "rungs": [2, 4]}
    searched = RunRequest.of(BASE, SPLIT, {"tuning": tuning})
    assert {each.early_stopping_rounds for each in searched.parameter_sets} == {0}
    assert {each.base_score for each in searched.parameter_sets} == {0.5}


def test_the_default_search_covers_what_matters_for_rare_labels(tmp_path: Path) -> None:
    common, search = load_search(None)
    assert (search, search.rungs) == (DEFAULT_SEARCH, STARTING_RUNGS) and len(search.sets) == len(STARTING_SETS) == 12
    sets = search.parameters(common)
    assert {each.base_score for each in sets} == {0.5, None} and len({each.max_depth for each in sets}) == 3
    assert all(each.base_score == 0.5 or each.max_delta_step == 1.0 for each in sets), "no first leaf of 1/p"
    assert len(set(sets)) == 12
    (tmp_path / "search.yaml").write_text("params: {eta: 0.2}\nsets: [{max_depth: 3}, {max_depth: 4}]\n")
    common, _ = load_search(tmp_path / "search.yaml")
    assert common == BoostingParameters(eta=0.2)


@pytest.mark.parametrize("validated", [False, True])
def test_they_are_parameters(validated: bool) -> None:
    assert BoostingParameters.from_mapping(starting_parameters(validated=validated))
    TuningPlan(sets=tuple(dict(each) for each in STARTING_SETS), rungs=STARTING_RUNGS)
