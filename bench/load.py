"""The load: a seeded stream of OTLP messages as a tier of Collectors would put it into Kafka, and its writer.

A span leaves its pod when it ends, waits in the batch of the pod's agent, and goes to a partition in turn: so the
spans of a trace are spread over messages and partitions and come out of order, as from kafkaexporter without
`partition_traces_by_id`. Times run from `start_ms` on at `spans_per_second`, whatever the speed of writing.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from struct import Struct
from typing import Literal, NamedTuple

from confluent_kafka import KafkaError, Producer

from bench.shop import PODS, PODS_PER_SERVICE, headers, shapes

Signal = Literal["traces", "logs"]

SHAPES = 512
AGENTS = 8  # each batches for PODS / AGENTS pods
LOGS_PER_MESSAGE = 0.25  # of spans_per_message: logs are fewer, and agents flush them by age
POLL_SECONDS = 0.1
FLUSH_SECONDS = 120.0
_TIMES = Struct("<cQcQ")


@dataclass(frozen=True, slots=True)
class Load:
    """What to generate. `spans` are made exactly; traces and logs follow from the seed.

    `spans_per_second` is the pace of stream time; `start_ms` (ms since the epoch) its beginning.
    """

    spans: int
    start_ms: int
    spans_per_message: int = 200
    spans_per_trace: int = 12
    spans_per_second: float = 16_700
    logs_per_span: float = 0.06
    seed: int = 1


class Message(NamedTuple):
    """One Kafka message: when the last of its rows ended (ms since the epoch), and how many rows it has."""

    signal: Signal
    timestamp: int
    value: bytes
    rows: int


@dataclass(slots=True)
class Written:
    """What a load came to. `value_bytes` is before Kafka's compression."""

    traces: int = 0
    spans: int = 0
    logs: int = 0
    messages: int = 0
    value_bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    seconds: float = 0.0


class LoadFailed(RuntimeError):
    """Kafka did not take the load."""


