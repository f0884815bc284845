"""What the examinations of all kinds of databases have in common. Asks nobody anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.clock import Clock
from agent.finding import Finding, hint, right, wrong
from agent.here import is_here
from agent.skew import compared_times
from agent.source_errors import DatabasePlain, SourceError
from agent.sources._understood import understood


def tried(subject: str, look: Callable[[], Finding | None]) -> Iterator[Finding]:
    """What `look` finds, if anything; what it meets is wrong, also an answer that it cannot understand."""
    try:
        with understood():
            found = look()
    except SourceError as error:
        found = wrong(subject, error)
    if found is not None:
        yield found


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
