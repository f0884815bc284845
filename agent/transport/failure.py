"""What no answer means: which of our errors it is, in words that hold no secret. Opens no connection."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator

import requests
import urllib3

from agent.certificates import FileUnusable, disagreement, distrust
from agent.errors import BackendAway, BackendUntrusted, BackendWithoutTls

NO_ANSWER = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    FileUnusable,
)
_NO_TUNNEL = "Tunnel connection failed"
_SHOWS_AN_ADDRESS = (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError)


def explained(error: BaseException, proxy: str | None, *, has_sent: bool) -> BackendAway:
    """The error of ours for one of NO_ANSWER. `proxy`: what may be shown of the proxy that is used; `has_sent`: a part
    of the request has left."""
    if isinstance(error, _SHOWS_AN_ADDRESS):
        # Their texts show the address, and the address of a proxy may hold a password.
        return BackendAway("the address of the backend or of a proxy is malformed")
    chain = list(_causes(error))
    is_proxys = any(isinstance(each, requests.exceptions.ProxyError) for each in chain) or _NO_TUNNEL in str(chain[-1])
    way = f"by the proxy {proxy}: " if is_proxys and proxy else "by the proxy: " if is_proxys else ""
    for each in chain:
        if isinstance(each, FileUnusable):
            return BackendWithoutTls(f"tls.{each}")
        if isinstance(each, ssl.SSLCertVerificationError):
            return BackendUntrusted(way + distrust(each))
        reason = (each.reason or "") if isinstance(each, ssl.SSLError) else ""
        meaning = disagreement(reason)
        if meaning is not None:
            # Whoever ends the handshake with an alert has not looked at what was sent behind it.
            return BackendWithoutTls(way + meaning, may_have_arrived=has_sent and "ALERT" not in reason)
    return BackendAway(way + _shortest(chain[-1]), may_have_arrived=has_sent)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Itself and what is wrapped in it; the innermost says it shortest: "[Errno 111] Connection refused" instead of
    three nested objects."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        inner = [getattr(cause, "reason", None), *cause.args, cause.__cause__]
        cause = next((one for one in inner if isinstance(one, BaseException)), None)


def _shortest(cause: BaseException) -> str:
    text = str(cause)
    return text.rsplit(": ", 1)[-1] if "HTTPConnection" in text else text or type(cause).__name__
