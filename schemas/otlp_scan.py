"""OTLP protobuf without objects: where rows lie, what they say, and how they go together again.

A *row* is the bytes of one Span or LogRecord. Nothing here decodes a row as a whole or encodes one again: rows are
slices of the message they came in, so unknown fields, order and odd encodings survive.

Memory layout: `split_*` returns parallel lists, one entry per row, and the distinct headers. Two passes: protobuf's C
parser checks the whole message and yields the ids (schemas/otlp_check.py), then the walk in this module finds the
boundaries. `scan_span` reads the fields that a policy, the metrics or the clock need, and skips the rest by length.
Indexing checks the bounds of the buffer; `stop > end` and the final `pos != end` check those of the message, so a
read beyond a row is never *used*. The loops inline one-byte varints: a call costs more than the field it reads.
`python -m bench.micro.otlp_scan` measures it.

What is accepted is what protobuf accepts (docs: protobuf.dev/programming-guides/encoding), invalid UTF-8 included,
with one stricter rule: a known field of TracesData, ResourceSpans or ScopeSpans (and the like of logs) with the wrong
wire type is malformed, where protobuf calls it unknown: bytes of another format are likelier than such a producer.
Inside rows and headers such a field counts as absent, as for protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from schemas import otlp_check
from schemas.errors import Malformed
from schemas.reasons import Reason

AttributeValue = str | bool | int | float | bytes

_MAX_LENGTH = 0x7FFFFFFF  # upb's limit of a length; also that of the protobuf specification (2 GiB)
_MAX_TAG = 0xFFFFFFFF
_MAX_DEPTH = 100  # of groups; upb's recursion limit
_U64 = 0xFFFFFFFFFFFFFFFF
_FLAGS = 0x85  # first byte of the two-byte tag of Span.flags
_double = Struct("<d").unpack_from
_fixed64 = Struct("<Q").unpack_from


@dataclass(slots=True)
class Rows:
    """The rows of one message, as columns.

    Row i is `data[starts[i]:ends[i]]`, in wire order; `resource[i]` and `scope[i]` index into `resources` and
    `scopes`, which hold the message's distinct headers, those without rows too (see schemas/envelope.py). Ids are as
    found: any length, b"" when absent.
    """

    resources: list[bytes] = field(default_factory=list)
    scopes: list[bytes] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    resource: list[int] = field(default_factory=list)
    scope: list[int] = field(default_factory=list)
    trace_ids: list[bytes] = field(default_factory=list)
    span_ids: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.starts)


class SpanScan(NamedTuple):
    """What one Span says. Times in ns since the epoch; `status` 0 unset, 1 ok, 2 error (other values as found).

    `attributes` has one entry per slot of the caller's keys: None when absent or not a scalar.
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


class LogScan(NamedTuple):
    """What one LogRecord says about itself. Times in ns since the epoch, 0 when absent."""

    trace_id: bytes
    span_id: bytes
    severity_number: int
    time_ns: int
    observed_ns: int


def split_traces(data: bytes) -> Rows:
    """Find the spans of a TracesData (ExportTraceServiceRequest) message. Raises Malformed."""
    message: Any = _parse(otlp_check.TracesData, data)
    rows = _split(data)
    spans = [span for part in message.resource_spans for scope in part.scope_spans for span in scope.spans]
    return _with_ids(rows, spans)


def split_logs(data: bytes) -> Rows:
    """Find the log records of a LogsData (ExportLogsServiceRequest) message. Raises Malformed."""
    message: Any = _parse(otlp_check.LogsData, data)
    rows = _split(data)
    records = [record for part in message.resource_logs for scope in part.scope_logs for record in scope.log_records]
    return _with_ids(rows, records)


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Malformed(Reason.MALFORMED, f"not an OTLP {kind.DESCRIPTOR.name} message") from None


def _with_ids(rows: Rows, found: list[Any]) -> Rows:
    if len(found) != len(rows):
        raise Malformed(Reason.MALFORMED, f"{len(rows)} rows by the scanner, {len(found)} by protobuf")
    rows.trace_ids = [row.trace_id for row in found]
    rows.span_ids = [row.span_id for row in found]
    return rows


