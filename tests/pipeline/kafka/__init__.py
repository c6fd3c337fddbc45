"""What tests of the delivery protocol do with a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from pipeline import telemetry
from pipeline.kafka.lease import Lease
from tests.services import eventually

DEADLINE = 60.0  # seconds that anything here may take before the test fails
LONGEST_ENDING = 10.0  # seconds that a transaction which is not left open takes to end in all of its partitions


async def create(bootstrap: str, topics: Mapping[str, int], **configs: str) -> None:
    """Topics with their partition counts."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(n, c, 1, topic_configs=dict(configs)) for n, c in topics.items()])
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def producing(bootstrap: str, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that writes each record once."""
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=transactional_id, enable_idempotence=True
    ) as producer:
        yield producer


def fresh(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


async def read_all(bootstrap: str, topic: str) -> list[ConsumerRecord]:
    """Every committed record of a topic, of what had been written at the time of asking.

    A transaction that another topic shows already may not have ended in this one: its end is written to one partition
    after the other. One that was left open hides what comes behind it.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="none")
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic, p)
            for p in sorted(consumer.partitions_for_topic(topic) or await _known(consumer, topic))
        ]
        consumer.assign(partitions)
        await _transactions_ended(bootstrap, consumer, partitions)
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, starts[partition])
        records: list[ConsumerRecord] = []
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for fetched in (await consumer.getmany(timeout_ms=200)).values():
                records.extend(fetched)
        return records
    finally:
        await consumer.stop()


async def _transactions_ended(
    bootstrap: str, committed: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> None:
    """Wait for the transactions that `committed` does not see yet, but for those that were left open."""
    written = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await written.start()
    try:
        ends = await written.end_offsets(partitions)
    finally:
        await written.stop()

    async def ended() -> bool:
        return all(end >= ends[p] for p, end in (await committed.end_offsets(partitions)).items())

    with contextlib.suppress(TimeoutError):
        await eventually(ended, LONGEST_ENDING, "open transactions have ended")


async def _known(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client._wait_on_metadata(topic)
    found: set[int] = consumer.partitions_for_topic(topic)
    return found


async def forget(bootstrap: str, partition: TopicPartition, before: int = -1) -> None:
    """What retention does: records before an offset go, by default all that there are."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({partition: RecordsToDelete(before)})
    finally:
        await admin.close()


def expired(signal: str) -> float:
    """Records that roles in this process have counted as taken by retention; `signal` is their topic."""
    labels = {"signal": signal, "reason": "retention", "intentional": "false"}
    return telemetry.REGISTRY.get_sample_value("tailrace_dropped_total", labels) or 0.0


def dies_before_it_commits(patched: pytest.MonkeyPatch, lease: type[Lease]) -> None:
    """As a worker that is killed once its leases have begun."""

    async def nothing_more(_: Lease) -> None:
        await asyncio.Event().wait()

    async def nothing(_: Lease) -> None:
        pass

    patched.setattr(lease, "work", nothing_more)
    patched.setattr(lease, "finish", nothing)


async def committed(bootstrap: str, group: str, partition: TopicPartition) -> int:
    """The group's offset, -1 for none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=[partition])
        offset: int = found[partition].offset
        return offset
    finally:
        await admin.close()
