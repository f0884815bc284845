"""Turns what is wrong with a configuration into sentences with a path. Never shows a value: it may be a secret."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def sentences(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One sentence for each complaint: `db_config.prot: unknown key; did you mean port?`"""
    lines = (_sentence(detail, schema) for detail in error.errors(include_url=False, include_context=False))
    return list(dict.fromkeys(lines))


def section(schema: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel] | None:
    """The model that describes the object at `path`; None when there is no such object."""
    for name in path:
        field = schema.model_fields.get(name)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        schema = annotation
    return schema


def _sentence(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    path = _known_path(tuple(str(part) for part in detail["loc"]), schema)
    place = ".".join(path) or "the whole file"
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest(path, schema)}"
    if detail["type"] == "missing":
        return f"{place}: is required and missing"
    if detail["type"] == "model_type":
        return f"{place}: should be an object"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _known_path(loc: tuple[str, ...], schema: type[BaseModel]) -> tuple[str, ...]:
    # For a union pydantic appends the name of each alternative; the person knows only the keys of the file.
    for length in range(1, len(loc)):
        parent = section(schema, loc[: length - 1])
        if parent is not None and loc[length - 1] in parent.model_fields and section(schema, loc[:length]) is None:
            return loc[:length]
    return loc


def _nearest(path: tuple[str, ...], schema: type[BaseModel]) -> str:
    parent = section(schema, path[:-1])
    names = list(parent.model_fields) if parent else []
    near = get_close_matches(path[-1], names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"
