"""How far a slow log table has been read, and what one of its rows is known by. Pure: no connection."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import orjson

from agent.source_errors import BookmarkUnreadable
from agent.sources._mysql_session import Row

LIVE = "slow_log"  # the table that the server writes
OLD = "slow_log_dbpower_old"  # where the agent itself moves it to

_NONE = type(None)
# What the fields of a bookmark may be, so that one which was altered is told as that, and not as a defect later.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("position", "rows", "cutoff_until", "server_uptime_s"), (int,)),
    **dict.fromkeys(("least", "server_started_at", "seen_at"), (int, _NONE)),
    **dict.fromkeys(("first", "last", "read_at"), (str, _NONE)),
    "from_top": (bool,),
    "table": (str,),
    "cutoff": (int, float, _NONE),
    "spare": (tuple, _NONE),
    "spent": (tuple, _NONE),
}
_SAME_START_S = 5  # a server tells its start off by a second or two

# So much of the text takes part in a row's identity: the smallest that max_sql_text_bytes may be, so that another
# setting does not make known rows look like other ones.
_TEXT_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Counters:
    """The server's own count of slow statements since its start. `started_at`: its start in Unix seconds.

    `running`: other sessions in the middle of a statement, each of which may be counted before its row is written.
    `uptime_s`: how long the server has run, in whole seconds.
    """

    slow_queries: int
    started_at: int
    running: int = 0
    uptime_s: int = 0

    @property
    def now(self) -> int:
        """When they were asked for, in Unix seconds by the server's clock."""
        return self.started_at + self.uptime_s

    def is_same_run(self, started_at: int, uptime_s: int) -> bool:
        """Whether the server, which ran for so long at an earlier time, was not restarted since.

        Its clock may be set meanwhile, which its start is not told by; a start within seconds of the last one is known
        by its uptime.
        """
        is_settled = uptime_s > 2 * _SAME_START_S
        return abs(self.started_at - started_at) <= _SAME_START_S and (is_settled or self.uptime_s >= uptime_s)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in one generation of the table: rows 0 to position-1 are read.

    first, last: identities of row 0 and row position-1 (hex, None at position 0). rows: all rows read since the
    books with the server's counter began; `spare`: what its counter said less `rows` when all was read, with the
    lowest and the highest value that it may have (statements end while we look). `least`: the highest of the lowest
    values seen in this table and run of the server, where the true one never falls; `server_started_at` and
    `server_uptime_s` tell the run. `from_top`: read from row 0 on, and
    not to the end yet: nobody has compared what the server had counted by then. A first look that starts later
    than the beginning leaves out rows older than `cutoff` (Unix seconds) before position `cutoff_until`.
    `table`: where this generation is read, in the schema mysql: the log itself, or what it was renamed to.
    `spent`: digests of the first and the last row, and the number of rows, of a table that the agent has moved to OLD
    and read to its end. `seen_at`: what is not read yet was written after this moment (Unix seconds by the server's
    clock; None: unknown).
    """

    position: int = 0
    first: str | None = None
    last: str | None = None
    rows: int = 0
    spare: tuple[int, int] | None = None
    least: int | None = None
    from_top: bool = False
    server_started_at: int | None = None
    server_uptime_s: int = 0
    cutoff: float | None = None
    cutoff_until: int = 0
    read_at: str | None = None
    seen_at: int | None = None
    table: str = LIVE
    spent: tuple[str, str, int] | None = None

    def encode(self) -> bytes:
        """The bookmark."""
        return orjson.dumps({"v": 1, **{name: getattr(self, name) for name in self.__slots__}})

    def behind(self, rows: int, first: str, last: str, read_at: str) -> Place:
        """The place after `rows` more rows."""
        position, total, from_top = self.position + rows, self.rows + rows, self.from_top or self.position == 0
        return replace(self, position=position, first=first, last=last, rows=total, from_top=from_top, read_at=read_at)

    def moved_to(self, position: int, first: str | None, last: str | None) -> Place:
        """The place elsewhere in the same table; the books begin anew."""
        return replace(self, position=position, first=first, last=last, spare=None, least=None, server_started_at=None)

    def in_table(self, table: str) -> Place:
        """The same place in the same generation, which has gone to another table."""
        return replace(self, table=table)

    def behind_old(self) -> Place:
        """The place before row 0 of the log, when all of OLD is read: once this is stored, OLD may be dropped."""
        return replace(self.at_next_generation(unread=0), spent=(self.first or "", self.last or "", self.position))

    def spent_place(self) -> Place | None:
        """The end of the table that may be dropped."""
        if self.spent is None:
            return None
        first, last, position = self.spent
        return Place(position=position, first=first, last=last, table=OLD)

    def without_spent(self) -> Place:
        """The place when that table is no more."""
        return replace(self, spent=None)

    def at_next_generation(self, unread: int | None) -> Place:
        """The place before row 0 of the table that took this one's place; `unread` rows are accounted for."""
        place = replace(self, position=0, first=None, last=None, table=LIVE)
        place = replace(place, least=None, cutoff=None, cutoff_until=0)
        if unread is None:
            return replace(place, spare=None, server_started_at=None)
        return replace(place, rows=self.rows + unread)

    def balanced(self, before: Counters, after: Counters) -> Place:
        """The place at the end of the table, with the books brought in line with the server's counter.

        `before`, `after` the statement that found no more rows.
        """
        if not after.is_same_run(before.started_at, before.uptime_s) or before.slow_queries > after.slow_queries:
            unbalanced = replace(self, spare=None, least=None, server_started_at=None)
            return replace(unbalanced, from_top=False, seen_at=before.now)
        least, most = before.slow_queries - before.running - self.rows, after.slow_queries - self.rows
        # More than the highest value was said of another run, which ended within seconds.
        if self._is_of_the_run(before) and self.least is not None and self.least <= most:
            least = max(least, self.least)
        place = replace(self, spare=(least, most), least=least, from_top=False, seen_at=before.now)
        return replace(place, server_started_at=before.started_at, server_uptime_s=after.uptime_s)

    def unread(self, now: Counters, present: int) -> int | None:
        """At most how many rows vanished unread, when `present` rows are there to be read; None when unknown."""
        if not self._comparable(now) or self.spare is None:
            return None
        return max(0, now.slow_queries - self.rows - present - self.spare[0])

    def surely_unread(self, at_start: Counters) -> int:
        """At least how many rows vanished unread, when all that is there has been read."""
        if not self._comparable(at_start) or self.spare is None:
            return 0
        return max(0, at_start.slow_queries - at_start.running - self.rows - self.spare[1])

    def _is_of_the_run(self, now: Counters) -> bool:
        return self.server_started_at is not None and now.is_same_run(self.server_started_at, self.server_uptime_s)

    def _comparable(self, now: Counters) -> bool:
        if self.spare is None or not self._is_of_the_run(now):
            return False
        # Each row that was read is in the counter of its run; less means another run, or that it was set back.
        return now.slow_queries >= self.rows + self.spare[0]


