"""Masks what must not be stored in a statement's text. Pure; runs before anything reaches the outbox."""

from __future__ import annotations

import re

MASK = "'***'"

# A statement that speaks of secrets loses all its string literals: too much masked is a nuisance, too little a leak.
_SECRET_WORDS = ("identified", "password", "passwd", "secret", "credential", "dblink")
_LITERAL = re.compile(
    r"""'(?:[^'\\]|\\.|'')*(?:'|\Z)"""  # a text that was cut may end inside a literal
    r"""|"(?:[^"\\]|\\.|"")*(?:"|\Z)"""
    r"""|\$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z)""",
    re.DOTALL,
)


def mask_secrets(text: str) -> str:
    """The text, with every string literal replaced by '***' when the statement speaks of secrets."""
    lowered = text.lower()
    for word in _SECRET_WORDS:
        if word in lowered:
            return _LITERAL.sub(MASK, text)
    return text
