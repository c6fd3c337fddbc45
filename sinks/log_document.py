"""A log record as an Elasticsearch document in the OpenTelemetry-native shape.

Field names are those of Elastic's `otel` mapping mode (logs-*.otel-*): `@timestamp`, `severity_number`, `body.text`,
`attributes`, `resource.attributes`, `scope`, `trace_id`, `span_id`; what the trace's verdict adds is `trace.sampled`,
`sampling.policy`, `service.name`, `span.name`, `span.status`. sinks/otel_template.json is the mapping.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from schemas.envelope import RowVerdict
from schemas.errors import Malformed
from schemas.otlp_check import message_class
from schemas.reasons import Reason
from schemas.severity import HIGHEST, severity_text
from sinks.otlp_rows import status_name

SERVICE_NAME = "service.name"
LATEST_NS = (1 << 63) - 1  # 2262-04-11, the last time that Elasticsearch's date_nanos can hold
DEEP_TEXT = 1024  # bytes of a too deep value that is shown as text
MAX_DEPTH = 10  # of objects inside a value: Elasticsearch's flattened fields refuse more than 20


def resource_fields(header: bytes) -> dict[str, Any]:
    """`resource` of a document, from a header of an envelope. Raises Malformed."""
    part = _parse(ResourceLogs, header)
    fields: dict[str, Any] = {"attributes": attributes(part.resource.attributes)}
    if part.schema_url:
        fields["schema_url"] = part.schema_url
    return fields


def scope_fields(header: bytes) -> dict[str, Any]:
    """`scope` of a document, from a header of an envelope. Raises Malformed."""
    part = _parse(ScopeLogs, header)
    fields: dict[str, Any] = {}
    if part.scope.name:
        fields["name"] = part.scope.name
    if part.scope.version:
        fields["version"] = part.scope.version
    if part.scope.attributes:
        fields["attributes"] = attributes(part.scope.attributes)
    if part.schema_url:
        fields["schema_url"] = part.schema_url
    return fields


def log_record(row: bytes) -> LogRecord:
    """The message of a row. Raises Malformed."""
    record: LogRecord = _parse(LogRecord, row)
    return record


def log_document(
    record: LogRecord, resource: dict[str, Any], scope: dict[str, Any], verdict: RowVerdict | None, received_ms: int
) -> dict[str, Any]:
    """The document of a LogRecord. `received_ms` is the raw record's timestamp: it stands in for a missing time."""
    observed = record.observed_time_unix_nano
    document: dict[str, Any] = {"@timestamp": _first_time(record.time_unix_nano, observed, received_ms * 1_000_000)}
    if 0 < observed <= LATEST_NS:
        document["observed_timestamp"] = rfc3339(observed)
    if 0 < record.severity_number <= HIGHEST:
        document["severity_number"] = record.severity_number
    if text := record.severity_text or severity_text(record.severity_number):
        document["severity_text"] = text
    if record.event_name:
        document["event_name"] = record.event_name
    if record.HasField("body"):
        document["body"] = _body(record.body)
    if record.attributes:
        document["attributes"] = attributes(record.attributes)
    if record.dropped_attributes_count:
        document["dropped_attributes_count"] = record.dropped_attributes_count
    if record.trace_id:
        document["trace_id"] = record.trace_id.hex()
    if record.span_id:
        document["span_id"] = record.span_id.hex()
    if record.flags:
        document["trace_flags"] = record.flags
    document["resource"] = resource
    if scope:
        document["scope"] = scope
    service = resource["attributes"].get(SERVICE_NAME)
    if verdict is not None:
        document["trace"] = {"sampled": verdict.kept}
        if verdict.policy:
            document["sampling"] = {"policy": verdict.policy}
        if verdict.span is not None:
            service = service or verdict.span.service
            document["span"] = {"name": verdict.span.name, "status": status_name(verdict.span.status)}
    if service:
        document["service"] = {"name": str(service)}
    return document


def attributes(pairs: Iterable[KeyValue], depth: int = 1) -> dict[str, Any]:
    """Attributes as an object with dotted keys. A key that occurs twice: the first wins, as in the Collector."""
    found: dict[str, Any] = {}
    for pair in pairs:
        # Elasticsearch separates key and value by NUL in the terms of a flattened field, and refuses it in a key.
        key = pair.key.replace("\0", "�")
        if key not in found:
            found[key] = plain(pair.value, depth)
    return found


def plain(value: AnyValue, depth: int = 1) -> Any:
    """The JSON of a value. Bytes become base64; NaN and infinities, which JSON lacks, and too deep values, text.

    A large value that is too deep becomes base64, too, as it came.
    """
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value":
        return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
    if kind not in ("array_value", "kvlist_value"):
        return getattr(value, kind)
    if depth >= MAX_DEPTH:  # protobuf's text has a line for each value, indented: a hundred times as long
        return str(value) if value.ByteSize() <= DEEP_TEXT else base64.b64encode(value.SerializeToString()).decode()
    if kind == "array_value":
        return [plain(element, depth + 1) for element in value.array_value.values]
    return attributes(value.kvlist_value.values, depth + 1)


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since the epoch as text.

    >>> rfc3339(1_500_000_000_000_000_001)
    '2017-07-14T02:40:00.000000001Z'
    """
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def _body(value: AnyValue) -> dict[str, Any]:
    content = plain(value)
    if isinstance(content, dict):
        return {"structured": content}
    if isinstance(content, list):
        return {"structured": {"value": content}}
    return {"text": "" if content is None else content if isinstance(content, str) else str(content)}


def _first_time(*times_ns: int) -> str:
    return rfc3339(next((time for time in times_ns if 0 < time <= LATEST_NS), 0))


def _parse(kind: Any, data: bytes) -> Any:
    """A message; in a string, which protobuf wants in UTF-8 and OTLP senders do not all check, U+FFFD for the rest."""
    try:
        return kind.FromString(data)
    except DecodeError:
        pass
    try:
        message = message_class(kind.DESCRIPTOR.full_name.removeprefix("opentelemetry.proto.")).FromString(data)
        _repair(message, kind.DESCRIPTOR)
        return kind.FromString(message.SerializeToString())
    except DecodeError as error:
        raise Malformed(Reason.MALFORMED, f"not an OTLP {kind.DESCRIPTOR.name}: {error}") from None


def _repair(message: Message, kind: Descriptor) -> None:
    """Make the bytes that stand for strings UTF-8; `kind` says which do."""
    for field, value in message.ListFields():
        declared = kind.fields_by_number[field.number]
        if declared.type == declared.TYPE_STRING and declared.is_repeated:
            value[:] = [_utf8(text) for text in value]
        elif declared.type == declared.TYPE_STRING:
            setattr(message, field.name, _utf8(value))
        elif declared.message_type is not None:
            for inner in value if declared.is_repeated else [value]:
                _repair(inner, declared.message_type)


def _utf8(text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode()
