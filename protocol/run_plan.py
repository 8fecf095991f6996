"""What a run is to do: the plan that banks read, and the operator's request. It opens no run and reads no file.

One schema for all: the operator's command and DAG build a `RunRequest`, the simulator a `RunPlan`, the node and every
bank read the announced one by `announced_plan`. Whoever finds a fault says it in the same words.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator, model_validator

from protocol.documents import did_you_mean
from protocol.errors import ParameterError, PlanError, ProtocolViolation
from protocol.halving import check_rungs, total_trees
from protocol.limits import MAX_DETAIL_CHARS, MAX_ROUNDS
from protocol.messages import RunSettings
from protocol.parameters import MAX_TREES, BoostingParameters
from protocol.starting_parameters import starting_parameters

__all__ = ["MAX_RUNGS", "MAX_SETS", "RunPlan", "RunRequest", "TuningPlan", "announced_plan", "starting_for"]


_NUMBER = re.compile(r"\s*[-+]?[0-9.]+\s*\Z")

#: More sets than this are no longer a question of hours.
MAX_SETS = 64

#: Each rung halves the sets, so that six of 64 leave one; more only show how scores grow.
MAX_RUNGS = 16

#: What the bins depend on, which all sets share; how they are judged; and what search does instead.
_COMMON = ("max_bin", "categorical_features", "eval_metric", "structure", "warm_start")


class TuningPlan(BaseModel):
    """A search among parameter sets by successive halving: at each rung the worse half is dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: tuple[dict[str, Any], ...] = Field(
        min_length=2, max_length=MAX_SETS, description="parameters in which a set differs from the run's params"
    )
    rungs: tuple[Annotated[StrictInt, Field(ge=1, le=MAX_TREES)], ...] = Field(
        min_length=1, max_length=MAX_RUNGS, description="trees at which sets are judged, increasing"
    )

    @field_validator("rungs")
    @classmethod
    def _increasing(cls, rungs: tuple[int, ...]) -> tuple[int, ...]:
        check_rungs(rungs)
        return rungs

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "TuningPlan":
        """Read what somebody wrote.

        Raises:
            PlanError: a key is missing, unknown or wrong; names it.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise _told(error, cls, "tuning") from error

    def parameters(self, params: BoostingParameters) -> tuple[BoostingParameters, ...]:
        """The sets' whole parameters; ``n_estimators`` is the last rung.

        Raises:
            PlanError: a set has a bad parameter, or one that all must have in common; names both.
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
                raise PlanError(f"tuning, set {number}: {error}") from error
        if params.early_stopping_rounds or params.warm_start:
            raise PlanError("tuning stops by rungs and begins anew: leave out early_stopping_rounds and warm_start")
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
    alert_budget: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of rows an analyst can look at, by which this run's models are judged; null: the "
        "contract's, by which banks make alerts in any case",
    )

    @field_validator("train_until", "validate_from", "data_until", mode="before")
    @classmethod
    def _dated(cls, value: Any) -> Any:
        # A number would be read as seconds since 1970: 20260301 as a day of that year.
        if value is None or isinstance(value, dt.date) or (isinstance(value, str) and not _NUMBER.match(value)):
            return value
        raise ValueError("must be a date such as 2026-03-01")

    @model_validator(mode="after")
    def _ordered(self) -> "RunPlan":
        begin, end = self.validate_from, self.train_until
        if begin is not None and end is not None and _utc(begin) >= _utc(end):
            raise ValueError("validate_from must be before train_until")
        return self

    def budget(self, of_contract: float) -> float:
        """The share of rows by which this run's models are judged: the plan's, else the contract's.

        Args:
            of_contract: the contract's ``alert_budget``. Alerts are made by that one alone: they belong to no run.
        """
        return of_contract if self.alert_budget is None else self.alert_budget

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

    @property
    def rounds(self) -> int:
        """Boosting rounds of the run: trees, of all sets together where it searches."""
        if self.tuning is None:
            return self.boosting.n_estimators
        return total_trees(len(self.tuning.sets), self.tuning.rungs)

    def check(self) -> None:
        """Check what the keys' own types and ranges do not say: the training parameters, and how long it takes.

        Raises:
            PlanError: names the parameter, and in a search the set.
        """
        _ = self.parameter_sets
        if self.rounds > MAX_ROUNDS:
            raise PlanError(f"a run may grow {MAX_ROUNDS} trees in all, this search grows {self.rounds}")

    def check_judges(self) -> None:
        """Check that where something judges trees, there are rows to judge by: those after ``validate_from``.

        Raises:
            PlanError: says what needs them.
        """
        if (self.boosting.early_stopping_rounds or self.tuning) and self.validate_from is None:
            what = "searches among parameters (tuning)" if self.tuning else "stops early (early_stopping_rounds)"
            raise PlanError(
                f"the run {what}, but its plan names no validate_from: there are no rows to judge by; ask the operator "
                "for a run with one"
            )

    def check_features(self, names: Sequence[str]) -> None:
        """Check that the parameters name only features there are.

        Raises:
            PlanError: names the parameter, and in a search the set.
        """
        for number, params in enumerate(self.parameter_sets, start=1):
            try:
                params.check_features(names)
            except ParameterError as error:
                where = "" if self.tuning is None else f"tuning, set {number}: "
                raise PlanError(f"{where}{error}") from error

    def to_json(self) -> str:
        """Canonical JSON, for the run's settings."""
        fields = {name: value for name, value in self.model_dump(mode="json").items() if name in RunPlan.model_fields}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """Parse and `check` what a run announces.

        Raises:
            PlanError: an unknown key or a wrong value; names the key.
        """
        try:
            plan = RunPlan.model_validate_json(text)
        except ValidationError as error:
            raise _told(error, RunPlan) from error
        plan.check()
        return plan


