"""How long a fetch waits for data: until shortly before somebody commits what it brings.

An answer costs both sides about the same whatever is in it, and so does each partition in it. What is read between two
commits becomes visible with the second one, so it need not be there before: it is enough that a fetch ends right before
each commit. aiokafka takes the wait for a constant; what it is given here is asked again with each request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import isfinite

FETCH_WAIT = 0.1  # seconds at most, of what commits at no time that is known
FETCH_SHARE = 0.1  # of the time that records may wait a fetch waits for more
FETCH_LEAST = 0.005  # seconds, however great the hurry
LONGEST = 0.25  # seconds and share of the interval: a partition that is resumed waits for the fetch that is under way
LEAD, LEAD_SHARE = 0.03, 0.2  # seconds, and at most a share of the interval: to take what came apart before the commit


class FetchWait:
    """Milliseconds, as an integer that is asked for when a request is written.

    `interval`: seconds that records may wait. `due`: when each commit comes, in the seconds of `clock`, if it is known.
    """

    def __init__(
        self,
        interval: float,
        due: Callable[[], Iterable[float]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._due, self._clock = due, clock
        self.follow(interval)

    def follow(self, interval: float) -> None:
        """Records may wait for so many seconds from now on."""
        self.least = max(FETCH_LEAST, min(FETCH_WAIT, FETCH_SHARE * interval))
        self._longest = max(self.least, LONGEST * min(1.0, interval))
        self._lead = min(LEAD, LEAD_SHARE * interval)

    def seconds(self) -> float:
        """Until the first commit that is not too near; what commits sooner is served by the fetch before.

        So there are never more fetches than with the least wait, and nothing is older when it is committed.
        """
        if not (due := [at for at in self._due() if isfinite(at)]):
            return self.least
        now = self._clock() + self._lead
        return min((at - now for at in due if at - now >= self.least), default=self._longest)

    def __index__(self) -> int:
        return int(min(self.seconds(), self._longest) * 1000)
