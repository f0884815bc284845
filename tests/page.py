"""A page of our documentation, taken apart as its reader sees it: chapters, tables, blocks. Judges nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a reader makes for himself while following the pages.
MADE_BY_READER = {"config.json", "collector.log", "secrets", ".venv"}
_LOOKS_LIKE_OURS = re.compile(r"^[\w.-]+(/[\w.-]+)*$")


class Page:
    """`text`: all of it; `prose`: without the fenced blocks."""

    def __init__(self, name: str) -> None:
        self.name, self.text = name, (ROOT / name).read_text(encoding="utf-8")
        self.prose = re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    def chapter(self, heading: str) -> str:
        """What stands below that heading, to the next of its rank or a higher one."""
        level = heading.split(maxsplit=1)[0]
        _, _, rest = self.text.partition(f"\n{heading}\n")
        assert rest, f"there is no {heading!r}"
        # A fenced block may hold lines that look like headings.
        parts = re.split(r"(^```.*?^```$)", rest, flags=re.MULTILINE | re.DOTALL)
        found = ""
        for part in parts:
            if part.startswith("```"):
                found += part
                continue
            before, *behind = re.split(rf"^#{{1,{len(level)}}} ", part, maxsplit=1, flags=re.MULTILINE)
            found += before
            if behind:
                break
        return found

    def anchors(self) -> set[str]:
        """Where links into this page may lead."""
        headings = re.findall(r"^#+ (.*)$", self.prose, flags=re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def links(self) -> list[str]:
        """The targets of all links."""
        return re.findall(r"\]\(([^)]+)\)", self.prose)

    def commands(self) -> list[str]:
        """Every command of the bash blocks, continued lines joined, comments left out."""
        text = "\n".join(blocks("bash", self.text)).replace("\\\n", " ")
        commands: list[str] = []
        for line in text.splitlines():
            if commands and commands[-1].count("'") % 2 == 1:
                commands[-1] += f"\n{line}"
            elif line.strip() and not line.startswith("#"):
                commands.append(line)
        return commands

    def words(self) -> list[str]:
        """Every word of its commands."""
        return [word for line in self.commands() for word in shlex.split(re.split(r" #", line)[0])]

    def named_files(self) -> set[str]:
        """What its commands name of this repository."""
        tops = {path.name for path in ROOT.iterdir()}
        return {
            word
            for word in self.words()
            if _LOOKS_LIKE_OURS.match(word)
            if word.split("/")[0] in tops or re.search(r"\.(json|txt|yml|service)$", word)
        }


def blocks(language: str, part: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)


def table(first_column: str, part: str) -> list[list[str]]:
    """The rows of the table whose head begins with that word."""
    found = re.search(rf"^\| {re.escape(first_column)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", part, flags=re.MULTILINE)
    assert found, f"there is no table {first_column!r}"
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in found[1].splitlines()]


def ticked(cell: str) -> str:
    """What stands between its ticks."""
    return cell.strip("| `")


def options_in(text: str) -> set[str]:
    """The options that are named there."""
    return set(re.findall(r"(?<![\w/-])(--?[a-z][a-z-]*)(?!\w)", text.replace("python -m", "python")))


def parsed_curl(line: str) -> tuple[str, str, dict[str, str], str | None]:
    """Method, path, headers and body of a call as curl would make it."""
    words = iter(shlex.split(line)[1:])
    method, path, headers, data = "GET", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words)
        else:
            path = re.sub(r"^http://[^/]+", "", word)
    return method, path, headers, data
