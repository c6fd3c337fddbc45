"""The cumulative series of one partition's metrics: deltas in, every live series out.

The sum over a metric's series is what was counted, whatever folds (processors/cardinality.py), and whatever restarts:
`load(blocks())` into a fresh store goes on as if nothing had happened.

All series of a metric have one *shape*. The configuration of the worker that owns the metric decides which (`shapes`);
a metric that it does not know takes the shape of its first batch. Whatever comes in another shape, because another
worker still has, or a loaded tick had, another configuration, is conformed, so a rolling change never flips a metric
to and fro:
- labels are matched by name. One that is missing is empty, which Prometheus takes for absent; label sets that differ
  only in labels which the shape lacks are summed. A label set that disappears ends with a staleness marker.
- a bucket is added where its upper bound lies. Counts at bounds that both shapes have go on exactly; at a bound that
  only the new shape has they begin with those of the next lower common bound. Nothing ever decreases.
- a counter cannot become a histogram or the reverse: ProtocolError.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from processors.cardinality import SeriesLimiter
from schemas.errors import ProtocolError
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value
from schemas.sample import SeriesBlock

Row = tuple[Labels, Value]


@dataclass(slots=True)
class _Family:
    """One metric. A histogram is kept as [observations, sum, buckets...], a counter as [value]: both add up alike."""

    shape: Shape
    limiter: SeriesLimiter
    values: dict[Labels, list[float]] = field(default_factory=dict)
    # Label sets of a loaded tick that were renamed, merged or folded here, by the shape that they had.
    moved: list[tuple[Shape, Labels]] = field(default_factory=list)

    def add(self, labels: Labels, value: Value) -> bool:
        """Count a row that has this family's shape; True if it went under another label set."""
        placed = self.limiter.place(labels)
        more = [value.observations, value.sum, *value.buckets] if isinstance(value, HistogramValue) else [value]
        known = self.values.get(placed)
        self.values[placed] = more if known is None else [a + b for a, b in zip(known, more, strict=True)]
        return placed != labels

    def rows(self) -> list[Row]:
        """Cumulative values in the order of admission."""
        if self.shape.kind == "counter":
            return [(labels, value[0]) for labels, value in self.values.items()]
        return [
            (labels, HistogramValue(int(observations), total, tuple(map(int, buckets))))
            for labels, (observations, total, *buckets) in self.values.items()
        ]


class SeriesStore:
    """All series of one samples partition. `budget` is in Prometheus series per metric."""

    def __init__(self, budget: int, shapes: Mapping[str, Shape] | None = None) -> None:
        self._budget = budget
        self._shapes = dict(shapes or {})
        self._families: dict[str, _Family] = {}

    def apply(self, batch: PointBatch) -> float:
        """Add deltas; returns how many observations (a counter: how much) went under an overflow label set.

        Raises ProtocolError when the metric is of another kind, ConfigError when the budget does not hold it at all.
        """
        family = self._family(batch.metric, batch.shape)
        overflow = 0.0
        for labels, value in _conformed(batch.metric, batch.shape, family.shape, batch.rows):
            if family.add(labels, value):
                overflow += value.observations if isinstance(value, HistogramValue) else value
        return overflow

    def load(self, blocks: Iterable[SeriesBlock]) -> None:
        """Take over the series of a tick. They are admitted in its order, as far as the present budget goes."""
        for block in blocks:
            family = self._family(block.metric, block.shape)
            rows = _conformed(block.metric, block.shape, family.shape, block.rows)
            for (before, _), (labels, value) in zip(block.rows, rows, strict=True):
                if family.add(labels, value) or block.shape.label_names != family.shape.label_names:
                    family.moved.append((block.shape, before))

    def blocks(self) -> list[SeriesBlock]:
        """Every live series, and those that a change of configuration ended since the load: once. In order of name."""
        blocks: list[SeriesBlock] = []
        for metric, family in sorted(self._families.items()):
            blocks.append(SeriesBlock(metric, family.shape, family.rows()))
            blocks.extend(_ended(metric, family))
            family.moved = []
        return blocks

    def active(self) -> dict[str, int]:
        """Prometheus series by metric; none is above the budget."""
        return {metric: family.limiter.active for metric, family in self._families.items()}

    def __len__(self) -> int:
        """Label sets of all metrics."""
        return sum(len(family.values) for family in self._families.values())

    def _family(self, metric: str, shape: Shape) -> _Family:
        family = self._families.get(metric)
        if family is None:
            own = self._shapes.get(metric, shape)
            family = self._families[metric] = _Family(own, SeriesLimiter(own, self._budget))
        return family


def _conformed(metric: str, given: Shape, own: Shape, rows: list[Row]) -> list[Row]:
    """Rows of shape `given` as rows of shape `own`, in the same order."""
    if given.kind != own.kind:
        raise ProtocolError(f"{metric} is a {own.kind}, a batch says {given.kind}")
    relabel = _relabel(given.label_names, own.label_names)
    rebucket = _rebucket(given.bounds, own.bounds)
    return [
        (relabel(labels), rebucket(value) if isinstance(value, HistogramValue) else value) for labels, value in rows
    ]


def _relabel(given: tuple[str, ...], own: tuple[str, ...]) -> Callable[[Labels], Labels]:
    if given == own:
        return lambda labels: labels
    sources = [given.index(name) if name in given else None for name in own]
    return lambda labels: tuple("" if source is None else labels[source] for source in sources)


def _rebucket(given: tuple[float, ...], own: tuple[float, ...]) -> Callable[[HistogramValue], HistogramValue]:
    if given == own:
        return lambda value: value
    targets = [*(bisect_left(own, bound) for bound in given), len(own)]

    def rebucket(value: HistogramValue) -> HistogramValue:
        buckets = [0] * (len(own) + 1)
        for target, count in zip(targets, value.buckets, strict=True):
            buckets[target] += count
        return value._replace(buckets=tuple(buckets))

    return rebucket


def _ended(metric: str, family: _Family) -> list[SeriesBlock]:
    """Blocks of staleness markers for moved label sets that are no live series under any spelling."""
    if not family.moved:
        return []
    live = {_pairs(family.shape.label_names, labels) for labels in family.values}
    ended: dict[Shape, list[Labels]] = {}
    for shape, labels in family.moved:
        if _pairs(shape.label_names, labels) not in live:
            ended.setdefault(shape, []).append(labels)
    return [SeriesBlock(metric, shape, [], stale) for shape, stale in ended.items()]


def _pairs(names: tuple[str, ...], values: Labels) -> frozenset[tuple[str, str]]:
    """What Prometheus takes a label set for: order does not matter, an empty label is absent."""
    return frozenset((name, value) for name, value in zip(names, values, strict=True) if value)
