"""What a window of `sample` has read, read once more in the order in which it was appended, outside any group."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from pipeline.config import Config
from pipeline.configuration.window_settings import window_settings
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.raw_reader import raw_reader, redactors
from pipeline.kafka.reader import Reader
from processors.feeds import place_of
from processors.sampling.held import Value

CHUNK = 4 << 20  # bytes of values that are fetched of a topic at a time; of many together as many as of LARGE of them
LARGE, LEAST_CHUNK = 8, 128 << 10
BATCH_BYTES = 1 << 20  # of values in one batch; with `regroup: never` they are taken apart together


class Feed:
    """The records of one partition from `position` to `end`; `buffer` has (offset, time in ms, value).

    `name` is what a window calls it (processors/feeds.py).
    """

    def __init__(self, reader: Reader, partition: TopicPartition, name: str = "", chunk: int = CHUNK) -> None:
        self.reader, self.partition, self.name, self._chunk = reader, partition, name, chunk
        self.position = self.start = self.end = 0
        self.buffer: deque[tuple[int, int, bytes]] = deque()

    def between(self, start: int, end: int) -> None:
        """Read these offsets."""
        self.position = self.start = start
        self.end = max(start, end)
        self.buffer.clear()

    async def fill(self) -> None:
        """Fetch more, if there is nothing left and more to come."""
        while not self.buffer and not self.at_end:
            found = await self.reader.read(self.partition, self.position, self.end, self._chunk)
            self.buffer.extend(record for record in found.records if record[0] < self.end)
            self.position = found.position

    @property
    def at_end(self) -> bool:
        """Whether nothing is left to fetch."""
        return self.position >= self.end

    @property
    def next_time(self) -> float:
        """Time (ms) of the next record, infinite when there is none."""
        return self.buffer[0][1] if self.buffer else float("inf")


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of a feed as a Window takes them, and the time (ms) of the newest."""

    feed: str
    records: Sequence[tuple[int, int, Value]]
    newest: int


class History:
    """What the window of partition `index` reads. Set the bounds of its `feeds`, then read `batches`."""

    def __init__(self, config: Config, index: int, raw_partitions: Mapping[str, int]) -> None:
        found = window_settings(config, 0, raw_partitions)
        self.raw_partitions = raw_partitions
        self.topics, self.direct = found.topics, found.direct
        # Nothing is acknowledged here: a batch that stays corrupt is told by the worker that reads it first.
        self._reader = Reader(config.kafka, config.limits, accept_loss=self.direct)
        chunk = max(LEAST_CHUNK, min(CHUNK, LARGE * CHUNK // len(found.feeds)))
        self.feeds = [Feed(self._reader, TopicPartition(*place_of(name, index)), name, chunk) for name in found.feeds]
        taken_out = redactors(config)  # and not counted: it was when it was read first
        self._raw = {feed.name: raw_reader(config, feed.partition, taken_out) for feed in self.feeds if self.direct}

    @classmethod
    async def of(cls, config: Config, index: int) -> History:
        """With the raw partitions that there are now. Raises Unavailable if Kafka does not tell."""
        if not config.reads_whole_topics:
            return cls(config, index, {})
        return cls(config, index, await partition_counts(config, config.traced))

    async def beginnings(self) -> dict[str, int]:
        """The first offsets that Kafka has."""
        return {feed.name: (await feed.reader.end(feed.partition))[0] for feed in self.feeds}

    async def at(self, time_ms: int) -> dict[str, int]:
        """The first offsets at or after a time."""
        return {feed.name: await feed.reader.at(feed.partition, time_ms) for feed in self.feeds}

    async def ends(self) -> dict[str, int]:
        """What lies behind the last committed records."""
        return {feed.name: (await feed.reader.end(feed.partition))[1] for feed in self.feeds}

    @property
    def done(self) -> int:
        """Records that have been read."""
        return sum(feed.position - feed.start - len(feed.buffer) for feed in self.feeds)

    async def batches(self, span_ms: float = float("inf")) -> AsyncIterator[Batch]:
        """Everything within the bounds; no record before an older one of another feed.

        In one batch no record is `span_ms` newer than its first.
        """
        while True:
            for feed in self.feeds:
                await feed.fill()
            feed = min(self.feeds, key=lambda each: each.next_time)
            if not feed.buffer:
                return
            until = min((each.next_time for each in self.feeds if each is not feed), default=float("inf"))
            until = min(until, feed.next_time + span_ms)
            taken: list[tuple[int, int, bytes]] = []
            size = 0
            while feed.buffer and (not taken or (feed.next_time <= until and size < BATCH_BYTES)):
                taken.append(feed.buffer.popleft())
                size += len(taken[-1][2])
            newest = max(when for _, when, _ in taken)
            yield Batch(feed.name, self._values(feed.name, taken, newest), newest)

    def _values(
        self, feed: str, records: Sequence[tuple[int, int, bytes]], newest: int
    ) -> Sequence[tuple[int, int, Value]]:
        if not self.direct or not records:
            return records
        return [(records[0][0], newest, self._raw[feed].read(records))]

    def silent(self, newest: int) -> list[str]:
        """Feeds without an unread record up to a time: the next one is newer, or there is none."""
        return [feed.name for feed in self.feeds if feed.next_time > newest and (feed.buffer or feed.at_end)]

    async def again(self, name: str, position: int, end: int) -> tuple[Sequence[tuple[int, int, Value]], int]:
        """Some records that were read before, and the position behind them."""
        (feed,) = (feed for feed in self.feeds if feed.name == name)
        found = await feed.reader.read(feed.partition, position, end, CHUNK)
        records = [record for record in found.records if record[0] < end]
        newest = max((when for _, when, _ in records), default=0)
        return self._values(name, records, newest), min(found.position, end)

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()
