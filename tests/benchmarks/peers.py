"""Crossbank beside what else could be used: installs the peers, gives all the same rows, prints one table.

It does not tune anybody: every candidate gets the same rows, trees, depth, bins and learning rate, runs in a process of
its own, alone, and is judged on the same held-out rows. What can't be installed, fails or takes too long is a row that
says so.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bank_node.evaluation.metrics import rank_metrics
from simulator.harness.measuring import provenance
from tests.benchmarks.peer_rows import settings, site_rows

__all__ = ["CANDIDATES", "Candidate", "judge", "main", "markdown", "write_rows"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Environment -> what pip installs there. The last XGBoost with the federated plugin FLARE needs is 3.3; on Python 3.11
#: 3.2 is the newest. FedTree's package holds a library that needs libntl.so.44 and does not bring it; a wheel that
#: bundles that version of NTL stands in for a system package, which needs root.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "shared": ("nvflare==2.9.0", "tensorboard==2.21.0", "flwr[simulation]==1.42.0", "xgboost==3.2.0"),
    "fedtree": ("fedtree==1.0.5", "numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1", "passagemath-ntl==10.5.49"),
}
#: Installed with --no-deps: only the library inside is wanted.
ALONE = ("passagemath-ntl",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row: what runs, where, and what is known of it beforehand.

    Attributes:
        name: as printed.
        script: file beside this one; gets the data's and its own folder, then `arguments`.
        environment: one of `ENVIRONMENTS`, or None for the Python that runs this.
        encrypted: what leaves a site is encrypted.
        shares: what crosses between the sites.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    environment: str | None
    encrypted: str
    shares: str


CANDIDATES: dict[str, Candidate] = {
    "pooled": Candidate(
        name="pooled XGBoost 3.2",
        script="peer_xgboost.py",
        arguments=("pooled",),
        environment="shared",
        encrypted="no",
        shares="all rows",
    ),
    "local": Candidate(
        name="each site's own XGBoost, one after the other",
        script="peer_xgboost.py",
        arguments=("local",),
        environment="shared",
        encrypted="nothing is sent",
        shares="nothing",
    ),
    "plain": Candidate(
        name="Crossbank, plain, in memory",
        script="peer_crossbank.py",
        arguments=("plain",),
        environment=None,
        encrypted="no",
        shares="histograms",
    ),
    "exact": Candidate(
        name="Crossbank, secure, exact",
        script="peer_crossbank.py",
        arguments=("wide",),
        environment=None,
        encrypted="yes",
        shares="encrypted, masked histograms",
    ),
    "packed": Candidate(
        name="Crossbank, secure, packed",
        script="peer_crossbank.py",
        arguments=("packed",),
        environment=None,
        encrypted="yes",
        shares="encrypted, masked histograms",
    ),
    "flare": Candidate(
        name="NVIDIA FLARE 2.9, histograms",
        script="peer_flare.py",
        environment="shared",
        encrypted="no",
        shares="histograms",
    ),
    "flower": Candidate(
        name="Flower 1.42, bagging",
        script="peer_flower.py",
        environment="shared",
        encrypted="no",
        shares="whole trees",
    ),
    "fedtree": Candidate(
        name="FedTree 1.0.5, plain",
        script="peer_fedtree.py",
        arguments=("none",),
        environment="fedtree",
        encrypted="no",
        shares="histograms",
    ),
    "fedtree-he": Candidate(
        name="FedTree 1.0.5, Paillier",
        script="peer_fedtree.py",
        arguments=("he",),
        environment="fedtree",
        encrypted="yes",
        shares="encrypted histograms",
    ),
}


def write_rows(data: Path, *, sites: int, rows: int, features: int, trees: int, seed: int = 11) -> None:
    """Write ``site-N.npz``, ``held-out.npz`` and ``settings.json``.

    About 3 % positives, a nonlinear and noisy signal, and every site sees its first feature from another side, as banks
    do. Nothing is missing: FedTree can't take missing values.
    """
    data.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=features)
    held_out = []
    for site in range(sites):
        columns = rng.normal(size=(rows + rows // 4, features)).astype(np.float32)
        columns[:, 0] += np.float32(site - (sites - 1) / 2)
        signal = columns @ weights * 0.3 + np.sin(2 * columns[:, 0]) * columns[:, 1] + rng.normal(size=len(columns))
        labels = (signal > 3.4).astype(np.uint8)
        np.savez(data / f"site-{site + 1}.npz", columns=columns[:rows], labels=labels[:rows])
        held_out.append((columns[rows:], labels[rows:]))
    np.savez(
        data / "held-out.npz",
        columns=np.concatenate([part[0] for part in held_out]),
        labels=np.concatenate([part[1] for part in held_out]),
    )
    threads = len(os.sched_getaffinity(0))
    chosen: dict[str, float] = {"sites": sites, "rows": rows, "features": features, "trees": trees}
    chosen |= {"depth": 6, "bins": 64, "eta": 0.3, "threads": threads}
    (data / "settings.json").write_text(json.dumps(chosen))


def install(environment: str, folder: Path) -> str | None:
    """Make the environment, unless it is there as pinned.

    Returns:
        Why it could not be made, or None.
    """
    wanted = "\n".join(ENVIRONMENTS[environment])
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    usual = [package for package in ENVIRONMENTS[environment] if not package.startswith(ALONE)]
    alone = [package for package in ENVIRONMENTS[environment] if package.startswith(ALONE)]
    for arguments in ([*usual], ["--no-deps", "--only-binary=:all:", *alone] if alone else []):
        if not arguments:
            continue
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["pip failed"]
            return f"can't be installed: {lines[-1][:200]}"
    for library in folder.glob("lib/python*/site-packages/passagemath_ntl.libs/libntl-*.so.44.*"):
        (library.parent / "libntl.so.44").symlink_to(library.name)
    stamp.write_text(wanted)
    return None


def run(candidate: Candidate, data: Path, out: Path, environments: Path, timeout: float) -> dict[str, Any]:
    """Run one candidate in its own process group, and end all of that group after it.

    Returns:
        What it measured, or ``{"failed": why}``.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    variables = dict(os.environ)
    variables |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    if candidate.environment is None:
        command = [sys.executable, "-m", f"tests.benchmarks.{Path(candidate.script).stem}"]
    else:
        folder = environments / candidate.environment
        command = [str(folder / "bin/python"), str(HERE / candidate.script)]
        variables["PYTHONPATH"] = str(HERE)
        variables["PATH"] = f"{folder / 'bin'}{os.pathsep}{variables['PATH']}"
        for library in folder.glob("lib/python*/site-packages/passagemath_ntl.libs"):
            variables["LD_LIBRARY_PATH"] = str(library)
    command += [str(data), str(out), *candidate.arguments]
    with (out / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT if candidate.environment is None else out,
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {timeout:.0f} s"}
        finally:
            # The group has the candidate's own children too; it may have ended already.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code or not (out / "result.json").exists():
        lines = (out / "log.txt").read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"failed": f"failed ({code}): {lines[-1].strip()[:160]}"}
    return dict(json.loads((out / "result.json").read_text())) | {"auc_pr": judge(data, np.load(out / "scores.npy"))}


