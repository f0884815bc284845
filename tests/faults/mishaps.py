"""What goes wrong at a backend, and when: drawn from a seed, something else every fraction of a second. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

GATEWAY_STATUSES = (500, 502, 503, 504)
SHORTEST_S, LONGEST_S = 0.05, 0.5
FINE_PART = 0.45


class Mishap(StrEnum):
    """One kind of trouble. Those from LOST on come after the request took effect: it is the answer that suffers."""

    FINE = "fine"
    CUT_BEFORE_BODY = "cut before the body"
    CUT_IN_BODY = "cut in the body"
    REFUSED = "a gateway's status, not carried out"
    HANGS = "hangs, then is carried out"
    LOST = "carried out, no answer"
    CUT_IN_HEAD = "carried out, answer cut in its headers"
    CUT_IN_ANSWER = "carried out, answer cut in its body"
    HALF_ANSWER = "carried out, half of the JSON as a whole answer"
    LOST_AT_GATEWAY = "carried out, a gateway's status instead of the answer"
    ANSWER_HANGS = "carried out, the answer hangs"


TROUBLES = tuple(each for each in Mishap if each is not Mishap.FINE)


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """What is wrong for a while; `status`: what the gateway says in it. Two phases are never the same one."""

    mishap: Mishap
    status: int = 503


class Weather:
    """The phases one after the other, as the clock (monotonic seconds) runs; the same seed gives the same ones."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self._rng = random.Random(seed)
        self._clock = clock
        self._phase, self._until_s = Phase(Mishap.FINE), clock()

    def now(self) -> Phase:
        """The phase of this moment."""
        while self._clock() >= self._until_s:
            is_fine = self._rng.random() < FINE_PART
            mishap = Mishap.FINE if is_fine else self._rng.choice(TROUBLES)
            self._phase = Phase(mishap, self._rng.choice(GATEWAY_STATUSES))
            self._until_s += self._rng.uniform(SHORTEST_S, LONGEST_S)
        return self._phase
