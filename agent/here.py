"""Which names and addresses are this host itself, so that nobody on the way can read along. Asks no resolver."""

from __future__ import annotations

from ipaddress import ip_address

_LOCAL = "localhost"


def is_here(host: str) -> bool:
    """Whether what goes to `host` never leaves this one. A path is that of a socket."""
    if host.startswith("/"):
        return True
    name = host.lower().rstrip(".")
    if name == _LOCAL or name.endswith(f".{_LOCAL}"):  # RFC 6761: such a name never leaves the host
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    within = getattr(address, "ipv4_mapped", None) or address  # of ::ffff:127.0.0.1
    return bool(within.is_loopback)
