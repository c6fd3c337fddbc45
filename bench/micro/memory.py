"""What the sample role holds per trace, and what a new owner pays to load verdicts: bench/results/memory.json.

    python -m bench.micro.memory

Bytes are what Python's allocators gained (tracemalloc), without a cache of records, at the least flattering moment: the
largest share over all sizes that the tables go through from some thousand traces on, so also just after each has grown.
Per undecided trace of five spans, each trace due at a time of its own; and per remembered verdict, 5 % of them kept and
each of those with a span that a log has named. Then the objects that a span leaves behind in Python's allocator on its
way through head, decision and tail, with span metrics. Loading is in CPU seconds.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from array import array
from random import Random

from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from bench.measure import machine, save
from bench.micro.window import POLICIES, SPANS_A_MESSAGE, SPANS_A_TRACE, START, message
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.trace_table import TraceTable
from processors.sampling.verdicts import Verdicts
from processors.sampling.window import Settings, Window
from processors.span_labels import SpanLabels
from processors.span_metrics import SpanMetrics
from schemas.decision import DROPPED, Checkpoint, DecisionRecord, Enrichment, Verdict
from schemas.otlp_scan import SpanColumns
from schemas.raw_batch import RawReader

TRACES_A_BATCH = 50
KEPT_OF = 20  # one is kept
HORIZON = 600_000  # ms
LONG = 1 << 30  # ms: nothing is due
STEP = 20  # ms between messages
MESSAGES_A_BURST = 50
TEMPLATES = 20  # messages that come again with other traces
NAMES = [Enrichment("shop", f"GET /{number}", 0) for number in range(40)]


def held() -> int:
    """Bytes that are allocated."""
    return tracemalloc.get_traced_memory()[0]


def undecided(batches: int) -> float:
    """Bytes per undecided trace, of 50 a batch; counted from 5,000 traces on."""
    rows, random, largest = SPANS_A_TRACE * TRACES_A_BATCH, Random(7), 0.0
    spans = [Span(span_id=bytes([1 + row % SPANS_A_TRACE] * 8), parent_span_id=bytes([9] * 8)) for row in range(rows)]
    bodies = [span.SerializeToString() for span in spans]
    ends = array("I", [sum(map(len, bodies[: row + 1])) for row in range(rows)])
    plan = compile_policies([Policy.model_validate(policy) for policy in POLICIES])
    columns, labels, resource = SpanColumns(plan.keys), SpanLabels([]), array("I", bytes(4 * rows))
    columns.scan(b"".join(bodies), ends)
    labels.assign(columns, resource, [("shop", ())])
    plan.span_bits.assign(columns, resource, [0])
    tracemalloc.start()
    before = held()
    table = TraceTable(LONG, None, plan.words)
    for batch in range(batches):
        keys = array("Q", [key for _ in range(TRACES_A_BATCH) for key in [random.getrandbits(64)] * SPANS_A_TRACE])
        first = batch * TRACES_A_BATCH
        times = array("q", [first + row // SPANS_A_TRACE for row in range(rows)])
        table.fold_spans(columns, keys, times, array("B", bytes(rows)), first, plan.span_bits, labels)
        del keys, times
        if len(table) >= 5_000:
            largest = max(largest, (held() - before) / len(table))
    tracemalloc.stop()
    return largest


def decisions(random: Random, second: int) -> DecisionRecord:
    """The verdicts about 1,000 traces in one second of stream time."""
    record = DecisionRecord(1, checkpoint=Checkpoint({"spans": 0}, {"spans": 0}, full=True))
    for number in range(KEPT_OF * TRACES_A_BATCH):
        verdict = DROPPED
        if number % KEPT_OF == 0:
            named = {random.randbytes(8): random.choice(NAMES)}
            verdict = Verdict(True, "rest", 7 << 50, random.choice(NAMES), named)
        record.append(random.getrandbits(64), 1_000 * second, verdict)
    return record


def remembered(batches: int) -> float:
    """Bytes per verdict, of 1,000 a batch; counted from 50,000 on."""
    tracemalloc.start()
    before, largest, random = held(), 0.0, Random(7)
    verdicts = Verdicts(HORIZON)
    for batch in range(batches):
        record = decisions(random, batch)
        for key, time_ms, verdict in zip(record.keys, record.times, record.verdicts, strict=True):
            verdicts.put(key, time_ms, verdict, (0,))
        del record, key, verdict
        if len(verdicts) >= 50_000:
            largest = max(largest, (held() - before) / len(verdicts))
    tracemalloc.stop()
    return largest


def left_behind(messages: int) -> float:
    """Blocks of Python's allocator per span, of 200 spans a message, of which 5 % are kept."""
    random = Random(7)
    templates = [message(random, START) for _ in range(TEMPLATES)]
    places = [trace_ids(template) for template in templates]
    plan = compile_policies([Policy.model_validate(policy) for policy in POLICIES], extra_keys=["service.name"])
    metrics = SpanMetrics("spans", [], [10.0, 100.0, 1000.0], plan.keys)
    window = Window(0, Settings(1, "spans", None, 5_000, 60_000, direct=True), plan, metrics)
    window.resume({}, {"spans": 0})
    reader, decided = RawReader("spans", 0, 1, "traces", 16 << 20, 1 << 20), 0
    before = sys.getallocatedblocks()
    for number in range(messages):
        value, at = bytearray(templates[number % TEMPLATES]), START + number * STEP
        for several in places[number % TEMPLATES]:
            trace_id = random.randbytes(16)
            for place in several:
                value[place : place + 16] = trace_id
        window.head("spans", number, at, reader.read([(number, at, bytes(value))]))
        if number % MESSAGES_A_BURST == MESSAGES_A_BURST - 1 and (burst := window.burst()) is not None:
            window.committed(number)
            decided += burst.stats["decided", "kept"] + burst.stats["decided", "dropped"]
    assert decided > messages * SPANS_A_MESSAGE / SPANS_A_TRACE / 2
    return (sys.getallocatedblocks() - before) / messages / SPANS_A_MESSAGE


