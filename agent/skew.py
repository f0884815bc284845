"""How far two clocks are apart, and whether that matters. Pure: reads neither of them."""

from __future__ import annotations

from agent.errors import ClockOff
from agent.finding import Finding, hint, right

SLACK_S = 5.0


def compared_times(theirs_s: float, ours_s: float) -> Finding:
    """Of two times that were read at once, in Unix seconds: this host's, and the other side's."""
    off_s = ours_s - theirs_s
    if abs(off_s) > SLACK_S:
        way = "ahead of" if off_s > 0 else "behind"
        return hint("clock", ClockOff(f"it is {abs(off_s):,.0f} s {way} the other one"))
    return right("clock", f"differs from this host's by {abs(off_s):.1f} s")
