"""Producing: timestamps as asked for, the ledger knows what Kafka has and nothing else."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from pipeline.demo.broker import EmbeddedBroker
from pipeline.demo.facts import Message
from pipeline.demo.ledger import Ledger
from pipeline.demo.letters import DeadLetterReader
from pipeline.demo.produce import produce, raw_producer
from pipeline.demo.traffic import RawTopics, Traffic

EPOCH_MS = 1_700_000_000_000
DEADLINE_SECONDS = 20.0


def traffic() -> list[Message]:
    return list(Traffic(11, 300, 4.0, EPOCH_MS * 1_000_000, 3.0).messages())


async def records(url: str, topic: str, count: int) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=url, auto_offset_reset="earliest", fetch_max_wait_ms=100)
    found: list[ConsumerRecord] = []
    async with consumer, asyncio.timeout(DEADLINE_SECONDS):
        while len(found) < count:
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                found += batch
    return found


async def test_messages_keep_their_virtual_time_and_place() -> None:
    raw, sent, ledger = RawTopics(), traffic(), Ledger()
    with EmbeddedBroker() as broker:
        broker.create([raw.spans, raw.logs, raw.json])
        async with raw_producer(broker.url) as producer:
            await produce(producer, sent, ledger, epoch_ms=EPOCH_MS)
        spans = [message for message in sent if message.topic == raw.spans]
        found = await records(broker.url, raw.spans, len(spans))
    assert sorted((r.partition, r.timestamp, r.value) for r in found) == sorted(
        (m.partition, EPOCH_MS + int(m.at * 1000), m.value) for m in spans
    )
    assert ledger.spans == sum(len(message.spans) for message in sent)
    assert len(ledger.logs) == sum(len(message.logs) for message in sent)


async def test_what_was_not_sent_is_not_in_the_ledger() -> None:
    raw, sent, ledger = RawTopics(), traffic(), Ledger()
    half = sent[len(sent) // 2].at

    async def pace(at: float) -> bool:
        return at < half

    with EmbeddedBroker() as broker:
        broker.create([raw.spans, raw.logs, raw.json])
        async with raw_producer(broker.url) as producer:
            await produce(producer, sent, ledger, pace=pace)
    assert ledger.spans == sum(len(message.spans) for message in sent if message.at < half) > 0


async def test_dead_letters_are_counted_by_reason() -> None:
    with EmbeddedBroker() as broker:
        broker.create(["dlq"])
        async with raw_producer(broker.url) as producer, DeadLetterReader(broker.url, "dlq") as letters:
            for partition, reason in enumerate((b"malformed", b"malformed", b"empty_message")):
                await producer.send_and_wait("dlq", b"?", partition=partition, headers=[("reason", reason)])
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await letters.read() < 3:
                    pass
        assert letters.reasons == {"malformed": 2, "empty_message": 1}
