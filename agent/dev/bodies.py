"""What request bodies must look like, and how one is read. Answers like FastAPI when it does not."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Literal, TypeVar

import orjson
from flask import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.dev.faults import count_records
from agent.dev.store import Json

MAX_BODY_BYTES = 64 * 1024 * 1024
UNPARSABLE = "There was an error parsing the body"
_GZIP = 31  # zlib's wbits for a gzip member


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 5.0 is an integer. Strict pydantic says no."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ModelT = TypeVar("ModelT", bound=BaseModel)
Name = Annotated[str, Field(min_length=1, max_length=255)]
Integer = Annotated[int, BeforeValidator(_whole), Field(ge=-(2**31), lt=2**31)]
Minutes = Annotated[Integer, Field(ge=1, le=1440)]


class RefusalError(Exception):
    """An answer that is no success: status and the `detail` of its JSON (a text, or FastAPI's list)."""

    def __init__(self, status: int, detail: str | list[Json]) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)


class RegisterBody(_Body):
    """POST register."""

    name: Name
    type: Literal["mysql", "postgres"]
    team_id: Integer
    config: dict[str, Any] = Field(default_factory=dict)
    collection_interval_minutes: Minutes = 5
    auto_collect: bool = True


class ChangeBody(_Body):
    """PATCH a collector: only what is named is changed."""

    name: Name = ""
    config: dict[str, Any] = Field(default_factory=dict)
    collection_interval_minutes: Minutes = 5
    auto_collect: bool = True


class HeartbeatBody(_Body):
    """POST heartbeat."""

    stats: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None


class ExecuteBody(_Body):
    """POST execute."""

    command_id: Integer
    success: bool
    result: dict[str, Any] = Field(default_factory=dict)


class BulkBody(_Body):
    """POST bulk. What is inside a record is judged record by record."""

    queries: list[dict[str, Any]]


class CommandBody(_Body):
    """POST a command, by a person."""

    command: Name
    params: dict[str, Any] = Field(default_factory=dict)


class RequestBody:
    """The body of one request: `raw` as sent, `text` decompressed; read once, decompressed once."""

    def __init__(self, request: Request, *, extensions: bool) -> None:
        self.raw = request.get_data()
        self._encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        self._extensions = extensions
        self._text: bytes | None = None

    @property
    def text(self) -> bytes:
        """The decompressed body, for faults; as sent when it cannot be decompressed."""
        try:
            return self.read()
        except RefusalError:
            return self.raw

    def records(self) -> int:
        """How many queries it holds, for faults."""
        return count_records(self.text)

    def read(self) -> bytes:
        """The decompressed body. Raises RefusalError: 400 no gzip, 413 above 64 MiB, 415 other codings."""
        if self._text is None:
            self._text = self._decoded()
        return self._text

    def _decoded(self) -> bytes:
        # Without the extension nobody looks at the header: gzip is then merely a body that is no UTF-8.
        if not self._extensions or self._encoding == "identity":
            text = self.raw
        elif self._encoding == "gzip":
            text = _gunzip(self.raw)
        else:
            raise RefusalError(415, f"Content-Encoding {self._encoding} is not supported")
        if len(text) > MAX_BODY_BYTES:
            raise RefusalError(413, f"The body is larger than {MAX_BODY_BYTES} bytes")
        return text


def _gunzip(raw: bytes) -> bytes:
    parts: list[bytes] = []
    room = MAX_BODY_BYTES + 1
    try:
        while raw and room > 0:
            member = zlib.decompressobj(_GZIP)
            parts.append(member.decompress(raw, room))
            room -= len(parts[-1])
            if room > 0 and not member.eof:
                raise RefusalError(400, UNPARSABLE)
            raw = member.unused_data
    except zlib.error:
        raise RefusalError(400, UNPARSABLE) from None
    return b"".join(parts)


def read_model(body: RequestBody, model: type[ModelT]) -> ModelT:
    """The body as `model`. Raises RefusalError: 400 for bytes that are no text, else 422."""
    text = body.read()
    if not text:
        raise RefusalError(422, [{"loc": ["body"], "msg": "Field required", "type": "missing"}])
    try:
        return model.model_validate(orjson.loads(text))
    except orjson.JSONDecodeError as wrong:
        raise _no_json(text, wrong) from None
    except ValidationError as wrong:
        shown = wrong.errors(include_url=False, include_input=False, include_context=False)
        detail = [{"loc": ["body", *each["loc"]], "msg": each["msg"], "type": each["type"]} for each in shown]
        raise RefusalError(422, detail) from None


def _no_json(text: bytes, wrong: orjson.JSONDecodeError) -> RefusalError:
    try:
        text.decode()
    except UnicodeDecodeError:
        return RefusalError(400, UNPARSABLE)
    place = {"loc": ["body", wrong.pos], "msg": f"JSON decode error: {wrong.msg}", "type": "json_invalid"}
    return RefusalError(422, [place])


def read_integer(text: str, *loc: str) -> int:
    """A number from the path or the query string. Raises RefusalError 422."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20:
        return int(text)
    msg = "Input should be a valid integer, unable to parse string as an integer"
    raise RefusalError(422, [{"loc": list(loc), "msg": msg, "type": "int_parsing"}])
