"""The marked statement that `doctor --canary` follows from the database to the backend: its name, where it was seen.

Pure: runs nothing. The name is that of the statement's column, because comments and values may not leave a host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

NAME: Final = "dbpower_canary"
FOLLOWED: Final = timedelta(hours=1)  # nobody waits for it any more
_WHOLE = re.compile(rf"{NAME}(?:_[0-9a-f]{{8}})?")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One canary on its way. Moments are aware UTC by this host's clock; None: it was not seen there yet."""

    name: str
    read_at: datetime
    stored_at: datetime | None = None


def name_in(text: str) -> str | None:
    """The name of the canary that this statement is; None when it is none."""
    if NAME not in text:  # nearly always, and this is cheap
        return None
    found = _WHOLE.search(text)
    return found.group() if found else None


def awaited(read: Iterable[Sighting], accepted: Mapping[str, datetime], now: datetime) -> set[str]:
    """The names of those that were read and not accepted since."""
    return {
        each.name
        for each in read
        if now - each.read_at < FOLLOWED and not (each.name in accepted and accepted[each.name] >= each.read_at)
    }
