"""Carries out `update_config`: allowed, valid, tried against the database, and only then kept. Speaks to no backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from agent.config import permission, places, remote
from agent.config.layers import Layers
from agent.config.schema import Config, WatchConfig
from agent.errors import CommandRefused, ConfigError
from agent.source_errors import SourceError
from agent.sources import Source


class Reconfiguration:
    """Holds the configuration that is in force, for all watches; each uses it from its own thread.

    What one of them changes while the database of another is tried stays: the change is laid over what is kept by then.
    """

    def __init__(
        self,
        config: Config,
        layers: Layers,
        make_source: Callable[[Config, str], Source],
        on_config: Callable[[Config], None],
    ) -> None:
        """`make_source`: the source of the watch of that name; `on_config` hears each new configuration, in order."""
        self.config = config
        self._layers = layers
        self._make_source, self._on_config = make_source, on_config
        self._lock = threading.Lock()  # around remote.json and `config`, never while a database is tried
        self._is_over = False

    def end(self) -> None:
        """Nothing is kept from now on, also not what is being tried: another configuration takes over."""
        self._is_over = True

    def accept(self, name: str, params: Mapping[str, object]) -> Source | None:
        """Takes the change for the watch of that name, durable in remote.json.

        Gives the new source when its database's part has changed. Raises CommandRefused with the reason; then
        everything is as it was.
        """
        changes = self._allowed(name, params)
        config = self._with(changes)[1]
        wanted = config.watch(name)
        source = self._tried(config, name) if wanted.db_config != self.config.watch(name).db_config else None
        try:
            with self._lock:
                self._keep(changes, wanted)
        except BaseException:
            if source is not None:
                source.close()
            raise
        return source

    def _allowed(self, name: str, params: Mapping[str, object]) -> dict[str, object]:
        mode, file = self.config.remote_config, self._layers.file
        reason = permission.refusal(params, mode, [each.name for each in self.config.watches])
        changes = {} if reason else remote.flatten(params, places.place_of(file, name))
        wrong = (permission.beyond(places.path_of(each), changes[each], file, mode) for each in changes)
        reason = reason or next(filter(None, wrong), None)
        if reason is not None:
            raise CommandRefused(reason)
        return changes

    def _keep(self, changes: Mapping[str, object], tried: WatchConfig) -> None:
        if self._is_over:
            raise CommandRefused("the agent has read its configuration again meanwhile")
        overlay, config = self._with(changes)
        if config.watch(tried.name).db_config != tried.db_config:
            raise CommandRefused(f"{remote.FILE_NAME} was changed by somebody else meanwhile")
        try:
            remote.save(self._layers.data_dir, self._layers.file, overlay)
        except OSError as error:
            raise CommandRefused(f"the change cannot be stored: {error.strerror}") from None
        self.config = config
        self._on_config(config)

    def _with(self, changes: Mapping[str, object]) -> tuple[dict[str, object], Config]:
        """What was accepted so far with these changes, and the configuration that it makes."""
        try:
            accepted = remote.overlay(self._layers.data_dir, self._layers.file, self._layers.remote_config)
            overlay = {**accepted, **changes}
            return overlay, self._layers.build(overlay)
        except ConfigError as error:
            raise CommandRefused(error.detail) from None

    def _tried(self, config: Config, name: str) -> Source:
        source = self._make_source(config, name)
        try:
            source.check()
        except SourceError as error:
            source.close()
            raise CommandRefused(f"tried against the database: {error}") from None
        return source
