"""A batch of raw records: what becomes of poison, of rows without ids and of rows that are too large."""

from __future__ import annotations

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from processors.regroup import Regroup
from schemas.envelope import Envelope
from schemas.raw_batch import ROW_BYTES, RawReader, Record

ID, SPAN_ID = bytes(range(16)), bytes(range(8))
MAX_MESSAGE, MAX_ROW = 100_000, 2_000


def traces(*spans: Span) -> bytes:
    data = TracesData()
    part = data.resource_spans.add(schema_url="a schema")
    part.resource.attributes.add(key="service.name").value.string_value = "shop"
    part.scope_spans.add().spans.extend(spans)
    return bytes(data.SerializeToString())


def logs(*records: LogRecord) -> bytes:
    data = LogsData()
    data.resource_logs.add().scope_logs.add().log_records.extend(records)
    return bytes(data.SerializeToString())


def span(name: str = "x", trace_id: bytes = ID, span_id: bytes = SPAN_ID) -> Span:
    return Span(trace_id=trace_id, span_id=span_id, name=name)


GOOD, LARGE = span(), span("large" * 500)
SPANS: list[Record] = [
    (3, 1_000, traces(GOOD, span("y"))),
    (5, 1_001, b"\xff"),
    (6, 1_002, b""),
    (7, 1_003, traces(span(trace_id=b"short"), span(span_id=bytes(8)), GOOD)),
    (8, 1_004, b"\x0a" + b"x" * MAX_MESSAGE),
    (9, 1_005, traces(LARGE)),
    (10, 1_006, traces(GOOD, LARGE)),
    (11, 1_007, traces(*[span(name, trace_id=b"") for name in "abcdefghijklmnopqrs"], GOOD)),
]
LOGS: list[Record] = [
    (0, 1_000, logs(LogRecord(trace_id=ID), LogRecord(severity_text="INFO"), LogRecord(trace_id=bytes(16)))),
    (1, 1_001, logs(LogRecord(severity_text="large" * 500))),
    (
        2,
        1_002,
        logs(*[LogRecord(trace_id=ID * (n % 2), severity_text=f"{n}" * 2_000) for n in range(24)]),
    ),
]


def rows_of(envelope: Envelope) -> list[tuple[object, ...]]:
    """Every row with everything that belongs to it."""
    columns = zip(envelope.resource, envelope.scope, envelope.message, envelope.item, envelope.keys, strict=True)
    return [
        (envelope.row(n), envelope.resources[r], envelope.scopes[s], envelope.messages[m], item, key)
        for n, (r, s, m, item, key) in enumerate(columns)
    ]


def test_a_batch_is_what_ingest_would_have_made() -> None:
    """The same rows, the same dead letters with the same bytes, only from another stage."""
    for signal, records in (("traces", SPANS), ("logs", LOGS)):
        batch = RawReader("raw", 1, 1, signal, MAX_MESSAGE, MAX_ROW).read(records)
        regroup = Regroup("raw", 1, signal, "otlp_proto", 1, MAX_MESSAGE, MAX_ROW)
        for record in records:
            regroup.add(*record)
        flushed = regroup.flush(None, {})
        (expected,) = [Envelope.decode(value) for value in flushed.envelopes[0]]
        assert rows_of(batch.rows) == rows_of(expected)
        untraced = [row for _, value in flushed.untraced for row in rows_of(Envelope.decode(value))]
        assert rows_of(batch.untraced) == untraced
        letters = [(d.value, d.offset, d.timestamp, d.index, d.reason) for d in flushed.dead_letters]
        assert sorted((d.value, d.offset, d.timestamp, d.index, d.reason) for d in batch.dead_letters) == sorted(
            letters
        )
        assert {d.stage for d in batch.dead_letters} == {"sample"}
        assert (batch.after, len(letters) > 0) == (records[-1][0] + 1, True)


def test_selected_rows_leave_the_batch_as_an_ordinary_envelope() -> None:
    batch = RawReader("raw", 1, 1, "traces", MAX_MESSAGE, MAX_ROW).read(SPANS)
    selected = batch.rows.select([1, 2], [None, None])
    assert rows_of(Envelope.decode(selected.encode())) == rows_of(batch.rows)[1:3]


def test_a_batch_that_waits_compressed_is_the_same_afterwards() -> None:
    for signal, records in (("traces", SPANS), ("logs", LOGS)):
        batch = RawReader("raw", 1, 1, signal, MAX_MESSAGE, MAX_ROW).read(records)
        small = batch.shrunk()
        assert small.source is not None
        assert small.is_shrunk
        assert (small.rows.body, small.untraced.body) == (b"", b"")
        assert batch.size - small.size == len(batch.rows.body) - small.source.size > 0
        assert (small.rows.keys, small.dead_letters, small.after) == (batch.rows.keys, batch.dead_letters, batch.after)
        assert small.whole() == batch
        assert batch.whole() is batch


def test_what_does_not_become_smaller_is_left_as_it_is() -> None:
    records = [(0, 1_000, traces(span(name="", trace_id=bytes(range(100, 116)), span_id=bytes(range(200, 208)))))]
    batch = RawReader("raw", 1, 1, "traces", MAX_MESSAGE, MAX_ROW).read(records)
    assert batch.shrunk() is batch


def test_headers_count_as_memory() -> None:
    """Of many resources they may be as much as the spans themselves."""
    reader = RawReader("raw", 1, 1, "traces", MAX_MESSAGE, MAX_ROW)
    batch = reader.read(SPANS)
    alone = reader.read([(offset, timestamp, b"") for offset, timestamp, _ in SPANS])
    rows = len(batch.rows) + len(batch.untraced)
    headers = sum(map(len, (*batch.rows.resources, *batch.rows.scopes)))
    assert batch.rows.resources
    assert batch.size - alone.size >= len(batch.rows.body) + ROW_BYTES * rows + headers


@pytest.mark.parametrize("direct", [True, False])
def test_few_bad_rows_with_a_large_resource_are_one_letter(direct: bool) -> None:
    """Each alone would take a copy of it along."""
    data = TracesData()
    part = data.resource_spans.add()
    part.resource.attributes.add(key="large").value.string_value = "x" * 200_000
    part.scope_spans.add().spans.extend([span(str(n), trace_id=b"") for n in range(12)] + [span()])
    record = 1, 1_000, bytes(data.SerializeToString())
    if direct:
        dead = RawReader("raw", 0, 1, "traces", 1 << 24, 1 << 20).read([record]).dead_letters
    else:
        regroup = Regroup("raw", 0, "traces", "otlp_proto", 1, 1 << 24, 1 << 20, None)
        regroup.add_all([record])
        dead = regroup.flush(None, {}).dead_letters
    (letter,) = dead
    assert len(letter.value) < 2 * len(record[2])
    assert len(TracesData.FromString(letter.value).resource_spans[0].scope_spans[0].spans) in (1, 12)
    assert letter.detail == "12 rows"
