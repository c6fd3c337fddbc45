"""The embedded broker as aiokafka sees it: what the roles rely on."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from pipeline.demo.broker import PARTITIONS, EmbeddedBroker


async def test_produces_consumes_and_commits_with_metadata() -> None:
    with EmbeddedBroker() as broker:
        assert broker.create(["shop", "other"]) == {"shop": PARTITIONS, "other": PARTITIONS}
        partition = TopicPartition("shop", 2)
        producer = AIOKafkaProducer(bootstrap_servers=broker.url, enable_idempotence=True, compression_type="zstd")
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.url,
            group_id="readers",
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
        )
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.url)
        async with producer, consumer:
            await admin.start()
            for n in range(10):
                await producer.send_and_wait("shop", b"%d" % n, partition=2, headers=[("h", b"v")])
            consumer.assign([partition])
            consumer.seek(partition, 4)
            record = await consumer.getone()
            assert (record.offset, record.value, record.headers) == (4, b"4", (("h", b"v"),))
            assert await consumer.end_offsets([partition]) == {partition: 10}
            await consumer.commit({partition: OffsetAndMetadata(5, "pointer")})
            offsets = await admin.list_consumer_group_offsets("readers", partitions=[partition])
            assert offsets == {partition: OffsetAndMetadata(5, "pointer")}
            await admin.close()