class _Agent:
    """The batch of one agent for one signal."""

    def __init__(self, signal: Signal, limit: int, resources: list[tuple[bytes, bytes]]) -> None:
        self._signal, self._limit, self._resources = signal, max(1, limit), resources
        self._rows: dict[int, list[bytes]] = {}
        self._count = self._newest = 0

    def add(self, pod: int, row: bytes, at_ns: int) -> Message | None:
        """A message once the batch is full."""
        self._rows.setdefault(pod, []).append(row)
        self._count += 1
        self._newest = at_ns
        return self.flush() if self._count >= self._limit else None

    def flush(self) -> Message | None:
        """What there is."""
        if not self._count:
            return None
        parts = []
        for pod, rows in self._rows.items():
            resource, scope = self._resources[pod]
            children = b"".join([b"\x12" + _varint(len(row)) + row for row in rows])
            group = scope + children
            parts.append(_framed(b"\x0a", resource + _framed(b"\x12", group)))
        message = Message(self._signal, -(-self._newest // 1_000_000), b"".join(parts), self._count)
        self._rows, self._count = {}, 0
        return message


def messages(load: Load, written: Written | None = None) -> Iterator[Message]:
    """The stream, in the order of its timestamps; `written.traces` is counted along."""
    random = Random(load.seed)
    pool = shapes(random, SHAPES, load.spans_per_trace, load.logs_per_span)
    mean = sum(len(shape.spans) for shape in pool) / len(pool)
    gap_ns = mean / load.spans_per_second * 1e9
    resources = headers()
    span_agents = [_Agent("traces", load.spans_per_message, resources) for _ in range(AGENTS)]
    log_agents = [_Agent("logs", round(load.spans_per_message * LOGS_PER_MESSAGE), resources) for _ in range(AGENTS)]
    ending: list[tuple[int, int, list[_Agent], int, bytes]] = []  # a heap: rows whose span has not ended yet
    clock, left, serial = load.start_ms * 1_000_000, load.spans, 0
    while left:
        shape = random.choice(pool)
        trace_id = random.randbytes(16)
        ids = random.randbytes(8 * len(shape.spans))
        replica = random.randrange(PODS_PER_SERVICE)
        for index, span in enumerate(shape.spans[:left]):
            end = clock + span.end
            parent = b"" if span.parent < 0 else b"\x22\x08" + ids[8 * span.parent : 8 * span.parent + 8]
            row = b"".join(
                (
                    b"\x0a\x10",
                    trace_id,
                    b"\x12\x08",
                    ids[8 * index : 8 * index + 8],
                    parent,
                    span.head,
                    _TIMES.pack(b"\x39", clock + span.start, b"\x41", end),
                    span.tail,
                )
            )
            serial += 1
            heapq.heappush(ending, (end, serial, span_agents, span.service * PODS_PER_SERVICE + replica, row))
        for log in shape.logs:
            if log.span >= left:
                break
            span = shape.spans[log.span]
            end = clock + span.end
            row = b"".join(
                (
                    b"\x09",
                    end.to_bytes(8, "little"),
                    log.middle,
                    b"\x4a\x10",
                    trace_id,
                    b"\x52\x08",
                    ids[8 * log.span : 8 * log.span + 8],
                    b"\x59",
                    end.to_bytes(8, "little"),
                )
            )
            serial += 1
            heapq.heappush(ending, (end, serial, log_agents, span.service * PODS_PER_SERVICE + replica, row))
        left -= min(left, len(shape.spans))
        if written is not None:
            written.traces += 1
        clock += round(random.expovariate(1) * gap_ns)
        while ending and (ending[0][0] <= clock or not left):
            at, _, agents, pod, row = heapq.heappop(ending)
            message = agents[pod * AGENTS // PODS].add(pod, row, at)
            if message is not None:
                yield message
    for agent in (*span_agents, *log_agents):
        message = agent.flush()
        if message is not None:
            yield message


def write(
    bootstrap: str,
    topics: dict[Signal, tuple[str, int]],
    load: Load,
    *,
    paced: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write a load to raw topics (name, partitions), zstd-compressed; return once every message is acknowledged.

    `paced` sends each message when its timestamp has come. `stopped` is asked before each message.
    Raises LoadFailed.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "zstd",
            "linger.ms": 5,
            "acks": "all",
            "message.max.bytes": 32 << 20,
            "queue.buffering.max.kbytes": 256 << 10,
            "enable.idempotence": True,
            "log_level": 0,  # a new broker's coordinator is retried, which librdkafka would print; failures are raised
        }
    )
    refused: list[str] = []

    def acknowledged(error: KafkaError | None, _: object) -> None:
        if error is not None:
            refused.append(str(error))

    done = Written()
    turn: dict[Signal, int] = {"traces": 0, "logs": 0}
    began = said = time.monotonic()
    for message in messages(load, done):
        if stopped() or refused:
            break
        while paced and (wait := message.timestamp / 1000 - time.time()) > 0:
            producer.poll(min(wait, POLL_SECONDS))
            if stopped():
                break
        topic, partitions = topics[message.signal]
        turn[message.signal] += 1
        partition = turn[message.signal] % partitions
        while True:
            try:
                producer.produce(
                    topic,
                    message.value,
                    partition=partition,
                    timestamp=message.timestamp,
                    on_delivery=acknowledged,
                )
                break
            except BufferError:
                producer.poll(POLL_SECONDS)
        producer.poll(0)
        if message.signal == "traces":
            done.spans += message.rows
        else:
            done.logs += message.rows
        done.messages += 1
        done.value_bytes += len(message.value)
        done.first_ms = done.first_ms or message.timestamp
        done.last_ms = max(done.last_ms, message.timestamp)
        if time.monotonic() - said > 2:
            said = time.monotonic()
            say(f"load: {done.spans:,} of {load.spans:,} spans")
    left = producer.flush(FLUSH_SECONDS)
    if refused or left:
        raise LoadFailed(refused[0] if refused else f"{left} messages were not acknowledged in {FLUSH_SECONDS:.0f} s")
    done.seconds = time.monotonic() - began
    return done


def _framed(tag: bytes, payload: bytes) -> bytes:
    return tag + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
