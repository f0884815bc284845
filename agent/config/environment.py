"""What the environment says about this agent: `DBPOWER_*`, `*_FILE` for mounted secrets, `${NAME}` in the file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel

from agent.config import complaints
from agent.config.places import DATABASES, Path, Tree
from agent.config.schema import NAME, Config, Database
from agent.errors import ConfigMalformed

PREFIX = "DBPOWER_"
MAX_DEPTH = 16  # ours has four levels; what is deeper is a mistake, and recursion ends somewhere
_OF_DATABASES = f"{PREFIX}{DATABASES.upper()}"
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def variables(file: Tree) -> dict[str, list[Path]]:
    """The variables that there are for this file, each with its place; with several, when names are too similar."""
    found = defaultdict[str, list[Path]](list)
    for path in _leaves(Config, ()):
        found[PREFIX + "_".join(path).upper()].append(path)
    for name in _names(file):
        for path in _leaves(Database, ()):
            variable = "_".join((_OF_DATABASES, re.sub(r"\W", "_", name), *path)).upper()
            found[variable].append((DATABASES, name, *path))
    return dict(found)


def said(known: Mapping[str, list[Path]], environ: Mapping[str, str], wrong: list[str]) -> Iterator[tuple[Path, str]]:
    """Place and text of everything that the `known` variables say; `wrong` takes the complaints."""
    for variable, (path, *more) in known.items():
        if variable not in environ and f"{variable}_FILE" not in environ:
            continue
        if more:
            names = ", ".join(each[1] for each in (path, *more))
            wrong.append(f"{variable}: could mean each of {names}; use ${{NAME}} in the file for one of them")
        elif variable in environ:
            yield path, environ[variable]
        else:
            try:
                text = FilePath(environ[f"{variable}_FILE"]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                wrong.append(f"{'.'.join(path)}: the file named by {variable}_FILE cannot be read")
            else:
                yield path, text.rstrip("\r\n")


def misspelt(known: Mapping[str, list[Path]], environ: Mapping[str, str]) -> list[str]:
    """Complaints about variables that are nearly ours; what is far from all of ours is somebody else's."""
    names = {*known, *(f"{name}_FILE" for name in known)}
    found = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in names:
            continue
        near = get_close_matches(variable, sorted(names), n=1, cutoff=0.8)
        if near:
            found.append(f"{variable}: unknown variable; did you mean {near[0]}?")
        elif variable.startswith(_OF_DATABASES):
            found.append(f"{variable}: unknown variable; the file has no such database, or that is none of its keys")
    return found


def filled_in(node: Any, environ: Mapping[str, str], wrong: list[str], path: Path = ()) -> Any:
    """The tree with `${NAME}` in its texts replaced; `wrong` takes the complaints. Raises ConfigMalformed."""
    if len(path) > MAX_DEPTH:
        raise ConfigMalformed(f"objects and lists stand in one another more than {MAX_DEPTH} deep")
    if isinstance(node, dict):
        return {key: filled_in(value, environ, wrong, (*path, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [filled_in(value, environ, wrong, (*path, _step(value, number))) for number, value in enumerate(node)]
    if not isinstance(node, str):
        return node

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:  # $${ is a literal ${
            return "${"
        if name not in environ:
            wrong.append(f"{'.'.join(path)}: the environment has no variable {name}")
        return environ.get(name, "")

    return _PLACEHOLDER.sub(value_of, node)


def literal(text: str) -> str:
    """How the text has to stand in a file, so that it is read as it is."""
    return text.replace("${", "$${")


def _step(entry: Any, number: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and NAME.fullmatch(name) else str(number)


def _names(file: Tree) -> list[str]:
    """The names of the databases in the file, as far as they are names."""
    entries = file.get(DATABASES)
    found = [each.get("name") for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    return list(dict.fromkeys(name for name in found if isinstance(name, str) and NAME.fullmatch(name)))


def _leaves(schema: type[BaseModel], path: Path) -> Iterator[Path]:
    for name in schema.model_fields:
        section = complaints.section(schema, (name,))
        if section is None and (*path, name) != ("name",):  # the name of a database is how the others find it
            yield (*path, name)
        elif section is not None and name != DATABASES:
            yield from _leaves(section, (*path, name))
