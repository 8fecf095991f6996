"""Names of steps and of agreed points: text and value are two writings of one thing, and order is the run's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.run_state import Phase
from protocol.steps import STEP_PHASES, Point, Step

WORDS = st.one_of(st.integers(0, 10**9 - 1).map(str), st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20))
UNITS = st.integers(0, 10**9 - 1)
STEPS = st.builds(Step, st.sampled_from(list(STEP_PHASES)), UNITS, WORDS)
POINTS = st.one_of(
    st.sampled_from([Point.keys(), Point.model(), Point.evaluation()]),
    st.builds(Point.shared, UNITS),
    st.builds(Point.trees, UNITS),
    st.builds(Point.scores, UNITS),
)


@given(STEPS)
def test_a_steps_text_reads_back_as_the_step(step: Step) -> None:
    assert Step.parse(step.text) == step == Step.parse(str(step))
    assert step.text == f"{step.unit_text}/{step.word}"


@given(STEPS, STEPS)
def test_different_steps_have_different_text(one: Step, other: Step) -> None:
    assert (one == other) == (one.text == other.text)


WORDS = (
    "a step must look like bins/0/0, train/round/index or eval/0/0",
    "a step's unit must be a number from 0, its word lower-case letters or a number",
)


@given(st.one_of(st.text(max_size=80), st.from_regex(r"\A[a-z]{1,6}(/[a-z0-9]{0,4}){0,4}\n?\Z")))
def test_what_reads_as_a_step_writes_the_same_text(text: str) -> None:
    try:
        step = Step.parse(text)
    except ProtocolViolation as error:
        assert str(error) in WORDS  # never what was given
        return
    assert step.text == text


@given(STEPS, STEPS)
def test_steps_rank_by_phase_then_by_unit(one: Step, other: Step) -> None:
    order = list(STEP_PHASES)
    assert (one.rank < other.rank) == ((order.index(one.phase), one.unit) < (order.index(other.phase), other.unit))
    assert (one.rank == other.rank) == (one.unit_text == other.unit_text)


@given(POINTS)
def test_a_points_text_reads_back_as_the_point(point: Point) -> None:
    assert Point.parse(point.text) == point == Point.parse(str(point))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_later_by_one_number_then_another_is_later_by_both(first: int, second: int) -> None:
    for name in (Step.train(3, "rung"), Step.bins(0, 0), Step.evaluation()):
        assert name.later(first).later(second) == name.later(first + second)
        assert (name.later(first) == name) == (first == 0 or name.phase is not Phase.TRAINING)
    assert Point.trees(2).later(first) == Point.trees(2 + first)
    assert Point.scores(2).later(first) == Point.scores(2)


def test_the_texts_on_the_wire_are_those_of_before() -> None:
    steps = {
        "bins/0/0": Step.bins(0, 0),
        "bins/3/turns": Step.bins(3, "turns"),
        "train/12/4": Step.train(12, 4),
        "train/0/metric": Step.train(0, "metric"),
        "eval/0/0": Step.evaluation(),
    }
    points = {
        "keys": Point.keys(),
        "shared/0": Point.shared(0),
        "bins": Point.trees(0),
        "train/7": Point.trees(7),
        "score/2": Point.scores(2),
        "model": Point.model(),
        "eval": Point.evaluation(),
    }
    assert {text: value.text for text, value in (steps | points).items()} == {text: text for text in steps | points}
    assert Point.scores(0) == Point.trees(0)


@pytest.mark.parametrize(
    "text",
    [
        "", "bins", "bins/0", "train/x/0", "train/01/0", "train/0/", "train/0/A", "train/0/0/0", "other/0/0",
        "train/0/0\n", "train/-1/0", "train/9999999999/0", "train/0/1a", "bins/0/" + "x" * 64,
    ],
)  # fmt: skip
def test_no_step(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        Step.parse(text)


@pytest.mark.parametrize("text", ["", "bins/0", "train", "train/01", "keys/", "score/x", "train/1\n", "other"])
def test_no_point(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        Point.parse(text)


def test_no_secure_sums_outside_three_phases() -> None:
    for phase in set(Phase) - set(STEP_PHASES):
        with pytest.raises(ProtocolViolation, match=phase):
            Step(phase, 0, "0")
