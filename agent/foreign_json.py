"""JSON that somebody else wrote, within bounds: what is malformed, too deep, or would unfold in memory is no JSON here.

Pure. How long a text may be is for whoever receives it to say.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import orjson

MAX_PARTS = 100_000  # an empty object takes 64 bytes in memory and 3 on the wire
MAX_DEPTH = 32  # what is deeper can be parsed, but ends whatever prints, compares or copies it
# A text that is not closed reaches to the end: so each byte is looked at once, whatever is sent.
_PART = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z|\\\Z)|[,\[{]', re.DOTALL)


def loads(text: bytes, *, parts: int = MAX_PARTS) -> Any:
    """What the text says. Raises ValueError, also for more than `parts` texts, commas and brackets, or more than
    MAX_DEPTH levels."""
    if len(text) > parts and next(islice(_PART.finditer(text), parts, None), None) is not None:
        raise ValueError(f"it has more than {parts:,} parts")
    found = orjson.loads(text)
    if is_deeper(found, MAX_DEPTH):
        raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
    return found


def is_deeper(value: object, levels: int) -> bool:
    """Whether objects and lists stand in one another more than so many levels deep."""
    inside = [value]
    for _ in range(levels):
        inside = [each for one in inside for each in _children(one)]
    return bool(inside)


def _children(value: object) -> list[object]:
    """The objects and lists right below."""
    if isinstance(value, dict):
        return [each for each in value.values() if isinstance(each, dict | list)]
    return [each for each in value if isinstance(each, dict | list)] if isinstance(value, list) else []
