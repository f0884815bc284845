"""What could go wrong: CONTRIBUTING names a script or file that does not exist, or a call that the development backend
refuses; a measurement or a part of the torture is missing there, or is not measured any more.
"""

from __future__ import annotations

from agent.config.permission import refusal
from agent.dev.app import build_context, create_app
from agent.dev.store import Store
from scripts.bench import MEASUREMENTS
from tests.page import ROOT, Page, parsed_curl, table, ticked

PAGE, README = Page("CONTRIBUTING.md"), Page("README.md")


def test_the_figures_are_those_that_are_measured() -> None:
    assert [ticked(row[0]) for row in table("measurement", PAGE.text)] == list(MEASUREMENTS)


def test_every_script_in_its_table_exists() -> None:
    named = [ticked(row[0]).split()[0] for row in table("command", PAGE.text)]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert {"scripts/test", "scripts/torture", "scripts/bench"} <= set(named)


def test_the_calls_that_the_pages_show_are_accepted_by_the_development_backend() -> None:
    lines = [*README.commands(), *PAGE.commands()]
    calls = [parsed_curl(line) for line in lines if line.startswith("curl ")]
    store = Store(None)
    try:
        client = create_app(build_context(store)).test_client()
        answers = [client.open(path, method=how, headers=headers, data=data) for how, path, headers, data in calls]
    finally:
        store.close()
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 200]
    registered, *_, told = answers
    assert {"id", "api_key"} - set(registered.json or {}) == set()
    commands = [(command["command"], command["params"]) for command in told.json or []]
    assert [name for name, _ in commands] == ["stop", "start", "collect", "update_config"]
    assert {name: params for name, params in commands if params and refusal(params, "safe") is None} == {
        "update_config": {"collection_interval": 60}
    }
