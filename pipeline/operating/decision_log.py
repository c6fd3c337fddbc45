"""The verdicts in the log of decisions: what became of a trace, when, by which policies, where its records begin."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from math import inf

from aiokafka import TopicPartition

from pipeline.config import Config
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics
from pipeline.operating.history import Feed
from schemas.decision import Checkpoint, DecisionRecord, Verdict, decided_keys

STRIDE = 512  # offsets of decisions that are read at a time, from the newest back
READ_BYTES = 16 << 20  # of them in one go


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict in the log: the offset and append time (ms) of its record, the stream time that it was made at.

    `waits` as in its checkpoint.
    """

    verdict: Verdict
    offset: int
    appended: int
    stream_time: int
    version: str
    waits: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """A drop that was superseded: why, and the offset and append time (ms) of the record that says so."""

    why: str
    offset: int
    appended: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trace is: its decision if there is one, the state before it, where the heads stood when it was made."""

    decision: Decision | None
    before: Checkpoint
    heads: dict[str, int]
    restored: Restored | None = None


class DecisionLog:
    """The decisions of one partition, from the newest back, for one trace.

    `reader` may be shared with the logs of other partitions; `stride` offsets are read first, then twice as many each
    time, up to STRIDE.
    """

    def __init__(self, config: Config, index: int, reader: Reader | None = None, stride: int | None = None) -> None:
        reader = reader or Reader(config.kafka, config.limits)
        self.index, self.feed = index, Feed(reader, TopicPartition(Topics(config.kafka.prefix).decisions, index))
        self.reached = inf  # append time (ms) of the oldest record that was read
        self.found: int | None = None  # offset of the oldest record yet that has the trace
        self.again = False  # it repeats an older verdict
        self.appended = 0  # when, in ms
        self._restored: Restored | None = None
        self._stride = stride or STRIDE
        self._records: list[tuple[int, int, bytes]] = []  # (offset, append time, value): those around `found`
        self._first = self._end = self._position = self._fresh = 0

    async def find(self, key: int, horizon: int) -> Place:
        """The first record that has the trace: a verdict is repeated for as long as late spans keep it alive.

        However long ago that was, where the record says that it repeats one; records of before there was `repeated` are
        looked for `horizon` ms of append time further back. A trace that is not there costs the whole log.
        """
        await self.begin()
        while await self.look(key, horizon):
            pass
        return await self.place(key)

    async def begin(self) -> None:
        """Stand at the end."""
        self._first, self._end = await self.feed.reader.end(self.feed.partition)
        self._position = self._end

    async def look(self, key: int, horizon: int) -> bool:
        """Look one stride further back; False when there is nothing, or nothing that could matter."""
        if not await self._further():
            return False
        fresh = self._records[: self._fresh]
        self.reached = fresh[0][1]
        for offset, when, value in reversed(fresh):
            if self._is_old(when, horizon):
                return False
            if key in decided_keys(value):
                record = DecisionRecord.decode(value)
                self.found, self.appended = offset, when
                # One record may have the verdict as well as its repetition.
                self.again = record.keys.count(key) <= record.repeated.count(key) + (key in record.restored)
                if (why := record.restored.get(key)) is not None:
                    self._restored = Restored(why, offset, when)
        if self.found is None or self.again:
            self._records = []  # a day of verdicts need not fit into memory
        return not self._is_old(self.reached, horizon)

    async def place(self, key: int) -> Place:
        """What `look` has found."""
        if not self._records:
            self._position = self._end if self.found is None else self.found + 1
            await self._further()
        if self.found is None:
            return Place(None, await self._state(len(self._records)), {})
        place = bisect_left(self._records, (self.found, -1, b""))
        while place == 0 and await self._further():
            place = self._fresh
        offset, when, value = self._records[place]
        record = DecisionRecord.decode(value)
        row = record.keys.index(key)
        point = record.checkpoint
        verdict, time = record.verdicts[row], record.times[row]
        decision = Decision(verdict, offset, when, time, point.policy_version, point.waits)
        return Place(decision, await self._state(place), dict(point.counted), self._restored)

    def _is_old(self, when: float, horizon: int) -> bool:
        return self.found is not None and not self.again and when < self.appended - horizon

    async def close(self) -> None:
        """Disconnect. Does not raise."""
        await self.feed.reader.close()

    async def _further(self) -> bool:
        """Read further back; False when there is nothing. `_fresh` is how many records came."""
        self._fresh = 0
        while self._fresh == 0 and self._position > self._first:
            start = max(self._first, self._position - self._stride)
            self._stride = min(STRIDE, 2 * self._stride)
            position = start
            read: list[tuple[int, int, bytes]] = []
            while position < self._position:
                found = await self.feed.reader.read(self.feed.partition, position, self._position, READ_BYTES)
                read += [record for record in found.records if record[0] < self._position]
                position = found.position
            self._records[:0] = read
            self._position, self._fresh = start, len(read)
        return self._fresh > 0

    async def _state(self, place: int) -> Checkpoint:
        """What the checkpoints before a record add up to: tails, and the marks since the last full one."""
        state: Checkpoint | None = None
        while True:
            for _, _, value in reversed(self._records[:place]):
                point = DecisionRecord.decode(value).checkpoint
                state = point if state is None else replace(state, marks=point.marks | state.marks)
                if point.full:
                    return state
            if not await self._further():
                return state or Checkpoint()
            place = self._fresh


@contextlib.asynccontextmanager
async def side_by_side(config: Config, indices: Collection[int], key: int) -> AsyncIterator[list[DecisionLog]]:
    """The logs of these partitions, looked through for a trace that any of them may have.

    The one that has been read back the least goes on, so the first that has the trace is met before the others are
    read further back than it. They still are for `late_horizon` of append time, since its rows may lie in several. A
    trace that none of them has costs all of their logs.
    """
    reader, stride = Reader(config.kafka, config.limits), max(1, STRIDE // len(indices))
    logs = [DecisionLog(config, index, reader, stride) for index in indices]
    horizon = int(config.sampling.late_horizon * 1000)
    try:
        for log in logs:
            await log.begin()
        left = list(logs)
        while left:
            log = max(left, key=lambda each: each.reached)
            has = [each for each in logs if each.found is not None]
            again = any(each.again for each in left)
            if has and not again and log.reached < min(each.appended for each in has) - horizon:
                break
            if not await log.look(key, horizon):
                left.remove(log)
        yield logs
    finally:
        await reader.close()
