"""Whether a configuration that was read again takes the place of the one in force. Decides and tells; does nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import ConfigError
from agent.logs import tell
from storage.errors import OutboxError


@dataclass(frozen=True, slots=True)
class Renewed:
    """A configuration that can be gone on with, and where it comes from."""

    config: Config
    layers: Layers


Read = Callable[[], tuple[Config, Layers]]


def renewed(read: Read, now: Renewed) -> Renewed | None:
    """What was read, when it is another than `now`, which is in force, and needs no new process; else None.

    Tells what has changed, by the names of the keys, or every complaint about what cannot be used.
    """
    try:
        found = _read(read, now)
    except (ConfigError, OutboxError) as error:
        sentence = f"The configuration was not taken over, and the one before goes on: {error}"
        tell(logging.WARNING, "config.refused", sentence, code=error.code)
        return None
    if found == now:
        tell(logging.INFO, "config.unchanged", "The configuration says what it said before; nothing is done")
        return None
    keys = [name for name in Config.model_fields if getattr(found.config, name) != getattr(now.config, name)]
    what = ", ".join(keys) or "only the way in which it is written"
    tell(logging.INFO, "config.changed", f"Another configuration is taken over; changed: {what}", keys=keys)
    return found


def newest(read: Read, found: Renewed) -> Renewed:
    """What is to be gone on with when nobody changes anything any more: `found`, and what the last commands changed."""
    try:
        return _read(read, found)
    except (ConfigError, OutboxError):  # somebody writes it again at this moment, and will say so
        return found


def _read(read: Read, now: Renewed) -> Renewed:
    found = Renewed(*read())
    if found.layers.data_dir != now.layers.data_dir:
        raise ConfigError("data_dir: is another one now; restart the agent for that")
    return found
