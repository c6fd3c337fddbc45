"""What ingest has written, as whoever takes a raw partition over finds it in the log.

A coordinator of Kafka 4.1 that was killed may answer while it still loads, with an offset of some time ago
(docs/adr/0003, M21). The log of what is fed knows better. Every transaction of a raw partition ends with a mark in
partition 0, and the metadata of the offset that moved with it says where (schemas/raw_offset.py): an offset behind
whose mark there is another of the same raw partition is an old one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError

from pipeline.config import Kafka
from pipeline.reader import Reader
from schemas.envelope import Envelope

log = logging.getLogger(__name__)


def newest(records: Iterable[tuple[int, int, bytes]]) -> dict[tuple[str, int], int]:
    """The last of these records (offset, append time, envelope) of each raw partition: its offset."""
    found = {}
    for offset, _, value in records:
        envelope = Envelope.decode(value)
        found[envelope.topic, envelope.partition] = offset
    return found


class Ingested:
    """Partition 0 of the topics that this worker's raw partitions feed."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka.model_copy(update={"client_rack": None})  # a follower may not have heard of the end yet
        self._fed: dict[str, bool] = {}
        self._asked: dict[str, dict[TopicPartition, int]] = {}  # by topic: who waits for an answer, with its place
        self._answers: dict[TopicPartition, int] = {}
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

    async def newest(self, topic: str, raw: TopicPartition, place: int) -> int:
        """Where the last record of a raw partition is that was committed before this is called; `place` if it is that.

        Reads on from `place`, for all that ask at a time at once. Transactions that are open there are waited for:
        brokers end them after ten seconds, if nobody does it before.
        """
        asked = self._asked.setdefault(topic, {})
        asked[raw] = place
        try:
            async with self._turn:
                if raw not in self._answers:
                    places = dict(asked)
                    found = await self._read(TopicPartition(topic, 0), min(places.values()) + 1)
                    self._answers |= {p: max(found.get((p.topic, p.partition), at), at) for p, at in places.items()}
                return self._answers[raw]
        finally:
            asked.pop(raw, None)
            self._answers.pop(raw, None)

    async def _read(self, partition: TopicPartition, start: int) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        reader = Reader(self._kafka)
        try:
            async for records in reader.since(partition, start):
                found |= newest(records)
                self.looked += len(records)
                await asyncio.sleep(0)
        except OffsetOutOfRangeError:
            log.info("topic was made anew", extra={"topic": partition.topic, "position": start})
        except TopicAuthorizationFailedError:
            log.warning(
                "offsets are believed as they are told: the log that could disprove one that is out of date may not be "
                "read; `tailrace acls FILE --role ingest` says what is missing",
                extra={"topic": partition.topic},
            )
        finally:
            await reader.close()
        return found
