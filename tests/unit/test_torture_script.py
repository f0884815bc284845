"""What could go wrong with scripts/torture: it ends with 0 although something was lost or could not be played; the seed
that it prints is not the one it plays with; one part that breaks keeps the others from being played.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from agent.dev.server_process import DevServerError
from agent.logs import LOGGER
from scripts import torture
from scripts.torture import PARTS, Part

FINE = {"tries": 7, "lost": 0, "doubled": 3, "invented": 0, "torn": 0}


class Played(ModuleType):
    """A module with a torture that gives these counts or raises this."""

    def __init__(self, outcome: dict[str, int] | BaseException) -> None:
        super().__init__("played")
        self.outcome = outcome
        self.calls: list[tuple[int, int]] = []

    def torture(self, size: int, seed: int, progress: Callable[[int], None]) -> dict[str, int]:
        """As the real ones."""
        self.calls.append((size, seed))
        for done in range(1, size + 1):
            progress(done)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def heard_again() -> Iterator[None]:
    """The program says nothing of what agents say; other tests want to hear it."""
    handlers, propagate = LOGGER.handlers[:], LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.propagate = handlers, propagate


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Played]:
    """Two parts of 200, fine until a test says otherwise."""
    made = {name: Played(FINE) for name in ("power-cuts", "kills")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, f"played.{name}", module)
        part = Part(f"played.{name}", 200, "tries", 3, 1, ("lost",), ("doubled",), ("invented",), ("torn",))
        monkeypatch.setitem(PARTS, name, part)
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(torture.main, ["--only", "power-cuts", "--only", "kills", *words])


def test_what_is_fine_ends_with_0_and_a_table(parts: dict[str, Played]) -> None:
    done = run("--seed", "7", "--scale", "0.1")
    assert done.exit_code == 0
    assert [module.calls for module in parts.values()] == [[(20, 7)], [(20, 7)]]
    assert "--seed 7 --scale 0.1" in done.stderr
    assert done.stderr.count("power-cuts: ") == 10
    assert "power-cuts: 2 of 20\n" in done.stderr
    assert done.stdout.count("✓") == 2


@pytest.mark.parametrize("count", ["lost", "invented", "torn"])
def test_one_that_is_lost_invented_or_torn_ends_with_1(parts: dict[str, Played], count: str) -> None:
    parts["power-cuts"].outcome = {**FINE, count: 1}
    done = run("--json")
    told = json.loads(done.stdout)["parts"]
    assert (done.exit_code, [part["failure"] for part in told]) == (1, [f"{count}: 1", ""])


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (AssertionError("r1 is gone\nand more"), "broken: r1 is gone"),
        (DevServerError("no server"), "not played: no server"),
    ],
)
def test_a_part_that_breaks_ends_with_1_and_the_others_are_played(
    parts: dict[str, Played], error: BaseException, failure: str
) -> None:
    parts["power-cuts"].outcome = error
    done = run("--json")
    first, second = json.loads(done.stdout)["parts"]
    assert (done.exit_code, first["failure"], second["failure"]) == (1, failure, "")
    assert [len(module.calls) for module in parts.values()] == [1, 1]


def test_a_new_seed_is_the_one_that_is_told(parts: dict[str, Played]) -> None:
    seeds = set()
    for _ in range(3):
        told = json.loads(run("--json").stdout)
        assert parts["kills"].calls[-1] == (200, told["seed"])
        seeds.add(told["seed"])
    assert len(seeds) == 3


def test_the_smallest_scale_plays_what_makes_sense(parts: dict[str, Played]) -> None:
    assert run("--scale", "0.00001").exit_code == 0
    assert parts["kills"].calls[0][0] == 3


@pytest.mark.parametrize("words", [["--scale", "0"], ["--scale", "-1"], ["--only", "dance"], ["--seed", "x"]])
def test_a_usage_error_plays_nothing(parts: dict[str, Played], words: list[str]) -> None:
    assert (run(*words).exit_code, parts["kills"].calls) == (2, [])


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_part_is_there(part: Part) -> None:
    names = list(inspect.signature(import_module(part.module).torture).parameters)
    assert names[1:3] == ["seed", "progress"]
