"""What cannot be decoded, or is too large, goes to the dead-letter queue with its bytes and the reason.

All beside it is delivered, however odd.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from aiokafka import ConsumerRecord
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.reasons import Reason
from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import Destinations, Pipeline, running
from tests.end_to_end.traffic import Batches, Message, Shop, encode, producer, send, spans_data
from tests.services import Kafka

REQUESTS = 300
LARGE_BYTES = 20 << 20
MB = 1_000_000
MANY = 10_000  # attributes


def poison(pipeline: Pipeline, json_topic: str, shop: Shop) -> list[tuple[Message, Reason, bytes]]:
    """Every kind: the message, why it is refused, and the bytes that the dead letter must hold."""
    rng = random.Random(4)
    now = time.time()
    spans, logs = shop.request(now)
    good, log_bytes = spans_data(spans), encode(logs)
    whole: dict[str, tuple[str, bytes, Reason]] = {
        "random bytes": (pipeline.spans_topic, rng.randbytes(700), Reason.MALFORMED),
        "random bytes as logs": (pipeline.logs_topic, rng.randbytes(700), Reason.MALFORMED),
        "truncated": (pipeline.spans_topic, good[:-7], Reason.MALFORMED),
        "truncated logs": (pipeline.logs_topic, log_bytes[:-7], Reason.MALFORMED),
        "json where protobuf is expected": (pipeline.spans_topic, b'{"resourceSpans":[]}', Reason.MALFORMED),
        "compressed": (pipeline.spans_topic, gzip.compress(good), Reason.MALFORMED),
        "protobuf where json is expected": (json_topic, log_bytes, Reason.MALFORMED),
        "no line in it": (json_topic, b" \n\n", Reason.EMPTY_MESSAGE),
        "empty": (pipeline.spans_topic, b"", Reason.EMPTY_MESSAGE),
        "empty logs": (pipeline.logs_topic, b"", Reason.EMPTY_MESSAGE),
        "too large": (pipeline.spans_topic, rng.randbytes(LARGE_BYTES), Reason.MESSAGE_TOO_LARGE),
    }
    found = [
        (Message(topic, number % 2, now, value), reason, value)
        for number, (topic, value, reason) in enumerate(whole.values())
    ]
    for number, cut in enumerate((b'{"level": "INFO", "mess', b"GET / 200")):
        log = shop.untraced(now)
        line = json.dumps({"level": "INFO", "message": log.body, "service": log.service, truth.UID: log.uid}).encode()
        message = Message(json_topic, number, now, line + b"\n" + cut + b"\n", (log,))
        found.append((message, Reason.MALFORMED, cut))
    for number, trace_id in enumerate((b"", bytes(16), b"\1" * 15)):
        spans, _ = shop.request(now, "fine")
        alone = TracesData.FromString(spans_data(spans[:1]))
        alone.resource_spans[0].scope_spans[0].spans[0].trace_id = trace_id
        broken = alone.SerializeToString()
        # In one message with spans that are as they must be: only the row is refused.
        beside, _ = shop.request(now, "error")
        message = Message(pipeline.spans_topic, number, now, broken + spans_data(beside), tuple(beside))
        found.append((message, Reason.NO_TRACE_ID, broken))
    for number in range(2):
        spans, _ = shop.request(now, "fine")
        large = TracesData.FromString(spans_data(spans[:1]))
        (own,) = large.resource_spans
        header = (own.resource, own.scope_spans[0].spans[0])[number]
        header.attributes.add(key="blob").value.string_value = "v" * MB
        beside, _ = shop.request(now, "error")
        value = large.SerializeToString()
        message = Message(pipeline.spans_topic, number, now, value + spans_data(beside), tuple(beside))
        found.append((message, Reason.SPAN_TOO_LARGE, value))
    return found


def wide(pipeline: Pipeline, shop: Shop) -> list[Message]:
    """A request that failed, of which a span and a log have many attributes."""
    now = time.time()
    spans, logs = shop.request(now, "error")
    many = {f"k{number}": "v" * 30 for number in range(MANY)}
    spans[0] = replace(spans[0], attributes={**spans[0].attributes, **many})
    data = LogsData.FromString(encode(logs))
    for key, text in many.items():
        record = data.resource_logs[0].scope_logs[0].log_records[0]
        record.attributes.add(key=key).value.string_value = text
    return [
        Message(pipeline.spans_topic, 0, now, encode(spans), tuple(spans)),
        Message(pipeline.logs_topic, 0, now, data.SerializeToString(), tuple(logs)),
    ]


async def test_poison_is_set_aside_and_the_rest_delivered(
    kafka: Kafka, destinations: Destinations, tmp_path: Path
) -> None:
    json_topic = "poison-json"
    inputs = [{"topic": json_topic, "signal": "logs", "encoding": "json"}]
    async with running(Pipeline(kafka, tmp_path, "poison", {}, destinations, inputs)) as pipeline:
        shop, sent = Shop(4), truth.Truth()
        batches = Batches(pipeline.spans_topic, pipeline.logs_topic, 2, random.Random(4))
        began = time.time()
        for i in range(REQUESTS):
            at = began + i / 1000
            spans, logs = shop.request(at)
            batches.add(at, spans)
            batches.add(at, [*logs, shop.untraced(at)])
        good = list(batches.due(began + 2))
        bad, odd = poison(pipeline, json_topic, shop), wide(pipeline, shop)
        async with producer(kafka.bootstrap) as client:
            half = len(good) // 2
            await send(client, good[:half], sent)
            offsets = [await client.send_and_wait(m.topic, m.value, partition=m.partition) for m, _, _ in bad]
            for message, _, _ in bad:
                sent.add(*message.facts)
            await send(client, [*odd, *good[half:]], sent)

        worker = await pipeline.start("all")
        await pipeline.settled()

        letters = {place(letter): letter for letter in await pipeline.records([pipeline.topics.dlq])}
        assert len(letters) == len(bad)
        for (message, reason, value), written in zip(bad, offsets, strict=True):
            letter = letters[message.topic, message.partition, written.offset]
            headers = {name: text.decode() for name, text in letter.headers}
            assert (headers["reason"], headers["stage"]) == (reason, "ingest"), headers
            assert letter.value == value, headers
        for refused, count in Counter(reason for _, reason, _ in bad).items():
            labels = {"stage": "ingest", "reason": str(refused)}
            assert await asyncio.to_thread(worker.metric, "tailrace_dead_letters_total", **labels) == count
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent))
        span, log = odd[0].facts[0], odd[1].facts[0]
        assert isinstance(span, truth.Span)
        assert isinstance(log, truth.Log)
        assert await holdings.attributes_of(pipeline, span) >= MANY
        assert await holdings.attributes_of(pipeline, log) >= MANY


def place(letter: ConsumerRecord) -> tuple[str, int, int]:
    """Topic, partition and offset of the raw record that a dead letter names."""
    headers = {name: text.decode() for name, text in letter.headers}
    return headers["topic"], int(headers["partition"]), int(headers["offset"])
