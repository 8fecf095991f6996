"""Proposed structures: their code, and trees grown by them: XGBoost's where one bank has all rows."""

import json

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters, RowError, Tree, row_keys, train_trees
from bank_node.boosting.errors import BoostingError, SumError
from bank_node.boosting.gradients import base_margin
from bank_node.boosting.structure import ProposedSplit, code_length, decode, encode
from bank_node.training.proposing import Proposer, agree_on_proposers, structure_of, whose_turn
from protocol.errors import LocalError, ParameterError
from tests.unit.bank_node.boosting.samples import Trained, alone, make_rows, train

N_BINS = np.array([4, 1, 255, 2], dtype=np.int64)


def splits(depth: int) -> st.SearchStrategy[ProposedSplit | None]:
    if depth == 0:
        return st.none()
    below = splits(depth - 1)

    def place(feature: int) -> st.SearchStrategy[ProposedSplit]:
        return st.builds(
            ProposedSplit,
            feature=st.just(feature),
            split_bin=st.integers(-1, int(N_BINS[feature]) - 1),
            default_left=st.booleans(),
            left=below,
            right=below,
        )

    return st.none() | st.sampled_from(range(4)).flatmap(place)


@given(root=splits(4))
def test_a_code_reads_back(root: ProposedSplit | None) -> None:
    length = code_length(BoostingParameters(max_depth=4))
    code = encode(root, length)
    assert code.shape == (31,) and code.dtype == np.int64
    assert decode(code, N_BINS, 4, "s") == root


@given(root=splits(3), place=st.integers(0, 14), change=st.integers(-3000, 3000).filter(bool))
def test_a_changed_code_is_refused_or_another_tree_within_the_bounds(
    root: ProposedSplit | None, place: int, change: int
) -> None:
    code = encode(root, 15)
    code[place] += change
    try:
        found = decode(code, N_BINS, 3, "train/3/structure")
    except SumError as error:
        assert "train/3/structure: the sum is no tree" in str(error)
        return
    assert found != root and (encode(found, 15) == code).all()


def test_nobody_and_two_at_once_are_no_tree() -> None:
    with pytest.raises(SumError, match="no tree"):
        decode(np.zeros(15, dtype=np.int64), N_BINS, 3, "s")
    one = encode(ProposedSplit(feature=0, split_bin=1, default_left=True, left=None, right=None), 15)
    with pytest.raises(SumError, match="no tree"):
        decode(one + one, N_BINS, 3, "s")


@pytest.mark.parametrize(
    ("params", "length"),
    [({"max_depth": 6}, 127), ({"max_depth": 6, "max_leaves": 9}, 17), ({"max_depth": 12}, 8191)],
)
def test_the_code_has_room_for_any_tree(params: dict, length: int) -> None:
    assert code_length(BoostingParameters(**params)) == length
    assert code_length(BoostingParameters(max_depth=0, max_leaves=20, grow_policy="lossguide")) == 39


PARAMS = {"n_estimators": 12, "max_depth": 4, "max_bin": 32, "eta": 0.3}


def local(x: np.ndarray, y: np.ndarray, mapping: dict, weights: np.ndarray | None = None, keys=None) -> tuple:
    """Both modes at one bank."""
    exact = BoostingParameters.from_mapping(mapping)
    trained = train(x, y, exact, weights=weights, keys=keys)
    params = BoostingParameters.from_mapping(mapping | {"structure": "local"})
    start = np.full(len(y), base_margin(trained.base_score), dtype=np.float32)
    trees = train_trees(
        trained.binned,
        y,
        params,
        alone,
        n_rows_total=len(y),
        weights=weights,
        row_keys=keys,
        propose=Proposer(x, y, trained.cuts, params, start, weights, keys),
    )
    return trained, trees


def same_structure(trained: Trained, trees: list) -> float:
    same = [preorder(ours)[0] == preorder(theirs)[0] for ours, theirs in zip(trained.trees, trees, strict=True)]
    return float(np.mean(same))


def preorder(tree: Tree) -> tuple[list, list[int]]:
    """Where each node splits, from the root down and from the left, and its number, which depends on the growth."""
    places, numbers, waiting = [], [], [0]
    while waiting:
        node = waiting.pop()
        numbers.append(node)
        if tree.left[node] < 0:
            places.append(None)
        else:
            places.append((int(tree.feature[node]), float(tree.threshold[node])))
            waiting += [int(tree.right[node]), int(tree.left[node])]
    return places, numbers


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"reg_alpha": 0.5, "reg_lambda": 3.0},
        {"max_delta_step": 0.7, "min_child_weight": 5.0, "gamma": 0.5},
        {"monotone_constraints": {"feature_0": 1, "feature_3": -1}},
        {"max_leaves": 6, "grow_policy": "lossguide", "max_depth": 0},
        {"scale_pos_weight": 4.0, "learning_rates": [0.5, 0.1]},
        {"interaction_constraints": [["feature_0", "feature_1"], ["feature_2", "feature_3"]]},
    ],
    ids=str,
)
def test_one_bank_s_trees_are_those_of_the_global_mode(extra: dict) -> None:
    x, y = make_rows(4000, missing=0.1, seed=3)
    trained, trees = local(x, y, PARAMS | extra)
    # XGBoost finds the same splits in its own histograms but for equally good ones.
    assert same_structure(trained, trees) >= 0.9
    ours, theirs = trees[0], trained.trees[0]
    here, there = preorder(ours)[1], preorder(theirs)[1]
    for name, off in (("value", 1e-6), ("weight", 1e-6), ("sum_hessian", 1e-3), ("loss_change", 0.02)):
        assert np.allclose(getattr(ours, name)[here], getattr(theirs, name)[there], rtol=2e-3, atol=off), name


