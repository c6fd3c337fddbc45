"""Questions to the brokers outside of a group: which topics there are, and their settings.

A topic that is merely asked about by name is created by brokers with `auto.create.topics.enable` (measured: 4
partitions, CreateTime), so everything here lists all topics and picks from the list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError

from pipeline.config import Config
from pipeline.kafka.security import client_kwargs
from schemas.errors import Permanent, Unavailable
from schemas.kafka_client import told


async def partition_counts(config: Config, names: Collection[str] | None = None) -> dict[str, int]:
    """Partitions of the topics that exist, of all or of those in `names`. Raises Unavailable."""
    async with connected(config) as admin:
        found = await counts(admin)
    return found if names is None else {name: found[name] for name in names if name in found}


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for what the block asks. Raises Unavailable when Kafka does not answer, else Permanent."""
    admin = AIOKafkaAdminClient(client_id=f"{config.kafka.prefix}.topics", **client_kwargs(config.kafka))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        text = f"kafka {', '.join(config.kafka.bootstrap_servers)}: {told(error)}"
        retryable = getattr(error, "retriable", True) or isinstance(error, KafkaConnectionError)
        raise (Unavailable if retryable else Permanent)(text) from error
    finally:
        await admin.close()


async def counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Partitions of each topic that there is."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(None)}


async def settings(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Effective settings by topic; empty for a topic whose settings this user may not read."""
    if not names:
        return {}
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        name: {} if code else {entry[0]: entry[1] for entry in entries}
        for response in responses
        for code, _message, _kind, name, entries in response.resources
    }
