"""What the examinations of all kinds of databases have in common. Asks nobody anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.clock import Clock
from agent.errors import DatabasePlain, SourceError
from agent.finding import Finding, hint, right, wrong
from agent.here import is_here
from agent.skew import compared_times


def tried(subject: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    """What `look` finds; what it meets is wrong."""
    try:
        yield look()
    except SourceError as error:
        yield wrong(subject, error)


def compared_clock(ask: Callable[[], float], clock: Clock) -> Finding:
    """This host's clock beside the one that `ask` reads; Unix seconds. Raises what `ask` does."""
    before_s = clock.unix()
    theirs_s = ask()
    return compared_times(theirs_s, (before_s + clock.unix()) / 2)


def encryption(host: str, tls: str | None) -> Finding:
    """How the connection to `host` is encrypted; `tls`: the version of TLS that is spoken."""
    if tls:
        return right("encryption", tls)
    if is_here(host):
        return right("encryption", "none, and what is said does not leave this host")
    return hint("encryption", DatabasePlain())
