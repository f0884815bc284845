"""The form of a statement that is the same whatever its values are, and the digest of it. Pure.

It is made from a text whose literals are `?` already. Words are in small letters, quoted names as they are, one space
stands where there is any, and a list of values holds each kind of element once. The form of a form is itself.
"""

from __future__ import annotations

import hashlib
import re

from agent.redact.characters import WORD, any_of

DIGEST_CHARACTERS = 32

# Each pattern begins with what the engine can look for quickly, and looks behind from there.
# Signs belong together as they are written; only + and - at their end are those of the next value. Comments that are
# executed, and hints, begin and end with signs of their own.
_SIGNS = r"""
    ([*/{run}](?:
        (?<=/)\*(?:m?![0-9]{{0,6}}|\+)
        | (?<=\*)/
        | (?<=[{run}])[{run}]{{0,7}}(?<![+-])(?:\*(?!/))?
        |
    ))
"""
_MYSQL_SIGNS = re.compile(_SIGNS.format(run="<>=!|&^~:%+-"), re.VERBOSE)
_POSTGRES_SIGNS = re.compile(_SIGNS.format(run=r"<>=!|&^~:%\#@+-"), re.VERBOSE)
_PARAMETER = re.compile(rf"\$(?<!{any_of(WORD)}\$)[0-9]+(?:\$[0-9]+){{0,9}}")
_WORD_VALUE = re.compile(
    r"[ntf](?<![^ ][ntf])(?<!\bis [ntf])(?<!\bnot [ntf])(?:(?<=n)ull|(?<=t)rue|(?<=f)alse)(?=[ ;]|\Z)"
)
_NULL_OF_MYSQL = re.compile(rf"\\N(?!{any_of(WORD)})")
# _utf8mb4'x' is one value of MySQL, like N'x'.
_INTRODUCER = re.compile(r"_(?<![^ ]_)[a-z0-9]{2,20} (?:_[a-z0-9]{2,20} ){0,9}(?=\?)")
# The servers take -5 for one value where no other value stands before it.
_SIGN_OF_VALUE = re.compile(r"[+-] (?:[+-] ){0,9}(?=\?)")
_BEFORE_VALUE = re.compile(
    r"(?:[=<>(,\[*/%|&^~!]|\b(?:select|distinct|where|having|on|and|or|not|xor|between|like|in|case|when|then|else"
    r"|by|limit|offset|values|set|return|interval|div|mod|default)) \Z"
)
_BEFORE_CHARACTERS = 16  # the longest of these words, and some
_TIDY = (
    *(("( ", "("), (" )", ")"), (" ,", ","), (" ;", ";"), (" .", ".")),
    *(("[ ", "["), (" ]", "]"), (" [", "[")),
)
_POINT = re.compile(r"\. (?![0-9])")
_CAST = re.compile(r""" ::[ ](?<=[\w?)\]"][ ]::[ ])(?=[\w"])""")
_NUMBERS = {quote: re.compile(f"{quote}([0-9]+){quote}") for quote in '"`'}
_PLAIN_LISTS = (
    ("in (", re.compile(r"in \((?<!\win \()\?[?, ]*(?=\)|\Z)"), "in (?"),
    ("array[", re.compile(r"array\[\?[?, ]*(?=\]|\Z)"), "array[?"),
)
_HEADS = (
    ("in (", re.compile(r"in \((?<!\win \()(?=[(?])")),
    ("array[", re.compile(r"array\[(?=[(?])")),
    ("value", re.compile(r"value(?<!\wvalue)s? (?=[(r])")),
)
_ITEM = re.compile(
    r"(?:row )?\([^()]*(?:\([^()]*(?:\([^()]*\)[^()]*){0,50}\)[^()]*){0,50}\)"
    r"|\?(?:::[\w .]{1,60}(?:\([?, ]*\))?(?:\[\])?){0,4}"
)


def normal_form(text: str, *, quote: str) -> str:
    """The form of a text without literals and comments; `quote` stands around its names: " (PostgreSQL) or `."""
    text = text.replace("/**/", " ")
    if quote == "`" and "\\" in text:
        text = _NULL_OF_MYSQL.sub(" NULL", text)
    names: dict[str, int] = {}
    if quote in text and text.count(quote) % 2 == 0:
        text = _with_numbers(text, names, quote)
    text = text.lower()
    if quote == '"' and "$" in text:
        text = _PARAMETER.sub("?", text)
    text = " ".join((_POSTGRES_SIGNS if quote == '"' else _MYSQL_SIGNS).split(text))
    for sign in "(),?[]":
        text = text.replace(sign, f" {sign} ")
    text = _without_values(" ".join(text.split()), quote)
    for found, tidied in _TIDY:
        text = text.replace(found, tidied)
    if ". " in text:
        text = _POINT.sub(".", text)
    if "::" in text:
        text = _CAST.sub("::", text)
    text = _with_short_lists(text)
    if names:
        by_number = list(names)
        text = _NUMBERS[quote].sub(lambda found: f"{quote}{by_number[int(found[1])]}{quote}", text)
    return text.strip().rstrip("; ")


def digest(form: str) -> str:
    """What stands for a form on the wire."""
    return hashlib.sha256(form.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]


def _without_values(text: str, quote: str) -> str:
    """NULL, TRUE and FALSE are values where one may stand; sign and character set belong to their value."""
    if "null" in text or "true" in text or "false" in text:
        text = _WORD_VALUE.sub("?", text)
    if quote == "`" and "_" in text:
        text = _INTRODUCER.sub("", text)
    if "- ?" in text or "+ ?" in text:
        text = _SIGN_OF_VALUE.sub(_unsigned, text)
    return text


def _unsigned(found: re.Match[str]) -> str:
    text, start = found.string, found.start()
    is_own = start == 0 or _BEFORE_VALUE.search(text, max(0, start - _BEFORE_CHARACTERS), start)
    return "" if is_own else found[0][:2]


def _with_numbers(text: str, names: dict[str, int], quote: str) -> str:
    """Each name becomes its number, so that what is done to the text is not done to names."""
    parts = text.split(quote)
    for place in range(1, len(parts), 2):
        parts[place] = f" {quote}{names.setdefault(parts[place], len(names))}{quote} "
    return "".join(parts)


def _with_short_lists(text: str) -> str:
    for sign, pattern, short in _PLAIN_LISTS:
        if sign in text:
            text = pattern.sub(short, text)
    for sign, pattern in _HEADS:
        if sign in text:
            text = _with_each_kind_once(pattern, text)
    return text


def _with_each_kind_once(head: re.Pattern[str], text: str) -> str:
    parts, done = [], 0
    for found in head.finditer(text):
        if found.end() >= done:
            kinds, end = _kinds(text, found.end())
            parts += [text[done : found.end()], ", ".join(kinds)]
            done = end
    return "".join([*parts, text[done:]])


def _kinds(text: str, place: int) -> tuple[dict[str, None], int]:
    """The kinds of element from `place` on, and where they end. One that is cut off at the end of the text is none."""
    kinds: dict[str, None] = {}
    end = place
    while item := _ITEM.match(text, place):
        kinds[item[0]] = None
        end = item.end()
        if not text.startswith(",", end):
            return kinds, end
        place = end + len(", ")
    is_cut = kinds and text.find(")", place) < 0 and text.find("*/", place) < 0
    return kinds, (len(text) if is_cut else end)
