"""What the scanner costs: µs per row, the best of several rounds in one process. `python -m bench.micro.otlp_scan`"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from random import Random

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.formats.json_logs import parse
from schemas.otlp_build import traces_data
from schemas.otlp_scan import RawRows, SpanColumns

ROWS = 500
ROUNDS = 15
KEYS = {b"http.route": 0, b"http.response.status_code": 1, b"tenant": 2}


def attribute(key: str, value: str | int) -> KeyValue:
    return KeyValue(
        key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
    )


def example() -> bytes:
    """500 server spans of one service with 10 attributes each, about 420 bytes a span."""
    random = Random(1)
    spans = [
        Span(
            trace_id=random.randbytes(16),
            span_id=random.randbytes(8),
            parent_span_id=random.randbytes(8),
            name="GET /api/users/{id}",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=1_700_000_000_000_000_000,
            end_time_unix_nano=1_700_000_000_025_000_000,
            attributes=[
                attribute("http.request.method", "GET"),
                attribute("http.response.status_code", 200),
                attribute("http.route", "/api/users/{id}"),
                *(attribute(f"example.attribute.{index}", "a value of it") for index in range(7)),
            ],
            status=Status(code=Status.STATUS_CODE_OK),
            flags=0x101,
        )
        for _ in range(ROWS)
    ]
    resource = Resource(attributes=[attribute("service.name", "users"), attribute("host.name", "a")])
    data = TracesData(resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])])
    return data.SerializeToString()


def best(work: Callable[[], object]) -> float:
    """µs per row of the fastest round: what the code costs when nothing else runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) / ROWS * 1e6


def main() -> None:
    data = example()
    rows, whole = RawRows("traces"), array("I", [len(data)])
    rows.scan(data, whole)
    bounds = list(zip(rows.starts, rows.ends, strict=True))
    starts, ends = array("I", rows.starts), array("I", rows.ends)
    bare, keyed = SpanColumns({}), SpanColumns(KEYS)
    groups = [(rows.resources[0], rows.scopes[0], [data[start:end]]) for start, end in bounds]
    log = {
        "time": "2024-01-01T12:00:00.123Z",
        "level": "info",
        "message": "done",
        "service": "users",
        "n": 1,
        "route": "/",
    }
    lines = b"\n".join(
        orjson.dumps(log | {"trace_id": f"{row:032x}", "span_id": f"{row:016x}"}) for row in range(1, ROWS + 1)
    )
    for name, work in {
        "opentelemetry-proto: parse alone": lambda: TracesData.FromString(data),
        "RawRows": lambda: rows.scan(data, whole),
        "SpanColumns, no keys": lambda: bare.scan(data, ends, starts),
        "SpanColumns, 3 keys": lambda: keyed.scan(data, ends, starts),
        "traces_data": lambda: traces_data(groups),
        "json_logs.parse": lambda: parse(lines),
    }.items():
        print(f"{best(work):7.2f} µs/row  {name}")
    print(f"{len(data) / ROWS:.0f} bytes/span, Python {sys.version.split()[0]}, {sys.implementation.name}")


if __name__ == "__main__":
    main()
