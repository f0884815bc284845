"""Whether the files that the sections `tls` name can be used now. Keeps nothing of them: whoever connects reads them
again."""

from __future__ import annotations

from collections.abc import Iterator

from agent.certificates import FileUnusable, client_context
from agent.config.places import DATABASES, DB_CONFIG
from agent.config.schema import Config
from agent.config.tls import BackendTls, DatabaseTls


def unusable(config: Config) -> list[str]:
    """One sentence for each section that does not do: `tls.ca: the file cannot be read (...)`."""
    return [sentence for place, tls in _sections(config) if (sentence := _complaint(place, tls)) is not None]


def _sections(config: Config) -> Iterator[tuple[str, BackendTls | DatabaseTls]]:
    yield "tls", config.tls
    for each in config.watches:
        place = (DATABASES, each.name) if config.databases else ()
        yield ".".join((*place, DB_CONFIG, "tls")), each.db_config.tls


def _complaint(place: str, tls: BackendTls | DatabaseTls) -> str | None:
    if tls.ca is not None and tls.ca.is_dir():
        return f"{place}.ca: should be a file, and is a directory"
    try:
        client_context(tls.ca, tls.cert, tls.key, checks_chain=tls.ca is not None, checks_name=False)
    except FileUnusable as error:
        return f"{place}.{error.key}: {error.reason}"
    return None
