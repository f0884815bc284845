"""What the tests of single modules share."""

import logging
from collections.abc import Iterator

import pytest

from agent.logs import LOGGER


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """The log goes to the captured standard error, which ends with the test."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    last_resort = logging.lastResort
    yield
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers[:], LOGGER.propagate, logging.lastResort = handlers, propagate, last_resort
    LOGGER.setLevel(level)
    logging.captureWarnings(capture=False)
