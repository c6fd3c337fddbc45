"""The dead-letter queue as an operator reads it: letters by why they are there, and single ones.

Letters are read in the order of the log, from a time on, up to the end that the queue had when it was asked. Receipts
of letters that were sent in again (schemas/dead_letter.py) lie between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.config import Config
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.fetching import POLL_MS, STALLED, consumer_kwargs
from pipeline.kafka.reader import Progress
from pipeline.kafka.topics import Topics
from schemas.dead_letter import DeadLetter, Receipt
from schemas.errors import Permanent, Unavailable

Identity = tuple[str, bytes]
"""Stage and key: the same for a letter that was written twice."""
Why = tuple[str, str, str]
"""Topic, stage and reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a letter lies in the queue."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Found:
    """A letter of the queue; `time_ms` is when it was written."""

    place: Place
    time_ms: int
    letter: DeadLetter

    @property
    def identity(self) -> Identity:
        """Tells letters apart."""
        return self.letter.stage, self.letter.key()

    @property
    def why(self) -> Why:
        """What letters are grouped by."""
        return self.letter.topic, self.letter.stage, self.letter.reason


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: those of any of these topics, stages and reasons (none given: all), written since a time (ms)."""

    topics: Collection[str] = ()
    stages: Collection[str] = ()
    reasons: Collection[str] = ()
    since_ms: int | None = None

    def takes(self, topic: str, stage: str, reason: str) -> bool:
        pairs = ((topic, self.topics), (stage, self.stages), (reason, self.reasons))
        return all(not allowed or found in allowed for found, allowed in pairs)


@dataclass(slots=True)
class Group:
    """The letters of one topic, stage and reason. Times in ms, as the brokers appended them."""

    letters: int = 0
    replayed: int = 0
    bytes: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0
    first: str = ""
    detail: str = ""

    def add(self, found: Found) -> None:
        if not self.letters:
            self.oldest_ms, self.first, self.detail = found.time_ms, str(found.place), found.letter.detail
        self.letters += 1
        self.bytes += len(found.letter.value)
        self.newest_ms = found.time_ms


@dataclass(slots=True)
class Summary:
    """What is in the queue, by topic, stage and reason; `foreign` are records that are no dead letters."""

    groups: dict[Why, Group] = field(default_factory=dict)
    foreign: int = 0


class Queue:
    """`prefix.dlq`, read outside any group. An asynchronous context manager; entering raises Unavailable.

    `told` hears how much of it was read; `topics` are those of the letters that were.
    """

    def __init__(self, config: Config, told: Progress = lambda done, total: None) -> None:
        self._config, self._topic, self._told = config, Topics(config.kafka.prefix).dlq, told
        self.topics: set[str] = set()
        self._partitions: list[TopicPartition] = []
        self._consumer: AIOKafkaConsumer = None

    async def __aenter__(self) -> Queue:
        found = await partition_counts(self._config, [self._topic])
        if self._topic not in found:
            raise Unavailable(f"{self._topic} does not exist, or this user may not see it")
        self._partitions = [TopicPartition(self._topic, p) for p in range(found[self._topic])]
        self._consumer = AIOKafkaConsumer(**consumer_kwargs(self._config.kafka))
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()  # or it is complained of at the exit, behind the error that says why
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # aiokafka 0.14: a consumer that is stopped in the turn it was started raises
        await self._consumer.stop()

    async def records(self, since_ms: int | None = None) -> AsyncIterator[Found | Receipt | None]:
        """Everything up to the end as it is now; None for what is neither letter nor receipt. Raises Unavailable."""
        ends = await self._consumer.end_offsets(self._partitions)
        starts = await self._consumer.beginning_offsets(self._partitions)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, since_ms))
            starts = {partition: ends[partition] if at is None else at.offset for partition, at in found.items()}
        done, total = 0, sum(ends.values()) - sum(starts.values())
        for partition, start in starts.items():
            async for position, records in self._read(partition, start, ends[partition]):
                for record in records:
                    if isinstance(record, Found):
                        self.topics.add(record.letter.topic)
                    yield record
                self._told(done + position - start, total)
            done += ends[partition] - start

    async def summary(self, wanted: Wanted) -> Summary:
        """All letters by why they are there."""
        summary = Summary()
        async for record in self.records(wanted.since_ms):
            if record is None:
                summary.foreign += 1
                continue
            if not wanted.takes(*record.why):
                continue
            group = summary.groups.setdefault(record.why, Group())
            if isinstance(record, Found):
                group.add(record)
            else:
                group.replayed += 1
        return summary

    async def letter(self, where: str) -> Found:
        """The letter at `partition:offset` of the queue (`offset` alone: of partition 0), or the first that names the
        raw record `topic/partition/offset/index`. Raises Permanent if there is none.
        """
        if "/" in where:
            async for record in self.records():
                if isinstance(record, Found) and where in (key := record.letter.key().decode(), key.partition("+")[0]):
                    return record
            raise Permanent(f"{self._topic} has no letter of {where}")
        partition, _, offset = where.rpartition(":")
        if not offset.isdecimal() or not (partition or "0").isdecimal():
            raise Permanent(f"{where!r} is neither partition:offset of {self._topic} nor topic/partition/offset/index")
        place = Place(int(partition or 0), int(offset))
        at = TopicPartition(self._topic, place.partition)
        if at in self._partitions:
            first = (await self._consumer.beginning_offsets([at]))[at]
            end = (await self._consumer.end_offsets([at]))[at]
            if first <= place.offset < end:
                async for _, records in self._read(at, place.offset, end):
                    if records and isinstance(record := records[0], Found) and record.place == place:
                        return record
                    if records:
                        break
        raise Permanent(f"{self._topic} has no letter at {place}")

    async def _read(
        self, at: TopicPartition, start: int, end: int
    ) -> AsyncIterator[tuple[int, list[Found | Receipt | None]]]:
        """What lies there, fetch by fetch, each with the position after it."""
        self._consumer.assign([at])
        self._consumer.seek(at, start)
        position, moved = start, time.monotonic()
        while position < end:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            if batches:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED:
                raise Unavailable(f"{at.topic}/{at.partition}: nothing read for {STALLED:g} s")
            position = min(end, await self._consumer.position(at))
            fetched = (record for records in batches.values() for record in records)
            yield position, [self._entry(at.partition, record) for record in fetched if record.offset < end]

    def _entry(self, partition: int, record: ConsumerRecord) -> Found | Receipt | None:
        if (receipt := Receipt.read(record.key or b"", record.headers)) is not None:
            return receipt
        try:
            letter = DeadLetter.read(record.value or b"", record.headers)
        except ValueError:
            return None
        return Found(Place(partition, record.offset), record.timestamp, letter)
