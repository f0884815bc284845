"""What could go wrong: a signal handler does more than put a word, an end waits for ever for a thread that hangs, the
last turn is saved after the last drain, several that hang take their deadlines one after the other, a dead thread stays
dead or is restarted in a spin, a watch's name collides, a thread that is alive and stands still looks healthy, one that
dies again and again does; a reload that is refused ends something, one that is not loses a turn, an end that is asked
for meanwhile, or another reload; what was left behind goes on with what is another's.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from agent import wiring
from agent.clock import Clock
from agent.commands import Command
from agent.conductor import Conductor, Deadlines, Ended, Inbox, _Died, is_to_stop
from agent.config.layers import Layers
from agent.flusher import Flusher
from agent.heartbeat import Heartbeat
from agent.pulse import SLACK_S, Pulse
from agent.renewal import Renewed
from agent.sd_notify import SdNotify
from agent.signals import Reload, Signals
from agent.status import Scoreboard
from agent.status_door import StatusDoor, ask
from agent.transport import Transport
from agent.vigil import Vigil
from agent.watch_loop import Stop, WatchLoop
from agent.worker import Worker
from storage.envelope import Change, Envelope
from storage.errors import OutboxBroken, OutboxFull
from tests.fakes.manual import FaultyOutbox, Rig, config_tree, several_tree
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.sink import FakeSink
from tests.fakes.source import FakeSource
from tests.fakes.stub_backend import StubBackend

WAIT_S = 20.0
PATIENT = Deadlines(watch_s=0.5, drain_s=1.0, abandon_s=3.0)
QUICK = Deadlines(watch_s=0.2, drain_s=0.4, abandon_s=0.8, restart_s=0.01, restart_cap_s=30.0)


class LiveRig(Rig):
    """A watch on the real clock with a real inbox, in a thread of its own."""

    name = "flusher"  # a name that a person may choose

    def __init__(self, directory: Path, source: FakeSource) -> None:
        super().__init__(directory, source=source, clock=Clock())  # type: ignore[arg-type]
        parts = self.loop._parts
        self.words: queue.SimpleQueue[object] = queue.SimpleQueue()
        object.__setattr__(parts, "inbox", self.words)
        self.loop = WatchLoop(parts)


class Bench:
    def __init__(
        self,
        directory: Path,
        stub: StubBackend,
        deadlines: Deadlines = Deadlines(),  # noqa: B008
        *,
        slack_s: float = SLACK_S,
        interval_s: float = 3_600,
        inbox: Inbox | None = None,
        systemd: SdNotify | None = None,
    ) -> None:
        self.source = FakeSource()
        self.rig = LiveRig(directory, self.source)
        self.outbox: FaultyOutbox = self.rig.outbox
        self.sink = FakeSink()
        board, clock = Scoreboard(0.0), Clock()
        self.board = board
        self.flusher = Flusher(self.outbox, self.sink, board, clock=clock, rng=random.Random(1), hold_s=30)
        object.__setattr__(self.rig.loop._parts, "on_saved", self.flusher.wake)
        transport = Transport(stub.url, stub.api_key, read_timeout_s=60)
        self.heartbeat = Heartbeat(
            transport,
            stub.collector_id,
            board,
            interval_s=interval_s,
            clock=clock,
            rng=random.Random(1),
            give=self.rig.words.put,
        )
        pulses = self.rig.loop.pulse, self.flusher.pulse, self.heartbeat.pulse
        vigil = Vigil(pulses, board, systemd or SdNotify(None), clock, slack_s=slack_s, pace_s=0.05)
        self.door = StatusDoor(directory, board, clock)
        self.conductor = Conductor(
            *([self.rig.loop], self.flusher, self.heartbeat, self.door, vigil),
            clock=clock,
            deadlines=deadlines,
            inbox=inbox,
        )
        self.renew: Callable[[], Renewed | None] = lambda: None
        self.ended: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whether all has ended in time
        self.endings: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        found = self.conductor.run(self.renew)
        self.endings.put(found)
        self.ended.put(not found.late)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> bool:
        self.conductor.stop()
        return self.ended.get(timeout=WAIT_S)


def wait_until(met: Callable[[], bool]) -> None:
    """Looks again and again, at most WAIT_S; for what has no event of its own."""
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if met():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")


def test_it_runs_everything_and_ends_in_order_with_a_farewell(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub)
    bench.source.rows = 30
    bench.start()
    wait_until(lambda: len(bench.sink.stored) == 30)
    wait_until(lambda: ask(tmp_path) is not None)  # a thread of its own opens the door
    assert stub.wait_for(lambda backend: len(backend.heartbeats) == 1, WAIT_S)
    assert bench.end() is True
    assert (bench.source.closes, bench.sink.closes, len(stub.heartbeats)) == (1, 1, 2)
    assert ask(tmp_path) is None  # nobody is told anything any more
    bench.outbox.close()


def test_the_turn_that_runs_at_the_end_is_saved_and_still_sent(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub)
    bench.source.rows = 30
    middle, go_on = threading.Event(), threading.Event()

    def between(at: int) -> None:
        if at == 10:
            middle.set()
            go_on.wait(WAIT_S)

    bench.source.between = between
    bench.start()
    assert middle.wait(WAIT_S)
    bench.conductor.stop()
    wait_until(lambda: not bench.rig.words.empty())
    go_on.set()
    assert bench.ended.get(timeout=WAIT_S) is True
    assert bench.sink.stored == [f"r{number}" for number in range(20)]
    bench.outbox.close()


@pytest.mark.parametrize("hanging", ["watch", "flusher", "heartbeat"])
def test_a_thread_that_hangs_is_left_behind_in_time_and_told(
    tmp_path: Path, stub: StubBackend, hanging: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, stub, QUICK)
    bench.source.rows = 5
    hung, go_on = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hung.set()
        go_on.wait(WAIT_S)

    if hanging == "watch":
        bench.source.before_read = hang
    elif hanging == "flusher":
        bench.sink.verdict = hang
    else:
        stub.break_down("hanging")
    bench.start()
    assert stub.wait_for(lambda backend: backend.requests == 1, WAIT_S)
    if hanging != "heartbeat":
        assert hung.wait(WAIT_S)
    assert bench.end() is False
    told = [line.message for line in caplog.records if line.message.startswith("Left behind")]
    assert told == [f"Left behind while hanging: {'watch flusher' if hanging == 'watch' else hanging}"]
    go_on.set()
    stub.recover()
    wait_until(lambda: all(life.join(0) for life in bench.conductor._lives.values()))
    bench.outbox.close()


def test_the_real_deadlines_leave_room_before_ten_seconds() -> None:
    limits = Deadlines()
    assert (limits.watch_s < limits.drain_s <= 5.0, limits.drain_s < limits.abandon_s <= 9.0) == (True, True)


def test_a_dead_watch_is_told_replaced_and_goes_on_from_its_bookmark(
    tmp_path: Path, stub: StubBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "dbpower")
    bench = Bench(tmp_path, stub, QUICK)
    bench.rig.watch.interval_s = 0.01
    bench.source.rows, bench.source.chunk = 6_000, 1_000

    def defect(at: int) -> None:
        if at == 5_000 and bench.source.reads == 1:
            raise ZeroDivisionError

    bench.source.between = defect
    bench.start()
    wait_until(lambda: len(bench.sink.stored) == 6_000)
    assert bench.end() is True
    assert bench.sink.stored == [f"r{number}" for number in range(6_000)]
    assert [getattr(line, "event", "") for line in caplog.records] == ["worker.died", "worker.replaced"]
    bench.outbox.close()


def test_a_thread_that_dies_at_once_each_time_is_restarted_more_and_more_rarely(
    tmp_path: Path, stub: StubBackend
) -> None:
    bench = Bench(tmp_path, stub)
    life = bench.conductor._lives["flusher"]
    life.began_s = Clock().monotonic()
    pauses = []
    for _ in range(9):
        bench.conductor._note_death(life)
        pauses.append(life.pause_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    life.began_s -= 3_600
    bench.conductor._note_death(life)
    assert life.pause_s == 1
    bench.outbox.close()
    bench.heartbeat._transport.close()


def test_a_thread_that_dies_in_a_spin_leaves_time_between(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub, Deadlines(restart_s=0.05, restart_cap_s=30.0))
    deaths = []

    def die(_: Envelope) -> None:
        deaths.append(1)
        raise ZeroDivisionError

    bench.sink.verdict = die
    bench.source.rows = 1
    bench.start()
    wait_until(lambda: len(deaths) == 4)  # after 0.05 + 0.1 + 0.2 s
    assert bench.end() is True
    bench.sink.verdict = lambda _: None
    assert (len(deaths) <= 5, bench.sink.stored) == (True, [])
    bench.outbox.close()


def test_a_thread_that_the_system_does_not_give_now_is_started_later(
    tmp_path: Path, stub: StubBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, stub, QUICK)
    real, refused = threading.Thread.start, list[int]()

    def start(thread: threading.Thread) -> None:
        if thread.name == "flusher" and not refused:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    bench.source.rows = 3
    bench.start()
    wait_until(lambda: len(bench.sink.stored) == 3)
    assert (bench.end(), refused) == (True, [1])
    bench.outbox.close()


def told_of_threads(caplog: pytest.LogCaptureFixture) -> list[str]:
    events = [getattr(line, "event", "") for line in caplog.records]
    return [event for event in events if event.startswith("thread.")]


@pytest.fixture
def without_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step may take longer than the slack."""
    monkeypatch.setattr("agent.flusher.SEND_S", 0.0)
    monkeypatch.setattr("agent.heartbeat.BEAT_S", 0.0)


