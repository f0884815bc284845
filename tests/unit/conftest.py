"""What tests of the command line share: a word is said in this process, which is quick and shows where it went."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent import cli

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dbpower_agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """`dbpower_agent("outbox", "ls")` gives the exit code, standard output, and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dbpower-agent", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call
