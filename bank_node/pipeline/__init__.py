"""What a scheduled task calls: extract, gate, train, evaluate, register, score, purge. Each is safe to call again.

Every function takes the path of the bank's configuration and returns a small JSON-able mapping, typed in `results`.
State is kept in the bank's ``work_dir``, so that a retry, in another process, goes on where the last one stopped.
"""

from bank_node.pipeline.data_steps import extract, purge
from bank_node.pipeline.model_steps import personalise, score
from bank_node.pipeline.run_steps import evaluate, gate, open_run, register, train
from bank_node.pipeline.working import wipe_keys

__all__ = ["evaluate", "extract", "gate", "open_run", "personalise", "purge", "register", "score", "train", "wipe_keys"]
