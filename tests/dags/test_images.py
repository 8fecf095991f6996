"""The images and the compose file, by parsing: what is copied, who runs, what is published. No builds."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
OURS = {"aggregator", "bank_node", "dags", "features", "protocol", "simulator"}
#: Import name → distribution, where they differ.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "google": "protobuf",
    "mt940": "mt-940",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "ibis": "ibis-framework",
    "charset_normalizer": "charset-normalizer",
    "python_calamine": "python-calamine",
}


def _instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", path.read_text()))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def _all(path: Path, instruction: str) -> list[str]:
    return [rest for word, rest in _instructions(path) if word == instruction]


def _copied(path: Path) -> list[str]:
    return [
        source
        for rest in _all(path, "COPY")
        for source in [part for part in shlex.split(rest) if not part.startswith("--")][:-1]
    ]


def _requirements(name: str) -> set[str]:
    lines = (DOCKER / "requirements" / f"{name}.txt").read_text().splitlines()
    return {re.split(r"[\[=<>]", line)[0] for line in lines if line and not line.startswith("#")}


def _third_party(*packages: str) -> set[str]:
    found = set()
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                else:
                    continue
                found |= {name.split(".")[0] for name in names}
    found -= OURS | set(sys.stdlib_module_names) | {"__future__"}
    return {DISTRIBUTIONS.get(name, name) for name in found}


def test_there_are_three_images() -> None:
    assert [path.name for path in FILES] == [
        "aggregator.Dockerfile",
        "airflow.Dockerfile",
        "bank-node.Dockerfile",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_image_habits(path: Path) -> None:
    for base in _all(path, "FROM"):
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+[\w.-]*", base), f"{base} is not pinned by a full tag"
    users = _all(path, "USER")
    assert users and users[-1] not in ("root", "0")
    words = [word for word, _ in _instructions(path)]
    assert words.index("USER") < max(words.index(word) for word in ("CMD", "ENTRYPOINT") if word in words)
    assert "HEALTHCHECK" in words
    assert "ADD" not in words
    for command in _all(path, "RUN"):
        assert "pip install" not in command or "--no-deps" in command or "-c /tmp/pip/py312.txt" in command
    for source in _copied(path):
        assert (ROOT / source).exists(), f"{source} does not exist"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_build_context_holds_what_is_copied_and_little_else(path: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in _copied(path):
        assert any(source == entry or source.startswith(entry) for entry in allowed if entry), source
    assert "simulator/" not in allowed
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_aggregators_image_holds_no_bank_code() -> None:
    copied = _copied(DOCKER / "aggregator.Dockerfile")
    assert {source.rstrip("/") for source in copied if not source.endswith(".txt")} == {
        "protocol",
        "aggregator",
    }
    assert not _requirements("aggregator") & {"xgboost", "numba", "pandas", "duckdb"}


def test_no_image_copies_the_simulator() -> None:
    for path in FILES:
        assert not any(source.startswith(("simulator", "tests", ".")) for source in _copied(path))


@pytest.mark.parametrize(
    ("name", "packages"),
    [("aggregator", ("protocol", "aggregator")), ("bank-node", ("protocol", "features", "bank_node"))],
)
def test_requirements_cover_the_imports_and_are_pinned(name: str, packages: tuple[str, ...]) -> None:
    requirements = _requirements(name)
    # Sources other than files are extras, imported when a bank names one.
    assert _third_party(*packages) - {"psycopg", "pyspark", "py4j"} <= requirements
    pins = {line.split("==")[0] for line in (ROOT / "pins" / "py312.txt").read_text().splitlines() if "==" in line}
    assert requirements | _requirements("airflow") <= pins


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_compose_has_a_consortium_and_three_banks(compose: Any) -> None:
    banks = [name for name in compose["services"] if name.startswith("bank_") and name.endswith("_airflow")]
    assert len(banks) == 3
    assert {"aggregator", "consortium_airflow"} <= set(compose["services"])


def test_compose_builds_what_exists(compose: Any) -> None:
    for service in compose["services"].values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert not service["image"].endswith(":latest")


def test_compose_publishes_on_the_loopback_only(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_compose_keeps_parties_apart(compose: Any) -> None:
    services = compose["services"]
    for bank in ("bank_a", "bank_b", "bank_c"):
        for name in (f"{bank}_airflow", f"{bank}_node"):
            service = services[name]
            assert service["networks"] == [bank]
            assert service["secrets"] == [f"{bank}_key"]
            for volume in service["volumes"]:
                assert bank in volume
    assert set(services["aggregator"]["networks"]) == set(compose["networks"])
    assert services["aggregator"]["secrets"] == ["aggregator_key"]
    assert not any("bank_" in volume for volume in services["aggregator"]["volumes"])


def test_compose_hardens_every_service(compose: Any) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not service.get("privileged")
        for volume in service["volumes"]:
            if volume.startswith("."):
                assert volume.endswith(":ro"), volume
            else:
                assert volume.split(":")[0] in compose["volumes"]
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("./deploy/secrets/")


def test_no_key_is_in_a_mounted_folder() -> None:
    script = (DOCKER / "prepare.sh").read_text()
    for key in ("aggregator.key", "operator.key", "$bank.key"):
        assert f'"$DEPLOY/secrets/{key}"' in script
    assert "umask 077" in script
    assert (DOCKER / ".gitignore").read_text().split() == ["deploy/"]
