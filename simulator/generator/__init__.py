"""Payments of several banks with frauds, some of which show only across banks. No model is trained by `generate`.

Everything follows from the settings. What is modelled, what is not, and what pooling brings is in docs/generator.md.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from simulator.generator.cards import card_payments
from simulator.generator.frauds import frauds
from simulator.generator.payments import FRAUD_TYPES, joined
from simulator.generator.population import populate
from simulator.generator.settings import BANK_NAMES, GeneratedConsortium, GeneratorSettings, bank_names
from simulator.generator.tables import write_tables
from simulator.generator.transfers import transfers

__all__ = ["BANK_NAMES", "FRAUD_TYPES", "GeneratedConsortium", "GeneratorSettings", "bank_names", "generate"]


def generate(
    settings: GeneratorSettings, out_dir: Path, on_progress: Callable[[str], None] | None = None
) -> GeneratedConsortium:
    """Write ``out_dir/<bank>/events.parquet`` for every bank, and ``out_dir/truth.parquet`` with each fraud's type.

    A bank's table has the columns of the payments contract: an out row for each payment of its customers, an in row
    for each transfer that they receive. The type of a fraud is in ``truth.parquet`` (``payment_id``, ``bank``,
    ``fraud_type``) only, which no bank has; it lists every fraud, the never reported ones too.

    Args:
        settings: what to make.
        out_dir: the folder; made if missing. Files of the same names are replaced.
        on_progress: told in a few words what is being made.

    Returns:
        The tables' paths. The same settings give the same bytes with the same versions of numpy and pyarrow.
    """
    say = on_progress or (lambda _: None)
    rng = np.random.default_rng(settings.seed)
    say(f"{settings.customers} customers of {settings.banks} banks")
    world = populate(settings, rng)
    say("payments of daily life")
    cards = card_payments(world, rng)
    parts = [cards, transfers(world, rng)]
    say("frauds")
    parts.append(frauds(world, rng, cards))
    say("tables of each bank")
    return write_tables(world, rng, joined(parts), out_dir)
