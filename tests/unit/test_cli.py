"""The command line in one process: words, options, layers, exit codes.

What could go wrong: an option counts only before or only after the word; a secret is shown by --help or --version; a
coded error escapes as a traceback or gets the wrong exit code.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import __version__, cli
from agent.dev.server_process import free_port
from agent.errors import ConfigError, DatabaseAway
from agent.logs import LOGGER
from storage.errors import CodedError, OutboxError, OutboxLocked


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """The log goes to the captured standard error, which ends with the test."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    last_resort = logging.lastResort
    yield
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers[:], LOGGER.propagate, logging.lastResort = handlers, propagate, last_resort
    LOGGER.setLevel(level)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": "hunter2"}
    backend = f"http://127.0.0.1:{free_port()}"
    told = {"collector_id": 1, "api_key": "k", "backend_url": backend, "db_type": "mysql", "db_config": db_config}
    path.write_text(json.dumps(told))
    return path


def said(*words: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of one call."""
    monkeypatch.setattr("sys.argv", ["dbpower-agent", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_help_and_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said("--version", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, __version__ in out) == (0, True)
    code, out, _ = said("-h", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, all(word in out for word in ("run", "once", "demo", "--config", "--api-key"))) == (0, True)


@pytest.mark.parametrize("place", ["before", "after", "both"])
def test_options_count_before_and_after_the_word(
    config: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", config, "--log-level", "error", "--collector-id", "0"]
    words = [*options, "once"] if place == "before" else ["once", *options]
    if place == "both":
        words = ["--config", config.parent / "none.json", "--collector-id", "5", *words]
    code, _, err = said(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "collector_id: should be greater than" in err) == (2, True)


def test_once_tells_the_database_and_exits_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said("once", "--config", config, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (1, "collected 0, delivered 0, waiting 0, parked 0\n")
    assert [line[:7] for line in err.splitlines()] == ["[DB-01]", "[BE-01]"]
    assert "hunter2" not in err


def test_a_dry_run_tells_the_database_and_exits_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said("--config", config, "once", "--dry-run", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, err.startswith("[DB-01] ")) == (1, "", True)
    assert not (config.parent / "data").exists()


def test_an_unusable_config_exits_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said("--config", "/nonexistent/c.json", "run", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, err.startswith("[CF-02] "), len(err.splitlines())) == (2, "", True, 1)


@pytest.mark.parametrize("words", [["dance"], ["--dance"], ["once", "--dance"], ["--collector-id", "x"]])
def test_a_usage_error_exits_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "Usage:" in err) == (2, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("x"), 2),
        (OutboxError("x"), 2),
        (OutboxLocked("x"), 3),
        (DatabaseAway("x"), 1),
        (CodedError("x"), 1),
    ],
)
def test_every_family_of_errors_has_its_exit_code(
    error: CodedError, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fails)
    assert said(monkeypatch=monkeypatch, capsys=capsys) == (expected, "", f"{error}\n")


def test_the_log_is_as_the_options_say(
    config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["once", "--config", config, "--log-format", "json", "--log-level", "WARNING"]
    _, _, before = said(*words, monkeypatch=monkeypatch, capsys=capfd)
    LOGGER.handlers[0].flush()
    err = before + capfd.readouterr().err
    entry = next(json.loads(line) for line in err.splitlines() if line.startswith("{"))
    assert (entry["event"], entry["code"], LOGGER.level) == ("collection.wrong", "DB-01", logging.WARNING)
