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
