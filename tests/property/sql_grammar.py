"""Statements of both dialects whose literals are known: what was put in must not come out.

A shape is what all renderings of one statement share: words and signs, with places for values, for lists of them and
for rows. Each rendering draws values, spaces, comments, the case of words and the lengths of the lists. Every value and
comment holds a mark, which stands in no name and no word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

MARKS = ("zqxw", "7a717877", "9173")  # in texts; the same in hexadecimal; in numbers
_HEX = MARKS[1]


@dataclass(frozen=True)
class Value:
    """A place for one value."""


@dataclass(frozen=True)
class Values:
    """Places for one value or several, between parentheses or brackets."""


@dataclass(frozen=True)
class Rows:
    """One row or several, each of so many values."""

    columns: int


@dataclass(frozen=True, eq=False)
class Dialect:
    """How values and comments may be written; `name` as sqlglot and `db_type` as the agent know it.

    Where `escapes` stand beside what is `wild`, a server with other settings might read the statement, too, and more of
    it may be masked.
    """

    name: Literal["mysql", "postgres"]
    names: tuple[str, ...]
    tame: dict[str, tuple[str, ...]]
    wild: dict[str, tuple[str, ...]]
    escapes: dict[str, tuple[str, ...]]
    comments: tuple[str, ...]
    wild_comments: tuple[str, ...]

    @property
    def literals(self) -> dict[str, tuple[str, ...]]:
        """All kinds."""
        return {**self.tame, **self.wild, **self.escapes}

    def __str__(self) -> str:
        return self.name


Item = str | Value | Values | Rows
Shape = tuple[Item, ...]

_TAME = ("{m}", "a {m}", "({m}, 5)", "é{m}", "{m};", "{m} in (1")
_WILD = (*_TAME, "-- {m}", "{m} /* ", "{m} */", "#{m}", "$$ {m}", "{m}\n")
_NUMBERS = ("9173", "9173.25", "9173e5", "9173.5E-3", "9173e+12")

MYSQL = Dialect(
    "mysql",
    ("a", "t1", "`b`", "`C d`", "u.v", "`u`.`w`", "x_9", "2024_t", "@v"),
    {
        "single": tuple(f"'{text}'" for text in _TAME),
        "double": tuple(f'"{text}"' for text in _TAME),
        "national": ("N'{m}'", "n'{m}'"),
        "introduced": ("_utf8mb4'{m}'", "_binary'{m}'"),
        "hexadecimal": (f"0x{_HEX}", f"x'{_HEX}'", f"X'{_HEX}'"),
        "bits": ("b'0110'", "B'01'", "0b011"),
        "number": _NUMBERS,
    },
    {
        "wild single": tuple(f"'{text}'" for text in (*_WILD, "it''s {m}", '"{m}', "`{m}")),
        "wild double": tuple(f'"{text}"' for text in (*_WILD, 'a""{m}', "it's {m}")),
    },
    {
        "escaped": (r"'it\'s {m}'", r"'{m}\\'", r"'\\\'{m}'", r"'{{\"k\": \"{m}\"}}'", r"'\n{m}\0'"),
        "escaped double": (r'"\"{m}"', r'"{m}\\"', r'"{m}\"\"\\\n"'),
    },
    ("/* {m} */", "-- {m}\n", "# {m}\n"),
    ("/* it's {m} */", "# it's {m}\n", "/*/ {m} */", "/*{m} -- */", '-- "{m}\n'),
)
POSTGRES = Dialect(
    "postgres",
    ("a", "t1", '"b"', '"C d"', "u.v", '"u"."it\'s"', "x_9", "d$e", "é"),
    {
        "single": tuple(f"'{text}'" for text in (*_WILD, "it''s {m}", '"{m}', r"a\b{m}", r"{m}\\")),
        "escaped": (r"E'it\'s {m}'", r"e'{m}\\'", r"E'it''s \'{m}'"),
        "dollar": ("$${m}$$", "$$it's {m}$$", "$t$ $$ {m} ' $t$", "$t_1$ $t$ {m} $t_1$"),
        "national": ("N'{m}'",),
        "hexadecimal": (f"X'{_HEX}'", f"0x{_HEX}"),
        "bits": ("B'0110'", "b'01'"),
        "number": _NUMBERS,
    },
    {},
    {},
    ("/* {m} */", "/* it's {m} */", "-- it's {m}\n", "/* a /* {m} */ ' */", "/*{m} -- */"),
    (),
)
DIALECTS = (MYSQL, POSTGRES)
_CASES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, str.title, str.swapcase)


def shapes(dialect: Dialect, *, with_lists: bool = True) -> st.SearchStrategy[Shape]:
    """Statements with one to three conditions, or that insert rows."""
    name = st.sampled_from(dialect.names)
    operator = st.sampled_from(["=", "<>", "<", ">=", "+", "*", "LIKE", "<=", "IS NOT DISTINCT FROM"])
    compared = st.tuples(name, operator, st.just(Value()))
    between = name.map(lambda column: (column, "BETWEEN", Value(), "AND", Value()))
    called = name.map(lambda column: ("COALESCE", "(", column, ",", Value(), ",", Value(), ")", "=", column))
    listed = st.tuples(name, st.sampled_from(["IN", "NOT IN"]), st.just("("), st.just(Values()), st.just(")"))
    condition = compared | between | called | listed if with_lists else compared | between | called

    def where(conditions: list[tuple[Item, ...]], column: str, table: str) -> Shape:
        joined = [item for found in conditions for item in ("AND", *found)][1:]
        return ("SELECT", column, ",", Value(), "FROM", table, "WHERE", *joined, "ORDER BY", column, "LIMIT", Value())

    selected = st.builds(where, st.lists(condition, min_size=1, max_size=3), name, name)
    inserted = st.builds(
        lambda table, columns: ("INSERT INTO", table, "VALUES", Rows(columns)), name, st.integers(1, 3)
    )
    return selected | inserted if with_lists else selected


@st.composite
def texts(draw: st.DrawFn, dialect: Dialect, shape: Shape, *, is_sure: bool = True) -> str:
    """One rendering. `is_sure`: no server can read it in another way; else wild things may stand beside escapes."""
    literals, comments = dialect.literals, (*dialect.comments, *dialect.wild_comments)
    if is_sure and draw(st.booleans()):
        literals, comments = {**dialect.tame, **dialect.escapes}, dialect.comments
    elif is_sure:
        literals = {**dialect.tame, **dialect.wild}
    value = st.sampled_from(sorted(literals)).flatmap(lambda kind: st.sampled_from(literals[kind]))
    space = st.sampled_from([" ", " ", " ", "\n", "\t ", "  "])
    between = space | st.sampled_from(comments).map(lambda text: f" {text} ")
    words = draw(st.sampled_from(_CASES))

    def several(most: int) -> list[str]:
        return draw(st.lists(value, min_size=1, max_size=most))

    parts: list[str] = []
    for item in shape:
        if isinstance(item, Value):
            parts.append(draw(value))
        elif isinstance(item, Values):
            parts.append(draw(st.sampled_from([",", ", ", " ,\n"])).join(several(6)))
        elif isinstance(item, Rows):
            rows = draw(st.integers(1, 4))
            fill = [[draw(value) for _ in range(item.columns)] for _ in range(rows)]
            parts.append(draw(st.sampled_from([",", ", "])).join(f"({', '.join(row)})" for row in fill))
        else:
            parts.append(words(item) if item.isupper() else item)
    text = parts[0]
    for part in parts[1:]:
        text += draw(between) + part
    return text.replace("{{", "{").replace("}}", "}").replace("{m}", MARKS[0])
