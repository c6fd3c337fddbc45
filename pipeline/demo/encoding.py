"""Facts as the bytes that producers send: OTLP protobuf from SDKs and agents, JSON lines from older programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from pipeline.demo.facts import CLIENT, ERROR, SEVERITIES, LogFact, SpanFact, Value

Fact = TypeVar("Fact", SpanFact, LogFact)

SCHEMA_URL = "https://opentelemetry.io/schemas/1.30.0"


def traces_data(spans: Iterable[SpanFact]) -> bytes:
    """A TracesData message with one ResourceSpans per service and one ScopeSpans per library."""
    data = TracesData()
    for service, of_service in _groups(spans).items():
        resource_spans = data.resource_spans.add(resource=_resource(service), schema_url=SCHEMA_URL)
        scopes: dict[str, Any] = {}
        for span in of_service:
            name = _library(span)
            if name not in scopes:
                scopes[name] = resource_spans.scope_spans.add()
                scopes[name].scope.name = name
                scopes[name].scope.version = "0.51.0"
            _fill(scopes[name].spans.add(), span)
    encoded: bytes = data.SerializeToString()
    return encoded


def logs_data(logs: Iterable[LogFact]) -> bytes:
    """A LogsData message with one ResourceLogs per service."""
    data = LogsData()
    for service, of_service in _groups(logs).items():
        scope_logs = data.resource_logs.add(resource=_resource(service), schema_url=SCHEMA_URL).scope_logs.add()
        scope_logs.scope.name = f"{service}.log"
        for log in of_service:
            record = scope_logs.log_records.add(
                time_unix_nano=log.time_ns,
                observed_time_unix_nano=log.time_ns + 1_000_000,
                severity_number=SEVERITIES[log.severity],
                severity_text=log.severity,
                body=AnyValue(string_value=log.body),
                attributes=_attributes(log.attributes),
            )
            if log.trace_id:
                record.trace_id, record.span_id, record.flags = log.trace_id, log.span_id, 1
    encoded: bytes = data.SerializeToString()
    return encoded


def json_lines(logs: Iterable[LogFact]) -> bytes:
    """One JSON object per line, each service in its own dialect."""
    return b"\n".join(orjson.dumps(_DIALECTS.get(log.service, _plain)(log)) for log in logs)


def _plain(log: LogFact) -> dict[str, Any]:
    line: dict[str, Any] = {
        "timestamp": _rfc3339(log.time_ns), "level": log.severity, "message": log.body, "service": log.service,
    }  # fmt: skip
    if log.trace_id:
        line |= {"trace_id": log.trace_id.hex(), "span_id": log.span_id.hex()}
    return line | log.attributes


def _ecs(log: LogFact) -> dict[str, Any]:
    line: dict[str, Any] = {
        "@timestamp": _rfc3339(log.time_ns), "log.level": log.severity.lower(), "message": log.body,
        "service.name": log.service, "ecs.version": "8.11.0",
    }  # fmt: skip
    if log.trace_id:
        line |= {"trace.id": log.trace_id.hex(), "span.id": log.span_id.hex()}
    return line | log.attributes


def _terse(log: LogFact) -> dict[str, Any]:
    severity = {"WARN": "warning"}.get(log.severity, log.severity.lower())
    line: dict[str, Any] = {
        "ts": log.time_ns // 1_000_000, "severity": severity, "msg": log.body, "service": log.service,
    }  # fmt: skip
    if log.trace_id:
        line |= {"traceId": log.trace_id.hex(), "spanId": log.span_id.hex()}
    return line | log.attributes


_DIALECTS = {"payment": _plain, "shipping": _ecs, "email": _terse}

JSON_SERVICES = frozenset(_DIALECTS)
"""Services that write JSON lines; the others send OTLP."""


def _groups(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    services: dict[str, list[Fact]] = {}
    for fact in facts:
        services.setdefault(fact.service, []).append(fact)
    return services


def _resource(service: str) -> Resource:
    return Resource(
        attributes=_attributes(
            {
                "service.name": service, "service.namespace": "shop", "service.version": "1.4.2",
                "deployment.environment.name": "demo", "telemetry.sdk.language": "python",
            }
        )
    )  # fmt: skip


def _library(span: SpanFact) -> str:
    if "db.system.name" in span.attributes:
        return "opentelemetry.instrumentation.dbapi"
    if "rpc.system" in span.attributes:
        return "opentelemetry.instrumentation.grpc"
    return "opentelemetry.instrumentation.http" if "http.request.method" in span.attributes else span.service


def _fill(message: Span, span: SpanFact) -> None:
    message.trace_id, message.span_id, message.parent_span_id = span.trace_id, span.span_id, span.parent
    message.name = span.name
    message.kind = span.kind  # type: ignore[assignment]
    message.start_time_unix_nano, message.end_time_unix_nano = span.start_ns, span.end_ns
    # Bit 8: it is known whether the parent is remote; bit 9: it is. Bit 0: sampled by the head.
    message.flags = 0x101 if span.kind == CLIENT else 0x301
    message.attributes.extend(_attributes(span.attributes))
    if span.status:
        message.status.CopyFrom(Status(code=span.status, message=span.exception))  # type: ignore[arg-type]
    if span.status == ERROR:
        event = message.events.add(name="exception", time_unix_nano=span.end_ns)
        event.attributes.extend(_attributes({"exception.type": "Unavailable", "exception.message": span.exception}))


def _attributes(values: dict[str, Value]) -> Sequence[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in values.items()]


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"
