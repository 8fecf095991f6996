"""Alerts, row by row: which payments, in which order, within which budget, and with which reasons."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.evaluation.calibration import Calibration
from bank_node.models.calibrated import worth_their_cost
from bank_node.models.scoring import REASONS, make_alerts, score_rows
from protocol.errors import ConfigError, LocalError

NAMES = ["amount", "count_1d", "device_age", "pair_count"]


def rows(number: int, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(number, len(NAMES)))
    table = pd.DataFrame(values, columns=NAMES)
    table["event_time"] = pd.date_range("2026-03-01", periods=number, freq="h")
    table["row_id"] = [f"p{place}" for place in range(number)]
    return table[["row_id", *NAMES[::-1], "event_time"]]  # not in the model's order


@cache
def model(names: tuple[str, ...] = tuple(NAMES), depth: int = 3) -> xgboost.Booster:
    table = rows(600, seed=1)
    label = (table["amount"] + 0.5 * table["count_1d"] * (table["pair_count"] > 0) > 1).astype(int)
    data = xgboost.DMatrix(table[list(names)].to_numpy(np.float32), label=label, feature_names=list(names))
    return xgboost.train({"max_depth": depth, "eta": 0.5, "objective": "binary:logistic", "nthread": 1}, data, 4)


def test_the_highest_scores_come_first_each_with_its_own_payment() -> None:
    table = rows(40)
    scores = score_rows(model(), table)
    alerts = make_alerts(model(), table, scores, 0.2)
    reasons = ["reason_1", "reason_2", "reason_3"]
    assert list(alerts.columns) == ["row_id", "event_time", "score", "expected_loss", *reasons]
    assert len(alerts) == 8
    oracle = sorted(range(40), key=lambda place: (-scores[place], place))[:8]
    assert list(alerts["row_id"]) == [f"p{place}" for place in oracle]
    assert list(alerts["event_time"]) == [table["event_time"][place] for place in oracle]
    assert list(alerts["score"]) == [scores[place] for place in oracle]
    assert scores.dtype == np.float64 and alerts["score"].is_monotonic_decreasing


def test_equal_scores_keep_the_order_of_the_rows_across_the_budget() -> None:
    table = rows(6)
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1, 0.9], dtype=np.float32)
    assert list(make_alerts(model(), table, scores, 0.5)["row_id"]) == ["p1", "p5", "p0"]
    assert list(make_alerts(model(), table, scores, 1.0)["row_id"]) == ["p1", "p5", "p0", "p2", "p3", "p4"]


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 60), budget=st.floats(0.0, 2.0), drawn=st.randoms(use_true_random=False))
def test_the_budget_is_a_share_of_the_rows_and_never_less_than_one(number: int, budget: float, drawn: object) -> None:
    table = rows(number)
    scores = np.array([drawn.choice([0.1, 0.2, 0.3]) for _ in range(number)], dtype=np.float32)  # type: ignore[attr-defined]
    alerts = make_alerts(model(), table, scores, budget)
    assert len(alerts) == min(number, max(1, int(budget * number)))
    left = set(table["row_id"]) - set(alerts["row_id"])
    assert len(left) == number - len(alerts)
    if left:
        assert alerts["score"].min() >= scores[table["row_id"].isin(left)].max()


@pytest.mark.parametrize(
    ("number", "budget", "alerts"), [(1000, 0.005, 5), (999, 0.005, 4), (10, 0.005, 1), (3, 1.0, 3)]
)
def test_the_number_of_alerts(number: int, budget: float, alerts: int) -> None:
    table = rows(number)
    assert len(make_alerts(model(), table, score_rows(model(), table), budget)) == alerts


def test_reasons_are_the_features_that_raised_the_score_most_with_their_shap_values() -> None:
    table = rows(60)
    alerts = make_alerts(model(), table, score_rows(model(), table), 1.0).set_index("row_id")
    data = xgboost.DMatrix(table[NAMES].to_numpy(np.float32), feature_names=NAMES)
    shap = model().predict(data, pred_contribs=True)[:, :-1]
    counts = set()
    for place, row_id in enumerate(table["row_id"]):
        raised = [(name, value) for name, value in zip(NAMES, shap[place], strict=True) if value > 0]
        raised.sort(key=lambda pair: -pair[1])
        want = [f"{name} {value:+.2f}" for name, value in raised[:REASONS]]
        assert list(alerts.loc[row_id, ["reason_1", "reason_2", "reason_3"]]) == want + [""] * (REASONS - len(want))
        counts.add(len(want))
    assert 3 in counts and min(counts) < 3  # both a full row and one with fewer reasons were seen


def test_a_model_of_two_features_gives_two_reasons_at_most() -> None:
    two = model(("amount", "count_1d"))
    alerts = make_alerts(two, rows(50), score_rows(two, rows(50)), 1.0)
    assert set(alerts["reason_3"]) == {""} and alerts["reason_2"].str.contains("+", regex=False).any()
    for reasons in alerts[["reason_1", "reason_2", "reason_3"]].itertuples(index=False):
        named = [reason.split(" ")[0] for reason in reasons if reason]
        assert len(named) == len(set(named)) <= 2, reasons


def test_a_missing_feature_column_is_named() -> None:
    with pytest.raises(LocalError, match="lack the model's feature columns device_age, pair_count"):
        score_rows(model(), rows(3).drop(columns=["device_age", "pair_count"]))


def test_calibrated_scores_keep_the_order_and_are_the_line_s() -> None:
    table, line = rows(40), Calibration(slope=0.5, intercept=-1.0)
    plain, calibrated = score_rows(model(), table), score_rows(model(), table, line)
    assert np.allclose(calibrated, 1 / (1 + np.exp(-(0.5 * np.log(plain / (1 - plain)) - 1.0))), rtol=1e-4)
    assert (np.argsort(-plain, kind="stable") == np.argsort(-calibrated, kind="stable")).all()
    assert not np.allclose(plain, calibrated)


def test_the_expected_loss_is_probability_times_amount_and_cheap_alerts_can_be_left_out() -> None:
    table = rows(40).assign(paid=np.linspace(1.0, 400.0, 40))
    alerts = make_alerts(model(), table, score_rows(model(), table), 0.5, amount="paid")
    paid = table.set_index("row_id")["paid"][alerts["row_id"]].to_numpy()
    assert np.allclose(alerts["expected_loss"], alerts["score"] * paid)
    said: list[str] = []
    assert worth_their_cost(alerts, None, said.append) is alerts and not said
    cost = float(alerts["expected_loss"].median())
    kept = worth_their_cost(alerts, cost, said.append)
    assert 0 < len(kept) < len(alerts) and (kept["expected_loss"] >= cost).all()
    assert f"{len(alerts) - len(kept)} alerts" in said[0]
    without = make_alerts(model(), table, score_rows(model(), table), 0.5)
    assert without["expected_loss"].isna().all()
    with pytest.raises(ConfigError, match="needs the feature 'amount'"):
        worth_their_cost(without, 1.0, said.append)
