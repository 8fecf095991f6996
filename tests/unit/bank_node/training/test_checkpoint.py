"""The trees' file gives back what was appended, whatever a crash left at its end, and refuses damage before it."""

from pathlib import Path

import numpy as np
import pytest

from bank_node.boosting import trees_to_bytes
from bank_node.training.checkpoint import TreeFile
from protocol.errors import LocalError
from tests.unit.bank_node.boosting.test_lockstep import POOLED


def _written(path: Path) -> bytes:
    file = TreeFile(path)
    for tree in POOLED.trees:
        file.append(tree)
    file.close()
    return path.read_bytes()


def test_trees_come_back_and_more_can_follow(tmp_path: Path) -> None:
    path = tmp_path / "trees.bin"
    _written(path)
    again = TreeFile(path)
    assert trees_to_bytes(again.trees) == trees_to_bytes(POOLED.trees)
    again.append(POOLED.trees[0])
    again.close()
    assert len(TreeFile(path).trees) == len(POOLED.trees) + 1


def test_a_torn_end_is_cut_off_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "trees.bin"
    whole = _written(path)
    for size in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:size])
        file = TreeFile(path)
        kept = len(file.trees)
        assert kept < len(POOLED.trees)
        for tree in POOLED.trees[kept:]:
            file.append(tree)
        file.close()
        assert path.read_bytes() == whole


def test_damage_before_the_end_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trees.bin"
    whole = bytearray(_written(path))
    whole[100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(LocalError, match=r"trees\.bin is damaged at tree 0"):
        TreeFile(path)
    path.write_bytes(b"something else that is longer than a beginning")
    with pytest.raises(LocalError, match=r"trees\.bin is damaged"):
        TreeFile(path)
