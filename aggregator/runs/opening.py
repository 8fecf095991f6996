"""What the node looks at when a run is opened: whether banks can read its plan, and what is odd. It keeps no runs.

The node has no list of members: the CA's is kept off it. It knows which banks have joined runs, and with which data
contract, so that a misspelt bank or an old fingerprint is told as a warning in the run's history, and never refused.
"""

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from aggregator.runs.run import Run
from protocol.documents import did_you_mean
from protocol.messages import WARNING, RunSettings
from protocol.run_plan import announced_plan

__all__ = ["EarlierRun", "first_words", "new_run", "oddities"]


class EarlierRun(Protocol):
    """What is looked at of a run."""

    settings: RunSettings
    created_at: float
    joined: list[str]


def new_run(settings: RunSettings, now: float) -> Run:
    """A run that nobody has been told of yet.

    Args:
        settings: the operator's.
        now: Unix seconds.

    Raises:
        PlanError: no bank could read its plan; the text is the one that a bank would say.
    """
    announced_plan(settings)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return Run(run_id=f"run-{stamp}-{secrets.token_hex(3)}", settings=settings, created_at=now)


def first_words(settings: RunSettings, earlier: Iterable[EarlierRun]) -> list[str]:
    """The first lines of a run's history: that it is opened, and what an operator should look at."""
    opened = f"opened for {len(settings.roster)} banks, {settings.rounds} rounds"
    return [opened, *(f"{WARNING}{text}" for text in oddities(settings, earlier))]


def oddities(settings: RunSettings, earlier: Iterable[EarlierRun]) -> list[str]:
    """What an operator may have got wrong, by the runs that banks have joined before."""
    last = _last_contracts(earlier)
    if not last:
        return []
    found = [
        f"bank {bank} has never joined a run of this node{did_you_mean(bank, last)}"
        for bank in settings.roster
        if bank not in last
    ]
    wanted = settings.contract_fingerprint
    others = sorted(bank for bank in settings.roster if last.get(bank, wanted) != wanted)
    if others and wanted not in last.values():
        found.append(f"no bank has joined a run of data contract {wanted[:12]} before")
    return found + [
        f"bank {bank} last joined with data contract {last[bank][:12]}, not {wanted[:12]}" for bank in others
    ]


def _last_contracts(earlier: Iterable[EarlierRun]) -> Mapping[str, str]:
    """Each bank that has joined a run, and the contract of the last one."""
    ordered = sorted(earlier, key=lambda run: run.created_at)
    return {bank: run.settings.contract_fingerprint for run in ordered for bank in run.joined}
