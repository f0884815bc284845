"""Keeps the memory of this process out of files: it holds the passwords of databases and the key of the backend."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

_SET_DUMPABLE = 4  # prctl's PR_SET_DUMPABLE, from linux/prctl.h


def forbid_core_dumps() -> bool:
    """No crash leaves a core, and no other process of this user may read our memory; whether the kernel agreed.

    The limit alone would not do where cores go to a program: systemd raises it for every service.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    return False
