"""What to generate, and where the result is. Plain values: nothing is generated here."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from protocol.errors import ConfigError

__all__ = ["BANK_NAMES", "GeneratedConsortium", "GeneratorSettings", "bank_names"]

BANK_NAMES = ("north_bank", "harbour_bank", "city_bank", "union_bank", "valley_bank", "coast_bank")
"""Names of up to six banks, the largest first; more banks are numbered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """What to generate. Sizes are over all banks together; shares are from 0 to 1.

    Attributes:
        banks: 1 to 100, of unequal size: four banks have 40, 30, 20 and 10 % of the customers.
        customers: accounts, one a customer; at least 20 a bank.
        merchants: at least 50.
        days: from 2026-01-05 on; at least 40.
        seed: of the one random generator.
        fraud_episodes_per_1000_customers: a month (30 days), all types together; an episode is 1 to 8 payments.
        fraud_migration: how far frauds of a type keep to a part of the banks at a time and then move on to others.
            0: every bank has every type at all times; 1: a type hits only a part of the banks at a time.
        campaign_days: how long a type stays before it moves on.
        mules_per_1000_customers: accounts that take stolen money in, each campaign anew, at least two a bank. The fewer
            there are, the more banks' customers pay into each.
        never_reported: share of frauds whose label says 0.
        false_claims: share of honest payments whose label says 1.
        label_delay_days: after so many days a payment that nobody disputed counts as honest.
        labels_as_of: labels that became known after this time (UTC) are left null, as a bank sees its table then.
            None: every label is known.
    """

    banks: int = 4
    customers: int = 2700
    merchants: int = 900
    days: int = 120
    seed: int = 7
    fraud_episodes_per_1000_customers: float = 60.0
    fraud_migration: float = 0.7
    campaign_days: int = 30
    mules_per_1000_customers: int = 20
    never_reported: float = 0.06
    false_claims: float = 0.0003
    label_delay_days: float = 14.0
    labels_as_of: datetime | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.banks <= 100:
            raise ConfigError(f"the generator makes 1 to 100 banks, not {self.banks}")
        least_of = {"customers": 20 * self.banks, "merchants": 50, "days": 40, "campaign_days": 1}
        for name, least in (least_of | {"mules_per_1000_customers": 0}).items():
            if getattr(self, name) < least:
                raise ConfigError(f"the generator's {name} must be at least {least}, and is {getattr(self, name)}")
        for name in ("fraud_migration", "never_reported", "false_claims"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"the generator's {name} must be from 0 to 1, and is {getattr(self, name)}")
        for name in ("fraud_episodes_per_1000_customers", "label_delay_days"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"the generator's {name} must be 0 or more, and is {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedConsortium:
    """Where the banks' tables are.

    Attributes:
        events: path of the payments table of each bank, by bank id.
        truth: path of the table of fraud types (``payment_id``, ``bank``, ``fraud_type``); None where nobody knows.
    """

    events: dict[str, Path]
    truth: Path | None = None


def bank_names(count: int) -> tuple[str, ...]:
    """Ids of ``count`` banks, the largest first."""
    if count <= len(BANK_NAMES):
        return BANK_NAMES[:count]
    width = max(2, len(str(count)))
    return tuple(f"bank_{number:0{width}d}" for number in range(1, count + 1))
