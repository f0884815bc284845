"""One HTTP session to the backend: bounded in time and in what it reads, never redirected. Judges no answer.

Its connections are in `bounded`, the way there in `route`, what no answer means in `failure`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from ssl import SSLContext

import requests
from requests.auth import AuthBase
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from agent import __version__
from agent.certificates import client_context
from agent.config.tls import BackendTls
from agent.transport.bounded import Adapter, Budget
from agent.transport.failure import NO_ANSWER, explained
from agent.transport.route import is_plain, proxies, shown

__all__ = ["MAX_ANSWER_BYTES", "READ_TIMEOUT_S", "TOTAL_TIMEOUT_S", "Answer", "Transport", "is_plain"]
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TOTAL_TIMEOUT_S = 5.0, 30.0, 60.0
MAX_ANSWER_BYTES = 16 * 1_048_576
_CHUNK_BYTES = 16_384  # small: a compressed chunk may unfold to a thousand times its size
_YEAR_9999 = 253_370_764_800  # beyond it Python has no dates in some time zones


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case; `body` is whole, at most MAX_ANSWER_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def unix_time(self) -> float | None:
        """The other side's clock, from its Date header; Unix seconds."""
        try:
            at = parsedate_to_datetime(self.headers["date"])
            found = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return None
        return found if 0 <= found < _YEAR_9999 else None


class Transport:
    """Keeps one connection to the backend. One thread uses it."""

    def __init__(
        self,
        backend_url: str,
        api_key: str | None,
        *,
        tls: BackendTls | None = None,
        proxy: str | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        """`api_key`: None for a person, whose token comes with each request.

        `proxy`: its address, with user and password when it wants them; empty: none; None: as the environment says.

        The environment is asked once and not for each request; the files of `tls` are read for each connection.
        """
        self._base_url = backend_url
        self._timeout = (min(CONNECT_TIMEOUT_S, read_timeout_s), read_timeout_s)
        self._budget = Budget(read_timeout_s, total_timeout_s)
        self._trust = _Trust(tls or BackendTls())
        self._session = _Session()
        self._session.auth = _NoAuth()
        self._session.proxies.update(proxies(backend_url, proxy))
        self._session.trust_env = False
        self._session.verify = self._trust.tls.verify
        self.proxy = shown(backend_url, self._session.proxies)
        self._session.mount("http://", Adapter(self._budget, self._trust.context))
        self._session.mount("https://", Adapter(self._budget, self._trust.context))
        self._session.headers.update(
            {
                "User-Agent": f"dbpower-agent/{__version__}",
                **({} if api_key is None else {"X-Collector-API-Key": api_key}),
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            }
        )

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Posts `body`. Raises BackendAway for everything that is no complete answer: refused, timeout, cut off."""
        return self._exchange("POST", path, body, headers)

    def get(self, path: str) -> Answer:
        """Asks. Raises BackendAway as `post` does."""
        return self._exchange("GET", path, None, None)

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        self._budget.start()
        try:
            with self._session.request(
                method,
                f"{self._base_url}{path}",
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                text = _read(response)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, names, text)
        except NO_ANSWER as error:
            raise explained(error, self.proxy, has_sent=self._budget.has_sent) from None

    def close(self) -> None:
        """Ends the connection; calling it twice is fine, and a later post opens a new one."""
        self._session.close()


class _Trust:
    """Whom this transport believes, and what it shows of itself."""

    def __init__(self, tls: BackendTls) -> None:
        self.tls = tls
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._ca = tls.ca or Path(named or DEFAULT_CA_BUNDLE_PATH)

    def context(self, shows_itself: bool) -> SSLContext:
        """For one connection. Raises FileUnusable."""
        cert, key = (self.tls.cert, self.tls.key) if shows_itself else (None, None)
        context = client_context(self._ca, cert, key, checks_chain=self.tls.verify, checks_name=True)
        context.hostname_checks_common_name = False
        context.post_handshake_auth = True  # some servers ask for the client certificate only then
        return context


class _NoAuth(AuthBase):
    """Without it the session would look for a password for this host in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """No answer redirects: even unfollowed, requests would read the whole body to prepare the next request."""
        return None


# -- what came back ------------------------------------------------------------------------------------------------


def _read(response: requests.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise ValueError("the answer is larger than 16 MiB")
    return b"".join(parts)
