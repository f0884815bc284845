"""What time it is. Handed in everywhere, so that no test waits and no wall clock steers a schedule."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock. Tests hand in one that they turn themselves."""

    def now(self) -> datetime:
        """Aware UTC; may jump."""
        return datetime.now(UTC)

    def unix(self) -> float:
        """Seconds since 1970; may jump."""
        return self.now().timestamp()

    def monotonic(self) -> float:
        """Seconds that never go back; the only measure for intervals."""
        return time.monotonic()
