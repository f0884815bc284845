"""What may stand in a configuration, with every default. Reads no file and no environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

MIN_SQL_TEXT_BYTES = 1_024  # the anchor of a slow log row takes this much of its text
DEFAULT_PORTS = {"mysql": 3306, "postgres": 5432}

Interval = Annotated[float, Field(ge=0.1, le=86_400 * 31, allow_inf_nan=False)]
Timeout = Annotated[float, Field(ge=0.1, le=3_600, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        # Numbers may come as text, from the environment, so the types are lax; but `true` is not the number 1.
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("should not be true or false")
        return value


class DbConfig(_Section):
    """How the database is reached and what is taken from it. Times in seconds unless the name says otherwise."""

    host: str = Field(min_length=1)
    port: Port | None = None
    user: str = Field(min_length=1)
    password: SecretStr = SecretStr("")
    database: str = "postgres"
    min_exec_time_ms: float = Field(default=500, ge=0, allow_inf_nan=False)
    start: Literal["beginning", "now"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "beginning"
    max_sql_text_bytes: int = Field(default=1_048_576, ge=MIN_SQL_TEXT_BYTES, le=64 * 1_048_576)
    connect_timeout: Timeout = 10
    read_timeout: Timeout = 30
    max_load: Annotated[float, Field(ge=0, le=1)] | None = 0.01

    @field_validator("host", "user", "password", "database")
    @classmethod
    def _holds_no_nul(cls, value: str | SecretStr) -> str | SecretStr:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if "\0" in text:
            raise ValueError("should hold no NUL")
        return value


class OutboxConfig(_Section):
    """The limits of the outbox file and of one request body."""

    max_bytes: int = Field(default=1_073_741_824, ge=1_048_576)
    min_free_bytes: int = Field(default=67_108_864, ge=0)
    batch_max_records: int = Field(default=500, ge=1, le=10_000)
    batch_max_bytes: int = Field(default=1_048_576, ge=1_024)


class LogConfig(_Section):
    """What the agent says about itself, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(_Section):
    """One agent: whom it reports to, what it watches, where it keeps its state."""

    collector_id: int = Field(ge=1)
    api_key: SecretStr = Field(min_length=1)
    backend_url: str
    db_type: Literal["mysql", "postgres"]
    db_config: DbConfig
    heartbeat_interval: Interval = 30
    collection_interval: Interval = 300
    data_dir: Path = Path("data")
    outbox: OutboxConfig = OutboxConfig()
    redact: Literal["secrets"] = "secrets"
    remote_config: Literal["safe", "any", "off"] = "safe"
    log: LogConfig = LogConfig()

    @field_validator("backend_url")
    @classmethod
    def _is_plain_http(cls, value: str) -> str:
        try:
            parts = urlsplit(value.strip())
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
            usable = usable and not re.search(r"[\s\\]", value.strip())
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("should be an address like https://backend.example.com")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("should hold no user, password, query or fragment")
        return value.strip().rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text.isascii() or not text.isprintable() or text != text.strip():
            raise ValueError("should be printable ASCII without spaces around it")
        return value

    @property
    def db_port(self) -> int:
        """The port of the database: the one given, or the usual one of its kind."""
        return self.db_config.port or DEFAULT_PORTS[self.db_type]