def _split(data: bytes) -> Rows:
    rows = Rows()
    starts, ends = rows.starts, rows.ends
    resources: dict[bytes, int] = {}
    scopes: dict[bytes, int] = {}
    part_starts: list[int] = []
    part_ends: list[int] = []
    try:
        _children(data, 0, len(data), 0x0A, 1, part_starts, part_ends)
        for part_start, part_end in zip(part_starts, part_ends, strict=True):
            scope_starts: list[int] = []
            scope_ends: list[int] = []
            header = _children(data, part_start, part_end, 0x12, 3, scope_starts, scope_ends)
            first = len(starts)
            for scope_start, scope_end in zip(scope_starts, scope_ends, strict=True):
                before = len(starts)
                scope = _children(data, scope_start, scope_end, 0x12, 3, starts, ends)
                rows.scope += [scopes.setdefault(scope, len(scopes))] * (len(starts) - before)
            rows.resource += [resources.setdefault(header, len(resources))] * (len(starts) - first)
    except IndexError:
        raise Malformed(Reason.MALFORMED, "truncated") from None
    rows.resources = list(resources)
    rows.scopes = list(scopes)
    return rows


def _children(data: bytes, pos: int, end: int, child: int, known: int, starts: list[int], ends: list[int]) -> bytes:
    """Append the bounds of every field with tag `child` in data[pos:end]; return all other fields, joined.

    OTLP's fields 1 to `known` of these messages are all length-delimited.
    """
    others: list[bytes] = []
    other = pos  # where the current run of other fields starts
    while pos < end:
        at = pos
        tag = data[pos]
        pos += 1
        if tag >= 0x80:
            tag, pos = _tag(data, at)
        if tag == child:
            length = data[pos]
            pos += 1
            if length >= 0x80:
                length, pos = _length(data, pos - 1)
            if other < at:
                others.append(data[other:at])
            starts.append(pos)
            pos += length
            ends.append(pos)
            other = pos
            if pos > end:
                break
        elif tag >> 3 <= known and tag & 7 != 2:
            raise Malformed(Reason.MALFORMED, f"field {tag >> 3} has wire type {tag & 7}, OTLP has 2")
        else:
            pos = _skip(data, pos, end, tag)
    if pos != end:
        raise _truncated()
    if other < end:
        others.append(data[other:end])
    return b"".join(others)


def scan_span(data: bytes, start: int, end: int, keys: dict[bytes, int]) -> SpanScan:
    """Read the Span in data[start:end]; `keys` maps an attribute's key to its slot, 0 ≤ slot < len(keys).

    A key that occurs twice: the first wins, as in the Collector (pdata's Map.Get). A string that is not UTF-8 has
    U+FFFD in place of the bad bytes. Raises Malformed; never on a row that `split_traces` found.
    """
    trace_id = span_id = parent_span_id = trace_state = name = b""
    kind = start_ns = end_ns = status = seen = 0
    attributes: list[AttributeValue | None] = [None] * len(keys)
    pos = start
    try:
        while pos < end:
            tag = data[pos]
            pos += 1
            if tag >= 0x80:
                if tag == _FLAGS and data[pos] == 1:  # every SDK writes them
                    pos += 5
                    continue
                tag, pos = _tag(data, pos - 1)
            if tag & 7 == 2:
                length = data[pos]
                pos += 1
                if length >= 0x80:
                    length, pos = _length(data, pos - 1)
                stop = pos + length
                if stop > end:
                    raise _truncated()
                if tag == 0x4A:  # 9 attributes
                    if keys:
                        # As every SDK writes it: the key, then the value, each shorter than 128 bytes. Most keys are
                        # not asked for, and most values are text; the other shapes are for _attribute.
                        value = pos + 2 + data[pos + 1] if length > 3 and data[pos] == 0x0A else stop
                        size = stop - value - 2
                        if (
                            0 <= size < 0x80
                            and data[value] == 0x12
                            and data[value + 1] == size
                            and data[pos + 1] < 0x80
                        ):
                            slot = keys.get(data[pos + 2 : value])
                            if slot is None:
                                pass
                            elif size > 1 and data[value + 2] == 0x0A and data[value + 3] == size - 2:
                                if not seen >> slot & 1:
                                    seen |= 1 << slot
                                    attributes[slot] = data[value + 4 : stop].decode("utf-8", "replace")
                            else:
                                seen = _attribute(data, pos, stop, keys, attributes, seen)
                        else:
                            seen = _attribute(data, pos, stop, keys, attributes, seen)
                elif tag == 0x0A:
                    trace_id = data[pos:stop]
                elif tag == 0x12:
                    span_id = data[pos:stop]
                elif tag == 0x22:
                    parent_span_id = data[pos:stop]
                elif tag == 0x2A:
                    name = data[pos:stop]
                elif tag == 0x1A:
                    trace_state = data[pos:stop]
                elif tag == 0x7A:  # 15 status
                    status = _status(data, pos, stop, status)
                elif tag < 8:
                    raise _field_zero()
                pos = stop
            elif tag == 0x39:
                start_ns = _fixed64(data, pos)[0]
                pos += 8
            elif tag == 0x41:
                end_ns = _fixed64(data, pos)[0]
                pos += 8
            elif tag == 0x30:
                kind = data[pos]
                pos += 1
                if kind >= 0x80:
                    kind, pos = _int32(data, pos - 1)
            else:
                pos = _skip(data, pos, end, tag)
    except (IndexError, struct_error):
        raise _truncated() from None
    if pos != end:
        raise _truncated()
    return SpanScan(trace_id, span_id, parent_span_id, trace_state, name, kind, start_ns, end_ns, status, attributes)


