"""One HTTP session to the backend: bounded in time and in what it reads, never redirected. Judges no answer."""

from __future__ import annotations

import http.client
import io
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agent import __version__
from agent.errors import BackendAway

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TOTAL_TIMEOUT_S = 5.0, 30.0, 60.0
MAX_ANSWER_BYTES = 16 * 1_048_576
_CHUNK_BYTES = 16_384  # small: a compressed chunk may unfold to a thousand times its size
_SEND_BYTES = 65_536
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


def is_plain(url: str) -> bool:
    return url.startswith("http://") and "127.0.0.1" not in url and "localhost" not in url


class Transport:
    """Keeps one connection to the backend. One thread uses it."""

    def __init__(
        self,
        backend_url: str,
        api_key: str | None,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._base_url = backend_url
        self._timeout = (min(CONNECT_TIMEOUT_S, read_timeout_s), read_timeout_s)
        self._budget = _Budget(read_timeout_s, total_timeout_s)
        self._session = _Session()
        self._session.auth = _NoAuth()
        # The environment is asked once and not for each request.
        self._session.proxies.update(get_environ_proxies(backend_url))
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._session.mount("http://", _Adapter(self._budget))
        self._session.mount("https://", _Adapter(self._budget))
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
        except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError):
            # Their texts show the address, and the address of a proxy may hold a password.
            raise BackendAway("the address of the backend or of a proxy in the environment is malformed") from None
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            raise BackendAway(_reason(error), may_have_arrived=self._budget.has_sent) from None

    def close(self) -> None:
        """Ends the connection; calling it twice is fine, and a later post opens a new one."""
        self._session.close()


class _NoAuth(AuthBase):
    """Without it the session would look for a password for this host in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """No answer redirects: even unfollowed, requests would read the whole body to prepare the next request."""
        return None


# -- the time one exchange may take ------------------------------------------------------------------------------


class _Budget:
    """How long the exchange that runs may still take. A socket's timeout starts anew with each byte: without this a
    server that sends one byte every few seconds, in its headers or its body, would be waited for without end."""

    def __init__(self, each_s: float, total_s: float) -> None:
        self._each_s, self._total_s = each_s, total_s
        self._until_s = 0.0
        self.saw_the_end = False  # the other side has closed its half of the connection
        self.has_sent = False

    def start(self) -> None:
        self._until_s = time.monotonic() + self._total_s
        self.saw_the_end = self.has_sent = False

    def left_s(self) -> float:
        """Seconds that the next wait on the socket may take. Raises TimeoutError when there are none."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"the exchange took longer than {self._total_s:g} s")
        return min(self._each_s, left_s)


class _BoundedSocket:
    """A connected socket (plain or TLS) whose waits all end with the budget; everything else is the socket's own."""

    def __init__(self, inner: socket.socket, budget: _Budget) -> None:
        self._inner, self._budget = inner, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv_into(self, *args: Any) -> int:
        self._inner.settimeout(self._budget.left_s())
        count = self._inner.recv_into(*args)
        self._budget.saw_the_end |= count == 0
        return count

    def sendall(self, data: bytes, flags: int = 0) -> None:
        self._budget.has_sent = True
        view = memoryview(data)
        while view:
            self._inner.settimeout(self._budget.left_s())
            view = view[self._inner.send(view[:_SEND_BYTES], flags) :]

    def makefile(self, _mode: str = "rb", *_: Any) -> io.BufferedReader:
        inner = cast("Any", self._inner)
        inner._io_refs += 1  # noqa: SLF001  # as socket.makefile does: the socket stays open until the reader is closed
        return io.BufferedReader(socket.SocketIO(cast("Any", self), "r"))


class _FinalResponse(http.client.HTTPResponse):
    """http.client takes 102 and 103 for the answer; the real one would then answer the next request."""

    def _read_status(self) -> Any:
        inherited = cast("Any", super())
        while 101 < (found := inherited._read_status())[1] < 200:  # noqa: SLF001  # there is no public place for it
            http.client.parse_headers(self.fp)
        return found


class _Plain(HTTPConnection):
    budget: _Budget
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return cast("socket.socket", _BoundedSocket(super()._new_conn(), self.budget))

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3 overrides it like this
        return _demand_whole_head(super().getresponse(), self.budget)


class _Tls(HTTPSConnection):
    budget: _Budget
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return cast("socket.socket", _BoundedSocket(super()._new_conn(), self.budget))

    def connect(self) -> None:
        super().connect()
        self.sock = cast("Any", _BoundedSocket(cast("Any", self.sock), self.budget))

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3 overrides it like this
        return _demand_whole_head(super().getresponse(), self.budget)


def _demand_whole_head(response: urllib3.HTTPResponse, budget: _Budget) -> urllib3.HTTPResponse:
    # http.client takes headers that end with the connection for complete. Behind whole ones it does not read on.
    if budget.saw_the_end:
        response.close()
        raise ConnectionAbortedError("the answer was cut in its headers")
    return response


class _Adapter(HTTPAdapter):
    """One connection, no retries of its own, every wait within `budget`."""

    def __init__(self, budget: _Budget) -> None:
        self._plain_pool = _pool(HTTPConnectionPool, type("_PlainNow", (_Plain,), {"budget": budget}))
        self._tls_pool = _pool(HTTPSConnectionPool, type("_TlsNow", (_Tls,), {"budget": budget}))
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._put_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            self._put_pools(manager)
        return manager

    def _put_pools(self, manager: urllib3.PoolManager) -> None:
        manager.pool_classes_by_scheme = {"http": self._plain_pool, "https": self._tls_pool}


def _pool(pool: type[HTTPConnectionPool], connection: type) -> type[HTTPConnectionPool]:
    return type(f"_{pool.__name__}", (pool,), {"ConnectionCls": connection})


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


def _reason(error: BaseException) -> str:
    # The innermost cause says it shortest: "[Errno 111] Connection refused" instead of three nested objects.
    seen: set[int] = set()
    cause = error
    while id(cause) not in seen:
        seen.add(id(cause))
        inner = [getattr(cause, "reason", None), *cause.args, cause.__cause__]
        cause = next((one for one in inner if isinstance(one, BaseException)), cause)
    text = str(cause)
    return text.rsplit(": ", 1)[-1] if "HTTPConnection" in text else text or type(cause).__name__
