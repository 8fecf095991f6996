"""Rows in shards on Dask worker processes: the same bytes as in one process, and after a worker was killed."""

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed.security import Security

from bank_node.boosting import BoostingParameters, bin_rows, export_booster, global_bins, row_keys, train_trees
from bank_node.boosting.binning import agreed_bins, bin_counts
from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.errors import RowError
from bank_node.boosting.grower import grow_trees
from bank_node.boosting.row_files import BankRows, RowFiles, write_rows
from bank_node.config import ShardsConfig
from bank_node.dataset.shards import dask_client, open_shards
from bank_node.training.federated import train_model
from bank_node.training.training_input import TrainingInput
from protocol.errors import ConfigError
from simulator.harness.worker import PlainConsortium, PlainSums

NAMES = list("abcdef")
GRIDS = [np.linspace(-3, 3, 200)] * 6
NUMERIC = [False] * 6


def alone(_, vector):
    return vector


@pytest.fixture(scope="module")
def sample() -> BankRows:
    rng = np.random.default_rng(5)
    columns = rng.normal(size=(2001, 6)).astype(np.float32)
    columns[rng.random(columns.shape) < 0.1] = np.nan
    labels = (np.nan_to_num(columns[:, 0] * columns[:, 1]) + rng.normal(size=2001) > 1).astype(np.uint8)
    weights = rng.choice([0.5, 1.0, 3.0], 2001).astype(np.float32)
    return BankRows(columns=columns, labels=labels, weights=weights, keys=row_keys([str(i) for i in range(2001)]))


@pytest.fixture(scope="module")
def files(sample: BankRows, tmp_path_factory: pytest.TempPathFactory) -> RowFiles:
    pieces = [
        BankRows(
            columns=sample.columns[a:b], labels=sample.labels[a:b], weights=sample.weights[a:b], keys=sample.keys[a:b]
        )
        for a, b in ((0, 700), (700, 700), (700, 2001))
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / "files", pieces, 6)


@pytest.fixture(scope="module")
def client():
    with dask_client(ShardsConfig(workers=3)) as client:
        yield client


def in_one_process(sample, params, warm=None):
    cuts = global_bins(
        sample.columns, sample.labels, GRIDS, params.max_bin, alone, feature_names=NAMES, weights=sample.weights
    )
    trees = train_trees(
        bin_rows(sample.columns, cuts),
        sample.labels,
        params,
        alone,
        n_rows_total=2001,
        weights=sample.weights,
        row_keys=sample.keys,
    )
    return export_booster(trees, cuts, params, NAMES, cuts.base_score(params))


def on_workers(shards, params, secure_sum=alone):
    counts = shards.bin_counts(GRIDS, NAMES, NUMERIC)
    cuts = agreed_bins(counts, GRIDS, params.max_bin, alone, feature_names=NAMES)
    trees = grow_trees(shards.store(cuts, params), cuts, params, secure_sum, n_rows_total=2001)
    shards.close()
    return export_booster(trees, cuts, params, NAMES, cuts.base_score(params))


@pytest.mark.parametrize("layout", ["wide", "packed"])
def test_three_workers_give_the_bytes_of_one_process_even_when_one_is_killed(sample, files, client, layout):
    params = BoostingParameters(n_estimators=6, max_depth=4, max_bin=32, histogram_layout=layout, subsample=0.8)
    expected = in_one_process(sample, params)
    shards = DaskShards(client, files, 3)
    assert on_workers(shards, params) == expected
    killed = []

    def killing(step, vector):
        if step == "train/3/2":
            killed.append(sorted(client.run(os.getpid).values())[0])
            os.kill(killed[0], signal.SIGKILL)
        return vector

    assert on_workers(shards, params, killing) == expected
    assert killed


def test_a_worker_with_an_old_copy_of_a_shard_opens_it_anew(sample, files, client):
    params = BoostingParameters(n_estimators=4, max_depth=3, max_bin=16)
    shards = DaskShards(client, files, 3)
    moved = []

    def moving(step, vector):
        if step in ("train/1/1", "train/2/1"):
            # To the next worker, then back to the first, which has seen less meanwhile.
            homes, turn = shards._workers._homes, 1 if step == "train/1/1" else 2
            shards._workers._homes = [homes[(k + turn) % 3] for k in range(3)]
            moved.append(step)
        return vector

    assert on_workers(shards, params, moving) == in_one_process(sample, params)
    assert len(moved) == 2


@pytest.mark.parametrize("n_shards", [1, 2, 7])
def test_any_number_of_shards_gives_the_same_bytes(sample, files, client, n_shards):
    params = BoostingParameters(n_estimators=2, max_depth=3, max_bin=16)
    assert on_workers(DaskShards(client, files, n_shards), params) == in_one_process(sample, params)


