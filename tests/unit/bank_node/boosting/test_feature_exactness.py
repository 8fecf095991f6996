"""Exactness of every feature: the same bytes for any split of rows over banks, wide and packed, and after resuming."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting import (
    BoostingParameters,
    ParameterError,
    RowError,
    bin_rows,
    export_booster,
    predict_margin,
    train_trees,
)
from bank_node.boosting.sampling import FeatureSampler, row_keys, sample_rows, sample_rows_naive
from bank_node.boosting.trees import trees_from_bytes, trees_to_bytes
from tests.unit.bank_node.boosting.lockstep import run_banks
from tests.unit.bank_node.boosting.samples import alone, make_mixed_rows, names, train

N = 400
ROWS, LABELS = make_mixed_rows(N, seed=1, categories=9)
WEIGHTS = np.random.default_rng(2).gamma(2.0, 0.5, N).astype(np.float32)
KEYS = row_keys(f"row {i}" for i in range(N))
FEATURES = {
    "weights": {},
    "row sampling": {"subsample": 0.6},
    "column sampling": {"colsample_bytree": 0.7, "colsample_bylevel": 0.7, "colsample_bynode": 0.7},
    "monotone": {"monotone_constraints": {"feature_0": 1, "feature_1": -1}},
    "interaction": {"interaction_constraints": [["feature_0", "feature_1"], ["feature_2", "feature_4"]]},
    "categories": {"categorical_features": ["feature_4", "feature_5"]},
    "bounded steps": {"max_delta_step": 0.3},
    "loss-guided": {"grow_policy": "lossguide", "max_leaves": 9, "max_depth": 0},
    "levels with few leaves": {"max_leaves": 6},
    "learning rates": {"learning_rates": [0.5, 0.2]},
    "all of them": {
        "subsample": 0.7,
        "colsample_bytree": 0.9,
        "colsample_bynode": 0.8,
        "monotone_constraints": {"feature_0": 1},
        "interaction_constraints": [["feature_0", "feature_4", "feature_5"], ["feature_1", "feature_2"]],
        "categorical_features": ["feature_4", "feature_5"],
        "max_delta_step": 0.5,
        "grow_policy": "lossguide",
        "max_leaves": 8,
        "learning_rates": [0.4, 0.3],
        "scale_pos_weight": 2.0,
    },
}


def _params(case: str, layout: str, **more: object) -> BoostingParameters:
    values = {"n_estimators": 3, "max_depth": 4, "max_bin": 16, "min_child_weight": 0.5, "histogram_layout": layout}
    return BoostingParameters.from_mapping(values | FEATURES[case] | more)


def _weights(case: str) -> np.ndarray | None:
    return WEIGHTS if case in ("weights", "all of them") else None


def _model(case: str, params: BoostingParameters, here: np.ndarray, secure_sum: object = alone) -> bytes:
    own = _weights(case)
    return train(
        ROWS[here],
        LABELS[here],
        params,
        secure_sum,  # type: ignore[arg-type]
        weights=None if own is None else own[here],
        keys=KEYS[here],
    ).model


@pytest.mark.parametrize("layout", ["wide", "packed"])
@pytest.mark.parametrize("case", FEATURES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_split_of_rows_gives_the_same_bytes(case: str, layout: str, data: st.DataObject) -> None:
    params = _params(case, layout)
    whole = _model(case, params, np.arange(N))
    n_banks = data.draw(st.sampled_from([2, 3, 13]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    bank = rng.choice(n_banks, N, p=rng.dirichlet([0.7] * n_banks))
    order = rng.permutation(N)
    parts = [order[bank[order] == k] for k in range(n_banks)]
    models = run_banks([(lambda secure_sum, here=here: _model(case, params, here, secure_sum)) for here in parts])
    assert set(models) == {whole}


@pytest.mark.parametrize("case", [case for case in FEATURES if case != "weights"])
def test_each_feature_changes_the_model(case: str) -> None:
    everything = np.arange(N)
    plain = BoostingParameters(n_estimators=3, max_depth=4, max_bin=16, min_child_weight=0.5)
    assert _model(case, _params(case, "wide"), everything) != _model(case, plain, everything)


def test_weights_change_the_model_and_equal_ones_do_not() -> None:
    params = _params("weights", "wide")
    plain = train(ROWS, LABELS, params).model
    assert train(ROWS, LABELS, params, weights=WEIGHTS).model != plain
    assert train(ROWS, LABELS, params, weights=np.ones(N)).model == plain


@pytest.mark.parametrize("layout", ["wide", "packed"])
def test_resuming_gives_the_same_trees(layout: str) -> None:
    params = _params("all of them", layout, n_estimators=6)
    whole = train(ROWS, LABELS, params, weights=WEIGHTS, keys=KEYS)
    again = train_trees(
        whole.binned,
        LABELS,
        params,
        alone,
        n_rows_total=N,
        weights=WEIGHTS,
        row_keys=KEYS,
        resume=trees_from_bytes(trees_to_bytes(whole.trees[:3])),
    )
    assert trees_to_bytes(again) == trees_to_bytes(whole.trees)
    assert any((tree.set_of_node >= 0).any() for tree in again)
    assert export_booster(again, whole.cuts, params, names(6), whole.base_score) == whole.model


@pytest.mark.parametrize("layout", ["wide", "packed"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.4]))
def test_monotone_predictions_are_monotone(layout: str, seed: int, alpha: float) -> None:
    x, y = make_mixed_rows(300, seed=seed)
    params = BoostingParameters.from_mapping(
        {
            "n_estimators": 4,
            "max_bin": 16,
            "monotone_constraints": {"feature_0": 1, "feature_1": -1},
            "histogram_layout": layout,
            "min_child_weight": 0.1,
            "reg_alpha": alpha,
        }
    )
    trained = train(x, y, params)
    probes = np.repeat(np.nan_to_num(x[:40]), 30, axis=0)
    for feature, way in ((0, 1), (1, -1)):
        moved = probes.copy()
        moved[:, feature] = np.tile(np.linspace(-3, 3, 30), 40)
        for tree in trained.trees:  # each tree by itself, so that nothing makes up for anything
            margins = predict_margin([tree], moved, 0.5).reshape(40, 30)
            assert (way * np.diff(margins, axis=1) >= 0).all()


def test_interaction_constraints_hold_on_every_path() -> None:
    params = _params("interaction", "wide", n_estimators=8)
    groups = [{0, 1}, {2, 4}]
    for tree in train(ROWS, LABELS, params).trees:
        used: list[set[int]] = []
        for node in range(tree.n_nodes):
            above = used[tree.parent[node]] if node else set()
            used.append(above | {int(tree.feature[node])} if tree.left[node] >= 0 else above)
            assert len(used[node]) < 2 or any(used[node] <= group for group in groups)


def test_sampled_rows_are_a_matter_of_their_keys_alone() -> None:
    keys = row_keys(range(20_000))
    inside = sample_rows(keys, 0.3, 7, 2)
    assert np.array_equal(inside[:500], sample_rows_naive(keys[:500], 0.3, 7, 2))
    order = np.random.default_rng(0).permutation(20_000)
    assert np.array_equal(sample_rows(keys[order], 0.3, 7, 2), inside[order])
    assert abs(inside.mean() - 0.3) < 0.015  # five standard deviations
    for seed, round_index in ((8, 2), (7, 3)):
        other = sample_rows(keys, 0.3, seed, round_index)
        assert abs((inside & other).mean() - 0.09) < 0.011
    assert (sample_rows(keys, 0.6, 7, 2) >= inside).all()
    assert sample_rows(keys, 1.0, 7, 2).all()
    # Fixed for ever: banks of different versions must agree.
    assert row_keys(["a", 1]).tolist() == [3405396810240292928, 8518482412311870710]


def test_sampled_features_are_nested_and_never_none() -> None:
    params = BoostingParameters(colsample_bytree=0.5, colsample_bylevel=0.5, colsample_bynode=0.5, seed=3)
    sampler = FeatureSampler(params, 20, 4)
    assert len(sampler.tree) == 10
    for depth in range(3):
        for node in range(8):
            chosen = sampler.node(depth, node)
            assert len(chosen) == 2 and list(chosen) == sorted(chosen) and set(chosen) <= set(sampler.tree)
    assert len({sampler.node(0, node) for node in range(50)}) <= 10  # pairs of one level's five
    assert len({FeatureSampler(params, 20, r).tree for r in range(10)}) > 5
    assert len(FeatureSampler(BoostingParameters(colsample_bytree=0.01), 20, 0).tree) == 1
    assert FeatureSampler(BoostingParameters(), 5, 0).node(2, 9) == (0, 1, 2, 3, 4)


def test_only_sampled_features_are_sent() -> None:
    sizes: list[int] = []

    def recording(step: str, vector: np.ndarray) -> np.ndarray:
        if step == "train/0/0":
            sizes.append(vector.size)
        return vector

    for share in (1.0, 0.34):
        train(ROWS, LABELS, _params("weights", "wide", colsample_bytree=share), recording)
    assert sizes[1] < 0.5 * sizes[0]


def test_what_a_bank_must_give() -> None:
    params = _params("row sampling", "wide")
    with pytest.raises(RowError, match="subsample below 1 needs a key"):
        train(ROWS, LABELS, params)
    with pytest.raises(
        RowError, match=r"2 of 400 weights are negative, missing or above 1\.04858e\+06, the first in row 3"
    ):
        train(ROWS, LABELS, params, weights=np.where(np.isin(np.arange(N), [3, 9]), -1.0, 1.0), keys=KEYS)
    with pytest.raises(RowError, match=r"feature feature_0 is categorical, but [0-9]+ values are no category numbers"):
        train(ROWS, LABELS, _params("categories", "wide", categorical_features=["feature_0"]))
    with pytest.raises(ParameterError, match="monotone_constraints names a feature 'amount' that is not trained on"):
        train(ROWS, LABELS, _params("monotone", "wide", monotone_constraints={"amount": 1}))
    trained = train(ROWS, LABELS, _params("categories", "wide"))
    odd = ROWS.copy()
    odd[:2, 4] = 30
    with pytest.raises(RowError, match="feature feature_4 has 2 categories that the bins were not agreed on"):
        bin_rows(odd, trained.cuts)
