"""Connections whose every wait ends: none is kept longer, read further or trusted less than it was said to be.

What they are used for, and what comes of it, is not known here.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_SEND_BYTES = 65_536

ContextMaker = Callable[[bool], ssl.SSLContext]  # with the client certificate, or without


class Budget:
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

    def __init__(self, inner: socket.socket, budget: Budget) -> None:
        self._inner, self._budget = inner, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv_into(self, *args: Any) -> int:
        self._inner.settimeout(self._budget.left_s())
        count = self._inner.recv_into(*args)
        self._budget.saw_the_end |= count == 0
        return count

    def recv(self, *args: Any) -> bytes:
        self._inner.settimeout(self._budget.left_s())
        return self._inner.recv(*args)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        self._budget.has_sent = True
        view = memoryview(data)
        while view:
            self._inner.settimeout(self._budget.left_s())
            try:
                view = view[self._inner.send(view[:_SEND_BYTES], flags) :]
            except ssl.SSLEOFError:
                # As without TLS: then urllib3 reads what the other side has said before it closed, for example that it
                # does not take the client certificate; with TLS 1.3 it says so when the request is on its way.
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None

    def hold(self) -> None:
        """As socket.makefile does: the socket stays open until the reader is closed."""
        inner: Any = getattr(self._inner, "socket", self._inner)  # of TLS within the TLS of a proxy
        if isinstance(inner, _BoundedSocket):
            inner.hold()
        else:
            inner._io_refs += 1  # noqa: SLF001

    def makefile(self, _mode: str = "rb", *_: Any) -> io.BufferedReader:
        self.hold()
        return io.BufferedReader(socket.SocketIO(cast("Any", self), "r"))


class _FinalResponse(http.client.HTTPResponse):
    """http.client takes 102 and 103 for the answer; the real one would then answer the next request."""

    def _read_status(self) -> Any:
        inherited = cast("Any", super())
        while 101 < (found := inherited._read_status())[1] < 200:  # noqa: SLF001  # there is no public place for it
            http.client.parse_headers(self.fp)
        return found


class _Plain(HTTPConnection):
    budget: Budget
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return cast("socket.socket", _BoundedSocket(super()._new_conn(), self.budget))

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3 overrides it like this
        return _demand_whole_head(super().getresponse(), self.budget)


class _Tls(HTTPSConnection):
    budget: Budget
    make_context: ContextMaker
    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        return cast("socket.socket", _BoundedSocket(super()._new_conn(), self.budget))

    def _connect_tls_proxy(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        return cast("ssl.SSLSocket", _BoundedSocket(super()._connect_tls_proxy(*args, **named), self.budget))

    def connect(self) -> None:
        # Anew each time, and nothing of what requests has put here: the files may have been renewed.
        self.ssl_context = self.make_context(True)
        self.cert_reqs, self.ca_certs, self.ca_cert_dir = self.ssl_context.verify_mode, None, None
        if self.proxy is not None and self.proxy.scheme == "https" and self.proxy_config is not None:
            self.proxy_config = self.proxy_config._replace(ssl_context=self.make_context(False))
        try:
            super().connect()
        finally:
            self.budget.has_sent = False  # nobody but a proxy has heard anything so far
        self.sock = cast("Any", _BoundedSocket(cast("Any", self.sock), self.budget))

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3 overrides it like this
        return _demand_whole_head(super().getresponse(), self.budget)


def _demand_whole_head(response: urllib3.HTTPResponse, budget: Budget) -> urllib3.HTTPResponse:
    # http.client takes headers that end with the connection for complete. Behind whole ones it does not read on.
    if budget.saw_the_end:
        response.close()
        raise ConnectionAbortedError("the answer was cut in its headers")
    return response


class _TlsPool(HTTPSConnectionPool):
    def _validate_conn(self, conn: Any) -> None:
        """Connects, and no more: urllib3 would warn at each request to a server that is not to be checked."""
        if conn.is_closed:
            conn.connect()


class Adapter(HTTPAdapter):
    """One connection, no retries of its own, every wait within `budget`. `make_context` is asked for each TLS
    connection; what it raises goes through."""

    def __init__(self, budget: Budget, make_context: ContextMaker) -> None:
        members = {"budget": budget, "make_context": staticmethod(make_context)}
        plain, tls = type("_PlainNow", (_Plain,), members), type("_TlsNow", (_Tls,), members)
        self._pools = {
            "http": type("_PlainPoolNow", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("_TlsPoolNow", (_TlsPool,), {"ConnectionCls": tls}),
        }
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):  # its connections would be others, without our bounds and authorities
            raise InvalidSchema("a SOCKS proxy cannot be used; name one with http:// or https://")
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
