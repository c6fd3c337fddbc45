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
  only in labels which the shape lacks are counted as one from then on. What they had is in the ticks before and is not
  added to a series that goes on, for it would rise by that. A label set that disappears ends with a staleness marker.
- a bucket is added where its upper bound lies. Counts at bounds that both shapes have go on exactly; at a bound that
  only the new shape has they begin with those of the next lower common bound. Nothing ever decreases.
- a counter cannot become a histogram or the reverse: ProtocolError.

Metrics from outside have *open* shapes: label names are added as they come, and every row has the bounds that it began
with. One name has one kind, whoever was first, except that a classic and an exponential histogram may share one; what
comes as another kind, or under the name of a span metric, is Malformed (`name_taken`). So many names are taken in and
no more (`Limits.names`): several metrics have no sum, so points of a further one are refused and counted. Those that
are there stay, and when the last series of one ends its place is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from processors.cardinality import Limits
from processors.family import Family
from processors.sources import NOT_TOLD, Gone
from processors.values import conformed, observations
from schemas.errors import Malformed, ProtocolError
from schemas.point import Labels, PackedBatch, Shape, Value
from schemas.reasons import Reason
from schemas.sample import ENDING, SeriesBlock

Row = tuple[Labels, Value]
Relabel = Callable[[Labels], tuple[Labels, bool]]
"""Label values in the order of other names; True if a value got lost for want of its name."""


class SeriesStore:
    """All series of one samples partition."""

    def __init__(self, limits: Limits, shapes: Mapping[str, Shape] | None = None) -> None:
        self._limits = limits
        self._shapes = dict(shapes or {})
        # By name, and whether it is an exponential histogram.
        self._families: dict[tuple[str, bool], Family] = {}
        self._gone = Gone(limits.sources)
        self._generation: int | None = None  # of the last tick
        self._outside = 0  # metrics with an open shape
        self._refused = 0  # points of metrics without a place
        self.without_place = ""  # one of these metrics; who reads it empties it

    def apply(self, batch: PackedBatch, now_ms: int = 0) -> float:
        """Add deltas and readings; returns how many observations (a counter: how much) went under overflow label sets.

        `now_ms` is when the batch was appended. Label sets that were met before stay packed. Raises Malformed for an
        open batch whose name is taken; for a closed one of another kind ProtocolError, and ConfigError when the budget
        does not hold it at all.
        """
        family = self._family_of(batch)
        if family is None:
            return 0.0
        relabel = _relabelling(batch.shape, family)
        known = family.known(batch.shape)
        overflow, rows, values = 0.0, batch.rows, batch.values
        row = known.count(rows, values, 0, NOT_TOLD)
        while row < len(rows):
            placed = relabel(rows.texts(row))
            overflow += _count(family, batch.shape, placed, values[row])
            family.remember(known, rows.packed(row), placed, batch.shape)
            row = known.count(rows, values, row + 1, NOT_TOLD)
        return overflow + _read(family, relabel, batch, now_ms)

    def load(self, blocks: Iterable[SeriesBlock], time_ms: int) -> None:
        """Take over the series of a tick of that time. They are admitted in its order, as far as the limits go now."""
        self._generation = self._generation_at(time_ms)
        for block in blocks:
            if not block.rows:  # all that there was of the metric, or of a label set that was renamed, ended
                continue
            own = self._shapes.get(block.metric)
            if own is not None and block.shape.open and not own.open:  # span metrics have the name by now
                self._family(block.metric, own).moved += [(block.shape, labels) for labels, _ in block.rows]
                continue
            family = self._family(block.metric, block.shape)
            relabel = _relabelling(block.shape, family)
            bounds = block.shape.bounds if family.shape.open else family.shape.bounds
            went: dict[Labels, tuple[Labels | None, Value]] = {}
            for (before, value), ms in zip(block.rows, block.idle or [0] * len(block.rows), strict=True):
                labels, squeezed = relabel(before)
                whole = not squeezed and len(labels) - labels.count("") == len(before) - before.count("")
                value = conformed(value, block.shape.bounds, bounds)
                placed = family.take_over(labels, value, bounds, time_ms - ms, whole, ms == ENDING)
                went[before] = placed, value
                if placed != labels or not whole:
                    family.moved.append((block.shape, before))
            for source in block.sources:
                placed, value = went[source.labels]
                if placed is not None:
                    last = value if source.last is None else source.last
                    family.restore(source, placed, last, bounds, time_ms - source.idle)
            for limit in block.limits:
                if limit.folded or limit.sketch:
                    family.folds.restore(limit)

    def blocks(self, time_ms: int) -> list[SeriesBlock]:
        """The tick of `time_ms`: every live series, and those that ended since the last one, in order of name.

        Series end because they are idle, because their source says so, or by a change of configuration; they are told
        once.
        """
        generation = self._generation_at(time_ms)
        begun = 0 if self._generation is None else min(generation - self._generation, 2)
        blocks: list[SeriesBlock] = []
        for key, family in sorted(self._families.items()):
            for _ in range(begun):
                family.folds.rotate()
            family.end_idle(time_ms)
            told = family.told(time_ms)
            blocks += told
            blocks += _ended(family, told)
            family.moved = []
            family.narrow()
            if not family.rows:
                del self._families[key]
                self._outside -= family.shape.open
        self._generation = generation
        return blocks

    def folded_late(self) -> dict[str, float]:
        """What `apply` did not know yet: observations that the last tick has under overflow label sets, by metric."""
        return {family.metric: family.folded_late for family in self._families.values() if family.folded_late}

    def dropped(self) -> Counter[Reason]:
        """Points that changed nothing since this was asked last, by reason."""
        found: Counter[Reason] = Counter()
        if self._refused:
            found[Reason.TOO_MANY_METRICS], self._refused = self._refused, 0
        for family in self._families.values():
            found += family.dropped
            family.dropped.clear()
        return found

    def _generation_at(self, time_ms: int) -> int:
        """Sketches begin a generation when this changes. It depends on tick time alone: a restart changes nothing."""
        return time_ms // self._limits.idle_ms if self._limits.idle_ms else 0

    def active(self) -> dict[str, int]:
        """Prometheus series by metric; none is above the budget."""
        return {metric: family.limiter.active for (metric, _), family in self._families.items()}

    def __len__(self) -> int:
        """Label sets of all metrics."""
        return sum(len(family.rows) for family in self._families.values())

    def _family_of(self, batch: PackedBatch) -> Family | None:
        """That of a batch; None if there is no place for its metric. Those that spans become always have one."""
        metric = batch.metric
        own = not batch.shape.open or metric in self._shapes
        there = (metric, False) in self._families or (metric, True) in self._families
        if own or there or self._outside < self._limits.names:
            return self._family(metric, batch.shape)
        self._refused += len(batch.rows) + len(batch.readings)
        self.without_place = metric
        return None

    def _family(self, metric: str, shape: Shape) -> Family:
        exponential = shape.kind == "exponential"
        family = self._families.get((metric, exponential))
        other = self._families.get((metric, not exponential))
        own = family.shape if family is not None else self._shapes.get(metric, shape)
        if other is not None and {own.kind, other.shape.kind} != {"exponential", "histogram"}:
            own = other.shape
        if own.kind != shape.kind or (shape.open and not own.open):
            text = f"{metric} is a {own.kind}{'' if own.open else ' of span metrics'}, a batch says {shape.kind}"
            raise Malformed(Reason.NAME_TAKEN, text) if shape.open else ProtocolError(text)
        if family is None:
            family = self._families[metric, exponential] = Family(metric, own, self._limits, self._gone)
            self._outside += own.open
        return family


