"""Whatever stands where a backend should be, and whatever the backend has become: the agent reads it, believes no more
than it may, and goes on.

What could go wrong: an answer ends the thread of the heartbeat, the flusher or a watch, and does so again at each try;
a record is taken for delivered that was not; a command is obeyed that this host does not allow, is done twice, or
leaves a password in a log, a result or a file that is not its own; a header lets the agent wait for a year.
"""

from __future__ import annotations

import logging
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from agent import command_history
from agent.body import unpack
from agent.commands import WORDS, Command, parse
from agent.config import remote
from agent.config.permission import ADDRESS, INTERVALS, ON_TRUST, THRESHOLDS
from agent.delivery import (
    RETRY_AFTER_CAP_S,
    Delivered,
    Hold,
    heartbeat_error,
    judge_bulk,
    judge_execute,
    retry_after_s,
)
from agent.foreign_json import loads
from agent.sinks import COMMAND_RESULT
from agent.transport import Answer
from storage.errors import CodedError
from tests.fakes.manual import Rig

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECRET = "hunter2-is-secret"

# -- JSON as somebody would send it who wants to see what happens ------------------------------------------------------

_NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from([2**64, -(2**63) - 1, 10**400, 0, -1])
_TEXTS = st.text(max_size=8) | st.sampled_from(["ok", "success", "\x1b[2J", "a" * 5_000, "\x00", "\u202e"])
_LEAVES = st.none() | st.booleans() | _NUMBERS | _TEXTS
_DEPTHS = st.sampled_from([5, 33, 1_000, 1_024, 1_025, 5_000])


def _json(names: list[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        _LEAVES,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(names) | st.text(max_size=4), inner, max_size=5)
        ),
        max_leaves=15,
    )


def dumped(value: object) -> bytes:
    """JSON with what orjson would not write: numbers beyond 64 bit, NaN, lone surrogates."""
    import json  # noqa: PLC0415 - for this alone

    return json.dumps(value).encode()


@st.composite
def bodies(draw: st.DrawFn, names: list[str], good: dict[str, Any]) -> bytes:
    """Noise, JSON of any shape, or a good answer with something odd in the place of a value, as deep as may be."""
    kind = draw(st.sampled_from(["good", "spoilt", "deep", "json", "cut", "doubled", "noise"]))
    event(kind)
    if kind == "noise":
        return draw(st.binary(max_size=60))
    if kind == "json":
        return dumped(draw(_json(names)))
    whole = dict(good)
    if kind == "spoilt":
        for name in draw(st.lists(st.sampled_from(sorted(good)), max_size=3)):
            whole[name] = draw(_json(names))
    text = dumped(whole)
    if kind == "deep":
        levels, place = draw(_DEPTHS), draw(st.sampled_from([b"null", b"0", b'"x"']))
        return text.replace(place, b"[" * levels + b"]" * levels, 1)
    if kind == "cut":
        return text[: draw(st.integers(0, len(text)))]
    return text[:-1] + b"," + text[1:] if kind == "doubled" else text


BULK = {"status": "success", "count": 2, "skipped": 1, "errors": [{"query": None, "error": "x"}], "more": 0}
HEARTBEAT = {
    "status": "ok",
    "message": None,
    "commands": [{"id": 1, "command": "x", "params": {"target": None}, "created_at": "noon"}],
}
_STATUSES = st.sampled_from([200, 201, 202, 204, 302, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 504, 599, 999])
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "accept-encoding"]),
    st.text(max_size=40) | st.sampled_from(["9" * 5_000, "-1", "1e9", "Sat, 31 Jan 99999 12:00:00 GMT", "gzip;q=0"]),
)


