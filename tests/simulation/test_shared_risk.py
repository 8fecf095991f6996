"""Shared counterparty risk through real runs: encrypted, over TLS, from generated payments to the model's columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from aggregator.config import AggregatorConfig
from aggregator.operator.client import OperatorClient
from aggregator.server import AggregatorServer
from bank_node import pipeline
from bank_node.config import load_config
from bank_node.dataset.feature_tables import feature_blocks, feature_rows
from bank_node.shared_risk.exchange import key_id
from bank_node.shared_risk.rows import shared_store
from features import load_contract
from protocol.messages import RunSettings
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from simulator.harness.processes import bank_files, make_certificates, operator_files
from simulator.ports import LOOPBACK, free_port
from tests.conftest import in_parallel

BANKS = ("city_bank", "harbour_bank", "north_bank")
SIZE = GeneratorSettings(banks=3, customers=240, merchants=60, days=46, seed=5, mules_per_1000_customers=10)


def configure(folder: Path, address: str, events: dict[str, Path]) -> dict[str, Path]:
    configs = {}
    for bank in BANKS:
        files = bank_files(folder / "certificates", bank)
        node = {"address": address, "ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)}
        document = {
            "bank_id": bank,
            "events": str(events[bank]),
            "work_dir": str(folder / "work" / bank),
            "aggregator": node,
        }
        configs[bank] = folder / f"{bank}.yaml"
        configs[bank].write_text(yaml.safe_dump(document))
    return configs


def one_run(server_address: str, folder: Path, configs: dict[str, Path]) -> tuple[dict[str, dict], list[str], str]:
    plan = RunPlan(params={"n_estimators": 2, "max_depth": 3})
    settings = RunSettings(
        title="test",
        roster=BANKS,
        contract_fingerprint=load_contract().fingerprint,
        parameters_json=plan.to_json(),
        rounds=2,
        enrol_seconds=300,
        step_seconds=300,
        minimum_roster=3,
    )
    with OperatorClient(server_address, operator_files(folder / "certificates")) as operator:
        run_id = operator.open_run(settings)
        lines: list[str] = []

        def train(bank: str) -> dict:
            try:
                return pipeline.train(configs[bank], run_id, log=lambda text: lines.append(f"{bank}: {text}"))
            except Exception as error:
                # The others would wait for it until the step's time is up.
                operator.abort_run(run_id, f"bank {bank}: {error!r}")
                raise

        found = in_parallel(list(BANKS), train)
        texts = [event.text for event in operator.get_run(run_id).events]
    return found, lines, "\n".join(texts)


@pytest.fixture
def node(tmp_path: Path):
    make_certificates(tmp_path / "certificates", list(BANKS))
    certificates = tmp_path / "certificates"
    address = f"{LOOPBACK}:{free_port()}"
    server = AggregatorServer(
        AggregatorConfig(
            adding_processes=0,
            listen=address,
            console=None,
            ca=certificates / "ca.pem",
            certificate=certificates / "aggregator.pem",
            key=certificates / "aggregator.key",
            store=f"sqlite:///{tmp_path / 'aggregator.db'}",
        )
    )
    server.start()
    yield address
    server.stop()


def pooled_truth(events: dict[str, Path], row: pd.Series, delay: int) -> dict[str, int]:
    """What all banks' tables together say of a payment's counterparty before the payment's day."""
    everything = pd.concat([pd.read_parquet(path).assign(bank=bank) for bank, path in events.items()])
    same = everything[(everything["direction"] == "out") & (everything["counterparty_id"] == row["counterparty_id"])]
    today = row["event_time"].normalize()
    known = same["label_time"].fillna(same["event_time"] + pd.Timedelta(days=delay)).dt.normalize()
    reports = same[(same["is_fraud"] == 1) & (known < today) & (known >= today - pd.Timedelta(days=30))]
    paid = same["event_time"].dt.normalize()
    recent = same[(paid < today) & (paid >= today - pd.Timedelta(days=30))]
    customers = len(reports[["bank", "account_id"]].drop_duplicates())
    enough = customers >= 2
    return {
        "payments": len(recent),
        "frauds": len(reports) if enough else 0,
        "customers": customers if enough else 0,
        "banks": reports["bank"].nunique() if enough else 0,
    }