def _count(family: Family, given: Shape, placed: tuple[Labels, bool], value: Value) -> float:
    """Count a delta; how many observations went under another label set."""
    labels, squeezed = placed
    bounds = given.bounds if family.shape.open else family.shape.bounds
    overflow = family.count(labels, conformed(value, given.bounds, bounds), bounds)
    return overflow + (observations(value) if squeezed and family.shape.kind != "sum" else 0.0)


def _read(family: Family, relabel: Relabel, batch: PackedBatch, now_ms: int) -> float:
    """Take in readings; how many observations went under another label set."""
    overflow = 0.0
    bounds = batch.shape.bounds if family.shape.open else family.shape.bounds
    for reading in batch.readings:
        placed, squeezed = relabel(reading.labels)
        if squeezed and family.shape.kind == "gauge":
            family.refuse(placed)
        else:
            told = reading if placed is reading.labels else reading._replace(labels=placed)
            overflow += family.read(told, bounds, now_ms, batch.resources)
    return overflow


def _relabelling(given: Shape, family: Family) -> Relabel:
    """From a shape's label names to those of a family, which takes in new ones if its shape is open."""
    if family.shape.open:
        family.widen(given.label_names)
    own = family.shape.label_names
    if given.label_names == own:
        return lambda labels: (labels, False)
    index = {name: slot for slot, name in enumerate(given.label_names)}
    slots = [index.get(name) for name in own]
    lost = [slot for name, slot in index.items() if name not in own] if family.shape.open else []

    def relabel(labels: Labels) -> tuple[Labels, bool]:
        found = tuple("" if slot is None else labels[slot] for slot in slots)
        if any(labels[slot] for slot in lost):  # what a target is called is not all of it, and no number is lost
            return found if family.shape.kind == "info" else family.limiter.coarse(found), True
        return found, False

    return relabel


def _ended(family: Family, told: Iterable[SeriesBlock]) -> list[SeriesBlock]:
    """Blocks of staleness markers for moved label sets that are no live series under any spelling."""
    if not family.moved:
        return []
    names = family.shape.label_names
    live = {_pairs(names, labels) for block in told for labels in (*(labels for labels, _ in block.rows), *block.stale)}
    ended: dict[Shape, list[Labels]] = {}
    for shape, labels in family.moved:
        if _pairs(shape.label_names, labels) not in live:
            ended.setdefault(shape, []).append(labels)
    return [SeriesBlock(family.metric, shape, [], stale) for shape, stale in ended.items()]


def _pairs(names: tuple[str, ...], values: Labels) -> frozenset[tuple[str, str]]:
    """What Prometheus takes a label set for: order does not matter, an empty label is absent."""
    return frozenset((name, value) for name, value in zip(names, values, strict=True) if value)
