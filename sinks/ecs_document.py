"""A log record as an Elasticsearch document in the shape of the Elastic Common Schema.

What the `ecs` mapping mode of the Collector's elasticsearchexporter has a field for goes there (`ATTRIBUTES`, from
OpenTelemetry's semantic conventions to ECS 8.11); every other attribute of resource and record goes into `labels`, so
that no attribute makes a field of its own. The verdict's fields, and how values look, are those of
sinks/log_document.py. sinks/ecs_template.json is the mapping.
"""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.envelope import RowVerdict
from sinks.log_document import log_document

ECS_VERSION = "8.11.0"
ATTRIBUTES = {
    "service.name": ("service.name",),
    "service.version": ("service.version",),
    "service.instance.id": ("service.node.name",),
    "deployment.environment": ("service.environment",),
    "deployment.environment.name": ("service.environment",),
    "host.name": ("host.hostname", "host.name"),
    "host.id": ("host.id",),
    "host.arch": ("host.architecture",),
    "os.name": ("host.os.name",),
    "os.type": ("host.os.platform",),
    "os.description": ("host.os.full",),
    "os.version": ("host.os.version",),
    "container.id": ("container.id",),
    "container.name": ("container.name",),
    "container.image.name": ("container.image.name",),
    "container.image.tags": ("container.image.tag",),
    "cloud.provider": ("cloud.provider",),
    "cloud.platform": ("cloud.service.name",),
    "cloud.region": ("cloud.region",),
    "cloud.availability_zone": ("cloud.availability_zone",),
    "cloud.account.id": ("cloud.account.id",),
    "k8s.cluster.name": ("orchestrator.cluster.name",),
    "k8s.namespace.name": ("kubernetes.namespace",),
    "k8s.node.name": ("kubernetes.node.name",),
    "k8s.pod.name": ("kubernetes.pod.name",),
    "k8s.pod.uid": ("kubernetes.pod.uid",),
    "k8s.deployment.name": ("kubernetes.deployment.name",),
    "process.executable.path": ("process.executable",),
    "process.runtime.name": ("service.runtime.name",),
    "process.runtime.version": ("service.runtime.version",),
    "thread.name": ("process.thread.name",),
    "exception.type": ("error.type",),
    "exception.message": ("error.message",),
    "exception.stacktrace": ("error.stack_trace",),
}


def ecs_document(
    record: LogRecord, resource: dict[str, Any], scope: dict[str, Any], verdict: RowVerdict | None, received_ms: int
) -> dict[str, Any]:
    """The document of a LogRecord; arguments are those of `log_document`."""
    otel = log_document(record, resource, scope, verdict, received_ms)
    document: dict[str, Any] = {"@timestamp": otel["@timestamp"], "ecs": {"version": ECS_VERSION}}
    labels: dict[str, Any] = {}
    for key, value in (resource["attributes"] | otel.get("attributes", {})).items():
        places = ATTRIBUTES.get(key, ()) if _is_keyword(value) else ()
        for place in places:
            _put(document, place, value)
        if not places:
            labels[key] = value
    if labels:
        document["labels"] = labels
    if (message := _message(otel.get("body", {}))) is not None:
        document["message"] = message
    for name, place in (
        ("severity_text", "log.level"),
        ("severity_number", "event.severity"),
        ("event_name", "event.action"),
        ("observed_timestamp", "event.created"),
        ("trace_id", "trace.id"),
        ("span_id", "span.id"),
    ):
        if name in otel:
            _put(document, place, otel[name])
    if "name" in scope:
        _put(document, "log.logger", scope["name"])
    for name in ("trace", "sampling", "span", "service"):
        for key, value in otel.get(name, {}).items():
            _put(document, f"{name}.{key}", value)
    return document


def _is_keyword(value: Any) -> bool:
    """Whether a field of ECS takes it: one value or several. An object would cost the whole log."""
    return not any(isinstance(part, dict | list) for part in (value if isinstance(value, list) else [value]))


def _message(body: dict[str, Any]) -> str | None:
    """The body as text: an object or a list as JSON."""
    if "structured" in body:
        return orjson.dumps(body["structured"]).decode()
    text: str | None = body.get("text")
    return text


def _put(document: dict[str, Any], place: str, value: Any) -> None:
    """Set a dotted field in nested objects."""
    *parents, last = place.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[last] = value
