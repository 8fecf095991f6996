"""Grows the trees of a run, in lockstep with the other banks; it opens no connection.

The consortium is reached through `secure_sum` alone. Every decision is made from summed integers that all
banks hold alike, so all banks grow the same tree; a bank's own rows decide only where those rows go.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import BinnedRows, Cuts
from bank_node.boosting.errors import BoostingError, SumError
from bank_node.boosting.gradients import BITS_OF_SUM, WEIGHT_BITS, base_margin, fraction_bits
from bank_node.boosting.histogram import SlotLayout
from bank_node.boosting.local_rows import LocalRows, NodeSplits, RowStore, TreePlan
from bank_node.boosting.magnitudes import first_magnitudes, label_gradients
from bank_node.boosting.nodes import GrowingTree, Permissions
from bank_node.boosting.packing import (
    LARGEST,
    ROWS_WITHOUT_LEAF_SUM,
    SMALL_STEP,
    Packing,
    Sizes,
    expected_sizes,
)
from bank_node.boosting.sampling import FeatureSampler
from bank_node.boosting.split_rules import SplitRules
from bank_node.boosting.splitting import Splits, find_splits
from bank_node.boosting.stopping import Judge, judged, kept_trees, stops
from bank_node.boosting.structure import Propose, grow_proposed, sum_leaves
from bank_node.boosting.trees import Tree
from bank_node.consortium import SecureSum
from bank_node.dtypes import Floats, Integers, Words
from protocol.layout import PAYLOAD_SLOTS
from protocol.parameters import BoostingParameters
from protocol.steps import Step

__all__ = ["OnRound", "grow_trees", "train_trees"]

logger = logging.getLogger(__name__)


OnRound = Callable[[int, Tree], None]
"""Called after each new tree with its number, from 0, and the tree."""


def train_trees(
    binned: BinnedRows,
    labels: npt.ArrayLike,
    params: BoostingParameters,
    secure_sum: SecureSum,
    *,
    n_rows_total: int,
    base_score: float | None = None,
    resume: Sequence[Tree] = (),
    on_round: OnRound | None = None,
    weights: npt.ArrayLike | None = None,
    row_keys: Words | None = None,
    start: Floats | None = None,
    judge: Judge | None = None,
    propose: Propose | None = None,
) -> list[Tree]:
    """Trains boosted trees for the logistic loss together with the other banks.

    Args:
        binned: This bank's rows, uint8 (n, f) with the cuts all banks share; n may be 0.
        labels: 0 or 1, (n,).
        params: The run's parameters, equal at all banks.
        secure_sum: Called as `secure_sum("train/<round>/<n>", vector)`, once a level (with loss-guided growth once a
            split) that can still split, with int64 values of which all banks' magnitudes together stay below 2**57.
            In the packed layout once more where a rounding was guessed too fine, and with many rows for the leaves.
        n_rows_total: Rows of all banks together.
        base_score: Probability to start from; None takes it from the parameters, or the cuts' counts.
        resume: Trees made before; their rounds are not trained again.
        on_round: Called after each new tree.
        weights: Weights of the rows, (n,), with which the cuts were made too; None where each weighs 1.
        row_keys: uint64 (n,), from `row_keys`; needed when subsample is below 1.
        start: float32 (n,), margins of a model to go on from, instead of the base score's.
        judge: The validation metric after a tree, the same at all banks; needed for early stopping.
        propose: Our proposals of trees; needed with structure local, and not used without.

    Returns:
        `params.n_estimators` trees, or fewer when stopped early, the resumed ones included. They depend on the rows
        of all banks together, not on which bank holds which, to the last bit.

    Raises:
        RowError: For labels that are not 0 or 1, missing values that the cuts say nobody has, too many rows, or no
            row keys when they are needed.
        SumError: When a summed vector is impossible.
    """
    if n_rows_total < binned.n_rows:
        raise BoostingError(f"this bank has {binned.n_rows} rows but all banks together only {n_rows_total}")
    return grow_trees(
        LocalRows.checked(binned, labels, params, weights=weights, row_keys=row_keys, start=start),
        binned.cuts,
        params,
        secure_sum,
        n_rows_total=n_rows_total,
        base_score=base_score,
        resume=resume,
        on_round=on_round,
        warm=start is not None,
        judge=judge,
        propose=propose,
    )


def grow_trees(
    rows: RowStore,
    cuts: Cuts,
    params: BoostingParameters,
    secure_sum: SecureSum,
    *,
    n_rows_total: int,
    base_score: float | None = None,
    resume: Sequence[Tree] = (),
    on_round: OnRound | None = None,
    warm: bool = False,
    judge: Judge | None = None,
    propose: Propose | None = None,
) -> list[Tree]:
    """As `train_trees`, over rows wherever they lie.

    Args:
        rows: made with `SlotLayout.of(cuts)` and the `fraction_bits` of the cuts' weight.
        cuts: Those the rows were binned with.
        params: The run's parameters.
        secure_sum: See `train_trees`.
        n_rows_total: Rows of all banks together.
        base_score: See `train_trees`.
        resume: Trees made before.
        on_round: Called after each new tree.
        warm: Whether the rows begin at another model's margins.
        judge: The validation metric after a tree.
        propose: See `train_trees`.
    """
    if len(resume) > params.n_estimators:
        raise BoostingError(f"{len(resume)} trees to resume from, but only {params.n_estimators} were asked for")
    if params.early_stopping_rounds and judge is None:
        raise BoostingError("early_stopping_rounds needs validation rows")
    if params.structure == "local" and propose is None:
        raise BoostingError("structure local needs proposals of trees")
    bits = fraction_bits(cuts.total_weight, params.scale_pos_weight)
    if base_score is None:
        base_score = cuts.base_score(params)
    names = cuts.feature_names or tuple(str(feature) for feature in range(cuts.n_features))
    params.check_features(names)
    layout = SlotLayout.of(cuts)
    rows.start(base_margin(base_score), resume)
    grower = _Grower(
        cuts=cuts,
        params=params,
        names=names,
        layout=layout,
        rules=SplitRules.of(params, bits, [names[f] for f in layout.features], cuts.categorical[layout.features]),
        secure_sum=secure_sum,
        bits=bits,
        n_rows_total=n_rows_total,
        rows=rows,
    )
    trees = list(resume)
    while len(trees) < params.n_estimators and not stops(trees, params):
        round_index = len(trees)
        if params.structure == "local" and propose is not None:
            tree = grow_proposed(
                round_index,
                propose(round_index, trees),
                rows=rows,
                cuts=cuts,
                params=params,
                layout=layout,
                rules=grower.rules,
                secure_sum=secure_sum,
            )
        else:
            tree = grower.grow(round_index, _expected(trees, grower, base_score, warm=warm))
        if judge is not None:
            tree = replace(tree, metric=judged(judge, round_index, tree))
        trees.append(tree)
        logger.debug("boosting round %d: tree of %d nodes", round_index, tree.n_nodes)
        if on_round is not None:
            on_round(round_index, tree)
    return kept_trees(trees, params)


def _expected(trees: Sequence[Tree], grower: "_Grower", base_score: float, *, warm: bool) -> "_Bounds":
    """What is thought of the root before its sum; the exact sizes that come along are what counts."""
    params, cuts, bits = grower.params, grower.cuts, grower.bits
    if params.histogram_layout != "packed":
        return _Bounds(packing=None, most={})
    if trees:
        # A tree seldom makes gradients larger, and never much.
        sizes = Sizes(*(size + size // 8 for size in trees[-1].magnitudes.tolist()))
    elif warm:
        most = int(cuts.total_weight * max(1.0, params.scale_pos_weight) * 2.0**bits) + grower.n_rows_total
        sizes = Sizes(most, most, most)
    else:
        positive, positive_weight = cuts.n_positive_total, cuts.weight_positive_total
        sizes = first_magnitudes(
            base_score,
            (cuts.n_rows_total - positive, positive),
            (cuts.weight_total - positive_weight, positive_weight),
            params.scale_pos_weight,
            bits,
        )
        if cuts.weight_total == cuts.n_rows_total << WEIGHT_BITS:
            # Where rows weigh alike, gradients take two values: they can be counted, and stay exact.
            of_labels = label_gradients(base_score, params.scale_pos_weight, bits)
            counting = Packing.counting(of_labels, grower.n_rows_total)
            if counting is not None:
                return _Bounds(packing=counting, most={0: sizes})
    return _Bounds(packing=Packing.of(sizes, grower.n_rows_total, bits), most={0: sizes})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    """A leaf that can be split, and how.

    Attributes:
        node: Its number.
        splits: Where its split is found, at position `at`.
        histogram: int64 (n_slots, 2), all banks'.
    """

    node: int
    splits: Splits
    at: int
    histogram: Integers

    @property
    def loss_change(self) -> float:
        """What the split gains."""
        return float(self.splits.loss_change[self.at])


@dataclass(slots=True, kw_only=True)
class _Bounds:
    """What is known of the gradients of one tree's nodes.

    Attributes:
        packing: A rounding that fits every node; None where the tree is sent in exact pairs.
        most: Upper bounds by node, over all banks.
        root_shift: How coarsely the root's hessians were rounded: `packing` can be finer.
    """

    packing: Packing | None
    most: dict[int, Sizes]
    root_shift: int = 0

    def note_root(self, exact: Sizes, n_rows: int, bits: int) -> bool:
        """Takes the root's exact sizes, and the rounding that they allow.

        Returns:
            Whether the rounding that the root was sent with fits, and was not much coarser than it could have been.
        """
        used, self.most[0] = self.packing, exact
        self.root_shift = 0 if used is None else max(used.hessian_shift, 0)
        if used is not None and used.of_labels is not None:
            return True
        best = self.packing = Packing.of(exact, n_rows, bits)
        return used is not None and best is not None and used.close_to(best)

    def packing_of(self, n_slots: int, n_nodes: int) -> Packing | None:
        """The rounding that a step of so many slots begins with; None where it is sent in exact pairs."""
        return None if 2 * n_slots <= (2 * SMALL_STEP if n_nodes == 1 else SMALL_STEP) else self.packing

    def note_children(self, parent: int, light: int, heavy: int) -> None:
        """Bound a heavy child, and a light one of which nothing came along."""
        if self.packing is None:
            return
        above = self.most[parent]
        known = self.most.get(light)
        if known is None:
            self.most[light] = self.most[heavy] = above
        else:
            self.most[heavy] = Sizes(*(max(whole - part, 0) for whole, part in zip(above, known, strict=True)))

    def slack(self, n_rows: int) -> int:
        """How far below zero a hessian's sum can come: parents and children are rounded to different steps."""
        return 0 if self.packing is None else n_rows << max(self.packing.hessian_shift, self.root_shift)


