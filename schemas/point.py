"""The records of `points`: what was counted or read of one metric since the transaction before.

Key = the metric's name, partition = murmur2(key) mod M: one owner per metric. Sums of points are exact only because
each batch is in the transaction that moved the cursor of what was counted (docs/adr/0003).

Version 1 knows counters and histograms of span metrics, version 2 what OTLP metrics need beside them (open shapes). A
batch is written in the lowest version that can say it, so that what does not use OTLP metrics can be rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal, NamedTuple, get_args

import msgpack

from schemas.errors import ProtocolError
from schemas.packed_rows import PackedRows, after, opened
from schemas.packing import pack, unpack, unpacked
from schemas.versions import require

VERSION = 2
CLOSED_VERSION = 1
READS = (CLOSED_VERSION, VERSION)

Kind = Literal["counter", "histogram", "sum", "gauge", "info", "exponential", "summary"]
CLOSED_KINDS = ("counter", "histogram")
# What is read rather than counted: a newer reading takes the place of the older one.
LEVELS = ("sum", "gauge", "info", "summary")
UNCOUNTED = ("sum", "gauge", "info")  # a source tells what is, and nothing of what was
NUMBERS = ("counter", "sum", "gauge", "info")  # whose value is one
Labels = tuple[str, ...]  # values, in the order of the shape's label names; "" = the label is absent


class HistogramValue(NamedTuple):
    """A classic histogram: `buckets[i]` counts (bounds[i-1], bounds[i]], the last one all above the last bound.

    A `sum` that nobody told is NaN.
    """

    observations: int
    sum: float
    buckets: tuple[int, ...]


class ExponentialValue(NamedTuple):
    """A histogram of base 2^(2^-scale): `positive[i]` counts (base^(offset+i), base^(offset+i+1)], as in OTLP.

    `zero` counts what is at most `zero_threshold` away from 0.
    """

    observations: int
    sum: float
    scale: int
    zero: int
    zero_threshold: float
    positive_offset: int
    positive: tuple[int, ...]
    negative_offset: int
    negative: tuple[int, ...]


class SummaryValue(NamedTuple):
    """A summary: `values[i]` is the quantile of the shape's `bounds[i]`."""

    observations: int
    sum: float
    values: tuple[float, ...]


Value = float | HistogramValue | ExponentialValue | SummaryValue


class Shape(NamedTuple):
    """What all series of a metric have in common.

    The first `identity` label names say who is counted (service, span name, ...): they outlive the others when the
    cardinality limit folds a label set (processors/cardinality.py). `bounds` are a histogram's upper bounds without
    +Inf, in the unit of its name, rising, or a summary's quantiles; the other kinds have none.

    A `sum` may fall, a `counter` does not; `info` is a gauge of 1 with one label set for each identity. A shape is
    `open` if its metric comes from outside: its label names grow with what comes, and its bounds are those of one
    batch, not of the metric.
    """

    kind: Kind
    label_names: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    identity: int = 0
    open: bool = False

    @property
    def series(self) -> int:
        """Prometheus series that one label set costs: a histogram has its buckets, +Inf, _sum and _count."""
        if self.kind == "histogram":
            return len(self.bounds) + 3
        return len(self.bounds) + 2 if self.kind == "summary" else 1


class Reading(NamedTuple):
    """What a source has counted since it began at `start_ms` (0: not known), or what it measured, at `time_ms`.

    `source` is a number for source and label set; after the source began anew, `start_ms` is another. A `value` of None
    says that there is no value any more (OTLP's flag "no recorded value"). `target` is a number that stays when what
    else is told of a process changes, 0 if nothing says which process it is. `producer` is a number that all label sets
    of a process have in common, 0 if it is not known: with the start it is one run of it. `target ^ producer` is the
    label set's, whatever else is told of its process.
    """

    labels: Labels
    value: Value | None
    source: int
    start_ms: int
    time_ms: int
    target: int = 0
    producer: int = 0


class Resources:
    """What is told of the resources of producers in short (processors/resources.py).

    It stays `packed` until somebody asks, for only a new source does.
    """

    __slots__ = ("_found", "_packed")

    def __init__(self, packed: bytes = b"") -> None:
        self._packed = packed
        self._found: dict[int, bytes] = {}

    def of(self, producer: int) -> bytes:
        """Empty where nothing is told. Raises ProtocolError if it is not packed so."""
        if self._packed:
            try:
                self._found, self._packed = dict(msgpack.unpackb(self._packed)), b""
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise ProtocolError(f"not a points record of Tailrace: {error!r}") from error
        return self._found.get(producer, b"")


