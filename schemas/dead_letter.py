"""A record that could not be handled: its bytes and why, as `dlq` holds it.

The value is the raw bytes (a single span or log inside a message: that row alone, wrapped as a message of its own,
so that it can be replayed; more than MOST_ALONE of them, bad for one reason, are one letter: copies of their headers
would make a hundred MB of a message of a hundred KB). Headers: topic, partition, offset, timestamp, index, stage,
reason, detail; encoding where it is not what the topic's other records have (a row that was wrapped as OTLP).

A letter that was sent in again has a receipt in the same topic: no value, the letter's key, and headers that say where
it went and how often these bytes have been sent by now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

MOST_ALONE = 16  # rows of one message and reason that have letters of their own: each takes its headers along
MOST_COPIED = 1 << 20  # bytes of these headers, all copies together

T = TypeVar("T")
KEPT_OF_TOO_LARGE = 64 << 10  # bytes kept of what is larger than the queue takes
DETAIL_CHARACTERS = 1000
REPLAYED = "replayed"  # the header that tells a receipt from a letter
OTLP = "otlp_proto"  # the encoding of rows that were wrapped
_CUT = re.compile(r"\(first 64 KiB of (\d+) bytes, sha256 [0-9a-f]{64}\)$")
_HIDDEN = re.compile(r"\(none of (\d+) bytes: redaction\)$")

Headers = Sequence[tuple[str, bytes]]


def grouped(rows: Sequence[T], copied: Callable[[T], int] = lambda _: 0) -> list[Sequence[T]]:
    """Rows of one message and reason as they become letters: each alone, or all together.

    `copied` are the bytes of a row's headers, of which a letter of its own has a copy.
    """
    if len(rows) <= MOST_ALONE and (len(rows) == 1 or sum(map(copied, rows)) <= MOST_COPIED):
        return [[row] for row in rows]
    return [rows]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Coordinates are those of the raw record; `index` is the row inside it, the first of `rows`.

    `encoding` is that of the value, empty for that of its topic.
    """

    value: bytes
    topic: str
    partition: int
    offset: int
    timestamp: int
    index: int
    stage: str
    reason: str
    detail: str = ""
    encoding: str = ""
    rows: int = 1

    def key(self) -> bytes:
        """The same letter always has the same key, so a replay can recognise repetitions.

        One of several rows has another one than that of its first row alone: a sink may have put both into the queue.
        """
        several = f"+{self.rows}" if self.rows > 1 else ""
        return f"{self.topic}/{self.partition}/{self.offset}/{self.index}{several}".encode()

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
            "detail": self.detail[:DETAIL_CHARACTERS],
        }
        if self.encoding:
            fields["encoding"] = self.encoding
        if self.rows > 1:
            fields["rows"] = self.rows
        return [(name, str(value).encode()) for name, value in fields.items()]

    @classmethod
    def read(cls, value: bytes, headers: Headers) -> DeadLetter:
        """The inverse of `headers`. Raises ValueError for a record that is no dead letter."""
        found = {name: text.decode("utf-8", "replace") for name, text in headers}
        try:
            partition, offset, timestamp, index = (int(found[n]) for n in ("partition", "offset", "timestamp", "index"))
            texts = found["stage"], found["reason"], found.get("detail", ""), found.get("encoding", "")
            rows = int(found.get("rows", 1))
            return cls(value, found["topic"], partition, offset, timestamp, index, *texts, rows)
        except KeyError as missing:
            raise ValueError(f"no header {missing}") from None

    def fitted(self, limit: int) -> DeadLetter:
        """Itself, or beyond `limit` bytes the first 64 KiB with size and SHA-256 in the detail."""
        if len(self.value) <= limit:
            return self
        cut = f"(first 64 KiB of {len(self.value)} bytes, sha256 {hashlib.sha256(self.value).hexdigest()})"
        detail = f"{self.detail[: DETAIL_CHARACTERS - len(cut) - 1]} {cut}".strip()
        return replace(self, value=self.value[:KEPT_OF_TOO_LARGE], detail=detail)

    @property
    def cut_from(self) -> int | None:
        """How many bytes it had before `fitted` cut it or `hidden` emptied it; None for one that is whole."""
        found = _CUT.search(self.detail) if len(self.value) == KEPT_OF_TOO_LARGE else None
        found = _HIDDEN.search(self.detail) if not self.value else found
        return int(found[1]) if found else None


def hidden(value: bytes, detail: str) -> tuple[bytes, str]:
    """Value and detail of a letter for bytes that nobody may see: they are in the raw topic alone."""
    if not value:
        return value, detail
    gone = f"(none of {len(value)} bytes: redaction)"
    return b"", f"{detail[: DETAIL_CHARACTERS - len(gone) - 1]} {gone}".strip()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A letter was sent in again: `place` is its own in the queue, `topic`/`partition`/`offset` where it went.

    `replays` counts how often the same bytes have been sent in by now.
    """

    key: bytes
    origin: str
    stage: str
    reason: str
    place: str
    topic: str
    partition: int
    offset: int
    replays: int

    @property
    def why(self) -> tuple[str, str, str]:
        """Topic, stage and reason of the letter."""
        return self.origin, self.stage, self.reason

    @property
    def identity(self) -> tuple[str, bytes]:
        """Stage and key of the letter."""
        return self.stage, self.key

    def headers(self) -> list[tuple[str, bytes]]:
        """Record headers, all UTF-8 text. `origin` is the topic that the letter names."""
        fields = {
            REPLAYED: self.place,
            "topic": self.origin,
            "stage": self.stage,
            "reason": self.reason,
            "to": f"{self.topic}/{self.partition}/{self.offset}",
            "replays": self.replays,
        }
        return [(name, str(value).encode()) for name, value in fields.items()]

    @classmethod
    def read(cls, key: bytes, headers: Headers) -> Receipt | None:
        """The inverse of `headers`; None for a record that is no receipt."""
        found = {name: text.decode("utf-8", "replace") for name, text in headers}
        if REPLAYED not in found:
            return None
        topic, partition, offset = found["to"].rsplit("/", 2)
        texts = found["topic"], found["stage"], found["reason"], found[REPLAYED]
        return cls(key, *texts, topic, int(partition), int(offset), int(found["replays"]))
