"""What a group that is new would begin with: everything that its topics hold."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import with_admin
from schemas.errors import Unavailable
from schemas.kafka_client import told


async def retained(config: Config, group: str, partitions: Sequence[TopicPartition]) -> int:
    """Offsets in these partitions, of records and of markers between them; 0 if the group has any of its own.

    Raises Unavailable or Permanent where Kafka does not tell.
    """

    async def committed(admin: AIOKafkaAdminClient, _: Config) -> bool:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
        return any(offset.offset >= 0 for offset in found.values())

    if not partitions or await with_admin(config, committed):
        return 0
    reader = Reader(config.kafka)
    try:
        return sum(end - first for first, end in [await reader.end(partition) for partition in partitions])
    except (KafkaError, OSError) as error:
        raise Unavailable(told(error)) from error
    finally:
        await reader.close()
