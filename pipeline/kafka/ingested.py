"""What ingest has written, as whoever takes a raw partition over finds it in the log.

A coordinator of Kafka 4.1 that was killed may answer while it still loads, with an offset of some time ago
(docs/adr/0003, M21). The log of what is fed knows better. Every transaction of a raw partition ends with a mark in
partition 0, and the metadata of the offset that moved with it says from where on there is no other
(schemas/raw_offset.py): an offset with more marks behind that is an old one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from pipeline.config import Kafka
from pipeline.kafka.reader import Reader
from schemas.envelope import Envelope

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20  # of values that are looked at in one go


Marks = dict[tuple[str, int], list[int]]
"""Where each raw partition has marks, rising."""


def marks(records: Iterable[tuple[int, int, bytes]]) -> Marks:
    """The marks among records (offset, append time, envelope): the last envelope of a transaction names the topics."""
    found: Marks = {}
    for offset, _, value in records:
        envelope = Envelope.decode(value)
        if envelope.raw_topics:
            found.setdefault((envelope.topic, envelope.partition), []).append(offset)
    return found


class Ingested:
    """Partition 0 of the topics that this worker's raw partitions feed."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka.model_copy(update={"client_rack": None})  # a follower may not have heard of the end yet
        self._fed: dict[str, bool] = {}
        self._asked: dict[str, dict[object, tuple[TopicPartition, int | None]]] = {}  # by topic: who waits
        self._answers: dict[object, tuple[list[int], int]] = {}
        self._turn = asyncio.Lock()
        self.looked = 0  # records that were looked at

    async def fed(self, topic: str) -> bool:
        """Whether this topic had a record when it was first asked for, which is before any commit of this worker."""
        async with self._turn:
            if topic not in self._fed:
                reader = Reader(self._kafka)
                try:
                    _, end = await reader.end(TopicPartition(topic, 0))
                finally:
                    await reader.close()
                self._fed[topic] = end > 0
            return self._fed[topic]

    async def look(self, topic: str, raw: TopicPartition, place: int | None) -> tuple[list[int], int]:
        """Where marks of a raw partition are from `place` on (None: nobody asks), and the end of partition 0.

        All that were committed before this is called, read for all that ask at a time at once. Transactions that are
        open between them are waited for: brokers end them after ten seconds, if nobody does it before.
        """
        asked, own = self._asked.setdefault(topic, {}), object()
        asked[own] = raw, place
        try:
            async with self._turn:
                if own not in self._answers:
                    waiting = dict(asked)
                    starts = [start for _, start in waiting.values() if start is not None]
                    found, end = await self._read(TopicPartition(topic, 0), min(starts, default=None))
                    for other in waiting.keys() & asked.keys():  # who was cancelled meanwhile waits no more
                        partition, start = waiting[other]
                        offsets = [] if start is None else [at for at in found.get(partition, ()) if at >= start]
                        self._answers[other] = offsets, end
                return self._answers[own]
        finally:
            del asked[own]
            self._answers.pop(own, None)

    async def _read(self, partition: TopicPartition, start: int | None) -> tuple[Marks, int]:
        """The marks from `start` on, and the end. If `start` lies beyond that, the topic was made anew."""
        found: Marks = {}
        all_records, committed = Reader(self._kafka, committed=False), Reader(self._kafka)
        try:
            first, end = await all_records.end(partition)
            position = end if start is None else max(first, start)
            try:
                while position < end:
                    chunk = await committed.read(partition, position, end, READ_BYTES)
                    position = chunk.position
                    for raw, offsets in marks(chunk.records).items():
                        found.setdefault(raw, []).extend(offsets)
                    self.looked += len(chunk.records)
            except TopicAuthorizationFailedError:
                log.warning(
                    "offsets are believed as they are told: the log that could disprove one that is out of date may "
                    "not be read; `tailrace acls FILE --role ingest` says what is missing",
                    extra={"topic": partition.topic},
                )
        finally:
            await asyncio.gather(all_records.close(), committed.close())
        return found, end
