"""The aggregate role: span metrics and OTLP metrics in, a tick of cumulative series out, one transaction per tick.

Its state is its output: a tick holds every live series, and where it begins is in the metadata of the points offset
that is committed with it. The next owner loads that one tick and goes on (processors/ticks.py).

The topic has no retention of its own, so that no outage can reset counters: this role deletes ticks that are older than
`kafka.retention`, but never the one that holds its state.

Without transactions (`kafka.transactions: false`) the same is written with a plain commit after the tick: a crash in
between leaves a tick that nobody loads; its points are counted again from the tick before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import faust
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka import expired
from pipeline.kafka.commit import Committer, Output, committer, dead_letters
from pipeline.kafka.consume import Group, Leases
from pipeline.kafka.lease import Lease, Rounds
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics
from pipeline.watching.seldom import Seldom
from pipeline.watching.told_letters import TOLD
from pipeline.watching.told_limits import ToldLimits, limits_of
from processors.span_metrics import span_metric_names
from processors.ticks import DueTick, Ticks
from schemas.dead_letter import DeadLetter
from schemas.errors import ProtocolError
from schemas.point import Shape
from schemas.sample import read_tick

if TYPE_CHECKING:
    from pipeline.live.watch import Watch

ROLE = "aggregate"
RECORDS_PER_TURN = 100  # counted before other partitions and heartbeats get their turn
UNREAD_COMMITS = 2  # times commit_bytes of points that may wait to be counted before fetching pauses
DELETE_INTERVAL = 600.0  # seconds between deletions of old ticks
COMPLAIN_EVERY = 600.0  # seconds between log lines about metrics that find no place
LARGEST_TICK = 1 << 30  # bytes; only stops a broken topic from filling the memory

log = logging.getLogger(__name__)


def leases(config: Config, watch: Watch | None = None) -> Leases:
    """What makes the leases of this configuration."""
    counted = config.metrics.span_metrics
    names = span_metric_names(counted.namespace, counted.dimensions, counted.buckets_ms)
    shapes = {names.calls: names.calls_shape, names.duration: names.duration_shape} if counted.enabled else {}

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        (partition,) = partitions
        return PointsPartition(owner, partition, config, shapes, watch)

    return lease


def group(app: faust.App, config: Config, watch: Watch | None = None) -> Group:
    """The consumer group of points."""
    return Group(app, config, ROLE, [Topics(config.kafka.prefix).points], leases(config, watch))


class PointsPartition(Rounds):
    """One partition of points and of samples under one epoch."""

    def __init__(
        self, owner: Group, partition: TopicPartition, config: Config, shapes: Mapping[str, Shape], watch: Watch | None
    ) -> None:
        super().__init__()
        self._group, self._partition, self._config, self._watch = owner, partition, config, watch
        self._topics = topics = Topics(config.kafka.prefix)
        self._samples = TopicPartition(topics.samples, partition.partition)
        interval = int(config.metrics.interval * 1000)
        self._ticks = Ticks(config.kafka.metric_partitions, interval, limits_of(config.metrics), shapes)
        self._told = ToldLimits()
        self._committer: Committer = committer(config.kafka, owner, topics.transactional_id(ROLE, partition.partition))
        self._unread: deque[ConsumerRecord] = deque()
        self._unread_bytes = 0
        self._fetched = 0
        self._lost = 0  # records that retention took, until a tick has passed them
        self._deleted_at = time.monotonic()
        self._complaints = Seldom(COMPLAIN_EVERY)

    async def open(self) -> Mapping[TopicPartition, int]:
        """Fence the predecessor, then ask for the offset and load the tick that it names, in this order (F8)."""
        await self._committer.start()
        committed = (await self._group.committed([self._partition])).get(self._partition)
        lost, first = await self._group.brokers.gone(self._partition, committed.offset if committed else 0)
        reader = Reader(self._config.kafka)
        try:
            if committed is None:
                await self._check_unused(reader)
                self._ticks.begin(first)
            else:
                await self._load(reader, committed)
        finally:
            await reader.close()
        self._lost = lost
        expired.say(ROLE, self._partition, self._lost)  # those counts are gone, the series go on
        self._ticks.skip(first)
        self._fetched = self._ticks.next_offset
        return {self._partition: self._fetched}

    async def _check_unused(self, reader: Reader) -> None:
        """No committed offset must mean that there never was a tick: anything else would count from zero again."""
        start, end = await reader.end(self._samples)
        if self._config.kafka.transactions and (await reader.read(self._samples, start, end, 0)).records:
            raise ProtocolError(
                f"{self._samples.topic}/{self._samples.partition} holds ticks but the group has no offset: it expired "
                "or was deleted; recreate the topic to count from zero"
            )

    async def _load(self, reader: Reader, committed: OffsetAndMetadata) -> None:
        start, end = await reader.end(self._samples)
        if not committed.metadata.isdecimal() or int(committed.metadata) < start:
            raise ProtocolError(
                f"the group's offset {committed.offset} names tick {committed.metadata!r}, "
                f"{self._samples.topic}/{self._samples.partition} begins at {start}: its state is gone"
            )
        found = await reader.read(self._samples, int(committed.metadata), end, LARGEST_TICK)
        values = iter([value for _, _, value in found.records])
        tick = read_tick(values)
        if self._config.kafka.transactions and next(values, None) is not None:
            raise ProtocolError(f"{self._samples.topic} goes on after tick {tick.number}, the last one committed")
        self._ticks.load(tick, committed.offset, time.monotonic())
        self._told.begin(tick.blocks)

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next points offset to fetch."""
        return {self._partition: self._fetched}

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Keep for `work`, which must be able to commit a tick between two records."""
        for record in records:
            if record.offset >= self._fetched:
                self._unread.append(record)
                self._unread_bytes += len(record.value)
                self._fetched = record.offset + 1
        self._alarm.ring()

    def saturated(self) -> bool:
        """Whether enough points wait to be counted."""
        return self._unread_bytes > UNREAD_COMMITS * self._config.kafka.commit_bytes

    async def work(self) -> None:
        """Count what was fetched; commit a tick in each interval."""
        while True:
            self._rounds += 1
            async with self._turn:
                await self._count(RECORDS_PER_TURN)
                async with self._group.turns.work():
                    due = self._ticks.due(time.monotonic())
                await self._commit(due)
            if self._unread:
                await asyncio.sleep(0)
                continue
            await self._alarm.wait(self._ticks.due_in(time.monotonic()))

    async def finish(self) -> None:
        """Count what was fetched and say so, so that the next owner need not count it again."""
        async with self._turn:
            await self._count(len(self._unread))
            await self._commit(self._ticks.last(time.monotonic()))

    async def close(self) -> None:
        """Let go of the epoch."""
        self._told.end()
        if self._watch is not None:
            self._watch.ticked(self._partition.partition, ())
        await self._committer.stop()

    async def _count(self, records: int) -> None:
        last = self._fetched if records >= len(self._unread) else self._unread[records].offset
        while self._unread and self._unread[0].offset < last:
            async with self._group.turns.work() as is_long:
                due = self._add_up(last, is_long)
            await self._commit(due)

    def _add_up(self, last: int, is_long: Callable[[], bool]) -> DueTick | None:
        """Count up to position `last`; the tick that has to come before the next record ends it."""
        while self._unread and (record := self._unread[0]).offset < last:
            if (due := self._ticks.before(record.timestamp)) is not None:
                return due
            self._ticks.point(record.offset, record.timestamp, record.value, time.monotonic())
            self._unread.popleft()
            self._unread_bytes -= len(record.value)
            if is_long():
                break
        return None

    async def _commit(self, due: DueTick | None) -> None:
        """One transaction: a tick, the offset it includes, and where it begins."""
        if due is None:
            return
        samples = self._samples

        def offsets(written: list[RecordMetadata]) -> dict[TopicPartition, OffsetAndMetadata]:
            return {self._partition: OffsetAndMetadata(due.tick.points, str(written[0].offset))}

        async with self._group.turns.work():
            outputs = [Output(samples.topic, value, samples.partition) for value in due.tick.encode()]
        last = len(outputs) - 1
        points = self._partition
        letters = [
            DeadLetter(r.value, points.topic, points.partition, r.offset, r.append, 0, ROLE, r.reason, r.detail)
            for r in due.refused
        ]
        outputs += dead_letters(self._topics, letters, self._config)
        # What came while it was asked for is older than the answer to this tick.
        at_end = self._ticks.idle and await self._group.drained(points) and not self._unread
        written = await self._committer.commit(outputs, offsets)
        expired.count(self._config.kafka.prefix, points, self._lost)
        self._lost = 0
        self._ticks.acknowledged(written[last].timestamp, time.monotonic(), at_end)
        self._told.tell(due.tick.blocks, due.overflow)
        if self._watch is not None:
            self._watch.ticked(samples.partition, due.tick.blocks)
        for reason, number in due.dropped.items():
            intentional = str(reason.intentional).lower()
            telemetry.count(
                "tailrace_dropped_total", number, signal="metrics", reason=str(reason), intentional=intentional
            )
        if due.without_place and self._complaints.due(time.monotonic()):
            log.warning(
                "points of a metric are dropped: there are too many metrics (metrics.otlp.names_per_partition)",
                extra={
                    "metric": due.without_place,
                    "partition": samples.partition,
                    "limit": self._config.metrics.otlp.names_per_partition,
                },
            )
        TOLD.tell(letters)
        if self._config.kafka.transactions and time.monotonic() - self._deleted_at >= DELETE_INTERVAL:
            self._deleted_at = time.monotonic()
            await self._delete_old(due.tick.time_ms, written[0].offset)

    async def _delete_old(self, now: int, state: int) -> None:
        """Delete ticks older than `kafka.retention`, never what is at `state` or after it."""
        try:
            young = await self._group.brokers.at_time(self._samples, now - int(self._config.kafka.retention * 1000))
            await self._group.brokers.delete_before(self._samples, state if young is None else min(young, state))
        except KafkaError as error:  # needs DELETE on the topic; without it the topic only grows
            log.warning("old ticks cannot be deleted", extra={"role": ROLE, "error": repr(error)})
