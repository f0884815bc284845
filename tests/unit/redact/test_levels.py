"""What leaves of a text at each level, and its fingerprint.

What could go wrong: a literal survives at `literals` or `fingerprint` because of its prefix, its quotes, a comment, an
escape, a setting of the server that is not known here, or because the text was cut in it; an executed comment or a hint
carries one out; so much is masked that two statements look alike; the same statement with other values, spaces, capital
letters or lengths of lists gets another fingerprint; another statement gets the same one; a word that speaks of secrets
is not known; a hostile text takes time that grows faster than the text.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.redact import Redactor, fingerprint_of_queryid, mask_secrets
from agent.redact.normal import digest

SECRET = "hunter2"
MYSQL, POSTGRES = Redactor("literals", "mysql"), Redactor("literals", "postgres")
MYSQL_FORM, POSTGRES_FORM = Redactor("fingerprint", "mysql"), Redactor("fingerprint", "postgres")


def literals(text: str, redactor: Redactor = MYSQL, *, is_whole: bool = True) -> str:
    return redactor(text, is_whole=is_whole)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 'a', N'b', x'4D', X'4D', b'01', 0x4D, 0b01, _utf8'c'", "SELECT ?, ?, ?, ?, ?, ?, ?, _utf8?"),
        ('SELECT "a", "b""c", \'d\'\'e\', "it\'s", \'"\'', "SELECT ?, ?, ?, ?, ?"),
        (r"SELECT 'it\'s', 'a\\', " + r'"\"", ' + r"'{\"a\": 1}', 5", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT 1, 1.5, .5, 5., 1e5, 1.5E-3, 1e+5+2, -7", "SELECT ?, ?, ?, ?, ?, ?, ?+?, -?"),
        *[(text, text) for text in ("SELECT t1.c2, `3`, 2024_orders.`5`, a$1, @v1 FROM db.2024_x",)],
        ("SELECT 1 # it's\n, 2 -- it's\n, 3--4, 5 /* it's */, 6", "SELECT ?  \n, ?  \n, ?--?, ?  , ?"),
        ("SELECT /* a /* b */ 'c' */ 1", "SELECT   ? */ ?"),
        ("/* app:shop */ SELECT 1 -- end", "SELECT ?"),
        ("SELECT /*!40001 SQL_NO_CACHE */* FROM t", "SELECT /*!40001 SQL_NO_CACHE */* FROM t"),
        ("SELECT /*+ BKA(t) SET_VAR(a='x-y' b=9) */ 1", "SELECT /*+ BKA(t) SET_VAR(a=? b=?) */ ?"),
        ("SELECT /*M!100100 5 */ a", "SELECT /*M!100100 ? */ a"),
        ("SELECT a FROM t WHERE b = ? AND c IN(1,2)", "SELECT a FROM t WHERE b = ? AND c IN(?,?)"),
        ("SELECT a ->> '$.x' FROM t LIMIT 5,10", "SELECT a ->> ? FROM t LIMIT ?,?"),
        ("SELECT NULL, TRUE, \\N", "SELECT NULL, TRUE, \\N"),
    ],
)  # fmt: skip
def test_mysql_loses_its_literals_and_nothing_else(text: str, expected: str) -> None:
    assert literals(text) == expected
    assert literals(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 'a', N'b', X'4D', B'01', 0x4D, 1_000, E'c'", "SELECT ?, ?, ?, ?, ?, ?, ?"),
        (r"SELECT E'it\'s', e'a\\', E'it''s\'', 5", "SELECT ?, ?, ?, ?"),
        ("SELECT $$it's$$, $a_1$ $$ it's $a_1$, $ä$'$ä$, 5", "SELECT ?, ?, ?, ?"),
        ('SELECT "u"."it\'s", "a""b", "1" FROM "T"', 'SELECT "u"."it\'s", "a""b", "1" FROM "T"'),
        ("SELECT $1, $2::int, 'x'::text, '{1}'::int[]", "SELECT $1, $2::int, ?::text, ?::int[]"),
        ("SELECT a /* it's /* nested */ 'b' */, 'c' -- 'd'\n, 5", "SELECT a  , ?  \n, ?"),
        ("SELECT a$b$c, 'x', a$b$ FROM t", "SELECT a$b$c, ?, a$b$ FROM t"),
        ("SELECT d ? 'k', d ?| ARRAY['a'], d #> '{a}', a - -1", "SELECT d ? ?, d ?| ARRAY[?], d #> ?, a - -?"),
        ("SELECT a FROM t WHERE b IN ($1 /*, ... */)", "SELECT a FROM t WHERE b IN ($1  )"),
        ("SELECT U&'\\0041', U&\"d\\0061t\"", 'SELECT U&?, U&"d\\0061t"'),
        ("/*+ SeqScan(t) Set(work_mem '64MB') */ SELECT 1", "/*+ SeqScan(t) Set(work_mem ?) */ SELECT ?"),
    ],
)  # fmt: skip
def test_postgres_loses_its_literals_and_nothing_else(text: str, expected: str) -> None:
    assert literals(text, POSTGRES) == expected
    assert literals(expected, POSTGRES) == expected


CUT = [
    f"SELECT '{SECRET}", f"SELECT 'x''{SECRET}", f"SELECT N'{SECRET}", f"SELECT 5 /* {SECRET}", f"SELECT 5 -- {SECRET}",
    f"SELECT 1 FROM t WHERE a = 'it''s {SECRET}", f"INSERT INTO t VALUES (1, 'a'), (2, '{SECRET}",
]  # fmt: skip


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("redactor", [MYSQL, POSTGRES, MYSQL_FORM, POSTGRES_FORM])
@pytest.mark.parametrize("text", CUT)
def test_what_is_open_at_the_end_is_masked(text: str, redactor: Redactor, is_whole: bool) -> None:
    found = literals(text, redactor, is_whole=is_whole)
    assert SECRET not in found
    assert found.lower().startswith(("select", "insert"))


@pytest.mark.parametrize(
    ("text", "redactor"),
    [
        (f"SELECT `{SECRET}", MYSQL),
        (f'SELECT "{SECRET}', MYSQL),
        (f"SELECT 'a\\'{SECRET}", MYSQL),
        (f"SELECT 'a\\' {SECRET}\\", MYSQL),
        (f"SELECT 1 # {SECRET}", MYSQL),
        (f"SELECT /*! {SECRET} '", MYSQL),
        (f'SELECT "{SECRET}', POSTGRES),
        (f"SELECT $a${SECRET}", POSTGRES),
        (f"SELECT $a${SECRET}$b$ {SECRET} $$", POSTGRES),
        (f"SELECT E'a\\'{SECRET}", POSTGRES),
        ("SELECT E'a\\", POSTGRES),
        (f"SELECT /* a /* b */ {SECRET}", POSTGRES),
    ],
)
def test_what_is_open_in_one_dialect_is_masked_there(text: str, redactor: Redactor) -> None:
    assert SECRET not in literals(text, redactor, is_whole=False)
    assert SECRET not in literals(text, redactor, is_whole=True)


@pytest.mark.parametrize(
    ("text", "redactor"),
    [
        # with NO_BACKSLASH_ESCAPES the first literal ends at its backslash
        (f"SELECT 'C:\\', '{SECRET}'", MYSQL),
        (f"SELECT 'C:\\', '{SECRET}', 'x'", MYSQL),
        (f"SELECT 'C:\\', '{SECRET}', 'C:\\'", MYSQL),
        # with ANSI_QUOTES a name does
        (f'SELECT "a\\", \'{SECRET}\', "b"', MYSQL),
        # half of a character in the client's character set looks like a backslash
        (f"SELECT '\ufffd\\' OR a = '{SECRET}'", MYSQL),
        (f"SELECT '\ufffd\\\\' {SECRET}'", MYSQL),
        (f"SELECT a\ufffd` FROM t WHERE b = '{SECRET}' AND a\ufffd` = 5", MYSQL),
        (f"SELECT `a\ufffd`b` FROM t WHERE c = '{SECRET}' AND `d` = 5", MYSQL),
        (f"SELECT /*!50000 'a\\' */ + '{SECRET}'", MYSQL),
        # a server that skips the comment sees another end of it
        (f"SELECT /*!99999 don't */ 1, '{SECRET}'", MYSQL),
        (f"SELECT /*!50000 'a */ b' */ '{SECRET}'", MYSQL),
        (f"SELECT /*!50000 -- */ '{SECRET} \n '", MYSQL),
        (f"SELECT /*+ SET_VAR(a = 'x*/ {SECRET}') */ 1", MYSQL),
        # with standard_conforming_strings off it goes on
        (f"SELECT 'a\\' || '{SECRET}'", POSTGRES),
        (f"SELECT 'a\\''{SECRET}'", POSTGRES),
        (f"SELECT 'it\\'s {SECRET}', 'x'", POSTGRES),
    ],
)
def test_a_text_that_reads_differently_under_another_setting_keeps_nothing_behind_that_place(
    text: str, redactor: Redactor
) -> None:
    for is_whole in (True, False):
        found = literals(text, redactor, is_whole=is_whole)
        assert SECRET not in found
        assert found.startswith("SELECT")
        assert found.endswith("?")


def test_an_escaped_quote_costs_nothing_where_no_other_reading_makes_a_statement() -> None:
    text = "SELECT a FROM t WHERE b = 'it\\'s' AND c = \"\\\"x\\\"\" AND d = '{\\\"k\\\": \\'v\\'}' LIMIT 5"
    assert literals(text) == "SELECT a FROM t WHERE b = ? AND c = ? AND d = ? LIMIT ?"
    # The control: with an even number of such literals nothing shows at the end, but in their middle.
    assert literals("SELECT 'it\\'s', 'it\\'s', 5") == "SELECT ?, ?, ?"


def test_a_name_of_more_than_256_characters_is_none() -> None:
    assert literals(f"SELECT `{'a' * 256}`") == f"SELECT `{'a' * 256}`"
    assert literals(f"SELECT `{'a' * 257}`, 5") == "SELECT ?, ?"
    assert literals(f'SELECT "{"a" * 257}", 5', POSTGRES) == "SELECT ?, ?"


# -- the fingerprint -------------------------------------------------------------------------------------------------

SAME: list[tuple[str, list[str]]] = [
    (
        "select * from t where a = ? and b in (?)",
        [
            "SELECT * FROM t WHERE a = 1 AND b IN (1)",
            "select *\n  from t\twhere a='x' and b in(1,2, 3);",
            "SELECT * FROM t WHERE a = -1.5e3 AND b IN (NULL, 'x', TRUE, -2)",
            "/* app */ SELECT * FROM t WHERE a=5 -- x\n AND b IN (1 /* y */, 2)",
            "SELECT * FROM t WHERE a = NULL AND b IN (?, ?)",
        ],
    ),
    (
        "insert into t (a, b) values (?, ?)",
        [
            "INSERT INTO t (a, b) VALUES (1, 'x')",
            "insert into t(a,b) values(1,'x'),(2,'y'),(-3,NULL)",
            "INSERT INTO t (a, b) VALUES\n  (0x41, \t'it''s'),\n  (.5, 'it''s')",
        ],
    ),
    (
        "select count (*) from t where (a, b) in ((?, ?)) limit ?",
        [
            "SELECT COUNT(*) FROM t WHERE (a, b) IN ((1, 2)) LIMIT 5",
            "SELECT count( * ) FROM t WHERE (a,b) IN ((1,2),(3,4)) LIMIT 10",
        ],
    ),
    (
        "insert into t values (?, now ()), (?, ?) on duplicate key update a = values (a)",
        ["INSERT INTO t VALUES (1, NOW()), (2, 3), (4, NOW( )), (5, 6) ON DUPLICATE KEY UPDATE a = VALUES(a)"],
    ),
]


@pytest.mark.parametrize("redactor", [MYSQL_FORM, POSTGRES_FORM])
@pytest.mark.parametrize(("form", "texts"), SAME)
def test_the_same_statement_has_one_form_and_one_fingerprint(form: str, texts: list[str], redactor: Redactor) -> None:
    assert [redactor(text, is_whole=True) for text in texts] == [(form, digest(form))] * len(texts)
    assert redactor(form, is_whole=True) == (form, digest(form))


def test_postgres_before_and_after_18_and_mysql_agree() -> None:
    form = "select a from t where b in (?) and c = ? limit ?"
    for text in (
        "SELECT a FROM t WHERE b IN ($1 /*, ... */) AND c = $2 LIMIT $3",
        "SELECT a FROM t WHERE b IN ($1, $2, $3) AND c = $4 LIMIT $5",
        "select a from t where b in ($1,$2) and c=$3 limit $4",
    ):
        assert literals(text, POSTGRES_FORM) == form
    assert literals("SELECT a FROM t WHERE b IN (1, 2, 3) AND c = 'x' LIMIT 5", MYSQL_FORM) == form
    casts = ["b IN ($1::uuid, $2::uuid)", "b IN ($1 /*, ... */::uuid)", "b IN ('x'::uuid,'y'::uuid)"]
    assert {literals(text, POSTGRES_FORM) for text in casts} == {"b in (?::uuid)"}
    arrays = ["b = ANY (ARRAY[$1, $2])", "b = any(array[$1 /*, ... */])", "b = ANY(ARRAY[1])"]
    assert {literals(text, POSTGRES_FORM) for text in arrays} == {"b = any (array[?])"}


@pytest.mark.parametrize("redactor", [MYSQL_FORM, POSTGRES_FORM])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE c = 1"),
        ("SELECT a FROM t1", "SELECT a FROM t2"),
        ("SELECT a b FROM t", "SELECT ab FROM t"),
        ("SELECT a FROM t WHERE b > 1", "SELECT a FROM t WHERE b >= 1"),
        ("SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b NOT IN (1, 2)"),
        ("SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN (1, c)"),
        ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1, 2, 3)"),
        ("SELECT f(1, 2)", "SELECT f(1)"),
        ("SELECT a FROM t WHERE b IS NULL", "SELECT a FROM t WHERE b IS NOT NULL"),
        ("SELECT a FROM t WHERE b IS NULL", "SELECT a FROM t WHERE b = NULL"),
        ("SELECT a - 1", "SELECT a, -1"),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1 OFFSET 1"),
    ],
)
def test_other_statements_have_other_fingerprints(one: str, other: str, redactor: Redactor) -> None:
    assert redactor(one, is_whole=True)[1] != redactor(other, is_whole=True)[1]


def test_names_in_quotes_keep_their_letters() -> None:
    assert literals('SELECT "createdAt" FROM "Order" AS O', POSTGRES_FORM) == 'select "createdAt" from "Order" as o'
    assert literals("SELECT `a  B`AS`C` FROM `T`.`u`", MYSQL_FORM) == "select `a  B` as `C` from `T`.`u`"
    assert POSTGRES('SELECT "A"', is_whole=True)[1] != POSTGRES('SELECT "a"', is_whole=True)[1]


def test_a_text_that_is_cut_has_the_fingerprint_of_what_is_there() -> None:
    whole = "INSERT INTO t (a, b) VALUES (1, 'aaaa'), (2, 'bbbb'), (3, 'cccc')"
    cuts = {MYSQL(whole[:end], is_whole=False)[1] for end in range(whole.index("aaaa"), len(whole))}
    assert len(cuts) == 2  # the first row not whole, or whole
    listed = "SELECT a FROM t WHERE b IN (1000, 1001, 1002)"
    assert len({MYSQL(listed[:end], is_whole=False)[1] for end in range(29, len(listed) - 1)}) == 1
    assert MYSQL("", is_whole=True) == ("", digest(""))


def test_the_fingerprint_does_not_depend_on_the_level() -> None:
    text = "SELECT  a FROM t WHERE password = 'x' AND b IN (1, 2)"
    found = {Redactor(level, "mysql")(text, is_whole=True)[1] for level in ("secrets", "literals", "fingerprint")}
    assert len(found) == 1
    assert MYSQL(MYSQL(text, is_whole=True)[0], is_whole=True)[1] in found


def test_a_queryid_has_a_fingerprint_of_its_own() -> None:
    assert fingerprint_of_queryid(5) == fingerprint_of_queryid(5) != fingerprint_of_queryid(-5)


# -- level secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='h', SOURCE_PASSWORD='{SECRET}'",
        f"CREATE SUBSCRIPTION s CONNECTION 'postgresql://u:{SECRET}@h/db' PUBLICATION p",
        f"ALTER SUBSCRIPTION s CONNECTION 'host=h {SECRET}'",
        f"COPY t FROM 's3://b/k' CREDENTIALS 'aws_access_key_id=a;aws_secret_access_key={SECRET}'",
        f"ALTER SYSTEM SET primary_conninfo = 'host=h user=u {SECRET}'",
        f"CREATE TABLE f (a INT) ENGINE=FEDERATED CONNECTION='mysql://u:{SECRET}@h/db/t'",
        f"CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD '{SECRET}')",
        f"SELECT * FROM sessions WHERE token = '{SECRET}'",
        f"UPDATE apps SET api_key = '{SECRET}', pwd = '{SECRET}'",
        f"SELECT hmac(body, '{SECRET}', 'sha256')",
        f"START REPLICA USER='u' PASSWORD='{SECRET}'",
    ],
)
@pytest.mark.parametrize("db_type", ["mysql", "postgres"])
def test_statements_that_speak_of_secrets_lose_them_at_the_lowest_level(text: str, db_type: str) -> None:
    assert SECRET in text
    assert SECRET not in Redactor("secrets", db_type)(text, is_whole=True)[0]


@pytest.mark.parametrize("text", ["SELECT 'https://example.com/a@b'", "SELECT 'x' FROM users WHERE mail = 'a@b.c'"])
def test_other_statements_leave_as_they_are_at_the_lowest_level(text: str) -> None:
    assert Redactor("secrets", "mysql")(text, is_whole=True)[0] == text


# -- hostile texts ---------------------------------------------------------------------------------------------------

HOSTILE = [
    "'", '"', "`", "\\", "''", '""', "``", "\\'", '\\"', "'\\", "'\\''", "$", "$$", "$a$", "$1", "/*", "*/",
    "/*/", "/*!", "/*+", "/*! a */", "/*! '' */", "/*!a-", "--", "-- ", "-", "-- \n", "#", "# \n", "0", "1", "1_",
    "1e", "1e+1", "0x", ".", ".1", "a.", "1.", "a", "a1", "e'", "E'\\'", "N'", "(", ")", "()", "(?", "in (",
    "in (?,", "values (", "values (1),", "values (()", "values (1,(2)),", ",", "?", "? ", "- ", "= - ", "null ",
    "true", "=", "=-", "+", "<", "::a", "array[", "array[1::a,", " ", "\n", "\x02", "\x02\x03", "\x03", "İ", "é",
    "\ud800", "://", "://:", "a b, ", "'a', ", "@a:=",
]  # fmt: skip


# Work that grows with the length takes some hundredths of a second, with its square most of a minute.
SIZE = 131_072
HANGS_S = 5.0


@contextmanager
def no_hang() -> Iterator[None]:
    """Raises TimeoutError where the work does not come to its end."""

    def ring(_signal: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def hangs(task: Callable[[str], object], before: str, piece: str) -> bool:
    try:
        with no_hang():
            task(before + piece * (SIZE // len(piece)))
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("db_type", ["mysql", "postgres"])
@pytest.mark.parametrize("before", ["", "'", "values (", "in (?, ", "select '\\' "])
def test_no_long_text_makes_it_hang(before: str, db_type: str) -> None:
    redactor = Redactor("fingerprint", db_type)
    assert [piece for piece in HOSTILE if hangs(lambda text: redactor(text, is_whole=True), before, piece)] == []


@pytest.mark.parametrize("before", ["password ", "password '"])
def test_nor_does_one_at_the_lowest_level(before: str) -> None:
    assert [piece for piece in HOSTILE if hangs(mask_secrets, before, piece)] == []


def test_control_work_that_grows_with_the_square_of_the_length_hangs() -> None:
    from_each_letter_to_the_end = re.compile("a[ab]+?z")
    assert hangs(from_each_letter_to_the_end.findall, "", "a")
