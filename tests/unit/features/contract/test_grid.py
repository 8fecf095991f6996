"""Grids: edges increase, are few enough, are exact in float32, and lie where the contract says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from features.contract.grid import MAX_EDGES, Grid, LogGrid

ADAPTER: TypeAdapter[Any] = TypeAdapter(Grid)
cells = st.integers(3, MAX_EDGES - 1)


def edges_of(**spec: Any) -> np.ndarray:
    return ADAPTER.validate_python(spec).edges()


def assert_sound(edges: np.ndarray) -> None:
    assert edges.dtype == np.float64
    assert 1 <= len(edges) <= MAX_EDGES
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert (edges.astype(np.float32).astype(np.float64) == edges).all()


@given(low=st.floats(-1e6, 1e6, width=32), width=st.floats(0.01, 1e6), cells=cells)
def test_linear_edges_are_sound(low: float, width: float, cells: int) -> None:
    assume(low + width > low)
    edges = edges_of(kind="linear", low=low, high=low + width, cells=cells)
    assert_sound(edges)
    assert edges[0] == np.float32(low)
    assert edges[-1] == np.float32(low + width)


@given(low=st.floats(1e-4, 10), ratio=st.floats(1.5, 1e9), cells=cells, whole=st.booleans())
def test_log_edges_are_sound(low: float, ratio: float, cells: int, whole: bool) -> None:
    edges = edges_of(kind="log", low=low, high=low * ratio, cells=cells, whole=whole)
    assert_sound(edges)
    if whole:
        assert (edges == np.round(edges)).all()
    else:
        assert edges[0] == pytest.approx(low, rel=1e-6)
        assert edges[-1] == pytest.approx(low * ratio, rel=1e-6)


@given(low=st.floats(-1e7, -2), high=st.floats(2, 1e7), smallest=st.floats(0.001, 1), cells=cells)
def test_symmetrical_log_edges_are_sound_and_leave_one_cell_around_zero(
    low: float, high: float, smallest: float, cells: int
) -> None:
    edges = edges_of(kind="log", low=low, high=high, smallest=smallest, cells=cells)
    assert_sound(edges)
    assert len(edges) <= cells + 1
    inner = edges[np.searchsorted(edges, 0) - 1 : np.searchsorted(edges, 0) + 1]
    assert list(inner) == [-np.float32(smallest), np.float32(smallest)]
    assert edges[0] == pytest.approx(low, rel=1e-6)
    assert edges[-1] == pytest.approx(high, rel=1e-6)


def test_hand_cases() -> None:
    assert list(edges_of(kind="linear", low=0, high=1, cells=4)) == [0, 0.25, 0.5, 0.75, 1]
    assert list(edges_of(kind="log", low=1, high=1000, cells=3)) == [1, 10, 100, 1000]
    assert list(edges_of(kind="log", low=1, high=8, cells=30, whole=True)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(edges_of(kind="log", low=-100, high=100, smallest=1, cells=5)) == [-100, -10, -1, 1, 10, 100]
    assert list(edges_of(kind="values", values=[1, 2.5])) == [1, 2.5]


def test_log_cells_have_one_ratio() -> None:
    edges = LogGrid(kind="log", low=0.1, high=1e6, cells=1000).edges()
    np.testing.assert_allclose(edges[1:] / edges[:-1], 1e7 ** (1 / 1000), rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "linear", "low": 1, "high": 1, "cells": 3},
        {"kind": "linear", "low": 0, "high": 1, "cells": 0},
        {"kind": "linear", "low": 0, "high": 1, "cells": MAX_EDGES},
        {"kind": "linear", "low": 0, "high": float("inf"), "cells": 3},
        {"kind": "linear", "low": float("nan"), "high": 1, "cells": 3},
        {"kind": "log", "low": 0, "high": 1, "cells": 3},
        {"kind": "log", "low": 2, "high": 1, "cells": 3},
        {"kind": "log", "low": -1, "high": 1, "cells": 3},
        {"kind": "log", "low": -1, "high": 1, "cells": 3, "smallest": 2},
        {"kind": "log", "low": -1, "high": 1, "cells": 2, "smallest": 0.1},
        {"kind": "log", "low": 1, "high": 2, "cells": 3, "smallest": 0.1},
        {"kind": "values", "values": []},
        {"kind": "values", "values": [1, 1]},
        {"kind": "values", "values": [2, 1]},
        {"kind": "values", "values": [1.0, 1.0 + 1e-12]},
        {"kind": "values", "values": list(range(MAX_EDGES + 1))},
        {"kind": "values", "values": [1], "colour": 1},
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(spec)
