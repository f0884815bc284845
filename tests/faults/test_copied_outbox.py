"""Two agents and one outbox: on the same one, and on a copy of it.

What could go wrong: a second agent on the same outbox starts and sends everything twice, perhaps because somebody has
deleted the lock file; the refusal does not say who is there, or disturbs him; a copy that is replayed beside the agent
that goes on doubles records at a backend that honours keys; two installations use the same keys, so that a backend
takes the records of one for those of the other.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.dev.server_process import free_port, wait_until
from storage.audit import audit
from storage.envelope import Change, Draft
from storage.outbox import Outbox
from storage.view import OutboxView
from tests.faults.mishaps import Mishap
from tests.faults.reckoning import Effect, Exchange
from tests.faults.unsteady_backend import UnsteadyBackend
from tests.servers.agent_process import AgentProcess, run_agent, settings, write

PROGRAM = "tests.servers.numbered_agent"
ROWS, BATCH = 200, 7
ENVELOPES = -(-ROWS // BATCH)
SOON_S = 20.0
RUNNING = 3
NO_SOCKET = shutil.ignore_patterns("agent.sock")  # it cannot be copied, and tells of the other agent
IDS = {f"r{number}" for number in range(ROWS)}


class Site:
    """Agents with directories of their own, before one backend that is away at first."""

    def __init__(self, place: Path, *, honours_keys: bool) -> None:
        self.place = place
        self.backend = UnsteadyBackend(honours_keys=honours_keys, seed=1)
        self.backend.order(Mishap.REFUSED)
        self.agents: list[AgentProcess] = []

    def agent(self, name: str) -> AgentProcess:
        """One that is not started yet, with `place/name/data`."""
        db_config = {"host": "127.0.0.1", "port": free_port(), "user": "nobody"}
        known = settings(self.backend, "mysql", db_config, outbox={"batch_max_records": BATCH})
        self.agents.append(
            AgentProcess(write(self.place / name, known), program=PROGRAM, variables={"ROWS": str(ROWS)})
        )
        return self.agents[-1]

    def start(self, agent: AgentProcess, life: int, **variables: str) -> None:
        """The backend sees it as that life."""
        agent.start(DBPOWER_BACKEND_URL=self.backend.address(life), **variables)

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Until it holds."""
        assert self.backend.wait_for(lambda _: predicate(), SOON_S), [agent.said()[-2_000:] for agent in self.agents]

    def offered(self, life: int) -> set[str]:
        """The keys that this one has sent."""
        return {each.key for each in self.backend.of_life(life)}

    def settled(self, life: int) -> int:
        """How many envelopes were accepted of this one."""
        return len({each.key for each in self.backend.of_life(life) if each.told})

    @property
    def stored(self) -> Counter[str]:
        """How often each record was stored."""
        return Counter(record["id"] for each in self._with(Effect.STORED) for record in each.records)

    def _with(self, effect: Effect) -> list[Exchange]:
        return [each for each in self.backend.exchanges if each.effect is effect]

    @property
    def recognised(self) -> int:
        """Requests whose key was known."""
        return len(self._with(Effect.RECOGNISED))

    def close(self) -> None:
        """The end of all."""
        for agent in self.agents:
            agent.kill()
        self.backend.close()


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, honours_keys=getattr(request, "param", True))
    yield made
    made.close()


def full(site: Site, name: str = "first") -> AgentProcess:
    """An agent that runs, has collected everything, and cannot deliver it."""
    agent = site.agent(name)
    site.start(agent, 0)
    wait_until_full(agent)
    return agent


def wait_until_full(agent: AgentProcess) -> None:
    def waiting() -> int:
        with OutboxView(agent.data_dir) as view:
            return view.tally("queries").pending

    assert wait_until(lambda: waiting() == ROWS, SOON_S), agent.said()[-2_000:]


# -- on the same outbox ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["run"], ["once"]], ids=lambda words: str(words[0]))
@pytest.mark.parametrize("lock_is_deleted", [False, True], ids=["locked", "lock file deleted"])
def test_a_second_agent_on_the_same_outbox_is_refused_and_disturbs_nobody(
    site: Site, words: list[str], lock_is_deleted: bool
) -> None:
    first = full(site)
    if lock_is_deleted:
        (first.data_dir / "agent.lock").unlink()
    refused = run_agent(*words, "--config", first.config, DBPOWER_BACKEND_URL=site.backend.address(1))
    assert (refused.returncode, refused.stderr.startswith("[OB-03] ")) == (RUNNING, True)
    assert lock_is_deleted or f"is held by process {first.pid}" in refused.stderr
    site.backend.recover()
    site.wait_for(lambda: site.settled(0) == ENVELOPES)
    assert first.is_running
    assert (set(site.stored), set(site.stored.values()), site.offered(1)) == (IDS, {1}, set())


def test_who_only_looks_is_let_in(site: Site) -> None:
    first = full(site)
    looked = run_agent("audit", first.data_dir)
    assert (looked.returncode, "pending 200" in looked.stdout) == (0, True)