@pytest.mark.parametrize(
    ("thread", "doing"),
    [
        ("watch flusher", "reading the database"),
        ("flusher", "sending to the backend"),
        ("heartbeat", "speaking to the backend"),
    ],
)
@pytest.mark.usefixtures("without_timeouts")
def test_a_thread_that_lives_and_stands_still_is_told_and_that_it_goes_on(
    tmp_path: Path, stub: StubBackend, thread: str, doing: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dbpower")
    bench = Bench(tmp_path, stub, slack_s=2.0, interval_s=0.2)
    bench.source.rows = 5
    frozen, go_on = threading.Event(), threading.Event()

    def freeze(*_: object) -> None:
        frozen.set()
        go_on.wait(WAIT_S)

    if thread == "watch flusher":
        bench.source.before_read = freeze
    elif thread == "flusher":
        bench.sink.verdict = freeze
    else:
        bench.heartbeat._give = freeze
        stub.queue("collect")
    bench.start()
    assert frozen.wait(WAIT_S)
    wait_until(lambda: bool(bench.board.stuck))
    assert [(stuck.thread, stuck.doing) for stuck in bench.board.stuck] == [(thread, doing)]
    # CONTROL: who asks for life only sees nothing.
    workers = [life.worker for life in bench.conductor._lives.values()]
    assert [worker is not None and worker._thread.is_alive() for worker in workers] == [True] * 4
    if thread != "heartbeat":
        assert stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["stuck"] is not None, WAIT_S)
        assert stub.heartbeats[-1]["stats"]["stuck"].startswith(f"{thread}: {doing} for ")
        assert f"{thread} is stuck: {doing} for " in stub.heartbeats[-1]["error"]
    go_on.set()
    wait_until(lambda: not bench.board.stuck)
    beats = len(stub.heartbeats)
    assert stub.wait_for(lambda each: len(each.heartbeats) > beats + 1, WAIT_S)
    assert (stub.heartbeats[-1]["stats"]["stuck"], stub.heartbeats[-1]["error"]) == (None, None)
    assert bench.end() is True
    assert told_of_threads(caplog) == ["thread.stuck", "thread.unstuck"]
    bench.outbox.close()


