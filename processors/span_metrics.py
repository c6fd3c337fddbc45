"""Calls and durations of every span, counted before any verdict.

Names and labels are those of the Collector's spanmetrics connector as Jaeger's Monitor tab queries them
(`<namespace>_calls_total`, `<namespace>_duration_milliseconds`). Counts are deltas: they leave with the transaction
that moves the counted cursor and are summed by `aggregate`.

Memory layout: one flat array of counts, [calls, ns, ns >> 64, buckets...] for each label set since the last flush;
nothing is formatted per span.
"""

from __future__ import annotations

import re
from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import inf
from typing import NamedTuple

import cython

from processors.sampling.predicates import text_of
from processors.span_labels import LabelSet, SpanLabels
from schemas.columns import grown
from schemas.errors import ConfigError
from schemas.otlp_scan import END_NS, START_NS, AttributeValue, SpanColumns
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value

IDENTITY = ("service_name", "span_name", "span_kind", "status_code")
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")
NS_PER_MS = 1_000_000
_MOST = (1 << 64) - 1
_SETS = 256  # label sets for which there is room at first
_BUCKETS = cython.declare(cython.Py_ssize_t, 3)  # where they begin
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)  # a literal of this size is Python's
_START_NS = cython.declare(cython.Py_ssize_t, START_NS)
_END_NS = cython.declare(cython.Py_ssize_t, END_NS)
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


@cython.cclass
class SpanMetrics:
    """Counts spans until `flush`.

    `keys` maps attribute keys to slots, as given to `SpanColumns` and `resource_attributes` (Plan.keys): it must hold
    every dimension. A dimension absent on both span and resource is the empty label.
    """

    names = cython.declare(object, visibility="readonly")
    labels = cython.declare(object, visibility="readonly")
    _bounds: cython.ulonglong[::1]
    _counts: cython.ulonglong[::1]

    def __init__(
        self, namespace: str, dimensions: Sequence[str], buckets_ms: Sequence[float], keys: Mapping[bytes, int]
    ) -> None:
        self.names = span_metric_names(namespace, dimensions, buckets_ms)
        self.labels = SpanLabels([keys[dimension.encode()] for dimension in dimensions])
        # A duration is a whole number of ns: at most the bound means at most its whole part.
        self._bounds = array("Q", [min(int(Fraction(b) * NS_PER_MS), _MOST) for b in self.names.duration_shape.bounds])
        self._counts = array("Q", bytes(8 * self._stride() * _SETS))

    def _stride(self) -> int:
        """Counts of one label set: calls, the ns in two words, the buckets."""
        return _BUCKETS + len(self._bounds) + 1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self, columns: SpanColumns) -> None:
        """Count the spans of the batch whose label sets `labels` has numbered.

        A span that ends before it starts counts with duration 0, as in the Collector.
        """
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        numbers: cython.const[cython.uint][::1] = self.labels.numbers
        stride: cython.Py_ssize_t = self._stride()
        buckets: cython.Py_ssize_t = len(self._bounds)
        row: cython.Py_ssize_t
        at: cython.Py_ssize_t
        low: cython.Py_ssize_t
        high: cython.Py_ssize_t
        middle: cython.Py_ssize_t
        start: cython.ulonglong
        end: cython.ulonglong
        duration: cython.ulonglong
        sets: cython.Py_ssize_t = len(self.labels)
        if sets * stride > len(self._counts):
            self._counts = grown(self._counts, 2 * sets * stride)
        for row in range(rows):
            start = cells[row * width + _START_NS]
            end = cells[row * width + _END_NS]
            duration = end - start if end > start else 0
            low, high = 0, buckets
            while low < high:
                middle = (low + high) // 2
                if self._bounds[middle] < duration:
                    low = middle + 1
                else:
                    high = middle
            at = numbers[row] * stride
            self._counts[at] += 1
            start = (self._counts[at + 1] + duration) & _LOW_64
            self._counts[at + 2] += start < duration  # the carry
            self._counts[at + 1] = start
            self._counts[at + _BUCKETS + low] += 1

    def flush(self, start_ms: int = 0) -> list[PointBatch]:
        """Everything counted since the last flush; empty when there was nothing.

        `start_ms` is the stream time from which it was counted, if known.
        """
        names, stride, at = self.names, self._stride(), 0
        calls: list[tuple[Labels, Value]] = []
        durations: list[tuple[Labels, Value]] = []
        batches: list[PointBatch] = []
        size = 0
        for labelled in self.labels.sets()[: len(self._counts) // stride]:
            number, low, high, *buckets = memoryview(self._counts)[at : at + stride].tolist()
            at += stride
            if not number:
                continue
            labels = _labels(labelled)
            calls.append((labels, number))
            durations.append((labels, HistogramValue(number, ((high << 64) + low) / NS_PER_MS, tuple(buckets))))
            size += sum(map(len, labels)) + _ROW_OVERHEAD
            if size >= BATCH_CHARACTERS:
                batches.append(PointBatch(names.calls, names.calls_shape, start_ms, calls))
                batches.append(PointBatch(names.duration, names.duration_shape, start_ms, durations))
                calls, durations, size = [], [], 0
        if calls:
            batches.append(PointBatch(names.calls, names.calls_shape, start_ms, calls))
            batches.append(PointBatch(names.duration, names.duration_shape, start_ms, durations))
        self.labels.clear()
        self._counts = array("Q", bytes(8 * stride * _SETS))
        return batches


def label_text(value: AttributeValue | None) -> str:
    """An attribute as label value, written as the Collector's `AsString` does; absent is "".

    >>> label_text(True), label_text(2.0), label_text(1e-5), label_text(b"id"), label_text(None)
    ('true', '2', '0.00001', 'aWQ=', '')
    """
    if value is None:
        return ""
    return b64encode(value).decode() if isinstance(value, bytes) else text_of(value)


def _labels(labelled: LabelSet) -> Labels:
    service, name, kind, status, dimensions = labelled
    texts = (
        service,
        name.decode(errors="replace"),
        f"SPAN_KIND_{KINDS[kind] if 0 <= kind < len(KINDS) else KINDS[0]}",
        f"STATUS_CODE_{STATUSES[status] if 0 <= status < len(STATUSES) else STATUSES[0]}",
        *map(label_text, dimensions),
    )
    return tuple(text[:MAX_LABEL_CHARACTERS] for text in texts)


def _label_name(key: str) -> str:
    """Dots and everything else that Prometheus does not allow become underscores."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    return f"_{name}" if name[:1].isdigit() else name