@pytest.mark.parametrize("more", [{"structure": "local"}, {"histogram_layout": "packed", "warm_start": "first"}])
def test_a_banks_training_over_shards_ends_with_the_same_model(sample, files, client, tmp_path, more):
    def trained(name, params, shards, warm=b""):
        folder = tmp_path / name
        folder.mkdir()
        params = BoostingParameters(n_estimators=3, max_depth=3, max_bin=16, **params)
        consortium = PlainConsortium(PlainSums(["one"]), "one")
        given = TrainingInput(rows=sample, feature_names=NAMES, grids=GRIDS, params=params, warm=warm, shards=shards)
        return train_model(given, consortium, folder, lambda _: None).model_json

    first = trained("first", {}, None)
    if "warm_start" in more:
        more = more | {"warm_start": hashlib.sha256(first).hexdigest()}
    warm = first if "warm_start" in more else b""
    shards = DaskShards(client, files, 3)
    assert trained("shards", more, shards, warm) == trained("whole", more, None, warm) != first
    shards.close()


def test_counts_of_parts_add_up(sample):
    whole = bin_counts(sample.columns, sample.labels, GRIDS, weights=sample.weights)
    parts = [
        bin_counts(sample.columns[a:b], sample.labels[a:b], GRIDS, weights=sample.weights[a:b])
        for a, b in ((0, 5), (5, 5), (5, 2001))
    ]
    assert np.array_equal(sum(parts), whole)


def test_workers_free_what_they_held_when_shards_are_closed(sample, files, client):
    params = BoostingParameters(n_estimators=1, max_depth=2, max_bin=16)
    cuts = agreed_bins(bin_counts(sample.columns, sample.labels, GRIDS), GRIDS, 16, alone)
    shards = DaskShards(client, files, 3)
    shards.store(cuts, params).start(np.float32(0.5), [])
    assert sum(client.run(_held).values()) == 3
    shards.close()
    assert sum(client.run(_held).values()) == 0


def test_nothing_listens_on_other_addresses_than_loopback_and_without_tls(client):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    spoken = [client.scheduler_info()["address"], *workers, *(worker["nanny"] for worker in workers.values())]
    assert len(workers) == 3
    assert all(address.startswith("tls://127.0.0.1:") for address in spoken)


def test_a_cluster_of_the_bank_is_reached_by_tls_with_its_certificates_only(sample, files, client, tmp_path):
    address, security = client.scheduler.address, client.security
    paths = {}
    for name, text in (
        ("ca", security.tls_ca_file),
        ("certificate", security.tls_client_cert),
        ("key", security.tls_client_key),
    ):
        paths[name] = tmp_path / f"{name}.pem"
        paths[name].write_text(text)
        paths[name].chmod(0o600)
    params = BoostingParameters(n_estimators=2, max_depth=3, max_bin=16)
    with open_shards(ShardsConfig(scheduler=address, **paths), files) as shards:
        assert shards.n_shards == 3
        assert on_workers(shards, params) == in_one_process(sample, params)
    stranger = Security.temporary()
    for name, text in (("certificate", stranger.tls_client_cert), ("key", stranger.tls_client_key)):
        paths[name].write_text(text)
    with (
        pytest.raises(ConfigError, match="can't be reached"),
        open_shards(ShardsConfig(scheduler=address, **paths), files),
    ):
        pass


def test_wrong_rows_are_refused_by_name(sample, client, tmp_path):
    wrong = sample.labels.copy()
    wrong[7] = 2
    bad = write_rows(tmp_path / "bad", [BankRows(columns=sample.columns, labels=wrong)], 6)
    with pytest.raises(RowError, match="1 of 667 labels are not 0 or 1"):
        DaskShards(client, bad, 3).bin_counts(GRIDS, NAMES, NUMERIC)
    bad.remove()
    with pytest.raises(RowError, match="gone or incomplete"):
        DaskShards(client, bad, 3).bin_counts(GRIDS, NAMES, NUMERIC)


def _held() -> int:
    from bank_node.boosting import dask_rows

    return len(dask_rows._states)


def test_rows_come_back_from_their_files_and_nobody_else_may_read_them(sample, files):
    part = files.part(3, 900)
    for name in ("columns", "labels", "weights", "keys"):
        assert np.array_equal(getattr(part, name), getattr(sample, name)[3:900], equal_nan=name == "columns")
    assert {path.stat().st_mode & 0o777 for path in files.folder.iterdir()} == {0o600}
    assert files.folder.stat().st_mode & 0o777 == 0o700
    assert files.part(5, 5).columns.shape == (0, 6)


def test_pieces_must_fit_one_another(sample, tmp_path: Path):
    whole = BankRows(columns=sample.columns, labels=sample.labels)
    with pytest.raises(RowError, match="a piece of rows"):
        write_rows(tmp_path / "a", [whole, sample], 6)
    with pytest.raises(RowError, match="a piece of rows"):
        write_rows(tmp_path / "b", [whole], 5)
    assert write_rows(tmp_path / "c", [], 6).part().labels.size == 0
