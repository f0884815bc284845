"""Makes a collector known to the backend, on behalf of a person who may do that. Keeps nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from agent.body import dumps
from agent.errors import BackendAway, NotTheBackend, RegistrationRefused
from agent.transport import Answer, Transport

PATH = "/api/v1/collectors/register"
_SAID_CHARACTERS = 200
# Not `$`, `{`, `}`: the key goes into a file in which `${NAME}` is replaced by what the environment holds.
_KEY = re.compile(r"collector_([0-9]{1,18})_[A-Za-z0-9_.~-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `address`: how the database is reached, without a password: the agent has that, and the
    backend has no use for it. `interval_minutes`: 1 to 1440."""

    name: str
    db_type: str
    team_id: int
    address: dict[str, object]
    interval_minutes: int = 5

    def body(self) -> bytes:
        """The body of the call."""
        return dumps(
            {
                "name": self.name,
                "type": self.db_type,
                "team_id": self.team_id,
                "config": self.address,
                "collection_interval_minutes": self.interval_minutes,
                "auto_collect": True,
            }
        )


@dataclass(frozen=True, slots=True)
class Registered:
    """What came back; the key is never told again."""

    collector_id: int
    api_key: str


def id_in(api_key: str) -> int | None:
    """The collector that a key belongs to, as the key itself says; None when it says nothing."""
    named = _KEY.fullmatch(api_key)
    return int(named.group(1)) if named else None


def register(transport: Transport, token: str, wanted: Wanted) -> Registered:
    """Registers it. Raises BackendAway, NotTheBackend, or RegistrationRefused with what the backend said."""
    try:
        answer = transport.post(PATH, wanted.body(), {"Authorization": f"Bearer {token}"})
    except BackendAway as error:
        if not error.may_have_arrived:
            raise
        more = "whether it was registered all the same, its list of collectors shows"
        raise BackendAway(f"{error.detail}; {more}", may_have_arrived=True) from None
    if 400 <= answer.status < 500:
        raise RegistrationRefused(f"status {answer.status}{_said(answer, token)}")
    found = _read(answer)
    if answer.status not in {200, 201} or found is None:
        raise NotTheBackend(f"status {answer.status} without the answer of a registration")
    return found


def _read(answer: Answer) -> Registered | None:
    try:
        contract = orjson.loads(answer.body)
        number, key = contract["id"], contract["api_key"]
    except (ValueError, TypeError, KeyError):
        return None
    is_whole = type(number) is int and number > 0 and isinstance(key, str) and id_in(key) is not None
    return Registered(number, key) if is_whole else None


def _said(answer: Answer, token: str) -> str:
    try:
        detail = orjson.loads(answer.body)["detail"]
    except (ValueError, TypeError, KeyError):
        return ""
    text = detail.replace(token, "***") if isinstance(detail, str) else ""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:_SAID_CHARACTERS])
    return f", {shown}" if shown else ""
