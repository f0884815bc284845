"""Classes of characters for patterns. All that is not ASCII may stand in a name, for every server.

They are written as the ASCII characters that they do not hold: a class that ends at the last character there is takes
the engine a hundred times as long to compile.
"""

from __future__ import annotations

import re
import string

LETTERS = string.ascii_letters + "_"
WORD = LETTERS + string.digits + "$"


def any_of(characters: str) -> str:
    """Matches one of these, or what is not ASCII."""
    return "[^" + _others(characters) + "]"


def none_of(characters: str) -> str:
    """Matches what `any_of` does not."""
    return "[" + _others(characters) + "]"


def _others(characters: str) -> str:
    return "".join(re.escape(each) for each in map(chr, range(128)) if each not in characters)
