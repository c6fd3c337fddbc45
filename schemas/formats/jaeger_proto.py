"""Jaeger's protobuf spans (kafkaexporter's `jaeger_proto`, the topic of Jaeger 1's collector) to OTLP protobuf.

One Kafka value is one model.Span with its Process inside, or a model.Batch. The translation is the OpenTelemetry
Collector's (contrib, pkg/translator/jaeger, jaegerproto_to_traces.go, 0.140), its corners included: only a boolean
`error` tag is an error, `otel.status_code` comes second and `http.status_code` last; the first CHILD_OF reference into
the same trace is the parent, else the first FOLLOWS_FROM; the others become links. Beyond it, so that nothing is lost:
`flags` keeps the sampled bit, and warnings become the attribute that Jaeger 2 shows them from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from schemas.errors import Malformed
from schemas.formats.jaeger_model import RAW
from schemas.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from schemas.otlp_check import TracesData
from schemas.reasons import Reason

Attributes = dict[bytes, dict[str, Any]]
"""AnyValues by key, as keyword arguments: a tag that comes twice keeps its first place and its last value."""

_Batch, _Span, _Process = RAW["Batch"], RAW["Span"], RAW["Process"]
_STRING, _BOOL, _INT64, _FLOAT64, _BINARY = range(5)
_VALUES = {
    _STRING: ("string_value", "v_str"),
    _BOOL: ("bool_value", "v_bool"),
    _INT64: ("int_value", "v_int64"),
    _FLOAT64: ("double_value", "v_float64"),
    _BINARY: ("bytes_value", "v_binary"),
}
_CHILD_OF, _FOLLOWS_FROM = range(2)
_REFERENCES = {_CHILD_OF: b"child_of", _FOLLOWS_FROM: b"follows_from"}
_UNSET, _OK, _ERROR = range(3)
_SERVER, _CLIENT = 2, 3
_KINDS = {b"internal": 1, b"server": _SERVER, b"client": _CLIENT, b"producer": 4, b"consumer": 5}
_SAMPLED = 1  # of Jaeger's flags and of W3C's; the other bits mean different things
_NO_SERVICE = b"OTLPResourceNoServiceName"  # what the Collector writes for a resource without attributes
_WARNINGS = b"@jaeger@warnings"
_SHORT_TRACE_ID_BYTES = 8
_NS = 1_000_000_000
_MOST_DIGITS = 19  # of an HTTP status in text: 64 bits for the Collector, and Python refuses thousands of them
_MAX_TIME = (1 << 64) - 1


def traces(data: bytes) -> bytes:
    """A Span or a Batch to TracesData. Raises Malformed."""
    try:
        span = _Span.FromString(data)
        if len(span.trace_id) in (0, _SHORT_TRACE_ID_BYTES, TRACE_ID_BYTES):  # a Batch has a whole span there
            return translated([span], span.process if span.HasField("process") else None)
        batch = _Batch.FromString(data)
    except DecodeError:
        raise _neither() from None
    if not all(span.trace_id for span in batch.spans):
        raise _neither()
    return translated(batch.spans, batch.process if batch.HasField("process") else None)


def translated(spans: Iterable[Any], process: Any) -> bytes:
    """TracesData of model.Spans; `process` is for those that have none of their own, and may be None."""
    by_process: dict[bytes, tuple[Any, dict[tuple[bytes, bytes], list[dict[str, Any]]]]] = {}
    for span in spans:
        own = span.process if span.HasField("process") else process
        key = b"" if own is None else own.SerializeToString(deterministic=True)
        scopes = by_process.setdefault(key, (own, {}))[1]
        tags = list(span.tags)
        scopes.setdefault(_scope(tags), []).append(_span(span, _attributes(tags)))
    return bytes(
        TracesData(
            resource_spans=[
                {
                    "resource": {"attributes": _pairs(_resource(own))},
                    "scope_spans": [
                        {"scope": {"name": name, "version": version}, "spans": rows}
                        for (name, version), rows in scopes.items()
                    ],
                }
                for own, scopes in by_process.values()
            ]
        ).SerializeToString()
    )


def _span(span: Any, attributes: Attributes) -> dict[str, Any]:
    trace_id, span_id = _trace_id(span.trace_id), _span_id(span.span_id)
    references = [(_trace_id(r.trace_id), _span_id(r.span_id), r.ref_type) for r in span.references]
    parent = _parent(trace_id, references)
    start = _nanoseconds(span.start_time)
    kind = _KINDS.get(_take_text(attributes, b"span.kind"), 0)
    status = _status(attributes, kind)
    trace_state = _take_text(attributes, b"w3c.tracestate")
    if span.warnings:
        attributes[_WARNINGS] = {"array_value": {"values": [{"string_value": text} for text in span.warnings]}}
    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": parent,
        "trace_state": trace_state,
        "flags": span.flags & _SAMPLED,
        "name": span.operation_name,
        "kind": kind,
        "start_time_unix_nano": _in_range(start),
        "end_time_unix_nano": _in_range(start + _nanoseconds(span.duration)),
        "attributes": _pairs(attributes),
        "events": [_event(log) for log in span.logs],
        "links": [
            {"trace_id": trace, "span_id": other, "attributes": _pairs({b"opentracing.ref_type": _reference(kind)})}
            for trace, other, kind in references
            if not (kind == _CHILD_OF and other == parent)
        ],
    } | ({"status": status} if status else {})


def _parent(trace_id: bytes, references: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    same = [(kind, span) for trace, span, kind in references if trace == trace_id]
    for wanted in (_CHILD_OF, _FOLLOWS_FROM):
        for kind, span in same:
            if kind == wanted:
                return span if any(span) else b""
    return b""


def _status(attributes: Attributes, kind: int) -> dict[str, Any]:
    """The span's status out of its tags, in the Collector's order; the tags it came from are gone after it."""
    code, message, found = _UNSET, b"", False
    if attributes.get(b"error", {}).get("bool_value"):
        del attributes[b"error"]
        code, found = _ERROR, True
        described = b"otel.status_description" in attributes
        message = (
            _take_text(attributes, b"otel.status_description") if described
            else _text(attributes, b"http.status_message")
        )  # fmt: skip
    if b"otel.status_code" in attributes:
        word = _take_text(attributes, b"otel.status_code").upper()
        if not found:
            code, found = {b"OK": _OK, b"ERROR": _ERROR}.get(word, _UNSET), True
            message = _take_text(attributes, b"otel.status_description")
    elif not found and (code := _http_status(attributes, kind)) != _UNSET:
        found = True
        message = _text(attributes, b"http.status_message")
    return {"code": code, "message": message} if found else {}


def _http_status(attributes: Attributes, kind: int) -> int:
    """What `http.status_code` says of a span without any other status: 4xx is an error of clients, not of servers."""
    value = attributes.get(b"http.status_code", {})
    code = value.get("int_value")
    if code is None:
        digits = value.get("string_value", b"")
        sign = digits[:1] in (b"+", b"-")
        if not digits[sign:].isdigit() or len(digits) > _MOST_DIGITS:
            return _UNSET
        code = int(digits)
    if 400 <= code < 500 and kind in (_CLIENT, _SERVER):
        return _ERROR if kind == _CLIENT else _UNSET
    return _UNSET if 100 <= code < 399 else _ERROR  # 399: as in tracetranslator.StatusCodeFromHTTP


def _resource(process: Any) -> Attributes:
    if process is None or process.service_name == _NO_SERVICE:
        return {}
    attributes: Attributes = {}
    if process.service_name:
        attributes[b"service.name"] = {"string_value": process.service_name}
    attributes |= _attributes(process.tags)
    if b"host.name" not in attributes and b"hostname" in attributes:
        attributes[b"host.name"] = attributes.pop(b"hostname")
    if b"opencensus.exporterversion" not in attributes and b"jaeger.version" in attributes:
        version = b"Jaeger-" + _take_text(attributes, b"jaeger.version")
        attributes[b"opencensus.exporterversion"] = {"string_value": version}
    return attributes


def _scope(tags: list[Any]) -> tuple[bytes, bytes]:
    """Take name and version of the instrumentation scope out of the tags; a version without a name stays a tag."""
    found = []
    for key in (b"otel.scope.name", b"otel.scope.version"):
        place = next((place for place, tag in enumerate(tags) if tag.key == key), None)
        if place is None:
            break
        found.append(bytes(tags.pop(place).v_str))
    name, version = (*found, b"", b"")[:2]
    return name, version


def _event(log: Any) -> dict[str, Any]:
    attributes = _attributes(log.fields)
    name = _take_text(attributes, b"event")
    time = _in_range(_nanoseconds(log.timestamp))
    return {"time_unix_nano": time, "name": name, "attributes": _pairs(attributes)}


def _attributes(tags: Iterable[Any]) -> Attributes:
    attributes: Attributes = {}
    for tag in tags:
        known = _VALUES.get(tag.v_type)
        if known is not None:
            attributes[tag.key] = {known[0]: getattr(tag, known[1])}
        else:
            attributes[tag.key] = {"string_value": b'<Unknown Jaeger TagType "%d">' % tag.v_type}
    return attributes


def _pairs(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in attributes.items()]


def _text(attributes: Attributes, key: bytes) -> bytes:
    """A text attribute; empty when it is absent or of another type."""
    return bytes(attributes.get(key, {}).get("string_value", b""))


def _take_text(attributes: Attributes, key: bytes) -> bytes:
    text = _text(attributes, key)
    attributes.pop(key, None)
    return text


def _reference(kind: int) -> dict[str, bytes]:
    return {"string_value": _REFERENCES.get(kind, b"follows_from")}


def _trace_id(data: bytes) -> bytes:
    if len(data) not in (0, _SHORT_TRACE_ID_BYTES, TRACE_ID_BYTES):
        raise Malformed(Reason.MALFORMED, f"a trace id of {len(data)} bytes")
    return data.rjust(TRACE_ID_BYTES, b"\0") if data else b""


def _span_id(data: bytes) -> bytes:
    if len(data) not in (0, SPAN_ID_BYTES):
        raise Malformed(Reason.MALFORMED, f"a span id of {len(data)} bytes")
    return data


def _nanoseconds(moment: Any) -> int:
    return int(moment.seconds * _NS + moment.nanos)


def _neither() -> Malformed:
    return Malformed(Reason.MALFORMED, "neither a Jaeger Span nor a Batch")


def _in_range(time: int) -> int:
    return min(max(time, 0), _MAX_TIME)
