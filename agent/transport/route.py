"""The way to the backend: straight or by a proxy, and whether others can read along. Opens no connection."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from agent.here import is_here


def is_plain(url: str) -> bool:
    """Whether what goes to `url` leaves this host unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_here(parts.hostname or "")


def proxies(url: str, proxy: str | None) -> Mapping[str, str]:
    """The proxies for `url`, by scheme. `proxy`: the one to use; empty: none; None: what the environment says now."""
    if proxy is None:
        return get_environ_proxies(url)
    return {"http": proxy, "https": proxy} if proxy else {}


def shown(url: str, proxies_now: Mapping[str, str]) -> str | None:
    """Host and port of the proxy that is used for `url`, for people; None when none is, or it cannot be told safely."""
    proxy = select_proxy(url, dict(proxies_now))
    if proxy is None:
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        port = parts.port
    except ValueError:
        return None
    # Behind an unescaped / ? or # in a password the rest of it would be taken for something else.
    if parts.hostname is None or parts.path.strip("/") or parts.query or parts.fragment:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}" if port else host
