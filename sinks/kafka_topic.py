"""Kept spans to a Kafka topic: `jaeger-spans` for Jaeger's ingester, or any topic for any reader of OTLP.

A message is an ExportTraceServiceRequest (encoding otlp_proto) with spans of one trace; its key is the trace id in
hexadecimal, as the Collector's kafkaexporter has it with `partition_traces_by_id`. A trace may take several messages.

The producer is idempotent and waits for all replicas: while brokers are away it sends again by itself, and writes
nothing twice. It asks none but the brokers that it knows: if there is no answer for PATIENCE, as after a cluster was
made anew behind the same names, a new one asks `bootstrap_servers`. After an error that it does not mend it is thrown
away too, since the sequence numbers of a refused batch are used up. What was under way may then be there twice, as what
a worker that dies was writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from schemas.kafka_client import connection, let_go
from schemas.otlp_check import message_class
from sinks.contract import NO_ANSWER, Destination, Outcome, Refusal, Request, SourceRecord, Unavailable
from sinks.http import shortened
from sinks.otlp_rows import RowItem, export_request, row_items
from sinks.settings import Sink

# Never more than one message is refused for its size: a batch above this size holds a single one.
BATCH_BYTES = 16 << 10
PATIENCE = 600.0  # seconds without an answer to messages, after which the producer is made anew
MESSAGE_OVERHEAD = 1 << 10  # bytes of key, record and batch around a value
REFUSING = (MessageSizeTooLargeError, RecordListTooLargeError)
Span = message_class("trace.v1.Span")  # takes names that are not UTF-8, as all before this sink do


@dataclass(frozen=True, slots=True)
class Message:
    """Spans of one trace; `indices` are their places in the request."""

    indices: tuple[int, ...]
    key: bytes
    value: bytes


class KafkaTopic(Destination[RowItem]):
    """`topic` of the cluster behind `bootstrap_servers`. `section` names its security settings in errors."""

    requests_per_lane = 1  # one producer: what it has under way fails together

    def __init__(self, settings: Sink, section: str, consistent: bool = True) -> None:
        self._settings, self._section, self._consistent = settings, section, consistent
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises Unavailable, and ConfigError for certificates that cannot be used."""
        settings = self._settings
        if self._producer is not None:
            return
        compression = settings.compression or "zstd"
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            compression_type=None if compression == "none" else compression,
            max_batch_size=BATCH_BYTES,
            max_request_size=settings.max_message_bytes + MESSAGE_OVERHEAD,
            request_timeout_ms=round(settings.timeout * 1000),  # of one attempt: idempotent batches do not expire
            **connection(settings.bootstrap_servers, settings.security, self._section),
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await let_go(producer)
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        self._producer = producer

    async def close(self) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await let_go(producer)

    def encode(self, record: SourceRecord) -> list[RowItem]:
        """The spans of an envelope of `kept.spans`."""
        return list(row_items(record, consistent=self._consistent))

    def request(self, items: Sequence[RowItem]) -> Request[RowItem]:
        """The items alone: messages are made of them when they are sent."""
        return Request(items, b"")

    async def send(self, request: Request[RowItem]) -> Outcome:
        """All messages at once; then one by one, and in halves, those that were refused for their size."""
        traces: dict[int, list[int]] = {}
        for index, item in enumerate(request.items):
            traces.setdefault(item.key, []).append(index)
        messages = [m for indices in traces.values() for m in self._messages(request.items, indices)]
        results = await self._produce(messages)
        outcome = Outcome()
        refused: list[Message] = []
        for message, error in zip(messages, results, strict=True):
            if isinstance(error, REFUSING):
                refused.append(message)
            else:
                outcome += _outcome(message, error)
        while refused:
            message = refused.pop()
            (error,) = await self._produce([message])
            if not isinstance(error, REFUSING):
                outcome += _outcome(message, error)
            elif len(message.indices) == 1:
                outcome += Outcome(refused=(Refusal(message.indices[0], _detail(error)),))
            else:
                refused += _halves(request.items, message)
        return outcome

    def _messages(self, items: Sequence[RowItem], indices: Sequence[int]) -> Iterator[Message]:
        """The messages of a trace: one, or halves of halves until each is small enough or a single span."""
        todo = [_message(items, indices)]
        while todo:
            message = todo.pop()
            if len(message.value) > self._settings.max_message_bytes and len(message.indices) > 1:
                todo += _halves(items, message)
            else:
                yield message

    async def _produce(self, messages: Sequence[Message]) -> list[BaseException | None]:
        """Write messages; for each the error, None if all replicas have it."""
        try:
            await self.start()
        except Unavailable as error:
            return [error] * len(messages)
        results: list[BaseException | None]
        try:
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*map(self._write, messages), return_exceptions=True)
        except TimeoutError:
            results = [Unavailable(f"no answer within {PATIENCE:g} s")] * len(messages)
        if any(results):
            await self.close()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, KafkaError | Unavailable):
                raise result
        return results

    async def _write(self, message: Message) -> None:
        if self._producer is None:
            raise RuntimeError("the producer is not started")
        await self._producer.send_and_wait(self._settings.topic, message.value, message.key)


def _message(items: Sequence[RowItem], indices: Sequence[int]) -> Message:
    span: Any = Span.FromString(items[indices[0]].row)
    return Message(tuple(indices), span.trace_id.hex().encode(), export_request([items[index] for index in indices]))


def _halves(items: Sequence[RowItem], message: Message) -> list[Message]:
    middle = len(message.indices) // 2
    return [_message(items, message.indices[middle:]), _message(items, message.indices[:middle])]


def _outcome(message: Message, error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome(accepted=len(message.indices))
    if isinstance(error, Unavailable):
        return Outcome(retry=message.indices, reason=NO_ANSWER, detail=str(error))
    return Outcome(retry=message.indices, reason=type(error).__name__, detail=_detail(error))


def _detail(error: BaseException) -> str:
    return shortened(f"{type(error).__name__} {error}")
