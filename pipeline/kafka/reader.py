"""Reading ranges of partitions outside any group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException

from pipeline.config import Kafka, Limits
from pipeline.kafka.fetching import POLL_MS, RETAKE_BACKOFF, STALLED, consumer_kwargs
from schemas.errors import Unavailable

CLOSE_LIMIT = 5.0  # seconds that a disconnect may take

Progress = Callable[[int, int], None]
"""Called with records read and records in all."""


class Reader:
    """Reads ranges of partitions outside any group: state at a takeover, and the tail's second look.

    read_committed, so control and aborted records are never seen; positions pass them. `limits` if it reads raw topics.
    Unless it is `committed`, the end is that of all records, and what is not committed is seen. With `accept_loss`
    batches of raw topics that stay corrupt are passed.
    """

    def __init__(
        self, kafka: Kafka, limits: Limits | None = None, committed: bool = True, accept_loss: bool = False
    ) -> None:
        self._accept_loss = accept_loss
        own = {"fetch_min_bytes": 1, "isolation_level": "read_committed" if committed else "read_uncommitted"}
        self._consumer = AIOKafkaConsumer(**{**consumer_kwargs(kafka, limits, accept_loss=accept_loss), **own})
        self._started = False

    async def read(self, partition: TopicPartition, start: int, end: int, max_bytes: int) -> Range:
        """Records from `start` until the position reaches `end` or `max_bytes` of values are exceeded."""
        await self._start()
        self._consumer.assign([partition])
        self._consumer.seek(partition, start)
        records: list[tuple[int, int, bytes]] = []
        size, position, moved = 0, start, time.monotonic()
        while position < end and size <= max_bytes:
            for fetched in (await self._fetched()).values():
                records.extend((r.offset, r.timestamp, r.value or b"") for r in fetched)  # raw topics may hold nulls
                size += sum(len(r.value or b"") for r in fetched)
            before, position = position, await self._consumer.position(partition)
            if position > before:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED:
                raise Unavailable(f"{partition.topic}/{partition.partition}: nothing read from {position} on")
        self._consumer.pause(partition)  # or it would be fetched on and on, for nobody
        return Range(records, position)

    async def _start(self) -> None:
        if not self._started:
            await self._consumer.start()
            self._started = True

    async def _fetched(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        try:
            found: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=POLL_MS)
            return found
        except CorruptRecordException:
            if not self._accept_loss:
                raise
        await asyncio.sleep(RETAKE_BACKOFF)
        return {}

    async def end(self, partition: TopicPartition) -> tuple[int, int]:
        """First offset that exists, and the last stable offset; not `committed`: the high watermark."""
        await self._start()
        first = await self._consumer.beginning_offsets([partition])
        last = await self._consumer.end_offsets([partition])
        return first[partition], last[partition]

    async def newest(
        self, partitions: Sequence[TopicPartition], offsets: int
    ) -> dict[TopicPartition, tuple[int, int, bytes]]:
        """The last record (offset, append time, value) of each partition, if it is among its last `offsets`."""
        await self._start()
        first = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        left = {partition for partition in partitions if ends[partition] > first[partition]}
        self._consumer.assign(left)
        for partition in left:
            self._consumer.seek(partition, max(first[partition], ends[partition] - offsets))
        found: dict[TopicPartition, tuple[int, int, bytes]] = {}
        began = time.monotonic()
        while left:
            fetched = await self._consumer.getmany(*left, timeout_ms=POLL_MS)
            for partition, records in fetched.items():
                found[partition] = records[-1].offset, records[-1].timestamp, records[-1].value
            left = {p for p in left if await self._consumer.position(p) < ends[p]}
            if left and time.monotonic() - began > STALLED:
                raise Unavailable(f"{sorted(left)}: the newest record could not be read")
        self._consumer.pause(*self._consumer.assignment())
        return found

    async def at(self, partition: TopicPartition, time_ms: int) -> int:
        """First offset of a record that was appended (of a raw topic: created) at or after a time; the end if none."""
        first, last = await self.end(partition)
        if time_ms <= 0:
            return first
        found = (await self._consumer.offsets_for_times({partition: time_ms})).get(partition)
        return last if found is None else min(last, found.offset)

    async def close(self) -> None:
        """Disconnect. Does not raise."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._consumer.stop(), CLOSE_LIMIT)


@dataclass(frozen=True, slots=True)
class Range:
    """Records as (offset, append time in ms, value), and the position after them."""

    records: list[tuple[int, int, bytes]]
    position: int
