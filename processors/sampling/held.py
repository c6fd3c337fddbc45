"""What lies between the tail and the head of each feed: the oldest of it in memory, the rest to be read again.

The head never stops for the memory: what does not fit is left out, and the tail asks for it when it comes by. Records
are envelopes of ingest or batches of raw records; positions are the next offset to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.raw_batch import RawBatch

REFILL_SHARE = 4  # a part of the limit that must be free before anything is taken, once it was reached
WHOLE_SHARE = 4  # a part of the limit for raw batches that are unpacked: what else has to wait is packed

Value = bytes | RawBatch
"""What a record holds: an envelope as ingest wrote it, or raw records."""


@dataclass(slots=True)
class Cursor:
    """The two positions in one feed, and the records between them as far as memory allows.

    `cached` holds (offset, append time, value) in order. `gaps` are the stretches [first, after) between tail and head
    that it has not: they are read again when the tail stands before them. The first `again` records were read again;
    `cut`: not up to the end of their stretch. `passed` is the append time of the last record that the tail has passed.
    """

    tail: int
    head: int
    counted: int = 0
    passed: int | None = None
    cached: deque[tuple[int, int, Value]] = field(default_factory=deque)
    gaps: deque[tuple[int, int]] = field(default_factory=deque)
    again: int = 0
    cut: bool = False

    def gap(self) -> tuple[int, int] | None:
        """The stretch that the tail stands before, if it is not in memory."""
        if self.gaps and (not self.cached or self.gaps[0][0] <= self.cached[0][0]):
            return self.gaps[0]
        return None

    def next(self) -> tuple[int, int, Value] | None:
        """The record that the tail stands before, if it is in memory."""
        return self.cached[0] if self.cached and self.gap() is None else None

    def oldest(self) -> int | None:
        """Append time of the record that the tail stands before, or of the one before it; None: it has passed all."""
        return self._appended() if self.next() else self.passed if self.tail < self.head else None

    def skip(self) -> None:
        """Where no record is left before a gap or the head the tail stands there: markers are no records."""
        if self.next() is None:
            self.tail = max(self.tail, self.gaps[0][0] if self.gaps else self.head)

    def pop(self) -> Value:
        """The tail passes the record that it stands before."""
        self.passed = self._appended()
        offset, _, value = self.cached.popleft()
        self.tail = _after(offset, value)
        return value

    def _appended(self) -> int:
        """The append time of the oldest record in memory; a raw record says it itself, at least to retention."""
        _, append, value = self.cached[0]
        return value.rows.messages[0][1] if isinstance(value, RawBatch) else append


class Held:
    """The cursors of a window, and the bytes that they hold: at most `limit`, which as many as share it may change."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.cursors: dict[str, Cursor] = {}  # by feed
        self._kept = self._again = 0  # bytes that were kept from the head on, and read again
        self._whole = 0  # of what is kept: raw batches that are not packed
        self._was_full = False

    @property
    def bytes(self) -> int:
        """Of records in memory."""
        return self._kept + self._again

    def add(self, cursor: Cursor, offset: int, append: int, value: Value, waits: bool) -> None:
        """The head passes its next record: keep it, or leave it out. A raw batch that `waits` for long may be packed.

        Once the limit was reached nothing is kept until a part of it is free, so that stretches are worth a read each.
        """
        after, most = _after(offset, value), self.limit
        self._was_full = self._kept >= (most - most // REFILL_SHARE if self._was_full else most)
        if not self._was_full:
            if isinstance(value, RawBatch):
                shrinks = waits and self._whole + value.size > most // WHOLE_SHARE
                value = value.shrunk() if shrinks else value.whole()
            cursor.cached.append((offset, append, value))
            self._kept += size_of(value)
            self._whole += _whole_size(value)
        elif cursor.gaps and cursor.gaps[-1][1] == cursor.head:
            cursor.gaps[-1] = cursor.gaps[-1][0], after
        else:
            cursor.gaps.append((cursor.head, after))
        cursor.head = after

    def pop(self, cursor: Cursor) -> None:
        """The tail passes the record that it stands before."""
        value = cursor.pop()
        if cursor.again:
            cursor.again -= 1
            self._again -= size_of(value)
        else:
            self._kept -= size_of(value)
            self._whole -= _whole_size(value)

    def wanted(self) -> dict[str, tuple[int, int]]:
        """Feeds whose tail stands before what is not in memory, and what has to be read again; the oldest first."""
        found = {feed: gap for feed, cursor in self.cursors.items() if (gap := cursor.gap()) is not None}
        return dict(sorted(found.items(), key=lambda item: self.cursors[item[0]].passed or 0))

    def reread(self, feed: str, records: Sequence[tuple[int, int, Value]], position: int) -> int:
        """Records (offset, append, value) of the stretch that was wanted, `position` follows them; how many counted."""
        cursor = self.cursors[feed]
        first, after = cursor.gaps.popleft()
        again = [record for record in records if first <= record[0] < after]
        cursor.cached.extendleft(reversed(again))
        cursor.again, cursor.cut = len(again), position < after
        self._again += sum(size_of(value) for _, _, value in again)
        if cursor.cut:
            cursor.gaps.appendleft((position, after))
        return sum(len(value.rows.messages) if isinstance(value, RawBatch) else 1 for _, _, value in again)

    def reads_on(self) -> bool:
        """Whether the tail stands before a stretch that is there to be read for long, not one that is just coming."""
        cursors = self.cursors.values()
        return any((gap := each.gap()) is not None and (each.cut or gap[1] < each.head) for each in cursors)

    def heads(self) -> tuple[int, ...]:
        """Where they are, in the order of the feeds."""
        return tuple(cursor.head for cursor in self.cursors.values())

    def tails(self) -> tuple[int, ...]:
        """Where they are, in the order of the feeds."""
        return tuple(cursor.tail for cursor in self.cursors.values())


def size_of(value: Value) -> int:
    """Bytes in memory."""
    return value.size if isinstance(value, RawBatch) else len(value)


def _after(offset: int, value: Value) -> int:
    """The position behind a record."""
    return value.after if isinstance(value, RawBatch) else offset + 1


def _whole_size(value: Value) -> int:
    """Bytes of a raw batch that is not packed; 0 of anything else."""
    return value.size if isinstance(value, RawBatch) and not value.is_shrunk else 0
