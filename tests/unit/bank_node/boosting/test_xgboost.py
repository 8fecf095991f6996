"""Parity with XGBoost: the same trees on the same bins, and a model file that XGBoost reads and predicts alike."""

import json
from dataclasses import replace

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
from bank_node.boosting.sampling import row_keys, sample_rows
from tests.unit.bank_node.boosting.parity import ARITHMETIC, masked_objective, node_by_node, pooled, same_trees
from tests.unit.bank_node.boosting.samples import make_mixed_rows, make_rows, names, train

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
    booster, theirs = pooled(trained, y, params)
    assert same_trees(trained, booster) >= 0.99
    ours = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(ours - theirs).max() < 1e-5
    assert abs(average_precision_score(y, ours) - average_precision_score(y, theirs)) < 1e-4


CATEGORIES = {"categorical_features": ["feature_4", "feature_5"]}
FEATURES = {
    "monotone": {"monotone_constraints": {"feature_0": 1, "feature_1": -1, "feature_3": 1}, "max_depth": 5},
    "monotone with penalties": {
        "monotone_constraints": {"feature_0": 1, "feature_2": -1},
        "reg_alpha": 0.7,
        "max_delta_step": 0.5,
        "min_child_weight": 4,
    },
    "interaction": {"interaction_constraints": [["feature_0", "feature_1"], ["feature_1", "feature_2", "feature_3"]]},
    "categories": CATEGORIES,
    "categories one by one": CATEGORIES | {"max_cat_to_onehot": 20},
    "few categories a set": CATEGORIES | {"max_cat_threshold": 4, "min_child_weight": 3, "reg_alpha": 0.3},
    "loss-guided": {"grow_policy": "lossguide", "max_leaves": 21, "max_depth": 0},
    "loss-guided and bounded": {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 6, "gamma": 0.4},
    "levels with few leaves": {"max_leaves": 11},
    "learning rates": {"learning_rates": [0.5, 0.4, 0.3, 0.1]},
    "all of them": CATEGORIES
    | {
        "monotone_constraints": {"feature_0": 1},
        "interaction_constraints": [["feature_0", "feature_4", "feature_5"], ["feature_1", "feature_2"]],
        "grow_policy": "lossguide",
        "max_leaves": 24,
        "learning_rates": [0.4, 0.2],
        "scale_pos_weight": 3.0,
    },
}


@pytest.mark.parametrize("case", FEATURES)
@pytest.mark.parametrize("weighted", [False, True])
def test_features_are_xgboosts(case: str, weighted: bool) -> None:
    x, y = make_mixed_rows(5000, seed=len(case))
    values = {"n_estimators": 30, "max_bin": 48, "xgboost_arithmetic": ARITHMETIC} | FEATURES[case]
    params = BoostingParameters.from_mapping(values)
    weights = np.random.default_rng(5).gamma(2.0, 0.5, 5000).astype(np.float32) if weighted else None
    trained = train(x, y, params, weights=weights)
    booster, theirs = pooled(trained, y, params, weights)
    assert same_trees(trained, booster) >= 0.99
    ours = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(ours - theirs).max() < 1e-5
    assert abs(average_precision_score(y, ours) - average_precision_score(y, theirs)) < 1e-4
    # The exported file, on the real values, is the same model.
    loaded = xgboost.Booster()
    loaded.load_model(bytearray(trained.model))
    assert loaded.feature_types == ["c" if name in params.categorical_features else "float" for name in names(6)]
    matrix = xgboost.DMatrix(x, feature_names=names(6), feature_types=loaded.feature_types, enable_categorical=True)
    assert np.abs(loaded.predict(matrix, output_margin=True) - ours).max() < 1e-6
    shap = loaded.predict(matrix, pred_contribs=True)
    assert np.abs(shap.sum(axis=1) - ours).max() < 1e-4


