"""The sections `tls`: of the backend, and inside each db_config. Reads none of the files that they name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationInfo, field_validator

from agent.config.section import FileName, Section

Mode = Literal["disable", "prefer", "require"]
_STRICT: Mode = "require"


class _Tls(Section):
    """`ca`: the authorities that are trusted, a PEM bundle. `cert`, `key`: what this agent shows of itself."""

    @field_validator("key", check_fields=False)
    @classmethod
    def _belongs_to_a_certificate(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("cert", value) is None:
            raise ValueError("stands there without cert")
        return value


class BackendTls(_Tls):
    """How the backend is known. Without `ca`: by what REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE in the environment name,
    else by the usual authorities."""

    ca: FileName | None = None
    cert: FileName | None = None
    key: FileName | None = None
    verify: bool = True


class DatabaseTls(_Tls):
    """How a database is known. `mode` None: `require` when something is checked, else as the driver does it."""

    mode: Mode | None = None
    ca: FileName | None = None
    cert: FileName | None = None
    key: FileName | None = None
    verify: bool | Literal["ca"] | None = None

    @field_validator("ca", "cert", "key", "verify")
    @classmethod
    def _fits_the_mode(cls, value: Any, info: ValidationInfo) -> Any:
        # Whoever checks only when TLS is offered checks nothing: that is what an attacker does not offer.
        mode = info.data.get("mode")
        is_strict = value and (mode == "disable" or (mode == "prefer" and info.field_name in {"ca", "verify"}))
        if is_strict:
            raise ValueError(f"stands beside mode {mode}; it needs mode {_STRICT}")
        return value

    @field_validator("verify")
    @classmethod
    def _has_authorities(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "ca" and info.data.get("ca", value) is None:
            raise ValueError("needs ca: anybody can have a certificate of the usual authorities")
        return value

    @property
    def checks_chain(self) -> bool:
        """Whether the server has to show a certificate that one of `ca` has signed."""
        return self.ca is not None if self.verify is None else bool(self.verify)

    @property
    def checks_name(self) -> bool:
        """Whether it also has to be for the name under which the server is called."""
        return self.checks_chain and self.verify != "ca"

    @property
    def wanted(self) -> Mode | None:
        """The mode; None: it was not said, and nothing is checked."""
        return self.mode or (_STRICT if self.checks_chain else None)
