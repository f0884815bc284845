"""What could go wrong: a server's words move the cursor, change colours or the title of a terminal, forge a second line
of the log, or turn the direction of what is read; a long message fills the screen; JSON is not the same afterwards.
"""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import CodedError, OutboxBroken
from storage.plain import plain, plain_json

EVIL = "a\x1b[2J\x1b]0;title\x07b\r\n2026 INFO forged\tx\x9b31m\u202eevil\u2066\u200b\x00\x7f\ud800\ufeff"


def test_nothing_is_left_that_a_terminal_obeys() -> None:
    assert plain(EVIL) == "a?[2J?]0;title?b  2026 INFO forged x?31m?evil??????"
    assert plain("täxt 漢字 😀 `x`") == "täxt 漢字 😀 `x`"


@pytest.mark.parametrize(
    ("at_most", "expected"), [(None, "abcdef"), (6, "abcdef"), (5, "ab..."), (3, "..."), (0, "...")]
)
def test_what_is_too_long_is_cut_and_says_so(at_most: int | None, expected: str) -> None:
    assert plain("abcdef", at_most) == expected


@given(st.text())
def test_any_text_becomes_one_line_that_can_be_printed(text: str) -> None:
    shown = plain(text)
    assert (shown.isprintable(), len(shown), plain(shown)) == (True, len(text), shown)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_says_the_same_and_hides_nothing(text: str) -> None:
    shown = plain_json(json.dumps({"a": text}, ensure_ascii=False, indent=2))
    assert json.loads(shown) == {"a": text}
    signs = {sign for sign in shown if unicodedata.category(sign) in {"Cc", "Zl", "Zp"}}
    assert signs <= {"\n"}
    assert not {*shown} & {*"\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"}


def test_without_it_they_would_be_there() -> None:
    """The control: what a serializer leaves as it is."""
    assert "\x9b" in json.dumps("\x9b", ensure_ascii=False)
    assert "\u202e" in json.dumps("\u202e", ensure_ascii=False)


def test_an_error_shows_what_it_was_told_as_one_bounded_line() -> None:
    error = OutboxBroken(EVIL)
    assert (error.detail, str(error).isprintable()) == (plain(EVIL), True)
    long = CodedError("x" * 1_000_000)
    assert (len(long.detail), long.args) == (CodedError.at_most, (long.detail,))
