"""What a group would begin with where it is new: everything that its topics hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.config import Config
from pipeline.kafka.reader import Reader


async def retained(
    admin: AIOKafkaAdminClient, config: Config, group: str, partitions: Sequence[TopicPartition]
) -> Counter[str]:
    """Offsets by topic, of records and of markers between them, in those of these partitions where the group has none.

    Raises KafkaError or OSError where Kafka does not tell.
    """
    counts: Counter[str] = Counter()
    if not partitions:
        return counts
    found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    new = [partition for partition in partitions if partition not in found or found[partition].offset < 0]
    if not new:
        return counts
    reader = Reader(config.kafka)
    try:
        for partition in new:
            first, end = await reader.end(partition)
            counts[partition.topic] += end - first
        return +counts
    finally:
        await reader.close()
