"""Trees whose structure one bank proposes, with leaves from all banks' sums; it proposes none and opens no connection.

A structure travels as integers through the secure sum: the proposer adds its code, all others add zeros, so nobody but
the banks sees it. The code lists the nodes in preorder, a leaf as 1 and a split as 2 and more, then zeros. From there
the tree is everybody's: one secure sum of the leaves' gradients and hessians gives all nodes their totals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bank_node.boosting.binning import Cuts
from bank_node.boosting.errors import SumError
from bank_node.boosting.histogram import SlotLayout
from bank_node.boosting.local_rows import NodeSplits, RowStore, TreePlan
from bank_node.boosting.nodes import GrowingTree
from bank_node.boosting.split_rules import SplitRules
from bank_node.boosting.trees import Tree
from bank_node.consortium import SecureSum
from bank_node.dtypes import Integers
from protocol.parameters import BoostingParameters
from protocol.steps import Step

__all__ = ["Propose", "ProposedSplit", "code_length", "decode", "encode", "grow_proposed", "sum_leaves"]


Propose = Callable[[int, Sequence[Tree]], Integers]
"""Given a tree's number and the trees before it: our part of the structure's sum, zeros if it isn't our turn."""

_BINS = 256
_LEAF, _FIRST_SPLIT = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedSplit:
    """An inner node of a structure, and what is below it. None stands for a leaf.

    Attributes:
        feature: its number among all features.
        split_bin: rows with bin <= this go left; -1 sends all present values right.
        default_left: whether missing values go left.
        left: the subtree of rows that go left.
        right: the other one.
    """

    feature: int
    split_bin: int
    default_left: bool
    left: "ProposedSplit | None"
    right: "ProposedSplit | None"


def code_length(params: BoostingParameters) -> int:
    """Numbers that any structure within the parameters' bounds fits into: its largest tree's nodes."""
    sizes: list[int] = []
    if 0 < params.max_depth <= 12:
        sizes.append(2 ** (params.max_depth + 1) - 1)
    if params.max_leaves:
        sizes.append(2 * params.max_leaves - 1)
    return min(sizes)


def encode(root: ProposedSplit | None, length: int) -> Integers:
    """The code of a structure, int64 (length,)."""
    code: list[int] = []
    waiting: list[ProposedSplit | None] = [root]
    while waiting:
        node = waiting.pop()
        if node is None:
            code.append(_LEAF)
            continue
        place = (node.feature * _BINS + node.split_bin + 1) * 2 + int(node.default_left)
        code.append(_FIRST_SPLIT + place)
        waiting += [node.right, node.left]
    return np.array(code + [0] * (length - len(code)), dtype=np.int64)


def decode(code: Integers, n_bins: Integers, max_depth: int, step: str) -> ProposedSplit | None:
    """Reads what `encode` wrote.

    Args:
        code: The sum over all banks.
        n_bins: int64 (f,), bins of each feature without the missing one.
        max_depth: Levels of splits allowed; 0 for no bound but the code's length.
        step: The sum's name, for errors.

    Raises:
        SumError: It is no code of a tree over these bins: a bank has proposed out of turn, or another's tree.
    """
    numbers = code.tolist()
    place = 0

    def node(depth: int) -> ProposedSplit | None:
        nonlocal place
        number = numbers[place] if place < len(numbers) else 0
        place += 1
        if number == _LEAF:
            return None
        rest, default_left = divmod(number - _FIRST_SPLIT, 2)
        feature, bin_after = divmod(rest, _BINS)
        known = number >= _FIRST_SPLIT and feature < n_bins.size and bin_after <= n_bins[feature]
        if not known or (max_depth and depth >= max_depth):
            raise SumError(f"step {step}: the sum is no tree over the agreed bins (at number {place - 1})")
        left = node(depth + 1)
        return ProposedSplit(
            feature=feature,
            split_bin=bin_after - 1,
            default_left=bool(default_left),
            left=left,
            right=node(depth + 1),
        )

    root = node(0)
    if any(numbers[place:]):
        raise SumError(f"step {step}: the sum is no tree over the agreed bins (numbers after its end)")
    return root


