"""The parts put together, nothing of them running.

What could go wrong: two watches share an inbox, a source, a bookmark, a pause or ids; a command reaches the wrong watch
or no watch; a watch that hangs collects commands without end; an interval of one is taken for the other,
the level of redaction stays at its default on the way from the configuration to the source; between two agents of one
process somebody else takes the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from agent import sources, wiring
from agent.clock import Clock
from agent.command_desk import PAUSED_NOTE
from agent.commands import Command
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.redact import Level
from agent.sources import Source, SourceSettings
from storage.envelope import Change
from storage.errors import OutboxFull
from storage.lock import holder
from storage.outbox import Outbox
from tests.fakes.clock import ManualClock
from tests.fakes.manual import config_tree, several_tree
from tests.fakes.sink import FakeSink
from tests.fakes.source import FakeSource

NAMES = ("orders", "billing")


def built(directory: Path, **sources: Source) -> wiring.Agent:
    tree = several_tree(*NAMES)
    tree["databases"][1]["collection_interval"] = 60
    layers = Layers(tree, {}, directory)
    return wiring.build(layers.build({}), layers, wiring.Parts(clock=ManualClock(), sources=sources, sink=FakeSink()))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[wiring.Agent]:
    made = built(tmp_path)
    yield made
    made.close()


def heard(agent: wiring.Agent) -> dict[str, int]:
    return {watch.name: watch.inbox.qsize() for watch in agent.watches}


def test_each_database_has_a_watch_of_its_own(agent: wiring.Agent) -> None:
    assert [watch.name for watch in agent.watches] == list(NAMES)
    assert [watch.pulse.thread for watch in agent.watches] == ["watch orders", "watch billing"]
    assert [watch._watch.interval_s for watch in agent.watches] == [300, 60]
    assert len({id(watch.inbox) for watch in agent.watches}) == 2
    assert list(agent.board.status(now_s=0, now_unix=0).watches) == list(NAMES)


def test_a_command_goes_to_whom_it_concerns(agent: wiring.Agent) -> None:
    give = agent.heartbeat._give
    give(Command(1, "stop"))
    assert heard(agent) == {"orders": 1, "billing": 1}
    give(Command(2, "stop", {"target": "billing"}))
    assert heard(agent) == {"orders": 1, "billing": 2}
    give(Command(3, "stop", {"target": "stock"}))
    give(Command(4, "dance"))
    assert heard(agent) == {"orders": 3, "billing": 2}


def test_a_watch_that_hangs_is_not_handed_commands_without_end(agent: wiring.Agent) -> None:
    for number in range(2 * wiring.INBOX_WORDS):
        agent.heartbeat._give(Command(number, "stop", {"target": "orders"}))
    agent.heartbeat._give(Command(0, "stop"))
    assert heard(agent) == {"orders": wiring.INBOX_WORDS, "billing": 1}


def test_sources_of_the_same_server_read_for_different_watches() -> None:
    layers = Layers(several_tree(*NAMES), {}, Path("/data"))
    config = layers.build({})
    made = [wiring.make_source(config, name, ManualClock()) for name in NAMES]
    assert [each._settings.watch for each in made] == list(NAMES)  # type: ignore[attr-defined]


def test_bookmarks_and_pauses_belong_to_their_watch(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.commit(Change(bookmarks={"billing": b"7"}, notes={f"{PAUSED_NOTE}/billing": "1"}))
    outbox.close()
    orders, billing = FakeSource(), FakeSource()
    orders.rows = billing.rows = 10
    agent = built(tmp_path, orders=orders, billing=billing)
    assert [agent.board.watch(name).state for name in NAMES] == ["idle", "paused"]
    assert agent.watches[0].look() is None
    assert (agent.board.books.captured, billing.reads) == (10, 0)
    agent.watches[1]._desk.carry_out(Command(1, "start", {"target": "billing"}))
    assert agent.watches[1].look() is None
    assert agent.board.books.captured == 10 + 3
    agent.close()


def test_a_watch_that_was_away_for_a_while_goes_on_where_it_was_and_a_renamed_one_begins_anew(tmp_path: Path) -> None:
    def collected(*names: str) -> int:
        sources: dict[str, FakeSource] = {name: FakeSource() for name in names}
        for source in sources.values():
            source.rows = 10
        layers = Layers(several_tree(*names), {}, tmp_path)
        parts = wiring.Parts(clock=ManualClock(), sources=sources, sink=FakeSink())
        agent = wiring.build(layers.build({}), layers, parts)
        before = agent.board.books.captured
        for watch in agent.watches:
            assert watch.look() is None
        after = agent.board.books.captured
        agent.close()
        return after - before

    assert collected("orders", "billing") == 20
    assert collected("orders") == 0
    assert collected("orders", "billing") == 0
    assert collected("orders", "invoices") == 10


@pytest.mark.parametrize("level", get_args(Level))
def test_a_source_is_told_how_to_redact(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SourceSettings] = []

    def made(settings: SourceSettings, _: Clock) -> FakeSource:
        told.append(settings)
        return FakeSource()

    monkeypatch.setattr(sources, "find", lambda _: made)
    wiring.make_source(Config.model_validate(config_tree(redact=level)), "default", Clock())
    assert [settings.redact for settings in told] == [level]


def test_the_lock_is_handed_on_and_is_never_free_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(tmp_path)
    first.close_but_lock()
    assert holder(tmp_path) == str(os.getpid())
    layers = layers_in(tmp_path)
    parts = wiring.Parts(clock=ManualClock(), sink=FakeSink(), lock=first.lock)
    with monkeypatch.context() as patch:
        patch.setattr(wiring, "Outbox", no_room)
        with pytest.raises(OutboxFull):
            wiring.build(layers.build({}), layers, parts)
        # CONTROL: a lock of its own is given back by one that cannot be built.
        with pytest.raises(OutboxFull):
            wiring.build(layers.build({}), layers_in(tmp_path / "other"), wiring.Parts())
    assert holder(tmp_path / "other") is None
    assert holder(tmp_path) == str(os.getpid())
    second = wiring.build(layers.build({}), layers, parts)
    assert holder(tmp_path) == str(os.getpid())
    second.close()
    assert holder(tmp_path) is None


def no_room(*_: object, **__: object) -> Outbox:
    raise OutboxFull("says the test")


def layers_in(directory: Path) -> Layers:
    return Layers(several_tree(*NAMES), {}, directory)
