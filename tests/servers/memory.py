"""How much memory this process has held at most."""

from __future__ import annotations

from pathlib import Path


def peak_kib() -> int:
    """Since the program began. Not ru_maxrss, which a child takes over from the process that started it."""
    return kib("VmHWM")


def kib(name: str) -> int:
    """What the kernel says under that name, as in `VmRSS`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))
