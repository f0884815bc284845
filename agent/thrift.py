"""Makes the C library give freed memory back: the agent runs for years beside a database."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# glibc's mallopt: names from malloc.h. Elsewhere there is no such thing, and nothing is done.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 65_536


def be_thrifty() -> bool:
    """One heap for all threads, and of it no more than 64 KiB kept when it is free; whether that was taken.

    To be called before the first thread begins. Python runs one thread at a time, so one heap holds up nobody.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        options = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _KEPT_BYTES), (_MMAP_THRESHOLD, _KEPT_BYTES))
        return all(mallopt(option, value) == 1 for option, value in options)
    return False