def scan_log(data: bytes, start: int, end: int) -> LogScan:
    """Read the LogRecord in data[start:end]. Raises Malformed; never on a row that `split_logs` found."""
    trace_id = span_id = b""
    severity = time_ns = observed_ns = 0
    pos = start
    try:
        while pos < end:
            tag = data[pos]
            pos += 1
            if tag >= 0x80:
                tag, pos = _tag(data, pos - 1)
            if tag & 7 == 2:
                length = data[pos]
                pos += 1
                if length >= 0x80:
                    length, pos = _length(data, pos - 1)
                stop = pos + length
                if tag == 0x4A:
                    trace_id = data[pos:stop]
                elif tag == 0x52:
                    span_id = data[pos:stop]
                elif tag < 8:
                    raise _field_zero()
                pos = stop
            elif tag == 0x09:
                time_ns = _fixed64(data, pos)[0]
                pos += 8
            elif tag == 0x59:
                observed_ns = _fixed64(data, pos)[0]
                pos += 8
            elif tag == 0x10:
                severity, pos = _int32(data, pos)
            else:
                pos = _skip(data, pos, end, tag)
    except (IndexError, struct_error):
        raise _truncated() from None
    if pos != end:
        raise _truncated()
    return LogScan(trace_id, span_id, severity, time_ns, observed_ns)


def resource_attributes(header: bytes, keys: dict[bytes, int]) -> list[AttributeValue | None]:
    """Read a resource's attributes from a header of `Rows.resources`, slots as in `scan_span`. Raises Malformed."""
    attributes: list[AttributeValue | None] = [None] * len(keys)
    seen = 0
    try:
        for tag, start, end in _fields(header, 0, len(header)):
            if tag == 0x0A:
                for inner, pos, stop in _fields(header, start, end):
                    if inner == 0x0A:
                        seen = _attribute(header, pos, stop, keys, attributes, seen)
    except (IndexError, struct_error):
        raise _truncated() from None
    return attributes


def span_attribute(key: str, value: str) -> bytes:
    """One string attribute as a field of a Span: appended to the span's bytes it is a further attribute."""
    text = _field(0x0A, value.encode())
    return _field(0x4A, _field(0x0A, key.encode()) + _field(0x12, text))


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
            scopes.append(_field(0x12, (scope or b"") + b"".join(rows)))
            rows = []
        if scopes and not same:
            parts.append(_field(0x0A, (resource or b"") + b"".join(scopes)))
            scopes = []
        resource, scope = resource_header, scope_header
        rows += [_field(0x12, row) for row in group]
    if rows:
        scopes.append(_field(0x12, (scope or b"") + b"".join(rows)))
    if scopes:
        parts.append(_field(0x0A, (resource or b"") + b"".join(scopes)))
    return b"".join(parts)


def logs_data(groups: Iterable[tuple[bytes, bytes, Sequence[bytes]]]) -> bytes:
    """LogsData (ExportLogsServiceRequest) of such groups: OTLP gives both messages the same field numbers."""
    return traces_data(groups)


def _attribute(
    data: bytes, pos: int, end: int, keys: dict[bytes, int], attributes: list[AttributeValue | None], seen: int
) -> int:
    """Read a KeyValue into its slot unless an earlier one filled it; `seen` is the bit set of filled slots."""
    key = b""
    value: AttributeValue | None = None
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x0A:
            key = data[start:stop]
        elif tag == 0x12:
            value = _any_value(data, start, stop, value)
    slot = keys.get(key)
    if slot is None or seen >> slot & 1:
        return seen
    attributes[slot] = value
    return seen | 1 << slot


