"""The load: a seeded stream of OTLP messages as a tier of Collectors would put it into Kafka (bench/write.py does).

A span leaves its pod when it ends, waits in the batch of the pod's agent, and goes to a partition in turn: so the
spans of a trace are spread over messages and partitions and come out of order, as from kafkaexporter without
`partition_traces_by_id`. A keyed load is batched by agent and partition instead, so that a trace lies in one partition,
still spread over its messages. Times run from `start_ms` on at `spans_per_second`, whatever the speed of writing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from struct import Struct
from typing import Literal, NamedTuple

from bench.shop import PODS, PODS_PER_SERVICE, Shape, headers, shapes
from schemas.ids import partition_of
from schemas.otlp_build import field

Signal = Literal["traces", "logs"]

SHAPES, POOL_SPANS, FEWEST_SHAPES = 512, 16_384, 8  # fewer of large traces: so many spans are made once
AGENTS = 8  # each batches for PODS / AGENTS pods
LOGS_PER_MESSAGE = 0.25  # of spans_per_message: logs are fewer, and agents flush them by age
FAR = 1 << 63  # ns: after every end
_TIMES = Struct("<cQcQ")


@dataclass(frozen=True, slots=True)
class Load:
    """What to generate. `spans` are made exactly; traces and logs follow from the seed.

    `spans_per_second` is the pace of stream time; `start_ms` (ms since the epoch) its beginning. `keyed` is the number
    of partitions of a topic keyed by trace id; 0: any message goes anywhere. `skew`: how much of all
    traces each partition of as many has, by their ids; empty: alike. `more_attributes`: of each span, beside its own.
    """

    spans: int
    start_ms: int
    spans_per_message: int = 200
    spans_per_trace: int = 12
    spans_per_second: float = 16_700
    logs_per_span: float = 0.06
    keyed: int = 0
    seed: int = 1
    skew: tuple[int, ...] = ()
    more_attributes: int = 0

    def shapes(self, random: Random) -> list[Shape]:
        """What its traces are made of."""
        count = max(FEWEST_SHAPES, min(SHAPES, POOL_SPANS // self.spans_per_trace))
        return shapes(random, count, self.spans_per_trace, self.logs_per_span, self.more_attributes)


class Trace(NamedTuple):
    """A trace of the stream: the first `spans` spans of its shape. Times in ns since the epoch."""

    shape: Shape
    spans: int
    trace_id: bytes
    span_ids: bytes
    replica: int
    begins: int
    next_begins: int


class Message(NamedTuple):
    """One Kafka message: when the last of its rows ended (ms since the epoch), and how many rows it has.

    `partition` is None where any will do.
    """

    signal: Signal
    timestamp: int
    value: bytes
    rows: int
    partition: int | None = None


@dataclass(slots=True)
class Written:
    """What a load came to. `value_bytes` is before Kafka's compression.

    `late_seconds`: the longest time between a message's timestamp and its acknowledgement, of a paced load.
    """

    traces: int = 0
    spans: int = 0
    logs: int = 0
    messages: int = 0
    value_bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    seconds: float = 0.0
    late_seconds: float = 0.0


class _Agent:
    """The batch of one agent for one signal."""

    def __init__(self, signal: Signal, limit: int, resources: list[tuple[bytes, bytes]], partition: int | None) -> None:
        self._signal, self._limit, self._resources, self._partition = signal, max(1, limit), resources, partition
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
            children = b"".join([field(0x12, row) for row in rows])
            group = scope + children
            parts.append(field(0x0A, resource + field(0x12, group)))
        message = Message(self._signal, -(-self._newest // 1_000_000), b"".join(parts), self._count, self._partition)
        self._rows, self._count = {}, 0
        return message


def traces(load: Load) -> Iterator[Trace]:
    """The traces, in the order of their beginnings."""
    random = Random(load.seed)
    pool = load.shapes(random)
    mean = sum(len(shape.spans) for shape in pool) / len(pool)
    gap_ns = mean / load.spans_per_second * 1e9
    clock, left = load.start_ms * 1_000_000, load.spans
    while left:
        shape = random.choice(pool)
        spans = min(left, len(shape.spans))
        trace_id, span_ids = random.randbytes(16), random.randbytes(8 * len(shape.spans))
        replica = random.randrange(PODS_PER_SERVICE)
        if load.skew:
            trace_id = _moved(trace_id, random.choices(range(len(load.skew)), load.skew)[0], len(load.skew))
        begins, clock = clock, clock + round(random.expovariate(1) * gap_ns)
        left -= spans
        yield Trace(shape, spans, trace_id, span_ids, replica, begins, clock if left else FAR)


def _moved(trace_id: bytes, partition: int, partitions: int) -> bytes:
    """The id, changed so that it belongs to a partition."""
    low = int.from_bytes(trace_id[8:], "big") >> 1
    return trace_id[:8] + (low - low % partitions + partition).to_bytes(8, "big")


def messages(load: Load, written: Written | None = None) -> Iterator[Message]:
    """The stream, in the order of its timestamps; `written.traces` is counted along."""
    resources = headers()
    places: list[int | None] = list(range(load.keyed)) if load.keyed else [None]
    span_agents, log_agents = (
        [[_Agent(signal, limit, resources, place) for _ in range(AGENTS)] for place in places]
        for signal, limit in _limits(load)
    )
    ending: list[tuple[int, int, list[_Agent], int, bytes]] = []  # a heap: rows whose span has not ended yet
    serial = 0
    for trace in traces(load):
        shape, trace_id, ids, clock = trace.shape, trace.trace_id, trace.span_ids, trace.begins
        place = partition_of(trace_id, load.keyed) if load.keyed else 0
        for index, span in enumerate(shape.spans[: trace.spans]):
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
            pod = span.service * PODS_PER_SERVICE + trace.replica
            heapq.heappush(ending, (end, serial, span_agents[place], pod, row))
        for log in shape.logs:
            if log.span >= trace.spans:
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
            pod = span.service * PODS_PER_SERVICE + trace.replica
            heapq.heappush(ending, (end, serial, log_agents[place], pod, row))
        if written is not None:
            written.traces += 1
        while ending and ending[0][0] <= trace.next_begins:
            at, _, agents, pod, row = heapq.heappop(ending)
            message = agents[pod * AGENTS // PODS].add(pod, row, at)
            if message is not None:
                yield message
    for agents in (*span_agents, *log_agents):
        for agent in agents:
            message = agent.flush()
            if message is not None:
                yield message


def _limits(load: Load) -> tuple[tuple[Signal, int], tuple[Signal, int]]:
    """How many rows make a message."""
    return ("traces", load.spans_per_message), ("logs", round(load.spans_per_message * LOGS_PER_MESSAGE))
