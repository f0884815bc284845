"""Whatever a database says: rows of any bytes, bytes that are no protocol, bookmarks that somebody has altered. A look
ends with records or with one of our errors, and the next honest look works.

What could go wrong: an error that nobody expects ends the thread of the watch, and does so again at each look; a value
that no backend can store leaves (then every body with it is refused, for ever); a bookmark of nonsense is stored.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from agent.config.schema import DbConfig
from agent.record import MAX_INTEGER, to_wire
from agent.source_errors import AnswerSenseless, BookmarkUnreadable, SourceError
from agent.sources import SourceSettings, _slow_log_place, _statement_bookmark
from agent.sources._mysql_session import Row, Session
from agent.sources._postgres_session import Session as PostgresSession
from agent.sources._slow_log_place import LIVE, Place
from agent.sources._slow_log_rows import seconds
from agent.sources.mysql_slow_log import SlowLogTable
from agent.sources.pg_stat_statements import StatementStatistics
from tests.fakes.endless_mysql import EOF, ROW, column, row
from tests.fakes.rogue_mysql import OK, RogueMysql, Talk
from tests.fakes.slow_log import FakeServer, FakeSession, TurnedClock

# -- rows of a slow log ------------------------------------------------------------------------------------------------

_TIMES = st.sampled_from(
    [
        *(
            b"00:00:01.5",
            b"838:59:59.999999",
            b"-00:00:01",
            b"nan:0:0",
            b"0:0:nan",
            b"0:0:inf",
            b"1e9:0:0",
            b"0:0:-1e300",
        ),
        *(b"", b":::", b"00:00", b"999999999999:00:00", b"0:0:1_0", "٣:٣:٣".encode(), b"0x1:0:0", b"00:00:01.5 "),
    ]
)
_STAMPS = st.sampled_from(
    [
        *(b"2026-01-31 12:00:00.000000", b"0000-00-00 00:00:00", b"9999-12-31 23:59:59.999999", b"0001-01-01", b"now"),
        *(b"2026-01-31T12:00:00+14:00", b"99999-01-01", b"", "\uff12-01-31".encode()),
    ]
)
_INTEGERS = st.sampled_from(
    [b"0", b"-1", b"4294967296", b"9" * 400, b"9" * 5_000, b"1.5", b"", b"x", b"1_0", b" 7 ", b"\xff"]
)
_BYTES = st.none() | st.binary(max_size=12)
_WHOLE = st.sampled_from([None, b"5 " + b"a" * 64, b"5", b"", b" ", b"x y z", b"5 \xff"])
_COLUMNS: tuple[st.SearchStrategy[bytes | None], ...] = (
    _STAMPS | _BYTES,
    *(_BYTES, _TIMES | _BYTES, _TIMES | _BYTES, _INTEGERS | _BYTES, _INTEGERS | _BYTES, _BYTES, _BYTES),
    st.none()
    | st.binary(max_size=30)
    | st.sampled_from([b"SELECT \x1b[2J\x00", b"'" * 50, b"\xf0\x9f\x98", b"\xed\xa0\x80"]),
    _WHOLE,
)
_ROWS = st.tuples(*_COLUMNS) | st.lists(_BYTES, max_size=12).map(tuple)


class Said(FakeServer):
    """Counters and clock as somebody says them. `answers`: by a part of the statement, in place of the honest ones."""

    def __init__(self, clock: TurnedClock) -> None:
        super().__init__(clock)
        self.answers: dict[str, list[Row]] = {}
        self.honest: dict[str, list[Row]] = {
            "Threads_connected": [(b"Threads_connected", b"2")],
            "max_connections": [(b"100",)],
        }

    def answer(self, sql: str) -> list[Row]:
        for part, rows in (self.honest | self.answers).items():
            if part in sql:
                return rows
        return super().answer(sql)


def slow_log(server: FakeServer, clock: TurnedClock) -> SlowLogTable:
    db = DbConfig(host="h", user="u", max_sql_text_bytes=1_024)

    def connect(_: SourceSettings) -> Session:
        return FakeSession(server)

    return SlowLogTable(SourceSettings("default", db, 3306), clock, connect, connect)


def look(source: SlowLogTable | StatementStatistics, bookmark: bytes | None) -> tuple[list[bytes], bytes | None, str]:
    """What would leave, the last bookmark, and which error it was, if any."""
    left = list[bytes]()
    try:
        source.check()
        source.strain()
        with closing(source.read(bookmark)) as readings:
            for reading in readings:
                left += map(to_wire, reading.records)
                bookmark = reading.bookmark
    except SourceError as error:
        return left, bookmark, error.code
    return left, bookmark, ""


def demand_storable(left: list[bytes]) -> None:
    """What the backend's database can hold: one value that it cannot makes it refuse the whole body."""
    for body in left:
        told = orjson.loads(body)
        numbers = [told["query_time"], told["lock_time"]]
        assert all(isinstance(each, int | float) and abs(each) < 1e12 for each in numbers), told
        assert all(abs(told[name]) <= MAX_INTEGER for name in ("rows_sent", "rows_examined"))
        assert ("\x00" in told["sql_text"], told["sql_text"] == "") == (False, False)
        assert max(len(told["db"]), len(told["user_host"])) <= 255


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(_ROWS, min_size=1, max_size=4), bookmarked=st.booleans())
@example([(*ROW[:2], b"0:0:nan", *ROW[3:])], False)
@example([(*ROW[:4], b"9" * 5_000, *ROW[5:])], False)
def test_any_row_becomes_a_record_or_one_of_our_errors_and_the_next_honest_look_works(
    rows: list[Row], bookmarked: bool
) -> None:
    clock = TurnedClock()
    server, bookmark = Said(clock), None
    source = slow_log(server, clock)
    if bookmarked:
        server.append(1)
        _, bookmark, code = look(source, None)
        assert code == ""
    server.tables[LIVE] = [*server.log, *rows] if bookmarked else list(rows)
    left, bookmark, code = look(source, bookmark)
    event(code or "read")
    demand_storable(left)
    server.tables[LIVE] = []
    honest = server.append(7)
    left, _, code = look(slow_log(server, clock), bookmark)
    assert (code, [orjson.loads(each)["sql_text"] for each in left]) == ("", [honest])


