"""docs/operations.md, run as it is written: from an empty folder to a released model, on the command line."""

import contextlib
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.harness.processes import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
BLOCK = re.compile(r"^```sh run\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> str:
    """The page's blocks, one after the other, in one shell that stops at the first failure."""
    return "set -euo pipefail\n" + "\n".join(BLOCK.findall(PAGE.read_text()))


def test_the_page_s_commands_are_a_script() -> None:
    text = commands()
    assert len(BLOCK.findall(PAGE.read_text())) > 10
    assert PAGE.read_text().count("```sh run\n") == len(BLOCK.findall(PAGE.read_text()))
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in (
        "aggregator serve",
        "bank-node enroll",
        "bank-node train",
        "bank-node verify",
        "aggregator ca revoke",
    ):
        assert command in text


def _work_paths() -> list[str]:
    """Patterns of the table of docs/install-bank.md."""
    text = (
        (ROOT / "docs" / "install-bank.md").read_text().split("## What lies in work_dir")[1].split("## The alerts")[0]
    )
    found = []
    for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        folder = names[0].rsplit("/", 1)[0] + "/" if "/" in names[0] else ""
        found += [names[0], *(name if "/" in name else folder + name for name in names[1:])]
    return [re.sub(r"DAY|RUN", "*", name) + ("*" if name.endswith("/") else "") for name in found]


@pytest.mark.slow
def test_the_commands_lead_to_a_released_model(tmp_path: Path) -> None:
    clone, place = tmp_path / "clone", tmp_path / "trial"
    place.mkdir()
    shutil.copytree(ROOT / "docs" / "samples", clone / "docs" / "samples")
    # The samples' ports may be taken here; all else is as it stands.
    node, console = str(free_port()), str(free_port())
    for sample in (clone / "docs" / "samples").glob("*.yaml"):
        sample.write_text(sample.read_text().replace("7443", node).replace("7480", console))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", commands()],
        cwd=place,
        env=os.environ | {"CROSSBANK": str(clone), "PATH": path, "COLUMNS": "160"},
        stdout=(tmp_path / "said").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait(1500)
    finally:
        # The node runs on in the script's own process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    said = (tmp_path / "said").read_text()
    log = place / "banks.log"
    assert code == 0, said[-3000:] + (log.read_text()[-3000:] if log.exists() else "")
    models = {path.read_bytes() for path in place.glob("*/work/models/current.json")}
    assert len(models) == 1 and len(list(place.glob("*/work/models/current.json"))) == 3
    assert "RELEASED" in said and "8 trees" in said and "records hold together" in said
    assert "no failure was noted" in said

    known = _work_paths()
    assert len(known) > 25
    for file in (place / "north_bank" / "work").rglob("*"):
        name = str(file.relative_to(place / "north_bank" / "work"))
        if file.is_file() and not file.name.startswith("."):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in known), f"docs/install-bank.md has no {name}"
