"""What the configuration says reaches the part that it is for.

What could go wrong: the level of redaction stays at its default on the way from the configuration to the source.
"""

from __future__ import annotations

from typing import get_args

import pytest

from agent import sources
from agent.clock import Clock
from agent.config.schema import Config
from agent.redact import Level
from agent.sources import SourceSettings
from agent.wiring import make_source
from tests.fakes.manual import config_tree
from tests.fakes.source import FakeSource


@pytest.mark.parametrize("level", get_args(Level))
def test_a_source_is_told_how_to_redact(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SourceSettings] = []

    def made(settings: SourceSettings, _: Clock) -> FakeSource:
        told.append(settings)
        return FakeSource()

    monkeypatch.setattr(sources, "find", lambda _: made)
    make_source(Config.model_validate(config_tree(redact=level)), Clock())
    assert [settings.redact for settings in told] == [level]
