"""A record that could not be handled: its bytes and why, as `dlq` holds it.

The value is the raw bytes (a single span or log inside a message: that row alone, wrapped as a message of its own,
so that it can be replayed; more than MOST_ALONE of them, bad for one reason, are one letter: copies of their headers
would make a hundred MB of a message of a hundred KB). Headers: topic, partition, offset, timestamp, index, stage,
reason, detail.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MOST_ALONE = 16  # rows of one message and reason that have letters of their own: each takes its headers along
KEPT_OF_TOO_LARGE = 64 << 10  # bytes kept of what is larger than the queue takes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Coordinates are those of the raw record; `index` is the row inside it, the first of several."""

    value: bytes
    topic: str
    partition: int
    offset: int
    timestamp: int
    index: int
    stage: str
    reason: str
    detail: str = ""

    def key(self) -> bytes:
        """The same letter always has the same key, so a replay can recognise repetitions."""
        return f"{self.topic}/{self.partition}/{self.offset}/{self.index}".encode()

    def headers(self) -> list[tuple[str, bytes]]:
        """Record headers, all UTF-8 text."""
        fields = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
            "index": self.index,
            "stage": self.stage,
            "reason": self.reason,
            "detail": self.detail[:1000],
        }
        return [(name, str(value).encode()) for name, value in fields.items()]

    def fitted(self, limit: int) -> DeadLetter:
        """Itself, or beyond `limit` bytes the first 64 KiB with size and SHA-256 in the detail."""
        if len(self.value) <= limit:
            return self
        digest = hashlib.sha256(self.value).hexdigest()
        detail = f"{self.detail} (first 64 KiB of {len(self.value)} bytes, sha256 {digest})".strip()
        return DeadLetter(
            self.value[:KEPT_OF_TOO_LARGE],
            self.topic,
            self.partition,
            self.offset,
            self.timestamp,
            self.index,
            self.stage,
            self.reason,
            detail,
        )