def test_a_careless_reader_of_times_is_found_out() -> None:
    """The control: what a TIME may say that is none."""

    def careless(time: bytes) -> float:
        hours, minutes, rest = time.split(b":")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)

    for time in (b"0:0:nan", b"0:0:inf", b"1000000000:0:0"):
        assert not abs(careless(time)) < 1e9
        with pytest.raises(ValueError, match="TIME"):
            seconds(time)


_ANSWERS = st.lists(st.lists(_BYTES | _INTEGERS, max_size=4).map(tuple), max_size=4)
_PLACES = [
    "Slow_queries",
    "UNIX_TIMESTAMP",
    "COUNT(*)",
    "Threads_connected",
    "max_connections",
    "log_output",
    "LIMIT 0, 1",
]


@settings(max_examples=200, deadline=None)
@given(answers=st.dictionaries(st.sampled_from(_PLACES), _ANSWERS, min_size=1, max_size=2), rotated=st.booleans())
def test_any_counter_is_understood_or_one_of_our_errors(answers: dict[str, list[Row]], rotated: bool) -> None:
    clock = TurnedClock()
    server = Said(clock)
    server.append(1)
    source = slow_log(server, clock)
    _, bookmark, _ = look(source, None)
    if rotated:
        server.rename("elsewhere")
    server.append(2)
    server.answers = answers
    left, bookmark, code = look(source, bookmark)
    event(code or "read")
    demand_storable(left)
    server.answers = {}
    server.append(3)
    assert look(slow_log(server, clock), bookmark)[2] == ""


# -- bookmarks ---------------------------------------------------------------------------------------------------------

_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
_PLACE = orjson.loads(Place(3, "a" * 64, "b" * 64, 3, (0, 1), 0, server_started_at=5, spent=("a", "b", 3)).encode())
_STATEMENTS: dict[str, Any] = {
    "v": 2,
    "kept": [{"sight": {"reset": "5"}, "baseline": "{}"}],
    "forgot_at": 0.0,
    "current": {
        "rows": [[1, 2, 3, True, 4, 5.0, 6.0, 7, 8.0]],
        "ahead": [],
        "taken_at": "2026-01-31T12:00:00+00:00",
        "sight": {"reset": "5", "system": 7},
        "unseen": "new",
        "ahead_at": None,
        "merged": False,
    },
}
_VERSION_1 = {"v": 1, "rows": [], "ahead": [], "taken_at": None, "stats_reset": None, "ahead_reset": None}


