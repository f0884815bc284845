"""Masks what must not be stored in a statement's text. Pure; runs before anything reaches the outbox.

A statement that speaks of secrets loses all its string literals: too much masked is a nuisance, too little a leak.
Where a literal ends is read differently by servers and their settings (backslashes, comments, dollar quotes), and the
settings are not known here. So literals are masked one by one only as far as every server reads the text alike; from
there on everything behind the next quote is masked.
"""

from __future__ import annotations

import re

MASK = "'***'"

_SECRET_WORDS = (
    *("identified", "password", "passwd", "pwd", "passphrase", "passcode", "secret", "credential", "token"),
    *("api_key", "apikey", "access_key", "private_key", "encryption_key", "crypt(", "hmac("),
    *("dblink", "subscription", "conninfo"),  # their connection strings need not name what is secret in them
)
_SECRET_ADDRESS = re.compile(r"""://[^\s/'":@]*:[^\s/'"@]*@""")  # postgresql://user:...@host

# What every server takes for a quoted piece: no backslash inside, and no word directly behind it. `''` inside makes
# two pieces of one. Hexadecimal literals can be secrets too (MySQL: IDENTIFIED WITH ... AS 0x...).
_BEHIND = r"(?=[\s,;)@.:=|\]<>!(+'\"]|\Z)"
_SINGLE = rf"'[^'\\]*'{_BEHIND}"
_DOUBLE = rf'"[^"\\]*"{_BEHIND}'
_TAG = r"(?:[^\W\d]\w*)?"  # PostgreSQL: $tag$...$tag$
_HEX = r"\b0[xX][0-9A-Fa-f]+"
# One piece at a time: repeating the whole possessively goes wrong in Python 3.11.0 to 3.11.4.
_PIECE = re.compile(
    rf"""
        [^'"`\\$\#/-]+
        | \$(?!{_TAG}\$) | -(?!-) | /(?!\*)
        | /\*[^'"`\\/]*(?<=\*)(?<!/\*)/  # comments in which no other reading finds a quote
        | (?:--|\#)[^'"`\\$/\n]*(?:\n|\Z)
        | `[^'"`\\]*`
        | {_SINGLE} | {_DOUBLE}
    """,
    re.VERBOSE,
)
_LITERAL = re.compile(rf"""(?:'[^']*'|"[^"]*")+|{_HEX}""")
_LITERAL_NOT_NAME = re.compile(rf"""(?:'[^']*')+|{_HEX}|(?P<name>"[^"]*")""")
_UNSURE = re.compile(rf"""['"]|\${_TAG}\$|{_HEX}""")


def mask_secrets(text: str, *, names_in_double_quotes: bool = False) -> str:
    """The text, with every string literal replaced by '***' when the statement speaks of secrets.

    `names_in_double_quotes`: the server is PostgreSQL, where they hold names and never texts; those stay readable.
    """
    lowered = text.lower()
    for word in _SECRET_WORDS:  # for every row there is, so no generator
        if word in lowered:
            return _masked(text, names_in_double_quotes)
    if "://" in text and _SECRET_ADDRESS.search(text):
        return _masked(text, names_in_double_quotes)
    return text


def _masked(text: str, names_in_double_quotes: bool) -> str:
    end = _sure_end(text)
    pattern = _LITERAL_NOT_NAME if names_in_double_quotes else _LITERAL
    head = pattern.sub(lambda found: found.groupdict().get("name") or MASK, text[:end])
    quote = _UNSURE.search(text, end)
    return head + (text[end:] if quote is None else text[end : quote.start()] + MASK)


def _sure_end(text: str) -> int:
    end = 0
    while piece := _PIECE.match(text, end):
        end = piece.end()
    return end
