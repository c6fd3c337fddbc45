"""Logs as JSON: what loggers and shippers write, to OTLP log records.

A Kafka value is one object, an array of objects (Azure's `{"records": […]}` too), or lines of JSON. Fields with a known
meaning (log_fields.py) become the record's time, severity, body, trace context, scope and resource; a field that is
not understood stays an attribute, so nothing is lost.
A log inside a log, as shippers write it (packed_logs.py), is unpacked and its fields win, whatever the shipper calls
its own; what the shipper has under a name of theirs, and is another value, is in a map, `outer`.
A body of text without a severity beside it may state one in its head, as text logs do.
Members of .NET's `Scopes` become attributes where the log has none of the name.
Bytes that are not UTF-8, and halves of surrogate pairs, become U+FFFD, as in OTLP/JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from schemas.errors import Malformed
from schemas.formats.json_mapping import exactly, load
from schemas.formats.log_fields import LAYER, SCOPES, Field, fields_of, meaning_of, normal
from schemas.formats.packed_logs import unpacked
from schemas.formats.text_logs import MOST_LOGS, head_of, severity
from schemas.formats.times import nanoseconds, without_zone
from schemas.formats.trace_fields import TraceContext, context_in_text, span_id, trace_context
from schemas.reasons import Reason
from schemas.remembered import remembered
from schemas.severity import (
    ERROR,
    HIGHEST,
    INFO,
    TRACE,
    UNSPECIFIED,
    WARN,
    severity_number,
    severity_of_level,
    severity_text,
    uncoloured,
)

_TEXT, _TEMPLATE = "Message", "{OriginalFormat}"  # what .NET writes beside a scope's own members
_OF_SCOPE = frozenset({_TEXT, _TEMPLATE})
_DECIMAL = frozenset({"dd.traceid", "dd.spanid", "xdatadogtraceid"})
_LOOSE = frozenset({"operationid", "trace"})  # Azure's and Google's are trace ids; everybody else's are not
_WHOLE = re.compile(r"[0-9a-fA-F]{32}|projects/[^/]+/traces/[0-9a-fA-F]{32}", re.ASCII).fullmatch
_NO_WORDS = frozenset({"status", "severitynumber", "priority"})  # whose text alone is no word for a severity
_JOURNALD = "PRIORITY"  # in capitals, and syslog-ng's: anybody else's priority is no severity
_OTLP = frozenset({"severitynumber", "severitytext"})  # beside them `body` is the log's, elsewhere a request's too
_ENUM = "SEVERITY_NUMBER_"  # OTLP/JSON may have names for numbers
_MAX_DEPTH = 20  # Elasticsearch's depth limit of a mapping; protobuf's parsers stop at 100, three per level
_INT64 = 1 << 63
_SYSLOG = frozenset({"priority", "syslogseverity", "log.syslog.severity.code"})
_AZURE = (TRACE, INFO, WARN, ERROR, ERROR + 1)  # severityLevel: Verbose to Critical
_NUMBERS = {str(level): level for level in range(70)}  # levels of pino and syslog, written as texts
TOO_DEEP = "nested too deeply"  # orjson reads 1,024 levels and writes 254
MOST_OBJECTS = MOST_LOGS << 4  # of an array, and arrays: 64 bytes and more each when they are read, for two of text
TOO_MANY_OBJECTS = f"more than {MOST_OBJECTS} objects and arrays in a message"
TOO_MANY = f"more than {MOST_LOGS} logs in a message"
_LINE = re.compile(rb"\S[^\n]*")
_HEX_BYTE = re.compile(r"[0-9a-fA-F]{2}", re.ASCII).fullmatch
T = TypeVar("T")


class LogRow(NamedTuple):
    """One log: OTLP LogRecord bytes, its headers as in schemas/envelope.py, its trace id (16 bytes, or b"")."""

    resource: bytes
    scope: bytes
    record: bytes
    trace_id: bytes
    too_deep: bytes = b""  # the line as it came, if what lies below 20 levels is a text now


class BadLine(NamedTuple):
    """Bytes that are not a JSON object, and why."""

    data: bytes
    reason: Reason
    detail: str


def parse(data: bytes) -> list[LogRow | BadLine]:
    """The logs of one Kafka value, in order; empty for a value of white space. Raises nothing: see BadLine."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not data:
        return []
    if data[:1] == b"[" and len(data) > MOST_OBJECTS and data.count(b"{") + data.count(b"[") > MOST_OBJECTS:
        return [BadLine(data, Reason.MESSAGE_TOO_LARGE, TOO_MANY_OBJECTS)]
    try:
        whole = _whole(data)
    except Malformed:
        return list(_lines(data))
    try:
        whole = _records(exactly(whole, data))
        return list(_entries(whole)) if isinstance(whole, list) else [_row(whole, data)]
    except RecursionError:
        return [BadLine(data, Reason.MALFORMED, TOO_DEEP)]