@settings(max_examples=200, deadline=None)
@given(status=_STATUSES, headers=_HEADERS, body=bodies(["status", "count", "skipped", "errors", "error"], BULK))
@example(200, {}, dumped(BULK).replace(b'"x"', b"[" * 1_000 + b"]" * 1_000))
def test_an_answer_to_a_bulk_call_is_judged_and_delivered_is_only_what_the_contract_says(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    verdict = judge_bulk(Answer(status, headers, body), 3, NOW)
    if not isinstance(verdict, Delivered):
        return
    event("delivered")
    told = loads(body)
    assert (200 <= status < 300, told["status"], told["count"] + told.get("skipped", 0)) == (True, "success", 3)
    assert verdict.count == told["count"]
    assert (verdict.reason.isprintable(), len(verdict.reason) < 300) == (True, True)


def careless(answer: Answer, records: int) -> bool:
    """A judge who believes what looks right: the control."""
    told = orjson.loads(answer.body)
    return bool(told["count"] + told["skipped"] == records and str(told["errors"]))


@given(spoilt=st.sampled_from(["deep", "true", "float", "status"]))
def test_a_careless_judge_is_found_out(spoilt: str) -> None:
    bodies_ = {
        "deep": dumped(BULK).replace(b'"x"', b"[" * 1_000 + b"]" * 1_000),
        "true": dumped({**BULK, "count": True, "skipped": 2}),
        "float": dumped({**BULK, "count": 2.0}),
        "status": dumped({**BULK, "status": "error"}),
    }
    answer = Answer(200, {}, bodies_[spoilt])
    try:
        believed = careless(answer, 3)
    except RecursionError:
        believed = True
    assert (believed, isinstance(judge_bulk(answer, 3, NOW), Hold)) == (True, True)


@settings(max_examples=100, deadline=None)
@given(status=_STATUSES, headers=_HEADERS, body=bodies(["status", "detail"], {"status": "ok", "message": None}))
def test_an_answer_to_a_result_is_judged(status: int, headers: dict[str, str], body: bytes) -> None:
    verdict = judge_execute(Answer(status, headers, body), NOW)
    if isinstance(verdict, Delivered) and status != 404:
        assert (200 <= status < 300, loads(body)["status"]) == (True, "ok")


@settings(max_examples=200, deadline=None)
@given(status=_STATUSES, headers=_HEADERS, body=bodies(["id", "command", "params", "created_at", "status"], HEARTBEAT))
def test_an_answer_to_a_heartbeat_gives_well_formed_commands_or_an_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = Answer(status, headers, body)
    error = heartbeat_error(answer)
    assert (answer.unix_time or 0) >= 0
    if error is not None:
        assert (isinstance(error, CodedError), str(error).isprintable()) == (True, True)
        return
    event("taken")
    for command in parse(loads(body).get("commands")):
        assert (type(command.id), type(command.word), type(command.created_at)) == (int, str, str)
        assert (len(repr(command)) < 50_000, command.word.isprintable(), command.mark(1).isprintable()) == (
            True,
            True,
            True,
        )


# -- headers -----------------------------------------------------------------------------------------------------------

_DATES = st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S")) | st.text(
    "MonTueJan0123456789:, +-GMTZ", max_size=40
)


@settings(max_examples=200)
@given(header=_DATES | st.text(max_size=30) | st.integers().map(str) | st.floats().map(str), zone=st.text(max_size=6))
def test_a_time_to_wait_is_finite_whatever_the_header_says(header: str, zone: str) -> None:
    for text in (header, f"{header} {zone}", f" {header}", f"{header} +9999", f"{header} -2359"):
        assert 0 <= retry_after_s(text, NOW) <= RETRY_AFTER_CAP_S
        at = Answer(200, {"date": text}, b"").unix_time
        assert at is None or datetime.fromtimestamp(at, UTC) - datetime(1970, 1, 1, tzinfo=UTC) >= timedelta(0)