def test_threads_that_work_and_wait_are_never_stuck(
    tmp_path: Path, stub: StubBackend, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, stub, slack_s=2.0, interval_s=0.05)
    bench.rig.watch.interval_s = 0.02
    bench.start()
    assert stub.wait_for(lambda each: len(each.heartbeats) >= 60, WAIT_S)  # longer than the slack
    assert bench.end() is True
    assert bench.source.reads > 10
    assert told_of_threads(caplog) == []
    assert {beat["stats"]["stuck"] for beat in stub.heartbeats} == {None}
    bench.outbox.close()


def test_a_thread_that_is_dead_is_not_stuck_at_what_it_did_last(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub)
    life = bench.conductor._lives["flusher"]
    life.began_s = Clock().monotonic()
    life.pulse.beat("sending to the backend")
    bench.conductor._note_death(life)
    assert (life.pulse.step, bench.conductor._dying()) == (None, ())  # one death is mended in a second
    bench.conductor._note_death(life)
    assert [(each.thread, each.since_s) for each in bench.conductor._dying()] == [("flusher", life.dying_s)]
    bench.outbox.close()
    bench.heartbeat._transport.close()


def test_what_dies_again_and_again_does_not_look_healthy(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub, Deadlines(restart_s=0.01, restart_cap_s=0.5), interval_s=0.05)

    def die(_: Envelope) -> None:
        raise ZeroDivisionError

    bench.sink.verdict = die
    bench.source.rows = 1
    bench.start()
    assert stub.wait_for(
        lambda each: bool(each.heartbeats) and each.heartbeats[-1]["stats"]["stuck"] is not None, WAIT_S
    )
    assert stub.heartbeats[-1]["stats"]["stuck"].startswith("flusher: dying again and again for ")
    bench.sink.verdict = lambda _: None
    wait_until(lambda: bench.sink.stored == ["r0"])
    assert stub.wait_for(lambda each: each.heartbeats[-1]["stats"]["stuck"] is None, WAIT_S)
    assert bench.end() is True
    bench.outbox.close()


