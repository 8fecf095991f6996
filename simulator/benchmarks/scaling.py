"""How time grows: with rows, with banks, and at the node with banks times ciphertexts. Processor time, not the clock's.

A least-squares line through the points, and its R², say how straight the growth is.
"""

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from aggregator.aggregation.ciphertext_sum import PublicContext
from aggregator.runs.steps import StepSum
from bank_node.boosting import BoostingParameters, bin_rows, global_bins, train_trees
from bank_node.secure_aggregation.encryption import ChunkCipher
from bank_node.secure_aggregation.keys import make_he_key, public_part
from protocol.field import MODULUS
from protocol.he_parameters import HE_FINGERPRINT
from protocol.layout import CHUNK_SLOTS, PAYLOAD_SLOTS
from protocol.messages import Chunk, StepHeader
from protocol.steps import Step
from simulator.benchmarks.training import make_rows
from simulator.harness.measuring import provenance
from simulator.harness.training import federate

__all__ = ["scaling"]

Points = list[tuple[int, float]]


def scaling(out: Path, *, most_banks: int = 100, most_rows: int = 800_000) -> dict[str, Any]:
    """Measure, print, and plot to ``scaling.svg`` and ``scaling.json`` in a folder.

    Args:
        out: the folder.
        most_banks: 2 at least.
        most_rows: rows of the largest training.
    """
    screen = Console()
    banks = [n for n in (2, 5, 10, 20, 40, 70, 100) if n <= most_banks]
    series = {
        "rows of one bank (training, 20 trees)": [
            (most_rows // part, _training(most_rows // part)) for part in (16, 8, 4, 2, 1)
        ],
        "banks of 5,000 rows (all banks' training, 5 trees)": [(n, _federated(n, out)) for n in banks],
        "banks x ciphertexts (the node, one step)": [
            (n * chunks, _node(n, chunks)) for chunks in (4, 16) for n in banks
        ],
    }
    report: dict[str, Any] = {}
    shown = Table("", "from", "to", "seconds", "growth", "R² of a line")
    for name, points in series.items():
        points.sort()
        slope, intercept, r2 = _line(points)
        report[name] = {"points": points, "slope": slope, "intercept": intercept, "r2": r2}
        (first, before), (last, after) = points[0], points[-1]
        growth = f"{last / first:.0f} x the size, {after / before:.1f} x the time"
        shown.add_row(name, f"{first:,}", f"{last:,}", f"{before:.3f} to {after:.3f}", growth, f"{r2:.4f}")
    screen.print(shown)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_text(json.dumps({"run": provenance(), **report}, indent=2) + "\n")
    _plot(report, out / "scaling.svg")
    screen.print(f"plot: {out / 'scaling.svg'}")
    return report


def _best(work: Callable[[], Any], repeats: int = 3) -> float:
    spent = []
    for _ in range(repeats):
        started = process_time()
        work()
        spent.append(process_time() - started)
    return min(spent)


def _training(rows: int) -> float:
    part = make_rows(1, rows, 20, seed=3)
    own = part.train["bank_1"]
    params = BoostingParameters(n_estimators=20, max_depth=6, max_bin=64)
    cuts = global_bins(own.columns, own.labels, part.grids, params.max_bin, lambda _, vector: vector)
    binned = bin_rows(own.columns, cuts)
    return _best(lambda: train_trees(binned, own.labels, params, lambda _, vector: vector, n_rows_total=rows))


def _federated(banks: int, out: Path) -> float:
    table = make_rows(banks, 5_000, 20, seed=3)
    params = BoostingParameters(n_estimators=5, max_depth=6, max_bin=64)
    return _best(lambda: federate(table, params, out, mode="plain", alert_budget=0.005))


def _node(banks: int, chunks: int) -> float:
    key = make_he_key()
    cipher, rng = ChunkCipher(key), np.random.default_rng(0)
    bodies = [cipher.encrypt(rng.integers(0, MODULUS, CHUNK_SLOTS, dtype=np.uint64)) for _ in range(chunks)]
    names = [f"bank-{n}" for n in range(banks)]
    headers = {
        bank: StepHeader(
            run_id="run",
            bank=bank,
            step=Step.train(0, 0).text,
            attempt=0,
            chunks=chunks,
            length=chunks * PAYLOAD_SLOTS,
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=bytes(32),
            state=bytes(32),
            signature=bytes(64),
        )
        for bank in names
    }

    def step() -> None:
        one = StepSum(header=headers[names[0]], roster=frozenset(names), context=context, opened_at=0.0)
        for bank in names:
            one.add(bank, [Chunk(index=index, ciphertext=body) for index, body in enumerate(bodies)])
            one.finish(headers[bank])

    context = PublicContext(public_part(key))
    return _best(step)


def _line(points: Points) -> tuple[float, float, float]:
    x, y = np.array(points, dtype=np.float64).T
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (slope * x + intercept)
    return float(slope), float(intercept), float(1.0 - (rest @ rest) / ((y - y.mean()) @ (y - y.mean())))


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report), figsize=(5 * len(report), 4), layout="constrained")
    for axis, (name, found) in zip(axes, report.items(), strict=True):
        x, y = np.array(found["points"], dtype=np.float64).T
        axis.plot(x, y, "o", color="#1f5fa8")
        axis.plot(x, found["slope"] * x + found["intercept"], color="#1f5fa8", linewidth=1)
        axis.set(xlabel=name, ylabel="processor seconds", xlim=(0, None), ylim=(0, None))
        axis.set_title(f"R² of the line: {found['r2']:.4f}", fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
