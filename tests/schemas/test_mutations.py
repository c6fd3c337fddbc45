"""A hundred thousand damaged messages: the scanner takes what protobuf takes, finds the same rows, or says Malformed.

test_otlp_scan.py compares more of each message, on fewer of them.
"""

from __future__ import annotations

from array import array
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from schemas import otlp_check
from schemas.otlp_scan import RawRows, SpanColumns, StatusMessages
from tests.repository import COMPILED
from tests.schemas.damage import damaged
from tests.schemas.strictness import is_stricter, key_of, parsed_or_none, parts_of

MUTATIONS = 100_000 if COMPILED else 2_000  # of each signal
FIELDS = {
    "traces": (otlp_check.TracesData, "resource_spans", "scope_spans", "spans"),
    "logs": (otlp_check.LogsData, "resource_logs", "scope_logs", "log_records"),
}


def attribute(random: Random, depth: int = 0) -> KeyValue:
    kind = random.randrange(7 if depth < 3 else 5)
    values = [
        AnyValue(string_value="v" * random.choice([0, 3, 130])),
        AnyValue(int_value=random.choice([-1, 0, 1 << 40])),
        AnyValue(double_value=0.5),
        AnyValue(bool_value=True),
        AnyValue(bytes_value=b"\xff"),
    ]
    if kind == 5:
        values.append(AnyValue(array_value=ArrayValue(values=[attribute(random, depth + 1).value])))
    elif kind == 6:
        values.append(AnyValue(kvlist_value=KeyValueList(values=[attribute(random, depth + 1)])))
    return KeyValue(key=random.choice(["k", "http.route"]), value=values[-1 if kind > 4 else kind])


def whole(random: Random, signal: str) -> bytes:
    """A message of one to three rows, with everything in it that messages nest."""
    ids: dict[str, Any] = {"trace_id": random.randbytes(16), "span_id": random.randbytes(8)}
    resource = Resource(attributes=[attribute(random)])
    if signal == "logs":
        logs = LogsData()
        for _ in range(random.randint(1, 2)):
            records = logs.resource_logs.add(resource=resource).scope_logs.add(schema_url="u").log_records
            records.add(**ids, body=attribute(random).value, attributes=[attribute(random)], severity_number=9)
            records.append(LogRecord(time_unix_nano=1))
        return logs.SerializeToString()
    traces = TracesData()
    for _ in range(random.randint(1, 2)):
        spans = traces.resource_spans.add(resource=resource).scope_spans.add().spans
        spans.add(
            **ids,
            name="n",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=1,
            attributes=[attribute(random), attribute(random)],
            events=[Span.Event(name="e", attributes=[attribute(random)])],
            links=[Span.Link(**ids)],
            status=Status(code=Status.STATUS_CODE_ERROR, message="m"),
            flags=0x101,
        )
    return traces.SerializeToString()


@pytest.mark.parametrize("signal", FIELDS)
def test_damaged_messages(signal: str) -> None:
    random = Random(f"{signal} 2026")
    kind, *fields = FIELDS[signal]
    raw, bases = RawRows(signal), [whole(random, signal) for _ in range(200)]
    spans, statuses = SpanColumns({}), StatusMessages()
    accepted = refused = 0
    for number in range(MUTATIONS):
        data = damaged(random, bases[number % len(bases)])
        raw.scan(data, array("I", [len(data)]))
        expected = parsed_or_none(kind, data)
        if raw.bad:
            assert expected is None or not getattr(expected, fields[0]) or is_stricter(expected, *fields[:2]), data
            refused += 1
            continue
        assert expected is not None, data
        found = [row for _, _, row in parts_of(expected, *fields)]
        keys = [key_of(row, signal == "traces") for row in found]
        assert list(raw.keys) == [key for key in keys if key], data
        assert len(raw.keys) + len(raw.nameless) + len(raw.spanless) == len(found), data
        if signal == "traces":
            spans.scan(data, raw.ends, raw.starts)
            statuses.scan(spans)
            said = [data[statuses.cells[at] : statuses.cells[at + 1]] for at in range(0, 2 * len(raw.keys), 2)]
            assert said == [row.status.message for row, key in zip(found, keys, strict=True) if key], data
        accepted += 1
    assert accepted > MUTATIONS / 10
    assert refused > MUTATIONS / 10
