"""What an extraction takes of memory: bounded, however many days there are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import load_contract

A_DAY = 20_000
MEGABYTES = 1_500
EXTRACT = """
import re, sys
from pathlib import Path
from features import load_contract
from features.identifiers import IdentifierKey
from features.incremental import extract_days
from features.store.partitions import FeatureStore

done = extract_days(load_contract(), sys.argv[1], FeatureStore(Path(sys.argv[2])), key=IdentifierKey(bytes(range(32))))
print(done.stored, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def write_days(folder: Path, first: int, count: int) -> None:
    """Files of `A_DAY` payments each, of as many accounts; two in a thousand are fraud."""
    contract = load_contract()
    categories, channels = np.array(contract.codes("category")), np.array(contract.codes("channel"))
    accounts = np.array([f"ACC{n:012d}" for n in range(A_DAY)])
    counterparties = np.array([f"M{n:08d}" for n in range(A_DAY // 5)])
    folder.mkdir(exist_ok=True)
    for day in range(first, first + count):
        random = np.random.default_rng(day)
        midnight = np.datetime64("2025-01-01", "us") + np.timedelta64(day, "D")
        booked = np.sort(random.integers(0, 86_400_000_000, A_DAY)).astype("timedelta64[us]") + midnight
        known = booked + random.integers(1, 20, A_DAY).astype("timedelta64[D]")
        table = {
            "payment_id": np.char.add(f"P{day:05d}-", np.arange(A_DAY).astype(str)),
            "event_time": booked,
            "account_id": random.choice(accounts, A_DAY),
            "counterparty_id": counterparties[(len(counterparties) * random.random(A_DAY) ** 3).astype(int)],
            "counterparty_bank": pa.nulls(A_DAY, pa.string()),
            "direction": random.choice(["out", "in"], A_DAY, p=[0.9, 0.1]),
            "channel": random.choice(channels, A_DAY),
            "amount": np.round(random.lognormal(3, 1.2, A_DAY) + 0.01, 2),
            "category": random.choice(categories, A_DAY),
            "is_fraud": (random.random(A_DAY) < 0.002).astype(float),
            "label_time": known,
        }
        pq.write_table(pa.table(table), folder / f"day{day:05d}.parquet")


def extract(source: Path, store: Path) -> tuple[int, int]:
    """Payments in the store, and the megabytes that the extraction took at most, in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-c", EXTRACT, str(source), str(store)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    stored, peak = child.stdout.split()
    return int(stored), int(peak)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_bounded_over_a_hundred_days_and_on_the_day_after(tmp_path: Path) -> None:
    write_days(tmp_path / "days", 0, 100)
    stored, peak = extract(tmp_path / "days", tmp_path / "store")
    assert stored == 100 * A_DAY
    assert peak < MEGABYTES, f"the first extraction of {stored} payments took {peak} MB"

    write_days(tmp_path / "days", 100, 1)
    stored, peak = extract(tmp_path / "days", tmp_path / "store")
    assert stored == 101 * A_DAY
    assert peak < MEGABYTES, f"one day more took {peak} MB"
