"""What could go wrong: a server that answers nonsense ends the thread of its watch, again and again; a defect of ours
somewhere else is taken for that; our own errors, a stop or a full memory are hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.source_errors import AnswerSenseless, DatabaseAway
from agent.sources._understood import understood

NOTHING: dict[str, object] = {}
ROW: list[object] = [1]


@pytest.mark.parametrize(
    "reading",
    [
        lambda: int(b"abc"),
        lambda: NOTHING["Uptime"],
        lambda: ROW[3],
        lambda: None + 1,  # type: ignore[operator]
        lambda: b"\xff".decode("ascii"),
        lambda: int(float("inf")),
        lambda: 1 / 0,
        lambda: "x".missing,  # type: ignore[attr-defined]
    ],
)
def test_what_cannot_be_understood_is_an_error_of_the_server_with_its_place(reading: Callable[[], object]) -> None:
    with (
        pytest.raises(AnswerSenseless, match=r"cannot be understood \(\w+ in test_understood\.py, line \d+\)"),
        understood(),
    ):
        reading()


def test_it_is_also_a_decorator_and_gives_what_was_understood() -> None:
    @understood()
    def number(text: bytes) -> int:
        return int(text)

    assert [number(b"5"), number(b"6")] == [5, 6]
    with pytest.raises(AnswerSenseless):
        number(b"x")


@pytest.mark.parametrize("error", [DatabaseAway("x"), KeyboardInterrupt(), MemoryError(), OSError(), RuntimeError("x")])
def test_everything_else_goes_through(error: BaseException) -> None:
    with pytest.raises(type(error)), understood():
        raise error


def test_it_shows_nothing_of_what_was_said() -> None:
    with pytest.raises(AnswerSenseless) as raised, understood():
        int(b"S3CR3T")
    assert "S3CR3T" not in str(raised.value)
