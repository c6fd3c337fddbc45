"""Whether producers key by trace id, as `regroup: never` needs: one trace id must not show up on two partitions.

Every partition records its decisions, so whoever reads the decisions of all partitions sees it, whichever workers own
them. One in 1,024 trace ids is looked at; the partitioner of a producer need not be known.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka.fetching import consumer_kwargs
from pipeline.kafka.topics import Topics
from pipeline.watching.seldom import Seldom
from processors.keying import Sightings
from schemas.decision import decided_keys
from schemas.errors import ProtocolError

WAIT_MS = 2_000  # that a fetch of decisions waits for more of them: nobody is in a hurry to know
AGAIN_AFTER = 10.0  # seconds, when the decisions cannot be read
COMPLAIN_EVERY = 60.0  # seconds between log lines

log = logging.getLogger(__name__)


class KeyCheck:
    """Follows the decisions of all partitions, from their ends on. Whatever goes wrong, it is only a check."""

    def __init__(self, config: Config, topics: Topics) -> None:
        self._kafka, self._raw = config.kafka, [item.topic for item in config.inputs]
        self._partitions = [TopicPartition(topics.decisions, p) for p in range(config.kafka.partitions)]
        self._sightings = Sightings()
        self._complaints = Seldom(COMPLAIN_EVERY)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            consumer = AIOKafkaConsumer(**{**consumer_kwargs(self._kafka), "fetch_max_wait_ms": WAIT_MS})
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, ProtocolError, OSError, TimeoutError) as error:
                log.warning("the keys of the raw topics are not checked", extra={"error": repr(error)})
            finally:
                await consumer.stop()
            await asyncio.sleep(AGAIN_AFTER)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._partitions)
        for partition, end in (await consumer.end_offsets(self._partitions)).items():
            consumer.seek(partition, end)
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=WAIT_MS)).items():
                for record in records:
                    self._see(partition.partition, record.value)

    def _see(self, partition: int, value: bytes) -> None:
        for key, other in self._sightings.see(partition, decided_keys(value)):
            telemetry.count("tailrace_traces_miskeyed_total")
            if not self._complaints.due(time.monotonic()):
                continue
            log.warning(
                "a trace is on two partitions, so it is decided twice and may be split: its producers do not key by "
                "trace id. In the Collector's kafkaexporter set partition_traces_by_id: true, for logs "
                "partition_logs_by_trace_id: true; all producers must use the same partitioner. Or set regroup: always",
                extra={"trace_id_low": f"{key:016x}", "partitions": [other, partition], "topics": self._raw},
            )
