"""Logs in JSON, as the tests of their formats look at them."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from schemas.formats.json_logs import LogRow, parse
from schemas.otlp_build import logs_data

HEX = "0af7651916cd43dd8448eb211c80319c"
TRACE = bytes.fromhex(HEX)
SPAN_HEX = "b7ad6b7169203331"
SPAN = bytes.fromhex(SPAN_HEX)


def one(fields: Any) -> LogRow:
    (row,) = parse(orjson.dumps(fields))
    assert isinstance(row, LogRow)
    return row


def record(fields: Any) -> LogRecord:
    return LogRecord.FromString(one(fields).record)


def plain(value: AnyValue) -> Any:
    """An AnyValue as Python."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(entry) for entry in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def attributes(fields: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in record(fields).attributes}


def resource(row: LogRow) -> dict[str, Any]:
    data = LogsData.FromString(logs_data([(row.resource, row.scope, [row.record])]))
    return {pair.key: plain(pair.value) for pair in data.resource_logs[0].resource.attributes}
