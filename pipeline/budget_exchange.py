"""What the partitions tell each other about the budgets of the fleet: read from the log of decisions.

Every transaction of `sample` writes the partition's checkpoint, and in it what it wants and what share it has
(processors.sampling.budget). A worker looks at the newest one of every partition once a second, all of its own
partitions together. When that is, only the wall clock says; what follows from it is in the checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.reader import Reader
from pipeline.topics import Topics
from schemas.decision import limiters_of
from schemas.errors import Retryable

EVERY = 1.0  # seconds
SILENT_MS = 15_000  # a partition that has written nothing for so long, by the broker's clock, wants nothing
NEWEST = 4  # offsets from the end of a log: a record, the marker of its transaction, and as much again

log = logging.getLogger(__name__)

States = Sequence[Mapping[str, Sequence[tuple[int, int]]]]
"""`limiters` of the newest checkpoint of each partition; empty of one that is silent."""


class BudgetExchange:
    """The newest checkpoints of all N partitions, for all leases of a worker."""

    def __init__(self, topics: Topics, partitions: int) -> None:
        self._partitions = [TopicPartition(topics.decisions, index) for index in range(partitions)]
        self._newest: dict[TopicPartition, tuple[int, Mapping[str, Sequence[tuple[int, int]]]]] = {}
        self._looked = float("-inf")

    async def look(self, reader: Reader) -> States | None:
        """What all say now; None if somebody has looked within the last second and nothing was to be seen.

        A Kafka that does not answer is no reason to stop: shares stay what they are.
        """
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            try:
                for partition, (_, append, value) in (await reader.newest(self._partitions, NEWEST)).items():
                    self._newest[partition] = append, limiters_of(value)
            except (KafkaError, Retryable) as error:
                log.warning("budgets of other partitions could not be read", extra={"error": str(error)})
        if not self._newest:
            return None
        oldest = max(append for append, _ in self._newest.values()) - SILENT_MS
        told = (self._newest.get(partition, (-1, {})) for partition in self._partitions)
        return [limiters if append >= oldest else {} for append, limiters in told]
