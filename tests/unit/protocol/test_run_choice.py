"""Which run a bank takes up: its own before any other, the newest first, never one that it has no place in."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import RunSettings, RunView
from protocol.run_choice import run_for_bank
from protocol.run_state import TERMINAL, Phase

BANKS = ("alpha", "beta", "gamma")


def view(
    run_id: str,
    created_at: float,
    phase: Phase,
    joined: tuple[str, ...] = (),
    dropped: tuple[str, ...] = (),
    roster: tuple[str, ...] = BANKS,
) -> RunView:
    settings = RunSettings(
        title="t", roster=roster, contract_fingerprint="0" * 64, parameters_json="{}", rounds=1, minimum_roster=2
    )
    return RunView(
        run_id=run_id, phase=phase.value, settings=settings, joined=joined, reported=(), step="", rounds_done=0,
        bytes_received=0, reason="", model_sha256="", metrics_json="", created_at=created_at, updated_at=created_at,
        members=tuple(bank for bank in joined if bank not in dropped),
    )  # fmt: skip


def chosen(*views: RunView, bank: str = "alpha") -> str | None:
    found = run_for_bank(views, bank)
    return None if found is None else found.run_id


def test_its_own_unfinished_run_comes_before_a_newer_invitation() -> None:
    own = view("own", 1.0, Phase.TRAINING, ("alpha", "beta"))
    newer = view("newer", 2.0, Phase.ENROLLING)
    assert chosen(newer, own) == chosen(own, newer) == "own"
    assert chosen(newer, own, bank="gamma") == "newer"


def test_a_bank_that_was_dropped_is_free_for_the_next_run() -> None:
    left = view("left", 1.0, Phase.TRAINING, BANKS, dropped=("alpha",))
    assert chosen(left) is None
    assert chosen(left, bank="beta") == "left"
    assert chosen(left, view("new", 0.5, Phase.ENROLLING)) == "new"


def test_no_run_is_better_than_one_without_a_place() -> None:
    assert chosen() is None
    assert chosen(view("over", 1.0, Phase.RELEASED, BANKS), view("dead", 2.0, Phase.ABORTED, BANKS)) is None
    assert chosen(view("began", 1.0, Phase.KEYING, ("beta", "gamma"))) is None
    assert chosen(view("others", 1.0, Phase.ENROLLING, roster=("beta", "gamma"))) is None


views = st.lists(
    st.builds(
        view,
        st.just("run"),
        st.floats(0, 10),
        st.sampled_from(list(Phase)),
        st.lists(st.sampled_from(BANKS), unique=True).map(tuple),
        st.lists(st.sampled_from(BANKS), unique=True).map(tuple),
    ),
    max_size=6,
)


@given(views, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_and_has_a_place_for_the_bank(
    found: list[RunView], random: object
) -> None:
    choice = run_for_bank(found, "alpha")
    mixed = sorted(found, key=lambda _: random.random())  # type: ignore[attr-defined]
    again = run_for_bank(mixed, "alpha")
    assert (choice is None) == (again is None)
    if choice is None or again is None:
        assert not any("alpha" in each.members and each.phase not in TERMINAL for each in found)
        assert not any(each.phase == Phase.ENROLLING for each in found)
        return
    assert choice.phase not in TERMINAL and "alpha" in choice.roster
    assert (choice.created_at, "alpha" in choice.members) == (again.created_at, "alpha" in again.members)
