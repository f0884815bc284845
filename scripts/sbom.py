"""The bill of materials of the agent: every package that it needs to run, with version and licence, as CycloneDX 1.6.

Taken from what is installed in the environment in which it is asked for: these are the versions that were tested.
"""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agent import __version__

SCHEMA, VERSION = "http://cyclonedx.org/schema/bom-1.6.schema.json", "1.6"
# What packages wrote before there were licence expressions, by the words that are unmistakable.
_SPDX = {
    "MIT": "MIT",
    "MIT License": "MIT",
    "Apache-2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MPL-2.0": "MPL-2.0",
    "ZPL 2.1": "ZPL-2.1",
}
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST_NAME = 100  # some packages have the whole text where its name belongs

Json = dict[str, Any]


def bill_of_materials(pyproject: Path, epoch_s: int) -> Json:
    """The document; `epoch_s`: its time, in Unix seconds. The same packages give the same document.

    Raises importlib.metadata.PackageNotFoundError when one of them is not installed here.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found = _closure(project["dependencies"])
    root = _ref(project["name"], __version__)
    needs = {root: sorted(_names(project["dependencies"])), **{_of(name): needs for name, needs in found.items()}}
    parts = [_component(name) for name in sorted(found)]
    bill: Json = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": project["name"],
                "version": __version__,
                "licenses": [{"license": {"name": "DBPower, proprietary"}}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": ref, "dependsOn": [_of(each) for each in names]} for ref, names in needs.items()],
    }
    return {**bill, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, repr(bill))}"}


def _closure(requirements: Iterable[str]) -> dict[str, list[str]]:
    """What these need and what that needs, to the end: the names of each one's own needs, by its name."""
    found: dict[str, list[str]] = {}
    asked: dict[str, set[str]] = {}  # every extra with which somebody needs it
    waiting = list(_needed(requirements, ()))
    while waiting:
        name, extras = waiting.pop()
        if name in found and asked[name].issuperset(extras):
            continue
        asked.setdefault(name, set()).update(extras)
        needed = list(_needed(metadata.requires(name) or (), asked[name]))
        found[name] = sorted({each for each, _ in needed})
        waiting += needed
    return found


def _needed(requirements: Iterable[str], extras: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for each in map(Requirement, requirements):
        environments = [{"extra": extra} for extra in (*extras, "")]
        if each.marker is None or any(each.marker.evaluate(environment) for environment in environments):
            yield canonicalize_name(each.name), tuple(sorted(each.extras))


def _names(requirements: Iterable[str]) -> set[str]:
    return {name for name, _ in _needed(requirements, ())}


def _component(name: str) -> Json:
    version = metadata.version(name)
    return {
        "type": "library",
        "bom-ref": _of(name),
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": _licences(name),
    }


def _licences(name: str) -> list[Json]:
    said: Json = metadata.metadata(name).json
    if expression := said.get("license_expression"):
        return [{"expression": expression}]
    classifiers = [each.removeprefix(_CLASSIFIER) for each in said.get("classifier", ()) if _CLASSIFIER in each]
    words = said.get("license", "").strip()
    names = [words] if words and len(words) <= _LONGEST_NAME and "\n" not in words else classifiers
    return [{"license": {"id": _SPDX[each]} if each in _SPDX else {"name": each}} for each in names]


def _of(name: str) -> str:
    return _ref(name, metadata.version(name))


def _ref(name: str, version: str) -> str:
    return f"{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
