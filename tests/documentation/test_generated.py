"""The docs say what the code says: pages and blocks are fresh, and a key, option or error without words is refused."""

import enum
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, Field

from docs.generate import commands, docstrings, errors, figures, keys, markdown, pages, wire
from protocol import limits
from protocol.run_state import TRANSITIONS


def test_every_generated_page_and_block_is_fresh() -> None:
    assert pages.stale() == [], "run `make docs`"


def test_no_block_of_figures_was_edited_by_hand() -> None:
    assert figures.edited() == [], "run `make docs-figures` on a run's results"


def test_a_page_that_nothing_makes_any_longer_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(pages.PAGES, "metrics.md")
    assert "docs/reference/metrics.md" in pages.stale()


class Inner(BaseModel):
    """A part.

    Attributes:
        size: how large,
            told on two lines.
    """

    size: int = Field(3, ge=1, le=9)


class Told(BaseModel):
    """A file.

    Attributes:
        source, target: where it comes from
            and goes.
    """

    source: str = Field(alias="from")
    target: Path | None = None
    inner: Inner = Inner()
    colour: bool = Field(False, description="whether | it is red")


def test_a_model_s_keys_are_told_with_type_default_and_meaning() -> None:
    with pytest.raises(LookupError, match=r"Told\.inner has no description"):
        keys.sections({"The file": Told, "inner part": Inner})
    Told.model_fields["inner"].description = "the part"
    text = keys.sections({"The file": Told, "inner part": Inner})
    assert "| `from` | text | **required** | where it comes from and goes. |" in text
    assert "| `target` | path or null | `null` | where it comes from and goes. |" in text
    assert "| `inner` | [inner part](#inner-part) | its defaults | the part |" in text
    assert "| `colour` | true or false | `false` | whether \\| it is red |" in text
    assert "| `size` | whole number, 1 or more, at most 9 | `3` | how large, told on two lines. |" in text


def test_a_section_without_a_heading_is_refused() -> None:
    with pytest.raises(LookupError, match="Inner is a section"):
        keys.sections({"The file": Told})


def test_an_option_without_help_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(help="An application.")

    @app.command()
    def go(size: int = 3) -> None:
        """Go."""

    @app.command()
    def come() -> None:
        """Come."""

    monkeypatch.setattr(commands, "applications", lambda: {"tool": app})
    with pytest.raises(LookupError, match="`tool go`: size has no help text"):
        commands.reference()


def test_every_command_and_error_is_in_the_reference() -> None:
    told = (pages.ROOT / "docs/reference/commands.md").read_text()
    for name, app in commands.applications().items():
        for whole, _ in commands.commands(name, app):
            assert f"### {whole}\n" in told
    told = (pages.ROOT / "docs/reference/errors.md").read_text()
    for kind in errors.known_errors():
        assert f"| `{kind.__name__}` |" in told


def test_every_error_that_the_code_defines_is_known() -> None:
    from features.errors import DataError
    from protocol.errors import CrossbankError

    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__()))

    ours = {kind for kind in below(CrossbankError) | below(DataError) if not kind.__module__.startswith("tests")}
    assert ours <= set(errors.known_errors())


def test_caps_and_messages_are_told_with_their_numbers() -> None:
    caps = wire.caps()
    for name in limits.__all__:
        assert f"| `{name}` |" in caps
    assert "| `MAX_MESSAGE_BYTES` | 2 MiB | One gRPC message" in caps
    messages = wire.messages()
    assert "| `SecureSum` | stream of `SumUpload` | stream of `SumReply` |" in messages
    assert "| `SumAtOnce` | `WholeUpload` | `WholeReply` |" in messages
    assert "| `SumHead` | 1 `pending` bool, 2 `attempt` uint32, 3 `statements` list of Statement |" in messages


def test_statuses_are_those_of_the_one_table() -> None:
    told = wire.statuses()
    assert "| `OUT_OF_RANGE` | `RosterChanged` | `RosterChanged` | yes |" in told
    assert "| `INVALID_ARGUMENT` | `ProtocolViolation`, `PlanError` | `SubmissionRefused` | no |" in told
    assert "| `CANCELLED` | the guard of calls, or gRPC itself | `AggregatorUnreachable` | yes |" in told


def test_the_diagram_has_every_arrow_of_the_table() -> None:
    diagram = pages.BLOCKS["docs/protocol.md", "state diagram"]()
    for phase, event in TRANSITIONS:
        assert f"    {phase} --> " in diagram or f"{phase}" in diagram.splitlines()[-1], (phase, event)


def test_docstrings_are_read_up_to_their_sections() -> None:
    @dataclass
    class Two:
        """First line
        and second, with ``code``.

        Attributes:
            one: the first.
        """

        one: int = 1

    class Silent(enum.Enum):
        A = 1

    Silent.__doc__ = None
    assert docstrings.summary(Two) == "First line and second, with `code`."
    assert docstrings.attributes(Two) == {"one": "the first."}
    with pytest.raises(LookupError):
        docstrings.summary(Silent)


def test_a_block_that_is_missing_or_there_twice_is_refused() -> None:
    once = "<!-- figures: a; x -->\nold\n<!-- end of a -->\n"
    assert markdown.put_block(once, "figures", "a", "new\n", "y") == "<!-- figures: a; y -->\nnew\n<!-- end of a -->\n"
    for text in ("", once + once, "<!-- end of a -->\n<!-- figures: a -->\n"):
        with pytest.raises(ValueError, match="one block 'a'"):
            markdown.read_block(text, "figures", "a")


def test_figures_are_put_in_with_where_they_are_from_and_an_edit_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figures.Figure(
        page="page.md",
        name="speed",
        file="speed.json",
        show=lambda r: f"{r['seconds']} s",
        command="make bench",
        size={"rows": 10},
    )
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", (figure,))
    page, bench = tmp_path / "page.md", tmp_path / "bench"
    page.write_text("before\n<!-- figures: speed -->\n<!-- end of speed -->\nafter\n")
    bench.mkdir()
    assert figures.edited() == ["page.md, speed"], "it has no digest yet"
    assert figures.insert(tmp_path, bench) == [
        f"page.md, speed: no {bench / 'speed.json'}; `make bench` makes it",
    ]
    (bench / "speed.json").write_text(json.dumps({"seconds": 7}))
    with pytest.raises(ValueError, match="does not say when"):
        figures.insert(tmp_path, bench)
    run = {"day": "2026-11-28", "cores": 2, "commit": "abc"}
    (bench / "speed.json").write_text(json.dumps({"seconds": 7, "rows": 3, "run": run}))
    with pytest.raises(ValueError, match="rows 3, the docs tell of 10: run `make bench`"):
        figures.insert(tmp_path, bench)
    (bench / "speed.json").write_text(json.dumps({"seconds": 7, "rows": 10, "run": run}))
    figures.insert(tmp_path, bench)
    text = page.read_text()
    assert "7 s\n\n*Measured on 2026-11-28, 2 cores, commit abc.*\n" in text and text.startswith("before\n")
    assert figures.edited() == []
    page.write_text(text.replace("7 s", "6 s"))
    assert figures.edited() == ["page.md, speed"]
