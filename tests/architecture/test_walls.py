"""The walls around the secret key and the rows: file set of the aggregator, public names, fresh stubs."""

import importlib
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.stubs import stale

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "features", "bank_node", "aggregator")


def test_the_aggregator_starts_from_its_image_s_file_set_and_cannot_import_the_bank(tmp_path: Path) -> None:
    for package in ("protocol", "aggregator"):
        shutil.copytree(ROOT / package, tmp_path / package)
    code = (
        "import sys\n"
        f"sys.path = [p for p in sys.path if p not in ('', {str(ROOT)!r})]; sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import aggregator.server, aggregator.cli\n"
        f"assert aggregator.__file__.startswith({str(tmp_path)!r}), aggregator.__file__\n"
        "for name in ('bank_node', 'features', 'simulator', 'dags'):\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: continue\n"
        "    raise SystemExit(name + ' can be imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is_and_names_its_public_surface(package: str) -> None:
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        if "_pb2" in info.name or info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        assert module.__doc__, info.name
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{info.name}.{name}"


def test_generated_stubs_are_fresh() -> None:
    assert stale() == []


def test_no_module_is_longer_than_600_lines() -> None:
    files = [p for package in (*PACKAGES, "dags", "simulator") for p in (ROOT / package).rglob("*.py")]
    assert not [p.name for p in files if "_pb2" not in p.name and len(p.read_text().splitlines()) > 600]
