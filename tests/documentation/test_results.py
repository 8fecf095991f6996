"""How results of the demo and the benchmarks are shown: figures, ratios, goals, and what is missing."""

import subprocess
from typing import Any

import pytest

from docs.generate import results
from docs.generate.figures import FIGURES, ROOT
from docs.generate.markdown import read_block
from simulator.harness.measuring import provenance

TRAINING: dict[str, Any] = {
    "banks": 4,
    "rows_per_bank": 250_000,
    "features": 40,
    "trees": 100,
    "seconds": {
        "pooled XGBoost": [9.0, 10.0, 12.0],
        "plain federated": [9.5, 9.0, 9.9],
        "secure federated, exact": [30.0, 40.0, 35.0],
    },
    "ratio_to_pooled": {"pooled XGBoost": 1.0, "plain federated": 0.95, "secure federated, exact": 3.5},
    "bytes_per_bank_and_tree": {"secure federated, exact": 1_910_000.0},
    "peak_bytes_of_a_bank": {"secure federated, exact": 340e6},
    "checking_share": {"secure federated, exact": 0.041},
    "binned_bytes_of_a_bank": 10_000_000,
}


def test_a_training_s_table_has_medians_ratios_and_goals() -> None:
    text = results.training_large(TRAINING)
    assert "4 banks × 250,000 rows × 40 features × 64 bins, 100 trees, depth 6; medians of 3 pairs" in text
    assert "| pooled XGBoost | 10.00 | 1.00 |  |  |  |  |" in text
    assert "| plain federated | 9.50 | 0.95 | 1: reached |  |  |  |" in text
    assert "| secure federated, exact | 35.00 | 3.50 | 1.5: not reached | 1.91 MB | 340 MB | 4.1% |" in text
    assert "| secure federated, exact | 35.00 | 3.50 | 5: reached |" in results.training(TRAINING)


def test_layouts_say_the_first_tree_that_differs() -> None:
    one = {"data": "generated", "seed": 31, "rows": 160_000, "frauds": 9, "wide": 0.5, "packed": 0.5, "same": 60}
    other = one | {"seed": 32, "rows": 166_000, "wide": 0.513, "packed": 0.512935, "same": 5}
    text = results.layouts({"trees": 60, "figures": [one, other]})
    row = text.splitlines()[-1]
    assert row == "| generated (160,000 to 166,000 training rows) | 31 to 32 | 0.500 to 0.513 | +0, -65 | none, 6 |"


def test_a_peer_that_failed_says_so_and_ratios_are_to_pooled() -> None:
    result = {
        "settings": {"sites": 3, "rows": 50_000, "features": 20, "trees": 30, "depth": 6, "bins": 64, "eta": 0.3},
        "results": {
            "pooled": {"training_seconds": 0.5, "job_seconds": 0.6, "auc_pr": 0.3, "bytes_per_site": 0},
            "packed": {"training_seconds": 4.0, "job_seconds": 6.0, "auc_pr": 0.35, "bytes_per_site": 18_800_000},
            "fedtree-he": {"failed": "not done after 1800 s"},
        },
    }
    ratios = results.peers_ratios(result)
    assert "| Crossbank, secure, packed | 8 × | yes |" in ratios and "pooled XGBoost 3.2" not in ratios
    assert "| FedTree 1.0.5, Paillier | not done after 1800 s | yes |" in ratios
    assert "| Crossbank, secure, packed | 4.00 | 8.0 | 6.0 | 0.3500 | 18.8 MB |" in results.peers(result)


def test_benefits_are_means_over_the_seeds() -> None:
    rows = [
        {"data": "generated", "features": "with", "seed": 41, "auc_pr": 0.5, "recall": 0.4, "recall_targeted": None},
        {"data": "generated", "features": "with", "seed": 42, "auc_pr": 0.6, "recall": 0.5, "recall_targeted": None},
    ]
    assert results.shared_benefit({"figures": rows}).splitlines()[-1] == (
        "| generated; means of seeds 41 to 42 | with | 0.550 | 0.450 |  |"
    )


def test_the_demo_s_text_is_shown_as_it_was_printed() -> None:
    text = results.demo({"text": "┏━┓\n┃a┃\n\n", "seconds": 181.4})
    assert text == "```\n┏━┓\n┃a┃\n```\n\nThis run took 3 min 1 s after set-up."


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_every_block_is_on_its_page_and_its_command_exists(figure: Any) -> None:
    assert read_block((ROOT / figure.page).read_text(), "figures", figure.name)[1]
    if figure.command.startswith("make "):
        assert f"\n{figure.command.split()[1]}: " in (ROOT / "Makefile").read_text()


def test_a_result_says_when_on_what_and_from_which_commit_it_is() -> None:
    found = provenance()
    assert len(found["day"].split("-")) == 3 and found["cores"] >= 1
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert head.stdout.startswith(found["commit"].rstrip("+"))
    else:
        assert found["commit"] == "unknown"


def test_a_soak_tells_lost_runs_memory_and_what_calls_ended_with() -> None:
    held = {"memory": 150_000_000, "threads": 21, "files": 24}
    one = {"phase": "RELEASED", "seconds": 5.0, "held": held}
    last = one | {"seconds": 9.0, "held": held | {"memory": 219_000_000, "threads": 82}}
    calls = {"flood: OK": 2312, "flood: RESOURCE_EXHAUSTED": 8788, "idle: held": 24}
    result = {"seconds": 1560.0, "runs": [one, one, last], "lost": 1, "certificates": 3, "calls": calls}
    text = results.soak(result)
    assert "| time | 26 min |" in text and "| honest runs, lost | 3, 1 |" in text
    assert "| 150, 150, 219 MB |" in text and "| 82, 24 |" in text and "| 5.0, 9.0 |" in text
    assert "| its calls, flood | 8,788 RESOURCE_EXHAUSTED, 2,312 OK |" in text
