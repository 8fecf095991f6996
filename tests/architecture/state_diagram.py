"""Draws the run's state diagram in docs/protocol.md from the table; with --check, says whether it is fresh."""

import sys
from pathlib import Path

from protocol.run_state import TERMINAL, TRANSITIONS, Phase, RunEventKind

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
_BEGIN, _END = "<!-- state diagram: made by tests/architecture/state_diagram.py -->\n", "<!-- end -->\n"


def diagram() -> str:
    """Mermaid's text: one arrow a table entry; the aborts, alike from everywhere, as one line of words."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.DRAFT}"]
    for (phase, event), following in TRANSITIONS.items():
        if event is not RunEventKind.ABORT:
            lines.append(f"    {phase} --> {following}: {event}")
    lines += [f"    {phase} --> [*]" for phase in Phase if phase in TERMINAL]
    aborts = ", ".join(phase for phase, event in TRANSITIONS if event is RunEventKind.ABORT)
    return "\n".join([*lines, "```", "", f"`abort` leads to ABORTED from {aborts}.", ""])


def renewed(text: str) -> str:
    """The document with the diagram in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + diagram() + _END + after


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    if "--check" in sys.argv:
        sys.exit("the state diagram is stale; run tests/architecture/state_diagram.py" if renewed(text) != text else 0)
    DOCUMENT.write_text(renewed(text))
