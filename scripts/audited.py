"""What an answer of pip-audit is worth: `python -m scripts.audited FOUND` reads what it wrote with `--format json`.

It ends with 0 for packages that it could not ask about as well; here these are told apart.
Exit codes: 0 nothing is known of any package, 1 something is, 2 it could not ask about all of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FINE, FOUND, NOT_ASKED = 0, 1, 2


def verdict(found: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    packages = found["dependencies"]
    skipped = [each for each in packages if "skip_reason" in each]
    known = [(each, one) for each in packages for one in each.get("vulns", ())]
    told = [f"{each['name']} {each['version']}: {one['id']}, mended in {_mended(one)}" for each, one in known]
    if skipped or not packages:
        reason = f" ({skipped[0]['skip_reason']})" if skipped else ""
        told.append(f"could not ask about {len(skipped)} of {len(packages)} packages{reason}")
    if not told:
        told.append(f"{len(packages)} packages, no known vulnerabilities")
    return FOUND if known else NOT_ASKED if skipped or not packages else FINE, told


def _mended(vulnerability: dict[str, Any]) -> str:
    return ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"


if __name__ == "__main__":
    code, lines = verdict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\n".join(lines))
    sys.exit(code)
