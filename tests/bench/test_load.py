"""The load is what the documents say it is: valid OTLP, seeded, spread, and of the sizes asked for."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from bench.compare import load_of, options_of, parsed
from bench.contestants import MODES
from bench.load import Load, Message, Written, messages
from bench.shop import MS
from bench.verdicts import SLOW_MS

START_MS = 1_700_000_000_000
SECOND = 1_000_000_000  # ns


def spans_of(message: Message) -> list[Span]:
    data = TracesData.FromString(message.value)
    return [span for group in data.resource_spans for scope in group.scope_spans for span in scope.spans]


def made(load: Load) -> tuple[Written, list[Message]]:
    written = Written()
    return written, list(messages(load, written))


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert made(Load(2_000, START_MS, seed=3)) == made(Load(2_000, START_MS, seed=3))
    assert made(Load(2_000, START_MS, seed=3)) != made(Load(2_000, START_MS, seed=4))


@pytest.mark.parametrize("per_message", [1, 50, 200])
def test_exactly_the_spans_asked_for_in_messages_of_the_size_asked_for(per_message: int) -> None:
    _, found = made(Load(5_001, START_MS, spans_per_message=per_message))
    sizes = [len(spans_of(message)) for message in found if message.signal == "traces"]
    assert sum(sizes) == 5_001
    assert sizes == [message.rows for message in found if message.signal == "traces"]
    assert max(sizes) == per_message
    assert len(sizes) <= -(-5_001 // per_message) + 8  # the rest of each agent


def test_traces_are_trees_within_a_second_and_spread_over_messages() -> None:
    written, found = made(Load(20_000, START_MS, spans_per_message=100))
    traces: dict[bytes, list[Span]] = defaultdict(list)
    places: dict[bytes, set[int]] = defaultdict(set)
    for number, message in enumerate(found):
        for span in spans_of(message) if message.signal == "traces" else ():
            traces[span.trace_id].append(span)
            places[span.trace_id].add(number)
    assert len(traces) == written.traces
    for spans in traces.values():
        ids = {span.span_id for span in spans}
        assert len(ids) == len(spans)
        assert {span.parent_span_id for span in spans} <= ids | {b""}
        assert sum(not span.parent_span_id for span in spans) == 1
        lasts = max(span.end_time_unix_nano for span in spans) - min(span.start_time_unix_nano for span in spans)
        assert 0 < lasts < SECOND
    assert sum(len(where) > 1 for where in places.values()) > len(places) / 2


@pytest.mark.parametrize("mode", ["a", "b"])
def test_every_trace_of_the_comparison_closes_within_a_second(mode: str) -> None:
    """In the bytes that both sides read; and, as each trace is the first spans of one of these shapes, however many
    spans the load has."""
    load = load_of(options_of(parsed([])), MODES[mode], 30_000)
    times: dict[bytes, list[int]] = defaultdict(list)
    for message in messages(load):
        for span in spans_of(message):
            times[span.trace_id] += [span.start_time_unix_nano, span.end_time_unix_nano]
    assert len(times) > 2_000
    assert max(max(each) - min(each) for each in times.values()) < SECOND
    pool = load.shapes(Random(load.seed))
    lasts = [max(span.end for span in shape.spans) - min(span.start for span in shape.spans) for shape in pool]
    assert SLOW_MS * MS < max(lasts) < SECOND


def test_shares_and_sizes() -> None:
    """Errors 2 %, slow ones 1.5 %, about 300 bytes a span, twelve spans a trace."""
    written, found = made(Load(50_000, START_MS))
    spans = [span for message in found if message.signal == "traces" for span in spans_of(message)]
    failed = {span.trace_id for span in spans if span.status.code == Status.STATUS_CODE_ERROR}
    slow = {span.trace_id for span in spans if span.end_time_unix_nano - span.start_time_unix_nano > 500_000_000}
    assert 0.01 < len(failed) / written.traces < 0.03
    assert 0.008 < len(slow) / written.traces < 0.025
    assert 10 < len(spans) / written.traces < 14
    size = sum(len(message.value) for message in found if message.signal == "traces") / len(spans)
    assert 250 < size < 400


def test_logs_belong_to_spans() -> None:
    _, found = made(Load(5_000, START_MS))
    ids = {(s.trace_id, s.span_id) for message in found if message.signal == "traces" for s in spans_of(message)}
    records = [
        record
        for message in found
        if message.signal == "logs"
        for group in LogsData.FromString(message.value).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]
    assert 200 < len(records) < 400
    assert {(record.trace_id, record.span_id) for record in records} <= ids


def test_timestamps_follow_the_pace() -> None:
    """10,000 spans at 1,000 a second take ten seconds; a message is as old as its newest row."""
    _, found = made(Load(10_000, START_MS, spans_per_second=1_000, spans_per_message=20))
    times = [message.timestamp for message in found if message.signal == "traces"]
    assert min(times) >= START_MS
    assert 8_000 < max(times) - START_MS < 13_000
    newest = max(span.end_time_unix_nano for span in spans_of(found[0]))
    assert found[0].timestamp - newest / 1e6 < 1
