"""A bank's rows of one run, put on disk block by block and mapped from there. It trains nothing and sends nothing.

The bank's whole table of features is never in memory: a block of days is read, split by the run's dates, written, and
let go. What is mapped from the files may be larger than memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bank_node.boosting.row_files import BankRows, RowFiles, RowWriter
from bank_node.config import BankConfig
from bank_node.dataset.feature_tables import feature_blocks
from bank_node.dataset.splits import arrays_of, check_split, split_block, weigher
from bank_node.files import storage_full
from features import DataContract
from protocol.errors import LocalError
from protocol.run_plan import RunPlan

__all__ = ["HeldRows", "held_rows"]

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldRows:
    """Rows of a run, in files.

    Attributes:
        training: rows to train on, with weights and sampling keys where the run needs them.
        times: datetime64[us] (n,), when each of them happened; in order.
        validation: rows that judge after each tree; None where the plan names none.
        test: rows to evaluate on.
    """

    training: RowFiles
    times: Times
    validation: RowFiles | None
    test: RowFiles

    @property
    def judging(self) -> BankRows | None:
        """The validation rows, mapped."""
        return None if self.validation is None else self.validation.part()


@contextmanager
def held_rows(
    config: BankConfig, own: DataContract, contract: DataContract, plan: RunPlan, run_id: str
) -> Iterator[HeldRows]:
    """The bank's labelled rows of a run in files, as long as the block lasts.

    Args:
        config: the bank's.
        own: the contract that the bank's features were made by.
        contract: the run's.
        plan: the run's.
        run_id: names the folder.

    Raises:
        LocalError: no labelled row is left to train on, or a column of weights is missing.
        ConfigError: the bank's table of weights can't be used.
    """
    folder = config.rows_dir / run_id
    parts: dict[str, RowWriter] = {}
    try:
        try:
            held = _write(config, own, contract, plan, folder, parts)
        except OSError as error:
            if storage_full(error):
                raise
            raise LocalError(
                f"bank {config.bank_id}: the run's rows can't be written to {folder}: {error.strerror}; they need room "
                "on disk, and a folder of this bank's own (work_dir, or shards.folder)"
            ) from error
        check_split(config, plan, held.training.n_rows)
        yield held
    finally:
        for writer in parts.values():
            writer.finish().remove()
        _remove_empty(folder)


def _write(
    config: BankConfig,
    own: DataContract,
    contract: DataContract,
    plan: RunPlan,
    folder: Path,
    parts: dict[str, RowWriter],
) -> HeldRows:
    """Writes the rows; `parts` gets each writer as soon as it is there, for whoever must remove what it wrote."""
    for name in ("training", "validation", "test"):
        parts[name] = RowWriter(folder / name, len(contract.feature_names))
    times: list[Times] = [np.empty(0, dtype="datetime64[us]")]
    weigh = weigher(config, contract, plan.weight_column)
    for table in feature_blocks(config, own):
        split = split_block(own, table, plan)
        parts["training"].append(arrays_of(contract, split.training, weigh(split.training), sampled=plan.sampled))
        times.append(split.training["event_time"].to_numpy("datetime64[us]"))
        if split.validation is not None:
            parts["validation"].append(arrays_of(contract, split.validation))
        parts["test"].append(arrays_of(contract, split.test))
    files = {name: writer.finish() for name, writer in parts.items()}
    return HeldRows(
        training=files["training"],
        times=np.concatenate(times),
        validation=None if plan.validate_from is None else files["validation"],
        test=files["test"],
    )


def _remove_empty(folder: Path) -> None:
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
