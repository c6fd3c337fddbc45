"""Stream time: the clock that the log itself carries.

ingest writes *marks*: per raw partition, the raw timestamp up to which it has been read. The clock of a `sample`
partition is the smallest mark over all raw partitions, so a killed or lagging ingest worker, or a cold start on
hours of backlog, delays decisions instead of making them on half a trace. No wall clock is read here.

All times are milliseconds since the epoch.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from statistics import median_low

from processors.feeds import feed_of, place_of
from schemas.columns import clamped
from schemas.envelope import Envelope

RawPartition = tuple[str, int]
STEP_LIMIT_MS = 10_000  # the most that one observation may move the broker's clock, or one record a mark
STEPS_PER_STALL = 4  # steps of append time, at least, before a raw partition may count as stalled
UNLISTED = 2  # a part of its stall limit in which nobody lists a raw partition that was removed
LEFT_OUT = -1  # in a checkpoint, instead of an append time


@dataclass(slots=True)
class StreamClock:
    """The clock of one reader of one partition of several internal topics, its *feeds* (spans and logs).

    `stall_limits` maps a raw topic to the time (ms) after which a raw partition without a new mark is left out. One
    that is old but moving never is; one without any mark holds the clock. One that no mark record lists any more,
    either, was removed with its input: it is forgotten, and new if it is ever listed again. As long as a single worker
    of ingest has an older configuration, its records list what that has.

    Silence is measured in *activity*: what append times advanced from record to record while a feed was read, in the
    feed that has come least far. So neither reading one feed ahead of the other, nor an outage of everything, nor a
    step of the broker's clock (a step counts for `step_limit` at most) makes a raw partition look stalled.

    Every record asks for the time, and there may be a thousand raw partitions. So those that are waited for stand in
    line, a heap, by the smallest mark that they may have: only the first is looked at. It gets back in line if it has
    moved on meanwhile, and out of it, up to its next mark, if it is stalled.
    """

    stall_limits: Mapping[str, int]
    default_stall_limit: int
    feeds: tuple[str, ...]
    marks: dict[RawPartition, tuple[int, int]] = field(default_factory=dict)
    raw_topics: dict[str, int] = field(default_factory=dict)
    changed: set[RawPartition] = field(default_factory=set)
    _appended: dict[str, int] = field(default_factory=dict)
    _activity: dict[str, int] = field(default_factory=dict)
    _heard: dict[RawPartition, tuple[int, ...]] = field(default_factory=dict)
    _left_out: set[RawPartition] = field(default_factory=set)
    _listed: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)  # by topic and count
    _line: list[tuple[int, RawPartition]] = field(default_factory=list)
    _in_line: set[RawPartition] = field(default_factory=set)
    _now: int | None = None
    _settled: bool = False  # whether `_now` is still the answer

    @property
    def step_limit(self) -> int:
        """The most (ms) that one step of append time counts: several must follow each other to make a stall."""
        return min([self.default_stall_limit, *self.stall_limits.values()]) // STEPS_PER_STALL

    @property
    def newest_append(self) -> int:
        """Append time of the newest record read, -1 before the first."""
        return max(self._appended.values(), default=-1)

    def restore(self, marks: Mapping[RawPartition, tuple[int, int]], raw_topics: Mapping[str, int]) -> None:
        """Continue from a checkpoint (`saved`). Silence begins anew, but who was left out stays out."""
        self.marks = {raw: mark for raw, mark in marks.items() if mark[0] >= 0}
        self._list(raw_topics)
        for raw, (_, append) in marks.items():
            self._expect(raw)
            if append == LEFT_OUT:
                self._left_out.add(raw)
        self._settled = False

    def saved(self, raw: RawPartition) -> tuple[int, int]:
        """What a checkpoint says of a raw partition: its mark (-1: none) and append time, or LEFT_OUT instead."""
        mark, append = self.marks.get(raw, (-1, LEFT_OUT))
        return mark, LEFT_OUT if self._stalled(raw, self._active()) else append

    def knows(self, raw: RawPartition) -> bool:
        """Whether a raw partition is waited for or left out; not one that was removed."""
        return raw in self._heard

    def row_times(self, raw: RawPartition, timestamps: array[int], append: int) -> array[int]:
        """Stream time of raw records: not before their partition's last mark, not after the broker's now."""
        least = self._mark(raw)
        times: array[int] = clamped(timestamps, least, max(least, append))
        return times

    def observe(self, feed: str, raw: RawPartition, mark: int, append: int, raw_topics: Mapping[str, int]) -> None:
        """A record of `raw` was read: its mark (negative: none) holds from here on."""
        self._settled = False
        self._elapse(feed, append)
        if raw_topics:
            self._list(raw_topics)
        if mark >= 0:
            known = self.marks.get(raw)
            self.marks[raw] = (max(mark, known[0]) if known else mark, append)
            self._heard[raw] = self._active()
            self._left_out.discard(raw)
            self._line_up(raw)
            self.changed.add(raw)

    def read(self, feed: str, envelope: Envelope, append: int) -> None:
        """An envelope was read, which carries a mark."""
        raw = (envelope.topic, envelope.partition)
        self.observe(feed, raw, envelope.mark, append, envelope.raw_topics)

    def quiet(self) -> list[str]:
        """Feeds whose newest record is much older than that of another one."""
        late = self.newest_append - self.step_limit
        return [feed for feed in self.feeds if self._appended.get(feed, -1) < late]

    def ended(self, feed: str, append: int) -> None:
        """Everything that was appended to `feed` until then has been read (it may be silent for good)."""
        if append > self._appended.get(feed, -1):
            self._settled = False
            self._elapse(feed, append)

    def _elapse(self, feed: str, append: int) -> None:
        known = self._appended.get(feed)
        if known is None:
            self._appended[feed] = append
        elif append > known:
            self._appended[feed] = append
            self._activity[feed] = self._activity.get(feed, 0) + min(append - known, self.step_limit)
        elif append < known - self.step_limit:
            self._appended[feed] = append  # the broker's clock was set back

    def _active(self) -> tuple[int, ...]:
        return tuple(self._activity.get(feed, 0) for feed in self.feeds)

    def _list(self, raw_topics: Mapping[str, int]) -> None:
        self._listed.update(dict.fromkeys(raw_topics.items(), self._active()))
        for topic, count in raw_topics.items():
            known = self.raw_topics.get(topic, 0)
            self.raw_topics[topic] = max(count, known)
            for partition in range(known, count):
                self._expect((topic, partition))

    def _expect(self, raw: RawPartition) -> None:
        """Wait for a raw partition from now on, if it was not known."""
        if raw not in self._heard:
            self._heard[raw] = self._active()
            self._line_up(raw)

    def _line_up(self, raw: RawPartition) -> None:
        if raw not in self._in_line:
            self._in_line.add(raw)
            heappush(self._line, (self._mark(raw), raw))

    def _mark(self, raw: RawPartition) -> int:
        mark = self.marks.get(raw)
        return -1 if mark is None else mark[0]

    def now(self) -> int | None:
        """The smallest mark of all raw partitions that are not stalled; None while one has no mark yet.

        Never goes back: a raw partition that was left out and returns is late.
        """
        if not self._settled:
            self._settled = True
            smallest = self._smallest()
            if smallest is not None and (self._now is None or smallest > self._now):
                self._now = smallest
        return self._now

    def _smallest(self) -> int | None:
        line, active = self._line, self._active()
        while line:
            mark, raw = line[0]
            if self._stalled(raw, active):
                heappop(line)
                self._in_line.remove(raw)
            elif mark != (newest := self._mark(raw)):
                heapreplace(line, (newest, raw))
            else:
                return None if mark < 0 else mark
        return None

    def _stalled(self, raw: RawPartition, active: tuple[int, ...]) -> bool:
        return raw in self._left_out or _since(self._heard[raw], active) > self._limit(raw)

    def _limit(self, raw: RawPartition) -> int:
        return self.stall_limits.get(raw[0], self.default_stall_limit)

    def stalled(self) -> list[RawPartition]:
        """Raw partitions that the clock leaves out at present. Forgets those that were removed."""
        active = self._active()
        left_out = [raw for raw in self._heard if self._stalled(raw, active)]
        removed = {raw for raw in left_out if self._is_removed(raw, active)}
        if removed:
            self._forget(removed)
        return [raw for raw in left_out if raw not in removed]

    def _is_removed(self, raw: RawPartition, active: tuple[int, ...]) -> bool:
        """Whether one that is stalled was in no list of late; a count of 0 is one that metadata does not know."""
        lists = [at for (topic, count), at in self._listed.items() if topic == raw[0] and not 0 < count <= raw[1]]
        return all(_since(at, active) > self._limit(raw) // UNLISTED for at in lists)

    def _forget(self, removed: Set[RawPartition]) -> None:
        for raw in removed:
            del self._heard[raw]
            self.marks.pop(raw, None)
            known = self.raw_topics.pop(raw[0], 0)
            if least := min(known, raw[1]):  # the others of its topic are in no list either
                self.raw_topics[raw[0]] = least
        self.changed -= removed
        self._left_out -= removed
        self._in_line -= removed
        self._line = [place for place in self._line if place[1] not in removed]
        heapify(self._line)


def _since(then: tuple[int, ...], active: tuple[int, ...]) -> int:
    """Activity (ms) from then to now, in the feed that has come least far."""
    return min(map(int.__sub__, active, then), default=0)


@dataclass(slots=True)
class RawClock(StreamClock):
    """The clock of one reader of raw partitions, its feeds, without ingest between (`partition`: processors/feeds.py).

    It marks what it has read as ingest would (`RawMark`), and waits for its own partitions alone. One that is silent
    moves it when it has been read to its end (`ended`). The clock at the tail has that at the head as its `leader`: it
    passes the same records later, when the broker's time cuts less of them, and never goes ahead of it.
    """

    partition: int = 0
    leader: StreamClock | None = None
    _reading: dict[str, RawMark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for feed in self.feeds:
            self._reading[feed] = RawMark()
            self._expect(place_of(feed, self.partition))

    def restore(self, marks: Mapping[RawPartition, tuple[int, int]], raw_topics: Mapping[str, int]) -> None:
        """Continue from a checkpoint."""
        StreamClock.restore(self, marks, raw_topics)
        for raw, (mark, _) in self.marks.items():
            self._reading[feed_of(*raw, self.partition)] = RawMark(mark)

    def read(self, feed: str, envelope: Envelope, append: int) -> None:
        """Raw records were read when it was `append` or later."""
        mark = self._reading[feed]
        mark.read_all(envelope.timestamps())
        self._go_on(feed, mark.cut(self._cut(feed, append)), append)

    def ended(self, feed: str, append: int) -> None:
        """Everything that was in the raw partition at `append` has been read."""
        mark = self._reading[feed]
        mark.ended(self._cut(feed, append))
        self._go_on(feed, mark.mark, append)

    def _stalled(self, raw: RawPartition, active: tuple[int, ...]) -> bool:
        return raw in self._left_out  # by whoever ran ingest before: what is read here is heard

    def _is_removed(self, raw: RawPartition, active: tuple[int, ...]) -> bool:
        return False  # nobody lists what is read here

    def _active(self) -> tuple[int, ...]:
        return ()  # nobody is silent here; there may be hundreds of feeds, and each record asks

    def _cut(self, feed: str, append: int) -> int | None:
        if self.leader is None:
            return append
        led = self.leader.marks.get(place_of(feed, self.partition))
        return None if led is None else min(append, led[0])

    def _go_on(self, feed: str, mark: int | None, append: int) -> None:
        self.observe(feed, place_of(feed, self.partition), -1 if mark is None else mark, append, {})


@dataclass(slots=True)
class RawMark:
    """Up to which raw timestamp (ms) one raw partition has been read. Never goes back.

    A record moves it by STEP_LIMIT_MS at most: in a backlog, one timestamp of a fast clock must not pass for the time
    of all records around it. It begins with the middle one of the first that are read. A mark that lags is made good by
    the next ones, or by `ended`.
    """

    mark: int | None = None
    _newest: int | None = None

    def read(self, timestamp: int) -> None:
        """A record with this raw timestamp was read."""
        self.read_all((timestamp,))

    def read_all(self, timestamps: Sequence[int]) -> None:
        """Records with these raw timestamps were read, in this order."""
        if not timestamps:
            return
        newest = max((t for t in (self.mark, self._newest) if t is not None), default=None)
        if newest is None:  # of the first ones none is known to be right: most of them are
            newest = median_low(timestamps)
        if (last := max(timestamps)) <= newest + STEP_LIMIT_MS:
            self._newest = max(newest, last)  # no step of theirs was too long
            return
        for timestamp in timestamps:
            if timestamp > newest:
                newest = min(timestamp, newest + STEP_LIMIT_MS)
        self._newest = newest

    def ended(self, before: int | None) -> None:
        """An end-offset request found nothing left; `before` is the broker's time before that request."""
        if before is not None:
            self.mark = max(before, self.mark or 0)

    def cut(self, now: int | None) -> int | None:
        """The mark that goes out with everything read so far; raw timestamps are cut to the broker's now.

        While that is unknown (None: nothing was acknowledged yet) they wait: a mark never goes back.
        """
        if self._newest is not None and now is not None:
            self.mark = max(min(self._newest, now), self.mark or 0)
            self._newest = None
        return self.mark


@dataclass(slots=True)
class BrokerClock:
    """A lower bound of the broker's time, from append times of own records and a monotonic clock.

    An append happened before its acknowledgement, so append time plus what has elapsed since the acknowledgement
    is never ahead of the broker. It never goes back, and a step of the broker's clock is followed by at most
    STEP_LIMIT_MS per observation; so is what a machine was suspended for. `behind`: there is more to follow.
    """

    behind: bool = False
    _append: int | None = None
    _at: float = 0.0

    def observe(self, append: int, monotonic: float) -> None:
        """A record was acknowledged at `monotonic` (seconds) with this append time (ms)."""
        known = self.now(monotonic)
        self._append = append if known is None else min(max(append, known), known + STEP_LIMIT_MS)
        self._at = monotonic
        self.behind = append > self._append

    def now(self, monotonic: float) -> int | None:
        """Milliseconds since the epoch, None before the first observation."""
        return None if self._append is None else self._append + int((monotonic - self._at) * 1000)
