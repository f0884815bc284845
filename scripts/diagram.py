"""Draws the state machine of `agent.machine` into CONTRIBUTING.md. `--check` only tells whether it is drawn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that `python scripts/diagram.py` finds the package

from agent.machine import IDLE, PAUSED, STATES, TRANSITIONS  # noqa: E402

BEGIN, END = "<!-- diagram:begin -->", "<!-- diagram:end -->"
PAGE = ROOT / "CONTRIBUTING.md"
_CONDITIONS = {"collect_wanted": "collect was asked for", "pause_wanted": "the pause flag is set"}


def mermaid() -> str:
    """The table as a mermaid diagram, between fences."""
    return "\n".join(["```mermaid", "stateDiagram-v2", *_lines(), "```"])


def drawn_into(text: str) -> str:
    """`text` with the diagram between its two markers. Raises ValueError when they are not there, once and in order."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE.name} should hold {BEGIN} and, after it, {END}, each once")
    return f"{head}{BEGIN}\n{mermaid()}\n{END}{tail}"


def _lines() -> Iterator[str]:
    yield f"    [*] --> {IDLE}"
    yield f"    [*] --> {PAUSED}: paused before the restart"
    for state in STATES:
        for row in TRANSITIONS:
            sources = row["source"] if isinstance(row["source"], list) else [row["source"]]
            if state in sources:
                condition = row.get("conditions")
                when = f" ({_CONDITIONS[str(condition)]})" if condition else ""
                yield f"    {state} --> {row['dest']}: {row['trigger']}{when}"


def main() -> int:
    """Exit code: 0 drawn, 1 the page shows another table or cannot be drawn into."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only look")
    only_look = parser.parse_args().check
    try:
        text = PAGE.read_text(encoding="utf-8")
        drawn = drawn_into(text)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if only_look:
        if drawn != text:
            print(
                f"{PAGE.name} shows another table than agent/machine.py; run: python scripts/diagram.py",
                file=sys.stderr,
            )
        return int(drawn != text)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
