"""Puts what runs have measured into the docs, and says where somebody has changed it by hand. It measures nothing.

`make demo` and `make bench*` leave their results in .demo and .bench, each with the run's day, cores and commit.
`insert` renders them into marked blocks; a block's first line holds a digest of what is in it, by which `edited` finds
changes that no run made.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.generate import results
from docs.generate.markdown import put_block, read_block

__all__ = ["FIGURES", "Figure", "edited", "insert"]

ROOT = Path(__file__).resolve().parents[2]
_KIND = "figures"

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One block of figures.

    Attributes:
        page: the page, from the repository's folder.
        name: of the block in it.
        file: the result it is made of; below the demo's folder if it begins with ``demo/``, else below the benchmarks'.
        show: renders the result.
        command: what measures it, for people.
        size: what the result must say of itself; a trial run with fewer rows is not put in.
    """

    page: str
    name: str
    file: str
    show: Callable[[Result], str]
    command: str
    size: Mapping[str, Any] = field(default_factory=dict)


_BENCH = "docs/benchmarks.md"
_SMALL = {"banks": 3, "rows_per_bank": 100_000, "features": 30, "trees": 50}
_MORE = {"banks": 4, "rows_per_bank": 250_000, "features": 40, "trees": 100}
_MILLION = {"rows": 1_000_000}
_LARGE = {"banks": 13, "features": 40, "trees": 100}
_DEMO = {"data": "generated", "trees": 60, "broken_bank": False}
_PEERS = {"sites": 3, "rows": 50_000, "features": 20, "trees": 30}

FIGURES: tuple[Figure, ...] = (
    Figure(page="README.md", name="demo", file="demo/report.json", show=results.demo, command="make demo", size=_DEMO),
    Figure(
        page="README.md",
        name="beside others",
        file="peers/peers.json",
        show=results.peers_ratios,
        command="make bench-peers",
        size=_PEERS,
    ),
    Figure(page=_BENCH, name="training", file="bench.json", show=results.training, command="make bench", size=_SMALL),
    Figure(
        page=_BENCH,
        name="more rows",
        file="large/bench.json",
        show=results.training_large,
        command="make bench",
        size=_MORE,
    ),
    Figure(
        page=_BENCH, name="one core", file="large/bench.json", show=results.kernels, command="make bench", size=_MORE
    ),
    Figure(
        page=_BENCH,
        name="windows and bins",
        file="bench_data.json",
        show=results.windows,
        command="make bench",
        size=_MILLION,
    ),
    Figure(
        page=_BENCH,
        name="shared risk step",
        file="bench_risk.json",
        show=results.risk,
        command="make bench",
        size=_MILLION,
    ),
    Figure(
        page=_BENCH,
        name="thirteen banks",
        file="13banks/large.json",
        show=results.large,
        command="make bench-large",
        size=_LARGE,
    ),
    Figure(page=_BENCH, name="growth", file="scaling.json", show=results.scaling, command="make bench-scaling"),
    Figure(
        page=_BENCH,
        name="layouts",
        file="layouts.json",
        show=results.layouts,
        command="python -m tests.benchmarks.layouts --out .bench/layouts.json FOLDER ...",
    ),
    Figure(
        page=_BENCH,
        name="shared benefit",
        file="shared_benefit.json",
        show=results.shared_benefit,
        command="python -m simulator.experiments.shared_benefit --out .bench/shared_benefit.json ...",
    ),
    Figure(
        page="docs/boosting.md",
        name="starting parameters",
        file="defaults.json",
        show=results.defaults,
        command="python -m simulator.experiments.defaults --data ../shared/data --out .bench/defaults.json",
    ),
    Figure(
        page=_BENCH,
        name="soak",
        file="soak.json",
        show=results.soak,
        command="python -m tests.simulation.soak --minutes 60 --runs 50",
    ),
    Figure(
        page="docs/calibration.md",
        name="calibrations",
        file="calibration.json",
        show=results.calibrations,
        command="python -m simulator.experiments.calibration --data ../shared/data --out .bench/calibration.json",
    ),
    Figure(
        page=_BENCH, name="peers", file="peers/peers.json", show=results.peers, command="make bench-peers", size=_PEERS
    ),
)

#: A picture that a result brings along: below the benchmarks' folder -> in the docs.
_PICTURES = {"scaling.json": ("scaling.svg", "docs/images/scaling.svg")}


def _digest(inside: str) -> str:
    return hashlib.sha256(inside.encode()).hexdigest()[:16]


def edited() -> list[str]:
    """Blocks whose digest is missing or another than that of what is in them: "page, block".

    Raises:
        ValueError: a page lacks its block.
    """
    wrong = []
    for figure in FIGURES:
        first, inside = read_block((ROOT / figure.page).read_text(), _KIND, figure.name)
        found = re.search(r"sha256:([0-9a-f]{16}) -->$", first.rstrip())
        if found is None or found.group(1) != _digest(inside):
            wrong.append(f"{figure.page}, {figure.name}")
    return wrong


def insert(demo: Path, bench: Path) -> list[str]:
    """Put every result that is there into its block.

    Returns:
        A line for each block: what came from where, or that there is no result.

    Raises:
        ValueError: a result does not say when, on what and from which commit it is, or is of another size than the docs
            tell of, or a page lacks its block. Nothing was written then.
    """
    told = []
    texts: dict[Path, str] = {}
    pictures: dict[Path, bytes] = {}
    for figure in FIGURES:
        path = demo / figure.file.removeprefix("demo/") if figure.file.startswith("demo/") else bench / figure.file
        if not path.exists():
            told.append(f"{figure.page}, {figure.name}: no {path}; `{figure.command}` makes it")
            continue
        result = json.loads(path.read_text())
        origin = _origin(path, result)
        _check_size(path, result, figure)
        page = ROOT / figure.page
        texts[page] = sealed(texts.get(page) or page.read_text(), figure.name, figure.show(result), origin)
        if figure.file in _PICTURES:
            picture, place = _PICTURES[figure.file]
            pictures[ROOT / place] = (bench / picture).read_bytes()
        told.append(f"{figure.page}, {figure.name}: {origin}")
    for page, text in texts.items():
        page.write_text(text)
    for target, data in pictures.items():
        target.write_bytes(data)
    return told


def sealed(text: str, name: str, inside: str, origin: str) -> str:
    """The page's text with the block's inside replaced, where it is from told, and its digest in the first line."""
    whole = f"{inside.rstrip()}\n\n*{origin[0].upper()}{origin[1:]}.*\n"
    return put_block(text, _KIND, name, whole, f"{origin}; sha256:{_digest(whole)}")


def _check_size(path: Path, result: Result, figure: Figure) -> None:
    said = result | result.get("settings", {})
    for name, wanted in figure.size.items():
        if said.get(name) != wanted:
            raise ValueError(
                f"{path} was measured with {name} {said.get(name)}, the docs tell of {wanted}: run "
                f"`{figure.command}` as it is, or move the trial away"
            )


def _origin(path: Path, result: Result) -> str:
    run = result.get("run")
    if not isinstance(run, Mapping) or not {"day", "cores", "commit"} <= run.keys():
        raise ValueError(f"{path} does not say when, on what and from which commit it was measured: measure it again")
    return f"measured on {run['day']}, {run['cores']} cores, commit {run['commit']}"
