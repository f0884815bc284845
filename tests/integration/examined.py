"""What a source's examination found, by subject, for tests."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from agent.clock import Clock
from agent.config.schema import DbConfig
from agent.finding import Finding
from agent.sources import SourceSettings, find


def examined(db_type: str, db_config: dict[str, Any], clock: Clock | None = None, **more: Any) -> dict[str, Finding]:
    """Every finding by its subject; no subject is there twice."""
    db = DbConfig(**{"connect_timeout": 2, "read_timeout": 20, **db_config, **more})
    with closing(find(db_type)(SourceSettings("default", db, db.port or 0), clock or Clock())) as source:
        found = list(source.examine())
    by_subject = {finding.subject: finding for finding in found}
    assert len(by_subject) == len(found), found
    return by_subject


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    """What is not right, with its code."""
    return {subject: each.code for subject, each in found.items() if each.verdict != "right"}