def test_a_careless_reader_of_dates_is_found_out() -> None:
    """The control: what the standard library alone makes of some of these."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - for this alone

    raised = []
    for text in ("Sat, 31 Jan 2026 12:00:00 +9999", "Sat, 99 Jan 2026 12:00:00 GMT", "", "nonsense"):
        try:
            parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError) as error:
            raised.append(type(error))
        assert 0 <= retry_after_s(text, NOW) <= RETRY_AFTER_CAP_S
    assert len(raised) == 4


# -- commands, obeyed --------------------------------------------------------------------------------------------------

_HARMLESS = [*ADDRESS, *THRESHOLDS, *ON_TRUST]
_SECRET = ["password", "password", "tls", "proxy", "Password", "db_config.password", "x"]
_VALUES: st.SearchStrategy[Any] = _json([*_HARMLESS, *_SECRET]) | st.sampled_from(
    ["", "x", 5, 60, "60", 0.1, "nan", "1e999", None, True, [], {}]
)
_SECRETS = st.sampled_from([SECRET, SECRET, SECRET, f"x{SECRET}", [SECRET], {"deep": {"er": SECRET}}, "", None])
_DATABASES = st.builds(
    lambda *parts: {name: value for part in parts for name, value in part.items()},
    st.dictionaries(st.sampled_from(_HARMLESS) | st.text(max_size=4), _VALUES, max_size=3),
    st.dictionaries(st.sampled_from(_SECRET), _SECRETS, max_size=2),
    st.dictionaries(st.sampled_from(ADDRESS), st.sampled_from(["theirs", 5, {"password": SECRET}]), max_size=2),
)
_PARAMS = st.dictionaries(
    st.sampled_from([*INTERVALS, "target", "remote_config", "backend_url", "tls", "redact"]), _VALUES, max_size=4
)
_HONEST: list[dict[str, Any]] = [
    {"db_config": {"password": SECRET, "host": "theirs"}, "collection_interval": 60},
    {"db_config": {"min_exec_time_ms": 100, "read_timeout": 20}},
    {"db_config": {}, "heartbeat_interval": 60, "target": "default"},
]


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    """As a heartbeat brings one."""
    params: Any = draw(_PARAMS | _VALUES)
    if isinstance(params, dict) and draw(st.booleans()):
        params = {**params, "db_config": draw(_DATABASES | _VALUES)}
    if draw(st.booleans()):  # as an honest one, or nearly
        params = draw(st.sampled_from(_HONEST))
        odd = draw(
            st.dictionaries(st.sampled_from(_HARMLESS), _VALUES, max_size=1)
            | st.dictionaries(st.sampled_from(_SECRET), _SECRETS, max_size=1)
        )
        params = {**params, "db_config": {**params["db_config"], **odd}}
        return {"id": draw(st.integers(1, 5)), "command": "update_config", "params": params, "created_at": "noon"}
    word = draw(st.sampled_from([*WORDS, "update_config", "update_config", "dance", "\x1b[2J"]) | _LEAVES)
    number, moment = draw(st.integers(1, 5) | _LEAVES), draw(st.sampled_from(["noon", "one"]) | _LEAVES)
    return {"id": number, "command": word, "params": params, "created_at": moment}


def taken(entries: list[dict[str, Any]]) -> tuple[Command, ...]:
    """What arrives at a watch; an answer that is no JSON for the agent brings nothing."""
    try:
        return parse(loads(dumped(entries)))
    except ValueError:
        return ()


def texts_written(rig: Rig, log: list[logging.LogRecord]) -> str:
    """Everything that anybody could read afterwards, but for the file that may hold the password."""
    results, seen = [], set[int]()
    while (envelope := rig.outbox.head(COMMAND_RESULT, seen)) is not None:
        seen.add(envelope.seq)
        results.append(unpack(envelope.body).decode())
    written = (
        (rig.layers.data_dir / "commands.log").read_text() if (rig.layers.data_dir / "commands.log").exists() else ""
    )
    told = [f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in log]
    return "\n".join([*results, written, *told])


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Kept."""
        self.records.append(record)


@settings(max_examples=150, deadline=None)
@given(entries=st.lists(commands(), min_size=1, max_size=8), mode=st.sampled_from(["safe", "safe", "any", "off"]))
def test_no_command_does_what_this_host_does_not_allow_or_shows_a_secret(
    entries: list[dict[str, Any]], mode: str
) -> None:
    heard, logger = _Heard(), logging.getLogger("dbpower")
    logger.addHandler(heard)
    with tempfile.TemporaryDirectory() as place:
        rig = Rig(Path(place), remote_config=mode)
        try:
            for _ in range(2):  # each heartbeat hands them out again
                for command in taken(entries):
                    rig.desk.carry_out(command)
            before, db = rig.config.watches[0].db_config, rig.reconfiguration.config.watches[0].db_config
            event(f"{mode}: {'changed' if rig.configs else 'refused'}")
            if mode == "off":
                assert (rig.configs, rig.watch.paused, rig.watch.asked) == ([], False, [])
            if mode == "safe":
                assert {name: getattr(db, name) for name in ON_TRUST} == {
                    name: getattr(before, name) for name in ON_TRUST
                }
                moved = any(getattr(db, name) != getattr(before, name) for name in ADDRESS)
                assert not (moved and db.password.get_secret_value() == "old")
                assert 10 <= rig.watch.interval_s <= 86_400
            stored = remote.overlay(rig.layers.data_dir, rig.layers.file, mode)
            assert rig.layers.build(stored) == rig.reconfiguration.config
            assert SECRET not in texts_written(rig, heard.records)
            event(f"the password is {'' if db.password.get_secret_value() == SECRET else 'not '}that of the backend")
            history = command_history.read(rig.layers.data_dir)
            assert history.unreadable == 0
            steps = [(entry["step"], entry["id"], entry["created_at"]) for entry in history.entries]
            assert len(steps) == len({*steps}), "each is received once and answered once"
        finally:
            logger.removeHandler(heard)
            rig.outbox.close()
