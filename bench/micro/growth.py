"""How the cost of a span grows: µs of CPU in `sample`, one property of the load changed at a time, in one process.

    python -m bench.micro.growth

From the raw message, as Kafka's client has it when it is decompressed, to what a transaction holds: split, scanned,
folded, decided and cut out (`regroup: never`, no span metrics). First as many traces are let in as are undecided at
once, then the next ones are measured, while as many are decided. The spans of 40 traces come by turns, so that a
message has a few of each. Uncompiled, for the record, the usual load alone is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from bench.measure import console, in_process, keep, table
from bench.micro.memory import trace_ids
from bench.verdicts import Mix
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Settings, Window
from schemas.raw_batch import RawReader, Record
from tests.repository import ROOT
from tests.schemas.rows import attribute

COLUMNS = ("Load", "µs a span", "Against the usual")
MEASURED_SPANS = 400_000
SPANS_A_BATCH = 2_000  # of one fetch
SPANS_A_BURST = 20_000
BY_TURNS = 40  # traces
TEMPLATES = 8  # batches that come again with other trace ids
FAILED = 0.02  # of the traces
START_MS = 1_800_000_000_000
ID_BYTES = 16

out = console()


@dataclass(frozen=True, slots=True)
class Given:
    """A load; `live` is how many traces are undecided at once."""

    spans_per_message: int = 200
    spans_per_trace: int = 12
    attributes: int = 8
    live: int = 10_000


USUAL = Given()
LOADS = {
    "the usual: 200 spans a message, 12 a trace, 8 attributes a span, 10,000 live traces": USUAL,
    **{f"{n} spans a message": replace(USUAL, spans_per_message=n) for n in (1, 10, 1_000)},
    **{f"{n:,} spans a trace": replace(USUAL, spans_per_trace=n, live=live)
       for n, live in ((1, 10_000), (100, 1_000), (1_000, 200), (10_000, BY_TURNS))},
    **{f"{n} attributes a span": replace(USUAL, attributes=n) for n in (5, 20, 50, 100)},
    **{f"{n:,} live traces of 2 spans": replace(USUAL, spans_per_trace=2, live=n)
       for n in (10_000, 100_000, 1_000_000, 5_000_000)},
}  # fmt: skip


def spans_message(random: Random, given: Given) -> bytes:
    """One message, with ids to be written over."""
    spans = [
        Span(
            trace_id=random.randbytes(ID_BYTES),
            span_id=random.randbytes(8),
            parent_span_id=random.randbytes(8) if number % given.spans_per_trace else b"",
            name=f"GET /api/{random.randrange(40)}",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=START_MS * 1_000_000,
            end_time_unix_nano=START_MS * 1_000_000 + random.randrange(100_000_000),
            attributes=[attribute(f"example.key.{n}", f"value {random.random()}") for n in range(given.attributes)],
            status=Status(code=Status.STATUS_CODE_ERROR) if random.random() < FAILED / given.spans_per_trace else None,
        )
        for number in range(given.spans_per_message)
    ]
    resource = Resource(attributes=[attribute("service.name", f"service-{random.randrange(20)}")])
    group = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])
    encoded: bytes = TracesData(resource_spans=[group]).SerializeToString()
    return encoded


def batches(given: Given) -> Iterator[list[Record]]:
    """Fetches without an end: templates with the ids of ever new traces; a trace begins each millisecond."""
    random, offset = Random(7), 0
    several = max(1, SPANS_A_BATCH // given.spans_per_message)
    templates = [[spans_message(random, given) for _ in range(several)] for _ in range(TEMPLATES)]
    places = [[[place for (place,) in trace_ids(message)] for message in each] for each in templates]
    ids, left = [b""] * BY_TURNS, [0] * BY_TURNS
    turn = begun = number = 0
    while True:
        records: list[Record] = []
        for template, at in zip(templates[number % TEMPLATES], places[number % TEMPLATES], strict=True):
            value = bytearray(template)
            for place in at:
                if not left[turn]:
                    ids[turn], left[turn], begun = random.randbytes(ID_BYTES), given.spans_per_trace, begun + 1
                value[place : place + ID_BYTES] = ids[turn]
                left[turn] -= 1
                turn = (turn + 1) % BY_TURNS
            records.append((offset, START_MS + begun, bytes(value)))
            offset += 1
        number += 1
        yield records


def measure(given: Given) -> float:
    """µs of CPU a span."""
    policies = [Policy.model_validate(policy) for policy in Mix().policies()]
    plan = compile_policies(policies, compat="otel", extra_keys=["service.name"])
    wait = max(1, given.live)  # ms: a trace begins in each
    window = Window(0, Settings(1, "spans", None, wait, 10 * wait, cache_bytes=1 << 40, direct=True), plan, None)
    window.resume({}, {"spans": 0})
    reader = RawReader("spans", 0, 1, "traces", 16 << 20, 1 << 20)
    live_spans = given.live * given.spans_per_trace
    spent = passed = waiting = decided = 0
    for records in batches(given):
        began = time.process_time_ns()
        window.head("spans", records[0][0], records[-1][1], reader.read(records))
        waiting += len(records) * given.spans_per_message
        if waiting >= SPANS_A_BURST:
            while (burst := window.burst()) is not None:
                decided += burst.stats["decided", "kept"] + burst.stats["decided", "dropped"]
                window.committed(records[-1][1])
                if not burst.more:
                    break
        if passed >= live_spans + SPANS_A_BURST:
            spent += time.process_time_ns() - began
        passed += len(records) * given.spans_per_message
        if waiting >= SPANS_A_BURST:
            waiting = 0
            if passed >= live_spans + SPANS_A_BURST + MEASURED_SPANS:
                break
    measured = passed - live_spans - SPANS_A_BURST
    assert decided * given.spans_per_trace > measured / 2, f"{decided} traces decided of {measured} spans"
    assert window.undecided > given.live / 2, f"{window.undecided} traces undecided at once"
    return spent / 1000 / measured


def uncompiled() -> float:
    """The usual load in a process that has the sources alone."""
    code = "from bench.micro.growth import USUAL, measure; print(measure(USUAL))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.PIPE
    )
    return float(json.loads(done.stdout))


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    usual = next(iter(figures["us"].values()))
    return [[name, f"{us:.2f}", f"{us / usual:.2f}×"] for name, us in figures["us"].items()]


def main() -> None:
    """Measure, print, save."""
    figures = in_process() | {"us": {}}
    for number, (name, given) in enumerate(LOADS.items(), 1):
        figures["us"][name] = measure(given)
        out.print(f"[{number}/{len(LOADS) + 1}] {name}: {figures['us'][name]:.2f} µs")
    figures["us"]["the usual, uncompiled"] = uncompiled()
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "growth", figures)


if __name__ == "__main__":
    main()
