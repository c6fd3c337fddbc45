"""What a group would begin with where it is new: everything that its topics hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.kafka.admin import with_admin
from pipeline.kafka.reader import Reader
from schemas.errors import Unavailable
from schemas.kafka_client import told


async def retained(config: Config, group: str, partitions: Sequence[TopicPartition]) -> Counter[str]:
    """Offsets by topic, of records and of markers between them, in those of these partitions where the group has none.

    Raises Unavailable or Permanent where Kafka does not tell.
    """

    async def not_committed(admin: AIOKafkaAdminClient) -> list[TopicPartition]:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
        return [partition for partition in partitions if partition not in found or found[partition].offset < 0]

    counts: Counter[str] = Counter()
    if not partitions or not (new := await with_admin(config, not_committed)):
        return counts
    reader = Reader(config.kafka)
    try:
        for partition in new:
            first, end = await reader.end(partition)
            counts[partition.topic] += end - first
        return +counts
    except (KafkaError, OSError) as error:
        raise Unavailable(told(error)) from error
    finally:
        await reader.close()
