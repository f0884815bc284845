"""Random statements with known literals through the redaction, compared with how sqlglot takes them apart.

What could go wrong: a literal of some kind, or what is left of one that was cut, comes out; a word, name or sign does
not; redacting what is redacted changes it, or its fingerprint; values, spaces, comments, capital letters or lengths of
lists change a fingerprint; two shapes share one. And: the checks see nothing, so each kind of literal is left in once.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from sqlglot import TokenType, tokenize
from sqlglot.errors import TokenError

from agent.redact import Redactor
from agent.redact.normal import digest
from tests.property.sql_grammar import DIALECTS, MARKS, Dialect, Shape, shapes, texts

LITERALS = {dialect.name: Redactor("literals", dialect.name) for dialect in DIALECTS}
FORMS = {dialect.name: Redactor("fingerprint", dialect.name) for dialect in DIALECTS}
INTRODUCERS = {"_utf8mb4", "_binary"}  # parts of their literals
LITERAL_TOKENS = {
    *(TokenType.STRING, TokenType.NUMBER, TokenType.NATIONAL_STRING, TokenType.HEX_STRING, TokenType.BIT_STRING),
    *(TokenType.BYTE_STRING, TokenType.HEREDOC_STRING, TokenType.RAW_STRING, TokenType.UNICODE_STRING),
}


def structure(text: str, dialect: Dialect) -> list[str]:
    """The tokens as sqlglot sees them, `?` for each literal; comments are none."""
    return [
        "?" if token.token_type in LITERAL_TOKENS or token.token_type == TokenType.PLACEHOLDER else token.text
        for token in tokenize(text, read=dialect.name)
    ]


def survivors(text: str, dialect: Dialect) -> list[str]:
    """What is still a literal: a mark, or a token that sqlglot takes for one."""
    marks = [mark for mark in MARKS if mark in text.lower()]
    return [*marks, *(token.text for token in tokenize(text, read=dialect.name) if token.token_type in LITERAL_TOKENS)]


def cases(*, with_lists: bool = True, is_sure: bool = True) -> st.SearchStrategy[tuple[Dialect, Shape, str]]:
    """A dialect, a shape of it, and a rendering of that."""
    return st.sampled_from(DIALECTS).flatmap(
        lambda dialect: shapes(dialect, with_lists=with_lists).flatmap(
            lambda shape: st.tuples(st.just(dialect), st.just(shape), texts(dialect, shape, is_sure=is_sure))
        )
    )


@given(case=cases(is_sure=False))
def test_no_literal_survives(case: tuple[Dialect, Shape, str]) -> None:
    dialect, _, text = case
    assert survivors(text, dialect) != []  # there is something to lose
    for redactor in (LITERALS[dialect.name], FORMS[dialect.name]):
        assert survivors(redactor(text, is_whole=True)[0], dialect) == []


@given(case=cases())
def test_everything_else_does(case: tuple[Dialect, Shape, str]) -> None:
    dialect, _, text = case
    assert structure(LITERALS[dialect.name](text, is_whole=True)[0], dialect) == structure(text, dialect)


@given(case=cases(with_lists=False))
def test_the_form_without_lists_has_the_same_words_and_signs(case: tuple[Dialect, Shape, str]) -> None:
    dialect, _, text = case
    form = FORMS[dialect.name](text, is_whole=True)[0]
    expected = [each.lower() for each in structure(text, dialect) if each not in INTRODUCERS]
    assert [each.lower() for each in structure(form, dialect)] == expected


@given(case=cases(is_sure=False), data=st.data())
def test_nothing_of_a_literal_survives_a_cut(case: tuple[Dialect, Shape, str], data: st.DataObject) -> None:
    dialect, _, text = case
    cut = text[: data.draw(st.integers(0, len(text)))]
    event("inside a literal" if any(cut.endswith(mark[:3]) for mark in MARKS) else "elsewhere")
    for redactor in (LITERALS[dialect.name], FORMS[dialect.name]):
        for is_whole in (False, True):  # a cut that nobody knows of must not matter either
            found = redactor(cut, is_whole=is_whole)[0].lower()
            assert [mark for mark in MARKS if mark[:3] in found] == []


@given(case=cases(), data=st.data())
def test_the_same_shape_has_the_same_fingerprint(case: tuple[Dialect, Shape, str], data: st.DataObject) -> None:
    dialect, shape, text = case
    other = data.draw(texts(dialect, shape))
    form, fingerprint = FORMS[dialect.name](text, is_whole=True)
    assert FORMS[dialect.name](other, is_whole=True) == (form, fingerprint)
    assert fingerprint == digest(form)


@given(case=cases(), data=st.data())
def test_another_shape_has_another_fingerprint(case: tuple[Dialect, Shape, str], data: st.DataObject) -> None:
    dialect, shape, text = case
    other = data.draw(shapes(dialect))
    assume(other != shape)
    assert (
        LITERALS[dialect.name](text, is_whole=True)[1]
        != LITERALS[dialect.name](data.draw(texts(dialect, other)), is_whole=True)[1]
    )


_NASTY = st.text(st.sampled_from("ab ?1.5'\"`\\$-/*#!+=<(),:;@\nENexU&\ud800\x02\x03é"), max_size=40)


@given(case=cases(is_sure=False), data=st.data())
def test_what_is_redacted_stays_as_it_is_whatever_was_done_to_the_text(
    case: tuple[Dialect, Shape, str], data: st.DataObject
) -> None:
    dialect, _, text = case
    for _ in range(data.draw(st.integers(0, 3))):
        place, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 9))
        text = text[:place] + data.draw(_NASTY) + text[place + length :]
    for redactor in (LITERALS[dialect.name], FORMS[dialect.name]):
        once = redactor(text, is_whole=data.draw(st.booleans()))
        assert redactor(once[0], is_whole=True) == once
        assert redactor(once[0], is_whole=False) == once


@given(case=cases(is_sure=False), data=st.data())
def test_a_text_that_was_damaged_has_no_literal_that_another_reader_sees(
    case: tuple[Dialect, Shape, str], data: st.DataObject
) -> None:
    dialect, _, text = case
    place = data.draw(st.integers(0, len(text)))
    text = text[:place] + data.draw(_NASTY) + text[place + data.draw(st.integers(0, 9)) :]
    for redactor in (LITERALS[dialect.name], FORMS[dialect.name]):
        try:
            tokens = tokenize(redactor(text, is_whole=True)[0], read=dialect.name)
        except TokenError:
            event("no SQL any more")
            continue
        strings = [token.text for token in tokens if token.token_type in LITERAL_TOKENS - {TokenType.NUMBER}]
        assert strings == []


# -- the controls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "kind"), [(dialect, kind) for dialect in DIALECTS for kind in dialect.literals], ids=str
)
def test_a_redactor_that_forgets_one_kind_of_literal_is_caught(dialect: Dialect, kind: str) -> None:
    for literal in dialect.literals[kind]:
        text = literal.replace("{{", "{").replace("}}", "}").replace("{m}", MARKS[0])
        assert survivors(f"SELECT ?, {text} FROM t WHERE a = ?", dialect) != []
        redacted = LITERALS[dialect.name](f"SELECT 1, {text} FROM t WHERE a = 5", is_whole=True)[0]
        assert survivors(redacted, dialect) == []


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_a_redactor_that_loses_a_word_or_a_sign_is_caught(dialect: Dialect) -> None:
    text = "SELECT a, ? FROM t WHERE b >= ?"
    for lost in ("a", ",", "?", ">=", "FROM"):
        assert structure(text.replace(lost, "", 1), dialect) != structure(text, dialect)


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_a_comment_that_is_left_in_is_caught(dialect: Dialect) -> None:
    for comment in (*dialect.comments, *dialect.wild_comments):
        assert survivors(f"SELECT ? {comment.replace('{m}', MARKS[0])}", dialect) != []
        assert not re.search(
            "|".join(MARKS), LITERALS[dialect.name](comment.replace("{m}", MARKS[0]), is_whole=True)[0]
        )
