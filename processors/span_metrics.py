"""Calls and durations of every span, counted before any verdict.

Names and labels are those of the Collector's spanmetrics connector as Jaeger's Monitor tab queries them
(`<namespace>_calls_total`, `<namespace>_duration_milliseconds`). Counts are deltas: they leave with the transaction
that moves the counted cursor and are summed by `aggregate`.

Memory layout: one dict entry per label set and flush, [calls, ns, buckets...]; nothing is formatted per span except
attribute values that are not strings.
"""

from __future__ import annotations

import re
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from schemas.errors import ConfigError
from schemas.otlp_scan import AttributeValue, SpanScan
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value

IDENTITY = ("service_name", "span_name", "span_kind", "status_code")
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")
NS_PER_MS = 1_000_000
# Longer label values are cut (Tempo's max_label_value_length): a span name with a whole SQL text is not a dimension.
MAX_LABEL_CHARACTERS = 2048
# Label text per batch before the next one is begun; keeps a record far below Kafka's 1 MiB default.
BATCH_CHARACTERS = 256 << 10
# Bytes that a row costs beside its label text: msgpack's heads, sum and bucket counts.
_ROW_OVERHEAD = 64


class SpanMetricNames(NamedTuple):
    """The two metrics of a namespace and their shapes; aggregate and sample derive both from the same config."""

    calls: str
    duration: str
    calls_shape: Shape
    duration_shape: Shape


def span_metric_names(namespace: str, dimensions: Sequence[str], buckets_ms: Sequence[float]) -> SpanMetricNames:
    """What `SpanMetrics` counts with these settings.

    Raises ConfigError when two dimensions end up as one label or bounds do not rise.
    """
    prefix = re.sub(r"[^a-zA-Z0-9_:]", "_", namespace)
    labels = (*IDENTITY, *map(_label_name, dimensions))
    for label in labels[len(IDENTITY) :]:
        if labels.count(label) > 1 or label == "le" or label.startswith("__"):
            raise ConfigError(f"metrics.span_metrics.dimensions: the label {label!r} is taken")
    bounds = tuple(float(bound) for bound in buckets_ms)
    if not bounds or any(low >= high for low, high in pairwise((0.0, *bounds, inf))):
        raise ConfigError(
            f"metrics.span_metrics.buckets_ms: {list(buckets_ms)} must be positive, rise and not be empty"
        )
    return SpanMetricNames(
        calls=f"{prefix}_calls_total",
        duration=f"{prefix}_duration_milliseconds",
        calls_shape=Shape("counter", labels, (), len(IDENTITY)),
        duration_shape=Shape("histogram", labels, bounds, len(IDENTITY)),
    )


class SpanMetrics:
    """Counts spans until `flush`.

    `keys` maps attribute keys to slots, as given to `scan_span` and `resource_attributes` (Plan.keys): it must hold
    every dimension. A dimension is looked up on the span, then on its resource; absent on both is the empty label.
    """

    def __init__(
        self,
        namespace: str,
        dimensions: Sequence[str],
        buckets_ms: Sequence[float],
        keys: Mapping[bytes, int],
    ) -> None:
        self.names = span_metric_names(namespace, dimensions, buckets_ms)
        self._slots = [keys[dimension.encode()] for dimension in dimensions]
        self._bounds_ns = [bound * NS_PER_MS for bound in self.names.duration_shape.bounds]
        self._zeros = [0] * (2 + len(self._bounds_ns) + 1)
        self._counts: dict[tuple[str | bytes | int, ...], list[int]] = {}

    def add(self, scan: SpanScan, service: str, resource: Sequence[AttributeValue | None]) -> None:
        """Count one span of `service`; `resource` are its resource's attributes by slot.

        A span that ends before it starts counts with duration 0, as in the Collector.
        """
        key: tuple[str | bytes | int, ...] = (service, scan.name, scan.kind, scan.status)
        if self._slots:
            own = scan.attributes
            for slot in self._slots:
                value = own[slot]
                if value is None:
                    value = resource[slot]
                key += (value if type(value) is str else label_text(value),)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = self._zeros.copy()
        duration = scan.end_ns - scan.start_ns
        if duration < 0:
            duration = 0
        counts[0] += 1
        counts[1] += duration
        counts[2 + bisect_left(self._bounds_ns, duration)] += 1

    def flush(self, start_ms: int = 0) -> list[PointBatch]:
        """Everything counted since the last flush; empty when there was nothing.

        `start_ms` is the stream time from which it was counted, if known.
        """
        names = self.names
        calls: list[tuple[Labels, Value]] = []
        durations: list[tuple[Labels, Value]] = []
        batches: list[PointBatch] = []
        size = 0
        for key, (number, total, *buckets) in self._counts.items():
            labels = _labels(key)
            calls.append((labels, number))
            durations.append((labels, HistogramValue(number, total / NS_PER_MS, tuple(buckets))))
            size += sum(map(len, labels)) + _ROW_OVERHEAD
            if size >= BATCH_CHARACTERS:
                batches.append(PointBatch(names.calls, names.calls_shape, start_ms, calls))
                batches.append(PointBatch(names.duration, names.duration_shape, start_ms, durations))
                calls, durations, size = [], [], 0
        if calls:
            batches.append(PointBatch(names.calls, names.calls_shape, start_ms, calls))
            batches.append(PointBatch(names.duration, names.duration_shape, start_ms, durations))
        self._counts = {}
        return batches


def label_text(value: AttributeValue | None) -> str:
    """An attribute as label value, written as the Collector's `AsString` does; absent is "".

    >>> label_text(True), label_text(2.0), label_text(b"id"), label_text(None)
    ('true', '2', 'aWQ=', '')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def _labels(key: tuple[str | bytes | int, ...]) -> Labels:
    service, name, kind, status, *dimensions = key
    assert isinstance(name, bytes)
    assert isinstance(kind, int)
    assert isinstance(status, int)
    texts = (
        str(service),
        name.decode(errors="replace"),
        f"SPAN_KIND_{KINDS[kind] if 0 <= kind < len(KINDS) else KINDS[0]}",
        f"STATUS_CODE_{STATUSES[status] if 0 <= status < len(STATUSES) else STATUSES[0]}",
        *map(str, dimensions),
    )
    return tuple(text[:MAX_LABEL_CHARACTERS] for text in texts)


def _label_name(key: str) -> str:
    """Dots and everything else that Prometheus does not allow become underscores."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    return f"_{name}" if name[:1].isdigit() else name
