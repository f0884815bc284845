"""What a look says of the calls that nobody can know any more. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.sources._statement_bookmark import Opening
from agent.sources._statement_counters import Forgotten
from agent.sources._statement_servers import (
    CRASH_RESET,
    EVICTED_REENTERED,
    OTHER_SERVER,
    PARTIAL_RESET,
    RESET,
)
from storage.envelope import Gap

EVICTED = "evicted"
_Loss = tuple[str, str | None, str]  # reason, since, detail
_OF_ALL = {
    RESET: "the counters were reset between two looks",
    CRASH_RESET: "the server ended between two looks without saving its counters",
}
_OF_SOME = {
    RESET: (RESET, "a reset or an eviction, which this version of the extension does not tell apart, took"),
    PARTIAL_RESET: (PARTIAL_RESET, "a reset of single statements took"),
    EVICTED_REENTERED: (EVICTED, "the server made room {evictions} times and dropped"),
}


@dataclass(frozen=True, slots=True)
class Gaps:
    """`of_the_server`: what every bookmark of this look says already. `of_statements`: what only the last of them
    leaves behind, so that a look which is cut off finds it again."""

    of_the_server: tuple[Gap, ...]
    of_statements: tuple[Gap, ...]


def gaps_of(watch: str, opening: Opening, forgotten: Forgotten, until: str | None) -> Gaps:
    """One gap for each cause, however many statements it struck. How many calls they had is never known."""

    def gaps(losses: Iterator[_Loss]) -> tuple[Gap, ...]:
        return tuple(Gap(watch, reason, since, until, None, detail) for reason, since, detail in losses)

    return Gaps(gaps(_of_the_server(opening)), gaps(_of_statements(opening, forgotten)))


def _of_the_server(opening: Opening) -> Iterator[_Loss]:
    doubt = "" if opening.recognised.is_unread else ", and what is counted now may have been read before"
    if opening.left is not None:
        detail = "another server answers; what the one before it counted since is read when that answers again"
        yield OTHER_SERVER, opening.left.ahead_at or opening.left.taken_at, detail + doubt
    reason = opening.recognised.reason
    if reason in _OF_ALL:
        yield reason, opening.before.taken_at, _OF_ALL[reason] + doubt


def _of_statements(opening: Opening, forgotten: Forgotten) -> Iterator[_Loss]:
    if forgotten:
        name, took = _OF_SOME[forgotten.reason]
        known = f"{forgotten.statements} statements, of which {forgotten.slow} had ever been slow"
        yield name, opening.before.taken_at, f"{took.format(evictions=forgotten.evictions)} the counters of {known}"
