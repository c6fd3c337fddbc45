"""Messages with secrets, and what redaction should do with them, said with protobuf's own objects."""

from __future__ import annotations

from typing import Any

import zstandard
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric, MetricsData, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.redaction import Redactor
from schemas.otlp_texts import IGNORE, MASK, REMOVE, REMOVE_OR_MASK
from schemas.packing import ZSTD_MAGIC
from tests.sinks.building import key_values, log, span

ALL = ["card_number", "email", "token"]
CARD, MAIL = "4111 1111 1111 1111", "jo.doe+x@mail.example.org"
BEARER = "Bearer " + "a1b2c3d4" * 4
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0YWlscmFjZSJ9.dBjftJeZ4CVPmB92K27uhbUJU1p1r"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
SECRETS = [CARD, MAIL, BEARER, JWT, AWS]
SECRET_BYTES = [secret.encode() for secret in SECRETS]
ATTRIBUTES = ("attributes", "filtered_attributes")


def redacted(message: Any, redactor: Redactor, numbers: bool = False) -> Any:
    """The message, changed in place; strings are bytes (schemas/otlp_check.py). Unknown fields are left out."""
    message.DiscardUnknownFields()
    _walk(message, redactor, numbers, body=False)
    return message


def _walk(message: Any, redactor: Redactor, numbers: bool, body: bool) -> None:
    name = message.DESCRIPTOR.name
    if name == "AnyValue" and numbers and message.WhichOneof("value") in ("int_value", "double_value"):
        value = getattr(message, message.WhichOneof("value"))
        text = (str(value) if isinstance(value, int) else repr(value)).encode()
        if (new := redactor.text(text)) != text:
            message.string_value = new
        return
    for field, value in message.ListFields():
        if field.name in ATTRIBUTES or (name, field.name) == ("KeyValueList", "values"):
            keys_count = body or field.name in ATTRIBUTES
            kept = [pair for pair in value if not keys_count or redactor.key(pair.key) not in (REMOVE, REMOVE_OR_MASK)]
            for pair in kept:
                _pair(pair, redactor, numbers, body)
            copies = [type(pair).FromString(pair.SerializeToString()) for pair in kept]
            del value[:]
            value.extend(copies)
        elif field.type == field.TYPE_MESSAGE:
            inside = body or (name, field.name) == ("LogRecord", "body")
            for one in value if field.is_repeated else [value]:
                _walk(one, redactor, numbers, inside)
        elif field.type == field.TYPE_BYTES and _is_text(name, field.name):
            if field.is_repeated:
                value[:] = [redactor.text(text) for text in value]
            else:
                setattr(message, field.name, redactor.text(value))


def _pair(pair: Any, redactor: Redactor, numbers: bool, body: bool) -> None:
    decided = redactor.key(pair.key)
    if decided == IGNORE:
        return
    if decided in (MASK, REMOVE_OR_MASK):  # of the latter only those that are inside a value are left
        key = redactor.text(pair.key)
        pair.Clear()  # of an index into a table of keys as well, which spans and logs have no use for
        pair.key, pair.value.string_value = key, b"****"
        return
    pair.key = redactor.text(pair.key)
    _walk(pair.value, redactor, numbers, body)


def _is_text(message: str, field: str) -> bool:
    """Of the fields that are bytes in schemas/otlp_check.py: not the ids."""
    return not field.endswith(("trace_id", "span_id"))


def everything(secret: str) -> dict[str, bytes]:
    """A message of each signal with a text of its own in every place where one can be."""
    one = span(bytes(range(16)), f"name {secret}", plain=f"x {secret}", deep={"a": [{"b": secret}]}, n=3)
    one.trace_state = f"a={secret}"
    one.status.message = f"for {secret}"
    one.attributes.extend(key_values({f"key {secret}": "v"}))
    one.events.add(name=secret, attributes=key_values({"e": secret}))
    one.links.add(trace_id=bytes(16), trace_state=secret, attributes=key_values({"l": secret}))
    traces = TracesData()
    part = traces.resource_spans.add(schema_url=secret)
    part.resource.attributes.extend(key_values({"service.name": "shop", "r": secret, "bytes": secret.encode()}))
    scope = part.scope_spans.add(schema_url=secret)
    scope.scope.name, scope.scope.version = secret, secret
    scope.scope.attributes.extend(key_values({"s": secret}))
    scope.spans.extend([one, span(bytes(range(1, 17)), "untouched", http="/x")])
    logs = LogsData()
    records = logs.resource_logs.add(resource=part.resource).scope_logs.add(scope=scope.scope).log_records
    records.extend([log(f"in {secret}", bytes(range(16)), k=secret), log({"a": {"b": [secret, 1]}}), log([secret])])
    records[0].severity_text, records[1].event_name = secret, secret
    metrics = MetricsData()
    metric = Metric(name="m", description=secret, unit="s")
    point = NumberDataPoint(as_int=1, time_unix_nano=1, attributes=key_values({"p": secret}))
    point.exemplars.append(Exemplar(as_int=1, filtered_attributes=key_values({"x": secret})))
    metric.gauge.data_points.append(point)
    metrics.resource_metrics.add(resource=part.resource).scope_metrics.add(scope=scope.scope).metrics.append(metric)
    made = {"traces": traces, "logs": logs, "metrics": metrics}
    return {signal: message.SerializeToString() for signal, message in made.items()}


def plain(value: bytes) -> bytes:
    """A record's value that can be looked into: those of internal topics may be compressed."""
    return zstandard.decompress(value) if value.startswith(ZSTD_MAGIC) else value
