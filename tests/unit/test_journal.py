"""Entries for systemd's journal, over a real unix datagram socket.

What could go wrong: a value of several lines becomes several fields of somebody else's choice; a name is one that
journald drops, or one of its own; an entry is too large and is lost; the sentence is lost with a field; a standard
error that goes to a file is taken for the journal's; who is away ends the thread that speaks.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.journal import ENTRY_BYTES, FIELD_BYTES, MESSAGE_BYTES, STREAM, Journal, entry, hears
from tests.fakes.journal_socket import JournalSocket, parsed

WAIT_S = 10.0
MESSAGES = {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalSocket]:
    with JournalSocket(tmp_path / "socket") as listening:
        yield listening


def test_an_entry_has_its_sentence_its_event_and_its_fields() -> None:
    told = entry(
        logging.WARNING, "The backend is away", "delivery.wrong", {"code": "BE-01", "times": 3, "seqs": [1, 2]}
    )
    assert parsed(told) == {
        "MESSAGE": "delivery.wrong The backend is away",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "dbpower-agent",
        "DBPOWER_EVENT": "delivery.wrong",
        "DBPOWER_CODE": "BE-01",
        "DBPOWER_TIMES": "3",
        "DBPOWER_SEQS": "[1, 2]",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3"), (logging.CRITICAL, "2")],
)
def test_a_level_is_a_priority(level: int, priority: str) -> None:
    assert parsed(entry(level, "x", "e", {}))["PRIORITY"] == priority


def test_a_value_of_several_lines_stays_one_value() -> None:
    told = parsed(entry(logging.INFO, "first\nPRIORITY=0\nlast", "e", {"detail": "a\n_UID=0\n", "empty": ""}))
    assert told["MESSAGE"] == "e first\nPRIORITY=0\nlast"
    assert (told["PRIORITY"], told["DBPOWER_DETAIL"], told["DBPOWER_EMPTY"]) == ("6", "a\n_UID=0\n", "")
    assert "_UID" not in told


@given(st.text(), st.text(), st.dictionaries(st.text(max_size=80), st.text() | st.integers() | st.none(), max_size=5))
def test_whatever_is_told_is_well_formed_and_sets_no_field_but_ours(
    message: str, event: str, fields: dict[str, object]
) -> None:
    names = {name.upper() for name in fields}
    if len({"".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:50] for name in names}) < len(fields):
        return  # two names that become one are two values of one field: journald takes that
    found = parsed(
        entry(logging.INFO, message, event, {name: value for name, value in fields.items() if name != "event"})
    )
    assert all(name in MESSAGES or name.startswith("DBPOWER_") for name in found)
    assert found["PRIORITY"] == "6"


def test_what_is_too_long_is_cut_at_a_character_and_what_does_not_fit_is_left_out() -> None:
    told = entry(logging.INFO, "ü" * MESSAGE_BYTES, "e", {f"f{number}": "y" * 10_000 for number in range(50)})
    assert len(told) <= ENTRY_BYTES
    found = parsed(told)
    assert found["MESSAGE"].startswith("e ü")
    assert found["MESSAGE"].endswith("ü ...")
    assert MESSAGE_BYTES - 2 <= len(found["MESSAGE"].encode()) <= MESSAGE_BYTES
    assert found["DBPOWER_F0"] == "y" * (FIELD_BYTES - 4) + " ..."
    assert 10 < len(found) < 50


def test_an_entry_of_full_size_fits_into_a_datagram(journal: JournalSocket) -> None:
    told = entry(logging.INFO, "x" * MESSAGE_BYTES, "e", {f"f{number}": "y" * 10_000 for number in range(50)})
    with closing(Journal(journal.address)) as ours:
        assert ours.take(told)
        assert ours.take(entry(logging.INFO, "short", "e", {}))
        assert not ours.take(b"x" * 10_000_000)  # CONTROL: there is a limit
    assert journal.wait_for(lambda heard: len(heard) == 2, WAIT_S)
    assert [len(message) for message in journal.messages()] == [MESSAGE_BYTES, len("e short")]


def test_a_journal_that_is_away_is_told_and_found_again(tmp_path: Path) -> None:
    told = entry(logging.INFO, "x", "e", {})
    with closing(Journal(str(tmp_path / "socket"))) as ours:
        assert not ours.take(told)
        with JournalSocket(tmp_path / "socket") as journal:
            assert ours.take(told)
            assert journal.wait_for(lambda heard: len(heard) == 1, WAIT_S)
        assert not ours.take(told)


def test_the_journal_is_known_by_the_device_and_inode_of_the_descriptor(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "log").open("w") as log:
        found = os.fstat(ours.fileno())
        environment = {STREAM: f"{found.st_dev}:{found.st_ino}"}
        assert hears(ours.fileno(), environment)
        assert not hears(log.fileno(), environment)  # it was redirected since
        assert not hears(ours.fileno(), {})
        for wrong in ("", ":", f"{found.st_dev}", f"{found.st_ino}:{found.st_dev}", "x:y"):
            assert not hears(ours.fileno(), {STREAM: wrong})
    assert not hears(ours.fileno(), environment)
