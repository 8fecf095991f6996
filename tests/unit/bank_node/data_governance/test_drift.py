"""The population stability index: hand case, zero for equals, order and scale, and the counts it is made of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank_node.data_governance.drift import Drift, drift_of, psi, recent_and_past, split_counts

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=60).map(lambda values: np.array(values, dtype=np.int64))


def test_a_hand_case() -> None:
    """Two cells of equal reference, ours 3 to 1; half a row is added to each group."""
    p = np.array([300.5, 100.5]) / 401
    q = np.array([200.5, 200.5]) / 401
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = psi(np.array([0, 300, 100]), np.array([0, 200, 200]), groups=2)
    assert found == pytest.approx(expected, rel=1e-12)


@given(counts)
def test_equal_distributions_do_not_drift(values: np.ndarray) -> None:
    found = psi(values, values)
    assert (found is None) == (values.sum() < 100)
    assert found is None or found == 0


@given(counts, st.data())
def test_it_is_never_negative_and_missing_counts(values: np.ndarray, data: st.DataObject) -> None:
    other = np.array(data.draw(st.permutations(values.tolist())), dtype=np.int64)
    found = psi(values, other)
    assert found is None or found >= 0


def test_a_column_that_goes_missing_drifts() -> None:
    before = np.array([0, 500, 500])
    assert psi(np.array([500, 250, 250]), before) > 0.25 > 0.01 > psi(np.array([1, 500, 499]), before)


def test_counts_of_the_binning_step_are_cut_by_feature() -> None:
    vector = np.arange(11)
    assert [part.tolist() for part in split_counts(vector, [3, 4])] == [[4, 5, 6], [7, 8, 9, 10]]
    with pytest.raises(ValueError, match="11 counts"):
        split_counts(vector, [3, 3])


def test_the_words_name_the_worst_feature_and_no_count() -> None:
    same, other = np.array([0, 500, 500]), np.array([0, 900, 100])
    drift = drift_of(["a", "b"], [same, other], [same, same], [same, same], [same, same])
    assert "(b), 1 of 2 above 0.25" in drift.words and "900" not in drift.words
    assert Drift(consortium={"a": None}, own_past={}).words.endswith("too few rows")
    assert drift.to_mapping()["consortium"]["a"] == 0


def test_features_that_grow_don_t_hide_the_others() -> None:
    same, other, little = np.array([0, 500, 500]), np.array([0, 990, 10]), np.array([0, 800, 200])
    drift = drift_of(["grows", "b"], [other, little], [same, same], [other, same], [same, same], ["grows"])
    assert "(b), 1 of 1" in drift.words and "grows" not in drift.words
    assert drift.to_mapping()["consortium"]["grows"] > drift.to_mapping()["consortium"]["b"], "still in the file"


@given(st.lists(st.integers(0, 200), min_size=0, max_size=40).map(sorted))
def test_recent_and_past_rows_are_apart_and_the_first_days_are_in_neither(days: list[int]) -> None:
    times = np.datetime64("2026-01-01", "us") + np.array(days, dtype="timedelta64[D]").astype("timedelta64[us]")
    recent, past = recent_and_past(times)
    last, first = (days[-1], days[0]) if days else (0, 0)
    assert days[recent] == [day for day in days if day > last - 28]
    assert days[past] == [day for day in days if first + 30 <= day <= last - 28]