def judge(data: Path, scores: np.ndarray) -> float:
    """AUC-PR on the held-out rows; of several models (one row of scores each), the mean.

    Raises:
        ValueError: the scores are not one per held-out row; a candidate's script is wrong.
    """
    _, labels = site_rows(data, "held-out")
    models = np.atleast_2d(scores)
    if models.shape[1] != len(labels):
        raise ValueError(f"{models.shape[1]} scores for {len(labels)} held-out rows")
    return float(np.mean([rank_metrics(labels, model, 0.005).auc_pr for model in models]))


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The table of docs/benchmarks.md."""
    lines = [
        "| | training, s | ratio to pooled | whole job, s | AUC-PR | sent per site | encrypted | what is shared |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = results.get("pooled", {}).get("training_seconds")
    for key, result in results.items():
        candidate = CANDIDATES[key]
        if "failed" in result:
            figures = [result["failed"], "", "", "", ""]
        else:
            seconds, sent = result["training_seconds"], result.get("bytes_per_site")
            figures = [
                f"{seconds:.2f}",
                f"{seconds / base:.1f}" if base else "",
                f"{result['job_seconds']:.1f}",
                f"{result['auc_pr']:.4f}",
                "not told" if sent is None else "0" if key in ("pooled", "local", "plain") else f"{sent / 1e6:.1f} MB",
            ]
        lines.append(f"| {' | '.join([candidate.name, *figures, candidate.encrypted, candidate.shares])} |")
    notes = [f"- {CANDIDATES[key].name}: {result['note']}." for key, result in results.items() if result.get("note")]
    return "\n".join([*lines, "", *notes])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare Crossbank with what else could be used, on the same rows.",
        epilog=(
            "Installs the peers (about 1 GB) from PyPI into OUT/envs, not into the project's environment; writes the\n"
            "rows into OUT/data; runs each candidate in its own process, one after the other; prints the table and\n"
            "saves it as OUT/peers.md and OUT/peers.json. Each candidate's output is in OUT/NAME/log.txt.\n\n"
            "A quick look:  python -m tests.benchmarks.peers --rows 5000 --trees 5\n"
            "Only some:     python -m tests.benchmarks.peers --only pooled flower packed\n\n"
            "candidates: " + ", ".join(CANDIDATES)
        ),
    )
    parser.add_argument("--sites", type=int, default=3, help="banks (3)")
    parser.add_argument(
        "--rows", type=int, default=50_000, help="training rows of each (50,000); a quarter more is held out"
    )
    parser.add_argument("--features", type=int, default=20, help="columns (20)")
    parser.add_argument("--trees", type=int, default=30, help="boosting rounds (30), depth 6, 64 bins, eta 0.3")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a candidate may take (1800)")
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), metavar="NAME", help="these candidates only")
    parser.add_argument(
        "--out", type=Path, default=ROOT / ".bench" / "peers", help="where everything goes (.bench/peers)"
    )
    return parser.parse_args()


def main() -> None:
    """Install, write the rows, run, print and save."""
    chosen = _arguments()
    out = chosen.out.resolve()
    shutil.rmtree(out / "data", ignore_errors=True)
    write_rows(out / "data", sites=chosen.sites, rows=chosen.rows, features=chosen.features, trees=chosen.trees)
    refused = {}
    keys = chosen.only or list(CANDIDATES)
    for environment in sorted({e for key in keys if (e := CANDIDATES[key].environment)}):
        print(f"environment {environment}: {', '.join(ENVIRONMENTS[environment])}", flush=True)
        refused[environment] = install(environment, out / "envs" / environment)
    results = {}
    for key in keys:
        candidate = CANDIDATES[key]
        if candidate.environment and (reason := refused[candidate.environment]):
            results[key] = {"failed": reason}
        else:
            results[key] = run(candidate, out / "data", out / key, out / "envs", chosen.timeout)
        print(f"{candidate.name}: {json.dumps(results[key])}", flush=True)
    report = {"run": provenance(), "settings": settings(out / "data"), "results": results}
    (out / "peers.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(results)
    (out / "peers.md").write_text(text + "\n")
    print(f"\n{text}\n\nsaved: {out / 'peers.md'}, {out / 'peers.json'}")


if __name__ == "__main__":
    main()