class TimedJoin(Worker):
    """A worker that runs already; notes how long it is waited for."""

    def __init__(self, running: Worker | None, granted: list[float]) -> None:
        assert running is not None
        vars(self).update(vars(running))
        self._granted = granted

    def join(self, timeout_s: float) -> bool:
        """As it does."""
        self._granted.append(timeout_s)
        return super().join(timeout_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_puts_a_word_and_the_main_thread_ends_everything(
    tmp_path: Path, stub: StubBackend, number: signal.Signals
) -> None:
    bench = Bench(tmp_path, stub)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def kill() -> None:
        assert stub.wait_for(lambda backend: backend.requests == 1, WAIT_S)
        os.kill(os.getpid(), number)

    killer = threading.Thread(target=kill)
    try:
        Signals(bench.conductor._inbox.put).put_words()
        killer.start()
        assert bench.conductor.run() == Ended(())
    finally:
        killer.join(WAIT_S)
        for each, handler in before.items():
            signal.signal(each, handler)
    bench.outbox.close()


def test_a_stop_before_the_start_ends_at_once(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub)
    bench.conductor.stop()
    assert bench.conductor.run() == Ended(())
    bench.outbox.close()


def test_control_an_outbox_that_cannot_be_written_does_not_keep_the_process(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub, QUICK)
    bench.source.rows, bench.outbox.disk_full = 5, 1_000
    bench.start()
    wait_until(lambda: bench.outbox.failures > 0)
    assert bench.end() is True
    with pytest.raises(OutboxFull):
        bench.outbox.commit(Change())
    bench.outbox.close()


def test_several_watches_that_hang_end_by_the_same_deadline_as_one_and_the_others_are_saved(
    tmp_path: Path, stub: StubBackend, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("orders", "billing", "stock", "healthy")
    sources = {name: FakeSource() for name in names}
    hung, go_on = {name: threading.Event() for name in names[:3]}, threading.Event()

    def hang(name: str) -> None:
        hung[name].set()
        go_on.wait(WAIT_S)

    for name in hung:
        sources[name].before_read = partial(hang, name)
    sources["healthy"].rows = 7
    tree = {**several_tree(*names), "collector_id": stub.collector_id, "api_key": stub.api_key, "backend_url": stub.url}
    layers, sink = Layers(tree, {}, tmp_path), FakeSink()
    agent = wiring.build(layers.build({}), layers, wiring.Parts(sources=sources, sink=sink))
    conductor = Conductor(
        *(agent.watches, agent.flusher, agent.heartbeat, agent.door, agent.conductor._vigil),
        clock=Clock(),
        deadlines=QUICK,
    )
    ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: ended.put(not conductor.run().late), daemon=True).start()
    for event in hung.values():
        assert event.wait(WAIT_S)
    wait_until(lambda: len(sink.stored) == 7)  # three that hang do not delay the fourth
    granted: list[float] = []
    for name in hung:
        life = conductor._lives[f"watch {name}"]
        life.worker = TimedJoin(life.worker, granted)
    conductor.stop()
    assert ended.get(timeout=WAIT_S) is False
    told = [line.message for line in caplog.records if line.message.startswith("Left behind")]
    assert told == ["Left behind while hanging: watch orders, watch billing, watch stock"]
    # The first takes up the time of the watches, and later that of everything; nothing of it is left for the others.
    assert [seconds > 0.05 for seconds in granted] == [True, False, False] * 2
    go_on.set()
    wait_until(lambda: all(life.join(0) for life in conductor._lives.values()))
    agent.close()


# -- reload ------------------------------------------------------------------------------------------------------------


def another(directory: Path) -> Renewed:
    layers = Layers(config_tree(), {}, directory)
    return Renewed(layers.build({}), layers)


def test_a_reload_that_is_refused_or_says_nothing_new_ends_nothing(tmp_path: Path, stub: StubBackend) -> None:
    bench, asked = Bench(tmp_path, stub), list[int]()
    bench.renew = lambda: asked.append(1)
    bench.start()
    bench.conductor._inbox.put(Reload())
    wait_until(lambda: len(asked) == 1)
    workers = [life.worker for life in bench.conductor._lives.values()]
    bench.conductor._inbox.put(Reload())
    wait_until(lambda: len(asked) == 2)
    bench.source.rows = 3
    bench.rig.words.put(Command(1, "collect"))
    wait_until(lambda: len(bench.sink.stored) == 3)
    assert [life.worker for life in bench.conductor._lives.values()] == workers
    assert bench.end() is True
    bench.outbox.close()


def test_a_reload_ends_the_threads_saves_and_sends_the_last_turn_and_gives_what_to_go_on_with(
    tmp_path: Path, stub: StubBackend
) -> None:
    with NotifySocket(tmp_path / "notify") as systemd:
        bench = Bench(tmp_path / "data", stub, systemd=SdNotify(systemd.address))
        bench.source.rows = 30
        middle, go_on, wanted = threading.Event(), threading.Event(), another(tmp_path / "data")

        def between(at: int) -> None:
            if at == 10:
                middle.set()
                go_on.wait(WAIT_S)

        bench.source.between = between
        bench.renew = lambda: wanted
        bench.start()
        assert middle.wait(WAIT_S)
        bench.conductor._inbox.put(Reload())
        wait_until(lambda: not bench.rig.words.empty())
        go_on.set()
        assert bench.endings.get(timeout=WAIT_S) == Ended((), wanted)
        assert bench.sink.stored == [f"r{number}" for number in range(20)]
        assert all(life.join(0) for life in bench.conductor._lives.values())
        assert bench.conductor.finish(bench.outbox.close) is True
        assert systemd.wait_for(lambda heard: heard[-1].startswith("RELOADING=1\n"), WAIT_S)
        assert "STOPPING=1" not in systemd.heard


@pytest.mark.parametrize("hanging", ["watch", "flusher", "heartbeat"])
def test_what_hangs_at_a_reload_is_left_behind_and_does_nothing_more_when_it_goes_on(
    tmp_path: Path, stub: StubBackend, hanging: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, stub, PATIENT)
    bench.source.rows, bench.source.chunk = 50, 10
    bench.renew = lambda: another(tmp_path)
    hung, go_on = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hung.set()
        go_on.wait(WAIT_S)

    if hanging == "watch":
        bench.source.between = hang
    elif hanging == "flusher":
        bench.sink.verdict = hang
    else:
        bench.heartbeat._give = hang
        stub.queue("collect")
    bench.start()
    assert hung.wait(WAIT_S)
    bench.conductor._inbox.put(Reload())
    ended = bench.endings.get(timeout=WAIT_S)
    assert ([worker.name for worker in ended.late], ended.renewed is None) == (
        ["watch flusher" if hanging == "watch" else hanging],
        False,
    )
    assert bench.conductor.finish(bench.outbox.close) is True  # although the deadline of all is over
    with closing(FaultyOutbox(tmp_path, now=Clock().unix)) as new:
        new.commit(Change(bookmarks={"mine": b"1"}))
        before = {path.name: path.read_bytes() for path in tmp_path.glob("outbox*")}
        calls = len(bench.sink.requests), bench.source.reads, len(stub.heartbeats)
        caplog.clear()
        go_on.set()
        wait_until(lambda: all(worker.join(0) for worker in ended.late))
        assert {path.name: path.read_bytes() for path in tmp_path.glob("outbox*")} == before
    assert (len(bench.sink.requests), bench.source.reads, len(stub.heartbeats)) == calls
    assert caplog.messages == []
    assert (bench.source.closes, bench.sink.closes) == (1, 1)


def test_control_what_hangs_and_is_not_cut_off_goes_on_with_what_is_closed(
    tmp_path: Path, stub: StubBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pulse, "cut", lambda _: None)
    bench = Bench(tmp_path, stub, PATIENT)
    bench.source.rows = 50
    hung, go_on, tried = threading.Event(), threading.Event(), list[OutboxBroken]()

    def hang(_: int) -> None:
        hung.set()
        go_on.wait(WAIT_S)

    def commit(_: Change) -> None:
        tried.append(OutboxBroken("closed"))
        raise tried[-1]

    bench.source.between = hang
    bench.renew = lambda: another(tmp_path)
    bench.start()
    assert hung.wait(WAIT_S)
    bench.conductor._inbox.put(Reload())
    (late,) = bench.endings.get(timeout=WAIT_S).late
    bench.outbox.close()
    monkeypatch.setattr(bench.outbox, "commit", commit)
    go_on.set()
    wait_until(lambda: late.join(0))
    assert len(tried) == 1


def test_an_end_that_is_asked_for_while_a_reload_ends_the_threads_is_one(
    tmp_path: Path, stub: StubBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dbpower")
    bench = Bench(tmp_path, stub)
    middle, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        middle.set()
        go_on.wait(WAIT_S)

    bench.source.before_read = hang
    bench.renew = lambda: another(tmp_path)
    bench.start()
    assert middle.wait(WAIT_S)
    bench.conductor._inbox.put(Reload())
    wait_until(lambda: not bench.rig.words.empty())
    bench.conductor.stop()
    go_on.set()
    assert bench.endings.get(timeout=WAIT_S) == Ended(())
    assert caplog.messages[-1] == "Stopped"
    bench.outbox.close()


def test_a_reload_during_a_reload_is_for_the_next_conductor_and_a_death_before_is_none_of_its(
    tmp_path: Path, stub: StubBackend
) -> None:
    inbox: Inbox = queue.SimpleQueue()
    first = Bench(tmp_path, stub, inbox=inbox)
    first.renew = lambda: another(tmp_path)
    inbox.put(Reload())
    inbox.put(Reload())
    assert first.conductor.run(first.renew).renewed is not None
    inbox.put(_Died(first.conductor._lives["flusher"]))
    assert (inbox.qsize(), is_to_stop(inbox), inbox.qsize()) == (2, False, 2)
    first.outbox.close()
    asked: list[int] = []
    second = Bench(tmp_path, stub, inbox=inbox)
    second.renew = lambda: asked.append(1)
    second.start()
    wait_until(lambda: inbox.empty() and asked == [1])
    assert [life.due_s for life in second.conductor._lives.values()] == [None] * 4
    inbox.put(Stop())
    assert second.ended.get(timeout=WAIT_S) is True
    second.outbox.close()


def test_a_close_that_hangs_is_noticed_in_time(tmp_path: Path, stub: StubBackend) -> None:
    bench = Bench(tmp_path, stub, Deadlines(0.1, 0.2, 0.3, close_s=0.2))
    go_on = threading.Event()

    def hang() -> None:
        go_on.wait(WAIT_S)

    bench.renew = lambda: another(tmp_path)
    bench.start()
    bench.conductor._inbox.put(Reload())
    assert bench.endings.get(timeout=WAIT_S).renewed is not None
    assert bench.conductor.finish(hang) is False
    go_on.set()
    bench.outbox.close()