@settings(max_examples=300, deadline=None)
@given(
    good=st.sampled_from([_PLACE, _STATEMENTS, _STATEMENTS["current"], _VERSION_1]),
    odd=st.dictionaries(
        st.sampled_from(sorted({*_PLACE, *_STATEMENTS, *_STATEMENTS["current"], *_VERSION_1})), _JSON, max_size=2
    ),
    raw=st.none() | st.binary(max_size=40) | st.integers(1, 2_000).map(lambda levels: b"[" * levels + b"]" * levels),
    cut=st.booleans(),
)
def test_a_bookmark_is_understood_or_unreadable(
    good: dict[str, Any], odd: dict[str, Any], raw: bytes | None, cut: bool
) -> None:
    encoded = raw if raw is not None else orjson.dumps({**good, **odd})
    encoded = encoded[: len(encoded) // 2] if cut else encoded
    decoders: tuple[Callable[[bytes], object], ...] = (_slow_log_place.decode, _statement_bookmark.decode)
    for decode in decoders:
        with suppress(BookmarkUnreadable):
            decode(encoded)
            event("understood")


@settings(max_examples=200, deadline=None)
@given(odd=st.dictionaries(st.sampled_from(sorted(_PLACE)), _JSON, min_size=1, max_size=2))
def test_a_look_from_an_altered_bookmark_ends_in_one_of_our_errors_at_worst(odd: dict[str, Any]) -> None:
    clock = TurnedClock()
    server = Said(clock)
    for serial in range(4):
        server.append(serial)
    _, code = look(slow_log(server, clock), orjson.dumps({**_PLACE, **odd}))[1:]
    event(code or "read")


def test_a_careless_decoder_is_found_out() -> None:
    """The control."""
    fields = {**_PLACE, "position": "x"}
    fields.pop("v")
    place = Place(**fields)
    with pytest.raises(TypeError):
        replace(place).behind(1, "a", "b", "now")
    with pytest.raises(BookmarkUnreadable):
        _slow_log_place.decode(orjson.dumps({**_PLACE, "position": "x"}))


# -- values of a PostgreSQL ----------------------------------------------------------------------------------------

_ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
_ODD = _ANY | st.sampled_from(
    [Decimal("NaN"), Decimal("1.5"), [1, 2], {"a": 1}, datetime(2026, 1, 31, tzinfo=UTC), 10**400]
)
_MADE = {26: int, 20: int, 16: bool, 701: float, 25: str}
_COUNTED = (10, 5, 77, True, 3, 9_000.0, 4_000.0, 3, 1_770_000_000.5)
_HONEST: dict[str, list[tuple[Any, ...]]] = {
    "pg_extension": [("public", True, True, True)],
    "to_regclass": [(True,)],
    "system_identifier": [(7, 1_770_000_000.5, "127.0.0.1 5432")],
    "clock_timestamp": [(True, 1_770_000_009.5, "1770000000.5", 0, 9.5)],
    "pg_stat_activity": [(2, 97)],
    "pg_database": [(5, "shop")],
    "pg_roles": [(10, "app")],
    "pg_stat_statements(false)": [_COUNTED],
    "pg_stat_statements(true)": [(10, 5, 77, True, "SELECT 1", None)],
}


class SaidToPostgres(PostgresSession):
    """A connection over which these answers come; `is_open` until it is dropped."""

    def __init__(self, answers: dict[str, list[tuple[Any, ...]]]) -> None:
        self._answers, self._is_open = answers, True

    @property
    def is_open(self) -> bool:
        return self._is_open

    def drop(self) -> None:
        self._is_open = False

    def columns(self, sql: str) -> list[str]:
        return ["toplevel", "total_exec_time", "max_exec_time", "stats_since"]

    def rows(self, sql: str, values: Any = (), *, types: Any = None, **_: Any) -> list[tuple[Any, ...]]:
        found = next(rows for part, rows in self._answers.items() if part in sql)
        # As the real one, which compares what the server calls the types: the driver makes these of them.
        kinds = [(_MADE[oid], type(None)) for oid in types or ()]
        if types and not all(len(each) == len(kinds) and all(map(isinstance, each, kinds)) for each in found):
            raise AnswerSenseless
        return found


def statements(answers: dict[str, list[tuple[Any, ...]]]) -> StatementStatistics:
    db = DbConfig(host="h", user="u")
    settings_ = SourceSettings("default", db, 5432)
    return StatementStatistics(settings_, TurnedClock(), lambda *_: SaidToPostgres(answers))


@st.composite
def said_to_postgres(draw: st.DrawFn) -> dict[str, list[tuple[Any, ...]]]:
    """The honest answers, with some values that are something else, or rows of another width."""
    answers = dict(_HONEST)
    for part in draw(st.lists(st.sampled_from(sorted(_HONEST)), min_size=1, max_size=2)):
        values = list(answers[part][0]) if answers[part] else []
        for at in draw(st.lists(st.integers(0, 8), min_size=1, max_size=2)):
            values[at : at + 1] = [draw(_ODD)]
        answers[part] = draw(st.sampled_from([[tuple(values)], [tuple(values)] * 2, [], [tuple(values[:-1])]]))
    return answers


@settings(max_examples=300, deadline=None)
@given(answers=said_to_postgres())
@example({**_HONEST, "pg_stat_statements(false)": [(*_COUNTED[:5], float("nan"), *_COUNTED[6:])]})
@example({**_HONEST, "clock_timestamp": [(True, 1_770_000_009.5, "abc", 0, 9.5)]})
@example({**_HONEST, "pg_roles": [(10, 5)]})
def test_any_value_of_a_postgres_is_understood_or_one_of_our_errors_and_the_next_honest_look_works(
    answers: dict[str, list[tuple[Any, ...]]],
) -> None:
    left, bookmark, code = look(statements(answers), None)
    event(code or "read")
    for body in left:
        told = orjson.loads(body)
        numbers = ("query_time", "total_exec_time_ms", "max_exec_time_ms", "calls", "rows", "rows_sent")
        assert [name for name in numbers if not isinstance(told[name], int | float)] == []
        assert (isinstance(told["db"], str), isinstance(told["user_host"], str)) == (True, True)
    more = (*_COUNTED[:4], 9, 90_000.0, 9_000.0, 9, _COUNTED[8])
    assert look(statements({**_HONEST, "pg_stat_statements(false)": [more]}), bookmark)[2] == ""


@settings(max_examples=200, deadline=None)
@given(odd=st.dictionaries(st.sampled_from(sorted(_STATEMENTS["current"])), _JSON, min_size=1, max_size=2))
def test_a_look_from_an_altered_baseline_ends_in_one_of_our_errors_at_worst(odd: dict[str, Any]) -> None:
    altered = {**_STATEMENTS, "current": {**_STATEMENTS["current"], **odd}}
    event(look(statements(_HONEST), orjson.dumps(altered))[2] or "read")


# -- bytes that are no protocol ----------------------------------------------------------------------------------------

_PACKETS = st.lists(
    st.binary(max_size=30)
    | st.sampled_from(
        [OK, EOF, b"\xfb/etc/passwd", b"\xff\x15\x04#28000no", b"\x01", b"\xfe" + b"\xff" * 8, column(), row(ROW)]
    ),
    max_size=8,
)


def spoken(packets: list[bytes]) -> bytes:
    """With their heads, numbered from one on."""
    return b"".join(
        struct.pack("<I", len(body))[:3] + bytes([number % 256]) + body for number, body in enumerate(packets, 1)
    )


@settings(max_examples=60, deadline=None)
@given(packets=_PACKETS, raw=st.binary(max_size=30), greets=st.booleans())
def test_any_bytes_of_a_mysql_end_in_one_of_our_errors(packets: list[bytes], raw: bytes, greets: bool) -> None:
    def script(talk: Talk) -> None:
        if greets:
            talk.greet()
            talk.say(OK)
            talk.listen()
        talk.connection.sendall(spoken(packets) + raw)
        talk.connection.shutdown(socket.SHUT_WR)

    with RogueMysql(script) as server:
        db = DbConfig(host="127.0.0.1", port=server.port, user="u", connect_timeout=5, read_timeout=5)
        with pytest.raises(SourceError):
            Session(SourceSettings("default", db, server.port))
    assert server.talks
