"""The trees' file gives back what was appended, whatever a crash left at its end, and refuses damage before it."""

from pathlib import Path

import numpy as np
import pytest

from bank_node.boosting import BoostingParameters, cuts_from_bytes, trees_to_bytes
from bank_node.training.checkpoint import TreeFile, reading
from bank_node.training.federated import BINS, TURNS, read_turns
from bank_node.training.tuning import STATE, read_scores, tuned_parameters
from protocol.errors import DamagedRunFiles, LocalError, OutOfOrder
from protocol.run_plan import TuningPlan
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


@pytest.mark.parametrize("content", [None, b"", b"x", b"[]", b"{}", b'{"a": 1}', b"null", b"7", b'{"known": [1, "x"]}'])
def test_damaged_files_of_a_run_are_named_and_end_it_for_this_bank(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        for name in (BINS, TURNS, STATE):
            (tmp_path / name).write_bytes(content)

    def damaged(name: str) -> pytest.RaisesExc[DamagedRunFiles]:
        return pytest.raises(DamagedRunFiles, match=f"{name} is missing or damaged; the bank can't go on")

    with damaged(BINS), reading(tmp_path / BINS):
        cuts_from_bytes((tmp_path / BINS).read_bytes())
    with damaged(TURNS):
        read_turns(tmp_path)
    if content is not None:
        with damaged(STATE):
            read_scores(tmp_path / STATE)


def test_a_search_s_result_is_checked_before_it_is_used(tmp_path: Path) -> None:
    tuning = TuningPlan(sets=({"max_depth": 2}, {"max_depth": 3}), rungs=(1, 2))
    params = BoostingParameters(n_estimators=2)
    for content in (None, b"{}", b'{"known": [0.5]}'):
        if content is not None:
            (tmp_path / STATE).write_bytes(content)
        with pytest.raises(OutOfOrder, match="search has not ended"):
            tuned_parameters(tmp_path, params, tuning)
    for content in (b"", b"7", b"[]", b'{"best": 2}', b'{"best": -1}', b'{"best": "1"}', b'{"best": true}'):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(DamagedRunFiles, match="json is missing or damaged"):
            tuned_parameters(tmp_path, params, tuning)
    (tmp_path / STATE).write_bytes(b'{"best": 1}')
    assert tuned_parameters(tmp_path, params, tuning).max_depth == 3