def decode(bookmark: bytes) -> Place:
    """The place of a bookmark. Raises BookmarkUnreadable."""
    try:
        fields = orjson.loads(bookmark)
        if fields.pop("v") != 1:
            raise BookmarkUnreadable("mysql_slow_log")
        pairs = {name: tuple(fields.pop(name)) for name in ("spare", "spent") if fields.get(name)}
        place = Place(**{**fields, **pairs})
        if all(type(getattr(place, name)) in kinds for name, kinds in _KINDS.items()) and _are_whole(place):
            return place
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise BookmarkUnreadable("mysql_slow_log")


def _are_whole(place: Place) -> bool:
    """Whether its tuples hold what they should."""
    numbers, spent = place.spare or (0, 0), place.spent or ("", "", 0)
    return [type(each) for each in (*numbers, *spent)] == [int, int, str, str, int]


def identity(row: Row) -> bytes:
    """What a row is known by, the same at every reading: its short columns, the length and the head of its text."""
    *short, text, whole = row
    length = whole.split(b" ", 1)[0] if whole else b"%d" % len(text or b"")
    return b"\0".join([column or b"" for column in short] + [length, (text or b"")[:_TEXT_BYTES]])


def digest(row: Row) -> str:
    """The identity as sha256, hex."""
    return hashlib.sha256(identity(row)).hexdigest()
