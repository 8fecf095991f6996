"""One bank's rows in shards on Dask workers: bins and sums over rows are made there. Encrypts and decides nothing.

Whoever runs it never holds the rows: a shard is a range of rows in files that all workers can read, and only counts
and sums come back. A worker keeps each shard it was asked about as a `LocalRows`. Which calls a shard has seen is
counted; a worker that lacks a shard, or has it at another count, says so, and is sent all the changing calls so far to
repeat from the files. So any worker can serve any shard at any time, a call that Dask runs twice changes nothing twice,
and a lost worker costs time only: sums of integers do not depend on who computed them.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bank_node.boosting.binning import Cuts, bin_counts, bin_rows
from bank_node.boosting.errors import BoostingError
from bank_node.boosting.local_rows import LocalRows, NodeSplits, TreePlan
from bank_node.boosting.packing import Packing
from bank_node.boosting.row_files import RowFiles
from bank_node.boosting.trees import Tree, predict_margin
from bank_node.dtypes import Doubles, Floats, Integers
from protocol.parameters import BoostingParameters

__all__ = ["DaskRows", "DaskShards"]

logger = logging.getLogger(__name__)

Call = tuple[str, tuple[Any, ...]]
Answer = tuple[bool, str, Any]
"""Whether a call ran, the worker that was asked, and the result."""

_WAIT_SECONDS = 60
"""How long all workers may be away, for instance while one is started again, before training gives up."""
_TRIES = 5
"""How often one call is asked again of shards whose workers were lost meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shard:
    """A range of rows, and what a worker needs to open it."""

    token: str
    files: RowFiles
    begin: int
    end: int
    cuts: Cuts
    params: BoostingParameters
    warm: tuple[tuple[Tree, ...], float] | None

    def open(self) -> LocalRows:
        rows = self.files.part(self.begin, self.end)
        return LocalRows.checked(
            bin_rows(rows.columns, self.cuts),
            rows.labels,
            self.params,
            weights=rows.weights,
            row_keys=rows.keys,
            start=None if self.warm is None else predict_margin(self.warm[0], rows.columns, self.warm[1]),
        )


@dataclass(slots=True)
class _State:
    rows: LocalRows
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_states: dict[str, _State] = {}
"""A worker's shards by token."""


def _here() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def _serve(token: str, seen: int, behind: tuple[_Shard, Sequence[Call]] | None, call: Call, changing: bool) -> Answer:
    """Runs a call on a worker's copy of a shard, if it has seen exactly the calls before it.

    Args:
        token: the shard's.
        seen: how many changing calls there were.
        behind: the shard and these calls, to open it anew; None to use the copy that is there.
        call: a method of `RowStore`, and its arguments.
        changing: whether the call changes the shard.
    """
    if behind is None:
        state = _states.get(token)
        if state is None:
            return False, _here(), None
    else:
        state = _State(behind[0].open())
        for name, arguments in behind[1]:
            getattr(state.rows, name)(*arguments)
        state.seen = seen
        _states[token] = state
    with state.lock:
        if state.seen != seen:
            return False, _here(), None
        if changing:
            state.seen = -1  # Of no use to anybody should the call fail half-way.
        result = getattr(state.rows, call[0])(*call[1])
        if changing:
            state.seen = seen + 1
        return True, _here(), result


def _count(
    files: RowFiles,
    begin: int,
    end: int,
    grids: Sequence[Doubles],
    names: Sequence[str],
    categorical: Sequence[bool],
) -> Integers:
    rows = files.part(begin, end)
    return bin_counts(
        rows.columns, rows.labels, grids, feature_names=names, categorical=categorical, weights=rows.weights
    )


def _forget(tokens: Sequence[str]) -> None:
    for token in tokens:
        _states.pop(token, None)


class _Workers:
    """A `distributed.Client`, and which worker each shard is at."""

    __slots__ = ("_homes", "client")

    def __init__(self, client: Any, n_shards: int) -> None:
        self.client = client
        self._homes: list[str] = [""] * n_shards

    def ask(self, which: Sequence[int], function: Callable[..., Any], given: Callable[[int], tuple[Any, ...]]) -> Any:
        """Calls a function for some shards, each at its worker or, if that is lost, at another.

        Raises:
            BoostingError: the workers are gone for good, or what they did failed.
        """
        from distributed import CancelledError, KilledWorker

        self._settle()
        futures = [
            self.client.submit(
                function, *given(k), pure=False, workers=[self._homes[k]], allow_other_workers=True, retries=_TRIES
            )
            for k in which
        ]
        try:
            return self.client.gather(futures)
        except (KilledWorker, CancelledError, OSError, TimeoutError) as error:
            raise BoostingError(
                f"the Dask workers that hold the bank's rows failed ({type(error).__name__}): look at their logs, "
                "then train again; what was agreed so far is kept"
            ) from error

    def moved(self, k: int, address: str) -> None:
        """Notes where a shard was last answered from."""
        self._homes[k] = address

    def forget(self, tokens: Sequence[str]) -> None:
        """Lets the workers free the shards; workers that are gone have."""
        from distributed import CancelledError

        try:
            self.client.run(_forget, tokens, on_error="ignore")
        except (CancelledError, OSError, TimeoutError, ValueError):
            logger.debug("the Dask workers could not be told to forget their shards")

    def _settle(self) -> None:
        """Gives each shard whose worker is gone another one, evenly."""
        addresses = self._addresses()
        load = {address: self._homes.count(address) for address in addresses}
        lost = [k for k, home in enumerate(self._homes) if home not in load]
        for k in lost:
            if self._homes[k]:
                logger.warning("Dask worker %s is gone; shard %d goes to another", self._homes[k], k)
            self._homes[k] = min(sorted(load), key=lambda address: load[address])
            load[self._homes[k]] += 1

    def _addresses(self) -> list[str]:
        from distributed import TimeoutError as DaskTimeout

        try:
            found = self.client.scheduler_info(n_workers=-1)["workers"]
            if not found:
                self.client.wait_for_workers(1, timeout=_WAIT_SECONDS)
                found = self.client.scheduler_info(n_workers=-1)["workers"]
        except (DaskTimeout, OSError) as error:
            raise BoostingError(
                "no Dask worker is left to hold the bank's rows; start workers and train again"
            ) from error
        return sorted(str(address) for address in found)


