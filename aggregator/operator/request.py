"""What the operator asks for in a new run: the config's section `run`, files, and options over both. Opens nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.documents import read_mapping
from protocol.errors import ConfigError, ParameterError
from protocol.parameters import BoostingParameters
from protocol.run_plan import RunRequest, starting_for

__all__ = ["run_request"]


def run_request(
    section: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    params: Path | None = None,
    tune: Path | None = None,
    rounds: int | None = None,
) -> RunRequest:
    """Put a request together, and check it.

    Args:
        section: the section ``run`` of the operator's configuration.
        options: keys of `RunRequest` given on the command line; None for those that were not. Each replaces the
            section's.
        params: a YAML file of training parameters, in place of the section's ``params``.
        tune: a YAML file with ``sets`` and ``rungs``, in place of the section's ``tuning``.
        rounds: trees, in place of the parameters' ``n_estimators``; the other parameters stay.

    Raises:
        ConfigError: a file can't be read, or options contradict each other.
        PlanError: a key is missing, unknown or wrong; names it.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if params is not None:
        given["params"] = _parameters(params)
    if tune is not None:
        given["tuning"] = read_mapping(tune, "search")
    asked = {**section, **given}
    if rounds is not None:
        if asked.get("tuning") is not None:
            raise ConfigError("--rounds does not go with a search, whose last rung says how many trees the model has")
        own = asked.get("params", starting_for(asked))
        if isinstance(own, Mapping):
            asked["params"] = BoostingParameters.canonical(own) | {"n_estimators": rounds}
    return RunRequest.of(asked)


def _parameters(path: Path) -> dict[str, Any]:
    found = read_mapping(path, "parameters")
    try:
        BoostingParameters.from_mapping(found)
    except ParameterError as error:
        raise ParameterError(f"parameters {path}: {error}") from error
    return found
