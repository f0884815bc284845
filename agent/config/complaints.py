"""Turns what is wrong with a configuration into sentences with a path. Never shows a value: it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agent.config.places import DATABASES, Path
from agent.config.schema import NAME

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOULD_BE = {"model_type": "an object", "tuple_type": "a list"}


def sentences(error: ValidationError, schema: type[BaseModel], tree: Mapping[str, Any]) -> list[str]:
    """One sentence for each complaint about `tree`: `db_config.prot: unknown key; did you mean port?`"""
    lines = (_sentence(detail, schema, tree) for detail in error.errors(include_url=False, include_context=False))
    return list(dict.fromkeys(lines))


def section(schema: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that describes the object at `path`; None when there is no such object.

    A list is described by the model of its entries, and so is each entry, which is found by its number.
    """
    steps = iter(path)
    for name in steps:
        field = schema.model_fields.get(name)
        model = _model_of(field.annotation) if field else None
        if model is None:
            return None
        if field is not None and get_origin(field.annotation) is tuple:
            next(steps, None)
        schema = model
    return schema


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model itself, or the one in `Model | None` or `tuple[Model, ...]`."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _sentence(detail: ErrorDetails, schema: type[BaseModel], tree: Mapping[str, Any]) -> str:
    path = _known_path(tuple(str(part) for part in detail["loc"]), schema)
    place = ".".join(_by_name(path, tree)) or "the whole file"
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest(path, schema)}"
    if detail["type"] == "missing":
        return f"{place}: is required and missing"
    if detail["type"] in _SHOULD_BE:
        return f"{place}: should be {_SHOULD_BE[detail['type']]}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _known_path(loc: tuple[str, ...], schema: type[BaseModel]) -> tuple[str, ...]:
    # For a union pydantic appends the name of each alternative; the person knows only the keys of the file.
    for length in range(1, len(loc)):
        parent = section(schema, loc[: length - 1])
        if parent is not None and loc[length - 1] in parent.model_fields and section(schema, loc[:length]) is None:
            return loc[:length]
    return loc


def _by_name(path: Path, tree: Mapping[str, Any]) -> Path:
    """With the name of a database in place of its number, when it is a name and the only one like it."""
    if path[:1] != (DATABASES,) or len(path) == 1:
        return path
    names = [each.get("name") if isinstance(each, dict) else None for each in tree[DATABASES]]
    name = names[int(path[1])]
    usable = isinstance(name, str) and NAME.fullmatch(name) and names.count(name) == 1
    return (DATABASES, str(name), *path[2:]) if usable else path


def _nearest(path: tuple[str, ...], schema: type[BaseModel]) -> str:
    parent = section(schema, path[:-1])
    names = list(parent.model_fields) if parent else []
    near = get_close_matches(path[-1], names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"
