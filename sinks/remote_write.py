"""Remote write 1.0 on the wire: ticks as TimeSeries messages.

Field numbers: prometheus/prompb remote.proto and types.proto. WriteRequest { timeseries = 1 }, TimeSeries { labels = 1,
samples = 2 }, Label { name = 1, value = 2 }, Sample { double value = 1, int64 timestamp = 2 }. Labels are sorted by
name, as bytes; empty values are left out, as absent labels are (Prometheus remote write specification 1.0, "Labels").
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from schemas.point import HistogramValue, Labels, Shape, Value
from schemas.sample import SeriesBlock

STALE = struct.pack("<Q", 0x7FF0000000000002)  # the NaN that ends a series
METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
NAME = "__name__"
BUCKET = "le"
_double = struct.Struct("<d").pack


def time_series(block: SeriesBlock, time_ms: int, since_ms: int = 0) -> Iterator[tuple[Labels, bytes]]:
    """(label values of the row, a `timeseries` field of a WriteRequest) for every series of the block.

    A histogram's row gives its buckets by rising `le` (cumulative counts), then `_sum`, then `_count`.

    A row that begins with this tick gets a zero first, just after `since_ms`, the time of the tick before (0: not
    known). Without it rate() and increase() miss what a new series counted first, and take a series that ended at 3 and
    comes back with 5 for one that counted 2; Tempo writes such a zero, too.
    """
    fresh = block.rows[len(block.rows) - block.fresh :] if 0 < since_ms < time_ms - 1 else []
    begins = b"\x10" + _varint(since_ms + 1)
    time = b"\x10" + _varint(time_ms & 0xFFFF_FFFF_FFFF_FFFF)
    parts = [_Series(block.shape, name, le) for name, le in series_of(block.metric, block.shape)]
    for labels, _ in fresh:
        for series in parts:
            yield labels, series.encode(labels, _double(0.0), begins)
    for labels, value in block.rows:
        for series, number in zip(parts, _numbers(block.shape, value), strict=True):
            yield labels, series.encode(labels, _double(number), time)
    for labels in block.stale:
        for series in parts:
            yield labels, series.encode(labels, STALE, time)


def series_of(metric: str, shape: Shape) -> list[tuple[str, str]]:
    """Name and `le` ("" for none) of every series that one label set of a metric has."""
    if shape.kind == "counter":
        return [(metric, "")]
    bounds = [*map(_bound, shape.bounds), "+Inf"]
    return [*((f"{metric}_bucket", le) for le in bounds), (f"{metric}_sum", ""), (f"{metric}_count", "")]


def defect(metric: str, shape: Shape) -> str:
    """What makes every series of a metric invalid; "" if nothing does.

    Prometheus answers 204 to such series and drops them.
    """
    if not METRIC_NAME.fullmatch(metric):
        return f"{metric!r} is not a metric name"
    names = [NAME, *shape.label_names, *([BUCKET] if shape.kind == "histogram" else [])]
    for name in names:
        if not LABEL_NAME.fullmatch(name):
            return f"{name!r} is not a label name"
        if names.count(name) > 1:
            return f"label {name!r} occurs twice"
    return ""


class _Series:
    """One series of a label set: everything but the label values and the sample, encoded once per block."""

    def __init__(self, shape: Shape, name: str, le: str) -> None:
        fixed = {NAME: name} | ({BUCKET: le} if le else {})
        slots = {label: slot for slot, label in enumerate(shape.label_names)}
        # Fixed labels are complete fields; of the others the encoded name and where the value stands in the row.
        self._labels: list[tuple[bytes, int]] = []
        for label in sorted([*fixed, *slots], key=str.encode):
            key = _field(0x0A, label.encode())
            if label in fixed:
                self._labels.append((_field(0x0A, key + _field(0x12, fixed[label].encode())), -1))
            else:
                self._labels.append((key, slots[label]))

    def encode(self, values: Sequence[str], number: bytes, time: bytes) -> bytes:
        parts = []
        for encoded, slot in self._labels:
            if slot < 0:
                parts.append(encoded)
            elif value := values[slot]:
                parts.append(_field(0x0A, encoded + _field(0x12, value.encode())))
        parts.append(_field(0x12, b"\x09" + number + time))
        return _field(0x0A, b"".join(parts))


def _numbers(shape: Shape, value: Value) -> list[float]:
    if not isinstance(value, HistogramValue):
        return [value]
    cumulative: list[float] = []
    total = 0
    for count in value.buckets:
        total += count
        cumulative.append(total)
    return [*cumulative, value.sum, value.observations]


def _bound(bound: float) -> str:
    """A bucket's `le` as the OpenTelemetry exporters write it: `5`, `2.5`.

    >>> _bound(5.0), _bound(2.5), _bound(1e22)
    ('5', '2.5', '1e+22')
    """
    return repr(float(bound)).removesuffix(".0")


def _field(tag: int, data: bytes) -> bytes:
    length = len(data)
    return bytes((tag, length)) + data if length < 0x80 else bytes((tag,)) + _varint(length) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
