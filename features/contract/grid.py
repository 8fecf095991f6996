"""The fine grid of a feature: fixed edges every bank knows beforehand. Does not look at data and chooses no bins.

The consortium counts rows per grid cell by secure sum and picks its bins among these edges, so a grid has to cover
what any bank may hold at a resolution that is good enough: a quantile is exact to one cell.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

__all__ = ["MAX_EDGES", "Grid", "LinearGrid", "LogGrid", "ValuesGrid"]

MAX_EDGES = 1023
"""Cap on edges: 1024 cells a feature, a quarter of a ciphertext's 4096 slots."""

_Cells = Annotated[int, Field(ge=1, le=MAX_EDGES - 1)]


class _Grid(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def edges(self) -> npt.NDArray[np.float64]:
        """The edges, strictly increasing; float64 ``(e,)``, 1 <= e <= 1023, each exact in float32.

        Cell ``i`` is ``[edge[i-1], edge[i])``: a row below the first edge is in cell 0 and one at or above the last
        in cell ``e``. Feature columns are float32, so each edge is rounded to float32: comparing in either width
        then gives the same cell.
        """
        return np.unique(self._raw_edges().astype(np.float32)).astype(np.float64)

    @abstractmethod
    def _raw_edges(self) -> npt.NDArray[np.float64]:
        """The edges in float64, increasing, before rounding to float32."""


class LinearGrid(_Grid):
    """``cells`` equal cells from ``low`` to ``high``.

    Attributes:
        kind: ``linear``.
        low: first edge.
        high: last edge.
        cells: how many between them.
    """

    kind: Literal["linear"]
    low: FiniteFloat
    high: FiniteFloat
    cells: _Cells

    @model_validator(mode="after")
    def _ordered(self) -> "LinearGrid":
        if self.low >= self.high:
            raise ValueError("a linear grid needs low < high")
        return self

    def _raw_edges(self) -> npt.NDArray[np.float64]:
        return np.linspace(self.low, self.high, self.cells + 1)


class LogGrid(_Grid):
    """``cells`` cells of equal ratio from ``low`` to ``high``.

    With ``low`` below zero the grid is symmetrical-log: it mirrors the ratio cells, and one cell around zero reaches
    from ``-smallest`` to ``smallest``. ``whole`` rounds the edges to whole numbers, for counts: then small counts
    have an edge each and large ones share cells, and there are fewer edges than ``cells`` + 1.

    Attributes:
        kind: ``log``.
        low: first edge.
        high: last edge.
        cells: how many between them.
        smallest: with ``low`` below zero: where the cell around zero ends.
        whole: round the edges to whole numbers.
    """

    kind: Literal["log"]
    low: FiniteFloat
    high: FiniteFloat
    cells: _Cells
    smallest: FiniteFloat | None = None
    whole: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "LogGrid":
        if self.low == 0 or self.high <= max(self.low, 0.0):
            raise ValueError("a log grid needs low < high, high above zero and low other than zero")
        if self.low < 0:
            if self.smallest is None or not 0 < self.smallest < min(self.high, -self.low):
                raise ValueError("a log grid with low below zero needs 0 < smallest < min(high, -low)")
            if self.cells < 3:
                raise ValueError("a log grid with low below zero needs at least 3 cells")
        elif self.smallest is not None:
            raise ValueError("smallest is only for a log grid with low below zero")
        return self

    def _raw_edges(self) -> npt.NDArray[np.float64]:
        if self.smallest is None:
            edges = np.geomspace(self.low, self.high, self.cells + 1)
        else:
            below, above = np.log(-self.low / self.smallest), np.log(self.high / self.smallest)
            left = min(max(round((self.cells - 1) * below / (below + above)), 1), self.cells - 2)
            edges = np.concatenate(
                [
                    -np.geomspace(self.smallest, -self.low, left + 1)[::-1],
                    np.geomspace(self.smallest, self.high, self.cells - left),
                ]
            )
        return np.round(edges) if self.whole else edges


class ValuesGrid(_Grid):
    """The edges themselves, for codes and other small sets of numbers.

    Attributes:
        kind: ``values``.
        values: the edges, increasing.
    """

    kind: Literal["values"]
    values: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MAX_EDGES)]

    @model_validator(mode="after")
    def _increasing(self) -> "ValuesGrid":
        narrow = np.asarray(self.values, dtype=np.float32)
        if not bool(np.all(narrow[1:] > narrow[:-1])):
            raise ValueError("the values of a grid must increase, also once rounded to float32")
        return self

    def _raw_edges(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.values, dtype=np.float64)


Grid = Annotated[LinearGrid | LogGrid | ValuesGrid, Field(discriminator="kind")]
"""What a contract may say under ``grid:``, told apart by ``kind``."""
