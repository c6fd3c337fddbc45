"""The servers of one destination: one is in use, and the next takes over when it does not answer."""

from __future__ import annotations

from collections.abc import Sequence


class Endpoints:
    """Begins with the first of `urls`. Requests under way together move on once, not once each."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls, self._index = [url.rstrip("/") for url in urls], 0

    @property
    def current(self) -> str:
        """The one in use."""
        return self._urls[self._index]

    def failed(self, url: str) -> None:
        """`url` does not answer: use the next one, unless another request has found that out already."""
        if url == self.current:
            self._index = (self._index + 1) % len(self._urls)
