"""What may stand in a configuration, with every default. Reads no file and no environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent.config.section import Directory, Section
from agent.config.tls import BackendTls, DatabaseTls
from agent.redact import Level

DEFAULT = "default"  # the name of the single pair db_type and db_config
TAKEN = ("outbox", "others")  # the sources of gaps that are no database
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}(?<!\.db_config)")  # see places.path_of
MIN_SQL_TEXT_BYTES = 1_024  # the anchor of a slow log row takes this much of its text
DEFAULT_PORTS = {"mysql": 3306, "postgres": 5432}

TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_$]{1,64}$")]
Interval = Annotated[float, Field(ge=0.1, le=86_400 * 31, allow_inf_nan=False)]
Timeout = Annotated[float, Field(ge=0.1, le=3_600, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65_535)]
DbType = Literal["mysql", "postgres"]


def _address(text: str) -> SplitResult | None:
    """The parts of an http or https address that can be connected to; None when it is none."""
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and not re.search(r"[\s\\]", text.strip()) else None


class DbConfig(Section):
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
    slow_log_backups: tuple[TableName, ...] = ("slow_log_backup",)
    rotate: bool = False
    tls: DatabaseTls = DatabaseTls()

    @field_validator("slow_log_backups", mode="before")
    @classmethod
    def _may_be_text(cls, value: object) -> object:
        # As the environment gives it: names with commas between them.
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("slow_log_backups")
    @classmethod
    def _are_not_the_log(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name.lower() == "slow_log" for name in value):
            raise ValueError("should not name slow_log itself")
        return value

    @field_validator("host")
    @classmethod
    def _has_no_brackets(cls, value: str) -> str:
        # As an address of IPv6 stands in a URL.
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("host", "user", "password", "database")
    @classmethod
    def _holds_no_nul(cls, value: str | SecretStr) -> str | SecretStr:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if "\0" in text:
            raise ValueError("should hold no NUL")
        return value


class _Repeated:
    """Stands in the place of a name that an earlier database has."""


class Database(Section):
    """One of several databases. `collection_interval`: None for that of the agent."""

    name: str
    db_type: DbType
    db_config: DbConfig
    collection_interval: Interval | None = None

    @field_validator("name", mode="before")
    @classmethod
    def _is_a_name(cls, value: object) -> object:
        if isinstance(value, _Repeated):
            raise ValueError("another database has this name")  # noqa: TRY004 - pydantic knows only this one
        if isinstance(value, str) and not NAME.fullmatch(value):
            raise ValueError("should be 1 to 64 letters, digits, _ . - and not end in .db_config")
        if value in TAKEN:
            raise ValueError("is a word of the agent's own in what it tells of losses; take another name")
        return value


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """One database that is watched, whichever way it was written down. `collection_interval` in seconds."""

    name: str
    db_type: DbType
    db_config: DbConfig
    collection_interval: float

    @property
    def port(self) -> int:
        """The port of the database: the one given, or the usual one of its kind."""
        return self.db_config.port or DEFAULT_PORTS[self.db_type]


class OutboxConfig(Section):
    """The limits of the outbox file and of one request body."""

    max_bytes: int = Field(default=1_073_741_824, ge=1_048_576)
    min_free_bytes: int = Field(default=67_108_864, ge=0)
    batch_max_records: int = Field(default=500, ge=1, le=10_000)
    batch_max_bytes: int = Field(default=1_048_576, ge=1_024)


class LogConfig(Section):
    """What the agent says about itself, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(Section):
    """One agent: whom it reports to, what it watches, where it keeps its state."""

    collector_id: int = Field(ge=1)
    api_key: SecretStr = Field(min_length=1)
    backend_url: str
    tls: BackendTls = BackendTls()
    proxy: SecretStr | None = None
    databases: tuple[Database, ...] = ()  # before the pair: its validator looks at them
    db_type: DbType | None = Field(default=None, validate_default=True)
    db_config: DbConfig | None = Field(default=None, validate_default=True)
    heartbeat_interval: Interval = 30
    collection_interval: Interval = 300
    data_dir: Directory = Path("data")
    outbox: OutboxConfig = OutboxConfig()
    redact: Level = "secrets"
    remote_config: Literal["safe", "any", "off"] = "safe"
    log: LogConfig = LogConfig()

    @field_validator("backend_url")
    @classmethod
    def _is_plain_http(cls, value: str) -> str:
        parts = _address(value)
        if parts is None:
            raise ValueError("should be an address like https://backend.example.com")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("should hold no user, password, query or fragment")
        return value.strip().rstrip("/")

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        parts = _address(text) if text else None
        if text and (parts is None or parts.path.strip("/") or parts.query or parts.fragment):
            known = "an address like http://proxy.example.com:3128"
            raise ValueError(f"should be {known}; what is special in a user or password is written like %40")
        return SecretStr(text)

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text.isascii() or not text.isprintable() or text != text.strip():
            raise ValueError("should be printable ASCII without spaces around it")
        return value

    @field_validator("databases", mode="before")
    @classmethod
    def _have_each_their_name(cls, value: object) -> object:
        # Before they are looked at one by one, so that a name that is there twice is told with everything else.
        seen, marked = list[object](), list[Any]()
        for each in value if isinstance(value, list) else ():
            name = each.get("name") if isinstance(each, dict) else None
            marked.append({**each, "name": _Repeated()} if isinstance(name, str) and name in seen else each)
            seen.append(name)
        return marked if isinstance(value, list) else value

    @field_validator("db_type", "db_config", mode="before")
    @classmethod
    def _is_there_without_databases(cls, value: object, info: ValidationInfo) -> object:
        several = info.data.get("databases", True)  # when something is wrong with them they are not there
        if several and value is not None:
            raise ValueError("stands beside databases; give either databases, or db_type and db_config")
        if not several and value is None:
            raise PydanticCustomError("missing", "is required and missing")
        return value

    @property
    def watches(self) -> tuple[WatchConfig, ...]:
        """What is watched. Everything but this file knows only these, not how they were written down."""
        if self.db_type is not None and self.db_config is not None:
            return (WatchConfig(DEFAULT, self.db_type, self.db_config, self.collection_interval),)
        own = self.collection_interval
        return tuple(
            WatchConfig(each.name, each.db_type, each.db_config, each.collection_interval or own)
            for each in self.databases
        )

    def watch(self, name: str) -> WatchConfig:
        """The watch of that name. Raises LookupError."""
        for each in self.watches:
            if each.name == name:
                return each
        raise LookupError(name)
