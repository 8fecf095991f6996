"""Draws the run's state diagram from the table of states. It writes no file."""

from protocol.run_state import TERMINAL, TRANSITIONS, Phase, RunEventKind

__all__ = ["diagram"]


def diagram() -> str:
    """Mermaid's text: one arrow a table entry; the aborts, alike from everywhere, as one line of words."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.DRAFT}"]
    for (phase, event), following in TRANSITIONS.items():
        if event is not RunEventKind.ABORT:
            lines.append(f"    {phase} --> {following}: {event}")
    lines += [f"    {phase} --> [*]" for phase in Phase if phase in TERMINAL]
    aborts = ", ".join(phase for phase, event in TRANSITIONS if event is RunEventKind.ABORT)
    return "\n".join([*lines, "```", "", f"`abort` leads to ABORTED from {aborts}.", ""])
