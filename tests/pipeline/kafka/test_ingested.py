"""Where ingest has written last, as the log tells it."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer, TopicPartition

from pipeline.config import Config
from pipeline.kafka.ingested import Ingested
from schemas.envelope import Envelope
from tests.pipeline.kafka import create, fresh
from tests.pipeline.stages import configuration
from tests.services import Kafka


async def test_marks_that_are_committed_are_found_and_those_that_are_aborted_are_not(kafka: Kafka) -> None:
    """Behind a transaction of another raw partition that is open: it is waited for."""
    topic = fresh("spans")
    await create(kafka.bootstrap, {topic: 1})
    ingested = Ingested(Config.model_validate(configuration(kafka.bootstrap, "raw")).kafka)
    own, other = TopicPartition("raw", 0), TopicPartition("raw", 1)
    producers = [AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=fresh("id")) for _ in range(2)]
    first, second = producers
    for producer in producers:
        await producer.start()
    try:

        async def write(producer: AIOKafkaProducer, raw: TopicPartition) -> int:
            """A transaction as it is before its end: an envelope, and one with the mark."""
            await producer.begin_transaction()
            for topics in ({}, {"raw": 2}):
                envelope = Envelope(1, raw.topic, raw.partition, raw_topics=topics)
                offset: int = (await producer.send_and_wait(topic, envelope.encode(), partition=0)).offset
            return offset

        assert await ingested.look(topic, own, None) == ([], 0)
        places = [await write(first, own)]
        await first.commit_transaction()
        assert await ingested.look(topic, own, 0) == (places, 3)
        assert await ingested.look(topic, own, 3) == ([], 3)
        aborted = await write(second, other)
        places.append(await write(first, own))
        await first.commit_transaction()
        asking = [asyncio.create_task(ingested.look(topic, raw, start)) for raw, start in ((own, 0), (other, 3))]
        done, _ = await asyncio.wait(asking, timeout=0.5)
        assert not done
        await second.abort_transaction()
        assert aborted < places[1]
        assert [found for found, _ in await asyncio.gather(*asking)] == [places, []]
        assert (await ingested.look(topic, own, 1_000))[0] == [], "the topic was made anew"
        assert not ingested._answers
    finally:
        for producer in producers:
            await producer.stop()
