"""The records of `points`: what one `sample` transaction counted of one metric, as deltas.

Key = the metric's name, partition = murmur2(key) mod M: one owner per metric. Sums of points are exact only because
each batch is in the transaction that moved the counted spans' cursor (docs/adr/0003).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from schemas.errors import ProtocolError
from schemas.packing import pack, unpack
from schemas.versions import require

VERSION = 1
READS = (1,)

Kind = Literal["counter", "histogram"]
Labels = tuple[str, ...]  # values, in the order of the shape's label names; "" = the label is absent


class HistogramValue(NamedTuple):
    """A classic histogram: `buckets[i]` counts (bounds[i-1], bounds[i]], the last one all above the last bound."""

    observations: int
    sum: float
    buckets: tuple[int, ...]


Value = float | HistogramValue


class Shape(NamedTuple):
    """What all series of a metric have in common.

    The first `identity` label names say who is counted (service, span name, ...): they outlive the others when the
    cardinality limit folds a label set (processors/cardinality.py). `bounds` are a histogram's upper bounds without
    +Inf, in the unit of its name, rising; a counter has none.
    """

    kind: Kind
    label_names: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    identity: int = 0

    @property
    def series(self) -> int:
        """Prometheus series that one label set costs: a histogram has its buckets, +Inf, _sum and _count."""
        return len(self.bounds) + 3 if self.kind == "histogram" else 1


@dataclass(slots=True)
class PointBatch:
    """Deltas of one metric. A label set may occur in several rows: they add up.

    `start_ms` is the stream time from which the deltas were counted, 0 when not known.
    """

    metric: str
    shape: Shape
    start_ms: int = 0
    rows: list[tuple[Labels, Value]] = field(default_factory=list)

    def encode(self) -> bytes:
        """The record value; `decode` is its inverse."""
        return pack(
            {
                "v": VERSION,
                "metric": self.metric,
                "shape": list(self.shape),
                "start": self.start_ms,
                "rows": self.rows,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> PointBatch:
        """Read a record value; raises ProtocolError on anything else."""
        try:
            raw: dict[str, Any] = unpack(value)
            require("points", raw["v"], READS)
            shape = decode_shape(raw["shape"])
            return cls(raw["metric"], shape, raw["start"], decode_rows(shape, raw["rows"]))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ProtocolError(f"not a points record of Tailrace: {error!r}") from error


def decode_shape(raw: list[Any]) -> Shape:
    """A shape as msgpack gives it back; raises ValueError or TypeError."""
    kind, label_names, bounds, identity = raw
    if kind not in ("counter", "histogram"):
        raise ValueError(f"kind {kind!r}")
    return Shape(kind, tuple(label_names), tuple(bounds), identity)


def decode_rows(shape: Shape, raw: list[Any]) -> list[tuple[Labels, Value]]:
    """Rows of (label values, value) as msgpack gives them back; raises ValueError if they do not fit the shape."""
    width, buckets = len(shape.label_names), len(shape.bounds) + 1
    rows: list[tuple[Labels, Value]] = []
    for labels, value in raw:
        if len(labels) != width:
            raise ValueError(f"{len(labels)} label values for {width} names")
        if shape.kind == "histogram":
            observations, total, counts = value
            if len(counts) != buckets:
                raise ValueError(f"{len(counts)} buckets for {buckets - 1} bounds")
            value = HistogramValue(observations, total, tuple(counts))
        elif not isinstance(value, int | float):
            raise TypeError(f"a counter's value is {value!r}")
        rows.append((tuple(labels), value))
    return rows
