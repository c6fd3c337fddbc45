"""What the sample role's state machine costs per span: head, decision, tail, without Kafka.

    python -m bench.micro.window [--direct] [--profile]

With `--direct` it reads the raw messages themselves, as with `regroup: never`, in batches as one fetch has them.
µs per span of process CPU, in envelopes of 200 spans of traces of five, 5 % of them kept, with span metrics. Then the
blocks that Python's allocator gained per span.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from processors.regroup import Regroup
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Settings, Window
from processors.span_metrics import SpanMetrics
from schemas.otlp_scan import SpanColumns
from schemas.raw_batch import RawReader, Record
from tests.schemas.rows import attribute

SPANS_A_MESSAGE = 200
SPANS_A_TRACE = 5
MESSAGES = 1_000
WAIT = 5_000  # ms
STEP = 50  # ms between messages
RECORDS_A_FETCH = 8
START = 1_800_000_000_000  # ms
POLICIES = [
    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
    {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 4}},
]


def message(random: Random, at: int) -> bytes:
    """200 spans of 40 traces and one service, at `at` ms."""
    spans = []
    for _ in range(SPANS_A_MESSAGE // SPANS_A_TRACE):
        trace_id, root = random.randbytes(16), random.randbytes(8)
        failed = random.random() < 0.01
        for number in range(SPANS_A_TRACE):
            start = at * 1_000_000 + random.randrange(1_000_000)
            spans.append(
                Span(
                    trace_id=trace_id,
                    span_id=random.randbytes(8) if number else root,
                    parent_span_id=root if number else b"",
                    name=f"GET /api/{random.randrange(40)}",
                    kind=Span.SPAN_KIND_SERVER,
                    start_time_unix_nano=start,
                    end_time_unix_nano=start + random.randrange(100_000_000),
                    attributes=[
                        attribute(f"example.attribute.{i}", f"a value of it {random.random()}") for i in range(8)
                    ],
                    status=Status(code=Status.STATUS_CODE_ERROR if failed and number == 3 else Status.STATUS_CODE_OK),
                )
            )
    resource = Resource(
        attributes=[attribute("service.name", f"service-{random.randrange(20)}"), attribute("host.name", "a")]
    )
    return TracesData(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


def envelopes() -> list[tuple[int, bytes]]:
    """(append time, envelope) of everything, and marks at the end."""
    random = Random(7)
    regroup = Regroup("raw", 0, "traces", "otlp_proto", 1, 16 << 20, 1 << 20)
    found = []
    for number in range(MESSAGES + 2 * WAIT // STEP):
        at = START + number * STEP
        if number < MESSAGES:
            regroup.add(number, at, message(random, at))
        found += [(at, value) for value in regroup.flush(at, {"raw": 1}).envelopes[0]]
    return found


def raw_batches() -> list[tuple[int, list[Record]]]:
    """(time, raw records) of everything, eight records a fetch, and silence at the end."""
    random = Random(7)
    found = []
    for number in range(0, MESSAGES + 2 * WAIT // STEP, RECORDS_A_FETCH):
        at = START + number * STEP
        some = range(number, min(number + RECORDS_A_FETCH, MESSAGES))
        found.append((at, [(n, START + n * STEP, message(random, START + n * STEP)) for n in some]))
    return found


def run_direct(fetches: list[tuple[int, list[Record]]], window: Window) -> int:
    """All raw records through head and tail, likewise."""
    reader, kept, burst_at = RawReader("spans", 0, 1, "traces", 16 << 20, 1 << 20), 0, START
    for at, records in fetches:
        if records:
            window.head("spans", records[0][0], at + STEP * RECORDS_A_FETCH, reader.read(records))
        else:
            window.ended("spans", at)
        if at >= burst_at + 1_000:
            burst_at = at
            kept += forwarded(window)
    return kept


def forwarded(window: Window) -> int:
    """Kept envelopes of all that the tail can pass now."""
    kept = 0
    while (burst := window.burst()) is not None:
        kept += len(burst.kept_spans)
        window.committed(0)
        if not burst.more:
            break
    return kept


def run(records: list[tuple[int, bytes]], window: Window) -> int:
    """All records through head and tail, a burst every second of stream time; kept envelopes."""
    kept, burst_at = 0, START
    for offset, (at, value) in enumerate(records):
        window.head("spans", offset, at, value)
        if at >= burst_at + 1_000:
            burst_at = at
            window.ended("logs", at)
            kept += forwarded(window)
    return kept


def main() -> None:
    direct = "--direct" in sys.argv
    settings = Settings(1, "spans", None if direct else "logs", WAIT, 600_000, direct=direct)
    source: Any = raw_batches() if direct else envelopes()
    plan = compile_policies([Policy.model_validate(p) for p in POLICIES], extra_keys=["service.name"])
    metrics = SpanMetrics("spans", [], [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 5000], plan.keys)
    window = Window(0, settings, plan, metrics)
    window.resume({}, {"spans": 0, "logs": 0})
    work: Callable[[], int] = partial(run_direct, source, window) if direct else partial(run, source, window)
    spans = MESSAGES * SPANS_A_MESSAGE
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    blocks, start = sys.getallocatedblocks(), time.process_time()
    if profile:
        profile.enable()
    kept = work()
    if profile:
        profile.disable()
    seconds = time.process_time() - start
    mode = "compiled" if hasattr(SpanColumns, "__reduce_cython__") else "uncompiled"
    print(f"{seconds / spans * 1e6:6.2f} µs/span, {kept} kept envelopes, {window.undecided} undecided, {mode}")
    print(f"{(sys.getallocatedblocks() - blocks) / spans:6.3f} blocks/span")
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