@pytest.mark.parametrize("site", [False], indirect=True, ids=["keys ignored"])
def test_control_without_the_lock_a_second_one_sends_the_same_and_doubles_it(site: Site) -> None:
    first = site.agent("first")
    site.start(first, 0, UNLOCKED="1")
    wait_until_full(first)
    site.backend.order(Mishap.HANGS)
    site.wait_for(lambda: any(each.mishap == Mishap.HANGS and each.records for each in site.backend.of_life(0)))
    second = AgentProcess(first.config, program=PROGRAM, variables={"ROWS": str(ROWS)})
    site.agents.append(second)
    site.start(second, 1, UNLOCKED="1")
    site.wait_for(lambda: any(each.records for each in site.backend.of_life(1)))
    site.backend.recover()
    site.wait_for(lambda: max(site.stored.values(), default=0) > 1)
    assert second.is_running


# -- on a copy -------------------------------------------------------------------------------------------------------


def copied(site: Site, original: AgentProcess) -> AgentProcess:
    """Another agent whose data directory is a copy of that of one that runs."""
    second = site.agent("second")
    shutil.copytree(original.data_dir, second.data_dir, ignore=NO_SOCKET)
    return second


def replay_beside_each_other(site: Site) -> tuple[AgentProcess, AgentProcess]:
    """Both deliver everything."""
    first = full(site)
    second = copied(site, first)
    site.start(second, 1)
    site.wait_for(lambda: bool(site.offered(1)))  # it is refused as well: both have everything still
    site.backend.recover()
    site.wait_for(lambda: site.settled(0) == site.settled(1) == ENVELOPES)
    assert (first.end(), second.end()) == (0, 0)
    for agent in (first, second):
        found = audit(agent.data_dir)
        assert found.balances
        assert [(each.captured, each.delivered) for each in found.accounts if each.captured] == [(ROWS, ROWS)]
    return first, second


def test_a_copy_that_is_replayed_beside_the_running_agent_doubles_nothing_where_keys_are_honoured(site: Site) -> None:
    replay_beside_each_other(site)
    assert site.offered(0) == site.offered(1)
    assert (set(site.stored), set(site.stored.values())) == (IDS, {1})
    assert site.recognised == ENVELOPES


@pytest.mark.parametrize("site", [False], indirect=True, ids=["keys ignored"])
def test_control_where_keys_are_ignored_the_copy_doubles_everything(site: Site) -> None:
    replay_beside_each_other(site)
    assert (set(site.stored), set(site.stored.values()), site.recognised) == (IDS, {2}, 0)


def test_a_copy_that_is_replayed_after_everything_was_delivered_doubles_nothing(site: Site) -> None:
    first = full(site)
    second = copied(site, first)
    site.backend.recover()
    site.wait_for(lambda: site.settled(0) == ENVELOPES)
    assert first.end() == 0
    site.start(second, 1)
    site.wait_for(lambda: site.settled(1) == ENVELOPES)
    assert (set(site.stored), set(site.stored.values()), site.recognised) == (IDS, {1}, ENVELOPES)


# -- keys ------------------------------------------------------------------------------------------------------------


def test_two_installations_with_the_same_records_are_not_taken_for_one(site: Site) -> None:
    for life, name in enumerate(("first", "second")):
        site.start(site.agent(name), life)
    site.wait_for(lambda: bool(site.offered(0) and site.offered(1)))
    site.backend.recover()
    site.wait_for(lambda: site.settled(0) == site.settled(1) == ENVELOPES)
    assert (set(site.stored), set(site.stored.values()), site.recognised) == (IDS, {2}, 0)
    assert site.offered(0) & site.offered(1) == set()
    # All but the name of the installation is the same: nothing else keeps them apart.
    assert _without_installation(site.offered(0)) == _without_installation(site.offered(1))


def _without_installation(keys: set[str]) -> set[str]:
    return {key.split("-", 1)[1] for key in keys}


def test_every_key_begins_with_the_name_of_its_installation(tmp_path: Path) -> None:
    names = set()
    for number in range(20):
        with closing(Outbox(tmp_path / str(number))) as outbox:
            outbox.commit(Change((Draft("queries", 1, b"body"),)))
            envelope = outbox.head("queries")
            assert envelope is not None
            assert envelope.key.startswith(f"{outbox.installation}-1-")
            names.add(outbox.installation)
    assert len(names) == 20


def test_a_copy_that_goes_on_by_itself_never_gives_a_key_of_the_original_to_another_body(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "first")) as outbox:
        outbox.commit(Change((Draft("queries", 1, b"common"),)))
    shutil.copytree(tmp_path / "first", tmp_path / "second", ignore=NO_SOCKET)
    keys = {}
    for name in ("first", "second"):
        with closing(Outbox(tmp_path / name)) as outbox:
            outbox.commit(Change((Draft("queries", 1, name.encode()),)))
            heads = [outbox.head("queries"), outbox.head("queries", [1])]
            keys[name] = [(each.seq, each.key) for each in heads if each is not None]
    assert keys["first"][0] == keys["second"][0]
    assert keys["first"][1][0] == keys["second"][1][0]
    assert keys["first"][1][1] != keys["second"][1][1]