def _any_value(data: bytes, pos: int, end: int, value: AttributeValue | None) -> AttributeValue | None:
    """The scalar of an AnyValue; `value` is what an earlier part of the same message said (protobuf merges)."""
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x0A:
            value = data[start:stop].decode("utf-8", "replace")
        elif tag == 0x10:
            value = _varint(data, start)[0] != 0
        elif tag == 0x18:
            number = _varint(data, start)[0]
            value = number - (1 << 64) if number >> 63 else number
        elif tag == 0x21:
            value = float(_double(data, start)[0])
        elif tag == 0x3A:
            value = data[start:stop]
        elif tag in (0x2A, 0x32, 0x40):  # array, kvlist, index into a table that only profiles have
            value = None
    return value


def _status(data: bytes, pos: int, end: int, status: int) -> int:
    """The code of a Status; `status` is what an earlier part of it said (protobuf merges)."""
    if end - pos == 2 and data[pos] == 0x18 and data[pos + 1] < 0x80:
        return data[pos + 1]
    for tag, start, _stop in _fields(data, pos, end):
        if tag == 0x18:
            status = _int32(data, start)[0]
    return status


def _fields(data: bytes, pos: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, start, end) of the value of every field in data[pos:end]. For what is read rarely."""
    while pos < end:
        tag, pos = _tag(data, pos)
        if tag & 7 == 2:
            length, pos = _length(data, pos)
            stop = pos + length
        else:
            stop = _skip(data, pos, end, tag)
        if stop > end:
            raise _truncated()
        yield tag, pos, stop
        pos = stop


def _skip(data: bytes, pos: int, end: int, tag: int) -> int:
    """The end of the value at `pos` of a field with this tag."""
    if tag < 8:
        raise _field_zero()
    return _skip_value(data, pos, end, tag)


def _skip_value(data: bytes, pos: int, end: int, tag: int) -> int:
    kind = tag & 7
    if kind == 0:
        pos = _varint(data, pos)[1]
    elif kind == 1:
        pos += 8
    elif kind == 2:
        length, pos = _length(data, pos)
        pos += length
    elif kind == 5:
        pos += 4
    elif kind == 3:
        pos = _skip_group(data, pos, end, tag >> 3)
    else:
        raise Malformed(Reason.MALFORMED, f"field {tag >> 3} has wire type {kind}")
    if pos > end:
        raise _truncated()
    return pos


def _skip_group(data: bytes, pos: int, end: int, number: int) -> int:
    """The end of a group (wire types 3 and 4): OTLP has none, an unknown field may be one.

    Field number 0 passes in here, as it does in upb: a row that upb let into the pipeline must never stop it.
    """
    open_groups = [number]
    while open_groups:
        if pos >= end:
            raise _truncated()
        tag, pos = _tag(data, pos, lowest=0)
        kind = tag & 7
        if kind == 4:
            if open_groups.pop() != tag >> 3:
                raise Malformed(Reason.MALFORMED, "a group ends that did not start")
        elif kind == 3:
            open_groups.append(tag >> 3)
            if len(open_groups) > _MAX_DEPTH:
                raise Malformed(Reason.MALFORMED, "groups nest too deeply")
        else:
            pos = _skip_value(data, pos, end, tag)
    return pos


def _tag(data: bytes, pos: int, lowest: int = 8) -> tuple[int, int]:
    """A tag of at most 5 bytes and 32 bits, and the position after it."""
    tag, after = _varint(data, pos)
    if after - pos > 5 or tag > _MAX_TAG:
        raise Malformed(Reason.MALFORMED, "tag out of range")
    if tag < lowest:
        raise _field_zero()
    return tag, after


def _length(data: bytes, pos: int) -> tuple[int, int]:
    """A length of at most 5 bytes and 31 bits, and the position after it."""
    length, after = _varint(data, pos)
    if after - pos > 5 or length > _MAX_LENGTH:
        raise Malformed(Reason.MALFORMED, "length out of range")
    return length, after


def _int32(data: bytes, pos: int) -> tuple[int, int]:
    """An int32 or enum (the low 32 bits of a varint, signed), and the position after it."""
    value, pos = _varint(data, pos)
    value &= 0xFFFFFFFF
    return (value - (1 << 32) if value >> 31 else value), pos


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    """A varint of at most 10 bytes, cut to 64 bits, and the position after it."""
    value = shift = 0
    while shift < 70:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, pos
        shift += 7
    raise Malformed(Reason.MALFORMED, "varint longer than 10 bytes")


def _field(tag: int, value: bytes) -> bytes:
    """A length-delimited field; `tag` is one byte."""
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    head = bytearray((tag,))
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + value


def _truncated() -> Malformed:
    return Malformed(Reason.MALFORMED, "a field ends after its message")


def _field_zero() -> Malformed:
    return Malformed(Reason.MALFORMED, "field number 0")
