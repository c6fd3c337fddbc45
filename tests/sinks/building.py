"""Records of the internal topics, made of official OTLP messages."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from schemas.envelope import Envelope, RowVerdict
from schemas.formats.write_request import Slices
from schemas.ids import trace_key
from schemas.point import Labels, Shape, Value
from schemas.sample import SeriesBlock, Tick
from sinks.contract import Item, Signal, SourceRecord
from sinks.settings import Sink

_offsets = itertools.count()


def now_ms() -> int:
    """Milliseconds. Asked in each test: what is old at the end of a long run a destination may refuse."""
    return int(time.time() * 1000)


def sink(endpoint: str | None, **settings: Any) -> Sink:
    """The settings of a sink."""
    return Sink.model_validate({"endpoint": endpoint, **settings})


def any_value(value: Any) -> AnyValue:
    """An AnyValue of a Python value."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    return AnyValue() if value is None else AnyValue(string_value=value)


def key_values(attributes: dict[str, Any]) -> list[KeyValue]:
    """Attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(trace_id: bytes | None = None, name: str = "GET /cart", **attributes: Any) -> Span:
    """A span of 5 ms that starts now."""
    start = time.time_ns()
    return Span(
        trace_id=trace_id if trace_id is not None else os.urandom(16),
        span_id=os.urandom(8),
        name=name,
        kind=Span.SpanKind.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 5_000_000,
        attributes=key_values(attributes),
    )


def log(text: Any = "hello", trace_id: bytes = b"", **attributes: Any) -> LogRecord:
    """A log record of now."""
    return LogRecord(
        time_unix_nano=time.time_ns(),
        observed_time_unix_nano=time.time_ns(),
        severity_number=9,  # type: ignore[arg-type]
        body=any_value(text),
        trace_id=trace_id,
        attributes=key_values(attributes),
    )


def resource(service: str = "cart", **attributes: Any) -> bytes:
    """A resource header: that of ResourceSpans and of ResourceLogs is the same."""
    described = Resource(attributes=key_values({"service.name": service, **attributes}))
    return ResourceLogs(resource=described).SerializeToString()


def scope(name: str = "tests", version: str = "1") -> bytes:
    """A scope header."""
    made = ScopeLogs()
    made.scope.name, made.scope.version = name, version
    return made.SerializeToString()


def envelope(
    rows: Sequence[Span | LogRecord | bytes],
    verdicts: Sequence[RowVerdict | None] = (),
    *,
    header: bytes | None = None,
    topic: str = "raw",
    offset: int = 7,
    timestamp: int | None = None,
) -> Envelope:
    """Rows of one raw record, all of one resource and scope."""
    bodies = [row if isinstance(row, bytes) else row.SerializeToString() for row in rows]
    made = Envelope(4, topic, 1, resources=[resource() if header is None else header], scopes=[scope()])
    made.messages = [(offset, now_ms() if timestamp is None else timestamp)]
    end = 0
    for index, body in enumerate(bodies):
        end += len(body)
        made.ends.append(end)
        made.resource.append(0)
        made.scope.append(0)
        made.message.append(0)
        made.item.append(index)
        row = rows[index]
        made.keys.append(0 if isinstance(row, bytes) else trace_key(row.trace_id))
    made.body = b"".join(bodies)
    made.verdicts = list(verdicts)
    return made


def record(
    value: bytes,
    topic: str = "internal",
    *,
    partition: int = 0,
    signal: Signal = "spans",
    redelivered: bool = False,
) -> SourceRecord:
    """A record with the next offset."""
    return SourceRecord(topic, partition, next(_offsets), now_ms(), value, signal, redelivered)


def counter(metric: str, rows: Sequence[tuple[Labels, Value]], names: Sequence[str] = ("service",)) -> SeriesBlock:
    """Counters of one metric."""
    return SeriesBlock(metric, Shape("counter", tuple(names)), list(rows))


def tick(
    number: int, time_ms: int, *blocks: SeriesBlock, redelivered: bool = False, since_ms: int = 0
) -> list[SourceRecord]:
    """The records of a tick."""
    values = Tick(number, time_ms, points=0, partitions=1, blocks=list(blocks), since_ms=since_ms).encode()
    return [record(value, "samples", signal="samples", redelivered=redelivered) for value in values]


def series_in(slices: Slices) -> list[tuple[int, bytes]]:
    """(lane, `timeseries` field) of every series, in the order of writing."""
    found: dict[int, tuple[int, bytes]] = {}
    last: dict[int, int] = {}
    for lane, fields, ends, numbers in slices.cut():
        assert list(numbers) == sorted(numbers)
        assert last.get(lane, -1) < numbers[0], "a lane is in order"
        last[lane] = numbers[-1]
        for start, end, number in zip([0, *ends], ends, numbers, strict=False):
            found[number] = lane, fields[start:end]
        assert ends[-1] == len(fields)
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in sorted(found)]


def spans_of(requests: Sequence[ResourceSpans]) -> list[Span]:
    """Every span of some ResourceSpans."""
    scopes: list[ScopeSpans] = [scope for part in requests for scope in part.scope_spans]
    return [found for part in scopes for found in part.spans]


def bad(items: Sequence[Item]) -> list[str]:
    """The defects of the items that have one."""
    return [item.defect for item in items if item.defect]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
