"""Jaeger spans of every shape, made the same way every time, and OTLP to compare what came of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.formats.jaeger_model import TEXT

_JSpan, _KeyValue = TEXT["Span"], TEXT["KeyValue"]
STRING, BOOL, INT64, FLOAT64, BINARY = range(5)
CHILD_OF, FOLLOWS_FROM = range(2)
START = 1_700_000_000


def text(key: str, value: str) -> Any:
    return _KeyValue(key=key, v_type=STRING, v_str=value)


def flag(key: str, value: bool = True) -> Any:
    return _KeyValue(key=key, v_type=BOOL, v_bool=value)


def number(key: str, value: int) -> Any:
    return _KeyValue(key=key, v_type=INT64, v_int64=value)


TAGS = (
    *(text("span.kind", kind) for kind in ("client", "server", "producer", "consumer", "internal", "odd", "")),
    number("span.kind", 1),
    flag("error"), flag("error", False), text("error", "true"), number("error", 1),
    *(text("otel.status_code", code) for code in ("OK", "error", "odd")), number("otel.status_code", 2),
    text("otel.status_description", "described"), number("otel.status_description", 1),
    *(number("http.status_code", code) for code in (0, 99, 200, 302, 399, 404, 500, -1)),
    *(text("http.status_code", code) for code in ("404", "503", "+200", "teapot", "")),
    flag("http.status_code"),
    text("http.status_message", "Not Found"),
    text("w3c.tracestate", "ot=th:8"), number("w3c.tracestate", 1),
    text("otel.scope.name", "shop"), text("otel.scope.version", "1.2"), number("otel.scope.name", 3),
    number("count", -(1 << 63)), _KeyValue(key="ratio", v_type=FLOAT64, v_float64=0.25),
    _KeyValue(key="raw", v_type=BINARY, v_binary=b"\x00\xff"), text("key", "first"), text("key", "second"),
    text("", ""), text("ü", "snowman ☃"),
)  # fmt: skip
PROCESS_TAGS = (
    text("hostname", "h1"), text("host.name", "h2"), text("jaeger.version", "Go-2.30"), text("ip", "10.0.0.1"),
    text("opencensus.exporterversion", "x"), text("service.name", "in tags"), number("pid", 42),
)  # fmt: skip
SERVICES = ("cart", "", "OTLPResourceNoServiceName")


def spans(count: int, seed: int = 4) -> Iterator[Any]:
    """Jaeger Spans with some of the tags above each."""
    draw = random.Random(seed)

    def some(tags: tuple[Any, ...], most: int) -> list[Any]:
        return draw.sample(tags, draw.randint(0, most))

    for _ in range(count):
        trace_id = draw.choice((draw.randbytes(16), bytes(8) + draw.randbytes(8)))
        parents = [draw.randbytes(8) for _ in range(2)]
        span = _JSpan(
            trace_id=trace_id,
            span_id=draw.randbytes(8),
            operation_name=draw.choice(("GET /", "", "ü")),
            references=[
                {
                    "trace_id": draw.choice((trace_id, trace_id, draw.randbytes(16))),
                    "span_id": draw.choice(parents),
                    "ref_type": draw.choice((CHILD_OF, FOLLOWS_FROM)),
                }
                for _ in range(draw.randint(0, 3))
            ],
            start_time={"seconds": START + draw.randint(0, 999), "nanos": draw.choice((0, 5, 123456000, 999999999))},
            duration={"seconds": draw.choice((0, 0, 90)), "nanos": draw.choice((0, 1, 1000000, 123456789))},
            tags=some(TAGS, 8),
            logs=[
                {
                    "timestamp": {"seconds": START, "nanos": draw.randint(0, 999)},
                    "fields": some((text("event", "retry"), number("event", 1), text("message", "m"), *TAGS[-6:]), 4),
                }
                for _ in range(draw.randint(0, 2))
            ],
        )
        if draw.random() < 0.9:
            span.process.service_name = draw.choice(SERVICES)
            span.process.tags.extend(some(PROCESS_TAGS, 4))
        yield span


def jsonpb(span: Any) -> bytes:
    """A Span as gogo's jsonpb writes it."""

    def written(value: Any, key: str = "") -> Any:
        if key in ("startTime", "timestamp"):
            moment = datetime.fromtimestamp(int(value.get("seconds", 0)), UTC).strftime("%Y-%m-%dT%H:%M:%S")
            return f"{moment}.{value.get('nanos', 0):09}Z"
        if key == "duration":
            return f"{value.get('seconds', 0)}.{value.get('nanos', 0):09}s"
        if isinstance(value, dict):
            return {name: written(member, name) for name, member in value.items()}
        return [written(entry) for entry in value] if isinstance(value, list) else value

    return orjson.dumps(written(MessageToDict(span)))


def comparable(data: bytes) -> list[tuple[Any, Any, Any]]:
    """(resource, scope, span) of every span, without what makes no difference: the order of attributes, empty parts."""
    found = []
    for part in TracesData.FromString(data).resource_spans:
        for scope in part.scope_spans:
            for span in scope.spans:
                found.append((_plain(part.resource), _plain(scope.scope), _plain(_without_zero_ids(span))))
    return found


def _without_zero_ids(span: Span) -> Span:
    if not any(span.parent_span_id):
        span.parent_span_id = b""
    return span


def _plain(message: Any) -> Any:
    plain = MessageToDict(message)
    for holder in (plain, *plain.get("events", ()), *plain.get("links", ())):
        holder.get("attributes", []).sort(key=lambda pair: pair.get("key", ""))
    return {key: value for key, value in plain.items() if value != {}}
