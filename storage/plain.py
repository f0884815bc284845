"""Text that somebody else wrote, as it may be shown: on one line, bounded, and without a sign that a terminal obeys.

Servers, backends and whoever stands in between write what ends up in logs, tables and heartbeats. Knows nothing else.
"""

from __future__ import annotations

import re

_ELLIPSIS = "..."
# What JSON leaves as it is and a terminal may obey, or an eye does not see: C1 controls, marks of direction and width.
_HIDDEN_IN_JSON = re.compile("[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def plain(text: str, at_most: int | None = None) -> str:
    """The text with a space for every kind of white space and `?` for what cannot be printed, cut at `at_most`
    characters."""
    if at_most is not None and len(text) > at_most:
        text = text[: max(0, at_most - len(_ELLIPSIS))] + _ELLIPSIS
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def plain_json(text: str) -> str:
    """JSON, as a serializer wrote it, that says the same in signs that can be printed; its line ends stay."""
    return _HIDDEN_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
