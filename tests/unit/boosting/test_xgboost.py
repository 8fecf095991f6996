"""Parity with XGBoost: the same trees on the same bins, and a model file that XGBoost reads and predicts alike."""

import json

import numpy as np
import pytest
import xgboost
from sklearn.metrics import average_precision_score

from bank_node.boosting import (
    BoostingError,
    BoostingParameters,
    export_booster,
    export_booster_ubj,
    predict_margin,
    sigmoid,
)
from tests.unit.boosting.samples import Trained, make_rows, names, train

_VERSION = tuple(int(part) for part in xgboost.__version__.split(".")[:2])
ARITHMETIC = "3.4" if _VERSION >= (3, 4) else "3.2"


def _pooled(trained: Trained, labels: np.ndarray, params: BoostingParameters) -> tuple[xgboost.Booster, np.ndarray]:
    """XGBoost's own training on the bin numbers, NaN for missing, and its margins."""
    bins = trained.binned.bins.astype(np.float32)
    bins[trained.binned.bins == trained.cuts.n_bins[None, :]] = np.nan
    settings = params.to_mapping()
    rounds = settings.pop("n_estimators")
    settings.pop("xgboost_arithmetic")
    settings.pop("histogram_layout")
    if settings["base_score"] is None:
        settings.pop("base_score")
    settings |= {"objective": "binary:logistic", "tree_method": "hist", "max_bin": 300, "nthread": 1}
    matrix = xgboost.DMatrix(bins, labels, nthread=1)
    booster = xgboost.train(settings, matrix, rounds)
    return booster, booster.predict(matrix, output_margin=True)


def _same_trees(trained: Trained, booster: xgboost.Booster) -> float:
    """The share of trees whose links, features, split bins and default directions are all equal."""
    theirs = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    assert len(theirs) == len(trained.trees)
    same = 0
    for ours, other in zip(trained.trees, theirs, strict=True):
        if ours.left.tolist() != other["left_children"] or ours.feature.tolist() != other["split_indices"]:
            continue
        inner = ours.left >= 0
        last_bin = trained.cuts.n_bins[ours.feature] - 1
        bins = np.minimum(np.ceil(other["split_conditions"]).astype(np.int64) - 1, last_bin)
        same += bool(
            np.array_equal(bins[inner], ours.split_bin[inner])
            and np.array_equal(np.array(other["default_left"])[inner], ours.default_left[inner])
        )
    return same / len(theirs)


CASES = {
    "missing values": ({"missing": 0.15}, {}),
    "scale_pos_weight": ({"share": 0.02, "seed": 1}, {"scale_pos_weight": 40.0}),
    "penalties": (
        {"seed": 2, "missing": 0.05},
        {"reg_alpha": 1.5, "gamma": 0.5, "min_child_weight": 8, "max_delta_step": 0.6, "reg_lambda": 2, "eta": 0.2},
    ),
    "L1 without a bound": ({"seed": 3}, {"reg_alpha": 2.0, "base_score": 0.3, "max_depth": 8}),
}


@pytest.mark.parametrize("case", CASES)
def test_trees_and_predictions_are_xgboosts(case: str) -> None:
    rows, settings = CASES[case]
    x, y = make_rows(6000, **rows)  # type: ignore[arg-type]
    values = {"n_estimators": 50, "max_depth": 6, "max_bin": 64, "xgboost_arithmetic": ARITHMETIC} | settings
    params = BoostingParameters.from_mapping(values)
    trained = train(x, y, params)
    booster, theirs = _pooled(trained, y, params)
    assert _same_trees(trained, booster) >= 0.99
    ours = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(ours - theirs).max() < 1e-5
    assert abs(average_precision_score(y, ours) - average_precision_score(y, theirs)) < 1e-4


def test_the_base_score_is_xgboosts() -> None:
    x, y = make_rows(3000, share=0.07)
    for weight in (1.0, 0.5, 12.0):
        params = BoostingParameters(n_estimators=1, scale_pos_weight=weight)
        trained = train(x, y, params)
        booster, _ = _pooled(trained, y, params)
        stored = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
        assert trained.base_score == pytest.approx(float(stored.strip("[]")), rel=2e-7)


@pytest.mark.parametrize("export", [export_booster, export_booster_ubj])
def test_xgboost_reads_the_file_and_predicts_alike(export: object) -> None:
    x, y = make_rows(2000, missing=0.2)
    x[:400, 5], x[400:, 5] = np.nan, 1.0  # a feature that can only split missing from present
    y[:300] = 1
    params = BoostingParameters(n_estimators=12, max_depth=5)
    trained = train(x, y, params)
    assert any((np.abs(tree.threshold) > 1e38).any() for tree in trained.trees)
    data = export(trained.trees, trained.cuts, params, names(6), trained.base_score)  # type: ignore[operator]
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    assert booster.feature_names == names(6) and booster.feature_types == ["float"] * 6
    assert booster.num_boosted_rounds() == 12
    matrix = xgboost.DMatrix(x, feature_names=names(6))
    margins = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(booster.predict(matrix, output_margin=True) - margins).max() < 1e-6
    assert np.abs(booster.predict(matrix) - sigmoid(margins)).max() < 1e-6
    contributions = booster.predict(matrix, pred_contribs=True)
    assert contributions.shape == (2000, 7)
    assert np.abs(contributions.sum(axis=1) - margins).max() < 1e-4
    # What XGBoost writes back is the same model.
    again = xgboost.Booster()
    again.load_model(booster.save_raw("json"))
    assert np.array_equal(again.predict(matrix), booster.predict(matrix))


def test_model_bytes_are_plain_and_fixed() -> None:
    x, y = make_rows(300)
    params = BoostingParameters(n_estimators=2, max_depth=3)
    trained = train(x, y, params)
    document = json.loads(trained.model)
    assert document["version"] == [3, 2, 0]
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    assert np.array_equal(
        np.array(tree["split_conditions"], np.float32), trained.trees[0].threshold + trained.trees[0].value
    )
    assert b" " not in trained.model
    assert float(document["learner"]["learner_model_param"]["base_score"]) == pytest.approx(trained.base_score)
    for wrong, text in ((names(5), "5 feature names"), (["a"] * 6, "same name"), (["<", *names(5)], "characters")):
        with pytest.raises(BoostingError, match=text):
            export_booster(trained.trees, trained.cuts, params, wrong, trained.base_score)


def test_xgboost_can_go_on_from_the_model() -> None:
    x, y = make_rows(1000)
    params = BoostingParameters(n_estimators=3)
    trained = train(x, y, params)
    booster = xgboost.Booster()
    booster.load_model(bytearray(trained.model))
    matrix = xgboost.DMatrix(x, y, feature_names=names(6))
    longer = xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 2, xgb_model=booster)
    assert longer.num_boosted_rounds() == 5
