"""One HTTP session to the backend: bounded in time and in what it reads, never redirected. Judges no answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_environ_proxies

from agent import __version__
from agent.errors import BackendAway

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TOTAL_TIMEOUT_S = 5.0, 30.0, 60.0
MAX_ANSWER_BYTES = 16 * 1_048_576
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case; `body` ends at MAX_ANSWER_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def unix_time(self) -> float | None:
        """The other side's clock, from its Date header; Unix seconds."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return None


class _NoAuth(AuthBase):
    """Without it the session would look for a password for this host in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Transport:
    """Keeps one connection to the backend. One thread uses it."""

    def __init__(self, backend_url: str, api_key: str, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._base_url = backend_url
        self._timeout = (min(CONNECT_TIMEOUT_S, read_timeout_s), read_timeout_s)
        self._session = requests.Session()
        self._session.auth = _NoAuth()
        # The environment is asked once and not for each request.
        self._session.proxies.update(get_environ_proxies(backend_url))
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
        self._session.mount("https://", HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
        self._session.headers.update(
            {
                "User-Agent": f"dbpower-agent/{__version__}",
                "X-Collector-API-Key": api_key,
                "Content-Type": "application/json",
                "Accept": "application/json",
            }
        )

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Posts `body`. Raises BackendAway for everything that is no complete answer: refused, timeout, cut off."""
        started_s = time.monotonic()
        try:
            with self._session.post(
                f"{self._base_url}{path}",
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                text = _read(response, started_s + TOTAL_TIMEOUT_S)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, names, text)
        except (requests.RequestException, OSError, ValueError) as error:
            raise BackendAway(_reason(error)) from None

    def close(self) -> None:
        """Ends the connection; calling it twice is fine."""
        self._session.close()


def _read(response: requests.Response, deadline_s: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise ValueError("the answer is larger than 16 MiB")
        if time.monotonic() > deadline_s:
            raise ValueError("the answer took longer than 60 s")
    return b"".join(parts)


def _reason(error: Exception) -> str:
    # The innermost cause says it shortest: "[Errno 111] Connection refused" instead of three nested objects.
    seen: set[int] = set()
    cause: BaseException = error
    while id(cause) not in seen:
        seen.add(id(cause))
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None) or cause.__cause__
        if isinstance(inner, BaseException):
            cause = inner
    text = str(cause)
    return text.rsplit(": ", 1)[-1] if "HTTPConnection" in text else text or type(cause).__name__