def trace_ids(value: bytes) -> list[list[int]]:
    """Where the spans of each trace have their trace id, in a message of one resource and scope."""
    (resource,) = TracesData.FromString(value).resource_spans
    places: dict[bytes, list[int]] = {}
    at = 0
    for span in resource.scope_spans[0].spans:
        at = value.index(span.trace_id, at)
        places.setdefault(span.trace_id, []).append(at)
        at += 16
    return list(places.values())


def main() -> None:
    before, random = machine(), Random(7)
    values = [decisions(random, second).encode() for second in range(100)]
    plan = compile_policies([Policy.model_validate(policy) for policy in POLICIES], extra_keys=["service.name"])
    successor = Window(0, Settings(1, "spans", None, 5_000, HORIZON), plan, None)
    began = time.process_time()
    for number, value in enumerate(values):
        successor.load(number, value)
    loaded = time.process_time() - began
    verdicts = len(values) * KEPT_OF * TRACES_A_BATCH
    figures = {
        "machine": before,
        "options": {"traces": 20_000, "verdicts": 500_000, "spans": 1_000_000, "spans_per_trace": SPANS_A_TRACE},
        "undecided_bytes_per_trace": undecided(400),
        "verdict_bytes_per_trace": remembered(500),
        "decision_bytes_per_trace": sum(map(len, values)) / verdicts,
        "load_seconds_per_million_verdicts": loaded / verdicts * 1e6,
        "blocks_per_span": left_behind(5_000),
    }
    print(*(f"{name}: {value:.4g}" for name, value in figures.items() if isinstance(value, float)), sep="\n")
    save("memory", figures)


if __name__ == "__main__":
    main()
