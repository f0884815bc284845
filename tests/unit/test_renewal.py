"""Whether a configuration that was read again is taken over.

What could go wrong: half of a wrong one is taken over, or its first complaint hides the others; a secret is told with
what has changed; one that says the same costs a reload; what a command has changed meanwhile counts as a change of the
file, or is forgotten; state is left behind in another directory.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from agent.config import remote
from agent.config.layers import load
from agent.renewal import Renewed, newest, renewed
from tests.fakes.manual import config_tree

SECRET = "hunter2-is-secret"


class Bench:
    """A configuration file, and what an agent has made of it at its start."""

    def __init__(self, directory: Path, **tree: Any) -> None:
        self.path = directory / "config.json"
        self.environment: dict[str, str] = {}
        self.says(**tree)
        self.now = Renewed(*self.read())

    def says(self, **tree: Any) -> None:
        self.path.write_text(json.dumps(config_tree(**tree)))

    def read(self) -> Any:
        return load(self.path, self.environment, {})

    def ask(self) -> Renewed | None:
        return renewed(self.read, self.now)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dbpower")


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(getattr(line, "event", ""), line.levelname) for line in caplog.records]


def test_another_one_is_taken_over_and_told_by_its_keys_without_a_value(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.says(heartbeat_interval=7, api_key=SECRET, log={"level": "DEBUG"}, db_config={"password": SECRET})
    found = bench.ask()
    assert found is not None
    assert (found.config.heartbeat_interval, found.config.log.level) == (7, "DEBUG")
    assert found.config.watches[0].db_config.password.get_secret_value() == SECRET
    assert events(caplog) == [("config.changed", "INFO")]
    assert set(caplog.records[0].fields["keys"]) == {"api_key", "db_config", "heartbeat_interval", "log"}  # type: ignore[attr-defined]
    assert SECRET not in caplog.text


def test_one_that_says_the_same_in_other_lines_changes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.path.write_text(json.dumps(json.loads(bench.path.read_text()), indent=4))
    assert bench.ask() is None
    assert events(caplog) == [("config.unchanged", "INFO")]


def test_a_wrong_one_is_refused_whole_with_every_complaint_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.says(heartbeat_interval=0, collection_interval=7, colection_interval=3, api_key=f" {SECRET}")
    assert bench.ask() is None
    assert events(caplog) == [("config.refused", "WARNING")]
    (told,) = caplog.messages
    wrong = ["[CF-01]", "heartbeat_interval: should be", "colection_interval: unknown key", "api_key: should be"]
    assert [each for each in wrong if each not in told] == []
    assert SECRET not in told


@pytest.mark.parametrize(("text", "code"), [(None, "CF-02"), ("", "CF-03"), ("{", "CF-03"), ("[]", "CF-03")])
def test_a_file_that_is_away_or_half_written_is_refused(
    bench: Bench, text: str | None, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.path.unlink()
    if text is not None:
        bench.path.write_text(text)
    assert bench.ask() is None
    assert events(caplog) == [("config.refused", "WARNING")]
    assert caplog.records[0].fields["code"] == code  # type: ignore[attr-defined]


def test_another_data_dir_is_refused_with_everything_beside_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.says(heartbeat_interval=7, data_dir="elsewhere")
    assert bench.ask() is None
    assert "data_dir: is another one now; restart the agent for that" in caplog.text


def test_a_secret_in_a_file_is_read_again(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("old\n")
    bench.environment["DBPOWER_API_KEY_FILE"] = str(secret)
    bench.now = Renewed(*bench.read())
    assert bench.ask() is None
    secret.write_text("new\n")
    found = bench.ask()
    assert found is not None
    assert found.config.api_key.get_secret_value() == "new"


def accept(bench: Bench, **changes: object) -> None:
    """As a command of the backend does: kept on the disk, and in force."""
    layers = bench.now.layers
    layers.data_dir.mkdir(exist_ok=True)
    remote.save(layers.data_dir, layers.file, changes)
    bench.now = Renewed(layers.build(changes), layers)


def test_what_a_command_has_changed_is_no_change_of_the_file(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    accept(bench, collection_interval=60)
    assert bench.ask() is None
    assert events(caplog) == [("config.unchanged", "INFO")]
    bench.says(heartbeat_interval=7)
    found = bench.ask()
    assert found is not None
    assert (found.config.collection_interval, found.config.heartbeat_interval) == (60, 7)


def test_what_commands_have_changed_ends_with_the_file_that_remembers_it(bench: Bench) -> None:
    accept(bench, collection_interval=60)
    (bench.now.layers.data_dir / remote.FILE_NAME).unlink()
    found = bench.ask()
    assert found is not None
    assert found.config.collection_interval == 300


def test_a_file_that_now_says_what_a_command_had_changed_counts_from_now_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    accept(bench, collection_interval=60)
    bench.says(collection_interval=60)
    found = bench.ask()
    assert found is not None  # with the old layers the next change of a command would be forgotten at a restart
    assert found.config == bench.now.config
    assert "only the way in which it is written" in caplog.text


# -- what is gone on with when the threads have ended ----------------------------------------------------------------


def test_a_change_that_came_by_command_while_the_threads_ended_is_not_forgotten(bench: Bench) -> None:
    bench.says(heartbeat_interval=7)
    found = bench.ask()
    assert found is not None
    accept(bench, collection_interval=60)
    went_on = newest(bench.read, found)
    assert (went_on.config.collection_interval, went_on.config.heartbeat_interval) == (60, 7)


@pytest.mark.parametrize("tree", [{"heartbeat_interval": 0}, {"data_dir": "elsewhere"}])
def test_a_file_that_was_spoilt_meanwhile_does_not_spoil_what_was_taken_over(
    bench: Bench, tree: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    bench.says(heartbeat_interval=7)
    found = bench.ask()
    assert found is not None
    bench.says(**tree)
    assert newest(bench.read, found) is found
