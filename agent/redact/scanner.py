"""Cuts the text of a statement into what is kept and what is a literal, as its server reads it. Pure.

There is one scanner for each dialect; what lies between literals it takes in long runs. Where servers of a dialect may
read a text differently, because of backslashes or of comments that only some execute, everything from there on counts
as one literal, unless the other reading is impossible: too much is masked and never too little.
"""

from __future__ import annotations

import re

Pieces = list[str]  # in their order; "" is a literal, and so are several "" in a row

_LETTERS = r"A-Za-z_\x80-\U0010ffff"
_PLAIN = _LETTERS + r"\ \t\n\r\f\v(),.;*=<>!+%|&^~:?@\[\]{}"  # no quotes, no digits, nothing that begins a comment
_EXPONENT = r"(?:(?<=[0-9.][eE])[+-][0-9]+)?"
# The rest of a comment that may be executed, or of a hint, when it ends at the same place for whoever skips it.
_QUOTED = "|".join(rf"{quote}[^'\"`\\*]*{quote}" for quote in "'\"`")
_BODY = rf"(?![^*]*--)[^'\"`\\\#*]*(?:(?:{_QUOTED})[^'\"`\\\#*]*){{0,50}}\*/"
_OPENER = re.compile(r"/\*(?:[Mm]?![0-9]{0,6}|\+)")
_LAST = "\n\x03"  # put behind a text, it comes back as a piece unless something was left open


def _scanner(*, word: str, plain: str, prefixes: str, number: str, literal: str, kept: str) -> re.Pattern[str]:
    # No group is repeated without a bound: each turn of one costs memory, and a text may be one run of such turns.
    return re.compile(
        rf"""
            0(?<![{word}]0)[xX][{word}]*
            | [0-9](?<![{word}][0-9]){number}[{word}.]*{_EXPONENT}
            | \.(?<![{word}`"\])]\.)[0-9][{word}.]*{_EXPONENT}
            | [{prefixes}](?<![{word}][{prefixes}])'[^']*(?:'|\Z)
            | '[^']*(?:'|\Z)
            | {literal}
            | (
                # what is kept, but N of N'x' and the point of .5 belong to their literals
                [{plain}]+(?!'(?<=[{prefixes}]')|[0-9](?<=[^{word}`"\])]\.[0-9]))
                | (?<=[{word}])[0-9]+
                | {kept}
                | [^0-9]
            )
        """,
        re.VERBOSE | re.DOTALL,
    )


