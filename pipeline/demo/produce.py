"""Messages into Kafka, paced or as fast as they are taken, each entered in the ledger once Kafka has it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from pipeline.demo.facts import Message
from pipeline.demo.ledger import Ledger

IN_FLIGHT = 500
"""Messages sent but not yet acknowledged, at most."""

Pace = Callable[[float], Awaitable[bool]]
"""Waits until `at` (seconds after the start); False means: stop, send no more."""


def raw_producer(bootstrap_servers: str) -> AIOKafkaProducer:
    """A producer as SDKs and agents have it: no key, partitions chosen by the generator."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, enable_idempotence=True, acks="all", linger_ms=2, max_request_size=16 << 20
    )


async def produce(
    producer: AIOKafkaProducer,
    messages: Iterable[Message],
    ledger: Ledger,
    *,
    pace: Pace | None = None,
    epoch_ms: int | None = None,
) -> None:
    """Send `messages`; returns when Kafka has acknowledged all of them.

    `pace` None sends at once. `epoch_ms` (Unix) stamps a message with its virtual time; None leaves it to the clock.
    Raises the KafkaError of the first message that was refused.
    """
    flying: deque[tuple[asyncio.Future[Any], Message]] = deque()

    async def land(limit: int) -> None:
        while flying and (len(flying) > limit or flying[0][0].done()):
            future, message = flying.popleft()
            await future
            ledger.record(message)

    try:
        for message in messages:
            if pace is not None and not await pace(message.at):
                break
            stamp = None if epoch_ms is None else epoch_ms + int(message.at * 1000)
            future = await producer.send(message.topic, message.value, partition=message.partition, timestamp_ms=stamp)
            flying.append((future, message))
            await land(IN_FLIGHT)
    finally:
        await land(0)
