"""What the fault tests share: the recorder, compiled once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import recorder
from tests.faults.damage import make_plays
from tests.faults.played import Play
from tests.faults.power_cuts import Laboratory, Recording, place_in_memory
from tests.faults.recorder import CompilerMissing


@pytest.fixture(scope="session")
def recorder_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`recorder.c` as a library."""
    return _built(tmp_path_factory, recorder.SOURCE)


@pytest.fixture(scope="session")
def slow_sync_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`slow_sync.c` as a library."""
    return _built(tmp_path_factory, recorder.SOURCE.with_name("slow_sync.c"))


def _built(factory: pytest.TempPathFactory, source: Path) -> Path:
    # Without a compiler the tests fail where everything must be there (CI=true).
    try:
        return recorder.build(factory.mktemp(source.stem), source)
    except CompilerMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a compiler: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own, in memory where there is such a place."""
    with place_in_memory() as path:
        yield path


@pytest.fixture(scope="session")
def bench(recorder_library: Path) -> Iterator[Laboratory]:
    """Where power is cut."""
    with place_in_memory() as path:
        yield Laboratory(path, recorder_library)


@pytest.fixture(scope="session")
def life(bench: Laboratory) -> Recording:
    """The whole life of an outbox, recorded."""
    return bench.record()


@pytest.fixture(scope="session")
def plays() -> Iterator[list[Play]]:
    """Outboxes with a past, two of each kind."""
    with place_in_memory() as path:
        yield make_plays(path, 1, 2)
