"""What is said, or looked at, once in so many seconds however often there is reason to."""

from __future__ import annotations

from collections.abc import Hashable


class Seldom:
    """Remembers when each thing was due last; of what there are few."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[Hashable, float] = {}

    def due(self, now: float, what: Hashable = None) -> bool:
        """Whether it is time for this again, at once if it never was; then the seconds count from `now`."""
        last = self._last.get(what)
        if last is not None and now - last < self._seconds:
            return False
        self._last[what] = now
        return True
