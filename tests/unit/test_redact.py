"""Secrets in the text of a statement.

What could go wrong: a password survives because of a quote, a backslash, a comment or a dollar in front of it, or
because the text was cut in the middle of it; statements that speak of no secret lose their literals; a text made of
quotes takes minutes (the time limit of a test would end it).
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.redact import mask_secrets

SECRET = "hunter2"

STATEMENTS = [
    f"CREATE USER 'bob'@'%' IDENTIFIED BY '{SECRET}'",
    f"create user bob identified by '{SECRET}' require ssl",
    f'CREATE USER "bob" IDENTIFIED BY "{SECRET}"',
    f"ALTER USER bob IDENTIFIED WITH mysql_native_password AS '{SECRET}'",
    f"GRANT ALL ON *.* TO bob IDENTIFIED BY PASSWORD '{SECRET}'",
    f"SET PASSWORD FOR 'bob'@'%' = PASSWORD('{SECRET}')",
    f"SET PASSWORD = '{SECRET}'",
    f"CREATE ROLE bob LOGIN PASSWORD '{SECRET}'",
    f"CREATE ROLE bob PASSWORD $${SECRET}$$",
    f"CREATE ROLE bob PASSWORD $a_1$it's {SECRET}$a_1$ LOGIN",
    f"CREATE ROLE bob PASSWORD $ä$ ' {SECRET}$ä$ LOGIN",
    f"ALTER ROLE bob WITH ENCRYPTED PASSWORD E'\\'{SECRET}'",
    f"CREATE ROLE bob PASSWORD U&'\\0041{SECRET}'",
    f"CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='{SECRET}'",
    f"CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'x', password '{SECRET}')",
    f"CREATE SUBSCRIPTION s CONNECTION 'host=h password={SECRET}' PUBLICATION p",
    f"SELECT * FROM dblink('host=h user=u {SECRET}', 'SELECT 1') AS t(x int)",
    f"SELECT aes_encrypt('data', '{SECRET}')",
    f"SELECT crypt('{SECRET}', gen_salt('bf'))",
    f"UPDATE users SET password = '{SECRET}', name = 'it''s' WHERE id = 5",
    f"UPDATE users SET passwd = 'a''{SECRET}''b'",
    # what stands in front of it reads differently by server and setting
    f"ALTER ROLE a PASSWORD 'x\\'; ALTER ROLE b PASSWORD '{SECRET}'",
    f"SET @a = 'it\\'s', PASSWORD = '{SECRET}'",
    f"/* don't */ SET PASSWORD = '{SECRET}'",
    f"/*/ don't */ SET PASSWORD = '{SECRET}'",
    f"/* /* */ don't */ SET PASSWORD = '{SECRET}'",
    f"-- don't\nSET PASSWORD = '{SECRET}'",
    f"# don't\nSET PASSWORD = '{SECRET}'",
    f"SELECT 5--/* x\n don't */ , '{SECRET}' AS password",
    f"SELECT `it's`, '{SECRET}' AS password",
    f"SELECT $$it's$$, '{SECRET}' AS password",
    f"SELECT 1 # it's\n, '{SECRET}' AS password",
    f"SELECT data #> '{{a}}' AS password, '{SECRET}'",
    # cut in the middle
    f"CREATE USER bob IDENTIFIED BY '{SECRET}",
    f"CREATE USER 'bob'@'%' IDENTIFIED BY '{SECRET}",
    f'CREATE USER bob IDENTIFIED BY "{SECRET}',
    f"CREATE ROLE bob PASSWORD $a${SECRET}",
    f"CREATE USER bob IDENTIFIED BY 'it''{SECRET}",
    f"CREATE USER bob IDENTIFIED BY '\\'{SECRET}",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_secret_is_masked(statement: str) -> None:
    assert SECRET in statement
    masked = mask_secrets(statement)
    assert SECRET not in masked
    assert "'***'" in masked


@pytest.mark.parametrize("statement", [each for each in STATEMENTS if '"' not in each])
def test_the_secret_is_masked_where_double_quotes_hold_names_too(statement: str) -> None:
    assert SECRET not in mask_secrets(statement, names_in_double_quotes=True)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE users SET password = 'x', n = 1 WHERE id = 5 ORDER BY a-b/c LIMIT 1",
            "UPDATE users SET password = '***', n = 1 WHERE id = 5 ORDER BY a-b/c LIMIT 1",
        ),
        ("SET PASSWORD = 'it''s' -- done\n, x = 'b' ;", "SET PASSWORD = '***' -- done\n, x = '***' ;"),
        (
            "/* app */ SELECT password FROM t WHERE a='x' AND b=2",
            "/* app */ SELECT password FROM t WHERE a='***' AND b=2",
        ),
        ("SELECT `password` FROM `t` WHERE a IN ('x', \"y\")", "SELECT `password` FROM `t` WHERE a IN ('***', '***')"),
        ("SELECT password FROM t WHERE a = $1 AND b = 'x'", "SELECT password FROM t WHERE a = $1 AND b = '***'"),
        (
            "SELECT password FROM v$session WHERE a = 'x' LIMIT 1",
            "SELECT password FROM v$session WHERE a = '***' LIMIT 1",
        ),
        ("ALTER USER u IDENTIFIED WITH p AS 0x68756E74", "ALTER USER u IDENTIFIED WITH p AS '***'"),
        ("SELECT a->'x' AS password FROM t WHERE y = 1", "SELECT a->'***' AS password FROM t WHERE y = 1"),
    ],
)
def test_the_rest_of_an_ordinary_statement_stays_readable(statement: str, expected: str) -> None:
    assert mask_secrets(statement) == expected


def test_names_of_postgres_stay_readable() -> None:
    statement = 'SELECT "u"."password" FROM "auth""user" AS "u" WHERE "u"."name" = \'x\' AND "u"."id" = $1'
    assert mask_secrets(statement, names_in_double_quotes=True) == statement.replace("'x'", "'***'")
    assert '"' not in mask_secrets(statement)


@pytest.mark.parametrize(
    "statement", ["", "SELECT 'x', \"y\", $$z$$ FROM t", "/* don't */ SELECT 'x\\'", "INSERT INTO t VALUES (0x41)"]
)
def test_a_statement_that_speaks_of_no_secret_stays_as_it_is(statement: str) -> None:
    assert mask_secrets(statement) == statement


# Complete pieces of SQL in which quotes, backslashes and comment signs mislead a simple reader.
_INSIDE = st.text(st.sampled_from('ab \\"`#-/*$\n;,='), max_size=6)
_PIECES = st.one_of(
    _INSIDE.map(lambda text: "'" + text.replace("\\", "\\\\") + "'"),
    _INSIDE.map(lambda text: "'" + text.replace("\\", "") + "\\'x'"),
    _INSIDE.map(lambda text: '"' + text.replace('"', '""').replace("\\", "") + '"'),
    _INSIDE.map(lambda text: "/*'" + text.replace("*/", "") + "*/"),
    st.sampled_from(
        ["-- it's\n", "# it's\n", "$$'$$", "$t$\"'$t$", "`a'b`", "''", "'it''s'", "$1", "0x41", "a-b", "/"]
    ),
    st.sampled_from([" ", ",", "(", ")", ";", "=", "@", "SELECT", "WHERE"]),
)
_NOISE = st.lists(_PIECES, max_size=8).map(" ".join)
_LITERALS = st.sampled_from(
    ["'{}'", '"{}"', "'x''{}'", "'{}''x'", "'x\\'{}'", "$${}$$", "$t$'{}$t$", "E'{}'", "N'{}'", "'{}", '"{}', "$${}"]
)


@given(before=_NOISE, literal=_LITERALS, after=_NOISE)
def test_the_secret_never_survives_whatever_stands_around(before: str, literal: str, after: str) -> None:
    statement = f"{before} IDENTIFIED BY {literal.format(SECRET)} {after}"
    assert SECRET not in mask_secrets(statement)


@given(
    before=st.text(st.sampled_from("'\"`\\$#-/* \na1,"), max_size=30),
    quote=st.sampled_from("'\""),
    after=st.text(st.sampled_from("'\"`\\$#-/* \na1,"), max_size=30),
)
@example(before="'", quote="'", after="'")
@example(before="x'y", quote="'", after="'")
def test_the_secret_never_survives_between_quotes_even_in_what_is_no_sql(before: str, quote: str, after: str) -> None:
    statement = f"password {before}{quote}{SECRET}{quote}{after}"
    assert SECRET not in mask_secrets(statement)


@given(before=_NOISE, cut=st.integers(0, len(SECRET)))
def test_a_text_that_is_cut_inside_the_secret_keeps_nothing_of_it(before: str, cut: int) -> None:
    statement = f"{before} PASSWORD '{SECRET[:cut]}"
    masked = mask_secrets(statement)
    assert cut < 3 or SECRET[:cut] not in masked


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    [
        "'",
        '"',
        "\\",
        "'\\",
        "''",
        "' ",
        "$",
        "$$",
        "$a",
        "$a$",
        "/*",
        "*/",
        "/*/",
        "--",
        "-",
        "#",
        "#\n",
        "`",
        "0x",
        "0xg",
        "a",
        "'a'",
    ],
)
def test_a_mebibyte_of_anything_is_read_in_one_go(piece: str) -> None:
    """Quadratic reading would take hours here; the time limit is the control."""
    mask_secrets("password " + piece * ((1 << 20) // len(piece)))
    mask_secrets("password '" + piece * ((1 << 20) // len(piece)))