@dataclass(slots=True)
class PointBatch:
    """Points of one metric: `rows` are deltas, `readings` are not. A label set may occur in several rows: they add up.

    `start_ms` is the stream time from which the deltas were counted, 0 when not known. `resources` is what is told of
    producers in short.
    """

    metric: str
    shape: Shape
    start_ms: int = 0
    rows: list[tuple[Labels, Value]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    resources: dict[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The record value; `decode` is its inverse. What came later than readings older readers pass over."""
        targets = [reading.target for reading in self.readings]
        producers = [reading.producer for reading in self.readings]
        return pack(
            {
                "v": VERSION if self.shape.open else CLOSED_VERSION,
                "metric": self.metric,
                "shape": encode_shape(self.shape),
                "start": self.start_ms,
                "rows": self.rows,
                **({"readings": [reading[:-2] for reading in self.readings]} if self.readings else {}),
                **({"targets": targets} if any(targets) else {}),
                **({"producers": producers} if any(producers) else {}),
                **({"resources": list(self.resources.items())} if self.resources else {}),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> PointBatch:
        """Read a record value; raises ProtocolError on anything else."""
        try:
            raw: dict[str, Any] = unpack(value)
            require("points", raw["v"], READS)
            shape = decode_shape(raw["shape"])
            rows, resources = decode_rows(shape, raw["rows"]), dict(raw.get("resources", ()))
            return cls(raw["metric"], shape, raw["start"], rows, _readings(shape, raw), resources)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ProtocolError(f"not a points record of Tailrace: {error!r}") from error


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A `PointBatch` whose rows are where they lie, their values apart."""

    metric: str
    shape: Shape
    start_ms: int
    rows: PackedRows
    values: list[Value]
    readings: list[Reading]
    resources: Resources

    @classmethod
    def decode(cls, value: bytes) -> PackedBatch:
        """Read a record value; raises ProtocolError on anything else. Label values are not checked to be UTF-8."""
        try:
            data = unpacked(value)
            count, at = opened(data, 0)
            raw: dict[str, Any] = {}
            rows_at, resources = None, b""
            for _ in range(count):
                end = after(data, at)
                key, at = msgpack.unpackb(data[at:end]), end
                end = after(data, at)
                if key == "rows":
                    rows_at = at
                elif key == "resources":
                    resources = data[at:end]
                else:
                    raw[key] = msgpack.unpackb(data[at:end])
                at = end
            require("points", raw["v"], READS)
            shape = decode_shape(raw["shape"])
            if rows_at is None:
                raise KeyError("rows")
            rows = PackedRows(data, rows_at, len(shape.label_names), 2)
            values = decode_values(shape, rows, 1)
            readings = _readings(shape, raw)
            return cls(raw["metric"], shape, raw["start"], rows, values, readings, Resources(resources))
        except (KeyError, ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise ProtocolError(f"not a points record of Tailrace: {error!r}") from error


def encode_shape(shape: Shape) -> list[Any]:
    """As msgpack takes it; `decode_shape` is its inverse. A closed shape is as it was in version 1."""
    return list(shape) if shape.open else list(shape[:-1])


def decode_shape(raw: list[Any]) -> Shape:
    """A shape as msgpack gives it back; raises ValueError or TypeError."""
    kind, label_names, bounds, identity, *rest = raw
    if kind not in (get_args(Kind) if rest else CLOSED_KINDS):
        raise ValueError(f"kind {kind!r}")
    return Shape(kind, tuple(label_names), tuple(bounds), identity, *rest)


def decode_rows(shape: Shape, raw: list[Any]) -> list[tuple[Labels, Value]]:
    """Rows of (label values, value) as msgpack gives them back; raises ValueError if they do not fit the shape."""
    return [(decode_labels(shape, labels), decode_value(shape, value)) for labels, value in raw]


def encode_labels(labels: Labels) -> bytes:
    """Label values as every row has them; equal bytes are equal label values."""
    packed: bytes = msgpack.packb(labels)
    return packed


def decode_labels(shape: Shape, raw: list[str]) -> Labels:
    """Label values as msgpack gives them back; raises ValueError if they do not fit the shape."""
    if len(raw) != len(shape.label_names):
        raise ValueError(f"{len(raw)} label values for {len(shape.label_names)} names")
    return tuple(raw)


def decode_value(shape: Shape, raw: Any, any_bounds: bool = False) -> Value:
    """A value as msgpack gives it back; raises ValueError or TypeError if it does not fit the shape.

    `any_bounds`: it may have other bounds than the shape.
    """
    if shape.kind == "histogram":
        observations, total, counts = raw
        if len(counts) != len(shape.bounds) + 1 and not any_bounds:
            raise ValueError(f"{len(counts)} buckets for {len(shape.bounds)} bounds")
        return HistogramValue(observations, total, tuple(counts))
    if shape.kind == "exponential":
        observations, total, scale, zero, threshold, offset, positive, negative_offset, negative = raw
        sides = offset, tuple(positive), negative_offset, tuple(negative)
        return ExponentialValue(observations, total, scale, zero, threshold, *sides)
    if shape.kind == "summary":
        observations, total, values = raw
        if len(values) != len(shape.bounds) and not any_bounds:
            raise ValueError(f"{len(values)} values for {len(shape.bounds)} quantiles")
        return SummaryValue(observations, total, tuple(values))
    if not isinstance(raw, int | float):
        raise TypeError(f"a {shape.kind}'s value is {raw!r}")
    return raw


def decode_values(shape: Shape, rows: PackedRows, part: int) -> list[Any]:
    """That part of every row as a value; raises ValueError or TypeError if one does not fit the shape."""
    if shape.kind in NUMBERS:
        return rows.numbers(part)
    return [decode_value(shape, rows.part(row, part)) for row in range(len(rows))]


def _readings(shape: Shape, raw: Mapping[str, Any]) -> list[Reading]:
    readings = raw.get("readings", ())
    targets = raw.get("targets") or repeat(0, len(readings))
    producers = raw.get("producers") or repeat(0, len(readings))
    beside = zip(targets, producers, strict=True)
    return [_reading(shape, more, *reading) for reading, more in zip(readings, beside, strict=True)]


def _reading(
    shape: Shape, more: tuple[int, int], labels: list[str], value: Any, source: int, start_ms: int, time_ms: int
) -> Reading:
    read = None if value is None else decode_value(shape, value)
    return Reading(decode_labels(shape, labels), read, source, start_ms, time_ms, *more)
