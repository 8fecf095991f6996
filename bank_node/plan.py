"""What an operator announces for a run beyond the protocol's own fields, as JSON; checked before joining."""

import datetime as dt
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bank_node.boosting.parameters import BoostingParameters
from protocol.errors import LocalError

__all__ = ["RunPlan"]


class RunPlan(BaseModel):
    """Training parameters by XGBoost's names, the dates that split a bank's rows, and what rows weigh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any] = Field(default_factory=dict)
    train_until: dt.datetime | None = Field(
        None, description="train on rows before it, evaluate on rows after it plus the label delay; null: no test rows"
    )
    validate_from: dt.datetime | None = Field(
        None,
        description="train on rows before it; rows after it plus the label delay, up to train_until, are not trained "
        "on but judge after each tree when to stop; null: none",
    )
    weight_column: str = Field(
        "",
        max_length=64,
        description="what rows weigh in training: a feature of the contract, or a column of each bank's row_weights; "
        "empty: each weighs 1",
    )
    data_until: dt.date | None = Field(
        None, description="banks should have payments up to about this day; null: their freshness is not judged"
    )
    alert_budget: float = Field(0.005, gt=0, le=1, description="share of rows an analyst can look at")

    @model_validator(mode="after")
    def _ordered(self) -> "RunPlan":
        begin, end = self.validate_from, self.train_until
        if begin is not None and end is not None and _utc(begin) >= _utc(end):
            raise ValueError("validate_from must be before train_until")
        return self

    @property
    def boosting(self) -> BoostingParameters:
        """The parsed training parameters."""
        return BoostingParameters.from_mapping(self.params)

    def to_json(self) -> str:
        """Canonical JSON, for the run's settings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """Parse what a run announces.

        Raises:
            LocalError: an unknown key or a wrong value; names the key.
        """
        try:
            plan = cls.model_validate_json(text)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            raise LocalError(f"the run's parameters: {wrong}") from error
        plan.boosting  # noqa: B018  refuses unknown training parameters before we join
        return plan


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