def _whole(data: bytes) -> Any:
    """The value that data is. Raises Malformed: then it may be lines of JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        first, several, _ = data.partition(b"\n")
        if several and _is_json(first):
            raise Malformed(Reason.MALFORMED, str(error)) from None
        return load(data)


def _records(whole: Any) -> Any:
    """The logs of an array that Azure's diagnostic settings send to Event Hubs; anything else as it is."""
    records = whole.get("records") if isinstance(whole, dict) and len(whole) == 1 else None
    return records if isinstance(records, list) and records and isinstance(records[0], dict) else whole


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _lines(data: bytes) -> Iterator[LogRow | BadLine]:
    """The logs of lines; what is beyond MOST_LOGS is one bad line."""
    for number, line in enumerate(_LINE.finditer(data)):
        if number == MOST_LOGS:
            yield BadLine(data[line.start() :], Reason.MESSAGE_TOO_LARGE, TOO_MANY)
            return
        yield _line(line[0].rstrip())


def _entries(whole: list[Any]) -> Iterator[LogRow | BadLine]:
    """The same of an array. Raises RecursionError."""
    for entry in islice(whole, MOST_LOGS):
        yield _row(entry, _written(entry))  # written first: `_row` takes it apart
    if len(whole) > MOST_LOGS:
        yield BadLine(_written(whole[MOST_LOGS:]), Reason.MESSAGE_TOO_LARGE, TOO_MANY)


def _written(value: Any) -> bytes:
    """A value as JSON. Raises RecursionError near the 1,024 levels that can be read."""
    try:
        return bytes(memoryview(orjson.dumps(value)))  # its own keeps 4 KB, however small
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _row(value: Any, source: bytes) -> LogRow | BadLine:
    try:
        return _object(value, source)
    except orjson.JSONEncodeError:
        return BadLine(source, Reason.MALFORMED, TOO_DEEP)


def _line(line: bytes) -> LogRow | BadLine:
    try:
        return _row(exactly(load(line), line), line)
    except Malformed as error:
        return BadLine(line, Reason.MALFORMED, error.detail)
    except RecursionError:
        return BadLine(line, Reason.MALFORMED, TOO_DEEP)


def _object(value: Any, source: bytes) -> LogRow | BadLine:
    if not isinstance(value, dict):
        return BadLine(source, Reason.MALFORMED, f"a JSON {type(value).__name__}, not an object")
    value, layers, outer = unpacked(value)
    found = fields_of(value, layers)
    record = LogRecord()
    record.time_unix_nano = _time(found, outer)
    _severity(found, record)
    cut = _body(found, record)
    if not record.severity_number and not record.severity_text:
        _severity_unsaid(found, record)
    trace_id = _trace(found, record)
    service = _text(found, "service")
    # A version or an environment on its own may be anything's; beside a service it is the service's, GELF's its own.
    version = _text(found, "version") if service and "version" in found and not _is_gelf(found) else ""
    environment = _text(found, "environment") if service else ""
    logger = _text(found, "logger")
    resource = _resource(service, version, environment)
    if value.get("source_type") == "opentelemetry" or _is_otlp(found):
        value, around = _lifted(value, record)
        if around:
            resource, deep = _resource_with(resource, around)
            cut |= deep
    if isinstance(scopes := value.get(SCOPES), list):
        value = _flattened(value, scopes)
    cut |= _put_all(record.attributes, value)
    return LogRow(resource, _scope(logger), record.SerializeToString(), trace_id, source if cut else b"")


def _is_gelf(found: dict[str, list[Field]]) -> bool:
    return any(field.name == "shortmessage" for field in found.get("body", ()))


def _is_otlp(found: dict[str, list[Field]]) -> bool:
    return any([field.name in _OTLP for field in found.get("severity", ())])  # a list: of one, nearly always


