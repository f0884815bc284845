"""The development backend keeps what its OpenAPI document promises.

What could go wrong: an answer (also a refusal) has a status, type or shape that the document does not name; a body
that the document allows is refused; one that it forbids is taken; or this test notices none of that: so documents that
are wrong on purpose must be caught.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks as rules

from agent.dev.app import build_context, create_app
from agent.dev.context import Context
from agent.dev.openapi import document
from agent.dev.store import Json, Store

load_all_checks()
EXAMPLES = 15
CHECKS: list[Any] = [
    rules.status_code_conformance,
    rules.content_type_conformance,
    rules.response_schema_conformance,
    rules.response_headers_conformance,
    rules.negative_data_rejection,
]
CAREFUL = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],  # the first counterexample will do
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Explorer:
    """Sends what the document allows (or forbids) to an application; each request has its own collector."""

    def __init__(self, described: Json, *, extensions: bool = True) -> None:
        self.context: Context = build_context(Store(), extensions=extensions)
        self.schema = schemathesis.openapi.from_dict(described)
        self.schema.app = create_app(self.context)
        self.statuses: dict[str, set[int]] = {}
        self._made = 0

    def explore(self, mode: GenerationMode, *only: str) -> None:
        """Try every operation, or those with a label in `only`. Raises what schemathesis complains of."""
        for operation in self.operations():
            # Faults that are ordered would spoil what comes after them; they have tests of their own.
            ordered = operation.label == "POST /dev/faults"
            if not ordered and (not only or operation.label in only):
                self._try(operation, mode)

    def operations(self) -> list[Any]:
        """All of the document; one that is not valid OpenAPI raises."""
        every: list[Any] = list(self.schema.get_all_operations())
        return [found.ok() for found in every]

    def _try(self, operation: Any, mode: GenerationMode) -> None:
        if mode is GenerationMode.NEGATIVE and operation.body.items == [] and not list(operation.iter_parameters()):
            return  # nothing can be wrong about it

        @CAREFUL
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            response = case.call(headers=self._prepare(case))
            self.statuses.setdefault(operation.label, set()).add(response.status_code)
            case.validate_response(response, checks=CHECKS)
            assert mode is GenerationMode.NEGATIVE or response.status_code != 422

        one()

    def _prepare(self, case: Any) -> dict[str, str]:
        self._made += 1
        fresh = self.context.registry.register(f"collector {self._made}")
        ids = {"collector_id": fresh.id, "command_id": self.context.registry.queue(fresh.id, "start").id}
        for name, value in (case.path_parameters or {}).items():
            if isinstance(value, int) and not isinstance(value, bool):  # what is wrong on purpose stays
                case.path_parameters[name] = ids[name]
        return {"X-Collector-API-Key": fresh.api_key, "Authorization": "Bearer someone"}


@pytest.fixture(scope="module", params=[True, False], ids=["extended", "plain"])
def explorer(request: pytest.FixtureRequest) -> Explorer:
    return Explorer(document(extensions=request.param), extensions=request.param)


def test_what_the_document_allows_is_accepted_and_answered_as_promised(explorer: Explorer) -> None:
    explorer.explore(GenerationMode.POSITIVE)
    successes = {label for label, seen in explorer.statuses.items() if seen & {200, 201}}
    # a control of the test itself: every call but the one left out was carried out at least once
    assert successes == {operation.label for operation in explorer.operations()} - {"POST /dev/faults"}


def test_what_the_document_forbids_is_refused_as_promised(explorer: Explorer) -> None:
    explorer.statuses.clear()
    explorer.explore(GenerationMode.NEGATIVE)
    assert 422 in explorer.statuses["POST /api/v1/queries/bulk"]
    assert 422 in explorer.statuses["POST /api/v1/collectors/register"]


def wrong_type(described: Json) -> None:
    described["components"]["schemas"]["Summary"]["properties"]["records"] = {"type": "string"}


def wrong_name(described: Json) -> None:
    described["components"]["schemas"]["HeartbeatAnswer"]["required"].append("orders")


def missing_status(described: Json) -> None:
    del described["paths"]["/api/v1/collectors/register"]["post"]["responses"]["422"]


def too_lax_for_the_backend(described: Json) -> None:
    described["components"]["schemas"]["NewCommand"]["properties"]["command"] = {"type": "integer"}


@pytest.mark.parametrize(
    ("spoil", "mode", "label"),
    [
        (wrong_type, GenerationMode.POSITIVE, "GET /dev/summary"),
        (wrong_name, GenerationMode.POSITIVE, "POST /api/v1/collectors/{collector_id}/heartbeat"),
        (missing_status, GenerationMode.NEGATIVE, "POST /api/v1/collectors/register"),
        (too_lax_for_the_backend, GenerationMode.POSITIVE, "POST /api/v1/collectors/{collector_id}/commands"),
    ],
)
def test_a_document_that_is_wrong_is_caught(spoil: Callable[[Json], None], mode: GenerationMode, label: str) -> None:
    described = copy.deepcopy(document())
    Explorer(described).explore(mode, label)
    spoil(described)
    with pytest.raises((AssertionError, schemathesis.core.failures.FailureGroup, schemathesis.core.failures.Failure)):
        Explorer(described).explore(mode, label)