@dataclass(slots=True, kw_only=True)
class _Grower:
    """What stays the same from tree to tree at one bank."""

    cuts: Cuts
    params: BoostingParameters
    names: Sequence[str]
    layout: SlotLayout
    rules: SplitRules
    secure_sum: SecureSum
    bits: int
    n_rows_total: int
    rows: RowStore

    def grow(self, round_index: int, bounds: "_Bounds") -> Tree:
        """Grows one tree and adds its leaf values to the margins of this bank's rows.

        Args:
            round_index: From 0.
            bounds: What is expected of the root; used by the packed layout only.
        """
        sampler = FeatureSampler(self.params, self.cuts.n_features, round_index)
        permissions = Permissions(self.params, self.layout, self.names, sampler)
        plan = TreePlan(round_index=round_index, layout=self.layout.only(permissions.of_tree))
        steps = (Step.train(round_index, n).text for n in itertools.count())
        histograms, total, summed = self._root(steps, plan, bounds)
        tree = GrowingTree.planted(total, self.layout.n_slots)
        tree.summed[0] = summed
        waiting = self._candidates(tree, [0], histograms, permissions)
        n_leaves = 1
        while waiting:
            chosen, waiting = self._choose(waiting, n_leaves)
            if not chosen:
                break
            n_leaves += len(chosen)
            self._split(tree, chosen)
            full = self.params.max_leaves and n_leaves >= self.params.max_leaves
            if full or tree.depth[chosen[0].node] + 1 == self.params.max_depth:
                continue
            nodes, histograms = self._children(steps, tree, chosen, plan, bounds)
            waiting += self._candidates(tree, nodes, histograms, permissions)
        leaves = tree.leaves.tolist()
        packed = self.params.histogram_layout == "packed"
        if packed and self.n_rows_total > ROWS_WITHOUT_LEAF_SUM:
            tree.refit(leaves, sum_leaves(round_index, leaves, self.rows, self.secure_sum), self.rules)
        grown = tree.finish(self.rules, self.params.rate(round_index))
        if packed:
            grown = replace(grown, magnitudes=np.array(bounds.most[0], dtype=np.int64))
        self.rows.finish_tree(leaves, grown.value[leaves])
        return grown

    def _candidates(
        self, tree: GrowingTree, nodes: Sequence[int], histograms: Integers, permissions: Permissions
    ) -> list[_Candidate]:
        """Those of some leaves, in order, that can be split."""
        if not nodes:
            return []
        totals = np.stack([tree.summed[i] for i in nodes])
        splits = find_splits(histograms, totals, self.layout.starts, self.rules, permissions.limits(tree, nodes))
        return [
            _Candidate(node=nodes[at], splits=splits, at=at, histogram=histograms[at])
            for at in np.flatnonzero(splits.feature >= 0).tolist()
        ]

    def _choose(self, waiting: list[_Candidate], n_leaves: int) -> tuple[list[_Candidate], list[_Candidate]]:
        """The leaves to split next, and those to keep: a whole level, or the one leaf that gains most."""
        room = self.params.max_leaves - n_leaves if self.params.max_leaves else len(waiting)
        if self.params.grow_policy == "depthwise":
            return waiting[:room], []
        best = max(waiting, key=lambda candidate: (candidate.loss_change, -candidate.node))
        return [best][:room], [candidate for candidate in waiting if candidate is not best]

    def _root(self, steps: Iterator[str], plan: TreePlan, bounds: "_Bounds") -> tuple[Integers, Integers, Integers]:
        """Sums the root's histogram, and notes in `bounds` what comes along.

        Returns:
            int64 (1, n_slots, 2); the exact total, (2,), and the one that the histogram adds up to.
        """
        own_total = self.rows.begin_tree(plan)
        packing = bounds.packing_of(plan.layout.sent.size, 1)
        everything = np.ones((1, plan.layout.sent.size), dtype=np.bool_)
        while packing is not None:
            step = next(steps)
            slots, totals, exact = self._packed_sums(step, [0], [packing], everything)
            fits = bounds.note_root(exact[0], self.n_rows_total, self.bits)
            if fits:
                histograms = plan.layout.unpack(slots, totals)
                self._check(step, histograms)
                return histograms, exact[0].total, totals[0]
            packing = bounds.packing
        step = next(steps)
        known = own_total if self.params.histogram_layout == "packed" else own_total[:2]
        summed = self.sum(step, np.concatenate((self.rows.histograms([0]), known)))
        total = summed[summed.size - known.size :][:2].copy()
        histograms = plan.layout.unpack(summed[: summed.size - known.size], total[None, :])
        self._check(step, histograms)
        if known.size > 2:
            gradient, hessian, magnitude = summed[-3:].tolist()
            if hessian < 0 or abs(gradient) > magnitude:
                raise SumError(f"step {step}: the sum is no histogram of the agreed rows (a magnitude out of range)")
            exact_sizes = Sizes((magnitude + gradient) // 2, (magnitude - gradient) // 2, hessian)
            bounds.note_root(exact_sizes, self.n_rows_total, self.bits)
        return histograms, total, total

    def _packed_sums(
        self, step: str, nodes: Sequence[int], packings: Sequence[Packing], reachable: npt.NDArray[np.bool_]
    ) -> tuple[Integers, Integers, list[Sizes]]:
        """Packed histograms of nodes, summed over the banks.

        Args:
            step: The sum's name.
            nodes: The nodes.
            packings: Each one's rounding.
            reachable: (k, s), the sent slots that a row of the node can be in.

        Returns:
            The sent slots, int64 (k, s, 2), the nodes' totals as rounded, int64 (k, 2), and their exact sizes.
            The slots and totals of a node mean nothing unless its packing covers these sizes.
        """
        own = self.rows.histograms(nodes, packings)
        # A guess that is too small can make numbers that the secure sum does not take. They mean nothing as they are.
        own = np.clip(own, -LARGEST, LARGEST, out=own).reshape(len(nodes), -1)
        sent = np.concatenate((reachable, np.ones((len(nodes), 4), dtype=np.bool_)), axis=1)
        summed = np.zeros_like(own)
        summed[sent] = self._sum_padded(step, own[sent])
        unpacked = np.stack([packing.unpack(row[:-3]) for packing, row in zip(packings, summed, strict=True)])
        if int(summed[:, -3:].min()) < 0:
            raise SumError(f"step {step}: the sum is no histogram of the agreed rows (a magnitude below zero)")
        return unpacked[:, :-1], unpacked[:, -1], [Sizes(*sizes) for sizes in summed[:, -3:].tolist()]

    def _split(self, tree: GrowingTree, chosen: Sequence[_Candidate]) -> None:
        """Gives each chosen leaf two children, and moves this bank's rows to them."""
        for candidate in chosen:
            tree.split(candidate.node, candidate.splits, candidate.at, self.layout, self.cuts, self.rules)
        missing_bins = self.cuts.n_bins[self.layout.features]
        nodes = [candidate.node for candidate in chosen]
        goes_left = np.concatenate(
            [
                splits.goes_left(np.array([candidate.at for candidate in group]), missing_bins)
                for splits, group in itertools.groupby(chosen, key=lambda candidate: candidate.splits)
            ]
        )
        for node, marks in zip(nodes, goes_left, strict=True):
            tree.narrow(node, marks, self.layout)
        self.rows.split(
            NodeSplits(
                nodes=np.array(nodes, dtype=np.int64),
                left=np.array([tree.left[node] for node in nodes], dtype=np.int64),
                right=np.array([tree.right[node] for node in nodes], dtype=np.int64),
                features=np.array([tree.column[node] for node in nodes], dtype=np.int64),
                goes_left=goes_left,
            )
        )

    def _children(
        self,
        steps: Iterator[str],
        tree: GrowingTree,
        parents: Sequence[_Candidate],
        plan: TreePlan,
        bounds: "_Bounds",
    ) -> tuple[list[int], Integers]:
        """Histograms of the children: the lighter one summed over the banks, the heavier by subtraction.

        "Lighter" is by the global hessian, which all banks know from the split, and the left one of equals.
        Pairs of which neither child can be split again are left out.
        """
        # A split needs min_child_weight on both sides. The factor keeps rounding on the safe side.
        least = 2.0 * self.rules.min_child_weight * (1.0 - 1e-9) / self.rules.unit
        pairs = [
            (parent, tree.left[parent.node], tree.right[parent.node])
            for parent in parents
            if max(tree.total[tree.left[parent.node]][1], tree.total[tree.right[parent.node]][1]) >= least
        ]
        if not pairs or not plan.layout.sent.size:
            return [], np.empty((0, self.layout.n_slots, 2), dtype=np.int64)
        light = [left if tree.total[left][1] <= tree.total[right][1] else right for _, left, right in pairs]
        reachable = np.stack([tree.reachable[i][plan.layout.sent] for i in light])
        packing = bounds.packing_of(int(np.count_nonzero(reachable)), len(light))
        if packing is None:
            step = next(steps)
            own = self.rows.histograms(light).reshape(*reachable.shape, 2)
            slots = np.zeros_like(own)
            slots[reachable] = self._sum_padded(step, own[reachable].reshape(-1)).reshape(-1, 2)
            built = plan.layout.unpack(slots, np.stack([tree.summed[i] for i in light]))
        else:
            step, built = self._packed_children(steps, tree, light, packing, plan, bounds)
        for (parent, left, right), at in zip(pairs, light, strict=True):
            heavy = right if at == left else left
            tree.total[heavy] = tree.total[parent.node] - tree.total[at]
            tree.summed[heavy] = tree.summed[parent.node] - tree.summed[at]
            bounds.note_children(parent.node, at, heavy)
        slack = bounds.slack(self.n_rows_total)
        siblings = np.stack([parent.histogram for parent, _, _ in pairs]) - built
        self._check(step, built, slack)
        self._check(step, siblings, slack)
        nodes = [child for _, left, right in pairs for child in (left, right)]
        histograms = np.empty((len(nodes), *built.shape[1:]), dtype=np.int64)
        for k, (_, left, _right) in enumerate(pairs):
            first, second = (built[k], siblings[k]) if light[k] == left else (siblings[k], built[k])
            histograms[2 * k], histograms[2 * k + 1] = first, second
        return nodes, histograms

    def _packed_children(
        self,
        steps: Iterator[str],
        tree: GrowingTree,
        nodes: Sequence[int],
        packing: Packing,
        plan: TreePlan,
        bounds: "_Bounds",
    ) -> tuple[str, Integers]:
        """Whole histograms of nodes, each rounded as finely as it allows; their totals are set exactly.

        How finely is guessed from the parent's split. The exact sizes come along; where the guess was too small the
        node is asked for once more, now knowing them.
        """
        n_rows, bits = self.n_rows_total, self.bits
        most = bounds.most
        packings = [
            packing.finer(expected_sizes(tree.total[node], most[tree.parent[node]], most[0]), n_rows, bits)
            for node in nodes
        ]
        step = next(steps)
        reachable = np.stack([tree.reachable[node][plan.layout.sent] for node in nodes])
        slots, totals, exact = self._packed_sums(step, nodes, packings, reachable)
        most.update(zip(nodes, exact, strict=True))
        again = [k for k, finer in enumerate(packings) if not packing.covers(finer, exact[k], n_rows)]
        if again:
            step = next(steps)
            packings = [packing.finer(exact[k], n_rows, bits) for k in again]
            slots[again], totals[again], _ = self._packed_sums(
                step, [nodes[k] for k in again], packings, reachable[again]
            )
        for node, size, summed in zip(nodes, exact, totals, strict=True):
            tree.total[node], tree.summed[node] = size.total, summed
        return step, plan.layout.unpack(slots, totals)

    def _sum_padded(self, step: str, vector: Integers) -> Integers:
        """The secure sum of whole ciphertexts, so that a vector's length tells the aggregator no split's place."""
        padded = np.zeros(-(-vector.size // PAYLOAD_SLOTS) * PAYLOAD_SLOTS, dtype=np.int64)
        padded[: vector.size] = vector
        return self.sum(step, padded)[: vector.size]

    def sum(self, step: str, vector: Integers) -> Integers:
        """The secure sum, of the shape it must have."""
        summed = self.secure_sum(step, vector)
        if summed.shape != vector.shape or summed.dtype != np.int64:
            raise SumError(
                f"step {step}: the sum has shape {summed.shape} {summed.dtype}, expected {vector.shape} int64"
            )
        return summed

    def _check(self, step: str, histograms: Integers, slack: int = 0) -> None:
        if histograms.size and (
            int(histograms[..., 1].min()) < -slack or int(np.abs(histograms).max()) >= 2**BITS_OF_SUM
        ):
            raise SumError(f"step {step}: the sum is no histogram of the agreed rows (a hessian out of range)")
