"""Whether a runner gets on: each says what it is about to do and how long that may take; who takes longer is stuck.

Progress, not liveness: a thread that waits for ever in a driver, a lock or a file is alive. Pure: monotonic seconds, no
thread, nothing is told from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.clock import Clock

# What no timeout of ours covers: a busy machine, a slow disk, the wait for a lock, the resolver of names.
SLACK_S = 60.0
PACE_S = 5.0
_WATCH = "watch "


@dataclass(frozen=True, slots=True)
class Step:
    """What a runner is at. `at_most_s`: how long by its own timeouts; None: it waits for a word, however long."""

    doing: str
    at_most_s: float | None
    began_s: float


@dataclass(frozen=True, slots=True)
class Stuck:
    """A runner that takes longer than it may. `since_s`: when it began what it is at, monotonic."""

    thread: str
    doing: str
    since_s: float

    def lasting(self, now_s: float) -> str:
        """What, and for how long."""
        return f"{self.doing} for {now_s - self.since_s:.0f} s"


class LeftBehind(BaseException):
    """Ends a thread that was left behind while it hung, before it does anything more. No handler of errors is meant."""


class Pulse:
    """Of one thread, by the thread's name; the thread beats it. Anyone may look: a beat is one assignment."""

    def __init__(self, thread: str, clock: Clock) -> None:
        self.thread = thread
        self.step: Step | None = None
        self._clock = clock
        self._is_cut = False

    def end(self) -> None:
        """The thread is no more; whoever sees to that calls it."""
        self.step = None

    def cut(self) -> None:
        """The thread hangs and is left behind: what it holds is another's from now on. May be called from any."""
        self._is_cut = True

    def beat(self, doing: str, at_most_s: float | None = 0.0) -> None:
        """`doing` begins now and takes `at_most_s` by its timeouts; 0 for what has none and should be quick.

        Raises LeftBehind when it must not begin any more.
        """
        if self._is_cut:
            raise LeftBehind
        self.step = Step(doing, at_most_s, self._clock.monotonic())


class Rounds:
    """Looks at pulses again and again, about every `pace_s`, and says who is stuck. One thread uses it.

    Only time in which somebody looked counts, at most twice the pace from one look to the next: after the whole
    process or its machine stood still nobody is stuck because of that.
    """

    def __init__(self, pulses: Sequence[Pulse], *, slack_s: float = SLACK_S, pace_s: float = PACE_S) -> None:
        self.pace_s = pace_s
        self._pulses, self._slack_s = pulses, slack_s
        self._looked_s = float("-inf")
        self._seen: dict[str, tuple[Step, float]] = {}  # by thread: its step at the last look, and how long it lasted

    def overdue(self, now_s: float) -> tuple[Stuck, ...]:
        """Who has been at one step for longer than it may take."""
        passed_s = min(now_s - self._looked_s, 2 * self.pace_s)
        self._looked_s = now_s
        found = []
        for pulse in self._pulses:
            step = pulse.step
            if step is None:
                continue
            seen, lasted_s = self._seen.get(pulse.thread, (None, 0.0))
            lasted_s = lasted_s + passed_s if seen is step else min(now_s - step.began_s, passed_s)
            self._seen[pulse.thread] = step, lasted_s
            if step.at_most_s is not None and lasted_s > step.at_most_s + self._slack_s:
                found.append(Stuck(pulse.thread, step.doing, step.began_s))
        return tuple(found)


def thread_of(watch: str) -> str:
    """The name of a watch's thread: a watch has a name of a person's choice, "flusher", for example."""
    return f"{_WATCH}{watch}"


def is_watch(thread: str) -> bool:
    """Whether that is the name of a watch's thread."""
    return thread.startswith(_WATCH)