def grow_proposed(
    round_index: int,
    proposed: Integers,
    *,
    rows: RowStore,
    cuts: Cuts,
    params: BoostingParameters,
    layout: SlotLayout,
    rules: SplitRules,
    secure_sum: SecureSum,
) -> Tree:
    """Grows one tree by a proposed structure and adds its leaf values to the margins of this bank's rows.

    Args:
        round_index: The tree's number from 0.
        proposed: Our part of the structure's sum, `code_length` numbers.
        rows: This bank's rows.
        cuts: The agreed bins.
        params: The run's.
        layout: The features that can split.
        rules: The run's.
        secure_sum: Called twice: ``train/<round>/structure`` and ``train/<round>/leaves``.

    Raises:
        SumError: A sum is no tree, or no sum of leaves.
    """
    step = Step.train(round_index, "structure").text
    code = secure_sum(step, proposed)
    if code.shape != proposed.shape:
        raise SumError(f"step {step}: the sum has shape {code.shape}, expected {proposed.shape}")
    root = decode(code, cuts.n_bins, params.max_depth, step)
    rows.begin_tree(TreePlan(round_index=round_index, layout=layout))
    tree = GrowingTree.planted(np.zeros(2, dtype=np.int64))
    columns = {int(feature): position for position, feature in enumerate(layout.features)}
    level: list[tuple[int, ProposedSplit]] = [] if root is None else [(0, root)]
    while level:
        below: list[tuple[int, ProposedSplit]] = []
        for number, node in level:
            column = columns.get(node.feature)
            if column is None:
                raise SumError(f"step {step}: the tree splits by feature {cuts.name(node.feature)}, which has one bin")
            left, right = tree.split_unsummed(number, column, node.split_bin, node.default_left, layout, cuts)
            below += [(child, sub) for child, sub in ((left, node.left), (right, node.right)) if sub is not None]
        rows.split(_moves(tree, level, columns, cuts))
        level = below
    leaves = tree.leaves.tolist()
    tree.refit(leaves, sum_leaves(round_index, leaves, rows, secure_sum), rules)
    tree.measure(rules)
    grown = tree.finish(rules, params.rate(round_index))
    rows.finish_tree(leaves, grown.value[leaves])
    return grown


def sum_leaves(round_index: int, leaves: Sequence[int], rows: RowStore, secure_sum: SecureSum) -> Integers:
    """All banks' exact gradient and hessian of each leaf, int64 (leaves, 2), by step ``train/<round>/leaves``.

    Raises:
        SumError: The sum is impossible.
    """
    step = Step.train(round_index, "leaves").text
    own = np.ascontiguousarray(rows.leaf_sums(leaves)).reshape(-1)
    summed = secure_sum(step, own)
    if summed.shape != own.shape or summed.reshape(-1, 2)[:, 1].min() < 0:
        raise SumError(f"step {step}: the sum is none of leaves (a shape or hessian out of range)")
    return summed.reshape(-1, 2)


def _moves(
    tree: GrowingTree, level: Sequence[tuple[int, ProposedSplit]], columns: dict[int, int], cuts: Cuts
) -> NodeSplits:
    bins = np.arange(_BINS)
    goes_left = np.stack([bins <= node.split_bin for _, node in level]).astype(np.uint8)
    for row, (_, node) in enumerate(level):
        goes_left[row, int(cuts.n_bins[node.feature])] = int(node.default_left)
    numbers = [number for number, _ in level]
    return NodeSplits(
        nodes=np.array(numbers, dtype=np.int64),
        left=np.array([tree.left[number] for number in numbers], dtype=np.int64),
        right=np.array([tree.right[number] for number in numbers], dtype=np.int64),
        features=np.array([columns[node.feature] for _, node in level], dtype=np.int64),
        goes_left=goes_left,
    )
