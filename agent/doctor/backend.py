"""What `doctor` says of the backend: whether it is there, is one, takes this key, and what time it is. Stores nothing
there, and takes no command from it: an empty bulk call, and the result of a command that cannot exist."""

from __future__ import annotations

from collections.abc import Iterator

from agent.body import dumps
from agent.clock import Clock
from agent.config.schema import Config
from agent.delivery import Delivered, Hold, Retry, judge_bulk, judge_execute
from agent.errors import BackendAway, BackendPlain, BackendUnverified, KeyRefused, NotTheBackend
from agent.finding import Finding, hint, right, skipped, wrong
from agent.registration import id_in
from agent.sinks.http import BULK_PATH
from agent.skew import compared_times
from agent.transport import Answer, Transport, is_plain
from storage.errors import CodedError

NO_COMMAND = 0


def examine(config: Config, transport: Transport, clock: Clock) -> Iterator[Finding]:
    """Everything of the backend. Raises nothing; closes nothing."""
    yield _address(config)
    yield right("proxy", "none" if transport.proxy is None else f"through {transport.proxy}")
    began_s = clock.monotonic()
    try:
        answer = transport.post(BULK_PATH, dumps({"queries": []}))
    except BackendAway as error:
        yield wrong("reached", error)
        yield skipped("key", "the backend has to be reached first")
        return
    took_ms = (clock.monotonic() - began_s) * 1_000
    ours_s = clock.unix() - took_ms / 2_000
    refused = _refusal(answer, clock)
    if refused is not None and not isinstance(refused, KeyRefused):
        yield wrong("reached", refused)
        yield skipped("key", "the backend has to answer first")
        return
    yield right("reached", f"answers in {took_ms:.0f} ms")
    if answer.unix_time is not None:
        yield compared_times(answer.unix_time + 0.5, ours_s)  # its header tells whole seconds
    yield wrong("key", refused) if refused is not None else _key(config, transport, clock)


def _address(config: Config) -> Finding:
    if is_plain(config.backend_url):
        return hint("address", BackendPlain(config.backend_url))
    if config.backend_url.lower().startswith("https:") and not config.tls.verify:
        return hint("address", BackendUnverified(config.backend_url))
    return right("address", config.backend_url)


def _refusal(answer: Answer, clock: Clock) -> CodedError | None:
    verdict = judge_bulk(answer, 0, clock.now())
    # Refused: it read the key before it looked at the body.
    return verdict.error if isinstance(verdict, Hold | Retry) else None


def _key(config: Config, transport: Transport, clock: Clock) -> Finding:
    number = config.collector_id
    named = id_in(config.api_key.get_secret_value())
    if named is not None and named != number:
        return wrong("key", KeyRefused(f"it is that of collector {named}, and collector_id is {number}"))
    path = f"/api/v1/collectors/{number}/commands/{NO_COMMAND}/execute"
    try:
        answer = transport.post(path, dumps({"command_id": NO_COMMAND, "success": False, "result": {}}))
    except BackendAway as error:
        return wrong("key", error)
    verdict = judge_execute(answer, clock.now())
    if isinstance(verdict, Delivered):
        return right("key", f"is taken for collector {number}")
    if isinstance(verdict, Hold | Retry):
        return wrong("key", verdict.error)
    return wrong("key", NotTheBackend(f"status {answer.status} for the result of a command"))
