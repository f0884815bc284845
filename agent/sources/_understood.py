"""What a database said, taken for what it should be; where it is not that, one of our errors comes of it.

A server is somebody else: a proxy, an impostor, or one whose log a person has altered. For the places where its words
are turned into ours, and for nothing else: a defect anywhere else has to end in its thread, with its traceback.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.source_errors import AnswerSenseless


@contextmanager
def understood() -> Iterator[None]:
    """Around what reads values that a server has sent; also as a decorator. Raises AnswerSenseless."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise AnswerSenseless(f"it cannot be understood ({type(error).__name__} in {where})") from None
