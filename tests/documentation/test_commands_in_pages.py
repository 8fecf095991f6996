"""Commands and code that pages show: every command and option is there, every import works. Runs none of them."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from docs.generate import commands

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for place in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "docker/*.md")
    for path in ROOT.glob(place)
)
#: Whole name of each command -> its options.
OPTIONS = {
    whole: {option for param in command.params for option in [*param.opts, *param.secondary_opts]} | {"--help"}
    for name, app in commands.applications().items()
    for whole, command in commands.commands(name, app)
}
GROUPS = {" ".join(name.split()[:n]) for name in OPTIONS for n in range(1, len(name.split()))}


def shown_commands(text: str) -> list[str]:
    """Calls of our commands in code of a page, inline or in blocks; continued lines joined."""
    blocks = re.findall(r"^```(?:sh|sh run)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    found = []
    for code in [*lines, *(" ".join(each.split()) for each in inline)]:
        for call in re.split(r"[|;&]|\$\(|'", code.split(" #")[0]):
            match = re.match(r"\s*(?:\w+=)?(?:\.venv/bin/)?((?:bank-node|aggregator|features|simulator) .*)$", call)
            if match and not match.group(1).endswith("/"):
                found.append(match.group(1).strip())
    return found


def wrong(call: str) -> str:
    """What is wrong with a call: no such command, or an option that it has not; empty if nothing is."""
    words = call.split()
    name = next((" ".join(words[:n]) for n in range(min(3, len(words)), 0, -1) if " ".join(words[:n]) in OPTIONS), None)
    if name is None:
        group = " ".join(words[:2])
        return (
            "" if group in GROUPS or words[1].startswith(("--version", "--help", "...", "…")) else f"no command {call}"
        )
    for option in re.findall(r"(?<=\s)--[a-z-]+", call):
        if option not in OPTIONS[name]:
            return f"{name} has no {option}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    assert [fault for call in shown_commands((ROOT / page).read_text()) if (fault := wrong(call))] == []


def test_a_wrong_command_or_option_is_found() -> None:
    inline = "Run `bank-node trian --config x` or `aggregator runs --jason`.\n\n"
    text = inline + "```sh\nsimulator train \\\n  --tabel x\n```\n"
    assert [wrong(call) for call in shown_commands(text)] == [
        "simulator train has no --tabel",
        "no command bank-node trian --config x",
        "aggregator runs has no --jason",
    ]
    assert len(shown_commands((ROOT / "docs/operations.md").read_text())) > 20


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_that_a_page_shows_imports_what_is_there(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "simulator":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), f"{page}: {node.module}"
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dags":
                # Airflow must be set up before it is imported: its names are looked up in the text.
                source = (ROOT / node.module.replace(".", "/")).with_suffix(".py").read_text()
                assert all(re.search(rf"^class {name.name}\b", source, re.MULTILINE) for name in node.names), page


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = (ROOT / page).read_text()
    code = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)) + "\n"
    code += "\n".join(re.findall(r"`([^`\n]+)`", text))
    for target in re.findall(r"^make (?:[A-Z]+=\S+ )*([a-z][a-z-]*)", code, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"
