"""How findings are shown to a person, each as soon as it is made, and to a script."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click
import orjson

from agent.finding import HINT, RIGHT, SKIPPED, WRONG, Finding, Verdict
from storage.plain import plain

SUBJECT_WIDTH = 20
_SIGNS: dict[Verdict, tuple[str, str, str]] = {  # for those who can read them, for the others, and the colour
    RIGHT: ("✓", "ok", "green"),
    WRONG: ("✗", "NO", "red"),
    HINT: ("!", "!", "yellow"),
    SKIPPED: ("-", "-", "white"),
}


def show(lines: Iterable[tuple[str, Finding]], *, as_json: bool) -> bool:
    """Prints all of them; whether nothing was wrong."""
    found = list(lines) if as_json else list(_said(lines))
    is_well = all(finding.verdict != WRONG for _, finding in found)
    if as_json:
        entries = [{"where": where, **finding.as_json()} for where, finding in found]
        click.echo(orjson.dumps({"well": is_well, "findings": entries}))
    return is_well


def _said(lines: Iterable[tuple[str, Finding]]) -> Iterable[tuple[str, Finding]]:
    before = ""
    for where, finding in lines:
        if where != before:
            click.echo(click.style(where, bold=True))
            before = where
        click.echo(_line(finding))
        yield where, finding


def _line(finding: Finding) -> str:
    fine, ascii_only, colour = _SIGNS[finding.verdict]
    sign = click.style(fine if _shows(fine) else ascii_only.ljust(2), fg=colour)
    code = f"[{finding.code}] " if finding.code else ""
    sentence = plain(finding.sentence.rstrip("."))  # a server may have said it
    if finding.remedy:
        sentence += f"{'' if sentence.endswith(('?', '!')) else '.'} {finding.remedy}"
    return f"  {sign} {finding.subject:{SUBJECT_WIDTH}} {code}{sentence}"


def _shows(sign: str) -> bool:
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
