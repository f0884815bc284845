"""Files that somebody else may have had in hand: what was carried from another machine, the memory of remote changes,
the configuration, the command log. Whatever stands in them, they are read, or refused with a sentence.

What could go wrong: a file that was written by hand, its digests right, ends in a traceback or puts something into an
outbox that no outbox can hold; a memory of changes keeps an agent from starting, or gives the backend more than a
command could; a line of the log hides the others.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from agent import command_history
from agent.command_log import FILE_NAME
from agent.config import remote
from agent.config.layers import load
from agent.config.permission import ADDRESS, INTERVALS, ON_TRUST, THRESHOLDS
from agent.config.places import path_of
from agent.errors import ConfigError
from storage import parcel
from storage.envelope import Envelope
from storage.errors import ParcelDamaged
from tests.unit.config.conftest import several, valid

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("\ud800")
_JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)

# -- what was carried --------------------------------------------------------------------------------------------------

RECORD = '{"id":"a","sql_text":"SELECT 1"}'
BODY = f'{{"queries":[{RECORD}]}}'
HONEST = {
    "key": "inst-1-0",
    "seq": 1,
    "topic": "queries",
    "place": 1,
    "created_at": 1.5,
    "doubtful": 0,
    "records": 1,
    "lines": 1,
    "whole": False,
    "sha256": hashlib.sha256(BODY.encode()).hexdigest(),
}


def forged(entries: list[dict[str, Any]], manifest: dict[str, Any]) -> bytes:
    """A file whose digests are right, whatever stands in it."""
    digest, lines = hashlib.sha256(), []
    for entry in entries:
        head = json.dumps({**entry, "chain": digest.hexdigest()[:16]})[:-1]
        line = f'{head},"number":{json.dumps(entry.get("number", 0))},"record":{RECORD}}}\n'.encode()
        digest.update(line)
        lines.append(line)
    whole = {"format": 1, "envelopes": len(entries), "records": len(entries), "first": 1, "last": 1}
    told = {**whole, "sha256": digest.hexdigest(), **manifest}
    return gzip.compress(b"".join(lines) + json.dumps({"manifest": told}).encode() + b"\n")


def unpacked(content: bytes) -> list[Envelope]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.jsonl.gz"
        path.write_bytes(content)
        parcel.check(path)
        return list(parcel.read(path))


def test_an_honest_one_is_read() -> None:
    (found,) = unpacked(forged([HONEST], {}))
    assert (found.key, gzip.decompress(found.body).decode()) == ("inst-1-0", BODY)


@settings(max_examples=300, deadline=None)
@given(
    odd=st.dictionaries(st.sampled_from([*HONEST, "number", "chain", "record"]), _JSON, min_size=1, max_size=2),
    manifest=st.dictionaries(
        st.sampled_from(["format", "envelopes", "records", "first", "last", "sha256"]), _JSON, max_size=2
    ),
)
@example({"records": "x"}, {})
@example({"created_at": float("nan")}, {})
@example({"seq": 10**30}, {})
@example({"key": "\ud800"}, {})
@example({}, {"first": "\x1b[2J"})
def test_a_forged_file_is_refused_or_gives_envelopes_that_an_outbox_can_hold(
    odd: dict[str, Any], manifest: dict[str, Any]
) -> None:
    found, complaint = list[Envelope](), ""
    try:
        found = unpacked(forged([{**HONEST, **odd}], manifest))
    except ParcelDamaged as error:
        complaint = str(error)
    event("refused" if complaint else "read")
    assert complaint.isprintable()
    for each in found:
        kinds = [type(value) for value in (each.seq, each.place, each.key, each.topic, each.records)]
        assert kinds == [int, int, str, str, int]
        assert (each.key.isascii(), float(each.created_at) == each.created_at) == (True, True)
        assert each.row


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=80)
    | st.binary(max_size=80).map(gzip.compress)
    | _JSON.map(lambda each: gzip.compress(json.dumps(each).encode()))
)
def test_what_was_never_exported_is_refused(content: bytes) -> None:
    with pytest.raises(ParcelDamaged):
        unpacked(content)


def test_a_careless_reader_of_it_is_found_out() -> None:
    """The control: a count that is a text, with all digests right."""
    lines = gzip.decompress(forged([{**HONEST, "records": "x"}], {})).splitlines()
    with pytest.raises(TypeError):
        sum(json.loads(line)["records"] for line in lines[:-1])


def test_a_line_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "_LINE_BYTES", 1_000)
    bomb = gzip.compress(b'{"key":"' + b"x" * 1_000_000)
    with pytest.raises(ParcelDamaged, match="line 1"):
        unpacked(bomb)


# -- the memory of remote changes --------------------------------------------------------------------------------------

_KEYS = [
    *INTERVALS,
    *(f"db_config.{name}" for name in (*ADDRESS, *THRESHOLDS, *ON_TRUST, "password", "tls", "x")),
    *(f"databases.orders.{name}" for name in ("collection_interval", "name", "db_config.host", "db_config.password")),
    *("api_key", "backend_url", "remote_config", "redact", "databases", "tls.verify", "", ".", "databases.", "a..b"),
]
_THEIRS = {"host": "theirs", "password": "theirs"}
_HONEST_CHANGES: list[dict[str, Any]] = [
    {},
    {"collection_interval": 60, "db_config.rotate": True, "db_config.max_load": None},
    {f"db_config.{name}": value for name, value in _THEIRS.items()},
    {f"databases.orders.db_config.{name}": value for name, value in _THEIRS.items()},
    {"db_config.host": "theirs", "databases.orders.collection_interval": 60},
]


@settings(max_examples=300, deadline=None)
@given(
    changes=st.builds(
        lambda honest, odd: {**honest, **odd},
        st.sampled_from(_HONEST_CHANGES),
        st.dictionaries(
            st.sampled_from(_KEYS) | st.text(max_size=6), _JSON | st.sampled_from(["5", 60, "h"]), max_size=2
        ),
    ),
    raw=st.none() | st.binary(max_size=60) | _JSON.map(lambda each: json.dumps(each).encode()),
    mode=st.sampled_from(["safe", "any", "off"]),
    many=st.booleans(),
)
def test_no_memory_of_changes_keeps_an_agent_from_starting_or_reaches_what_is_this_hosts_own(
    changes: dict[str, Any], raw: bytes | None, mode: str, many: bool
) -> None:
    tree = {**(several("orders", "billing") if many else valid()), "remote_config": mode}
    with tempfile.TemporaryDirectory() as place:
        data_dir, path = Path(place) / "data", Path(place) / "config.json"
        data_dir.mkdir()
        path.write_text(json.dumps(tree))
        plain, layers = load(path, {}, {})
        if raw is not None:
            (data_dir / remote.FILE_NAME).write_bytes(raw)
        else:
            try:
                remote.save(data_dir, layers.file, changes)
            except (TypeError, ValueError):  # a lone surrogate, NaN: no command brings those
                return
        config, layers = load(path, {}, {})
        event("left out" if layers.unusable else "used" if config != plain else "without effect")
        own = ("api_key", "backend_url", "remote_config", "redact", "data_dir", "outbox", "collector_id")
        assert [getattr(config, name) for name in own] == [getattr(plain, name) for name in own]
        assert mode != "off" or config == plain
        for one, before in zip(config.watches, plain.watches, strict=True):
            moved = any(getattr(one.db_config, name) != getattr(before.db_config, name) for name in ADDRESS)
            assert not (mode == "safe" and moved and one.db_config.password.get_secret_value() == "pa55word")
            if mode == "safe":
                assert one.db_config.max_load == before.db_config.max_load
                assert 10 <= one.collection_interval <= 86_400
        assert "pa55word" not in layers.unusable


def test_a_careless_memory_is_found_out(tmp_path: Path) -> None:
    """The control: whatever stands in it is laid over the file."""
    remote.save(tmp_path, valid(), {"backend_url": "http://theirs", "db_config.host": "theirs"})
    tree: dict[str, Any] = valid()
    for name, entry in json.loads((tmp_path / remote.FILE_NAME).read_bytes()).items():
        *steps, key = path_of(name)
        place = tree[steps[0]] if steps else tree
        place[key] = entry["value"]
    assert (tree["backend_url"], tree["db_config"]["host"], tree["db_config"]["password"]) == (
        "http://theirs",
        "theirs",
        "pa55word",
    )
    assert remote.overlay(tmp_path, valid(), "safe") == {}


# -- the configuration itself ------------------------------------------------------------------------------------------

MARK = "S3CR3T-MARK"


def _marked(value: Any) -> Any:
    """The same with every text marked, so that a value which is shown is seen."""
    if isinstance(value, dict):
        return {name: _marked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_marked(each) for each in value]
    return f"{value}{MARK}" if isinstance(value, str) else value


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """Anything, or a right one in which some values are something else."""
    if draw(st.integers(0, 3)) == 0:
        return draw(_JSON)
    tree: dict[str, Any] = valid() if draw(st.booleans()) else several("orders", "billing")
    names = [*tree, "databases", "outbox", "log", "remote_config", "data_dir", "tls", "x"]
    tree |= {name: _marked(draw(_JSON)) for name in draw(st.lists(st.sampled_from(names), max_size=2))}
    if isinstance(tree.get("db_config"), dict):
        inner = ["host", "port", "password", "start", "slow_log_backups", "rotate", "tls", "x"]
        odd = {name: _marked(draw(_JSON)) for name in draw(st.lists(st.sampled_from(inner), max_size=2))}
        tree["db_config"] = {**tree["db_config"], **odd}
    return tree


@settings(max_examples=300, deadline=None)
@given(
    tree=trees(),
    raw=st.none() | st.none() | st.binary(max_size=60),
    depth=st.sampled_from([0, 0, 0, 20, 1_000, 50_000]),
)
def test_a_configuration_is_read_or_refused_with_its_places_and_without_its_values(
    tree: Any, raw: bytes | None, depth: int
) -> None:
    text = json.dumps(tree) if raw is None else ""
    deep = f'{{"db_config":{"[" * depth}{"]" * depth}}}' if depth else ""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "config.json"
        path.write_bytes(raw if raw is not None else (deep or text).encode())
        complaint, shown = "", ""
        try:
            config, layers = load(path, {}, {})
            shown = f"{config!r}{layers!r}"
        except ConfigError as error:
            complaint = str(error)
    event("refused" if complaint else "taken")
    assert (MARK in complaint, "pa55word" in complaint + shown, complaint.isprintable()) == (False, False, True)


def test_a_careless_complaint_is_found_out() -> None:
    """The control: what the schema alone would say of a wrong value."""
    from pydantic import BaseModel, ValidationError  # noqa: PLC0415 - for this alone

    class Careless(BaseModel):
        port: int

    with pytest.raises(ValidationError) as wrong:
        Careless.model_validate({"port": MARK})
    assert MARK in str(wrong.value)


# -- the command log ---------------------------------------------------------------------------------------------------

_LINES = st.binary(max_size=40) | st.dictionaries(
    st.sampled_from(["at", "step", "watch", "id", "command", "created_at", "params", "success", "result"]),
    _JSON | st.sampled_from(["received", "answered", "left"]),
).map(lambda each: json.dumps(each).encode())


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(_LINES, max_size=6), limit=st.integers(1, 3))
def test_whatever_stands_in_the_command_log_can_be_shown(lines: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / FILE_NAME).write_bytes(b"\n".join(lines))
        history = command_history.read(Path(place))
        shown = list(command_history.table(command_history.newest(history.entries, limit)))
    assert len(history.entries) + history.unreadable <= sum(1 + line.count(b"\n") for line in lines)
    assert (len(shown) <= limit + 1, all(line.isprintable() for line in shown)) == (True, True)
    assert all(len(line) < 2_000 for line in shown)
