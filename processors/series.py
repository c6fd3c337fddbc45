"""The cumulative series of one partition's metrics: deltas in, every live series out.

The sum over a metric's series is what was counted, whatever folds (processors/cardinality.py), and whatever restarts:
`load(blocks(time), time)` into a fresh store goes on as if nothing had happened.

A label set that was not counted for `Limits.idle_ms` of tick time ends: it is told as stale once, its place and its
values' slots are free, and what it had counted is in the ticks before. If it comes back it begins again at zero, as a
new one does, and the tick says so (`SeriesBlock.fresh`), for a counter that reappears above its old value would else
pass for one that went on. The overflow label set ends like any other: when nothing was counted under it for so long.

What a point costs: two dict look-ups if its label set is admitted; one more per label, and two sketch updates per
refused value, if it folds. What is held: some hundred bytes per label set (bounded by the budget) and at most 15 KiB
per label that refuses values (processors/sketch.py), however many values come. bench/micro/series.py measures both.

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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from processors.cardinality import Limits, SeriesLimiter
from processors.sketch import Refused
from schemas.errors import ProtocolError
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value
from schemas.sample import LimitState, SeriesBlock

Row = tuple[Labels, Value]
SERIES = ""  # stands for the budget of series among the labels' limits
NOT_TOLD = -1
OFFENDERS = 10  # told per limit


@dataclass(slots=True)
class _Row:
    """A histogram is kept as [observations, sum, buckets...], a counter as [value]: both add up alike.

    `counted` is the time of the tick that its newest delta was in, NOT_TOLD until there is one.
    """

    value: list[float]
    counted: int = NOT_TOLD


@dataclass(slots=True)
class _Fold:
    """What one limit made fold: observations since the metric has been there, and the refused values."""

    folded: float = 0.0
    refused: Refused = field(default_factory=Refused)


class _Family:
    """One metric."""

    __slots__ = ("folds", "fresh", "limiter", "moved", "rows", "shape")

    def __init__(self, shape: Shape, limiter: SeriesLimiter) -> None:
        self.shape = shape
        self.limiter = limiter
        self.rows: dict[Labels, _Row] = {}
        self.fresh = 0  # so many of the last rows are in no tick
        # Label sets of a loaded tick that were renamed, merged or folded here, by the shape that they had.
        self.moved: list[tuple[Shape, Labels]] = []
        self.folds: dict[str, _Fold] = {}  # by label, SERIES for the budget of series

    def count(self, labels: Labels, value: Value) -> bool:
        """Count a delta that has this family's shape; True if it went under another label set."""
        if labels in self.rows:
            self._add(labels, value).counted = NOT_TOLD
            return False
        within = self.limiter.within_values(labels)
        placed = self.limiter.place(within)
        before = len(self.rows)
        self._add(placed, value).counted = NOT_TOLD
        self.fresh += len(self.rows) - before
        if placed == labels:
            return False
        self._fold(labels, within, placed, _observations(value))
        return True

    def take_over(self, labels: Labels, value: Value, counted: int) -> bool:
        """A loaded row of this family's shape; True if it went under another label set."""
        placed = self.limiter.place(labels)
        row = self._add(placed, value)
        row.counted = max(row.counted, counted)
        return placed != labels

    def _add(self, placed: Labels, value: Value) -> _Row:
        more = [value.observations, value.sum, *value.buckets] if isinstance(value, HistogramValue) else [value]
        row = self.rows.get(placed)
        if row is None:
            row = self.rows[placed] = _Row(more)
        else:
            row.value = [a + b for a, b in zip(row.value, more, strict=True)]
        return row

    def _fold(self, labels: Labels, within: Labels, placed: Labels, observations: float) -> None:
        """Tell whose limit it was: of the labels whose value was refused, and of the series."""
        if within != labels:
            for name, given, kept in zip(self.shape.label_names, labels, within, strict=True):
                if given != kept:
                    self._refuse(name, given, observations)
        if placed != within:
            self._refuse(SERIES, _spelled(self.shape.label_names, labels), observations)

    def _refuse(self, label: str, value: str, observations: float) -> None:
        fold = self.folds.get(label)
        if fold is None:
            fold = self.folds[label] = _Fold()
        fold.folded += observations
        fold.refused.add(value, observations)

    def end_idle(self, time_ms: int, idle_ms: int) -> list[Labels]:
        """Say that what was counted since the last tick is in this one; end the label sets that are idle."""
        stale = []
        for labels, row in self.rows.items():
            if row.counted == NOT_TOLD:
                row.counted = time_ms
            elif idle_ms and time_ms - row.counted >= idle_ms:
                stale.append(labels)
        for labels in stale:
            del self.rows[labels]
            self.limiter.release(labels)
        return stale

    def told(self, time_ms: int) -> tuple[list[Row], list[int]]:
        """Cumulative values in the order of admission, and for how long each was idle (none if none was)."""
        idle = [time_ms - row.counted for row in self.rows.values()]
        if self.shape.kind == "counter":
            rows: list[Row] = [(labels, row.value[0]) for labels, row in self.rows.items()]
        else:
            rows = [(labels, _histogram(row.value)) for labels, row in self.rows.items()]
        return rows, idle if any(idle) else []

    def limits(self) -> list[LimitState]:
        """Each label's limit, in the order of the labels, then that of the series."""
        limiter, states = self.limiter, []
        for slot, (label, limit) in enumerate(zip(self.shape.label_names, limiter.values, strict=True)):
            states.append(self._limit(label, limit, limiter.in_use(slot)))
        label_sets = self._limit(SERIES, limiter.budget, ())
        demand = limiter.active + label_sets.demand * self.shape.series
        return [*states, replace(label_sets, active=limiter.active, demand=demand)]

    def _limit(self, label: str, limit: int, active: Collection[str]) -> LimitState:
        fold = self.folds.get(label)
        if fold is None:
            return LimitState(label, limit, len(active), len(active))
        refused = fold.refused
        demand = len(active) if refused.empty else refused.together_with(active)
        offenders = () if refused.empty else refused.offenders(OFFENDERS)
        return LimitState(label, limit, len(active), demand, fold.folded, offenders, refused.state())


