"""What of a statement's text may leave this host, and the fingerprint of it. Pure; runs before anything is stored."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from agent.redact.normal import digest, normal_form
from agent.redact.passwords import mask_secrets
from agent.redact.scanner import mysql, postgres

__all__ = ["Level", "Redactor", "fingerprint_of_queryid", "mask_secrets"]

Level = Literal["secrets", "literals", "fingerprint"]

# Most statements come again with other values. Bounded in number and length: mostly far below a MiB.
_REMEMBERED, _REMEMBERED_CHARACTERS = 256, 2_048
_SEVERAL = re.compile(r"\?{2,}")


class Redactor:
    """Redacts the texts of one kind of database (`db_type`) at one level.

    `secrets`: literals of statements that speak of secrets are masked; `literals`: every literal is `?`, and comments
    go; `fingerprint`: the normal form, which the fingerprint is the digest of at every level.
    """

    def __init__(self, level: Level, db_type: str) -> None:
        self._level = level
        self._is_postgres = db_type == "postgres"
        self._pieces = postgres if self._is_postgres else mysql
        self._quote = '"' if self._is_postgres else "`"
        self._remembered = lru_cache(_REMEMBERED)(self._form)

    def __call__(self, text: str, *, is_whole: bool) -> tuple[str, str]:
        """The text as it may leave, and its fingerprint; `is_whole`: it was not cut, so nothing is open at its end."""
        bare = "".join([piece or "?" for piece in self._pieces(text, is_whole=is_whole)])
        if "??" in bare:  # 'it''s' is one literal
            bare = _SEVERAL.sub("?", bare)
        form, fingerprint = self._remembered(bare) if len(bare) <= _REMEMBERED_CHARACTERS else self._form(bare)
        if self._level == "secrets":
            text = mask_secrets(text, names_in_double_quotes=self._is_postgres)
        else:
            text = bare.strip() if self._level == "literals" else form
        return text, fingerprint

    def _form(self, bare: str) -> tuple[str, str]:
        form = normal_form(bare, quote=self._quote)
        return form, digest(form)


def fingerprint_of_queryid(queryid: int) -> str:
    """For a statement whose text is not to be had: the same for the same queryid."""
    return digest(f"queryid {queryid}")
