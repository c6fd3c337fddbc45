"""OTLP/JSON, as the Collector's kafkaexporter (`otlp_json`) and Fluent Bit write it, to OTLP protobuf.

One Kafka value is one TracesData, LogsData or MetricsData (Export…ServiceRequest) object. OTLP differs from protobuf's
JSON mapping in its ids: hex, not base64. Base64 is taken all the same where its `=` shows it (16 or 8 bytes are
padded): writers that use a plain protobuf library produce it. Names of enums are accepted, as by the Collector.
Source: opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding".
One parse, one walk, one build in C: about 20 µs for a span with nine attributes (700 bytes), half of it the walk.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.formats.json_mapping import base64, load, read, reader


def traces(data: bytes) -> bytes:
    """TracesData in JSON to TracesData. Raises Malformed."""
    return bytes(TracesData(**read(_TRACES, load(data), "OTLP TracesData")).SerializeToString())


def logs(data: bytes) -> bytes:
    """LogsData in JSON to LogsData. Raises Malformed."""
    return bytes(LogsData(**read(_LOGS, load(data), "OTLP LogsData")).SerializeToString())


def metrics(data: bytes) -> bytes:
    """MetricsData in JSON to MetricsData. Raises Malformed."""
    return bytes(MetricsData(**read(_METRICS, load(data), "OTLP MetricsData")).SerializeToString())


def identifier(value: Any) -> bytes:
    """A trace or span id, of whatever length. Raises ValueError."""
    if not isinstance(value, str):
        raise TypeError("an id must be hex in a string")
    if value.endswith("="):
        return base64(value)
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise ValueError(f"{value[:40]!r} is not an id in hex") from None


_IDS = {
    f"{message}.{field}": identifier
    for message, fields in {
        "Span": ("trace_id", "span_id", "parent_span_id"),
        "Link": ("trace_id", "span_id"),
        "LogRecord": ("trace_id", "span_id"),
        "Exemplar": ("trace_id", "span_id"),
    }.items()
    for field in fields
}
_TRACES = reader(TracesData.DESCRIPTOR, _IDS)
_LOGS = reader(LogsData.DESCRIPTOR, _IDS)
_METRICS = reader(MetricsData.DESCRIPTOR, _IDS)