def _lifted(value: dict[str, Any], record: LogRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes and the resource's, of OTLP that Vector's opentelemetry source or alike made a log of."""
    rest = dict(value)
    if record.trace_id and (flags := _flags(rest.get("flags"))) is not None:
        record.flags = flags
        del rest["flags"]
    own, around, resource = (_taken(rest, name) for name in ("attributes", "resource", "resources"))
    resource = _taken(around, "attributes") | resource
    if around:
        rest["resource"] = around
    twice = {name: member for name, member in own.items() if name in rest or name == "attributes"}
    return own | {"attributes": twice} | rest, resource


def _taken(members: dict[str, Any], name: str) -> dict[str, Any]:
    return members.pop(name) if isinstance(members.get(name), dict) else {}


def _flattened(value: dict[str, Any], scopes: list[Any]) -> dict[str, Any]:
    """The attributes with the members of .NET's scopes among them, the innermost's first; what is left stays a list.

    Of a scope of which only its text is left that stays.
    """
    members: dict[str, Any] = {}
    for scope in scopes:
        if isinstance(scope, dict):
            members |= {key: member for key, member in scope.items() if key not in _OF_SCOPE}
    members |= value
    return members | {SCOPES: [left for scope in scopes if (left := _left(scope, members)) not in (None, {})] or None}


def _left(scope: Any, lifted: dict[str, Any]) -> Any:
    if not isinstance(scope, dict):
        return scope
    left = {key: member for key, member in scope.items() if key in _OF_SCOPE or lifted[key] != member}
    left.pop(_TEMPLATE, None)
    return left[_TEXT] if left.keys() == {_TEXT} else left


def _first(found: dict[str, list[Field]], meaning: str, read: Callable[[Any], T | None]) -> T | None:
    """Take the first field of a meaning that can be read; the others stay attributes."""
    for field in found.get(meaning, ()):
        value = read(field.value)
        if value is not None:
            field.take()
            return value
    return None


def _time(found: dict[str, list[Field]], outer: Sequence[dict[str, Any]]) -> int:
    """Nanoseconds, 0 if none can be read; one without a zone, which is read as UTC, counts only if no other can.

    `outer`: maps of what is around the log under names of its own.
    """
    times = found.get("time", [])
    if times and without_zone(times[0].value):
        times += _times_of(outer)
        times.sort(key=lambda field: without_zone(field.value) or nanoseconds(field.value) is None)
    return _first(found, "time", nanoseconds) or 0


def _times_of(outer: Sequence[dict[str, Any]]) -> Iterator[Field]:
    for rank, members in enumerate(outer):
        for key, value in members.items():
            if meaning_of(key) == "time":
                yield Field(rank, normal(key), members, key, value)


def _severity(found: dict[str, list[Field]], record: LogRecord) -> None:
    """The first field whose severity is known, a number that is written as a text last; else the first word as it is.

    severity_text beside a number counts.
    """
    fields = found.get("severity")
    if fields is None:
        return
    words = [field for field in fields if _is_word(field)]
    if len(words) == len(fields) == 1:  # most logs
        (word,) = words
        record.severity_text = uncoloured(word.value)
        record.severity_number = severity_number(record.severity_text)  # type: ignore[assignment]
        word.take()
        return
    sure = [field for field in fields if not isinstance(field.value, str) or field.value not in _NUMBERS]
    known = next((field for field in (*sure, *fields) if _severity_number(field)), None)
    text = known or next(iter(words), None)
    if known is not None:
        record.severity_number = _severity_number(known)  # type: ignore[assignment]
        if known.name == "severitynumber" or not isinstance(known.value, str) or known.value in _NUMBERS:
            text = next((field for field in words if field.name == "severitytext"), None)
    record.severity_text = uncoloured(text.value) if text else severity_text(record.severity_number)
    for field in {id(field): field for field in (known, text) if field}.values():
        field.take()


def _severity_unsaid(found: dict[str, list[Field]], record: LogRecord) -> None:
    """Of a log whose fields state none: Serilog's compact format leaves out Information, a line of text has a head."""
    number, text = UNSPECIFIED, ""
    if any(field.name == "@t" for field in found.get("time", ())):
        number, text = INFO, "Information"
    elif record.body.HasField("string_value"):
        number, text = severity(head_of(record.body.string_value), within=True)
    record.severity_number, record.severity_text = number, text  # type: ignore[assignment]


def _is_word(field: Field) -> bool:
    return isinstance(field.value, str) and field.name not in _NO_WORDS and field.value not in _NUMBERS


def _severity_number(field: Field) -> int:
    value, name = field.value, field.name
    if name == "priority" and field.key != _JOURNALD:
        return UNSPECIFIED
    if isinstance(value, str):
        value = _NUMBERS.get(value, value)
    if isinstance(value, str):
        if name == "severitynumber":
            return severity_number(value.removeprefix(_ENUM)) if value.startswith(_ENUM) else UNSPECIFIED
        return severity_number(uncoloured(value))
    if not isinstance(value, int | float) or isinstance(value, bool) or name == "status":  # status: HTTP's
        return UNSPECIFIED
    if name == "severitynumber":
        return int(value) if value in range(1, HIGHEST + 1) else UNSPECIFIED
    if name == "severitylevel":
        return _AZURE[int(value)] if value in range(len(_AZURE)) else UNSPECIFIED
    return severity_of_level(value) if name not in _SYSLOG or value in range(8) else UNSPECIFIED


def _body(found: dict[str, list[Field]], record: LogRecord) -> bool:
    """Whether some of it is a text now, as in `_put`."""
    bodies = found.get("body", [])
    if len(bodies) > 1 and _is_otlp(found):
        bodies.sort(key=lambda field: (field.rank // LAYER, field.name != "body"))
    for field in bodies:
        value = field.value
        if value is None or (value == "" and len(bodies) > 1):
            continue
        if field.name == "body" or not isinstance(value, dict | list):
            if field.name == "log" and isinstance(value, str):
                value = value.removesuffix("\n")  # Docker's, not the application's
            cut = _put(record.body, value, _MAX_DEPTH)
            field.take()
            return cut
    return False


def _trace(found: dict[str, list[Field]], record: LogRecord) -> bytes:
    fields = found.get("trace", ())
    context = _trace_of(fields, general=False)
    if context is None and record.body.HasField("string_value"):
        context = context_in_text(record.body.string_value)
    if context is None:
        context = _trace_of(fields, general=True)
    if context is None:
        return b""
    record.trace_id, record.span_id = context.trace_id, context.span_id
    if context.flags is not None:
        record.flags = context.flags
    for field in found.get("span", ()):
        if record.span_id:
            break
        record.span_id = span_id(field.value, decimal=field.name in _DECIMAL)
        if record.span_id:
            _forget(field, record.span_id)
    flags = _first(found, "flags", _flags)
    if flags is not None:
        record.flags = flags
    return context.trace_id


def _trace_of(fields: Sequence[Field], general: bool) -> TraceContext | None:
    """That of the first that has one, of those that are `general` or of the others."""
    for field in fields:
        if field.is_general != general:
            continue
        if field.name in _LOOSE and not (isinstance(field.value, str) and _WHOLE(field.value)):
            continue
        context = trace_context(field.value, decimal=field.name in _DECIMAL)
        if context is not None:
            _forget(field, context.trace_id)
            return context
    return None


def _forget(field: Field, identity: bytes) -> None:
    """Drop the field unless its text says more than the id: people search for the decimal or X-Ray form as well."""
    if isinstance(field.value, str) and field.value.lower() == identity.hex():
        field.take()


def _flags(value: Any) -> int | None:
    if isinstance(value, str) and len(value) == 2:
        return int(value, 16) if _HEX_BYTE(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0xFF else None


def _text(found: dict[str, list[Field]], meaning: str) -> str:
    return _first(found, meaning, _some_text) or ""


def _some_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _put_all(into: Any, members: dict[str, Any]) -> bool:
    """Write attributes; a null and an empty object are none. Whether some are texts now, as in `_put`."""
    cut, add = False, into.add
    for key, member in members.items():
        if member is not None and member != {}:
            attribute = add()
            attribute.key = key
            cut |= _put(attribute.value, member, _MAX_DEPTH)
    return cut


def _put(into: AnyValue, value: Any, depth: int) -> bool:
    """Write a JSON value; below `depth` levels, and for integers beyond 64 bits, its text. Whether it was too deep.

    In place: to make messages and have them copied takes three times as long.
    """
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        if -_INT64 <= value < _INT64:
            into.int_value = value
        else:
            into.string_value = str(value)
    elif isinstance(value, float):
        into.double_value = value
    elif value is None:
        into.SetInParent()
    elif depth == 0:
        into.string_value = orjson.dumps(value).decode()
        return True
    elif isinstance(value, list):
        into.array_value.SetInParent()
        cut = False
        for entry in value:
            cut |= _put(into.array_value.values.add(), entry, depth - 1)
        return cut
    else:
        into.kvlist_value.SetInParent()
        cut = False
        for key, member in value.items():
            entry = into.kvlist_value.values.add()
            entry.key = key
            cut |= _put(entry.value, member, depth - 1)
        return cut
    return False


@remembered(1024)
def _resource(service: str, version: str, environment: str) -> bytes:
    names = {"service.name": service, "service.version": version, "deployment.environment.name": environment}
    attributes = [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in names.items() if text]
    return ResourceLogs(resource=Resource(attributes=attributes) if attributes else None).SerializeToString()


def _resource_with(header: bytes, attributes: dict[str, Any]) -> tuple[bytes, bool]:
    """The same with the attributes of a resource beside it, and whether some are texts now."""
    made = ResourceLogs.FromString(header)
    named = {attribute.key for attribute in made.resource.attributes}
    more = {name: member for name, member in attributes.items() if name not in named}
    cut = _put_all(made.resource.attributes, more)
    return made.SerializeToString(), cut


@remembered(1024)
def _scope(logger: str) -> bytes:
    return ScopeLogs(scope=InstrumentationScope(name=logger) if logger else None).SerializeToString()
