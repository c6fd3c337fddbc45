"""When a task that works at intervals goes on: at its time, or at once when something comes that cannot wait for it.

Nothing is looked at meanwhile: twenty looks a second at what is due cost a lease as much as its fetches.
"""

from __future__ import annotations

import asyncio
from math import inf

LEAST_WAIT = 0.001  # seconds: uvloop's timers are whole milliseconds, and less would be none
LONGEST_BREATH = 0.05  # seconds


class Alarm:
    """Wakes the one task that waits for it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.waiting = False

    def ring(self) -> None:
        """Go on at once; if nobody waits now, the next wait ends at once."""
        self._rung.set()

    async def wait(self, seconds: float = inf) -> None:
        """Until it rings; `seconds` at most, which may be none."""
        loop = asyncio.get_running_loop()
        timer = None if seconds == inf else loop.call_later(max(LEAST_WAIT, seconds), self._rung.set)
        self.waiting = True
        try:
            await self._rung.wait()
        finally:
            self.waiting = False
            self._rung.clear()
            if timer is not None:
                timer.cancel()


def breath(interval: float) -> float:
    """Seconds that who works at this interval lets others have, however late it is."""
    return min(LONGEST_BREATH, interval / 10)
