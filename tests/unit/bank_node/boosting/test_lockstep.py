"""The headline: one model to the byte however rows lie over banks; and resuming, and odd consortia."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting import (
    BoostingError,
    BoostingParameters,
    RowError,
    SumError,
    Tree,
    add_tree,
    bin_rows,
    export_booster,
    global_bins,
    grower,
    leaf_of_rows,
    predict_margin,
    train_trees,
    trees_from_bytes,
    trees_to_bytes,
)
from bank_node.boosting.gradients import base_margin
from bank_node.boosting.nodes import GrowingTree
from bank_node.boosting.trees import leaf_of_rows_naive, predict_margin_naive
from protocol.layout import PAYLOAD_SLOTS
from tests.unit.bank_node.boosting.lockstep import run_banks
from tests.unit.bank_node.boosting.samples import alone, grids, make_mixed_rows, make_rows, names, train

PARAMS = BoostingParameters(n_estimators=4, max_depth=4, max_bin=16, min_child_weight=0.5, scale_pos_weight=3.0)
ROWS, LABELS = make_rows(240, missing=0.15)
POOLED = train(ROWS, LABELS, PARAMS)


def _models(bank_of_row: np.ndarray, n_banks: int) -> list[bytes]:
    return run_banks(
        [
            (lambda secure_sum, here=bank_of_row == k: train(ROWS[here], LABELS[here], PARAMS, secure_sum).model)
            for k in range(n_banks)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_split_of_rows_over_banks_gives_the_same_bytes(data: st.DataObject) -> None:
    n_banks = data.draw(st.integers(1, 5))
    chosen = data.draw(st.lists(st.integers(0, n_banks - 1), min_size=240, max_size=240))
    assert set(_models(np.array(chosen), n_banks)) == {POOLED.model}


@pytest.mark.parametrize("kind", ["empty bank", "bank without fraud", "all fraud at one bank", "rows reversed"])
def test_odd_splits_give_the_same_bytes(kind: str) -> None:
    bank = np.arange(240) % 3
    if kind == "empty bank":
        bank[bank == 1] = 0
    elif kind == "bank without fraud":
        bank[(bank == 1) & (LABELS == 1)] = 2
    elif kind == "all fraud at one bank":
        bank = LABELS.astype(np.int64)
    else:
        assert train(ROWS[::-1], LABELS[::-1], PARAMS).model == POOLED.model
    assert set(_models(bank, 3)) == {POOLED.model}


def test_a_different_row_gives_a_different_model() -> None:
    assert train(ROWS[1:], LABELS[1:], PARAMS).model != POOLED.model


def test_steps_and_sizes() -> None:
    seen: list[tuple[str, int]] = []

    def recording(step: str, vector: np.ndarray) -> np.ndarray:
        seen.append((step, vector.size))
        return vector

    train_trees(POOLED.binned, LABELS, PARAMS, recording, n_rows_total=240)
    per_node = 2 * POOLED.cuts.total_bins  # the missing slot follows from the node's total
    assert seen[0] == ("train/0/0", per_node + 2)
    # One of two children, in whole ciphertexts: how many slots the split leaves it is not to be seen.
    assert seen[1] == ("train/0/1", PAYLOAD_SLOTS)
    assert not any(step.endswith(f"/{PARAMS.max_depth}") for step, _ in seen)


@pytest.mark.parametrize("layout", ["wide", "packed"])
def test_slots_that_no_row_can_reach_are_not_sent(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = make_mixed_rows(2000, seed=3)
    values = {"n_estimators": 4, "max_depth": 5, "histogram_layout": layout, "categorical_features": ["feature_4"]}
    params = BoostingParameters.from_mapping(values)
    monkeypatch.setattr(grower, "PAYLOAD_SLOTS", 1)
    monkeypatch.setattr(grower, "SMALL_STEP", 0)
    sizes: list[dict[str, int]] = []
    models = []
    for _ in range(2):
        seen: dict[str, int] = {}
        made = train(x, y, params)

        def recording(step: str, vector: np.ndarray, seen: dict[str, int] = seen) -> np.ndarray:
            seen[step] = vector.size
            return vector

        train_trees(made.binned, y, params, recording, n_rows_total=len(y))
        sizes.append(seen)
        models.append(made.model)
        monkeypatch.setattr(GrowingTree, "narrow", lambda *_: None)
    assert models[0] == models[1]
    fewer, all_slots = sizes
    assert fewer.keys() == all_slots.keys()
    for step, size in fewer.items():
        assert size < all_slots[step] or step.endswith("/0")


def test_resume_gives_the_same_bytes() -> None:
    params = BoostingParameters(n_estimators=10, max_depth=4, max_bin=16)
    whole = train(ROWS, LABELS, params)
    saved: list[Tree] = []
    short = BoostingParameters(n_estimators=4, max_depth=4, max_bin=16)
    train_trees(whole.binned, LABELS, short, alone, n_rows_total=240, on_round=lambda i, tree: saved.insert(i, tree))
    rounds: list[int] = []
    again = train_trees(
        whole.binned,
        LABELS,
        params,
        alone,
        n_rows_total=240,
        resume=trees_from_bytes(trees_to_bytes(saved)),
        on_round=lambda i, _: rounds.append(i),
    )
    assert rounds == [4, 5, 6, 7, 8, 9]
    assert export_booster(again, whole.cuts, params, names(6), whole.base_score) == whole.model
    assert trees_to_bytes(again) == trees_to_bytes(whole.trees)
    with pytest.raises(BoostingError, match="10 trees to resume from"):
        train_trees(whole.binned, LABELS, short, alone, n_rows_total=240, resume=again)


def test_binned_and_real_rows_take_the_same_way() -> None:
    margins = np.full(240, base_margin(POOLED.base_score), dtype=np.float32)
    for tree in POOLED.trees:
        assert np.array_equal(leaf_of_rows(tree, POOLED.binned), leaf_of_rows_naive(tree, POOLED.binned))
        add_tree(margins, tree, POOLED.binned)
    assert np.array_equal(margins, predict_margin(POOLED.trees, ROWS, POOLED.base_score))
    assert np.array_equal(margins, predict_margin_naive(POOLED.trees, ROWS, POOLED.base_score))
    with pytest.raises(RowError, match="needs at least"):
        predict_margin(POOLED.trees, ROWS[:, :1], POOLED.base_score)


def test_no_usable_feature_gives_trees_of_one_leaf() -> None:
    x = np.ones((50, 2), dtype=np.float32)
    y = (np.arange(50) < 10).astype(np.uint8)
    params = BoostingParameters(n_estimators=2, base_score=0.5)
    trained = train(x, y, params, edges=[np.array([2.0]), np.array([0.0])])
    assert [tree.n_nodes for tree in trained.trees] == [1, 1]
    # G = 40 * 0.5 - 10 * 0.5, H = 12.5, weight -15 / 13.5.
    assert trained.trees[0].value[0] == pytest.approx(-15 / 13.5 * 0.3)
    none = train(np.empty((50, 0), dtype=np.float32), y, params, edges=[])
    assert none.trees[0].value[0] == trained.trees[0].value[0]


def test_missing_alone_can_split() -> None:
    x = np.where(np.arange(80)[:, None] < 30, np.nan, 1.0).astype(np.float32)
    y = (np.arange(80) < 25).astype(np.uint8)
    trained = train(x, y, BoostingParameters(n_estimators=1, base_score=0.5), edges=[np.array([5.0])])
    tree = trained.trees[0]
    assert tree.n_nodes == 3 and np.isfinite(tree.threshold).all()
    margins = predict_margin(trained.trees, x, 0.5)
    assert (margins[:30] > 0).all() and (margins[30:] < 0).all()
    assert json.loads(trained.model)["learner"]["feature_names"] == ["feature_0"]


def test_checkpoint_of_trees() -> None:
    data = trees_to_bytes(POOLED.trees)
    again = trees_from_bytes(data)
    assert trees_to_bytes(again) == data and len(again) == 4
    assert trees_from_bytes(trees_to_bytes([])) == []
    for broken in (b"", b"PK\x03\x04nothing", data[: len(data) // 2]):
        with pytest.raises(BoostingError, match="trees cannot be read"):
            trees_from_bytes(broken)


def test_an_impossible_sum_stops_training_and_names_the_step() -> None:
    def tampered(step: str, vector: np.ndarray) -> np.ndarray:
        return vector if step != "train/1/1" else -vector

    with pytest.raises(SumError, match="step train/1/1"):
        train_trees(POOLED.binned, LABELS, PARAMS, tampered, n_rows_total=240)
    with pytest.raises(SumError, match="step train/0/0: the sum has shape"):
        train_trees(POOLED.binned, LABELS, PARAMS, lambda step, vector: vector[:-1], n_rows_total=240)


def test_a_child_heavier_than_its_parent_stops_training() -> None:
    def moved(step: str, vector: np.ndarray) -> np.ndarray:
        if step == "train/0/1":
            # A fine histogram by itself, but its first bin in use now outweighs the parent's.
            hessians = vector.reshape(-1, 2)[:, 1]
            first, second = np.flatnonzero(hessians)[:2]
            hessians[first], hessians[second] = hessians[first] + hessians[second], 0
        return vector

    x = np.nan_to_num(ROWS[:, :1])
    params = BoostingParameters(n_estimators=1, max_depth=2, max_bin=16, min_child_weight=0.0)
    trained = train(x, LABELS, params)
    with pytest.raises(SumError, match="step train/0/1"):
        train_trees(trained.binned, LABELS, params, moved, n_rows_total=240)


def test_values_on_a_cut_go_right() -> None:
    x, y = make_rows(300, f=4)
    x = np.round(x * 4) / 4  # values and edges share a grid of quarters
    trained = train(x, y, BoostingParameters(n_estimators=3), edges=[np.arange(-4, 4.25, 0.25)] * 4)
    assert any(np.isin(x[:, 0], tree.threshold[tree.feature == 0]).any() for tree in trained.trees)
    margins = np.full(300, base_margin(trained.base_score), dtype=np.float32)
    for tree in trained.trees:
        add_tree(margins, tree, trained.binned)
    assert np.array_equal(margins, predict_margin(trained.trees, x, trained.base_score))


def test_rows_that_contradict_the_bins_are_refused() -> None:
    x, y = make_rows(60)
    cuts = global_bins(x, y, grids(6), 8, alone)
    x[5, 1] = np.nan
    with pytest.raises(RowError, match="feature 1 has 1 missing values"):
        train_trees(bin_rows(x, cuts), y, PARAMS, alone, n_rows_total=60)
    with pytest.raises(BoostingError, match="all banks together only 30"):
        train_trees(POOLED.binned, LABELS, PARAMS, alone, n_rows_total=30)


def test_one_bank_failing_frees_the_others() -> None:
    def broken(secure_sum: object) -> bytes:
        raise RowError("this bank has no table")

    with pytest.raises(RowError, match="no table"):
        run_banks([lambda secure_sum: train(ROWS, LABELS, PARAMS, secure_sum).model, broken])
