"""The reference of every key of the files that people write, from their pydantic models. It reads no such file."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate.docstrings import attributes, summary
from docs.generate.markdown import table

__all__ = ["key_names", "sections"]

_PLAIN = {
    "Path": "path",
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "datetime": "time",
    "date": "day",
    "NoneType": "null",
    "Any": "any value",
}


def key_names(model: type[BaseModel]) -> list[str]:
    """The keys as they are written in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def sections(models: Mapping[str, type]) -> str:
    """A heading and a table of keys for each model, in the order given.

    Args:
        models: heading to model; a model that another names as a key's type is linked there.

    Raises:
        LookupError: a key has no description in the code, or a model no docstring; names both.
    """
    places = {model: heading for heading, model in models.items()}
    return "\n".join(f"## {heading}\n\n{summary(model)}\n\n{_keys(model, places)}" for heading, model in models.items())


def _keys(model: type, places: Mapping[type, str]) -> str:
    told = attributes(model)
    rows = []
    for name, kind, rules, default, description in _fields(model):
        meaning = description or told.get(name) or told.get(name.rstrip("_"))
        if not meaning:
            raise LookupError(f"{model.__name__}.{name} has no description: give it one in Field or under Attributes")
        alias = _alias(model, name)
        rows.append((f"`{alias}`", _type(kind, rules, places), default, meaning))
    return table(("key", "type", "default", "meaning"), rows)


def _alias(model: type, name: str) -> str:
    field = model.model_fields.get(name) if issubclass(model, BaseModel) else None
    return (field.alias if field is not None else None) or name


def _fields(model: type) -> list[tuple[str, Any, Sequence[Any], str, str]]:
    """Name, type, rules, default in words, and description of each key of a pydantic model or a dataclass."""
    if issubclass(model, BaseModel):
        return [
            (name, field.annotation, field.metadata, _default(field), field.description or "")
            for name, field in model.model_fields.items()
        ]
    import typing

    hints = typing.get_type_hints(model)
    return [
        (field.name, hints[field.name], (), "required" if field.default is MISSING else _value(field.default), "")
        for field in fields(model)  # type: ignore[arg-type]
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None and field.default is PydanticUndefined:
        made = field.default_factory()  # type: ignore[call-arg]
        return _value(made) if made in ({}, [], ()) else "by machine"
    return _value(field.default)


def _value(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[]`" if not value else f"`{list(value)}`"
    if isinstance(value, dict):
        return "`{}`" if not value else "as named"
    if isinstance(value, str | Path):
        return f"`{value}`" if str(value) not in ("", "\t") else "empty"
    return f"`{value}`"


def _type(kind: Any, rules: Sequence[Any], places: Mapping[type, str]) -> str:
    text = _words(kind, places)
    limits = _limits(rules)
    return f"{text}, {limits}" if limits else text


def _limits(rules: Sequence[Any]) -> str:
    found = []
    for rule in rules:
        match rule:
            case Ge(ge=least):
                found.append(f"{least} or more")
            case Gt(gt=low):
                found.append(f"above {low}")
            case Le(le=most):
                found.append(f"at most {most}")
            case Lt(lt=high):
                found.append(f"below {high}")
            case MinLen(min_length=least) if least > 1:
                found.append(f"at least {least}")
            case MaxLen(max_length=most):
                found.append(f"at most {most} long")
            case FieldInfo():
                found += filter(None, [_limits(rule.metadata)])
            case _ if getattr(rule, "pattern", None):
                found.append(f"like `{rule.pattern}`")
    return ", ".join(found)


def _words(kind: Any, places: Mapping[type, str]) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0], inner[1:], places)
    if origin is Literal:
        return ", ".join(f"`{choice}`" if choice not in ("\t", "", " ") else _blank(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(each, places) for each in inner))
    if origin in (tuple, list, set, frozenset):
        return f"list of {_words(inner[0], places)}" if inner else "list"
    if origin in (dict, Mapping):
        return f"mapping of {_words(inner[0], places)} to {_words(inner[1], places)}"
    if kind in places:
        heading = places[kind]
        return f"[{heading}](#{_anchor(heading)})"
    name = getattr(kind, "__name__", str(kind))
    if name in _PLAIN:
        return _PLAIN[name]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        raise LookupError(f"{name} is a section of its own and has no heading")
    raise LookupError(f"{kind} has no name in words")


def _blank(choice: str) -> str:
    return {"\t": "a tab", "": "empty", " ": "a blank"}[choice]


def _anchor(heading: str) -> str:
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
