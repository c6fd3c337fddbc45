"""Span metrics for tests of the live page."""

from __future__ import annotations

from processors.span_metrics import span_metric_names
from schemas.point import HistogramValue, PointBatch, Value

BOUNDS = (10, 100, 1000)
NAMES = span_metric_names("spans", ["tenant"], BOUNDS)
SERVER, CLIENT = "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT"
OK, ERROR = "STATUS_CODE_UNSET", "STATUS_CODE_ERROR"


def batch(*rows: tuple[str, str, str, tuple[int, ...]]) -> PointBatch:
    """Rows of (service, kind, status, bucket counts)."""
    values: list[tuple[tuple[str, ...], Value]] = [
        ((service, "GET /", kind, status, f"t{n}"), HistogramValue(sum(buckets), 0.0, buckets))
        for n, (service, kind, status, buckets) in enumerate(rows)
    ]
    return PointBatch(NAMES.duration, NAMES.duration_shape, 0, values)
