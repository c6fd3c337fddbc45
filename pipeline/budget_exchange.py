"""What the partitions tell each other about the budgets of the fleet: read from the log of decisions.

Every transaction of `sample` writes the partition's checkpoint, and in it what it wants and what share it has
(processors.sampling.budget). A worker looks at the newest one of every partition once a second, all of its own
partitions together. When that is, only the wall clock says; what follows from it is in the checkpoints.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.kafka.log_start import ANSWER_LIMIT
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics
from schemas.decision import limiters_of
from schemas.errors import Retryable

EVERY = 1.0  # seconds
AFTER_NONE = 10.0  # seconds until the next look if one was not answered in time
SILENT = 15.0  # seconds: a partition that has written nothing for so long, while others have, wants nothing
NEWEST = 4  # offsets from the end of a log: a record, the marker of its transaction, and as much again

log = logging.getLogger(__name__)

Told = Mapping[str, Sequence[tuple[int, int]]] | None
"""`limiters` of a partition's newest checkpoint; empty: none was seen yet; None: it is silent."""


class _Newest(NamedTuple):
    """A partition's newest checkpoint: its offset, since when it is there (monotonic, seconds), and what it says."""

    offset: int
    since: float
    limiters: Told


class BudgetExchange:
    """The newest checkpoints of all N partitions, for all leases of a worker; `meanings` are those of its plan."""

    def __init__(self, topics: Topics, partitions: int, meanings: Mapping[str, str]) -> None:
        self._meanings = meanings
        self._partitions = [TopicPartition(topics.decisions, index) for index in range(partitions)]
        self._newest: dict[TopicPartition, _Newest] = {}
        self._looked, self._began = float("-inf"), 0.0  # the last time, the first time

    async def look(self, reader: Reader) -> Sequence[Told] | None:
        """What all say now; None if somebody has looked within the last second and nothing was to be seen.

        A Kafka that does not answer is no reason to stop: shares stay what they are.
        """
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            self._began = self._began or self._looked
            try:
                async with asyncio.timeout(ANSWER_LIMIT):  # bursts wait for this
                    found = await reader.newest(self._partitions, NEWEST)
                self._take(found)
            except (KafkaError, Retryable, TimeoutError) as error:
                log.warning("budgets of other partitions could not be read", extra={"error": repr(error)})
                self._looked = time.monotonic() + AFTER_NONE
        if not self._newest:
            return None
        oldest = max(newest.since for newest in self._newest.values()) - SILENT
        return [self._told(partition, oldest) for partition in self._partitions]

    def _take(self, found: Mapping[TopicPartition, tuple[int, int, bytes]]) -> None:
        """Newest records: offset, append time, value. Only at first sight do brokers' clocks say how old one is."""
        last = max((append for _, append, _ in found.values()), default=0)
        for partition, (offset, append, value) in found.items():
            known = self._newest.get(partition)
            if known is None:
                since = self._looked - (last - append) / 1000
            else:
                since = known.since if known.offset == offset else self._looked
            self._newest[partition] = _Newest(offset, since, limiters_of(value, self._meanings))

    def _told(self, partition: TopicPartition, oldest: float) -> Told:
        newest = self._newest.get(partition)
        if newest is None:  # it begins just now, or has nothing to decide
            return {} if self._looked < self._began + SILENT else None
        return newest.limiters if newest.since >= oldest else None
