"""The run plan's one schema: what an operator writes is what every bank reads, and faults are named by their key."""

import datetime as dt
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PlanError
from protocol.limits import MAX_ROUNDS
from protocol.messages import RunSettings
from protocol.run_plan import MAX_SETS, RunPlan, RunRequest, announced_plan

BASE = {"roster": ["alpha", "beta", "gamma"], "contract_fingerprint": "ab" * 32}

params = st.fixed_dictionaries(
    {},
    optional={
        "n_estimators": st.integers(1, 10_000),
        "max_depth": st.integers(1, 12),
        "learning_rate": st.floats(0.001, 1.0),
        "lambda": st.floats(0, 100),
        "max_bin": st.integers(2, 255),
        "seed": st.integers(0, 2**63 - 1),
        "monotone_constraints": st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sampled_from([1, -1, 0])),
    },
)
moments = st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1))
documents = st.fixed_dictionaries(
    {},
    optional={
        "params": params,
        "train_until": st.one_of(st.none(), moments, moments.map(lambda day: day.date())),
        "weight_column": st.sampled_from(["", "amount"]),
        "data_until": st.one_of(st.none(), moments.map(lambda day: day.date()), st.just("2026-03-01")),
        "alert_budget": st.floats(0.0001, 1.0),
        "title": st.text(max_size=20),
        "enrol_seconds": st.integers(1, 86_400),
        "minimum_roster": st.integers(2, 3),
    },
)


@given(documents)
def test_banks_read_what_the_operator_wrote(document: dict[str, object]) -> None:
    request = RunRequest.of(BASE, document)
    plan = announced_plan(request.settings)
    for name in RunPlan.model_fields:
        assert getattr(plan, name) == getattr(request, name)
    assert plan.boosting == request.boosting
    assert request.settings.rounds == plan.rounds == plan.boosting.n_estimators
    assert RunRequest.of(json.loads(json.dumps(request.model_dump(mode="json")))) == request
    assert RunPlan.from_json(plan.to_json()) == plan and plan.to_json() == request.settings.parameters_json


@given(documents, documents)
def test_keys_of_a_later_document_replace_those_of_an_earlier_one(
    first: dict[str, object], second: dict[str, object]
) -> None:
    assert RunRequest.of(BASE, first, second) == RunRequest.of({**BASE, **first, **second})


WRONG = [
    ({"params": {"n_estimators": 10**9}}, "parameter n_estimators must be between 1 and 10000, got 1000000000"),
    ({"params": {"max_depth": 30}}, "parameter max_depth must be between 1 and 12, got 30"),
    ({"params": {"max_bin": 10**6}}, "parameter max_bin must be between 2 and 255"),
    ({"params": {"max_leaves": 10**6}}, "parameter max_leaves must be 0 or between 2 and 4096"),
    ({"params": {"max_dept": 3}}, "unknown parameter 'max_dept'; did you mean max_depth?"),
    ({"params": {"early_stopping_round": 3}}, "did you mean early_stopping_rounds?"),
    ({"params": []}, "the run's plan: params: must be a mapping"),
    ({"tuning": []}, "the run's plan: tuning: must be a mapping"),
    ({"tuning": {"sets": {}, "rungs": 1}}, "tuning.sets: must be a list; tuning.rungs: must be a list"),
    ({"train_util": "2026-03-01"}, "the run's plan: train_util: unknown key; did you mean train_until?"),
    ({"train_until": "the first of May"}, "the run's plan: train_until: "),
    ({"train_until": 20260301}, "the run's plan: train_until: must be a date such as 2026-03-01"),
    ({"data_until": "20260301"}, "the run's plan: data_until: must be a date such as 2026-03-01"),
    ({"data_until": "2026-02-30"}, "the run's plan: data_until: "),
    ({"train_until": "2026-03-01", "validate_from": "2026-03-01"}, "validate_from must be before train_until"),
    ({"alert_budget": 0}, "the run's plan: alert_budget: "),
    ({"tuning": {"sets": [{}] * 65, "rungs": [1]}}, "the run's plan: tuning.sets: "),
    ({"tuning": {"sets": [{}, {}], "rungs": [10**9]}}, "the run's plan: tuning.rungs.0: "),
    ({"tuning": {"sets": [{}, {}], "rungs": [True]}}, "the run's plan: tuning.rungs.0: "),
    ({"tuning": {"sets": [{}, {}], "rungs": [2, 2]}}, "rungs must be increasing"),
    ({"tuning": {"sets": [{}, {}], "rungs": [2], "rung": 1}}, "tuning.rung: unknown key; did you mean rungs?"),
    ({"tuning": {"sets": [{}, {"eta": 9}], "rungs": [2]}}, "tuning, set 2: parameter eta must be above 0"),
    (
        {"tuning": {"sets": [{}] * MAX_SETS, "rungs": [10_000]}},
        f"may grow {MAX_ROUNDS} trees in all, this search",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_operator_and_bank_say_the_same_of_a_wrong_plan(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError) as bank:
        RunPlan.from_json(json.dumps(changes))
    assert said in str(bank.value)
    with pytest.raises(PlanError) as operator:
        RunRequest.of(BASE, changes)
    assert str(operator.value) == str(bank.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '{"params": 1}', "[" * 9999, '{"params": {"eta": NaN}}'])
def test_what_is_no_plan_is_a_plan_error(text: str) -> None:
    with pytest.raises(PlanError):
        RunPlan.from_json(text)


@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists).map(json.dumps))
def test_no_text_of_a_peer_s_is_another_error(text: str) -> None:
    try:
        RunPlan.from_json(text)
    except PlanError as error:
        assert len(str(error)) < 2000


@given(
    st.dictionaries(
        st.sampled_from([*RunPlan.model_fields, "params", "tuning"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["eta", "sets", "rungs", "seed"]), inner),
        ),
    )
)
def test_no_value_of_a_peer_s_is_another_error(document: dict[str, object]) -> None:
    try:
        RunPlan.from_json(json.dumps(document))
    except PlanError as error:
        assert str(error)


def test_a_run_of_other_rounds_than_its_plan_is_refused() -> None:
    settings: RunSettings = RunRequest.of(BASE, {"params": {"n_estimators": 5}}).settings
    assert announced_plan(settings).rounds == 5
    with pytest.raises(PlanError, match="it makes 5 boosting rounds, the run announces 6"):
        announced_plan(replace(settings, rounds=6))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roster": "alpha"}, "roster: must be a list of banks"),
        ({"roster": ["alpha", "alpha", "beta"]}, "different banks"),
        ({"roster": ["alpha", "be ta", "gamma"]}, "bank id"),
        ({"roster": ["alpha", "beta"]}, "two banks alone are allowed only with"),
        ({"contract_fingerprint": "xyz"}, "contract fingerprint"),
        ({"step_seconds": 0}, "deadlines must be positive"),
        ({"params": {"early_stopping_rounds": 3}}, "names no validate_from"),
        ({"tuning": {"sets": [{}, {}], "rungs": [2]}}, "names no validate_from"),
        ({"rooster": []}, "rooster: unknown key; did you mean roster?"),
    ],
)
def test_a_wrong_request_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError, match=r".*") as caught:
        RunRequest.of(BASE, changes)
    assert said in str(caught.value)


def test_an_empty_request_says_all_that_is_missing() -> None:
    with pytest.raises(PlanError, match="roster: is missing; contract_fingerprint: is missing"):
        RunRequest.of({})
