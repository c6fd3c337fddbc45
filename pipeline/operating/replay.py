"""Dead letters back to a raw topic: the bytes as they came, each letter once, never round and round.

Bytes and a receipt for each letter are one transaction, so a replay that was killed has either sent a letter and knows
it, or has not sent it: run it again. The receipts also say which raw records were replays: a letter about one of those
has been sent before, and is sent again only so often.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from pipeline.config import Config
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.commit import MAX_REQUEST_BYTES
from pipeline.kafka.pace import TRANSACTION_TIMEOUT_MS
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import Topics
from pipeline.operating.dead_letters import Found, Identity, Queue, Wanted
from pipeline.rights import DEAD_LETTERS
from schemas.dead_letter import DeadLetter, Receipt
from schemas.errors import ConfigError
from schemas.kafka_client import let_go
from schemas.raw_message import BATCH

RAW_STAGES = ("ingest", "sample")  # of letters that nothing of has been delivered yet
BATCH_LETTERS = 500
RECEIPTS_BEFORE = 3_600_000  # ms that a replay may have been before the letter of what came back
BATCH_BYTES = 8 << 20
OF, TIMES = "tailrace.replay.of", "tailrace.replays"
"""Headers of a raw record that is a replay: the key of its letter, and how often its bytes have been sent in."""

Raw = tuple[str, int, int]
"""Topic, partition and offset of a raw record."""


@dataclass(slots=True)
class Replayed:
    """What became of the letters that were asked for. `left` counts those that were not sent, by why."""

    sent: int = 0
    bytes: int = 0
    already: int = 0
    left: Counter[str] = field(default_factory=Counter)


class Replay:
    """Sends letters to `to`, or each to the topic that it came from; the same bytes at most `most` times.

    An asynchronous context manager. Raises ConfigError for a `to` that is no input.
    """

    def __init__(self, config: Config, queue: Queue, wanted: Wanted, to: str | None = None, most: int = 3) -> None:
        self._config, self._queue, self._wanted, self._to, self._most = config, queue, wanted, to, most
        self._encodings = {item.topic: item.encoding for item in config.inputs}
        if to is not None and to not in self._encodings:
            raise ConfigError(f"--to {to}: not a topic of inputs ({', '.join(self._encodings)})")
        self._topics = Topics(config.kafka.prefix)
        self._counts: dict[str, int] = {}
        self._done: set[Identity] = set()
        self._times: dict[Raw, int] = {}
        self._producer: AIOKafkaProducer = None

    async def __aenter__(self) -> Replay:
        self._counts = await partition_counts(self._config, self._encodings)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await let_go(self._producer)

    async def look(self, one: Found | None = None) -> Replayed:
        """What `run` would do now with all that are wanted, or with this one. Sends nothing."""
        await self._receipts()
        return await self._go(one)

    async def _receipts(self) -> None:
        """What was replayed before."""
        self._done, self._times = set(), {}
        since = self._wanted.since_ms  # a letter may say that what was replayed right before came back
        async for record in self._queue.records(None if since is None else since - RECEIPTS_BEFORE):
            if isinstance(record, Receipt):
                self._done.add(record.identity)
                self._times[record.topic, record.partition, record.offset] = record.replays

    async def run(self, one: Found | None, progress: Callable[[int], None]) -> Replayed:
        """Send what `look` has found; `progress` is told how many were sent so far. Raises KafkaError."""
        self._producer = self._made()
        await self._producer.start()
        await self._receipts()  # once more: another replay may have sent some since, and sends no more now
        return await self._go(one, progress)

    def refusal(self, letter: DeadLetter) -> str:
        """Why a letter cannot be sent in again, without what differs from letter to letter; empty if it can."""
        target = self._to or letter.topic
        if letter.cut_from is not None and not letter.value:
            return "what cannot be decoded cannot be redacted, and is not kept (redaction.dead_letter_payloads)"
        if letter.cut_from is not None:
            return f"only the first {len(letter.value)} bytes were kept (limits.max_dead_letter_bytes)"
        if letter.encoding.endswith(BATCH):
            return f"it is a batch of records that was not read, no message ({letter.reason}): its detail says why"
        if letter.topic.startswith(f"{self._topics.prefix}."):
            return f"{letter.topic} is an internal topic: what is in it is not in the form of a raw topic"
        if letter.stage not in RAW_STAGES and letter.stage not in self._wanted.stages:
            return f"{letter.stage} refused it after it was decided and counted: --stage {letter.stage} sends it again"
        if self._sent(letter) >= self._most:
            return f"its bytes have been replayed {self._sent(letter)} times (--most)"
        if target not in self._encodings:
            return f"{target} is no topic of inputs any more: --to names another one"
        if target not in self._counts:
            return f"{target} does not exist, or this user may not see it"
        if letter.encoding and self._encodings[target] not in (letter.encoding, "auto"):
            return f"it was wrapped as {letter.encoding}, {target} takes {self._encodings[target]}: --to another topic"
        return ""

    def _sent(self, letter: DeadLetter) -> int:
        return self._times.get((letter.topic, letter.partition, letter.offset), 0)

    async def _go(self, one: Found | None, progress: Callable[[int], None] | None = None) -> Replayed:
        """Without `progress` nothing is sent."""
        outcome, seen = Replayed(), set(self._done)
        batch: list[Found] = []
        size = 0
        async for found in self._letters(one):
            letter = found.letter
            if found.identity in seen:
                outcome.already += 1
                continue
            if why := self.refusal(letter):
                outcome.left[why] += 1
                continue
            seen.add(found.identity)
            if progress is None:
                outcome.sent += 1
                outcome.bytes += len(letter.value)
                continue
            batch.append(found)
            size += len(letter.value)
            if len(batch) >= BATCH_LETTERS or size >= BATCH_BYTES:
                await self._send(batch, outcome)
                progress(outcome.sent)
                batch, size = [], 0
        if batch:
            await self._send(batch, outcome)
        return outcome

    async def _letters(self, one: Found | None) -> AsyncIterator[Found]:
        if one is not None:
            yield one
            return
        async for record in self._queue.records(self._wanted.since_ms):
            if isinstance(record, Found) and self._wanted.takes(*record.why):
                yield record

    async def _send(self, batch: Sequence[Found], outcome: Replayed) -> None:
        """One transaction; halved where the brokers find a record too large."""
        try:
            await self._transaction(batch)
        except MessageSizeTooLargeError:
            if len(batch) == 1:
                outcome.left["the brokers refuse it as too large (max.message.bytes of the topic)"] += 1
                return
            middle = len(batch) // 2
            await self._send(batch[:middle], outcome)
            await self._send(batch[middle:], outcome)
            return
        self._done |= {found.identity for found in batch}
        outcome.sent += len(batch)
        outcome.bytes += sum(len(found.letter.value) for found in batch)

    async def _transaction(self, batch: Sequence[Found]) -> None:
        """Bytes, then receipts: they say where the bytes went. Any error leaves nothing behind."""
        transactions = self._config.kafka.transactions
        try:
            if transactions:
                await self._producer.begin_transaction()
            written = await self._written([self._raw(found) for found in batch])
            await self._written([self._receipt(*pair) for pair in zip(batch, written, strict=True)])
            if transactions:
                await self._producer.commit_transaction()
        except KafkaError:
            # Its successor's InitProducerId ends what it left open, and begins its sequence numbers anew.
            await let_go(self._producer)
            self._producer = self._made()
            await self._producer.start()
            raise

    async def _written(self, records: Sequence[Mapping[str, Any]]) -> list[RecordMetadata]:
        """All are answered before the first refusal is raised: aiokafka would commit what was not refused (M1)."""
        results = await asyncio.gather(
            *[await self._producer.send(**record) for record in records], return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)

    def _raw(self, found: Found) -> dict[str, Any]:
        """The letter as a raw record: in its partition, with its time."""
        letter, target = found.letter, self._to or found.letter.topic
        headers = [(OF, letter.key()), (TIMES, str(self._sent(letter) + 1).encode())]
        return {
            "topic": target,
            "value": letter.value,
            "partition": letter.partition % self._counts[target],
            "timestamp_ms": letter.timestamp,
            "headers": headers,
        }

    def _receipt(self, found: Found, written: RecordMetadata) -> dict[str, Any]:
        letter = found.letter
        place = written.topic, written.partition, written.offset
        receipt = Receipt(letter.key(), *found.why, str(found.place), *place, self._sent(letter) + 1)
        return {
            "topic": self._topics.dlq,
            "partition": found.place.partition,
            "key": receipt.key,
            "headers": receipt.headers(),
        }

    def _made(self) -> AIOKafkaProducer:
        """zstd: what was small enough for the topic when its producer compressed it must be so again."""
        transactional: dict[str, Any] = {"enable_idempotence": True}
        if self._config.kafka.transactions:
            own = self._topics.group(DEAD_LETTERS)
            transactional = {"transactional_id": own, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        return AIOKafkaProducer(
            max_request_size=MAX_REQUEST_BYTES,
            compression_type="zstd",
            **transactional,
            **client_kwargs(self._config.kafka),
        )
