"""docs/architecture.md and the READMEs against the tree: every room is told, every module that is named is there."""

import re
from pathlib import Path

import pytest

from docs.generate import rooms
from docs.generate.pages import block

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = sorted(
    path.parent.relative_to(ROOT)
    for package in rooms.PACKAGES
    for path in (ROOT / package).rglob("__init__.py")
    if path.parent.name != "__pycache__"
)


def _rows(package: str) -> list[str]:
    """The rooms of a package's table, from top to bottom."""
    text = block("docs/architecture.md", "rooms")
    part = text[text.index(f"**{package}.**") :].split("\n\n**")[0]
    return re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)


@pytest.mark.parametrize("package", rooms.PACKAGES)
def test_every_module_and_package_of_the_tree_has_its_row(package: str) -> None:
    found = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__", "__main__"}
    found |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert set(_rows(package)) == {name for name in found if "_pb2" not in name}


@pytest.mark.parametrize("package", ["bank_node", "features", "aggregator", "simulator"])
def test_rooms_stand_in_the_order_of_the_layers(package: str) -> None:
    order = [name.strip() for line in rooms.layers(package) for name in line.split("|")]
    assert len(order) > 5
    assert _rows(package) == [name for name in order if name != "__main__"]


def _behaviours() -> list[tuple[str, str, str]]:
    found = re.findall(r"^\| ([^|]+) \| \[([\w/.]+)\]\(\.\./([\w/.]+)\) \| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert all(shown == target for _, shown, target, _ in found)
    return [(what, target, name) for what, _, target, name in found]


def test_a_newcomer_finds_one_module_for_each_behaviour() -> None:
    found = _behaviours()
    assert len(found) > 30 and len({what for what, _, _ in found}) == len(found)
    lines = PAGE.read_text().split("| behaviour |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(lines) == len(found), "a row of the table is not read by this test"


@pytest.mark.parametrize(("what", "module", "name"), _behaviours())
def test_the_module_is_there_and_has_the_name(what: str, module: str, name: str) -> None:
    text = (ROOT / module).read_text()
    assert re.search(rf"^\s*(def|class) {name}\b|^{name}\b", text, re.MULTILINE), (
        f"where {what}: {module} has no {name}"
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_package_has_a_short_readme_that_names_only_files_that_are_there(folder: Path) -> None:
    text = (ROOT / folder / "README.md").read_text()
    lines = text.strip().splitlines()
    assert lines[0] == f"# {folder}" and 5 <= len(lines) <= 14
    assert "import" in text and "Start at" in text
    for name in re.findall(r"`([\w./]+\.(?:py|yaml|proto))`", text):
        assert (ROOT / folder / name).exists() or (ROOT / name).exists(), f"{folder}/README.md names {name}"


PAGES = sorted(
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    + [ROOT / folder / "README.md" for folder in FOLDERS]
)


def _anchors(path: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in found]
    return {"".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_name_only_files_that_are_there(page: Path) -> None:
    for name in re.findall(
        r"[\s(`]((?:bank_node|features|aggregator|simulator|protocol|dags|tests|docs)/[\w/.-]*\w\.(?:py|md|yaml|proto|json))",
        (ROOT / page).read_text(),
    ):
        assert (ROOT / name).exists(), f"{page} names {name}"
