"""A partition's log of verdicts as its owner writes it: what the next record has, and where a new owner begins to read.

It reads from the last full checkpoint on, or from before that as long as verdicts there can still be met.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, replace

from schemas.decision import DROPPED, Checkpoint, DecisionRecord, Verdict

DECISION_BYTES = 1 << 20  # of verdicts in one record: a clock that was held up may make millions of traces due at once
DECISION_OVERHEAD = 24  # bytes of a verdict without names: key, time, and what msgpack adds
KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Segment:
    """One record: its offset, the newest stream time in it, where the heads stood when it was made."""

    offset: int
    newest: int
    full: bool
    heads: tuple[int, ...]

    def is_over(self, horizon: int, tails: tuple[int, ...]) -> bool:
        """Whether no row that meets its verdicts can still come, be it late or between tail and head."""
        return self.newest < horizon and all(tail >= head for tail, head in zip(tails, self.heads, strict=True))


class DecisionLog:
    """`pending` is the record of the next transaction, of about so many `bytes`."""

    def __init__(self, partitions: int) -> None:
        self.pending, self.bytes = DecisionRecord(partitions), 0
        self._segments: deque[_Segment] = deque()
        self._full_at: int | None = None  # offset of the last full one
        self._taken = _Segment(-1, -1, False, ())

    def add(self, key: int, time: int, verdict: Verdict) -> None:
        """A verdict for the next record."""
        self.pending.append(key, time, verdict)
        self.bytes += decision_bytes(verdict)

    def repeat(self, key: int, time: int, verdict: Verdict) -> None:
        """One that an earlier record has, which must live on."""
        self.add(key, time, verdict)
        self.pending.repeated.append(key)
        self.bytes += KEY_BYTES

    def drop(self, keys: array[int], times: array[int]) -> None:
        """Traces that are dropped; whoever decided has counted their bytes."""
        self.pending.extend(keys, times, DROPPED)

    def room(self, limit: int) -> int:
        """Bytes of verdicts that the next record still takes, of `limit` at most."""
        return min(DECISION_BYTES, limit) - self.bytes

    def take(self, checkpoint: Checkpoint, heads: tuple[int, ...]) -> bytes:
        """The record of this transaction; `heads` are where the heads stand, in the order of the feeds."""
        record, self.pending, self.bytes = self.pending, DecisionRecord(self.pending.partitions), 0
        record.checkpoint = checkpoint
        self._taken = _segment(-1, record, heads)
        return record.encode()

    def written(self, offset: int) -> None:
        """What was taken last has this offset."""
        self._remember(replace(self._taken, offset=offset))

    def load(self, offset: int, record: DecisionRecord, heads: tuple[int, ...]) -> None:
        """A record of an owner before, in order."""
        self._remember(_segment(offset, record, heads))

    def _remember(self, segment: _Segment) -> None:
        self._segments.append(segment)
        if segment.full:
            self._full_at = segment.offset

    def load_from(self, horizon: int, tails: tuple[int, ...]) -> int | None:
        """Where a new owner must begin: the last full checkpoint and all live verdicts."""
        if self._full_at is None:
            return self._segments[0].offset if self._segments else None
        while self._segments[0].offset < self._full_at and self._segments[0].is_over(horizon, tails):
            self._segments.popleft()
        return self._segments[0].offset


def _segment(offset: int, record: DecisionRecord, heads: tuple[int, ...]) -> _Segment:
    return _Segment(offset, max(record.times, default=-1), record.checkpoint.full, heads)


def decision_bytes(verdict: Verdict) -> int:
    """About what a verdict takes in its record."""
    if not verdict.kept:
        return DECISION_OVERHEAD
    size = DECISION_OVERHEAD
    if (root := verdict.root) is not None:
        size += DECISION_OVERHEAD + len(root.service) + len(root.name)
    for span in verdict.spans.values():
        size += DECISION_OVERHEAD + len(span.service) + len(span.name)
    return size
