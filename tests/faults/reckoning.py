"""What a database counted against what a backend was sent: lost, doubled, and which doubles were unavoidable. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Effect(StrEnum):
    """What a request did at the backend. RECOGNISED: its key was known, so nothing was stored a second time."""

    NONE = "none"
    STORED = "stored"
    RECOGNISED = "recognised"


@dataclass(slots=True, eq=False)
class Exchange:
    """One bulk request as the backend saw it, in the order of arriving.

    `life`: which process sent it; `mishap`: what went wrong; `records`: what was in it, once it had come whole;
    `told`: its acceptance went out whole. That it was heard is known only when the same life asked again afterwards.
    """

    life: int
    key: str
    mishap: str
    records: tuple[Json, ...] = ()
    effect: Effect = Effect.NONE
    told: bool = False

    @property
    def envelope(self) -> str:
        """The key of the envelope as it was stored first; the halves of a split add .0 and .1 to it."""
        return self.key.split(".", 1)[0]


@dataclass(frozen=True, slots=True)
class Count:
    """`executions`: what the server holds. `lost`: of these, what never came.

    `doubled`: records that came again, and executions that came in a second record. `unexcused`: of these, what no
    lost answer explains; with keys honoured none is explained.
    """

    executions: int
    lost: int
    doubled: int
    unexcused: int


def count(executions: Counter[str], exchanges: Sequence[Exchange], *, honours_keys: bool) -> Count:
    """Compares text by text. `executions`: how often the server ran each statement of the test; other texts that
    arrive are none of the test's, but they too must come once."""
    stored = [record for each in exchanges if each.effect is Effect.STORED for record in each.records]
    once = {record["id"]: record for record in stored}
    arrived: Counter[str] = Counter()
    for record in once.values():
        if record["sql_text"] in executions:
            arrived[record["sql_text"]] += record.get("calls", 1)
    again = Counter(record["id"] for record in stored) - Counter(once.keys())
    excuses = Counter[str]() if honours_keys else may_have_come_twice(exchanges)
    in_two_records = (arrived - executions).total()
    return Count(
        executions=executions.total(),
        lost=(executions - arrived).total(),
        doubled=again.total() + in_two_records,
        unexcused=(again - excuses).total() + in_two_records,
    )


def may_have_come_twice(exchanges: Sequence[Exchange]) -> Counter[str]:
    """How often each record, by id, may have come again for good reason: its envelope took effect at the backend, the
    answer was lost, and so the same envelope was sent again.

    An answer counts as lost when it did not go out whole, and when it was the last one of its life: the process may
    have been killed before it could note it. A record that is in two envelopes has no good reason for that.
    """
    last = {each.life: each for each in exchanges}
    effects: defaultdict[tuple[str, str], list[Exchange]] = defaultdict(list)
    for each in exchanges:
        if each.effect is not Effect.NONE:
            for record in each.records:
                effects[each.envelope, record["id"]].append(each)
    found: Counter[str] = Counter()
    for (_, name), those in effects.items():
        unheard = sum(not each.told or each is last[each.life] for each in those)
        found[name] += min(len(those) - 1, unheard)
    return +found
