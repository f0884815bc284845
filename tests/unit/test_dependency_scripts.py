"""scripts/lowest and scripts/audit-dependencies, as far as they decide.

What could go wrong: a bound of pyproject.toml is not the one that is tested; a package without a bound is left out in
silence; packages that nobody was asked about pass for packages without vulnerabilities.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from scripts.audited import FINE, FOUND, NOT_ASKED, verdict
from scripts.lowest import installed, lowest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_each_package_is_tested_in_the_lowest_version_that_pyproject_allows() -> None:
    wanted = [Requirement(each) for each in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]]
    bounds = [Requirement(each) for each in lowest(PYPROJECT)]
    assert [(each.name, str(each.marker)) for each in bounds] == [(each.name, str(each.marker)) for each in wanted]
    assert [str(bound.specifier).replace("==", ">=") for bound in bounds] == [str(each.specifier) for each in wanted]


@pytest.mark.parametrize("dependency", ["click", "click>=8,>=9", "click<9", "click==8.1"])
def test_a_package_without_one_lower_bound_is_told(tmp_path: Path, dependency: str) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(f'[project]\nname = "x"\ndependencies = ["{dependency}"]\n')
    with pytest.raises(ValueError, match="lower bound"):
        lowest(project)


def test_what_is_asked_about_is_all_that_is_installed_of_it() -> None:
    names = {each.split("==")[0] for each in installed(PYPROJECT)}
    assert {"requests", "certifi", "werkzeug", "psycopg2-binary"} <= names


def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", **more}


BAD = package("bad", vulns=[{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}, {"id": "CVE-2", "fix_versions": []}])
GOOD, SKIPPED = package("good", vulns=[]), package("unknown", skip_reason="not found")


def test_nothing_known_of_any_is_fine() -> None:
    assert verdict({"dependencies": [GOOD, GOOD]}) == (FINE, ["2 packages, no known vulnerabilities"])


def test_each_vulnerability_is_told_with_the_version_that_mends_it() -> None:
    code, lines = verdict({"dependencies": [GOOD, BAD, SKIPPED]})
    assert code == FOUND
    assert lines == [
        "bad 1.0: CVE-1, mended in 1.1, 2.0",
        "bad 1.0: CVE-2, mended in no version yet",
        "could not ask about 1 of 3 packages (not found)",
    ]


@pytest.mark.parametrize("packages", [[], [SKIPPED], [GOOD, SKIPPED]])
def test_who_was_not_asked_is_not_fine(packages: list[dict[str, Any]]) -> None:
    code, lines = verdict({"dependencies": packages})
    assert code == NOT_ASKED
    assert lines[0].startswith(f"could not ask about {len([each for each in packages if each is SKIPPED])} of ")
