"""Single rows read with the columnar scanner, as tests want to see them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas import otlp_check
from schemas.errors import Malformed
from schemas.otlp_scan import (
    END_NS,
    EVENT_ATTRIBUTES,
    EVENT_NAME,
    EVENT_SPAN,
    FLAGS,
    KIND,
    NAME,
    OBSERVED_NS,
    PARENT_SPAN_ID,
    SEVERITY,
    SIZE,
    SPAN_ID,
    START_NS,
    STATUS,
    TIME_NS,
    TRACE_ID,
    TRACE_STATE,
    AttributeValue,
    EventColumns,
    LogColumns,
    RawRows,
    Rows,
    SpanColumns,
    attribute_value,
    signed,
)
from schemas.reasons import Reason


class SpanScan(NamedTuple):
    """What one Span says. Times in ns since the epoch; `status` 0 unset, 1 ok, 2 error (other values as found).

    `flags` are the W3C trace flags, `size` its bytes.
    """

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    trace_state: bytes
    name: bytes
    kind: int
    start_ns: int
    end_ns: int
    status: int
    attributes: list[AttributeValue | None]
    flags: int = 0
    size: int = 0


class LogScan(NamedTuple):
    """What one LogRecord says about itself. Times in ns since the epoch, 0 when absent."""

    trace_id: bytes
    span_id: bytes
    severity_number: int
    time_ns: int
    observed_ns: int


def scan_span(data: bytes, start: int, end: int, keys: dict[bytes, int]) -> SpanScan:
    """The Span in data[start:end]."""
    columns = SpanColumns(keys)
    columns.scan(data, array("I", [end]), array("I", [start]))
    cells = columns.cells
    trace_id, span_id, parent, state, name = (
        data[cells[at] : cells[at + 1]] for at in (TRACE_ID, SPAN_ID, PARENT_SPAN_ID, TRACE_STATE, NAME)
    )
    values: list[AttributeValue | None] = [columns.value(0, slot) for slot in range(len(keys))]
    kind, status = signed(cells[KIND]), signed(cells[STATUS])
    times = cells[START_NS], cells[END_NS]
    return SpanScan(trace_id, span_id, parent, state, name, kind, *times, status, values, cells[FLAGS], cells[SIZE])


def scan_events(data: bytes, start: int, end: int, keys: dict[bytes, int]) -> list[tuple[bytes, list[Any]]]:
    """The name and the attributes of each event of the Span in data[start:end]."""
    spans, events = SpanColumns({}), EventColumns(keys)
    spans.scan(data, array("I", [end]), array("I", [start]))
    events.scan(spans)
    found = []
    for row in range(events.rows):
        cells = events.cells[row * events.width : (row + 1) * events.width]
        assert cells[EVENT_SPAN] == 0
        bounds = [cells[at : at + 2] for at in range(EVENT_ATTRIBUTES, events.width, 2)]
        values = [attribute_value(events.data, *each) if each[1] else None for each in bounds]
        found.append((events.data[cells[EVENT_NAME] : cells[EVENT_NAME + 1]], values))
    return found


def scan_log(data: bytes, start: int, end: int) -> LogScan:
    """The LogRecord in data[start:end]."""
    columns = LogColumns()
    columns.scan(data, array("I", [end]), array("I", [start]))
    cells = columns.cells
    trace_id, span_id = (data[cells[at] : cells[at + 1]] for at in (TRACE_ID, SPAN_ID))
    return LogScan(trace_id, span_id, signed(cells[SEVERITY]), cells[TIME_NS], cells[OBSERVED_NS])


SpanBytes = otlp_check.message_class("trace.v1.Span")  # names need not be UTF-8


def attribute(key: str, value: AttributeValue) -> KeyValue:
    """An attribute of the type that the value has."""
    kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
    found: dict[str, Any] = {kinds[type(value)]: value}
    return KeyValue(key=key, value=AnyValue(**found))


def encoded(scan: SpanScan, keys: dict[bytes, int] | None = None) -> bytes:
    """The Span that says what `scan` does; `keys` maps the keys of its attributes to their slots."""
    values = {} if keys is None else {key: scan.attributes[slot] for key, slot in keys.items()}
    span = Span(
        kind=scan.kind,  # type: ignore[arg-type]
        start_time_unix_nano=scan.start_ns,
        end_time_unix_nano=scan.end_ns,
        flags=scan.flags,
        attributes=[attribute(key.decode(), value) for key, value in values.items() if value is not None],
    )
    span.status.code = scan.status  # type: ignore[assignment]
    texts = SpanBytes(
        trace_id=scan.trace_id,
        span_id=scan.span_id,
        parent_span_id=scan.parent_span_id,
        trace_state=scan.trace_state,
        name=scan.name,
    )
    return span.SerializeToString() + texts.SerializeToString()


def columns_of(scans: Sequence[SpanScan], keys: dict[bytes, int] | None = None) -> SpanColumns:
    """A batch of such spans."""
    columns, ends, body = SpanColumns(keys or {}), array("I"), b""
    for scan in scans:
        body += encoded(scan, keys)
        ends.append(len(body))
    columns.scan(body, ends)
    return columns


def split_traces(data: bytes) -> Rows:
    """All spans of one message in wire order, those without ids too (their key is 0). Raises Malformed."""
    return _split("traces", data)


def split_logs(data: bytes) -> Rows:
    """All log records, likewise."""
    return _split("logs", data)


def _split(signal: str, data: bytes) -> Rows:
    raw = RawRows(signal)
    raw.scan(data, array("I", [len(data)]))
    if raw.bad:
        raise Malformed(Reason.MALFORMED, raw.bad[0][1])
    found = [*zip(raw.item, raw.starts, raw.ends, raw.resource, raw.scope, raw.keys, strict=True)]
    for apart in (raw.nameless, raw.spanless):
        found += zip(apart.item, apart.starts, apart.ends, apart.resource, apart.scope, apart.keys, strict=True)
    rows = Rows(raw.resources, raw.scopes)
    columns = rows.item, rows.starts, rows.ends, rows.resource, rows.scope, rows.keys
    for row in sorted(found):
        for column, number in zip(columns, row, strict=True):
            column.append(number)
    return rows
