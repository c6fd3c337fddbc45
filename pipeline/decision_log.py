"""The verdicts in the log of decisions: what became of a trace, when, by which policies, where its records begin."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from aiokafka import TopicPartition

from pipeline.config import Config
from pipeline.history import Feed
from pipeline.reader import Reader
from pipeline.topics import Topics
from schemas.decision import Checkpoint, DecisionRecord, Verdict, decided_keys

STRIDE = 512  # offsets of decisions that are read at a time, from the newest back
READ_BYTES = 16 << 20  # of them in one go


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict in the log: the offset and append time (ms) of its record, the stream time that it was made at."""

    verdict: Verdict
    offset: int
    appended: int
    stream_time: int
    version: str


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
    """The decisions of one partition, from the newest back."""

    def __init__(self, config: Config, index: int) -> None:
        self.feed = Feed(
            Reader(config.kafka, config.limits), TopicPartition(Topics(config.kafka.prefix).decisions, index)
        )
        self._records: list[tuple[int, int, bytes]] = []  # (offset, append time, value): the newest, and those around
        self._first = self._position = self._fresh = 0

    async def find(self, key: int, horizon: int) -> Place:
        """The first record that has the trace: a verdict is repeated for as long as late spans keep it alive.

        However long ago that was, where the record says that it repeats one; records of before there was `repeated` are
        looked for `horizon` ms of append time further back.
        """
        self._first, end = await self.feed.reader.end(self.feed.partition)
        self._position = end
        found: int | None = None  # offset
        restored: Restored | None = None
        appended, again, gap = 0, False, False
        while await self._further():
            fresh = self._records[: self._fresh]
            for offset, when, value in reversed(fresh):
                if found is not None and not again and when < appended - horizon:
                    break
                if key in decided_keys(value):
                    record = DecisionRecord.decode(value)
                    found, appended = offset, when
                    # One record may have the verdict as well as its repetition.
                    again = record.keys.count(key) <= record.repeated.count(key) + (key in record.restored)
                    if (why := record.restored.get(key)) is not None:
                        restored = Restored(why, offset, when)
            if found is not None and not again and fresh[0][1] < appended - horizon:
                break
            if (found is None or again) and len(self._records) > len(fresh):
                del self._records[: self._fresh]  # a day of verdicts need not fit into memory
                gap = True
        if gap:
            self._records, self._position = [], end if found is None else found + 1
            await self._further()
        if found is None:
            return Place(None, await self._state(len(self._records)), {})
        place = bisect_left(self._records, (found, -1, b""))
        while place == 0 and await self._further():
            place = self._fresh
        offset, when, value = self._records[place]
        record = DecisionRecord.decode(value)
        row = record.keys.index(key)
        version = record.checkpoint.policy_version
        decision = Decision(record.verdicts[row], offset, when, record.times[row], version)
        return Place(decision, await self._state(place), dict(record.checkpoint.counted), restored)

    async def close(self) -> None:
        """Disconnect. Does not raise."""
        await self.feed.reader.close()

    async def _further(self) -> bool:
        """Read further back; False when there is nothing. `_fresh` is how many records came."""
        self._fresh = 0
        while self._fresh == 0 and self._position > self._first:
            start = max(self._first, self._position - STRIDE)
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