_MYSQL = _scanner(
    word=_LETTERS + "0-9$",
    plain=_PLAIN + "$",
    prefixes="nNxXbB",
    number=r"(?![0-9]*[ac-df-wyzAC-DF-WYZ_$\x80-\U0010ffff])",  # 2024_orders is a name
    literal=rf"""
        "[^"]*(?:"|\Z)
        | `(?![^`]{{0,256}}`)[^`]*(?:`|\Z)
        | /\*(?:[Mm]?!|\+)(?!{_BODY}).*
    """,
    kept=rf"""
        `[^`]*`
        | [0-9]+[{_LETTERS}$]
        | /\*(?:[Mm]?!|\+){_BODY} | /\*.*?(?:\*/|\Z)
        | \#[^\n]* | --(?=[\x00-\x20]|\Z)[^\n]*
    """,
)
_POSTGRES = _scanner(
    word=_LETTERS + "0-9$",
    plain=_PLAIN + r"\#",
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


def _scan(scanner: re.Pattern[str], text: str) -> Pieces:
    found: Pieces = scanner.findall(text)
    if "/*" in text or "--" in text or (scanner is _MYSQL and "#" in text):
        return _without_comments(scanner, found)
    return found


def _without_comments(scanner: re.Pattern[str], found: Pieces) -> Pieces:
    """A comment becomes a space; of one that may be executed only the literals go."""
    signs = ("/*", "--", "#") if scanner is _MYSQL else ("/*", "--")
    pieces = []
    for piece in found:
        if not piece.startswith(signs):
            pieces.append(piece)
        elif (opener := _OPENER.match(piece)) and piece.endswith("*/"):
            pieces += [opener[0], *scanner.findall(piece[opener.end() : -2]), "*/"]
        else:
            pieces.append(" ")
    return pieces


# -- MySQL and MariaDB -----------------------------------------------------------------------------------------------

# Escaped characters are covered for the scanner, one by one and as long as before, so that it need not know escapes.
_COVERS = (("\\\\", "\x02\x02"), ("\\'", "\x02\x03"), ('\\"', "\x02\x04"))
_OUTSIDE = frozenset({"\\", "\x02"})


def mysql(text: str, *, is_whole: bool) -> Pieces:
    """Double quotes hold texts, backslashes escape. That NO_BACKSLASH_ESCAPES and ANSI_QUOTES are off is not known.

    `is_whole`: the text was not cut, so no literal of it is open at its end.
    """
    if "\\" not in text:
        return _scan(_MYSQL, text)
    covered = text
    for escape, cover in _COVERS:
        covered = covered.replace(escape, cover)
    pieces = _scan(_MYSQL, covered)
    places = [place for _, cover in _COVERS[1:] if (place := covered.find(cover)) >= 0]
    if places and not _is_only_reading(text, pieces, covered, is_whole=is_whole):
        pieces = [*_scan(_MYSQL, covered[: min(places)]), ""]
    if any("\x02" in piece for piece in pieces):
        for escape, cover in _COVERS:
            pieces = [piece.replace(cover, escape) for piece in pieces]
    return pieces


def _is_only_reading(text: str, pieces: Pieces, covered: str, *, is_whole: bool) -> bool:
    """Whether with other settings of the server the text would be read alike, or could not be a statement."""
    if _has_backslash_outside(pieces):
        return False
    can_end = is_whole and _is_closed(covered)
    without_escapes = text
    names_in_double_quotes = covered.replace(_COVERS[2][1], _COVERS[2][0])
    for reading in (without_escapes, names_in_double_quotes):
        other = _scan(_MYSQL, reading)
        if other == pieces or _has_backslash_outside(other):
            continue
        if not can_end or _is_closed(reading):
            return False
    return True


def _is_closed(text: str) -> bool:
    found: Pieces = _MYSQL.findall(text + _LAST)
    return found[-1] == _LAST[-1]


def _has_backslash_outside(pieces: Pieces) -> bool:
    # No statement has one there, but for \N, which is NULL.
    return any(
        piece in _OUTSIDE and not following.startswith("N")
        for piece, following in zip(pieces, [*pieces[1:], ""], strict=True)
    )


# -- PostgreSQL ------------------------------------------------------------------------------------------------------

_NESTING = re.compile(r"/\*|\*/")
_TAG = re.compile(rf"\$(?:[{_LETTERS}][{_LETTERS}0-9]*)?\$")
_BEHIND_WORD = re.compile(rf"(?<=[{_LETTERS}0-9$])")
_STOP = re.compile(r"['\\]")


def postgres(text: str, *, is_whole: bool) -> Pieces:
    """Double quotes hold names, comments nest, backslashes escape in E'' only. Some server may have
    standard_conforming_strings off, so a text whose last character is a backslash is not surely at its end."""
    del is_whole
    hard = "\\" in text or text.count("/*") > 1 or _TAG.search(text)
    return _stepwise(text) if hard else _scan(_POSTGRES, text)


def _stepwise(text: str) -> Pieces:
    """For what the scanner alone does not find the end of: E'' with escapes, $tag$ quotes, comments in comments."""
    pieces: Pieces = []
    place = 0
    while found := _POSTGRES.match(text, place):
        start, place, piece = place, found.end(), found[1]
        if piece is None:
            pieces.append("")
            if text[start] in "eE":
                place = _end_of_escaped(text, start + 2)
            elif text[place - 1] == "'" and _is_escaped(text, start, place - 1):
                break  # where standard_conforming_strings is off, it goes on
        elif piece == "$" and (tag := _TAG.match(text, start)) and not _BEHIND_WORD.match(text, start):
            pieces.append("")
            end = text.find(tag[0], tag.end())
            place = len(text) if end < 0 else end + len(tag[0])
        elif piece.startswith("/*") and not _is_hint(piece):
            pieces.append(" ")
            place = _end_of_comment(text, start)
        else:
            pieces += _without_comments(_POSTGRES, [piece])
    return pieces


def _is_hint(piece: str) -> bool:
    return piece.startswith("/*+") and piece.count("/*") == 1


def _is_escaped(text: str, start: int, place: int) -> bool:
    before = text[start:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


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