class RunRequest(RunPlan):
    """What an operator writes to open a run: the plan, whom it invites, and how long it waits for them."""

    params: dict[str, Any] = Field(
        default_factory=starting_parameters,
        description="training parameters by XGBoost's names; none given: those that suit rare frauds "
        "(docs/boosting.md), with early stopping where there is a validate_from",
    )
    title: str = Field("consortium run", max_length=MAX_DETAIL_CHARS, description="what lists call the run")
    roster: tuple[str, ...] = Field(min_length=1, description="ids of the banks that are invited")
    contract_fingerprint: str = Field(
        description="of the data contract that all banks use; `bank-node contract` prints it"
    )
    enrol_seconds: int = Field(3600, description="how long the banks may take to join")
    step_seconds: int = Field(600, description="a bank that does not answer a secure sum for so long is dropped")
    pause_seconds: int = Field(
        3600, description="how long a run waits when fewer than the minimum answer, before it ends"
    )
    minimum_roster: int = Field(
        3, description="start, and go on, with at least so many banks; with 2, each can compute the other's sums"
    )

    @field_validator("roster", mode="before")
    @classmethod
    def _listed(cls, roster: Any) -> Any:
        if not isinstance(roster, list | tuple):
            raise ValueError("must be a list of banks")
        return roster

    @classmethod
    def of(cls, *documents: Mapping[str, Any]) -> "RunRequest":
        """Read and check what the operator wrote; keys of a later document replace those of an earlier one.

        Raises:
            PlanError: a key is missing, unknown or wrong; names it.
        """
        merged: dict[str, Any] = {}
        for document in documents:
            if not isinstance(document, Mapping):
                raise PlanError("the run's plan: must be a mapping of keys to values")
            merged |= document
        merged.setdefault("params", starting_for(merged))
        try:
            request = cls.model_validate(merged)
        except ValidationError as error:
            raise _told(error, cls) from error
        request.check()
        request.check_judges()
        _ = request.settings
        return request

    @property
    def settings(self) -> RunSettings:
        """What is announced to the banks.

        Raises:
            PlanError: roster, fingerprint or a deadline is none that a run can have.
        """
        try:
            return RunSettings(
                title=self.title,
                roster=self.roster,
                contract_fingerprint=self.contract_fingerprint,
                parameters_json=self.to_json(),
                rounds=self.rounds,
                enrol_seconds=self.enrol_seconds,
                step_seconds=self.step_seconds,
                pause_seconds=self.pause_seconds,
                minimum_roster=self.minimum_roster,
            )
        except ProtocolViolation as error:
            raise PlanError(f"the run's plan: {error}") from error


def starting_for(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a request that gives none, by what else it asks for."""
    return starting_parameters(
        validated=asked.get("validate_from") is not None, searched=asked.get("tuning") is not None
    )


def announced_plan(settings: RunSettings) -> RunPlan:
    """The plan in what a run announces, checked.

    Raises:
        PlanError: it is none, or is not of as many rounds as the run says.
    """
    plan = RunPlan.from_json(settings.parameters_json)
    if plan.rounds != settings.rounds:
        raise PlanError(f"the run's plan: it makes {plan.rounds} boosting rounds, the run announces {settings.rounds}")
    return plan


#: Faults that pydantic words otherwise for JSON than for what YAML holds.
_WORDS = {
    "missing": "is missing",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
}


def _told(error: ValidationError, model: type[BaseModel], what: str = "the run's plan") -> PlanError:
    """Each fault in a sentence that names its key; never a value."""
    sentences = []
    for fault in error.errors(include_input=False, include_url=False):
        place = [str(part)[:64] for part in fault["loc"]]
        message = _WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
        if fault["type"] == "extra_forbidden":
            known = model.model_fields if len(place) == 1 else TuningPlan.model_fields
            message = f"unknown key{did_you_mean(place[-1], known)}"
        sentences.append(": ".join(filter(None, (".".join(place), message))))
    return PlanError(f"{what}: {'; '.join(sentences[:10])}")


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
