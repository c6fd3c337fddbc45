"""Remote write 1.0 on the wire: which series a row is, and their samples; schemas/formats/write_request.py writes them.

Sample { double value = 1, int64 timestamp = 2 }. Exponential histograms are native ones (sinks/native_histograms.py).
"""

from __future__ import annotations

import struct
from decimal import Decimal
from itertools import accumulate
from math import isnan, nan

from schemas.formats.write_request import SeriesWriter, Slices
from schemas.otlp_build import field, varint
from schemas.point import NUMBERS, ExponentialValue, HistogramValue, Shape, SummaryValue, Value, decode_values
from schemas.sample import PackedBlock
from sinks.native_histograms import native_histogram, stale_histogram

STALE = struct.pack("<Q", 0x7FF0000000000002)  # the NaN that ends a series
LABEL_TAG = 0x0A  # a series' labels come first
NAME = "__name__"
BUCKET = "le"
QUANTILE = "quantile"
_double = struct.Struct("<d").pack
_ZERO = _double(0.0)


def write_series(block: PackedBlock, into: Slices, time_ms: int, since_ms: int = 0) -> None:
    """A `timeseries` field of a WriteRequest for every series of the block; all of a row have one lane.

    A histogram's row gives its buckets by rising `le` (cumulative counts), a summary's its quantiles, then come `_sum`
    and `_count`; a sum that is not known has no sample.

    A row that begins with this tick gets a zero first, just after `since_ms`, when its interval began (0: not
    known). Without it rate() and increase() miss what a new series counted first, and take a series that ended at 3 and
    comes back with 5 for one that counted 2; Tempo writes such a zero, too. Raises ValueError or TypeError for a value
    that does not fit the shape.
    """
    shape, rows, stale = block.shape, block.rows, block.stale
    bound = _bound_label(shape)
    series = [{NAME: name} | ({bound: le} if le else {}) for name, le in series_of(block.metric, shape)]
    writer = SeriesWriter(shape.label_names, series)
    values = decode_values(shape, rows, 1)
    if block.fresh and 0 < since_ms < time_ms - 1:
        zeros, unsummed = (_beginning(shape, len(series), varint(since_ms + 1), summed) for summed in (True, False))
        begun = [unsummed if _unsummed(value) else zeros for value in values[-block.fresh :]]
        first = (len(rows) - block.fresh) * rows.width + rows.parts + 1
        writer.samples(rows.data, rows.cells, first, rows.width, begun, into)
    time = varint(time_ms & 0xFFFF_FFFF_FFFF_FFFF)
    places = rows.data, rows.cells, rows.parts + 1, rows.width
    if shape.kind in NUMBERS:
        writer.numbers(*places, values, time, into)
    elif shape.kind == "exponential":
        writer.samples(*places, [_native(value, time) for value in values], into)
    else:
        writer.numbers(*places, list(map(_numbers, values)), time, into)
    if len(stale):
        ends = _end(shape, len(series), time)
        writer.samples(stale.data, stale.cells, stale.parts + 1, stale.width, [ends] * len(stale), into)


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
    names = [NAME, *shape.label_names, *filter(None, [_bound_label(shape)])]
    for name in (metric, *names):
        if not name or not _is_text(name):
            return f"{name!r} is not a name"
    return next((f"label {name!r} occurs twice" for name in names if names.count(name) > 1), "")


def _is_text(name: str) -> bool:
    """Prometheus takes any UTF-8; half a surrogate pair has none."""
    return all(not "\ud800" <= character <= "\udfff" for character in name)


def _bound_label(shape: Shape) -> str:
    return BUCKET if shape.kind == "histogram" else QUANTILE if shape.kind == "summary" else ""


def _unsummed(value: Value) -> bool:
    """Whether the sum of observations is not known."""
    return not isinstance(value, int | float) and isnan(value.sum)


def _numbers(value: Value) -> list[float | None]:
    """The number of each series of a histogram's or summary's row; None for none."""
    if isinstance(value, HistogramValue):
        return [*accumulate(value.buckets), None if _unsummed(value) else value.sum, value.observations]
    if isinstance(value, SummaryValue):
        return [*value.values, None if _unsummed(value) else value.sum, value.observations]
    raise TypeError(f"a {type(value).__name__} is no histogram and no summary")


def _native(value: Value, time: bytes) -> list[bytes]:
    """The `histograms` field of an exponential histogram."""
    if not isinstance(value, ExponentialValue):
        raise TypeError(f"a {type(value).__name__} is no exponential histogram")
    return [field(0x22, native_histogram(value, time))]


def _beginning(shape: Shape, series: int, time: bytes, summed: bool) -> list[bytes]:
    """The zeros of a row; a quantile has none, nor has a sum that is not known: in a native histogram it is NaN."""
    if shape.kind == "exponential":
        nothing = ExponentialValue(0, 0.0 if summed else nan, 0, 0, 0.0, 0, (), 0, ())
        return [field(0x22, native_histogram(nothing, time))]
    zero = _sample(_ZERO, time)
    if shape.kind in NUMBERS:
        return [zero]
    bucket = b"" if shape.kind == "summary" else zero
    return [*[bucket] * (series - 2), zero if summed else b"", zero]


def _end(shape: Shape, series: int, time: bytes) -> list[bytes]:
    if shape.kind == "exponential":
        return [field(0x22, stale_histogram(STALE, time))]
    return [_sample(STALE, time)] * series


def _sample(number: bytes, time: bytes) -> bytes:
    return field(0x12, b"\x09" + number + b"\x10" + time)


def _bound(bound: float) -> str:
    """A bucket's `le` or a quantile as the Collector and Prometheus' own receiver write it (Go's 'f', -1).

    >>> _bound(5.0), _bound(2.5), _bound(1e-5), _bound(1e16)
    ('5', '2.5', '0.00001', '10000000000000000')
    """
    return format(Decimal(repr(float(bound))), "f").removesuffix(".0")
