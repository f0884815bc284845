"""What one watch is to its database: each look is measured and told, and left out while the server is too sick for it.

What follows from a cost is decided in `watch` and `breaker`; here it is asked, passed on and said once.
"""

from __future__ import annotations

import logging

from agent.breaker import Breaker
from agent.clock import Clock
from agent.cost import Cost, Load, Spent
from agent.repeats import Repeats
from agent.source_errors import DatabaseAway, ServerStrained, SourceError
from agent.sources import Source
from agent.status import Scoreboard
from agent.watch import Watch


class Burden:
    """Of one watch, whose thread uses it."""

    def __init__(self, name: str, watch: Watch, board: Scoreboard, clock: Clock) -> None:
        self._name, self._watch, self._board, self._clock = name, watch, board, clock
        self._breaker, self._repeats = Breaker(), Repeats(clock.monotonic)
        self._look, self._load = Cost(), Load()
        self._began_s = clock.monotonic()
        self._is_measuring = False
        self._is_stretched = False
        self.report()

    def begin(self, source: Source) -> None:
        """A look begins."""
        source.meter.begin()
        self._began_s, self._is_measuring = self._clock.monotonic(), True

    def demand_ease(self, source: Source) -> None:
        """Raises ServerStrained when there should be no look now, or what the source raises when it cannot tell."""
        reason = self._breaker.against(self._clock.monotonic()) or self._breaker.against_strain(source.strain())
        if reason is not None:
            raise ServerStrained(reason)

    def has_looked(self, source: Source) -> ServerStrained | None:
        """The look went through to the end. Says why the next one is left out, when it was so slow."""
        self.has_ended(source)
        longest_s, now_s = self._look.longest_s, self._clock.monotonic()
        reason = self._breaker.has_looked(longest_s, now_s, self._watch.interval_s)
        return None if reason is None else ServerStrained(reason)

    def has_failed(self, source: Source, error: SourceError) -> None:
        """The look is over with that error. What was no look, or had no database, counts for no budget; but an answer
        that was waited for in vain says that the server may be sick."""
        if isinstance(error, DatabaseAway) and self._is_measuring:
            longest_s = source.meter.cost().longest_s
            self._breaker.has_lost(longest_s, self._clock.monotonic(), self._watch.interval_s)
        self._end(source, counts=not isinstance(error, DatabaseAway | ServerStrained))

    def has_ended(self, source: Source) -> None:
        """The look is over, if one has begun, to its end or not. The watch has to hear it afterwards."""
        self._end(source, counts=True)

    def has_new_source(self) -> None:
        """What was usual of the database so far says nothing of this one."""
        self._breaker = Breaker()

    def report(self) -> None:
        """Tells the board, and once the log, what the budget makes of the interval."""
        pace_s, note = self._watch.pace_s, self._note()
        self._board.report(self._name, spent=Spent(self._look, self._load, pace_s, note))
        if note and not self._is_stretched:
            self._repeats.tell(
                logging.WARNING, "budget.stretched", f"From now on {note}", watch=self._name, seconds=pace_s
            )
        elif self._is_stretched and not note:
            sentence = f"Looks come every {pace_s:g} s again"
            self._repeats.tell(logging.INFO, "budget.kept", sentence, watch=self._name, seconds=pace_s)
        self._is_stretched = bool(note)

    def _end(self, source: Source, *, counts: bool) -> None:
        if not self._is_measuring:
            return
        self._is_measuring = False
        cost = source.meter.cost()
        self._load = self._load.with_spent(cost.seconds, self._clock.monotonic())
        if counts:
            self._look = cost
            self._watch.has_cost(cost.repeated_s, self._began_s)
        self.report()

    def _note(self) -> str:
        pace_s, interval_s = self._watch.pace_s, self._watch.interval_s
        if pace_s <= interval_s:
            return ""
        cost_s, max_load = round(self._look.repeated_s, 2), self._watch.max_load
        reason = f"one costs the database {cost_s:g} s and max_load is {max_load:g}"
        return f"looks come every {pace_s:g} s instead of {interval_s:g} s: {reason}"
