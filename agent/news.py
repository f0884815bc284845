"""Says news once: when something breaks, and when it is over. What goes on being wrong is not said again, and what
breaks and heals all the time is called unsteady once and counted from then on.

A kind of error that was not said yet is said at once, whatever else is counted.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.logs import tell
from agent.reminder import Reminder
from storage.errors import CodedError

OUTAGES, WITHIN_S = 3, 21_600.0  # so many that begin within this time are unsteady
SETTLED_S, LONGEST_SETTLED_S = 1_800.0, 14_400.0  # so long it has to stay as it is, to be steady again
FORGOTTEN_S = 86_400.0  # what was steady for so long counts as if it always had been


@dataclass(slots=True)
class _Spell:
    """What is told as one: an outage, or an unsteady time of many. `codes`: how often each error came in it;
    `down_s`: how long it was down in the outages that are over."""

    since_s: float
    reminder: Reminder
    is_unsteady: bool = False
    outages: int = 1
    down_s: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)


class News:
    """What is wrong with one thing (`about`: a stable word such as `delivery`). One thread uses it, and says each time
    that it is well or wrong.

    `fields` are said each time: which of several it is.
    """

    def __init__(self, about: str, clock: Clock, **fields: object) -> None:
        self._about = about
        self._clock, self._fields = clock, fields
        self._began: deque[float] = deque(maxlen=OUTAGES)
        self._spell: _Spell | None = None
        self._code = ""
        self._is_down = False
        self._changed_s = 0.0  # when it went down or came back
        self._steady_s: float | None = None  # when an unsteady time ended last
        self._settled_s = SETTLED_S

    def wrong(self, error: CodedError) -> None:
        """It does not work; said when it is new or something else than before."""
        now_s, self._code = self._clock.monotonic(), error.code
        spell, becomes_unsteady = self._begun(now_s) if not self._is_down else (self._current(now_s), False)
        spell.codes[error.code] += 1
        if becomes_unsteady:
            self._say_unsteady(error, now_s)
        elif spell.codes[error.code] == 1:
            self._say(logging.WARNING, "wrong", str(error), code=error.code)
        elif spell.is_unsteady and now_s - self._changed_s >= self._settled_s:
            self._give_up(error, now_s)
        elif (spell.is_unsteady or len(spell.codes) > 1) and spell.reminder.is_due(now_s):
            self._say_still(spell, now_s)

    def right(self, note: str = "") -> None:
        """It works; said when it did not."""
        spell, now_s = self._spell, self._clock.monotonic()
        if spell is None:
            return
        if self._is_down:
            spell.down_s += now_s - self._changed_s
            self._is_down, self._changed_s = False, now_s
            if not spell.is_unsteady:
                self._say_right(spell, note)
                self._spell = None
        elif now_s - self._changed_s >= self._settled_s:
            self._say_steady(spell, now_s)
        elif spell.reminder.is_due(now_s):
            self._say_still(spell, now_s)

    # -- what it is ----------------------------------------------------------------------------------------------

    def _current(self, now_s: float) -> _Spell:
        self._spell = self._spell or _Spell(now_s, Reminder(now_s))
        return self._spell

    def _begun(self, now_s: float) -> tuple[_Spell, bool]:
        """The spell to which this outage belongs, and whether it is unsteady from now on."""
        self._is_down, self._changed_s = True, now_s
        self._began.append(now_s)
        if self._spell is not None:
            self._spell.outages += 1
            return self._spell, False
        spell = self._current(now_s)
        spell.is_unsteady = len(self._began) == OUTAGES and now_s - self._began[0] <= WITHIN_S
        if spell.is_unsteady:
            is_again = self._steady_s is not None and now_s - self._steady_s < FORGOTTEN_S
            self._settled_s = min(LONGEST_SETTLED_S, 2 * self._settled_s) if is_again else SETTLED_S
        return spell, spell.is_unsteady

    def _give_up(self, error: CodedError, now_s: float) -> None:
        """It has not come back: from now on this is one outage, and its end is said."""
        seconds = round(now_s - self._changed_s)
        self._say(logging.WARNING, "wrong", f"{error} (for {seconds} s without a break)", code=error.code)
        self._spell = _Spell(self._changed_s, Reminder(now_s), codes=Counter({error.code: 1}))
        self._steady_s = now_s

    # -- what is said --------------------------------------------------------------------------------------------

    def _say_right(self, spell: _Spell, note: str) -> None:
        sentence = f"{self._about} works again after {round(spell.down_s)} s"
        sentence += f", {note}" if note else ""
        numbers = {"code": self._code, "seconds": round(spell.down_s), "times": spell.codes.total()}
        self._say(logging.INFO, "right", sentence, **numbers, **_several(spell))

    def _say_unsteady(self, error: CodedError, now_s: float) -> None:
        seconds = round(now_s - self._began[0])
        sentence = f"{self._about} is unsteady, this is outage {OUTAGES} within {seconds} s: {error}"
        sentence += " From now on outages are counted."
        self._say(logging.WARNING, "unsteady", sentence, code=error.code, outages=OUTAGES, seconds=seconds)

    def _say_still(self, spell: _Spell, now_s: float) -> None:
        down_s = round(spell.down_s + (now_s - self._changed_s if self._is_down else 0.0))
        seconds = round(now_s - spell.since_s)
        state = f"now [{self._code}]" if self._is_down else "now it works"
        if spell.is_unsteady:
            sentence = f"{self._about} is still unsteady: {_counted(spell)}, {down_s} of {seconds} s; {state}"
        else:
            told = ", ".join(f"[{code}] {times} times" for code, times in spell.codes.most_common())
            sentence = f"{self._about} is still wrong after {seconds} s: {told}; {state}"
        numbers = {"outages": spell.outages, "down_seconds": down_s, "seconds": seconds}
        code = {"code": self._code} if self._is_down else {}
        self._say(logging.WARNING, "still", sentence, **code, **numbers, **_several(spell))

    def _say_steady(self, spell: _Spell, now_s: float) -> None:
        seconds, down_s = round(self._changed_s - spell.since_s), round(spell.down_s)
        sentence = f"{self._about} is steady again: {_counted(spell)} in {seconds} s, {down_s} s in all"
        numbers = {"outages": spell.outages, "down_seconds": down_s, "seconds": seconds}
        self._say(logging.INFO, "steady", sentence, **numbers, **_several(spell))
        self._spell, self._steady_s = None, now_s

    def _say(self, level: int, what: str, sentence: str, **fields: object) -> None:
        tell(level, f"{self._about}.{what}", sentence, **fields, **self._fields)


def _counted(spell: _Spell) -> str:
    return f"{spell.outages:,} outage{'' if spell.outages == 1 else 's'}"


def _several(spell: _Spell) -> dict[str, object]:
    """How often each error came, when there were several."""
    return {"codes": dict(spell.codes)} if len(spell.codes) > 1 else {}
