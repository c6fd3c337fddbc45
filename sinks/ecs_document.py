"""A log record as an Elasticsearch document in the shape of the Elastic Common Schema.

An attribute that has the name of a field of ECS, dotted or nested as Filebeat and ECS loggers write it, goes there
(`FIELDS`), and what the `ecs` mapping mode of the Collector's elasticsearchexporter has a field for, there
(`ATTRIBUTES`, from OpenTelemetry's semantic conventions to ECS 8.11). Of several for one field the record's own parts
(its severity, its body, ids, the verdict) win, then names of ECS, then the record's attributes over its resource's;
the others, and all other attributes, go into `labels`, so that no attribute makes a field of its own. The verdict's
fields, and how values look, are those of sinks/log_document.py. sinks/ecs_template.json is the mapping.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
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

_OF_RECORD = {
    "severity_text": "log.level",
    "severity_number": "event.severity",
    "event_name": "event.action",
    "observed_timestamp": "event.created",
    "trace_id": "trace.id",
    "span_id": "span.id",
}
_NO_ATTRIBUTES = frozenset({"ecs", "data_stream", "trace", "span", "sampling"})  # what is in them we alone say


def _text_fields(properties: dict[str, Any], parent: str = "") -> Iterator[str]:
    for name, field in properties.items():
        if "properties" in field:
            yield from _text_fields(field["properties"], f"{parent}{name}.")
        elif field["type"] in ("keyword", "text"):  # which take every value but objects
            yield parent + name


_TEMPLATE = orjson.loads(importlib.resources.files("sinks").joinpath("ecs_template.json").read_bytes())
FIELDS = frozenset(
    name
    for name in _text_fields(_TEMPLATE["template"]["mappings"]["properties"])
    if name.partition(".")[0] not in _NO_ATTRIBUTES
)
"""Fields of the mapping that an attribute of the same name may fill."""
_PARENTS = frozenset(name[:at] for name in FIELDS for at, character in enumerate(name) if character == ".")


def ecs_document(
    record: LogRecord, resource: dict[str, Any], scope: dict[str, Any], verdict: RowVerdict | None, received_ms: int
) -> dict[str, Any]:
    """The document of a LogRecord; arguments are those of `log_document`."""
    otel = log_document(record, resource, scope, verdict, received_ms)
    fields = {place: otel[name] for name, place in _OF_RECORD.items() if name in otel}
    if (message := _message(otel.get("body", {}))) is not None:
        fields["message"] = message
    if "name" in scope:
        fields["log.logger"] = scope["name"]
    for name in ("trace", "sampling", "span", "service"):
        fields |= {f"{name}.{key}": value for key, value in otel.get(name, {}).items()}
    own = otel.get("attributes", {})
    attributes = own | {key: value for key, value in resource["attributes"].items() if key not in own}
    labels = _others(attributes, fields)
    for key in filter(ATTRIBUTES.__contains__, attributes):
        value = attributes[key]
        # A list: all of its places.
        if _is_keyword(value) and any([fields.setdefault(place, value) == value for place in ATTRIBUTES[key]]):
            labels.pop(key, None)
    document: dict[str, Any] = {"@timestamp": otel["@timestamp"], "ecs": {"version": ECS_VERSION}}
    for place, value in fields.items():
        _put(document, place, value)
    if labels:
        document["labels"] = _unfolded(labels)
    return document


def _others(members: dict[str, Any], fields: dict[str, Any], parent: str = "") -> dict[str, Any]:
    """The attributes that are no fields of ECS; those that are go into `fields`, unless another value is there."""
    others: dict[str, Any] = {}
    for key, value in members.items():
        name = parent + key
        if name in _PARENTS and isinstance(value, dict):
            if rest := _others(value, fields, f"{name}."):
                others[key] = rest
        elif not (name in FIELDS and _is_keyword(value) and fields.setdefault(name, value) == value):
            others[key] = value
    return others


def _unfolded(labels: dict[str, Any]) -> dict[str, Any]:
    """With ECS's own `labels`, nested or dotted, among the others, unless these have one of the name."""
    for key in [key for key in labels if key == "labels" or key.startswith("labels.")]:
        value = labels[key]
        inner = value if key == "labels" and isinstance(value, dict) else {key.removeprefix("labels."): value}
        if not inner.keys() & labels.keys():
            del labels[key]
            labels |= inner
    return labels


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
