"""The command line in one process: words, options, layers, exit codes.

What could go wrong: an option counts only before or only after the word; a secret is shown by --help or --version; a
coded error escapes as a traceback or gets the wrong exit code; an audit that finds something ends with 0.
"""

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import click
import pytest

from agent import __version__, cli
from agent.clock import Clock
from agent.dev.server_process import free_port
from agent.errors import ConfigError
from agent.logs import LOGGER
from agent.overview import look as overview_look
from agent.source_errors import DatabaseAway
from storage.envelope import Change, Draft
from storage.errors import CodedError, OutboxError, OutboxLocked
from storage.outbox import FILE_NAME, Outbox


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    db_config = {"host": "127.0.0.1", "port": free_port(), "user": "u", "password": "hunter2"}
    backend = f"http://127.0.0.1:{free_port()}"
    told = {"collector_id": 1, "api_key": "k", "backend_url": backend, "db_type": "mysql", "db_config": db_config}
    path.write_text(json.dumps(told))
    path.chmod(0o600)
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


def test_once_names_the_databases_whose_collecting_is_paused_and_those_that_are_away(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(config.read_text())
    pair = {key: told.pop(key) for key in ("db_type", "db_config")}
    told["databases"] = [{"name": name, **pair} for name in ("orders", "billing", "stock")]
    config.write_text(json.dumps(told))
    with closing(Outbox(config.parent / "data")) as outbox:
        outbox.commit(Change(notes={"paused/billing": "1"}))
    code, out, err = said("once", "--config", config, monkeypatch=monkeypatch, capsys=capsys)
    sentence = "Collecting of billing is paused by a `stop` of the backend; its `start` ends that."
    assert (code, out.splitlines()[1]) == (1, sentence)
    assert [line.split("]")[0] for line in err.splitlines()] == ["orders: [DB-01", "stock: [DB-01", "[BE-01"]


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


# -- audit -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def data_dir(config: Path) -> Path:
    """Beside the configuration; 3 records wait."""
    with closing(Outbox(config.parent / "data")) as outbox:
        outbox.commit(Change((Draft("queries", 3, b"body"),)))
    return config.parent / "data"


def break_in(data_dir: Path, statement: str) -> None:
    with closing(sqlite3.connect(data_dir / FILE_NAME, isolation_level=None)) as sql:
        assert sql.execute(statement).rowcount == 1


def test_an_audit_of_what_is_fine_exits_0_with_or_without_a_configuration(
    config: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = (
        "queries: captured 3 = delivered 0 + pending 3 + parked 0 + discarded 0 + lost 0\ngaps: 0\nIt balances.\n"
    )
    monkeypatch.chdir(data_dir)  # where there is no configuration
    for words in (["audit", data_dir], ["audit", "--config", config], ["--config", config, "audit"]):
        assert said(*words, monkeypatch=monkeypatch, capsys=capsys) == (0, expected, "")


def test_an_audit_without_a_directory_needs_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said("audit", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, err.startswith("[CF-02] ")) == (2, "", True)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM envelope",
        "UPDATE tally SET captured = captured - 1",
        "UPDATE tally SET captured = captured + 1, lost = lost + 1",
        "UPDATE tally SET guard = x'00'",
        "INSERT INTO gap (source, reason, detail, created_at) VALUES ('default', 'rotated', 'nobody wrote this', 0)",
    ],
)
def test_an_audit_that_finds_something_exits_1_and_says_what(
    data_dir: Path, statement: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_in(data_dir, statement)
    code, out, err = said("audit", data_dir, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out.splitlines()[-1], err) == (1, "It does not balance.", "")
    assert "WRONG: " in out
    code, out, err = said("audit", "--json", data_dir, monkeypatch=monkeypatch, capsys=capsys)
    told = json.loads(out)
    assert (code, told["balances"], err) == (1, False, "")
    assert told["unnamed"] or told["damaged_gaps"] or told["accounts"]["queries"]["complaints"]


def test_an_audit_as_json_is_one_object(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said("audit", data_dir, "--json", monkeypatch=monkeypatch, capsys=capsys)
    told = json.loads(out)
    assert (code, out.count("\n"), sorted(told)) == (
        0,
        1,
        ["accounts", "balances", "damaged_gaps", "gaps", "losses", "unnamed"],
    )
    assert (told["balances"], told["accounts"]["queries"]["pending"]) == (True, 3)


def test_an_audit_beside_an_outbox_that_is_open_balances(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Outbox(data_dir)) as outbox:
        outbox.commit(Change((Draft("queries", 2, b"more"),)))
        code, out, _ = said("audit", data_dir, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out.startswith("queries: captured 5 = delivered 0 + pending 5 ")) == (0, True)


# -- status ----------------------------------------------------------------------------------------------------------


def test_the_status_of_an_agent_that_does_not_run_exits_1_with_or_without_a_configuration(
    config: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data_dir)  # where there is no configuration
    for words in (["status", data_dir], ["status", "--config", config], ["--config", config, "status"]):
        code, out, err = said(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert (code, err) == (1, "")
        shown = dict(line.split("  ", 1) for line in out.splitlines())
        assert shown["agent"].strip() == "does not run; this is what its outbox says"
        assert shown["outbox"].strip().startswith("3 records wait")


def test_a_status_as_json_is_one_object(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said("status", data_dir, "--json", monkeypatch=monkeypatch, capsys=capsys)
    told = json.loads(out)
    assert (code, out.count("\n"), told["pid"], told["outbox_records"]) == (1, 1, None, 3)
    assert {"gaps", "gaps_by_reason", "gaps_newest", "gaps_estimate"} <= told.keys()


def test_a_status_that_is_watched_is_shown_again_until_ctrl_c(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[object] = []

    def look(*_: object) -> object:
        if len(shown) == 3:
            raise click.Abort  # what click makes of Ctrl-C
        shown.append(overview_look(data_dir, Clock()))
        return shown[-1]

    monkeypatch.setattr("agent.overview.look", look)
    monkeypatch.setattr(cli, "WATCH_S", 0.0)
    code, out, _ = said("status", data_dir, "--watch", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out.count("does not run")) == (130, 3)


def test_who_is_asked_whether_an_agent_lives_says_one_line_and_needs_no_outbox(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["status", "--alive", tmp_path / "nowhere"], ["--config", config, "status", "--alive"]):
        code, out, err = said(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert (code, out.startswith("No agent answers in "), out.count("\n"), err) == (1, True, 1, "")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("other", ["--json", "--watch"])
def test_whether_an_agent_lives_is_asked_alone(
    data_dir: Path, other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said("status", "--alive", other, data_dir, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, "--alive goes with neither" in err) == (2, "", True)


def test_an_audit_of_what_is_no_outbox_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE_NAME).write_text("Dear diary")
    code, out, err = said("audit", tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, err.startswith("[OB-01] ")) == (2, "", True)
    assert (tmp_path / FILE_NAME).read_text() == "Dear diary"


def test_an_audit_of_nothing_at_all_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said("audit", tmp_path, monkeypatch=monkeypatch, capsys=capsys) == (0, "gaps: 0\nIt balances.\n", "")
    assert list(tmp_path.iterdir()) == []
