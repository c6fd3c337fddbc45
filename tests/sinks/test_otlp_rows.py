"""Rows of the kept topics as OTLP: what goes on the wire, what a dead letter holds."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas.decision import Enrichment
from schemas.envelope import Envelope, RowVerdict
from schemas.errors import ProtocolError
from sinks.contract import Signal
from sinks.otlp_rows import RowItem, decided, export_request, row_items
from tests.sinks.building import envelope, log, record, resource, scope, span, spans_of

KEPT = RowVerdict(kept=True, policy="errors", threshold=0)


def encode(rows: Envelope, signal: Signal = "spans") -> list[RowItem]:
    return list(row_items(record(rows.encode(), signal=signal)))


def test_a_request_names_each_resource_and_scope_once() -> None:
    one = envelope([span(name="a"), span(name="b")])
    two = envelope([span(name="c")], header=resource("other"))
    sent = ExportTraceServiceRequest.FromString(export_request(encode(one) + encode(two) + encode(one)))
    assert [len(spans_of([part])) for part in sent.resource_spans] == [4, 1]
    assert [len(part.scope_spans) for part in sent.resource_spans] == [1, 1]
    assert {s.name for s in spans_of(sent.resource_spans)} == {"a", "b", "c"}


def test_a_dead_letter_is_the_row_as_it_came() -> None:
    original = span(name="a", k="v")
    (item,) = encode(envelope([original], [KEPT]))
    sent = ExportTraceServiceRequest.FromString(item.dead_letter())
    assert spans_of(sent.resource_spans) == [original]
    assert sent.resource_spans[0].resource.attributes[0].value.string_value == "cart"
    assert sent.resource_spans[0].scope_spans[0].scope.name == "tests"


def test_items_know_where_they_came_from_and_what_they_weigh() -> None:
    rows = envelope([span(), span()], topic="raw", offset=42)
    first, second = encode(rows)
    assert (first.origin.topic, first.origin.partition, first.origin.offset, first.origin.index) == ("raw", 1, 42, 0)
    assert second.origin.index == 1
    assert first.size == len(first.wire) + len(resource()) + len(scope())
    assert second.size == len(second.wire)


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(0, None), (1, "00000000000001"), (1 << 55, "8"), (0xFF << 48, "ff"), (0xA << 4, "000000000000a")],
)
def test_thresholds_are_written_as_in_tracestate(threshold: int, text: str | None) -> None:
    fields = Span.FromString(decided(RowVerdict(kept=True, policy="p", threshold=threshold), "spans")).attributes
    assert {a.key: a.value.string_value for a in fields}.get("tailsampling.threshold") == text


ID = bytes(9) + bytes.fromhex("c0000000000000")  # its randomness: three quarters


def sent_span(state: str, threshold: int, trace_id: bytes = ID, consistent: bool = True) -> Span:
    row = Span(trace_id=trace_id, span_id=bytes(8), name="a", trace_state=state)
    rows = envelope([row], [RowVerdict(kept=True, policy="p", threshold=threshold)])
    (item,) = row_items(record(rows.encode(), signal="spans"), consistent=consistent)
    return Span.FromString(item.wire)


@pytest.mark.parametrize(
    ("state", "threshold", "says", "stands_for"),
    [
        ("", 0, "", None),
        ("", 1 << 55, "ot=th:8", 2.0),
        ("vendor=1", 3 << 54, "ot=th:c,vendor=1", 4.0),
        ("vendor=1,ot=rv:f0000000000000;x:y,z=2", 1 << 55, "ot=th:8;rv:f0000000000000;x:y,vendor=1,z=2", 2.0),
        ("ot=th:8", 3 << 54, "ot=th:c", 4.0),  # a head sampler kept half, this one a quarter of all
        ("ot=th:c", 1 << 55, "ot=th:c", 4.0),  # never lower than what came in
        ("ot=th:c;rv:ffffffffffffff", 0, "ot=th:c;rv:ffffffffffffff", 4.0),  # kept for certain, of what a head left
        ("K=v", 1 << 55, "K=v", 2.0),  # invalid: left alone
        ("K=v,ot=th:c;rv:00000000000000", 1 << 55, "K=v,ot=th:c;rv:00000000000000", 2.0),  # and not believed
        ("ot=rv:00000000000000", 1 << 55, "ot=rv:00000000000000", 2.0),  # R < T: it would deny that it was kept
    ],
)
def test_a_span_says_its_threshold_and_its_count(
    state: str, threshold: int, says: str, stands_for: float | None
) -> None:
    row = sent_span(state, threshold)
    counts = [a.value.double_value for a in row.attributes if a.key == "tailsampling.adjusted_count"]
    assert (row.trace_state, counts) == (says, [] if stands_for is None else [stands_for])
    assert row.name == "a"


def test_the_collectors_hash_is_no_consistent_sampling() -> None:
    """A tracestate must not say a threshold that the randomness did not meet."""
    row = sent_span("vendor=1", 1 << 55, consistent=False)
    assert row.trace_state == "vendor=1"
    assert {a.key for a in row.attributes} == {
        "tailsampling.policy", "tailsampling.threshold", "tailsampling.adjusted_count",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "threshold", "stands_for"),
    [("", 3 << 54, [4.0]), ("ot=th:8", 3 << 54, [8.0]), ("ot=th:c", 1 << 55, [8.0]), ("ot=th:c", 0, [4.0])],
)
def test_the_collectors_hash_chooses_from_what_a_head_sampler_left(
    state: str, threshold: int, stands_for: list[float]
) -> None:
    row = sent_span(state, threshold, consistent=False)
    assert [a.value.double_value for a in row.attributes if a.key == "tailsampling.adjusted_count"] == stands_for
    assert row.trace_state == state


def again(item: RowItem, *, kept: RowVerdict, consistent: bool = True) -> dict[str, object]:
    """What a span says after a second Tailrace; every key once."""
    rows = envelope([Span.FromString(item.wire)], [kept])
    (second,) = row_items(record(rows.encode(), signal="spans"), consistent=consistent)
    span = Span.FromString(second.wire)
    found = [(a.key, a.value.string_value or a.value.double_value) for a in span.attributes]
    assert len(dict(found)) == len(found), found
    assert (span.name, span.trace_id) == ("a", b"\xff" * 16)
    return {"tracestate": span.trace_state, **dict(found)}


def test_a_span_that_passes_two_says_what_the_last_one_said() -> None:
    original = Span(trace_id=b"\xff" * 16, span_id=bytes(8), name="a")
    original.attributes.add(key="k").value.string_value = "tailsampling.policy"
    half, tenth = RowVerdict(True, "half", 1 << 55), RowVerdict(True, "tenth", 0xE6 << 48)
    (first,) = encode(envelope([original], [half]))
    assert again(first, kept=tenth) == {
        "tracestate": "ot=th:e6",
        "k": "tailsampling.policy",
        "tailsampling.policy": "tenth",
        "tailsampling.threshold": "e6",
        "tailsampling.adjusted_count": pytest.approx(10, rel=0.02),
    }
    certain = {"tailsampling.policy": "errors", "tailsampling.adjusted_count": 2.0, "k": "tailsampling.policy"}
    assert again(first, kept=KEPT) == certain | {"tracestate": "ot=th:8"}
    # Without a tracestate only the attribute says it.
    (first,) = row_items(record(envelope([original], [half]).encode(), signal="spans"), consistent=False)
    assert again(first, kept=KEPT) == certain | {"tracestate": ""}


def test_a_log_that_passes_two_says_what_the_last_one_said() -> None:
    kept = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    first = encode(envelope([log("a", k="v"), log("b")], [kept, None]), "logs")
    rows = [LogRecord.FromString(item.wire) for item in first]
    second = encode(envelope(rows, [RowVerdict(kept=False, span=Enrichment("stock", "pay", 1))] * 2), "logs")
    found = [[(a.key, a.value.string_value) for a in LogRecord.FromString(item.wire).attributes] for item in second]
    said = [("trace.sampled", ""), ("span.name", "pay"), ("span.status", "ok")]
    assert found == [[("k", "v"), *said], said]


def test_a_log_says_what_became_of_its_trace() -> None:
    kept = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    rows = envelope([log("a", k="v"), log("b"), log("c")], [kept, RowVerdict(kept=False), None])
    sent = ExportLogsServiceRequest.FromString(export_request(encode(rows, "logs")))
    found = [attributes(row) for row in sent.resource_logs[0].scope_logs[0].log_records]
    decision = {"trace.sampled": True, "tailsampling.policy": "errors", "span.name": "reserve", "span.status": "error"}
    assert found == [{"k": "v", **decision}, {"trace.sampled": False}, {}]


def attributes(row: LogRecord) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in row.attributes}


def test_foreign_bytes_stop_the_sink() -> None:
    with pytest.raises(ProtocolError):
        list(row_items(record(b"not an envelope")))