def test_categories_that_nobody_trained_on_go_where_xgboost_sends_them() -> None:
    x, y = make_mixed_rows(3000, seed=3)
    params = BoostingParameters.from_mapping({"n_estimators": 8} | CATEGORIES)
    trained = train(x, y, params)
    odd = x[:200].copy()
    odd[:, 4] = np.tile(np.array([12, 31, 255, 256, 4000], dtype=np.float32), 40)
    loaded = xgboost.Booster()
    loaded.load_model(bytearray(trained.model))
    types = loaded.feature_types
    matrix = xgboost.DMatrix(odd, feature_names=names(6), feature_types=types, enable_categorical=True)
    assert any((tree.feature[tree.set_of_node >= 0] == 4).any() for tree in trained.trees)
    ours = predict_margin(trained.trees, odd, trained.base_score)
    assert np.abs(loaded.predict(matrix, output_margin=True) - ours).max() < 1e-6


@pytest.mark.parametrize("sampling", ["bytree", "bylevel", "bynode", "all three"])
def test_sampled_features_split_as_in_xgboost(sampling: str) -> None:
    x, y = make_mixed_rows(1500, seed=8)
    shares = {f"colsample_{way}": 0.6 for way in ("bytree", "bylevel", "bynode") if sampling in (way, "all three")}
    params = BoostingParameters.from_mapping(
        {"n_estimators": 12, "max_depth": 4, "xgboost_arithmetic": ARITHMETIC, "seed": 4} | CATEGORIES | shares
    )
    trained = train(x, y, params)
    assert train(x, y, BoostingParameters.from_mapping(params.to_mapping() | {"seed": 5})).model != trained.model
    same, theirs = node_by_node(trained, y, params)
    assert same >= 0.99
    ours = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(ours - theirs).max() < 1e-5
    assert abs(average_precision_score(y, ours) - average_precision_score(y, theirs)) < 1e-4


def test_sampled_rows_train_as_in_xgboost() -> None:
    x, y = make_mixed_rows(5000, seed=9)
    params = BoostingParameters.from_mapping(
        {"n_estimators": 20, "subsample": 0.5, "seed": 2, "xgboost_arithmetic": ARITHMETIC} | CATEGORIES
    )
    keys = row_keys(range(5000))
    trained = train(x, y, params, keys=keys)
    rounds = iter(range(20))

    def sampled(margins: np.ndarray, matrix: xgboost.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        return masked_objective(y, sample_rows(keys, 0.5, 2, next(rounds)))(margins, matrix)

    booster, theirs = pooled(trained, y, params, objective=sampled)
    assert same_trees(trained, booster) >= 0.99
    ours = predict_margin(trained.trees, x, trained.base_score)
    assert np.abs(ours - theirs).max() < 1e-5
    assert abs(average_precision_score(y, ours) - average_precision_score(y, theirs)) < 1e-4


def test_the_base_score_is_xgboosts() -> None:
    x, y = make_rows(3000, share=0.07)
    for weight in (1.0, 0.5, 12.0):
        params = BoostingParameters(n_estimators=1, scale_pos_weight=weight)
        trained = train(x, y, params)
        booster, _ = pooled(trained, y, params)
        stored = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
        assert trained.base_score == pytest.approx(float(stored.strip("[]")), rel=2e-7)
        own = np.random.default_rng(2).random(3000).astype(np.float32) * 4
        heavy = train(x, y, params, weights=own)
        booster, _ = pooled(heavy, y, params, own)
        stored = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
        assert heavy.base_score == pytest.approx(float(stored.strip("[]")), rel=5e-7)


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


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_a_models_text_does_not_depend_on_what_was_written_before(first: float) -> None:
    params = BoostingParameters.from_mapping({"n_estimators": 1, "max_depth": 1})
    trained = train(*make_rows(300), params)
    texts = []
    for value in (first, -first, first):
        tree = replace(trained.trees[0], weight=np.full_like(trained.trees[0].weight, value))
        model = export_booster([tree], trained.cuts, params, names(trained.cuts.n_features), trained.base_score)
        texts.append(model.decode().partition('"base_weights":[')[2].partition("]")[0].split(",")[0])
    assert texts == [str(value).replace("0.0", "0.0E+0") for value in (first, -first, first)]
