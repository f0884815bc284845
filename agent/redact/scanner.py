"""Cuts the text of a statement into what is kept and what is a literal, as its server reads it. Pure.

There is one scanner for each dialect; what lies between literals it takes in long runs. Where servers of a dialect may
read a text differently, because of backslashes or of comments that only some execute, everything from there on counts
as one literal, unless the other reading is impossible: too much is masked and never too little.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from itertools import pairwise

from agent.redact.characters import LETTERS, WORD, any_of, none_of

Pieces = list[str]  # in their order; "" is a literal, and so are several "" in a row

# Without quotes, digits, and what may begin a comment.
_PLAIN = LETTERS + " \t\n\r\f\v(),.;*=<>!+%|&^~:?@[]{}"
_EXPONENT = r"(?:(?<=[0-9.][eE])[+-][0-9]+)?"
# The rest of a comment that may be executed, or of a hint, when it ends at the same place for whoever skips it.
_QUOTED = "|".join(rf"{quote}[^'\"`\\*]*{quote}" for quote in "'\"`")
_BODY = rf"(?![^*]*--)[^'\"`\\\#*]*(?:(?:{_QUOTED})[^'\"`\\\#*]*){{0,50}}\*/"
_OPENER = re.compile(r"/\*(?:[Mm]?![0-9]{0,6}|\+)")


_NO_COMMENT = "/**/"


@dataclass(frozen=True, slots=True)
class _Dialect:
    """`comments`: how they begin; `code`: one that is executed or a hint, the whole of it."""

    scanner: re.Pattern[str]
    comments: tuple[str, ...]
    code: re.Pattern[str]


def _scanner(*, plain: str, prefixes: str, number: str, literal: str, kept: str) -> re.Pattern[str]:
    # No group is repeated without a bound: each turn of one costs memory, and a text may be one run of such turns.
    before_point = WORD + '`"])?'  # the point behind these is no number's
    word, digits = any_of(WORD), rf"{any_of(WORD + '.')}*{_EXPONENT}"
    return re.compile(
        rf"""
            0(?<!{word}0)[xX]{word}*
            | [0-9](?<!{word}[0-9]){number}{digits}
            | \.(?<!{any_of(before_point)}\.)[0-9]{digits}
            | [{prefixes}](?<!{word}[{prefixes}])'[^']*(?:'|\Z)
            | '[^']*(?:'|\Z)
            | {literal}
            | (
                # what is kept, but N of N'x' and the point of .5 belong to their literals
                {any_of(plain)}+(?!'(?<=[{prefixes}]')|[0-9](?<={none_of(before_point)}\.[0-9]))
                | (?<={word})[0-9]+
                | {kept}
                | [^0-9]
            )
        """,
        re.VERBOSE | re.DOTALL,
    )


_MYSQL_SCANNER = _scanner(
    plain=_PLAIN + "$",
    prefixes="nNxXbB",
    number=f"(?![0-9]*{any_of(''.join(set(WORD) - set('0123456789bBeExX')))})",  # 2024_orders is a name
    literal=rf"""
        "[^"]*(?:"|\Z)
        | `(?![^`]{{0,256}}`)[^`]*(?:`|\Z)
        | /\*(?:[Mm]?!|\+)(?!{_BODY}).*
    """,
    kept=rf"""
        `[^`]*`
        | [0-9]+{any_of(LETTERS + "$")}
        | /\*(?:[Mm]?!|\+){_BODY} | /\*.*?(?:\*/|\Z)
        | \#[^\n]* | --(?=[\x00-\x20\x7f])[^\n]*
    """,
)
_POSTGRES_SCANNER = _scanner(
    plain=_PLAIN + "#",
    prefixes="eEnNxXbB",
    number="",
    literal=r"""
        "(?![^"]{0,256}")[^"]*(?:"|\Z)
    """,
    kept=rf"""
        "[^"]*"
        | \$[0-9]+
        | /\*\+{_BODY} | /\*.*?(?:\*/|\Z)
        | --[^\n\r]*
    """,
)
_MYSQL = _Dialect(_MYSQL_SCANNER, ("/*", "--", "#"), re.compile(rf"/\*(?:[Mm]?!|\+){_BODY}", re.VERBOSE))
_POSTGRES = _Dialect(_POSTGRES_SCANNER, ("/*", "--"), re.compile(rf"/\*\+{_BODY}", re.VERBOSE))


def _scan(dialect: _Dialect, text: str) -> Pieces:
    found: Pieces = dialect.scanner.findall(text)
    if any(sign in text for sign in dialect.comments):
        return _without_comments(dialect, found)
    return found


def _without_comments(dialect: _Dialect, found: Pieces) -> Pieces:
    """A comment becomes a space; of one that may be executed only the literals go."""
    pieces = []
    for piece in found:
        if not piece.startswith(dialect.comments):
            pieces.append(piece)
        elif (opener := _OPENER.match(piece)) and dialect.code.fullmatch(piece):
            pieces += [opener[0], *dialect.scanner.findall(piece[opener.end() : -2]), "*/"]
        else:
            pieces.append(_NO_COMMENT if pieces and pieces[-1] == "-" else " ")  # or -- would become one with a space
    return pieces


# -- MySQL and MariaDB -----------------------------------------------------------------------------------------------

# Escaped characters are covered for the scanner, each as long as it was, so that it need not know escapes.
_COVERS = (("\\\\", "\x02\x02"), ("\\'", "\x02\x03"), ('\\"', "\x02\x04"))
_NEAR = 300
_LAST = "\n\x03"  # put behind a text, it comes back as a piece unless something was left open
# In some character sets of clients (GBK, SJIS, Big5) these are the second half of a character.
_HALF_CHARACTER = re.compile(r"\ufffd[\\`]")
_UNKNOWN_END = re.compile(rf"/\*(?:[Mm]?!|\+)(?!{_BODY})", re.VERBOSE)


def mysql(text: str, *, is_whole: bool) -> Pieces:
    """Double quotes hold texts, backslashes escape. That NO_BACKSLASH_ESCAPES and ANSI_QUOTES are off is not known.

    `is_whole`: the text was not cut, so no literal of it is open at its end.
    """
    if "\ufffd" in text and (half := _HALF_CHARACTER.search(text)):
        return [*mysql(text[: half.start()], is_whole=False), ""]
    if "\\" not in text:
        return _scan(_MYSQL, text)
    covered = text
    for escape, cover in _COVERS:
        covered = covered.replace(escape, cover)
    pieces, is_closed = _read(covered)
    places = [place for _, cover in _COVERS[1:] if (place := covered.find(cover)) >= 0]
    if places:
        first, can_end = min(places), is_whole and is_closed
        names_in_double_quotes = covered.replace(_COVERS[2][1], _COVERS[2][0])
        others = [reading for reading in (text, names_in_double_quotes) if reading != covered]
        if _has_backslash_outside(pieces) or any(_may_be(other, first, pieces, can_end=can_end) for other in others):
            pieces = [*_scan(_MYSQL, covered[:first]), ""]
    return _uncovered(pieces)


def _uncovered(pieces: Pieces) -> Pieces:
    if "\x02" in "".join(pieces):
        for escape, cover in _COVERS:
            pieces = [piece.replace(cover, escape) for piece in pieces]
    return pieces


def _may_be(other: str, first: int, pieces: Pieces, *, can_end: bool) -> bool:
    """Whether another reading than that of `pieces` could be a statement's, too; from `first` on they may differ.

    `can_end`: the other one must not be open at its end, for the first is not.
    """
    # That is mostly so, and soon seen; the last piece may not be whole.
    if _has_backslash_outside(_scan(_MYSQL, other[: first + _NEAR])[:-1]):
        return False
    if _UNKNOWN_END.search(other):
        return True
    found, is_closed = _read(other)
    if _has_backslash_outside(found) or _uncovered(found) == _uncovered(pieces):
        return False
    return is_closed or not can_end


def _read(text: str) -> tuple[Pieces, bool]:
    """The pieces, and whether nothing is open at the end: then what is put behind it comes back."""
    found = _scan(_MYSQL, text + _LAST)
    if found[-1] != _LAST[-1]:
        return found, False
    end = found[-2][: -len(_LAST) + 1]
    return found[:-2] + ([end] if end else []), True


def _has_backslash_outside(pieces: Pieces) -> bool:
    # No statement has one there, but for \N, which is NULL.
    if "\x02" in pieces:
        return True
    return "\\" in pieces and any(
        piece == "\\" and not following.startswith("N") for piece, following in pairwise([*pieces, ""])
    )


# -- PostgreSQL ------------------------------------------------------------------------------------------------------

_NESTING = re.compile(r"/\*|\*/")
_TAG = re.compile(rf"\$(?:{any_of(LETTERS)}{any_of(LETTERS + string.digits)}*)?\$")
_WORD_BEFORE = re.compile(rf"{any_of(WORD)}*\Z")
_WORD_BEHIND = re.compile(rf"{any_of(WORD)}*")
_LONGEST_NAME = 70
_STOP = re.compile(r"['\\]")


def postgres(text: str, *, is_whole: bool) -> Pieces:
    """Double quotes hold names, comments nest, backslashes escape in E'' only.

    Where standard_conforming_strings is off they escape in all texts, so one with a backslash in front of its end has
    none that is sure, whether or not the whole `is_whole`.
    """
    del is_whole
    hard = "\\" in text or text.count("/*") > 1 or _TAG.search(text)
    return _stepwise(text) if hard else _scan(_POSTGRES, text)


def _stepwise(text: str) -> Pieces:
    """For what the scanner alone does not find the end of: E'' with escapes, $tag$ quotes, comments in comments."""
    pieces: Pieces = []
    place = 0
    while found := _POSTGRES.scanner.match(text, place):
        start, place, piece = place, found.end(), found[1]
        if piece is None:
            pieces.append("")
            if text[start] in "eE":
                place = _end_of_escaped(text, start + 2)
            elif text[place - 1] == "'" and _is_escaped(text, start, place - 1):
                break  # where standard_conforming_strings is off, it goes on
        elif piece == "$" and (tag := _TAG.match(text, start)) and not _is_in_name(text, start):
            pieces.append("")
            place = _end_of_dollars(text, tag)
        elif piece.startswith("/*") and not _POSTGRES.code.fullmatch(piece):
            pieces += _without_comments(_POSTGRES, [*pieces[-1:], "/*"])[-1:]
            place = _end_of_comment(text, start)
        else:
            pieces += _without_comments(_POSTGRES, [piece])
    return pieces


def _is_in_name(text: str, place: int) -> bool:
    """A dollar may stand in a name, but not at its beginning; behind a parameter ($1) it is none of it."""
    word = _WORD_BEFORE.search(text, max(0, place - _LONGEST_NAME), place)
    return word is not None and word[0][:1] not in {"", "$"}


def _is_escaped(text: str, start: int, place: int) -> bool:
    before = text[start:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _end_of_dollars(text: str, tag: re.Match[str]) -> int:
    end = text.find(tag[0], tag.end())
    if end < 0:
        return len(text)
    found = _WORD_BEHIND.match(text, end + len(tag[0]))  # none in SQL; what stood there would look like a name's rest
    return found.end() if found else len(text)


def _end_of_escaped(text: str, place: int) -> int:
    while stop := _STOP.search(text, place):
        place = stop.end()
        if stop[0] == "\\" or text.startswith("'", place):
            place += 1
        else:
            return place
    return len(text)


def _end_of_comment(text: str, start: int) -> int:
    depth = 0
    for sign in _NESTING.finditer(text, start):
        depth += 1 if sign[0] == "/*" else -1
        if depth == 0:
            return sign.end()
    return len(text)
