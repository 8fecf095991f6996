"""What the demo sets up: the same keys in each, so that a demo's model depends on its seed alone."""

from pathlib import Path

import pandas as pd

from bank_node.config import load_config
from bank_node.dataset.feature_tables import identifier_keys
from simulator.demo import _configure


def test_two_demos_have_the_same_keys_and_a_bank_s_own_is_no_other_bank_s(tmp_path: Path) -> None:
    events = tmp_path / "events.parquet"
    pd.DataFrame({"event_time": pd.to_datetime(["2026-01-01", "2026-01-11"])}).to_parquet(events)
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        configs, _, _ = _configure(tmp_path / name, {"a_bank": events, "b_bank": events}, 2, None)
        found.append({bank: identifier_keys(load_config(path)) for bank, path in configs.items()})
    first, second = found
    assert first == second
    assert first["a_bank"][0] != first["b_bank"][0]
    assert first["a_bank"][1] == first["b_bank"][1] is not None
