"""Which server answers, and whether its counters go on from some that were read before. Pure: no connection, no clock.

A *counting* is everything a server counts from one moment on at which it had forgotten all; extensions from 1.9 on name
it by that moment (`stats_reset`). A *run* is the life of a server's processes; a restart begins another, and so does
the crash of a backend, which leaves pg_postmaster_start_time as it was. Two servers may have the same
system_identifier (a primary and its physical replica) and the same address (a failover): then runs and countings tell
them apart.

What a window's reason says, and how far the version of the extension (not of the server) can tell it:

    reason              before 1.9            1.9, 1.10             from 1.11 on
    first_look          exact                 exact                 exact
    normal              may hide a reset      may hide a partial    exact
                        (came back larger)    reset or eviction
    new                 not counted at the last look: new, or forgotten before it and back since
    reset               and partial_reset,    exact                 exact
                        crash_reset, evicted
    partial_reset       reset                 exact                 exact (while evictions happened: the next)
    evicted_reentered   reset                 or a partial reset    or a partial reset
    crash_reset         reset                 or a reset less than 5 s before a restart; reset, when another restart
                                              followed the crash, or when recovery took longer than 5 s before PG 15
    other_server        other system only     exact by the clocks of the servers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FIRST_LOOK, NEW, NORMAL = "first_look", "new", "normal"
RESET, PARTIAL_RESET, CRASH_RESET = "reset", "partial_reset", "crash_reset"
EVICTED_REENTERED, OTHER_SERVER = "evicted_reentered", "other_server"

# A server that starts without saved counters begins its counting milliseconds before its first process is up.
CRASH_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What a server says of itself at a look. Moments are Unix seconds by its own clock.

    `system`: the system_identifier, 0 when it may not be read; `address`: empty when there is none; `reset`: since when
    all is counted, as text, None before extension 1.9, like `dealloc`, how often it made room by evictions since, and
    `active_ms`, how long sessions were busy with statements. A bookmark of version 1 knows `reset` only.
    """

    at: float = 0.0
    system: int = 0
    run_at: float = 0.0
    address: str = ""
    reset: str | None = None
    dealloc: int | None = None
    active_ms: float | None = None

    @property
    def began_before(self) -> float:
        """A moment that its counting did not begin after, also when its clock was set back since."""
        return max(self.at, float(self.reset or 0))

    def is_system_of(self, other: Sight) -> bool:
        """Whether both may be copies of one database cluster."""
        return self.system == other.system or 0 in {self.system, other.system}

    def has_other_address(self, other: Sight) -> bool:
        """Whether both are known to be reached at different addresses."""
        return bool(self.address and other.address) and self.address != other.address


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a server is to those that were seen before.

    `place`: the number of the sight that it goes on from or was reset since, None: of none. `reason`: normal, or what
    all its statements have. `is_unread`: nothing of this counting can have been read before, except where it goes on.
    """

    place: int | None
    reason: str
    is_unread: bool = True


def recognise(seen: Sequence[Sight], now: Sight, forgot_at: float) -> Recognised:
    """Which one it is of those that were `seen`, the last first. `forgot_at`: the last sight of one that is missing."""
    if not seen:
        return Recognised(None, FIRST_LOOK)
    alike = [place for place, sight in enumerate(seen) if sight.is_system_of(now)]
    goes_on = _of_its_counting(seen, alike, now)
    if goes_on:
        return _going_on(seen, goes_on, now)
    if not alike:
        return Recognised(None, OTHER_SERVER, _is_unread(now, forgot_at))
    for place in alike:
        if seen[place].run_at == now.run_at:
            return Recognised(place, RESET)
    return _in_another_run(seen[alike[0]], alike[0], now, forgot_at)


def _of_its_counting(seen: Sequence[Sight], alike: list[int], now: Sight) -> list[int]:
    exactly = [place for place in alike if now.reset is not None and seen[place].reset == now.reset]
    return exactly or [place for place in alike if now.reset is None or seen[place].reset is None]


def _going_on(seen: Sequence[Sight], places: list[int], now: Sight) -> Recognised:
    for place in places:
        if seen[place].run_at == now.run_at:
            return Recognised(place, NORMAL)
    # A run that began after the look: the server was restarted in between. One that had begun by then is a server that
    # was made of a copy, counters included. Without the moment of the reset only one server may be in question.
    restarted = [place for place in places if now.run_at > seen[place].at]
    is_named = now.reset is not None and seen[places[0]].reset is not None
    if restarted and (is_named or (len(places) == 1 and not now.has_other_address(seen[places[0]]))):
        return Recognised(restarted[0], NORMAL)
    return Recognised(None, OTHER_SERVER, is_unread=False)


def _in_another_run(before: Sight, place: int, now: Sight, forgot_at: float) -> Recognised:
    """A counting and a run that were not seen; `before`: the last that may be the same server."""
    began = float(now.reset or 0)
    is_unread = _is_unread(now, forgot_at)
    if now.run_at <= before.at or began <= before.at or now.has_other_address(before):
        return Recognised(None, OTHER_SERVER, is_unread)
    is_crash = now.run_at - CRASH_S <= began <= now.run_at
    return Recognised(place, CRASH_RESET if is_crash else RESET, is_unread)


def _is_unread(now: Sight, forgot_at: float) -> bool:
    return not forgot_at or (now.reset is not None and float(now.reset) > forgot_at)