def test_weights_and_samples_of_rows_reach_the_proposer() -> None:
    x, y = make_rows(4000, missing=0.1, seed=3)
    weights = np.random.default_rng(0).uniform(0, 3, len(y)).astype(np.float32)
    trained, trees = local(x, y, PARAMS, weights)
    assert same_structure(trained, trees) >= 0.9
    keys = row_keys(range(len(y)))
    trained, trees = local(x, y, PARAMS | {"subsample": 0.6}, weights, keys)
    assert same_structure(trained, trees) >= 0.9
    assert same_structure(train(x, y, BoostingParameters.from_mapping(PARAMS)), trees) < 0.9


def test_a_split_of_present_from_missing_values_is_kept() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2)).astype(np.float32)
    y = (rng.random(2000) < 0.05).astype(np.uint8)
    x[y == 1, 0] = np.nan
    trained, trees = local(x, y, PARAMS | {"n_estimators": 1, "max_depth": 1})
    assert trees[0].n_nodes == 3 and abs(trees[0].threshold[0]) > 1e30
    assert (trees[0].value == trained.trees[0].value).all()


def test_thresholds_of_bins_become_bins() -> None:
    bins = np.repeat(np.arange(5, dtype=np.float32), 40)[:, None]
    for last in range(4):
        labels = (bins[:, 0] <= last).astype(np.uint8)
        matrix = xgboost.QuantileDMatrix(bins, label=labels, max_bin=256)
        booster = xgboost.train({"max_depth": 1, "max_bin": 256, "min_child_weight": 0}, matrix, 1)
        tree = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"][0]
        found = structure_of(tree, np.array([5], dtype=np.int64))
        assert found is not None and found.split_bin == last


@pytest.mark.parametrize(("threshold", "last"), [(float("inf"), 4), (9.0, 4), (float("-inf"), -1), (-3.0, -1)])
def test_thresholds_beyond_all_bins_send_present_values_one_way(threshold: float, last: int) -> None:
    tree = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [0, 0, 0],
        "split_conditions": [threshold, 0.1, -0.1],
        "default_left": [1, 0, 0],
    }
    found = structure_of(tree, np.array([5], dtype=np.int64))
    assert found is not None and found.split_bin == last


def test_turns_pass_over_banks_that_can_t_propose_or_were_dropped() -> None:
    members = ("a", "b", "c", "d")
    labels = {"a": [0, 1], "b": [0, 0], "c": [], "d": [1, 0, 0]}
    marks = {}

    def summing(step: str, vector: np.ndarray) -> np.ndarray:
        marks[len(marks)] = vector
        return sum(marks.values())

    for bank in ("a", "b", "c"):
        try:
            agree_on_proposers(members, bank, np.array(labels[bank], dtype=np.uint8), summing, "bins/0/turns")
        except LocalError:
            pytest.fail("a can propose")
    able = agree_on_proposers(members, "d", np.array(labels["d"], dtype=np.uint8), summing, "bins/0/turns")
    assert able == ("a", "d")
    assert [whose_turn(able, members, i) for i in range(4)] == ["a", "d", "a", "d"]
    assert [whose_turn(able, ("b", "d"), i) for i in range(2)] == ["d", "d"]
    with pytest.raises(LocalError, match="were dropped"):
        whose_turn(able, ("b", "c"), 0)
    with pytest.raises(LocalError, match="no bank has both frauds and others"):
        agree_on_proposers(("b",), "b", np.zeros(3, dtype=np.uint8), alone, "bins/0/turns")


def test_what_can_t_work_is_refused() -> None:
    with pytest.raises(ParameterError, match="structure must be one of global, local"):
        BoostingParameters(structure="mine")
    with pytest.raises(ParameterError, match="can't split by sets"):
        BoostingParameters(structure="local", categorical_features=("a",))
    x, y = make_rows(300)
    trained = train(x, y, BoostingParameters(n_estimators=1))
    params = BoostingParameters(n_estimators=1, structure="local", max_depth=2)
    with pytest.raises(BoostingError, match="needs proposals"):
        train_trees(trained.binned, y, params, alone, n_rows_total=300)

    def liar(step: str, vector: np.ndarray) -> np.ndarray:
        return -vector - 5 if step.endswith("leaves") else vector

    split = ProposedSplit(feature=0, split_bin=3, default_left=True, left=None, right=None)
    with pytest.raises(SumError, match="train/0/leaves: the sum is none of leaves"):
        train_trees(trained.binned, y, params, liar, n_rows_total=300, propose=lambda *_: encode(split, 7))
    with pytest.raises(RowError, match="subsample below 1 needs a key"):
        sampled = BoostingParameters(subsample=0.5, structure="local")
        train_trees(trained.binned, y, sampled, alone, n_rows_total=300, propose=lambda *_: encode(split, 127))
