"""What cannot be decoded goes to the dead-letter queue with its bytes and the reason; all beside it is delivered."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path

from aiokafka import ConsumerRecord
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.reasons import Reason
from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import Destinations, Pipeline, running
from tests.end_to_end.traffic import Batches, Message, Shop, encode, producer, send, spans_data
from tests.services import Kafka

REQUESTS = 300
LARGE_BYTES = 20 << 20


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
    return found


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
        bad = poison(pipeline, json_topic, shop)
        async with producer(kafka.bootstrap) as client:
            half = len(good) // 2
            await send(client, good[:half], sent)
            offsets = [await client.send_and_wait(m.topic, m.value, partition=m.partition) for m, _, _ in bad]
            for message, _, _ in bad:
                sent.add(*message.facts)
            await send(client, good[half:], sent)

        await pipeline.start("all")
        await pipeline.settled()

        letters = {place(letter): letter for letter in await pipeline.records([pipeline.topics.dlq])}
        assert len(letters) == len(bad)
        for (message, reason, value), written in zip(bad, offsets, strict=True):
            letter = letters[message.topic, message.partition, written.offset]
            headers = {name: text.decode() for name, text in letter.headers}
            assert (headers["reason"], headers["stage"]) == (reason, "ingest"), headers
            assert letter.value == value, headers
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent))


def place(letter: ConsumerRecord) -> tuple[str, int, int]:
    """Topic, partition and offset of the raw record that a dead letter names."""
    headers = {name: text.decode() for name, text in letter.headers}
    return headers["topic"], int(headers["partition"]), int(headers["offset"])
