"""Remote write 1.0 on the wire: ticks as TimeSeries messages.

Field numbers: prometheus/prompb remote.proto and types.proto. WriteRequest { timeseries = 1 }, TimeSeries { labels = 1,
samples = 2, histograms = 4 }, Label { name = 1, value = 2 }, Sample { double value = 1, int64 timestamp = 2 }. Labels
are sorted by name, as bytes; empty values are left out, as absent labels are (Prometheus remote write specification
1.0, "Labels"). Exponential histograms are native ones (sinks/native_histograms.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import isnan

from schemas.point import ExponentialValue, HistogramValue, Labels, Shape, SummaryValue, Value
from schemas.sample import SeriesBlock
from sinks.native_histograms import native_histogram, stale_histogram
from sinks.protobuf import field, varint

STALE = struct.pack("<Q", 0x7FF0000000000002)  # the NaN that ends a series
NAME = "__name__"
BUCKET = "le"
QUANTILE = "quantile"
_double = struct.Struct("<d").pack
_ZERO = _double(0.0)


def time_series(block: SeriesBlock, time_ms: int, since_ms: int = 0) -> Iterator[tuple[Labels, bytes]]:
    """(label values of the row, a `timeseries` field of a WriteRequest) for every series of the block.

    A histogram's row gives its buckets by rising `le` (cumulative counts), a summary's its quantiles, then come `_sum`
    and `_count`; a sum that is not known has no sample.

    A row that begins with this tick gets a zero first, just after `since_ms`, the time of the tick before (0: not
    known). Without it rate() and increase() miss what a new series counted first, and take a series that ended at 3 and
    comes back with 5 for one that counted 2; Tempo writes such a zero, too.
    """
    fresh = block.rows[len(block.rows) - block.fresh :] if 0 < since_ms < time_ms - 1 else []
    begins, time = varint(since_ms + 1), varint(time_ms & 0xFFFF_FFFF_FFFF_FFFF)
    parts = [_Series(block.shape, name, bound) for name, bound in series_of(block.metric, block.shape)]
    nothing, stale = _beginning(block.shape, len(parts), begins), _end(block.shape, len(parts), time)
    for labels, samples in (
        *((labels, nothing) for labels, _ in fresh),
        *((labels, _samples(value, time)) for labels, value in block.rows),
        *((labels, stale) for labels in block.stale),
    ):
        for series, sample in zip(parts, samples, strict=True):
            if sample:
                yield labels, series.encode(labels, sample)


def series_of(metric: str, shape: Shape) -> list[tuple[str, str]]:
    """Name and `le` or `quantile` ("" for none) of every series that one label set of a metric has."""
    bounds = list(map(_bound, shape.bounds))
    if shape.kind == "histogram":
        buckets = [(f"{metric}_bucket", le) for le in (*bounds, "+Inf")]
    elif shape.kind == "summary":
        buckets = [(metric, quantile) for quantile in bounds]
    else:
        return [(metric, "")]
    return [*buckets, (f"{metric}_sum", ""), (f"{metric}_count", "")]


def defect(metric: str, shape: Shape) -> str:
    """What makes every series of a metric invalid; "" if nothing does.

    Prometheus answers 204 to such series and drops them.
    """
    names = [NAME, *shape.label_names, *_bound_label(shape)]
    for name in (metric, *names):
        if not name or not _is_text(name):
            return f"{name!r} is not a name"
    return next((f"label {name!r} occurs twice" for name in names if names.count(name) > 1), "")


def _is_text(name: str) -> bool:
    """Prometheus takes any UTF-8; half a surrogate pair has none."""
    return all(not "\ud800" <= character <= "\udfff" for character in name)


def _bound_label(shape: Shape) -> list[str]:
    return [BUCKET] if shape.kind == "histogram" else [QUANTILE] if shape.kind == "summary" else []


class _Series:
    """One series of a label set: everything but the label values and the sample, encoded once per block."""

    def __init__(self, shape: Shape, name: str, bound: str) -> None:
        fixed = {NAME: name} | dict.fromkeys(_bound_label(shape) if bound else (), bound)
        slots = {label: slot for slot, label in enumerate(shape.label_names)}
        # Fixed labels are complete fields; of the others the encoded name and where the value stands in the row.
        self._labels: list[tuple[bytes, int]] = []
        for label in sorted([*fixed, *slots], key=str.encode):
            key = field(0x0A, label.encode())
            if label in fixed:
                self._labels.append((field(0x0A, key + field(0x12, fixed[label].encode())), -1))
            else:
                self._labels.append((key, slots[label]))

    def encode(self, values: Sequence[str], sample: bytes) -> bytes:
        parts = []
        for encoded, slot in self._labels:
            if slot < 0:
                parts.append(encoded)
            elif value := values[slot]:
                parts.append(field(0x0A, encoded + field(0x12, value.encode())))
        parts.append(sample)
        return field(0x0A, b"".join(parts))


def _samples(value: Value, time: bytes) -> list[bytes]:
    """The `samples` or `histograms` field of each series of a row; empty for none."""
    if isinstance(value, ExponentialValue):
        return [field(0x22, native_histogram(value, time))]
    if isinstance(value, HistogramValue):
        numbers: list[float] = [*accumulate(value.buckets)]
    elif isinstance(value, SummaryValue):
        numbers = [*value.values]
    else:
        return [_sample(_double(value), time)]
    total = b"" if isnan(value.sum) else _sample(_double(value.sum), time)
    return [*(_sample(_double(n), time) for n in numbers), total, _sample(_double(value.observations), time)]


def _beginning(shape: Shape, series: int, time: bytes) -> list[bytes]:
    """The zeros of a row; a quantile has none."""
    if shape.kind == "exponential":
        return [field(0x22, native_histogram(ExponentialValue(0, 0.0, 0, 0, 0.0, 0, (), 0, ()), time))]
    zero = _sample(_ZERO, time)
    return [b""] * len(shape.bounds) + [zero, zero] if shape.kind == "summary" else [zero] * series


def _end(shape: Shape, series: int, time: bytes) -> list[bytes]:
    if shape.kind == "exponential":
        return [field(0x22, stale_histogram(STALE, time))]
    return [_sample(STALE, time)] * series


def _sample(number: bytes, time: bytes) -> bytes:
    return field(0x12, b"\x09" + number + b"\x10" + time)


def _bound(bound: float) -> str:
    """A bucket's `le` as the OpenTelemetry exporters write it: `5`, `2.5`.

    >>> _bound(5.0), _bound(2.5), _bound(1e22)
    ('5', '2.5', '1e+22')
    """
    return repr(float(bound)).removesuffix(".0")
