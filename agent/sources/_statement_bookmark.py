"""How far the statements of a server have been read, and those of the servers that answered before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from agent.source_errors import BookmarkUnreadable
from agent.sources._statement_counters import KEY_LENGTH, Baseline, without_levels
from agent.sources._statement_servers import FIRST_LOOK, NEW, NORMAL, RESET, Recognised, Sight, recognise

VERSION: Final = 2
# Each costs as much room in every bookmark as the one that answers: a primary, two replicas, for a week.
SERVERS_KEPT: Final = 2
KEPT_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A server that answered before. Its baseline stays the text it was: most looks do not need it."""

    sight: Sight
    baseline: str


@dataclass(frozen=True, slots=True)
class Opening:
    """How a look begins: `before` is what its counters are compared with; `left`: another server that answered last."""

    before: Baseline
    bookmark: Bookmark
    recognised: Recognised
    left: Baseline | None = None

    def comparable(self, *, merged: bool) -> Opening:
        """The same for counters of this kind: when the extension was updated, what both kinds can tell."""
        if self.before.merged == merged:
            return self
        rows, ahead = without_levels(self.before.rows), without_levels(self.before.ahead)
        return replace(self, before=replace(self.before, rows=rows, ahead=ahead, merged=True))


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The baseline of the server that answered last (None: none has), and of those before it, the last first.

    `forgot_at`: up to when countings may have begun that were read and of which no baseline is left (Unix seconds).
    """

    current: Baseline | None = None
    kept: tuple[Kept, ...] = ()
    forgot_at: float = 0.0

    def open(self, now: Sight, *, merged: bool) -> Opening:
        """What the server that answers now is compared with; `merged`: how a new baseline would count."""
        if self.current is None:
            before = Baseline(sight=now, unseen=FIRST_LOOK, merged=merged)
            return Opening(before, self, Recognised(None, FIRST_LOOK))
        found = recognise([self.current.sight, *(each.sight for each in self.kept)], now, self.forgot_at)
        if (found.place, found.reason) == (0, NORMAL):
            return Opening(self.current, self._with(self.kept, now), found)
        servers = [Kept(self.current.sight, orjson.dumps(_fields(self.current)).decode()), *self.kept]
        before = Baseline(sight=now, unseen=found.reason, merged=merged)
        if found.place is not None:
            last = _baseline(orjson.loads(servers[found.place].baseline))
            is_same_run = last.sight.run_at == now.run_at
            # How busy the server was is compared with the last look also behind a reset.
            began = replace(now, active_ms=last.sight.active_ms if is_same_run else None)
            before = last if found.reason == NORMAL else replace(before, taken_at=last.taken_at, sight=began)
            # A counting that was reset in the same run cannot come back; of another run it may be that of a server
            # that is elsewhere now.
            if found.reason == NORMAL or is_same_run:
                del servers[found.place]
        return Opening(before, self._with(servers, now), found, None if found.place == 0 else self.current)

    def at(self, baseline: Baseline) -> Bookmark:
        """The same with this baseline of the server that answers."""
        return replace(self, current=baseline)

    def encode(self) -> bytes:
        """As the outbox keeps it."""
        current = None if self.current is None else _fields(self.current)
        return orjson.dumps({"v": VERSION, "current": current, "kept": self.kept, "forgot_at": self.forgot_at})

    def _with(self, servers: Sequence[Kept], now: Sight) -> Bookmark:
        """With the newest of these."""
        kept = tuple(each for each in servers if now.at - each.sight.at < KEPT_S)[:SERVERS_KEPT]
        forgot_at = max([self.forgot_at, *(each.sight.began_before for each in servers if each not in kept)])
        return Bookmark(self.current, kept, forgot_at)


def decode(encoded: bytes) -> Bookmark:
    """The bookmark. Raises BookmarkUnreadable."""
    try:
        fields = orjson.loads(encoded)
        version = fields.pop("v")
        if version == 1:
            return Bookmark(_baseline_of_version_1(fields))
        if version != VERSION:
            raise BookmarkUnreadable("pg_stat_statements")
        fields["current"] = fields["current"] and _baseline(fields["current"])
        fields["kept"] = tuple(Kept(Sight(**each["sight"]), each["baseline"]) for each in fields["kept"])
        return Bookmark(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BookmarkUnreadable("pg_stat_statements") from None


def _fields(baseline: Baseline) -> dict[str, Any]:
    fields = {name: getattr(baseline, name) for name in baseline.__slots__}
    return {**fields, "rows": [*baseline.rows.values()], "ahead": [*baseline.ahead.values()]}


def _baseline(fields: dict[str, Any]) -> Baseline:
    for name in ("rows", "ahead"):
        fields[name] = {tuple(row[:KEY_LENGTH]): tuple(row) for row in fields[name]}
    return Baseline(**{**fields, "sight": Sight(**fields["sight"])})


def _baseline_of_version_1(fields: dict[str, Any]) -> Baseline:
    """That version knew one server, and two reset times while a look was saved in parts."""
    reset, ahead_reset = fields.pop("stats_reset"), fields.pop("ahead_reset")
    unseen = FIRST_LOOK if fields["taken_at"] is None else NEW
    if fields["ahead"] and ahead_reset != reset:
        reset, fields["rows"], unseen = ahead_reset, [], RESET
    return _baseline({**fields, "sight": {"reset": reset}, "unseen": unseen})
