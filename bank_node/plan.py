"""What an operator announces for a run beyond the protocol's own fields, as JSON; checked before joining."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bank_node.boosting.errors import ParameterError
from bank_node.boosting.parameters import BoostingParameters
from protocol.errors import LocalError
from protocol.halving import check_rungs

__all__ = ["MAX_SETS", "RunPlan", "TuningPlan"]


#: More sets than this are no longer a question of hours.
MAX_SETS = 64

#: What the bins depend on, which all sets share; how they are judged; and what search does instead.
_COMMON = ("max_bin", "categorical_features", "eval_metric", "structure", "warm_start")


class TuningPlan(BaseModel):
    """A search among parameter sets by successive halving: at each rung the worse half is dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: tuple[dict[str, Any], ...] = Field(
        min_length=2, max_length=MAX_SETS, description="parameters in which a set differs from the run's params"
    )
    rungs: tuple[int, ...] = Field(
        min_length=1, max_length=16, description="trees at which sets are judged, increasing"
    )

    @field_validator("rungs")
    @classmethod
    def _increasing(cls, rungs: tuple[int, ...]) -> tuple[int, ...]:
        check_rungs(rungs)
        return rungs

    def parameters(self, params: BoostingParameters) -> tuple[BoostingParameters, ...]:
        """The sets' whole parameters; ``n_estimators`` is the last rung.

        Raises:
            LocalError: a set has a bad parameter, or one that all must have in common; names both.
        """
        found = []
        for number, given in enumerate(self.sets, start=1):
            try:
                own = BoostingParameters.canonical(given)
                for name in ("n_estimators", "early_stopping_rounds", *_COMMON):
                    if name in own:
                        raise ParameterError(f"{name} can't differ between sets; give it in params")
                whole = params.to_mapping() | own | {"n_estimators": self.rungs[-1]}
                found.append(BoostingParameters.from_mapping(whole))
            except ParameterError as error:
                raise LocalError(f"tuning, set {number}: {error}") from error
        if params.early_stopping_rounds or params.warm_start:
            raise LocalError("tuning stops by rungs and begins anew: leave out early_stopping_rounds and warm_start")
        return tuple(found)


class RunPlan(BaseModel):
    """Training parameters by XGBoost's names, the dates that split a bank's rows, and what rows weigh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any] = Field(default_factory=dict, description="training parameters by XGBoost's names")
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
    tuning: TuningPlan | None = Field(None, description="search among parameter sets in this run; null: train once")
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

    @property
    def parameter_sets(self) -> tuple[BoostingParameters, ...]:
        """All that may be trained by: the search's sets, or the run's one."""
        return (self.boosting,) if self.tuning is None else self.tuning.parameters(self.boosting)

    @property
    def sampled(self) -> bool:
        """Whether rows are sampled, so that they need keys."""
        return any(params.subsample < 1.0 for params in self.parameter_sets)

    def check_features(self, names: Sequence[str]) -> None:
        """Check that the parameters name only features there are.

        Raises:
            LocalError: names the parameter, and in a search the set.
        """
        for number, params in enumerate(self.parameter_sets, start=1):
            try:
                params.check_features(names)
            except ParameterError as error:
                where = "" if self.tuning is None else f"tuning, set {number}: "
                raise LocalError(f"{where}{error}") from error

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
        _ = plan.boosting, plan.parameter_sets  # refuses unknown training parameters before we join
        return plan


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
