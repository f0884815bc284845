"""What the agent knows of itself: runners report here, others read a frozen snapshot. Shares no lock with anyone.

Every slot has one writer, and replacing a slot is one assignment; so the heartbeat can look at any time without
waiting for collection or delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from agent import __version__, canary
from agent.canary import Sighting
from agent.cost import Spent
from agent.losses import as_stats
from agent.pulse import Stuck, thread_of
from storage.envelope import Losses, Tally

# The states of the machine by their names: this floor lies below the machine's; a test compares them.
IDLE, PAUSED = "idle", "paused"
FIRST_PRESENT = ("reconnecting", PAUSED, "collecting", IDLE)


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """One watch, written by its own thread. `error` is what is wrong now, None when it is over.

    `since`: when it came into its state; `due_at`: when it looks or tries next, None while it waits for a word;
    `coverage`: of its last whole look, as the reading told it; `canary`: the last one that it read.
    """

    state: str = IDLE
    since: datetime | None = None
    due_at: datetime | None = None
    reason: str = ""
    error: str | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    errors_count: int = 0
    last_collection_at: datetime | None = None
    coverage: float | None = None
    spent: Spent = field(default_factory=Spent)
    canary: Sighting | None = None


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link to the backend as one runner sees it: the error of now and monotonic seconds of the last 2xx."""

    error: str | None = None
    accepted_at_s: float | None = None
    clock_skew_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole agent at one instant."""

    watches: dict[str, WatchStatus]
    books: Tally
    losses: Losses
    delivery: LinkStatus
    heartbeat: LinkStatus
    stuck: tuple[Stuck, ...]
    canaries_accepted: Mapping[str, datetime]
    remote_changes: str | None
    uptime_s: float
    now_s: float
    now_unix: float

    @property
    def state(self) -> str:
        """The first present of reconnecting, paused, collecting, idle."""
        states = {watch.state for watch in self.watches.values()}
        return next((state for state in FIRST_PRESENT if state in states), IDLE)

    @property
    def error(self) -> str | None:
        """What is wrong now, in one line; None when nothing is. The backend shows it as status ERROR."""
        wrong = [self._named(name, watch.error) for name, watch in self.watches.items() if watch.error]
        wrong += [self.delivery.error] if self.delivery.error else []
        wrong += [f"{each.thread} is stuck: {each.lasting(self.now_s)}" for each in self.stuck]
        return "; ".join(wrong) or None

    def stats(self) -> dict[str, object]:
        """The `stats` of a heartbeat."""
        watches = self.watches.values()
        reasons = {name: self._reason(name) for name in self.watches}
        failed = [(watch.last_error_at, name) for name, watch in self.watches.items() if watch.last_error_at]
        collected = [watch.last_collection_at for watch in watches if watch.last_collection_at]
        oldest_s = max(0.0, self.now_unix - self.books.oldest_at) if self.books.oldest_at is not None else 0.0
        return {
            "queries_collected": self.books.captured,
            "errors_count": sum(watch.errors_count for watch in watches),
            "uptime_seconds": round(self.uptime_s),
            "last_error": self._named(last := max(failed)[1], self.watches[last].last_error) if failed else None,
            "version": __version__,
            "state": self.state,
            "state_reason": "; ".join(self._named(name, reason) for name, reason in reasons.items() if reason),
            "queries_delivered": self.books.delivered,
            "outbox_records": self.books.pending,
            "outbox_bytes": self.books.pending_bytes,
            "outbox_oldest_seconds": round(oldest_s),
            "parked": self.books.parked,
            "gaps": self.books.gaps,
            **as_stats(self.losses),
            "possible_duplicates": self.books.possible_duplicates,
            "last_collection_at": max(collected) if collected else None,
            "backend_clock_skew_seconds": self.heartbeat.clock_skew_s,
            "stuck": "; ".join(f"{each.thread}: {each.lasting(self.now_s)}" for each in self.stuck) or None,
            "remote_changes": self.remote_changes,
            **self._cost(*watches),
            "coverage": min((watch.coverage for watch in watches if watch.coverage is not None), default=None),
            "watches": {name: self._of(watch, reasons[name]) for name, watch in self.watches.items()},
        }

    def overview(self) -> dict[str, object]:
        """All that is known, for who asks here: the `stats` of a heartbeat, and what only changes from beat to beat.

        `error`: what is wrong now; `delivery`, `heartbeat`: the links to the backend.
        """
        watches = {
            name: {
                **self._of(watch, self._reason(name)),
                "error": watch.error,
                "since": watch.since,
                "due": watch.due_at,
                "canary": self._canary(watch.canary),
            }
            for name, watch in self.watches.items()
        }
        links = {"delivery": self._link(self.delivery), "heartbeat": self._link(self.heartbeat)}
        return {"error": self.error, **self.stats(), **links, "watches": watches}

    def _canary(self, sighting: Sighting | None) -> dict[str, object] | None:
        if sighting is None:
            return None
        accepted_at = self.canaries_accepted.get(sighting.name)
        is_it = accepted_at is not None and accepted_at >= sighting.read_at
        return {**asdict(sighting), "accepted_at": accepted_at if is_it else None}

    def _link(self, link: LinkStatus) -> dict[str, object]:
        ago_s = None if link.accepted_at_s is None else round(self.now_s - link.accepted_at_s, 1)
        return {"error": link.error, "accepted_seconds_ago": ago_s}

    def _of(self, watch: WatchStatus, reason: str) -> dict[str, object]:
        return {
            "state": watch.state,
            "state_reason": reason,
            "errors_count": watch.errors_count,
            "last_error": watch.last_error,
            "last_collection_at": watch.last_collection_at,
            "coverage": watch.coverage,
            **self._cost(watch),
        }

    def _named(self, name: str, sentence: str | None) -> str:
        """What concerns one watch, with its name when there are several."""
        return f"{name}: {sentence}" if len(self.watches) > 1 else sentence or ""

    def _cost(self, *watches: WatchStatus) -> dict[str, object]:
        spent = [watch.spent for watch in watches]
        return {
            "look_seconds": round(sum(each.look.seconds for each in spent), 3),
            "look_rows": sum(each.look.rows for each in spent),
            "look_bytes": sum(each.look.bytes for each in spent),
            "database_load": round(max((each.load.share(self.now_s) for each in spent), default=0.0), 7),
            "collection_interval_effective": max((each.pace_s for each in spent), default=None),
        }

    def _reason(self, name: str) -> str:
        watch = self.watches[name]
        reasons = [watch.reason, watch.spent.note]
        reasons += [f"stuck: {each.lasting(self.now_s)}" for each in self.stuck if each.thread == thread_of(name)]
        return "; ".join(filter(None, reasons))


class Scoreboard:
    """Where runners report and from where a Status is taken."""

    def __init__(self, started_at_s: float) -> None:
        self._started_at_s = started_at_s
        self._watches: dict[str, WatchStatus] = {}
        self.books = Tally()
        self.losses = Losses()
        self.delivery = LinkStatus()
        self.heartbeat = LinkStatus()
        self.stuck: tuple[Stuck, ...] = ()  # written by the conductor
        self._canaries_accepted: dict[str, datetime] = {}  # written by the flusher
        self.remote_changes: str | None = None  # why those of earlier are left out

    def watch(self, name: str) -> WatchStatus:
        """What that watch reported last."""
        return self._watches.get(name, WatchStatus())

    def report(self, name: str, **changes: object) -> None:
        """Called by the watch's own thread only."""
        # In place: a new dict made of the old one would undo what another watch reports at the same moment.
        self._watches[name] = replace(self.watch(name), **changes)  # type: ignore[arg-type]

    def canaries_awaited(self, now: datetime) -> set[str]:
        """The names of the canaries that were read and not accepted yet; nearly always none."""
        read = [watch.canary for watch in tuple(self._watches.values()) if watch.canary is not None]
        return canary.awaited(read, self._canaries_accepted, now) if read else set()

    def has_accepted(self, name: str, at: datetime) -> None:
        """The backend has the canary of that name; called by the flusher's thread only."""
        known = {watch.canary.name for watch in tuple(self._watches.values()) if watch.canary is not None}
        kept = {each: when for each, when in self._canaries_accepted.items() if each in known}
        self._canaries_accepted = {**kept, name: at}

    def has_lost(self, losses: Losses) -> None:
        """Called with what is known to be lost, by whoever wrote it down."""
        self.losses = losses

    def status(self, *, now_s: float, now_unix: float) -> Status:
        """A snapshot; `now_s` monotonic, `now_unix` Unix seconds."""
        return Status(
            watches=dict(self._watches),
            books=self.books,
            losses=self.losses,
            delivery=self.delivery,
            heartbeat=self.heartbeat,
            stuck=self.stuck,
            canaries_accepted=self._canaries_accepted,
            remote_changes=self.remote_changes,
            uptime_s=now_s - self._started_at_s,
            now_s=now_s,
            now_unix=now_unix,
        )
