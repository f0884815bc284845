"""Carries out `update_config`: allowed, valid, tried against the database, and only then kept. Speaks to no backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.config import remote
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import CommandRefused, ConfigError, SourceError
from agent.sources import Source


class Reconfiguration:
    """Holds the configuration that is in force. One thread uses it."""

    def __init__(self, config: Config, layers: Layers, make_source: Callable[[Config], Source]) -> None:
        self.config = config
        self._layers = layers
        self._make_source = make_source

    def accept(self, params: Mapping[str, object]) -> Source | None:
        """Takes the change, durable in remote.json. Gives the new source when the database's part has changed.

        Raises CommandRefused with the reason; then everything is as it was.
        """
        reason = remote.refusal(params, self.config.remote_config)
        if reason is not None:
            raise CommandRefused(reason)
        try:
            overlay = {**self._accepted(), **remote.flatten(params)}
            config = self._layers.build(overlay)
        except ConfigError as error:
            raise CommandRefused(error.detail) from None
        source = self._tried(config) if config.db_config != self.config.db_config else None
        try:
            remote.save(self._layers.data_dir, self._layers.file, overlay)
        except OSError as error:
            if source is not None:
                source.close()
            raise CommandRefused(f"the change cannot be stored: {error.strerror}") from None
        self.config = config
        return source

    def _accepted(self) -> dict[str, object]:
        return remote.overlay(self._layers.data_dir, self._layers.file, self._layers.remote_config)

    def _tried(self, config: Config) -> Source:
        source = self._make_source(config)
        try:
            source.check()
        except SourceError as error:
            source.close()
            raise CommandRefused(f"tried against the database: {error}") from None
        return source
