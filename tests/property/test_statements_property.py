"""Random lives of statement counters against a model; the source's own code runs, only its connection is a fake.

What could go wrong: some order of calls, looks, crashes between partial commits, resets of all or of single statements,
evictions, crashes and restarts of servers, failovers there and back, and clocks that jump makes the sum of delivered
calls larger than what was counted, or smaller without a gap; a loss is told once for each statement, or without cause;
a reason is wrong although the extension tells it; more is said to have arrived than did.
And: the model sees nothing, so each defect that it is for has a
control, a source that is broken in that way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from itertools import islice

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.config.schema import DbConfig
from agent.sources import Reading, SourceSettings, _statement_bookmark
from agent.sources._statement_gaps import Gaps, gaps_of
from agent.sources._statement_servers import CRASH_S, Recognised
from agent.sources.pg_stat_statements import StatementStatistics
from tests.fakes.clock import ManualClock
from tests.property.statements_world import NAMES, SLOW_MS, Server, Wire, World

MANY = 130  # more than one reading holds
VERSIONS = ((1, 8), (1, 10), (1, 12))
FORGOTTEN = {"reset", "partial_reset", "evicted", "crash_reset"}
OF_STATEMENTS = "statements, of which"
IN_DOUBT = "may have been read before"
WHO = st.sampled_from(NAMES)
SEEN = tuple[float, float, int, dict[int, float]]  # of a server at a look: reset, run, dealloc, since by statement


class StatementsLife(RuleBasedStateMachine):
    """`excused`: calls by server and statement that need not come: lost before a first look, or told by a gap."""

    hides_since = False

    @initialize(version=st.sampled_from(VERSIONS))
    def begin(self, version: tuple[int, int]) -> None:
        self.version = version
        servers = [Server(name, version, 10.0 * at, self.hides_since) for at, name in enumerate(NAMES, 1)]
        self.world = World({server.name: server for server in servers})
        self.clock = ManualClock()
        self.bookmark: bytes | None = None
        self.delivered: dict[str, Counter[int]] = {name: Counter() for name in NAMES}
        self.excused: dict[str, Counter[int]] = {name: Counter() for name in NAMES}
        self.told: dict[str, list[str]] = {name: [] for name in NAMES}  # since the last whole look at it
        self.hidden: set[str] = set()  # servers with a loss that this version cannot show
        self.seen: dict[str, SEEN] = {}  # by the last whole look
        self.last_seen: str | None = None
        self.looked: set[str] = set()
        self.last_kept = ""
        self.ran: dict[str, int] = {}  # calls up to the last whole look
        self.known: dict[str, set[int]] = {name: set() for name in NAMES}
        self.clocks_jumped = False
        self.has_cause = False
        self.causes: Counter[str] = Counter()  # why a server may have lost counters, since the last whole look at it
        self.told_of_statements: Counter[str] = Counter()  # gaps, since then
        self.source = self._source()
        self.call_many()

    def _source(self) -> StatementStatistics:
        db = DbConfig(host="h", user="u", min_exec_time_ms=SLOW_MS)
        return StatementStatistics(SourceSettings("default", db, 5432), self.clock, lambda *_: Wire(self.world))

    # -- what servers do ----------------------------------------------------------------------------------------

    @rule(name=WHO, queryid=st.integers(1, 5), count=st.integers(1, 4))
    def call(self, name: str, queryid: int, count: int) -> None:
        self.world.servers[name].call(queryid, count, self.world.tick())

    @rule()
    def call_many(self) -> None:
        for queryid in range(1, MANY + 1):
            self.world.here.call(queryid, 1, self.world.now_s)

    @rule(name=WHO)
    def reset(self, name: str) -> None:
        self._will_forget(name, self.world.servers[name].counted, is_shown=self.version >= (1, 9))
        self.world.servers[name].reset(self.world.tick())

    @rule(name=WHO, saves=st.booleans())
    def restart(self, name: str, saves: bool) -> None:
        """With `saves` as an administrator would, without as after a crash. Before 1.9 only the one that is looked at:
        nothing would show that it is the same and not one that came in between."""
        if self.version < (1, 9) and not (name == self.world.answering and self.last_kept in {name, ""}):
            return
        if not saves:
            self._will_forget(name, self.world.servers[name].counted, is_shown=self.version >= (1, 9))
        self._may_be_any()
        self.world.servers[name].restart(self.world.tick(), saves=saves)

    @precondition(lambda self: self.world.here.counted)
    @rule(data=st.data(), calls_after=st.integers(0, 6), is_eviction=st.booleans())
    def forget_one(self, data: st.DataObject, calls_after: int, is_eviction: bool) -> None:
        """One is dropped and may come back at once, with more calls than before or fewer."""
        queryid = data.draw(st.sampled_from(sorted(self.world.here.counted)))
        self.forget(queryid, calls_after=calls_after, is_eviction=is_eviction)

    def forget(self, queryid: int, *, calls_after: int, is_eviction: bool) -> None:
        """That one."""
        server = self.world.here
        # Who resets a single statement that no look has seen leaves no trace.
        is_known = queryid in self.known[server.name]
        is_shown = self.version >= (1, 9) if is_eviction else self.version >= (1, 11) and is_known
        self._will_forget(server.name, [queryid], is_shown=is_shown)
        del server.counted[queryid]
        server.dealloc += is_eviction
        if calls_after:
            server.call(queryid, calls_after, self.world.tick())

    @rule(name=WHO)
    def come_and_go(self, name: str) -> None:
        """A statement that no look sees."""
        server = self.world.servers[name]
        server.call(MANY + 1, 1, self.world.tick())
        self._will_forget(name, [MANY + 1], is_shown=self.version >= (1, 9))
        del server.counted[MANY + 1]
        server.dealloc += 1

    @rule(name=WHO)
    def fail_over(self, name: str) -> None:
        if name != self.world.answering:
            self.world.answering, self.has_cause = name, True
            self._may_be_any()

    def _may_be_any(self) -> None:
        """Which server answers cannot be told from what this version shows: it may be compared with another one."""
        if self.version < (1, 9):
            self.has_cause = True
            self.causes.update(NAMES)

    @precondition(lambda self: self.version >= (1, 9))
    @rule(name=WHO, seconds=st.sampled_from([-3_600.0, -7.0, 7.0, 3_600.0]))
    def set_the_clock_of_a_server(self, name: str, seconds: float) -> None:
        self.clocks_jumped = self.has_cause = True
        self.world.servers[name].skew_s += seconds

    def _will_forget(self, name: str, queryids: Iterable[int], *, is_shown: bool) -> None:
        server = self.world.servers[name]
        self.has_cause = True
        self.causes[name] += 1
        if name not in self.looked:  # nobody can tell what was lost before
            self.excused[name].update({queryid: server.counted[queryid][0] for queryid in queryids})
        elif not is_shown:
            self.hidden.add(name)

    # -- what the agent does ------------------------------------------------------------------------------------

    @rule()
    def restart_the_agent(self) -> None:
        self.source.close()
        self.source = self._source()

    @rule(hours=st.integers(-2, 2))
    def set_the_clock_of_the_agent(self, hours: int) -> None:
        self.clock.set_wall(self.clock.now() + timedelta(hours=hours))

    @rule(take=st.integers(1, 2), lost=st.integers(0, 2))
    def look_cut_short(self, take: int, lost: int) -> None:
        """Some readings are taken, the last `lost` of them are not committed, and the connection or the agent goes."""
        self.world.tick()
        with closing(self.source.read(self.bookmark)) as readings:
            taken = list(islice(readings, take))
        for reading in taken[: max(0, take - lost)]:
            self.has_cause = True  # what is not sent yet is told again
            self.seen.clear()
            self._keep(reading)

    @rule()
    def look(self) -> None:
        self.world.tick()
        server, gaps = self.world.here, 0
        before, coverage = self.delivered[server.name].total(), None
        for reading in self.source.read(self.bookmark):
            self._keep(reading)
            self._compare_reasons(reading)
            gaps += len(reading.gaps)
            coverage = reading.coverage
        self._compare_coverage(coverage, self.delivered[server.name].total() - before)
        assert gaps <= 2 if self.has_cause else gaps == 0
        missing = server.truth - self.delivered[server.name] - self.excused[server.name]
        assert not missing or self._is_told(server.name), f"{missing} is missing without a gap"
        self.excused[server.name] += missing
        self.told[server.name].clear()
        self.hidden.discard(server.name)
        since = {queryid: row[4] for queryid, row in server.counted.items()}
        self.known[server.name] = set(since)
        self.ran[server.name] = server.truth.total()
        self.seen[server.name] = (server.reset_at, server.run_at, server.dealloc, since)
        self.last_seen, self.has_cause = server.name, False
        self.causes[server.name] = self.told_of_statements[server.name] = 0

    def _is_told(self, name: str) -> bool:
        return name in self.hidden or bool(self.told[name])

    def _keep(self, reading: Reading) -> None:
        name = self.world.answering
        for record in reading.records:
            assert record.window is not None
            assert record.window.calls > 0
            assert record.window.total_exec_time_ms == record.window.calls * SLOW_MS
            assert record.window.rows == record.window.calls
            whose, queryid = record.sql_text.split()
            assert whose == name
            self.delivered[name][int(queryid)] += record.window.calls
            self.known[name].add(int(queryid))
        for gap in reading.gaps:
            # What is told of the server before; one that was new at the address passes for it behind a crash.
            if gap.reason in {"other_server", "crash_reset", "reset"}:
                self.told[self.last_kept or name].append(gap.reason)
            if gap.reason != "other_server" or IN_DOUBT in gap.detail:
                self.told[name].append(gap.reason)
            self.told_of_statements[name] += OF_STATEMENTS in gap.detail
        assert self.told_of_statements[name] <= self.causes[name], "one loss is told twice"
        assert {gap.reason for gap in reading.gaps} <= {*FORGOTTEN, "other_server"}
        self.looked.add(name)
        self.last_kept = name
        self.bookmark = reading.bookmark

    def _compare_coverage(self, coverage: float | None, delivered: int) -> None:
        """It never says more than the part of the calls that arrived. Behind a look that was cut two windows meet."""
        server = self.world.here
        if coverage is None or server.name not in self.seen or server.name in self.hidden:
            return
        ran = server.truth.total() - self.ran[server.name]
        assert (0 <= coverage <= delivered / ran + 0.0001) if ran else coverage == 1

    def _compare_reasons(self, reading: Reading) -> None:
        if self.version < (1, 11) or self.clocks_jumped:
            return
        for record in reading.records:
            assert record.window is not None
            assert record.window.reason in self._reasons(int(record.sql_text.split()[1]))

    def _reasons(self, queryid: int) -> set[str]:
        """What may be said; one word wherever the server shows it. After a look that was cut nothing is expected."""
        server = self.world.here
        if server.name not in self.seen:
            return set(ALL) if self.looked - {server.name} or self.last_seen is None else {*ALL} - {"other_server"}
        reset, run, dealloc, since = self.seen[server.name]
        if reset != server.reset_at:
            if run != server.run_at and server.name != self.last_seen:
                return {"other_server", "crash_reset", "reset"}
            is_crash = server.run_at - CRASH_S <= server.reset_at <= server.run_at and run != server.run_at
            return {"crash_reset" if is_crash else "reset"}
        if queryid not in since:
            return {"new"}
        if since[queryid] != server.counted[queryid][4]:
            return {"evicted_reentered" if dealloc != server.dealloc else "partial_reset"}
        return {"normal"}

    @invariant()
    def nothing_is_delivered_that_was_not_counted(self) -> None:
        for name, server in self.world.servers.items():
            assert self.delivered[name] + self.excused[name] <= server.truth


ALL = ("first_look", "new", "normal", "reset", "partial_reset", "evicted_reentered", "crash_reset", "other_server")
StatementsLife.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestStatementsLife = StatementsLife.TestCase


# -- what the lives meet, and what they would notice ----------------------------------------------------------------

Step = tuple[str, dict[str, object]]


def do(word: str, **arguments: object) -> Step:
    return word, arguments


def play(
    *steps: Step, life: type[StatementsLife] = StatementsLife, version: tuple[int, int] = (1, 12)
) -> StatementsLife:
    """One life of a choice, with all that is asserted in each."""
    lived = life()
    lived.begin(version=version)
    lived.nothing_is_delivered_that_was_not_counted()
    for word, arguments in steps:
        getattr(lived, word)(**arguments)
        lived.nothing_is_delivered_that_was_not_counted()
    return lived


LOOK, GO, BACK = do("look"), do("fail_over", name="B"), do("fail_over", name="A")
CALL = do("call", name="A", queryid=1, count=2)


def forget(*, is_eviction: bool) -> Step:
    return do("forget", queryid=1, calls_after=5, is_eviction=is_eviction)


LIVES = {
    "first_look, normal": [LOOK, CALL, LOOK],
    "new": [LOOK, do("call", name="A", queryid=MANY + 9, count=1), LOOK],
    "reset": [LOOK, CALL, do("reset", name="A"), CALL, LOOK],
    "partial_reset": [LOOK, forget(is_eviction=False), LOOK],
    "evicted_reentered": [LOOK, forget(is_eviction=True), LOOK],
    "crash_reset": [LOOK, do("restart", name="A", saves=False), CALL, LOOK],
    "other_server": [LOOK, GO, do("call", name="B", queryid=1, count=3), LOOK, BACK, CALL, LOOK],
}


def test_the_lives_meet_every_reason_and_every_gap() -> None:
    met: set[str] = set()

    class Collected(StatementsLife):
        def _keep(self, reading: Reading) -> None:
            super()._keep(reading)
            met.update(record.window.reason for record in reading.records if record.window)
            met.update(f"gap {gap.reason}" for gap in reading.gaps)

    for steps in LIVES.values():
        play(*steps, life=Collected)
    assert met == {*ALL, *(f"gap {reason}" for reason in (*FORGOTTEN, "other_server"))}


class SinceIsIgnored(StatementsLife):
    """What counts anew is subtracted from when it came back larger."""

    hides_since = True


def at_once(found: Gaps) -> Gaps:
    return Gaps(found.of_the_server + found.of_statements, ())


def test_a_source_that_tells_a_loss_before_it_is_kept_as_told_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [LOOK, forget(is_eviction=True), do("call_many"), do("look_cut_short", take=1, lost=0), LOOK]
    play(*steps)
    monkeypatch.setattr("agent.sources.pg_stat_statements.gaps_of", lambda *known: at_once(gaps_of(*known)))
    with pytest.raises(AssertionError, match="told twice"):
        play(*steps)


def test_a_source_that_ignores_since_when_a_statement_counts_is_found_out() -> None:
    with pytest.raises(AssertionError):
        play(LOOK, forget(is_eviction=False), LOOK, life=SinceIsIgnored)


def always_the_same(*_: object) -> Recognised:
    return Recognised(0, "normal")


def never_read(*_: object) -> bool:
    return True


def no_evictions(*_: object) -> int:
    return 0


def no_gaps(*_: object) -> Gaps:
    return Gaps((), ())


@pytest.mark.parametrize(
    ("where", "broken", "steps"),
    [
        pytest.param(
            "_statement_bookmark.recognise", always_the_same, LIVES["other_server"],
            id="baselines of two servers are mixed",
        ),
        pytest.param(
            "_statement_servers._is_unread", never_read, LIVES["other_server"],
            id="a server that was given up is taken for new",
        ),
        pytest.param(
            "_statement_counters.Baseline._evictions", no_evictions, LIVES["evicted_reentered"],
            id="evictions are ignored",
        ),
        pytest.param("pg_stat_statements.gaps_of", no_gaps, LIVES["reset"], id="losses are not told"),
    ],
)  # fmt: skip
def test_a_broken_source_is_found_out(
    where: str, broken: object, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_statement_bookmark, "SERVERS_KEPT", 0)
    play(*steps)
    monkeypatch.setattr(f"agent.sources.{where}", broken)
    with pytest.raises(AssertionError):
        play(*steps)


def test_servers_that_are_given_up_double_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statement_bookmark, "SERVERS_KEPT", 0)
    run_state_machine_as_test(StatementsLife, settings=settings(StatementsLife.TestCase.settings, max_examples=50))


def test_a_crash_that_a_restart_hides_says_nothing_of_how_much_is_known() -> None:
    many = do("call_many")
    play(LOOK, many, do("restart", name="A", saves=False), many, many, do("restart", name="A", saves=True), LOOK)
