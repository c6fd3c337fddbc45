"""Requests through three services, made up: straight into the raw topics, with the raw timestamps a test wants.

The spans of a request are spread over all raw partitions and over half a second, the deepest first. What decides
about it is on one span or log alone, so a verdict on half a trace would be another one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status, TracesData

from tests.end_to_end.truth import SEVERITIES, UID, Log, Span, Truth
from tests.schemas.rows import attribute

MS = 1_000_000  # ns
SERVICES = ("storefront", "orders", "payments")
KINDS = {"fine": 60, "error": 8, "error-log": 8, "slow": 8, "gold": 4, "canary": 4, "probe": 4, "warned": 4}
"""What a request is, and how often in a hundred."""

SPREAD_SECONDS = 0.5
"""From the first to the last message that holds something of a request: well below any decision_wait."""

BATCH_SECONDS = 0.1
MAX_REQUEST_BYTES = 36 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """One raw record. `at` is its timestamp in seconds since the epoch; `facts` is what is truly in it."""

    topic: str
    partition: int
    at: float
    value: bytes
    facts: tuple[Span | Log, ...] = ()


@dataclass(slots=True)
class Shop:
    """Makes requests up; the same seed makes the same ones."""

    seed: int
    _number: int = 0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def request(self, at: float, kind: str = "") -> tuple[list[Span], list[Log]]:
        """One request that begins at `at` (seconds since the epoch), deepest spans first."""
        rng = self._rng
        kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        self._number += 1
        trace_id, start = rng.randbytes(16).hex(), int(at * 1e9)
        ids = [rng.randbytes(8).hex() for _ in range(5)]
        parents = ["", ids[0], ids[1], ids[2], ids[3]]
        names = ["GET /checkout", "POST orders", "POST /orders", "POST payments", "POST /payments"]
        services = ["storefront", "storefront", "orders", "orders", "payments"]
        spans = []
        for depth in range(5):
            begins, ends = start + depth * 10 * MS, start + (200 - depth * 10) * MS
            if kind == "slow" and depth == 4:  # each span is quick; only all of them together are slow
                begins, ends = begins + 1500 * MS, ends + 1500 * MS
            attributes = {"request.kind": "" if kind in ("fine", "warned") else kind}
            if depth == 4:
                attributes |= {"gold": {"customer.tier": "gold"}, "probe": {"probe": "yes"}}.get(kind, {})
            if depth == 0 and kind in ("canary", "probe"):
                attributes["release"] = "canary"
            error = kind == "error" and depth == 4
            spans.append(
                Span(
                    trace_id, ids[depth], parents[depth], services[depth], names[depth], begins, ends, error, attributes
                )
            )
        logs = []
        for depth, severity in ((0, "INFO"), (2, "DEBUG"), (4, {"error-log": "ERROR", "warned": "WARN"}.get(kind, ""))):
            if severity:
                uid = f"{self.seed}-{self._number}-{depth}"
                body = f"request {self._number} says {severity}"
                logs.append(Log(uid, services[depth], severity, body, start, trace_id, ids[depth]))
        return spans[::-1], logs

    def untraced(self, at: float) -> Log:
        """A log record that belongs to no request."""
        self._number += 1
        return Log(f"{self.seed}-{self._number}-chore", "storefront", "INFO", "cache swept", int(at * 1e9))


@dataclass(slots=True)
class Batches:
    """Facts as messages: one per partition and BATCH_SECONDS, in order of time."""

    spans_topic: str
    logs_topic: str
    partitions: int
    rng: random.Random
    _waiting: dict[tuple[int, str, int], list[Span | Log]] = field(default_factory=dict)

    def add(self, at: float, facts: Sequence[Span | Log]) -> None:
        """Facts of one request: each on some partition, the later ones later."""
        for i, fact in enumerate(facts):
            ready = at + SPREAD_SECONDS * i / len(facts)
            topic = self.spans_topic if isinstance(fact, Span) else self.logs_topic
            key = (int(ready / BATCH_SECONDS), topic, self.rng.randrange(self.partitions))
            self._waiting.setdefault(key, []).append(fact)

    def due(self, now: float) -> Iterator[Message]:
        """The messages that were ready at `now`, in order; each once."""
        for key in sorted(key for key in self._waiting if (key[0] + 1) * BATCH_SECONDS <= now):
            turn, topic, partition = key
            facts = self._waiting.pop(key)
            yield Message(topic, partition, (turn + 1) * BATCH_SECONDS, encode(facts), tuple(facts))


class Feed:
    """Live traffic, `rate` requests per second, from `start` to `finish`; `truth` knows what Kafka has.

    While `logs` is False the requests log nothing.
    """

    def __init__(self, bootstrap: str, batches: Batches, shop: Shop, rate: float, truth: Truth | None = None) -> None:
        self.truth = Truth() if truth is None else truth
        self.logs = True
        self._bootstrap, self._batches, self._shop, self._rate = bootstrap, batches, shop, rate
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def flows(self) -> bool:
        """Whether input comes: it has begun and not ended."""
        return bool(self.truth.made) and self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def finish(self) -> Truth:
        """Send what is under way, then say what was sent. Raises what went wrong."""
        self._stopping = True
        assert self._task is not None
        await self._task
        return self.truth

    async def _run(self) -> None:
        async with producer(self._bootstrap) as kafka:
            made_until = time.time()
            while not self._stopping:
                await asyncio.sleep(BATCH_SECONDS)
                now = time.time()
                while made_until < now:
                    spans, logs = self._shop.request(made_until)
                    self._batches.add(made_until, spans)
                    self._batches.add(made_until, logs if self.logs else ())
                    made_until += 1 / self._rate
                if self.logs:
                    self._batches.add(now, [self._shop.untraced(now)])
                await send(kafka, self._batches.due(now), self.truth)
            await send(kafka, self._batches.due(time.time() + 2 * SPREAD_SECONDS), self.truth)


async def send(kafka: AIOKafkaProducer, messages: Iterable[Message], truth: Truth) -> None:
    """Send messages in order; what they hold is true once Kafka has them."""
    sent = [
        (message, await kafka.send(message.topic, message.value, partition=message.partition,
                                   timestamp_ms=int(message.at * 1000)))
        for message in messages
    ]  # fmt: skip
    for message, acknowledged in sent:
        await acknowledged
        truth.add(*message.facts)


def producer(bootstrap: str) -> AIOKafkaProducer:
    """A producer that takes the largest messages, each where and as it is told, and once."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=MAX_REQUEST_BYTES, linger_ms=5
    )