@pytest.mark.slow
def test_runs_exchange_each_day_once_and_give_every_bank_what_pooling_would(tmp_path: Path, node: str) -> None:
    made = generate(SIZE, tmp_path / "data")
    configs = configure(tmp_path, node, made.events)
    for path in configs.values():
        pipeline.extract(path)
    contract = load_contract()
    before = feature_rows(load_config(configs[BANKS[0]]), contract)
    assert before[list(contract.shared_names)].isna().all().all()

    found, lines, events = one_run(node, tmp_path, configs)
    assert len({result["model_sha256"] for result in found.values()}) == 1
    assert any("45 days summed, 0 handed on" in line for line in lines)
    assert "shared risk: 45 days summed" in events, "the operator sees what it took"

    stores = {bank: shared_store(load_config(path)) for bank, path in configs.items()}
    keys = {store.key() for store in stores.values()}
    assert len(keys) == 1
    key = keys.pop()
    spec = contract.shared_risk
    days = stores[BANKS[0]].days(key_id(key), spec.sketch_digest)
    assert len(days) == 45
    totals = [
        [store.read(spec, key_id(key), kind, days[0], len(days)) for kind in spec.kinds] for store in stores.values()
    ]
    assert all(np.array_equal(a, b) for other in totals[1:] for a, b in zip(totals[0], other, strict=True))

    raw = {bank: pd.read_parquet(path) for bank, path in made.events.items()}
    seen = 0
    for bank, path in configs.items():
        table = feature_rows(load_config(path), contract)
        blocks = list(feature_blocks(load_config(path), contract, block_rows=500))
        assert len(blocks) > 3
        pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), table)
        out = raw[bank][raw[bank]["direction"] == "out"].sort_values(["event_time", "payment_id"], kind="stable")
        assert len(table) == len(out)
        order = table.sort_values(["event_time", "amount"], kind="stable").reset_index(drop=True)
        out = out.sort_values(["event_time", "amount"], kind="stable").reset_index(drop=True)
        reported = order.index[order["shared_counterparty_frauds_30d"] > 0][:20]
        for place in [*reported, *range(0, len(order), len(order) // 15)]:
            row, expected = order.loc[place], pooled_truth(made.events, out.loc[place], contract.label.delay_days)
            if row["event_time"].date().toordinal() > pd.Timestamp(days[-1], unit="D").toordinal() + 1:
                assert np.isnan(row["shared_counterparty_payments_30d"])
                continue
            # A bank sends one or two payments a day as none: at most two short for each bank and day.
            assert row["shared_counterparty_payments_30d"] >= expected["payments"] - 2 * len(BANKS) * 30
            for what in ("frauds", "customers", "banks"):
                assert row[f"shared_counterparty_{what}_30d"] >= expected[what]
                seen += row[f"shared_counterparty_{what}_30d"] == expected[what] > 0
    assert seen > 20, "reports were found, and mostly exactly"

    again, lines, _ = one_run(node, tmp_path, configs)
    assert any("0 days summed, 0 handed on" in line for line in lines)
    assert len({result["model_sha256"] for result in again.values()}) == 1


@pytest.mark.slow
def test_the_key_and_the_tables_never_leave_the_bank(tmp_path: Path, node: str) -> None:
    made = generate(SIZE, tmp_path / "data")
    configs = configure(tmp_path, node, made.events)
    for path in configs.values():
        pipeline.extract(path)
    one_run(node, tmp_path, configs)
    key = shared_store(load_config(configs[BANKS[0]])).key()
    assert key is not None
    for file in [*tmp_path.glob("aggregator*"), *(tmp_path / "sums").rglob("*"), *tmp_path.rglob("*.jsonl")]:
        if file.is_file():
            content = file.read_bytes()
            assert key not in content and key.hex().encode() not in content, file
