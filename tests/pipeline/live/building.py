"""Kept traces and logs for tests of the live page, as `sample` forwards them."""

from __future__ import annotations

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from schemas.envelope import Envelope, RowVerdict, u32, u64
from schemas.ids import trace_key
from tests.pipeline.live.counting import OK, SERVER, batch
from tests.pipeline.live.pages import LivePage
from tests.schemas.rows import attribute

MS = 1_000_000
START = 1_700_000_000_000 * MS


def trace_id(number: int) -> bytes:
    return bytes(8) + number.to_bytes(8, "big")


def span(trace: int, number: int, parent: int = 0, at: float = 0, ms: float = 10, error: bool = False) -> Span:
    return Span(
        trace_id=trace_id(trace),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"span {number}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=START + int(at * MS),
        end_time_unix_nano=START + int((at + ms) * MS),
        status=Status(code=Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET),
        attributes=[attribute("http.route", "/secret")],
    )


def log(trace: int, number: int, at: float = 0, body: str = "secret words") -> LogRecord:
    return LogRecord(
        trace_id=trace_id(trace),
        span_id=number.to_bytes(8, "big"),
        time_unix_nano=START + int(at * MS),
        severity_number=SeverityNumber.SEVERITY_NUMBER_ERROR,
        body=AnyValue(string_value=body),
    )


def kept(*rows: Span | LogRecord, policy: str = "errors", service: str = "cart", sampled: bool = True) -> Envelope:
    """An envelope of kept.spans or kept.logs."""
    resource = Resource(attributes=[attribute("service.name", service)])
    header = ResourceLogs if rows and isinstance(rows[0], LogRecord) else ResourceSpans
    data = [row.SerializeToString() for row in rows]
    zeros = [0] * len(rows)
    return Envelope(
        partitions=1,
        topic="otlp_spans",
        partition=0,
        resources=[header(resource=resource).SerializeToString()],
        scopes=[b""],
        messages=[(0, START // MS)],
        body=b"".join(data),
        ends=u32([sum(map(len, data[: n + 1])) for n in range(len(data))]),
        resource=u32(zeros),
        scope=u32(zeros),
        message=u32(zeros),
        item=u32(list(range(len(rows)))),
        keys=u64([trace_key(row.trace_id) for row in rows]),
        verdicts=[RowVerdict(sampled, policy if sampled else "")] * len(rows),
    )


def committed(page: LivePage, spans: Envelope, logs: Envelope | None = None) -> None:
    """What `sample` feeds after a transaction."""
    calls = batch(("cart", SERVER, OK, (3, 0, 0, 0)))
    page.watch.committed([calls], [spans.encode()], [logs.encode()] if logs else [])