def encode(facts: Sequence[Span | Log]) -> bytes:
    """Facts of one kind as the bytes that an SDK would send."""
    spans = [fact for fact in facts if isinstance(fact, Span)]
    return spans_data(spans) if spans else logs_data([fact for fact in facts if isinstance(fact, Log)])


def spans_data(spans: Iterable[Span]) -> bytes:
    """A TracesData message."""
    data, scopes = TracesData(), {}
    for span in spans:
        if span.service not in scopes:
            resource = data.resource_spans.add()
            resource.resource.attributes.append(attribute("service.name", span.service))
            scopes[span.service] = resource.scope_spans.add()
            scopes[span.service].scope.name = "shop"
        message = scopes[span.service].spans.add(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent),
            name=span.name,
            kind=SpanMessage.SPAN_KIND_SERVER,
            start_time_unix_nano=span.start_ns,
            end_time_unix_nano=span.end_ns,
            attributes=[attribute(*item) for item in span.attributes.items()],
        )
        if span.error:
            message.status.code = Status.STATUS_CODE_ERROR
    encoded: bytes = data.SerializeToString()
    return encoded


def logs_data(logs: Iterable[Log]) -> bytes:
    """A LogsData message."""
    data = LogsData()
    for log in logs:
        resource = data.resource_logs.add()
        resource.resource.attributes.append(attribute("service.name", log.service))
        resource.scope_logs.add().log_records.add(
            time_unix_nano=log.time_ns,
            observed_time_unix_nano=log.time_ns,
            severity_number=SEVERITIES[log.severity],
            severity_text=log.severity,
            body=AnyValue(string_value=log.body),
            trace_id=bytes.fromhex(log.trace_id),
            span_id=bytes.fromhex(log.span_id),
            attributes=[attribute(UID, log.uid)],
        )
    encoded: bytes = data.SerializeToString()
    return encoded
