"""Which versions the agent must work with at least, and which it runs with here, as lines that pip reads.

`python -m scripts.lowest`: the lower bounds of pyproject.toml as `name==version`; with `--installed` what is installed
of them and of all that they need.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from scripts.sbom import bill_of_materials

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(pyproject: Path) -> list[str]:
    """The lower bound of every package that the agent needs to run. Raises ValueError for one without a bound."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [_lowest(Requirement(each)) for each in project["dependencies"]]


def installed(pyproject: Path) -> list[str]:
    """What is installed of these, and of what they need."""
    return [f"{each['name']}=={each['version']}" for each in bill_of_materials(pyproject, 0)["components"]]


def _lowest(requirement: Requirement) -> str:
    bounds = [each.version for each in requirement.specifier if each.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} names no lower bound, or several")
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}=={bounds[0]}{marker}"


if __name__ == "__main__":
    print("\n".join((installed if "--installed" in sys.argv[1:] else lowest)(PYPROJECT)))
