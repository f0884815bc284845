"""A backend that takes heartbeats and nothing else, so that it hears how an agent fares that cannot deliver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fakes.stub_backend import Served, StubBackend


class DeafBackend(StubBackend):
    """Cuts every bulk call while `takes_bodies` is false."""

    takes_bodies = True

    def serve(self, method: str, path: str, headers: Any, body: bytes, gone: Callable[[], bool]) -> Served:
        """As the stub, or nothing."""
        if path.endswith("/bulk") and not self.takes_bodies:
            return None
        return super().serve(method, path, headers, body, gone)
