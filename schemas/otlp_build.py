"""Rows of OTLP put together again: messages by concatenation, never a row encoded anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from struct import Struct

from schemas.otlp_scan import Fields

_double = Struct("<d").pack
_fixed64 = Struct("<Q").pack
_fields = Fields().list
SPAN_ATTRIBUTE, LOG_ATTRIBUTE = 0x4A, 0x32  # tags of a Span's and of a LogRecord's attributes
_KEY = 0x0A  # of a KeyValue
_LATEST_MS = ((1 << 64) - 1) // 1_000_000  # of OTLP's times


def span_attribute(key: str, value: str | float) -> bytes:
    """One attribute as a field of a Span: appended to the span's bytes it is a further attribute."""
    return field(SPAN_ATTRIBUTE, key_value(key, value))


def span_trace_state(trace_state: bytes) -> bytes:
    """The tracestate of a Span: appended to the span's bytes it takes the place of the one before (protobuf merges)."""
    return field(0x1A, trace_state)


def log_attribute(key: str, value: str | bool) -> bytes:
    """The same as a field of a LogRecord."""
    return field(LOG_ATTRIBUTE, key_value(key, value))


def without_attributes(row: bytes, tag: int, keys: Collection[bytes]) -> bytes:
    """A Span or LogRecord, by the `tag` of its attributes, without those of these keys. Raises Malformed."""
    parts: list[bytes] = []
    begin = 0
    for found, start, end in _fields(row, 0, len(row)):
        if found != tag or _key(row, start, end) not in keys:
            parts.append(row[begin:end])
        begin = end
    return b"".join(parts)


def _key(data: bytes, start: int, end: int) -> bytes:
    """That of a KeyValue; the last one counts (protobuf merges)."""
    return next((data[at:to] for tag, at, to in reversed(_fields(data, start, end)) if tag == _KEY), b"")


def log_observed(record: bytes, received_ms: int) -> bytes:
    """A LogRecord that protobuf has just written: one without a time of its own was observed when it was received."""
    if record[:1] == b"\x09" or not 0 < received_ms <= _LATEST_MS:  # time_unix_nano, its first field
        return record
    return record + b"\x59" + _fixed64(received_ms * 1_000_000)


def key_value(key: str, value: str | bool | int | float) -> bytes:
    """A KeyValue; an integer is not negative."""
    if isinstance(value, bool):
        content = bytes((0x10, value))
    elif isinstance(value, int):
        content = b"\x18" + varint(value)
    elif isinstance(value, float):
        content = b"\x21" + _double(value)
    else:
        content = field(0x0A, value.encode())
    return field(_KEY, key.encode()) + field(0x12, content)


def traces_data(groups: Iterable[tuple[bytes, bytes, Sequence[bytes]]]) -> bytes:
    """TracesData (ExportTraceServiceRequest) of (resource header, scope header, rows) groups, in their order.

    Groups that follow each other with equal headers share their ResourceSpans (ScopeSpans).
    """
    parts: list[bytes] = []
    resource: bytes | None = None
    scope: bytes | None = None
    scopes: list[bytes] = []
    rows: list[bytes] = []
    for resource_header, scope_header, group in groups:
        same = resource_header == resource
        if rows and not (same and scope_header == scope):
            scopes.append(field(0x12, (scope or b"") + b"".join(rows)))
            rows = []
        if scopes and not same:
            parts.append(field(0x0A, (resource or b"") + b"".join(scopes)))
            scopes = []
        resource, scope = resource_header, scope_header
        rows += [field(0x12, row) for row in group]
    if rows:
        scopes.append(field(0x12, (scope or b"") + b"".join(rows)))
    if scopes:
        parts.append(field(0x0A, (resource or b"") + b"".join(scopes)))
    return b"".join(parts)


def logs_data(groups: Iterable[tuple[bytes, bytes, Sequence[bytes]]]) -> bytes:
    """LogsData (ExportLogsServiceRequest) of such groups: OTLP gives both messages the same field numbers."""
    return traces_data(groups)


def field(tag: int, value: bytes) -> bytes:
    """A length-delimited field; `tag` is one byte."""
    length = len(value)
    return bytes((tag, length)) + value if length < 0x80 else bytes((tag,)) + varint(length) + value


def varint(number: int) -> bytes:
    """A number that is not negative, as the wire has it."""
    head = bytearray()
    while number >= 0x80:
        head.append(number & 0x7F | 0x80)
        number >>= 7
    head.append(number)
    return bytes(head)
