"""Stream time: the clock that the log itself carries.

ingest writes *marks*: per raw partition, the raw timestamp up to which it has been read. The clock of a `sample`
partition is the smallest mark over all raw partitions, so a killed or lagging ingest worker, or a cold start on
hours of backlog, delays decisions instead of making them on half a trace. No wall clock is read here.

All times are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RawPartition = tuple[str, int]
STEP_LIMIT_MS = 10_000  # the most that one observation may move the broker's clock beyond elapsed time


@dataclass(slots=True)
class StreamClock:
    """The clock of one reader of one partition.

    `stall_limits` maps a raw topic to the time (ms of append time) after which a raw partition without a new
    mark is left out. A partition that is old but moving never is; one without any mark holds the clock.
    """

    stall_limits: Mapping[str, int]
    default_stall_limit: int
    marks: dict[RawPartition, tuple[int, int]] = field(default_factory=dict)
    raw_topics: dict[str, int] = field(default_factory=dict)
    newest_append: int = -1
    changed: set[RawPartition] = field(default_factory=set)
    _first_listed: dict[RawPartition, int] = field(default_factory=dict)
    _now: int | None = None

    def restore(self, marks: Mapping[RawPartition, tuple[int, int]], raw_topics: Mapping[str, int]) -> None:
        """Continue from a checkpoint: marks with the append time of the record that carried them."""
        self.marks = dict(marks)
        self.newest_append = max((append for _, append in marks.values()), default=-1)
        self._list(raw_topics)

    def row_time(self, raw: RawPartition, timestamp: int, append: int) -> int:
        """Stream time of a raw record: not before its partition's last mark, not after the broker's now."""
        mark = self.marks.get(raw)
        own = min(timestamp, append)
        return own if mark is None else max(mark[0], own)

    def observe(self, raw: RawPartition, mark: int, append: int, raw_topics: Mapping[str, int]) -> None:
        """A record of `raw` was read: its mark (negative: none) holds from here on."""
        if self.newest_append < 0:  # nothing was read yet: what was listed so far begins to be waited for now
            self._first_listed = dict.fromkeys(self._first_listed, append)
        self.newest_append = max(self.newest_append, append)
        if raw_topics and raw_topics != self.raw_topics:
            self._list(raw_topics)
        if mark >= 0:
            known = self.marks.get(raw)
            self.marks[raw] = (max(mark, known[0]) if known else mark, append)
            self.changed.add(raw)

    def _list(self, raw_topics: Mapping[str, int]) -> None:
        for topic, count in raw_topics.items():
            self.raw_topics[topic] = max(count, self.raw_topics.get(topic, 0))
            for partition in range(count):
                self._first_listed.setdefault((topic, partition), self.newest_append)

    def now(self) -> int | None:
        """The smallest mark of all raw partitions that are not stalled; None while one has no mark yet.

        Never goes back: a raw partition that was left out and returns is late.
        """
        smallest: int | None = None
        for raw, listed in self._first_listed.items():
            mark = self.marks.get(raw)
            seen = mark[1] if mark else listed
            if self.newest_append - seen > self.stall_limits.get(raw[0], self.default_stall_limit):
                continue
            if mark is None:
                return self._now
            if smallest is None or mark[0] < smallest:
                smallest = mark[0]
        if smallest is not None and (self._now is None or smallest > self._now):
            self._now = smallest
        return self._now

    def stalled(self) -> list[RawPartition]:
        """Raw partitions that the clock leaves out at present."""
        return [
            raw
            for raw, listed in self._first_listed.items()
            if self.newest_append - (self.marks[raw][1] if raw in self.marks else listed)
            > self.stall_limits.get(raw[0], self.default_stall_limit)
        ]


@dataclass(slots=True)
class RawMark:
    """Up to which raw timestamp (ms) one raw partition has been read. Never goes back."""

    mark: int | None = None
    _newest: int | None = None

    def read(self, timestamp: int) -> None:
        """A record with this raw timestamp was read."""
        if self._newest is None or timestamp > self._newest:
            self._newest = timestamp

    def ended(self, before: int | None) -> None:
        """An end-offset request found nothing left; `before` is the broker's time before that request."""
        if before is not None:
            self.mark = max(before, self.mark or 0)

    def cut(self, now: int | None) -> int | None:
        """The mark that goes out with everything read so far; raw timestamps are cut to the broker's now."""
        if self._newest is not None:
            newest = self._newest if now is None else min(self._newest, now)
            self.mark = max(newest, self.mark or 0)
            self._newest = None
        return self.mark


@dataclass(slots=True)
class BrokerClock:
    """A lower bound of the broker's time, from append times of own records and a monotonic clock.

    An append happened before its acknowledgement, so append time plus what has elapsed since the acknowledgement
    is never ahead of the broker. It never goes back, and a step of the broker's clock is followed by at most
    STEP_LIMIT_MS per observation.
    """

    _append: int | None = None
    _at: float = 0.0

    def observe(self, append: int, monotonic: float) -> None:
        """A record was acknowledged at `monotonic` (seconds) with this append time (ms)."""
        known = self.now(monotonic)
        self._append = append if known is None else min(max(append, known), known + STEP_LIMIT_MS)
        self._at = monotonic

    def now(self, monotonic: float) -> int | None:
        """Milliseconds since the epoch, None before the first observation."""
        return None if self._append is None else self._append + int((monotonic - self._at) * 1000)
