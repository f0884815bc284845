"""What a body says of itself when its row is damaged: its topic, and how many records it holds."""

from __future__ import annotations

import gzip
import json
import zlib

from storage.envelope import COMMAND_RESULT, QUERIES


def describe(packed: bytes) -> tuple[str, int] | None:
    """Topic and number of records of a packed body; None when it is damaged or none of ours."""
    try:
        content = json.loads(gzip.decompress(packed))
        return (COMMAND_RESULT, 1) if "command_id" in content else (QUERIES, len(content["queries"]))
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError):
        return None
