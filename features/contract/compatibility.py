"""What changed between two contracts, how great a version step that is, and whether a bank can serve an older one.

Versions are semantic. **Patch**: words only. **Minor**: data that kept the old contract keeps the new one, and every
feature of the old one is in the new one unchanged, so a bank with the new contract can take part in a run under the
old one. **Major**: anything else, and whatever this module does not know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from features.contract.schema import DataContract
from features.errors import ContractError

__all__ = ["LEVELS", "Change", "changes", "check_version", "required_level", "serves"]

LEVELS = ("none", "patch", "minor", "major")
"""From no change at all to one that no bank can bridge."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs; ``place`` is a path in the contract, ``level`` one of `LEVELS`."""

    place: str
    level: str
    what: str


def changes(old: DataContract, new: DataContract) -> list[Change]:
    """Everything that differs between two contracts but their versions, in the order of the places."""
    before, after = _places(old), _places(new)
    found = []
    for place in sorted(before.keys() | after.keys()):
        if place not in before:
            found.append(Change(place, _added(place, after), "added"))
        elif place not in after:
            found.append(Change(place, "major", "removed"))
        elif before[place] != after[place]:
            level, what = _changed(place, before[place], after[place])
            found.append(Change(place, level, what))
    common = set(old.feature_names) & set(new.feature_names)
    if [name for name in old.feature_names if name in common] != [name for name in new.feature_names if name in common]:
        found.append(Change("features", "minor", "another order"))
    return found


def required_level(old: DataContract, new: DataContract) -> str:
    """The version step that the changes between two contracts ask for."""
    return max((change.level for change in changes(old, new)), key=LEVELS.index, default="none")


def check_version(old: DataContract, new: DataContract) -> str:
    """The level of the changes, once the new version is found to tell of them.

    Raises:
        ContractError: other names, a version that does not grow, or one that grows by less than the changes ask for.
    """
    needed = required_level(old, new)
    if old.name != new.name:
        raise ContractError(f"Contract {new.name} is no version of contract {old.name}.")
    step = _step(old.version, new.version)
    if step == "back":
        raise ContractError(f"Contract {new.name} goes back from version {old.version} to {new.version}.")
    if LEVELS.index(step) < LEVELS.index(needed):
        raise ContractError(
            f"Contract {new.name}: {_count(old, new, needed)} from {old.version} to {new.version} "
            f"and needs a {needed} step of the version."
        )
    return needed


def serves(own: DataContract, run: DataContract) -> list[Change]:
    """What differs between a bank's contract and a run's older one, once the bank is found able to serve the run.

    Its features are then those of ``run``, by name, from a table made by ``own``. A code that only ``own`` has falls
    into the last cell of its grid.

    Raises:
        ContractError: the run's is newer, or the step between them is a major one.
    """
    if check_version(run, own) == "major" or _step(run.version, own.version) == "major":
        raise ContractError(f"A bank with contract {own.name} {own.version} can't serve version {run.version}.")
    return changes(run, own)


def _places(contract: DataContract) -> dict[str, Any]:
    """The contract as one value for each place; lists of named things by their names."""
    found: dict[str, Any] = {}
    for key, value in contract.model_dump(mode="json").items():
        if key == "version":
            continue
        if key in ("columns", "features"):
            for item in value:
                name = item.pop("name")
                found |= {f"{key}.{name}.{field}": part for field, part in item.items()}
        elif isinstance(value, Mapping):
            found |= {f"{key}.{field}": part for field, part in value.items()}
        else:
            found[key] = value
    return found


_GROWS: Mapping[str, Callable[[Any, Any], bool]] = {
    "at_most": lambda old, new: new is None or (old is not None and new > old),
    "latest": lambda old, new: new is None or (old is not None and new > old),
    "above": lambda old, new: new is None or (old is not None and new < old),
    "earliest": lambda old, new: new is None or (old is not None and new < old),
    "allowed": lambda old, new: new is None or (old is not None and set(new) > set(old)),
}
"""Rules about a column's values that let more through than before."""


def _changed(place: str, old: Any, new: Any) -> tuple[str, str]:
    field = place.rpartition(".")[2]
    if place == "label.description":
        return "major", "the label means something else"
    if field == "description" or (place.startswith("columns.") and field == "unit"):
        return "patch", "other words"
    if place.startswith("quality."):
        return "minor", "another limit; a bank judges itself by its own contract"
    if place == "alert_budget":
        return "minor", "another budget"
    if place.startswith("features.") and field == "grid":
        return "minor", "other cells; a run takes those of its own contract"
    if place.startswith("vocabularies."):
        if list(new)[: len(old)] == list(old):
            return "minor", f"{len(new) - len(old)} codes appended"
        return "major", "codes removed or in another order"
    if place.startswith("columns.") and field in _GROWS and _GROWS[field](old, new):
        return "minor", "a wider range"
    if place.startswith("columns.") and field == "required" and old and not new:
        return "minor", "may now be absent"
    return "major", "changed"


def _added(place: str, after: Mapping[str, Any]) -> str:
    kind, _, rest = place.partition(".")
    if kind in ("features", "vocabularies"):
        return "minor"
    if kind == "columns":
        return "major" if after.get(f"columns.{rest.partition('.')[0]}.required", True) else "minor"
    return "major"


def _step(old: str, new: str) -> str:
    before, after = ([int(part) for part in version.split(".")] for version in (old, new))
    if after < before:
        return "back"
    return next(
        (level for level, a, b in zip(("major", "minor", "patch"), before, after, strict=True) if a != b), "none"
    )


def _count(old: DataContract, new: DataContract, level: str) -> str:
    found = [change.place for change in changes(old, new) if change.level == level]
    return f"{', '.join(found[:3])}{' and more' if len(found) > 3 else ''} changed"
