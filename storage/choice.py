"""Which envelopes of an outbox are meant: by time or number, topic, and how many. Whole envelopes only. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from storage.envelope import PARTIAL
from storage.errors import ChoiceUnclear
from storage.reader import Head

OLDEST, NEWEST = "oldest", "newest"


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in the order of envelopes: its number, or a time in Unix seconds."""

    seq: int | None = None
    at: float | None = None

    def is_behind(self, head: Head) -> bool:
        """Whether the envelope comes before this place."""
        return head.seq < self.seq if self.seq is not None else head.created_at < (self.at or 0.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """`limit`: records at most, in whole envelopes; the first is taken however many it holds."""

    since: Moment | None = None
    until: Moment | None = None
    topic: str | None = None
    limit: int | None = None
    order: Literal["oldest", "newest"] = "oldest"

    def __post_init__(self) -> None:
        since, until = self.since, self.until
        if since is None or until is None or (since.seq is None) != (until.seq is None):
            return
        if (since.seq or since.at or 0) > (until.seq or until.at or 0):
            raise ChoiceUnclear("since lies behind until")


def moment(text: str) -> Moment:
    """From a number or ISO text; a time without a zone is UTC. Raises ChoiceUnclear."""
    try:
        if text.isdecimal():
            return Moment(seq=int(text))
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ChoiceUnclear(f"{text!r} is neither a number of an envelope nor a time like 2026-01-31T12:00") from None
    return Moment(at=(found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def chosen(heads: Iterable[Head], choice: Choice) -> Iterator[Head]:
    """Those that are meant, in the order in which they are to be taken."""
    wanted = [head for head in heads if _is_wanted(head, choice)]
    taken = 0
    for head in reversed(wanted) if choice.order == NEWEST else wanted:
        if choice.limit is not None and taken and taken + head.records > choice.limit:
            return
        taken += head.records
        yield head
        if choice.limit is not None and taken >= choice.limit:
            return


def retriable(parked: Iterable[Head]) -> list[Head]:
    """Of what was kept aside that of which the backend has nothing: the rest it would store twice."""
    return [head for head in parked if not (head.parked or "").startswith(PARTIAL)]


def _is_wanted(head: Head, choice: Choice) -> bool:
    """From `since` on, and up to `until` itself."""
    if choice.topic is not None and head.topic != choice.topic:
        return False
    if choice.since is not None and choice.since.is_behind(head):
        return False
    until = choice.until
    if until is None:
        return True
    return head.seq <= until.seq if until.seq is not None else head.created_at <= (until.at or 0.0)