class SeriesStore:
    """All series of one samples partition."""

    def __init__(self, limits: Limits, shapes: Mapping[str, Shape] | None = None) -> None:
        self._limits = limits
        self._shapes = dict(shapes or {})
        self._families: dict[str, _Family] = {}
        self._generation: int | None = None  # of the last tick

    def apply(self, batch: PointBatch) -> float:
        """Add deltas; returns how many observations (a counter: how much) went under an overflow label set.

        Raises ProtocolError when the metric is of another kind, ConfigError when the budget does not hold it at all.
        """
        family = self._family(batch.metric, batch.shape)
        overflow = 0.0
        for labels, value in _conformed(batch.metric, batch.shape, family.shape, batch.rows):
            if family.count(labels, value):
                overflow += _observations(value)
        return overflow

    def load(self, blocks: Iterable[SeriesBlock], time_ms: int) -> None:
        """Take over the series of a tick of that time. They are admitted in its order, as far as the limits go now."""
        self._generation = self._generation_at(time_ms)
        for block in blocks:
            if not block.rows:  # all that there was of the metric, or of a label set that was renamed, ended
                continue
            family = self._family(block.metric, block.shape)
            rows = _conformed(block.metric, block.shape, family.shape, block.rows)
            idle = block.idle or [0] * len(rows)
            for (before, _), (labels, value), ms in zip(block.rows, rows, idle, strict=True):
                folded = family.take_over(labels, value, time_ms - ms)
                if folded or block.shape.label_names != family.shape.label_names:
                    family.moved.append((block.shape, before))
            for limit in block.limits:
                if limit.folded:
                    family.folds[limit.label] = _Fold(limit.folded, Refused(limit.sketch))

    def blocks(self, time_ms: int) -> list[SeriesBlock]:
        """The tick of `time_ms`: every live series, and those that ended since the last one, in order of name.

        Series end because they are idle, or by a change of configuration; they are told once.
        """
        generation = self._generation_at(time_ms)
        begun = 0 if self._generation is None else min(generation - self._generation, 2)
        blocks: list[SeriesBlock] = []
        for metric, family in sorted(self._families.items()):
            for fold in family.folds.values():
                for _ in range(begun):
                    fold.refused.rotate()
            stale = family.end_idle(time_ms, self._limits.idle_ms)
            rows, idle = family.told(time_ms)
            if rows or stale:
                blocks.append(SeriesBlock(metric, family.shape, rows, stale, idle, family.fresh, family.limits()))
            blocks.extend(_ended(metric, family, stale))
            family.moved, family.fresh = [], 0
            if not family.rows:
                del self._families[metric]
        self._generation = generation
        return blocks

    def _generation_at(self, time_ms: int) -> int:
        """Sketches begin a generation when this changes. It depends on tick time alone: a restart changes nothing."""
        return time_ms // self._limits.idle_ms if self._limits.idle_ms else 0

    def active(self) -> dict[str, int]:
        """Prometheus series by metric; none is above the budget."""
        return {metric: family.limiter.active for metric, family in self._families.items()}

    def __len__(self) -> int:
        """Label sets of all metrics."""
        return sum(len(family.rows) for family in self._families.values())

    def _family(self, metric: str, shape: Shape) -> _Family:
        family = self._families.get(metric)
        if family is None:
            own = self._shapes.get(metric, shape)
            family = self._families[metric] = _Family(own, self._limits.limiter(metric, own))
        return family


def _observations(value: Value) -> float:
    return value.observations if isinstance(value, HistogramValue) else value


def _histogram(value: list[float]) -> HistogramValue:
    observations, total, *buckets = value
    return HistogramValue(int(observations), total, tuple(map(int, buckets)))


def _spelled(names: tuple[str, ...], values: Labels) -> str:
    """A label set in one line.

    >>> _spelled(("service", "tenant"), ("cart", ""))
    'service=cart'
    """
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True) if value)


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


def _ended(metric: str, family: _Family, stale: Iterable[Labels]) -> list[SeriesBlock]:
    """Blocks of staleness markers for moved label sets that are no live series under any spelling."""
    if not family.moved:
        return []
    told = {_pairs(family.shape.label_names, labels) for labels in (*family.rows, *stale)}
    ended: dict[Shape, list[Labels]] = {}
    for shape, labels in family.moved:
        if _pairs(shape.label_names, labels) not in told:
            ended.setdefault(shape, []).append(labels)
    return [SeriesBlock(metric, shape, [], stale) for shape, stale in ended.items()]


def _pairs(names: tuple[str, ...], values: Labels) -> frozenset[tuple[str, str]]:
    """What Prometheus takes a label set for: order does not matter, an empty label is absent."""
    return frozenset((name, value) for name, value in zip(names, values, strict=True) if value)
