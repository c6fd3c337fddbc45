"""The servers of one destination: one is in use, and the next takes over when it does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

LONGEST_RETRY_AFTER = 300.0  # seconds: one wrong header must not stop a sink for a day


class Endpoints:
    """Begins with the first of `urls`. Requests under way together move on once, not once each.

    `clock`: monotonic seconds.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._urls, self._index = [url.rstrip("/") for url in urls], 0
        self._clock, self._free_at = clock, dict.fromkeys(self._urls, 0.0)

    @property
    def current(self) -> str:
        """The one in use."""
        return self._urls[self._index]

    def failed(self, url: str, retry_after: float | None = None) -> float | None:
        """`url` does not answer: use the next one, unless another request has found that out already.

        One that asked to be left alone for so many seconds is passed over meanwhile, whatever else fails there; when
        all of them did, the one that may be asked first is next. Returns how long to wait for the one in use now, if it
        asked for that.
        """
        now = self._clock()
        self._free_at[url] = max(self._free_at[url], now + min(retry_after or 0.0, LONGEST_RETRY_AFTER))
        if url == self.current:
            others = self._urls[self._index + 1 :] + self._urls[: self._index + 1]
            self._index = self._urls.index(min(others, key=lambda other: max(now, self._free_at[other])))
        if url == self.current and retry_after is not None:
            return retry_after
        left = self._free_at[self.current] - now
        return left if left > 0 else None
