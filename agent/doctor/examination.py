"""The order of all that `doctor` looks at: this host, the backend, each database, and the canary when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from agent import overview, wiring
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.doctor import backend, canary, host
from agent.errors import CanaryLost
from agent.finding import Finding, wrong
from storage.errors import CodedError

HOST, BACKEND = "this host", "backend"
Line = tuple[str, Finding]


def unusable(error: CodedError) -> Iterator[Line]:
    """All that can be said without a configuration."""
    yield HOST, host.program()
    yield HOST, wrong("configuration", error)


def examine(config: Config, layers: Layers, path: Path, parts: wiring.Parts) -> Iterator[Line]:
    """Every finding with what it belongs to, as soon as it is made. Raises nothing."""
    yield HOST, host.program()
    for finding in host.examine(config, layers, path, parts.clock):
        yield HOST, finding
    transport = wiring.make_transport(config)
    try:
        for finding in backend.examine(config, transport, parts.clock):
            yield BACKEND, finding
    finally:
        transport.close()
    for watch in config.watches:
        source = parts.sources.get(watch.name) or wiring.make_source(config, watch.name, parts.clock, may_rotate=False)
        for finding in source.examine():
            yield place(watch.name), finding


def try_canary(config: Config, layers: Layers, parts: wiring.Parts, pause: Callable[[float], object]) -> Iterator[Line]:
    """One canary for each database, one after the other. Raises nothing."""
    for watch in config.watches:
        source = wiring.make_source(config, watch.name, parts.clock, may_rotate=False)
        try:
            way = _way(config, layers, watch.name, parts)
        except CodedError as error:
            yield place(watch.name), wrong("canary", error)
            continue
        token = f"{parts.rng.getrandbits(32):08x}"
        for finding in canary.follow(source, way, parts.clock, pause, token):
            yield place(watch.name), finding


def place(name: str) -> str:
    """What the findings of the watch of that name belong to."""
    return f"database {name}"


def _way(config: Config, layers: Layers, name: str, parts: wiring.Parts) -> canary.Way:
    if overview.look(layers.data_dir, parts.clock)["pid"] is not None:
        return canary.Running(layers.data_dir, name, parts.clock)
    if layers.data_dir.exists() and layers.data_dir.stat().st_uid != os.geteuid():
        # What is made there by another user, root included, the agent could not use.
        raise CanaryLost(f"no agent runs, and {layers.data_dir} is another user's: say it as that user")
    return canary.Own(config, layers, name, parts)
