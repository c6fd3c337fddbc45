"""A kept trace as a waterfall: spans in the order of the tree, each with its offset, and the logs beside them.

Attribute values, log bodies and events are payload: they are in it only if asked for (`telemetry.live.payloads`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from pipeline.live.recent import KeptTrace
from pipeline.live.snapshot import TraceSummary
from schemas.severity import severity_text
from sinks.log_document import attributes, plain

KINDS = ("", "internal", "server", "client", "producer", "consumer")
ERROR = 2
NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """One span. `at_ms` counts from the trace's first start; `depth` is 0 for a root or where the parent lacks."""

    span_id: str
    depth: int
    service: str
    name: str
    kind: str
    error: bool
    at_ms: float
    duration_ms: float
    attributes: dict[str, Any] | None = None
    events: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One log record; `body` and `attributes` are None where payloads are not shown."""

    at_ms: float
    severity: str
    service: str
    span_id: str
    body: str | None = None
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """`more` rows of the trace came and were too many to be held."""

    summary: TraceSummary
    bars: list[Bar]
    lines: list[Line]
    more: int
    payloads: bool


@dataclass(slots=True)
class _Tree:
    spans: dict[bytes, tuple[Span, str]]
    children: dict[bytes, list[bytes]] = field(default_factory=dict)
    roots: list[bytes] = field(default_factory=list)

    def walk(self) -> Iterator[tuple[Span, str, int]]:
        """Each span once, parents before children; what only a circle of parents leads to is not there."""
        waiting = [(span_id, 0) for span_id in reversed(self.roots)]
        while waiting:
            span_id, depth = waiting.pop()
            span, service = self.spans[span_id]
            yield span, service, depth
            waiting += [(child, depth + 1) for child in reversed(self.children.get(span_id, []))]


def waterfall(trace: KeptTrace, payloads: bool) -> Waterfall | None:
    """None until its first span has come. Rows that are no OTLP are left out: Elasticsearch's sink says why."""
    tree = _tree(trace)
    if not tree.spans:
        return None
    logs = [(log, _service(row.resource), row.received) for row in trace.logs if (log := _parsed(LogRecord, row.data))]
    spans = [span for span, _ in tree.spans.values()]
    start = min(span.start_time_unix_nano for span in spans)
    end = max(span.end_time_unix_nano for span in spans)
    root, service = tree.spans[tree.roots[0]] if tree.roots else next(iter(tree.spans.values()))
    summary = TraceSummary(
        trace_id=root.trace_id.hex(),
        policy=trace.policy,
        service=service,
        name=root.name,
        start=start / 1e9,
        duration_ms=max(0, end - start) / NS_PER_MS,
        spans=len(spans),
        logs=len(logs),
        error=any(span.status.code == ERROR for span in spans),
        incomplete=trace.more > 0 or any(tree.spans[span_id][0].parent_span_id for span_id in tree.roots),
    )
    bars = [_bar(span, service, depth, start, payloads) for span, service, depth in tree.walk()]
    lines = [_line(log, service, received, start, payloads) for log, service, received in logs]
    return Waterfall(summary, bars, sorted(lines, key=lambda line: line.at_ms), trace.more, payloads)


def _tree(trace: KeptTrace) -> _Tree:
    """A span that came twice is there once. Brothers are in the order of their start."""
    found = ((span, _service(row.resource)) for row in trace.spans if (span := _parsed(Span, row.data)))
    tree = _Tree({span.span_id: (span, service) for span, service in found})
    for span_id, (span, _) in sorted(tree.spans.items(), key=lambda item: item[1][0].start_time_unix_nano):
        if span.parent_span_id in tree.spans and span.parent_span_id != span_id:
            tree.children.setdefault(span.parent_span_id, []).append(span_id)
        else:
            tree.roots.append(span_id)
    tree.roots.sort(key=lambda span_id: bool(tree.spans[span_id][0].parent_span_id))
    return tree


def _bar(span: Span, service: str, depth: int, start: int, payloads: bool) -> Bar:
    return Bar(
        span_id=span.span_id.hex(),
        depth=depth,
        service=service,
        name=span.name,
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "",
        error=span.status.code == ERROR,
        at_ms=(span.start_time_unix_nano - start) / NS_PER_MS,
        duration_ms=max(0, span.end_time_unix_nano - span.start_time_unix_nano) / NS_PER_MS,
        attributes=_attributes(span.attributes) if payloads else None,
        events=[_event(event) for event in span.events] if payloads else None,
    )


def _line(log: LogRecord, service: str, received: int, start: int, payloads: bool) -> Line:
    time = log.time_unix_nano or log.observed_time_unix_nano or received * int(NS_PER_MS)
    return Line(
        at_ms=(time - start) / NS_PER_MS,
        severity=severity_text(log.severity_number) or log.severity_text,
        service=service,
        span_id=log.span_id.hex(),
        body=_text(plain(log.body)) if payloads else None,
        attributes=_attributes(log.attributes) if payloads else None,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {key: _text(value) for key, value in attributes(pairs).items()}


def _event(event: Any) -> str:
    message = next((_text(plain(pair.value)) for pair in event.attributes if pair.key == "exception.message"), "")
    return f"{event.name}: {message}" if message else str(event.name)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


@lru_cache(maxsize=256)
def _service(resource: bytes) -> str:
    """`service.name` of a Resource's header; ResourceSpans and ResourceLogs have it in the same place."""
    header = _parsed(ResourceSpans, resource)
    pairs: list[KeyValue] = [] if header is None else list(header.resource.attributes)
    return next((_text(plain(pair.value)) for pair in pairs if pair.key == "service.name"), "")


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None
