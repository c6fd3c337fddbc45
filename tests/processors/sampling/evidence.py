"""Rows of a trace, as policies are asked about them one by one."""

from __future__ import annotations

from array import array

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from processors.sampling.votes import Rows
from schemas.envelope import Envelope
from schemas.ids import trace_key
from tests.processors.sampling.builders import MS, NOON, TRACE_ID


def span(number: int, name: str = "GET /", millis: int = 1, status: Status | None = None, parent: int = 9) -> Span:
    return Span(
        trace_id=TRACE_ID,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=NOON,
        end_time_unix_nano=NOON + millis * MS,
        status=status,
    )


def rows(*items: Span | LogRecord, at: int = 0, now: int | None = 0) -> Rows:
    envelope = Envelope(1, "raw", 0, resources=[b""], scopes=[b""], messages=[(0, 0)])
    for item in items:
        envelope.body += item.SerializeToString()
        envelope.ends.append(len(envelope.body))
        envelope.keys.append(trace_key(TRACE_ID))
        for column in (envelope.resource, envelope.scope, envelope.message, envelope.item):
            column.append(0)
    return Rows(envelope, array("q", [at] * len(items)), now, logs=isinstance(items[0], LogRecord))
