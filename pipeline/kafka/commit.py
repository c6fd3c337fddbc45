"""How roles write Kafka: outputs and input offsets together, or not at all.

`Transaction` holds one transactional producer, fenced by its id (`prefix.role.i`): InitProducerId ends whatever the
previous owner left open, and its later writes fail. Traps of aiokafka 0.14 that this module exists for
(docs/adr/0003): a transaction whose batch was refused commits all the same unless every send is awaited *before*
the offsets; a fenced producer raises AssertionError; its back-off after CONCURRENT_TRANSACTIONS is 100 ms by default.

`Acknowledged` is the same for brokers without transactions: offsets are committed after every acknowledgement,
which is at-least-once.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from pipeline import telemetry
from pipeline.config import Config, Kafka
from pipeline.kafka.consume import Group
from pipeline.kafka.pace import TRANSACTION_TIMEOUT_MS, BurstSize
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import Topics
from schemas.dead_letter import DeadLetter
from schemas.errors import Retryable
from schemas.kafka_client import let_go

RETRY_BACKOFF_MS = 10
LINGER_MS = 0
MAX_BATCH_BYTES = 1 << 20
START_LIMIT = 60.0  # seconds; without a coordinator aiokafka would wait for ever
MAX_REQUEST_BYTES = 36 << 20  # above the largest dead letter (limits.max_dead_letter_bytes + 64 KiB)

Offsets = Mapping[TopicPartition, OffsetAndMetadata]


@dataclass(frozen=True, slots=True)
class Output:
    """One record to write. `partition` None lets the key choose (murmur2)."""

    topic: str
    value: bytes
    partition: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = field(default_factory=tuple)


def dead_letters(topics: Topics, letters: Iterable[DeadLetter], config: Config) -> list[Output]:
    """Dead letters as the queue takes them (`limits.max_dead_letter_bytes`)."""
    fitted = [letter.fitted(config.limits.max_dead_letter_bytes) for letter in letters]
    return [Output(topics.dlq, letter.value, None, letter.key(), letter.headers()) for letter in fitted]


class Committer(ABC):
    """Writes outputs and offsets as one, with a producer of one epoch."""

    def __init__(self, kafka: Kafka, group: Group, size: BurstSize, **producer: Any) -> None:
        self._group = group
        self.size = size  # of what the next commit should hold
        self.took = 0.0  # seconds, the last one
        self._open = False  # a commit is under way, or its outcome is unknown
        self._producer = AIOKafkaProducer(
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=MAX_BATCH_BYTES,
            **producer,
            **client_kwargs(kafka),
        )

    async def start(self) -> None:
        """Begin an epoch: the predecessor is fenced when this returns (I1), what it left open is ended.

        Raises TimeoutError: a coordinator that is away is waited for by taking over again, which the watchdog sees.
        """
        async with asyncio.timeout(START_LIMIT):
            await self._producer.start()

    async def commit(
        self,
        outputs: Sequence[Output],
        offsets: Offsets | Callable[[list[RecordMetadata]], Offsets],
        full: bool = False,
    ) -> list[RecordMetadata]:
        """Write all outputs, then the offsets (which may depend on where the outputs went).

        `full`: there would have been more, but for `size`.

        Any exception means that the outcome is unknown: drop all state and take over again. The rows of that commit
        are in memory no longer, so nothing more can be committed: raises Retryable.
        """
        if self._open:
            raise Retryable("an earlier commit of this epoch has an unknown outcome")
        self._open = True
        began = time.monotonic()
        try:
            with self._group.turns.transaction():
                written = await self._write(outputs, offsets if callable(offsets) else lambda _: offsets)
            self._open = False
            self.took = time.monotonic() - began
            self.size.took(self.took, full)
            return written
        except Exception:
            self.size.failed()
            raise
        finally:
            outcome = "failed" if self._open else "committed"
            telemetry.count("tailrace_transactions_total", role=self._group.role, outcome=outcome)
            telemetry.observe("tailrace_transaction_seconds", time.monotonic() - began, role=self._group.role)

    @abstractmethod
    async def _write(
        self, outputs: Sequence[Output], offsets: Callable[[list[RecordMetadata]], Offsets]
    ) -> list[RecordMetadata]:
        """Outputs, acknowledged, then offsets."""

    async def stop(self) -> None:
        """Let go without committing. Does not raise. What is open is ended by the next owner."""
        await let_go(self._producer)


class Transaction(Committer):
    """All or nothing, fenced by the transactional id."""

    def __init__(self, kafka: Kafka, group: Group, transactional_id: str) -> None:
        super().__init__(
            kafka,
            group,
            group.sizes.setdefault(transactional_id, BurstSize(kafka.commit_bytes)),
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )

    async def _write(
        self, outputs: Sequence[Output], offsets: Callable[[list[RecordMetadata]], Offsets]
    ) -> list[RecordMetadata]:
        """One transaction, opened only for this burst.

        Offsets follow the outputs: beside them, brokers refused every second TxnOffsetCommit at first.
        """
        async with asyncio.timeout(TRANSACTION_TIMEOUT_MS / 1000):
            await self._producer.begin_transaction()
            written = await _send_all(self._producer, outputs)
            moved = offsets(written)
            placed = {p: (o.offset, o.metadata) for p, o in moved.items()}
            await self._producer.send_offsets_to_transaction(placed, self._group.group_id)
            await self._producer.commit_transaction()
        self._group.moved(moved)
        return written


class Acknowledged(Committer):
    """At-least-once: acknowledged writes, then a plain commit of the offsets."""

    def __init__(self, kafka: Kafka, group: Group) -> None:
        super().__init__(kafka, group, BurstSize(kafka.commit_bytes), enable_idempotence=True)

    async def _write(
        self, outputs: Sequence[Output], offsets: Callable[[list[RecordMetadata]], Offsets]
    ) -> list[RecordMetadata]:
        """The embedded broker acknowledges without an append time: ours stands in."""
        began = int(time.time() * 1000)
        written = [record._replace(timestamp=began) for record in await _send_all(self._producer, outputs)]
        await self._group.commit(offsets(written))
        return written


def committer(kafka: Kafka, group: Group, transactional_id: str) -> Committer:
    """The committer that the brokers allow (`kafka.transactions`)."""
    return Transaction(kafka, group, transactional_id) if kafka.transactions else Acknowledged(kafka, group)


async def _send_all(producer: AIOKafkaProducer, outputs: Sequence[Output]) -> list[RecordMetadata]:
    """Send everything and await *every* acknowledgement; the first refusal is raised after all have answered."""
    futures = [
        await producer.send(
            output.topic, output.value, output.key, output.partition, headers=list(output.headers) or None
        )
        for output in outputs
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
