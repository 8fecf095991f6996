"""Rosters that a bank goes on with: they hold it, keep the minimum, and only shrink."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank_node.secure_aggregation.rosters import checked_roster
from protocol.errors import ProtocolViolation, RunAborted
from protocol.messages import RunSettings, RunView

BANKS = ("alder", "birch", "cedar", "dune", "elm")


def view(attempt: int, members: tuple[str, ...], *, minimum: int = 2, invited: tuple[str, ...] = BANKS) -> RunView:
    settings = RunSettings(
        title="t", roster=invited, contract_fingerprint="ab" * 32, parameters_json="{}", rounds=1,
        minimum_roster=min(minimum, len(invited)),
    )  # fmt: skip
    return RunView(
        run_id="run", phase="TRAINING", settings=settings, joined=invited, reported=(), step="", rounds_done=0,
        bytes_received=0, reason="", model_sha256="", metrics_json="", created_at=0.0, updated_at=0.0, members=members,
        attempt=attempt,
    )  # fmt: skip


KNOWN = {0: BANKS, 1: BANKS[:4]}


@pytest.mark.parametrize(
    ("attempt", "members", "words"),
    [
        (1, BANKS[:3], "another roster for attempt 1"),
        (2, BANKS, "can only shrink"),
        (2, BANKS[:4], "can only shrink"),
        (2, (*BANKS[:2], "elm"), "can only shrink"),
        (2, BANKS[:1], "too few"),
        (2, BANKS[:2], "too few"),
    ],
)
def test_what_is_refused(attempt: int, members: tuple[str, ...], words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        checked_roster(view(attempt, members), "alder", 3, KNOWN)


def test_an_attempt_that_was_passed_over_can_not_come_back() -> None:
    with pytest.raises(ProtocolViolation, match="can only shrink"):
        checked_roster(view(1, BANKS[:3]), "alder", 2, {0: BANKS, 2: BANKS[:4]})


def test_a_bank_that_was_dropped_is_told_so() -> None:
    with pytest.raises(RunAborted, match="without bank elm"):
        checked_roster(view(1, BANKS[:4]), "elm", 2, {0: BANKS})


def test_a_run_for_one_bank_alone_needs_no_other() -> None:
    found = checked_roster(view(0, ("alder",), minimum=1, invited=("alder",)), "alder", 3, {})
    assert found.members == ("alder",)


@given(st.lists(st.tuples(st.integers(0, 6), st.sets(st.sampled_from(BANKS), min_size=1)), max_size=8))
def test_whatever_is_told_what_is_taken_only_shrinks(told: list[tuple[int, set[str]]]) -> None:
    """Also over tellings that are refused in between: no two rosters of a bank's run let a sum be told apart twice."""
    known: dict[int, tuple[str, ...]] = {}
    for attempt, members in told:
        try:
            found = checked_roster(view(attempt, tuple(members)), "alder", 2, known)
        except (ProtocolViolation, RunAborted):
            continue
        known[found.attempt] = found.members
    taken = [set(known[attempt]) for attempt in sorted(known)]
    assert all(later < earlier for earlier, later in pairwise(taken))
    assert all("alder" in members and len(members) >= 2 for members in taken)


def test_the_order_of_members_makes_no_difference() -> None:
    one = checked_roster(view(0, BANKS), "alder", 2, {})
    other = checked_roster(replace(view(0, BANKS), members=BANKS[::-1]), "alder", 2, {})
    assert one == other and one.digest == other.digest