class DaskRows:
    """A `RowStore` over shards; see the module."""

    __slots__ = ("_history", "_shards", "_workers")

    def __init__(self, workers: _Workers, shards: Sequence[_Shard]) -> None:
        """Takes the workers and the shards that they can read."""
        self._workers = workers
        self._shards = list(shards)
        self._history: list[Call] = []

    def start(self, margin: np.float32, trees: Sequence[Tree]) -> None:
        """See `RowStore`."""
        self._all("start", margin, list(trees), changing=True)

    def begin_tree(self, plan: TreePlan) -> Integers:
        """See `RowStore`."""
        return _added(self._all("begin_tree", plan, changing=True))

    def histograms(self, nodes: Sequence[int], packings: Sequence[Packing] | None = None) -> Integers:
        """See `RowStore`."""
        return _added(self._all("histograms", list(nodes), None if packings is None else list(packings)))

    def split(self, splits: NodeSplits) -> None:
        """See `RowStore`."""
        self._all("split", splits, changing=True)

    def leaf_sums(self, leaves: Sequence[int]) -> Integers:
        """See `RowStore`."""
        return _added(self._all("leaf_sums", list(leaves)))

    def finish_tree(self, leaves: Sequence[int], values: Floats) -> None:
        """See `RowStore`."""
        self._all("finish_tree", list(leaves), values, changing=True)

    def close(self) -> None:
        """Lets the workers free the shards."""
        self._workers.forget([shard.token for shard in self._shards])

    def _all(self, name: str, *arguments: Any, changing: bool = False) -> list[Any]:
        call, seen = (name, arguments), len(self._history)
        results: list[Any] = [None] * len(self._shards)
        # A shard's first call opens it.
        behind, fresh = list(range(len(self._shards))), seen > 0
        for _ in range(_TRIES):
            history = None if fresh else list(self._history)

            def given(k: int, history: list[Call] | None = history) -> tuple[Any, ...]:
                shard = self._shards[k]
                return shard.token, seen, None if history is None else (shard, history), call, changing

            answers = self._workers.ask(behind, _serve, given)
            late = []
            for k, (ran, address, result) in zip(behind, answers, strict=True):
                if ran:
                    results[k] = result
                    self._workers.moved(k, address)
                else:
                    late.append(k)
            behind, fresh = late, False
            if not behind:
                if changing:
                    self._history.append(call)
                return results
            logger.info("%d of %d shards are opened anew for %s", len(behind), len(self._shards), name)
        raise BoostingError(f"Dask workers were lost {_TRIES} times during one {name}; look at their logs")


class DaskShards:
    """A bank's rows in files, cut into shards for the workers of a Dask cluster."""

    __slots__ = ("_edges", "_files", "_open", "_workers")

    def __init__(self, client: Any, files: RowFiles, n_shards: int) -> None:
        """Takes a `distributed.Client`, and files that all its workers can read.

        Raises:
            BoostingError: there would be no shard.
        """
        if n_shards < 1:
            raise BoostingError(f"{n_shards} shards; at least one is needed")
        self._files = files
        self._edges = np.linspace(0, files.n_rows, n_shards + 1).astype(np.int64).tolist()
        self._workers = _Workers(client, n_shards)
        self._open: list[DaskRows] = []

    @property
    def n_shards(self) -> int:
        """How many."""
        return len(self._edges) - 1

    def bin_counts(
        self, grids: Sequence[Doubles], feature_names: Sequence[str], categorical: Sequence[bool]
    ) -> Integers:
        """What the bank adds to the binning step: `binning.bin_counts` of all its rows."""

        def given(k: int) -> tuple[Any, ...]:
            return self._files, self._edges[k], self._edges[k + 1], grids, list(feature_names), list(categorical)

        return _added(self._workers.ask(range(self.n_shards), _count, given))

    def store(
        self, cuts: Cuts, params: BoostingParameters, warm: tuple[Sequence[Tree], float] | None = None
    ) -> DaskRows:
        """The rows, binned, for `grow_trees`.

        Args:
            cuts: From the banks' binning step.
            params: The run's.
            warm: Trees and base score of a model to go on from, or None.
        """
        self.close()
        run = uuid.uuid4().hex
        shards = [
            _Shard(
                token=f"{run}-{k}",
                files=self._files,
                begin=self._edges[k],
                end=self._edges[k + 1],
                cuts=cuts,
                params=params,
                warm=None if warm is None else (tuple(warm[0]), warm[1]),
            )
            for k in range(self.n_shards)
        ]
        self._open.append(DaskRows(self._workers, shards))
        return self._open[-1]

    def close(self) -> None:
        """Lets the workers free what they hold; the files stay."""
        while self._open:
            self._open.pop().close()


def _added(parts: Sequence[Integers]) -> Integers:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
