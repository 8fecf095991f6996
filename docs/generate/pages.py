"""Which pages and blocks are made by which generator; writes them, or says which are stale. `figures` has the rest."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.generate import commands, errors, keys, metrics, rooms, samples, state_diagram, wire
from docs.generate.markdown import put_block, read_block, table

__all__ = ["BLOCKS", "PAGES", "ROOT", "renewed", "stale", "write"]

ROOT = Path(__file__).resolve().parents[2]

_MADE = "<!-- made by `make docs` from the code; edits are overwritten -->\n"
_NOTE = "made by `make docs`"


def _bank() -> str:
    from bank_node.config import AggregatorAddress, BankConfig, ShardsConfig
    from features.sources.engines import BankTable

    models = {
        "The file": BankConfig,
        "aggregator": AggregatorAddress,
        "A table or view": BankTable,
        "shards": ShardsConfig,
    }
    return keys.sections(models)


def _mapping() -> str:
    from features.contract import mapping

    models = {
        "The file": mapping.Mapping,
        "A column": mapping.ColumnMapping,
        "currency": mapping.CurrencyMapping,
        "csv": mapping.CsvFormat,
        "labels": mapping.LabelMapping,
    }
    return keys.sections(models)


def _aggregator() -> str:
    from aggregator.config import AggregatorConfig

    return keys.sections({"The file": AggregatorConfig})


def _operator() -> str:
    from aggregator.config import OperatorConfig
    from protocol.parameters import BoostingParameters
    from protocol.run_plan import RunRequest, TuningPlan

    models = {"aggregator": OperatorConfig, "run": RunRequest, "tuning": TuningPlan, "params": BoostingParameters}
    return keys.sections(models)


def _contract() -> str:
    from features.contract import grid, schema
    from features.contract import sections as parts

    models = {
        "The file": schema.DataContract,
        "label": schema.LabelSpec,
        "A column": schema.ColumnSpec,
        "A feature": schema.FeatureSpec,
        "A linear grid": grid.LinearGrid,
        "A log grid": grid.LogGrid,
        "A grid of values": grid.ValuesGrid,
        "quality": parts.QualitySpec,
        "shared_risk": parts.SharedRiskSpec,
        "A kind of counterparty": parts.EntityKind,
    }
    return keys.sections(models)


#: File in docs/reference -> title, what it is in a sentence, and what makes the rest.
PAGES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "bank.md": (
        "bank.yaml",
        "A bank's configuration: what `--config` names for `bank-node`, and what lies in `CROSSBANK_BANKS_DIR`. "
        "Relative paths are taken from the file's folder; unknown keys are refused. Samples: "
        "[docs/samples](../samples/README.md).",
        _bank,
    ),
    "mapping.md": (
        "mapping.yaml",
        "How a bank's own columns become the contract's; `mapping` in [bank.yaml](bank.md) names it. Unknown keys are "
        "refused. Samples: [docs/samples](../samples/README.md).",
        _mapping,
    ),
    "aggregator.md": (
        "aggregator.yaml",
        "The node's configuration: `aggregator serve --config`. Relative paths are taken from the file's folder; "
        "unknown keys are refused. Sample: [aggregator.yaml](../samples/aggregator.yaml).",
        _aggregator,
    ),
    "operator.md": (
        "operator.yaml",
        "How the operator's commands and the DAG `consortium_run` reach the node (`aggregator`), and what a run is "
        "(`run`). Sample: [operator.yaml](../samples/operator.yaml).",
        _operator,
    ),
    "contract.md": (
        "The data contract",
        "What the banks agree a payments table and its features are. The packaged one is "
        "[payments_v1.yaml](../../features/contract/packaged/payments_v1.yaml); `features contract show` tells it. "
        "Unknown keys are refused. An excerpt: [contract_excerpt.yaml](../samples/contract_excerpt.yaml).",
        _contract,
    ),
    "commands.md": ("Commands", "Every command and option. `COMMAND --help` says the same.", commands.reference),
    "errors.md": (
        "Errors",
        "Every error that is raised on purpose. A message names file, column, bank, run or step, never a value of the "
        "data. Who calls whom, and where the evidence lies: [runbook](../runbook.md).",
        errors.reference,
    ),
    "metrics.md": (
        "Metrics",
        "What `evaluation.json`, the run's page and reports call a figure. The consortium's are a secure sum of score "
        "histograms, exact but for rows that share one of its 4096 cells; a bank's own are exact.",
        metrics.reference,
    ),
}


def _index() -> str:
    rows = [(f"[{title}]({name})", what) for name, (title, what, _) in PAGES.items() if name != "README.md"]
    return table(("page", "what"), rows)


PAGES["README.md"] = ("Reference", "Made from the code by `make docs`.", _index)

#: Page of docs/ and block in it -> what makes it.
BLOCKS: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/architecture.md", "rooms"): rooms.tables,
    ("docs/protocol.md", "state diagram"): state_diagram.diagram,
    ("docs/protocol.md", "statuses"): wire.statuses,
    ("docs/protocol.md", "caps"): wire.caps,
    ("docs/protocol.md", "calls and messages"): wire.messages,
    **{(page, name): partial(samples.shown, name) for page, name in samples.SHOWN},
}


def page(name: str) -> str:
    """The whole text of a page of docs/reference."""
    title, what, make = PAGES[name]
    return f"{_MADE}\n# {title}\n\n{what}\n\n{make()}"


def renewed() -> dict[Path, str]:
    """Every file that has something generated, with its text as it should be.

    Raises:
        ValueError: a page lacks its block.
        LookupError: code lacks a description.
    """
    texts = {ROOT / "docs" / "reference" / name: page(name) for name in PAGES}
    texts |= {samples.FOLDER / name: samples.renewed(name) for name in samples.FINGERPRINTED}
    for (place, name), make in BLOCKS.items():
        path = ROOT / place
        texts[path] = put_block(texts.get(path) or path.read_text(), "generated", name, make(), _NOTE)
    return texts


def stale() -> list[str]:
    """Files that are not as the code would have them, and pages that nothing makes any longer."""
    texts = renewed()
    wrong = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    wrong += [path for path in (ROOT / "docs" / "reference").glob("*") if path not in texts]
    return sorted(str(path.relative_to(ROOT)) for path in wrong)


def write() -> list[str]:
    """Write what is stale; names it."""
    wrong = stale()
    for path, text in renewed().items():
        if str(path.relative_to(ROOT)) in wrong:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return wrong


def block(place: str, name: str) -> str:
    """What is in a block of a page."""
    return read_block((ROOT / place).read_text(), "generated", name)[1]
