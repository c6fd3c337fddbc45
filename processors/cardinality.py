"""How many values a label and how many series a metric may have, and what a new one is counted under instead.

What is admitted stays until it is idle (processors/series.py); only what is *new* folds, and nothing is dropped: the
sum over all series is what was counted. First comes the budget of distinct values per label: a new value for which
there is no room is counted as `__overflow__`, the other labels stay. Then comes the budget of series, in Prometheus
series, as an operator sees them: one label set of a histogram with 16 bounds costs 19. A label set for which there is
no room is counted
1. under its identity labels (service, span name, ...), all others `__overflow__`; if there is no room for that,
2. with all labels `__overflow__`, for which a place is always kept.

Room is dealt in the order of arrival. While a label set without dimension values may take any free place, one with
them may not take the last quarter: so an exploding dimension cannot push a service that comes later into step 2.

Gauges cannot be added up, so nothing stands for several of them: a gauge's new label set for which there is no room is
refused (`admits`), and counted as such. Nothing folds into the last quarter either, so it is theirs as well.

Label sets of an *open* shape (schemas/point.py) may cost differently: each histogram has its source's bounds. The place
that is kept is then that of the most expensive one so far; a histogram that does not fit even there is counted without
bounds.

The values of a label are those of the admitted label sets, no more state than that: to admit the same label sets in the
same order restores everything, and a value's slot is free when the last series that has it is released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from schemas.errors import ConfigError
from schemas.point import Labels, Shape

OVERFLOW = "__overflow__"
# 1/4 of the places is out of reach of label sets with dimension values, when there are dimensions.
COARSE_SHARE = 4
ANY_METRIC = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The budgets of all metrics: `series` in Prometheus series per metric, `values` per label of a metric.

    `series_of` overrides by metric, `values_of` by (metric, label); ANY_METRIC stands for those without their own.
    `idle_ms`: a series that was not counted for this long ends; 0: never. `level_idle_ms` is the same for what is not
    counted but read: gauges, sums that may fall, summaries. `sources`: how many cumulative streams a metric may have.
    `names`: how many metrics may come from outside.
    """

    series: int
    values: int
    series_of: Mapping[str, int] = field(default_factory=dict)
    values_of: Mapping[tuple[str, str], int] = field(default_factory=dict)
    idle_ms: int = 0
    level_idle_ms: int = 300_000
    sources: int = 50_000
    names: int = 10_000

    def limiter(self, metric: str, shape: Shape) -> SeriesLimiter:
        """The limiter of a metric. Raises ConfigError as `SeriesLimiter` does."""
        return SeriesLimiter(shape, self.series_of.get(metric, self.series), self.of_labels(metric, shape.label_names))

    def of_labels(self, metric: str, labels: Sequence[str]) -> list[int]:
        """How many values each of these labels of a metric may have."""
        any_metric = {label: self.values_of.get((ANY_METRIC, label), self.values) for label in labels}
        return [self.values_of.get((metric, label), default) for label, default in any_metric.items()]


class SeriesLimiter:
    """Admission of label sets of one metric. `budget` is in Prometheus series, `values` one limit per label name.

    Raises ConfigError when the budget does not hold even the one label set that everything could fold into; an open
    shape is not configured, and its one label set is counted all the same.
    """

    __slots__ = (
        "_active",
        "_admitted",
        "_identity",
        "_kept",
        "_overflow",
        "_series",
        "_uses",
        "budget",
        "changes",
        "values",
    )

    def __init__(self, shape: Shape, budget: int, values: Sequence[int]) -> None:
        if budget < shape.series and not shape.open:
            raise ConfigError(
                f"metrics.series_per_metric: {budget} is too small, one label set of this {shape.kind} "
                f"is {shape.series} series"
            )
        self.budget = budget
        self.values = tuple(values)
        self._series = shape.series
        self._identity = shape.identity
        self._overflow: Labels = (OVERFLOW,) * len(shape.label_names)
        self._admitted: dict[Labels, int] = {}  # with its cost
        self._active = 0
        self.changes = 0  # admitted and released so far: while it is the same, so is what `place` says
        self._kept = 0  # for the overflow label set: its cost, or the highest one until it is there
        # Of each label: how many admitted label sets have a value. "" (absent) and __overflow__ take no slot.
        self._uses: tuple[dict[str, int], ...] = tuple({} for _ in shape.label_names)

    @property
    def active(self) -> int:
        """Prometheus series in use; never more than the budget."""
        return self._active

    @property
    def admitted(self) -> Set[Labels]:
        """The label sets that are counted as they are, oldest first."""
        return self._admitted.keys()

    def cost(self, labels: Labels) -> int:
        """The Prometheus series that an admitted label set may have."""
        return self._admitted[labels]

    def in_use(self, slot: int) -> Set[str]:
        """The values of a label, never more than its limit."""
        return self._uses[slot].keys()

    @property
    def overflow(self) -> Labels:
        """The label set of everything that has no other place."""
        return self._overflow

    def widen(self, values: Sequence[int]) -> None:
        """More labels, with so many values: every label set lacks them so far."""
        more = ("",) * len(values)
        overflow = self._overflow
        self._overflow += (OVERFLOW,) * len(values)
        self._admitted = {
            self._overflow if labels == overflow else labels + more: cost for labels, cost in self._admitted.items()
        }
        self.values += tuple(values)
        self._uses += tuple({} for _ in values)

    def narrow(self, kept: Sequence[int]) -> None:
        """Leave the labels in these slots. Where two label sets become one, it costs as the one that is not coarse."""
        overflow, admitted, values = self._overflow, self._admitted, self.values
        self._overflow, self.values = overflow[: len(kept)], tuple(values[slot] for slot in kept)
        self._admitted, self._active, self._uses = {}, 0, tuple({} for _ in kept)
        identity = self._identity
        for labels, cost in sorted(admitted.items(), key=lambda item: item[0][identity:] == overflow[identity:]):
            narrower = tuple(labels[slot] for slot in kept)
            if narrower not in self._admitted:
                self._admit(narrower, cost)

    def place(self, labels: Labels, cost: int = 0, least: int = 0) -> Labels:
        """The label set under which to count `labels`: admitted before, or now. Itself, unless it folds.

        `cost` is in Prometheus series, `least` what it may be cut down to; without them that of the shape.
        """
        admitted = self._admitted
        if labels in admitted:
            return labels
        cost = cost or self._series
        within = self.within_values(labels)
        coarse = self._coarse(within)
        for candidate in (within, coarse):
            if candidate in admitted:
                return candidate
            if self._has_room(candidate, coarse, cost):
                self._admit(candidate, cost)
                return candidate
        if self._overflow not in admitted:
            fits = self._active + cost <= self.budget
            self._kept = cost if fits else least or cost
            self._admit(self._overflow, self._kept)
        return self._overflow

    def keeps_more(self, within: Labels, placed: Labels, cost: int) -> bool:
        """Whether `place` would count a label set (`within_values`) under more of its labels than `placed` has."""
        coarse = self._coarse(within)
        for candidate in (within, coarse):
            if candidate.count(OVERFLOW) >= placed.count(OVERFLOW):
                return False
            if candidate in self._admitted or self._has_room(candidate, coarse, cost):
                return True
        return False

    def admits(self, labels: Labels) -> bool:
        """Whether a label set that costs one series is admitted, before or now, as it is."""
        if labels in self._admitted:
            return True
        if self.within_values(labels) is not labels or not self._has_room(labels, labels, 1):
            return False
        self._admit(labels, 1)
        return True

    def restore(self, labels: Labels, cost: int, least: int) -> bool:
        """Admit what was admitted before, in whatever order it comes; False if the limits are lower now."""
        if labels not in self._admitted:
            kept = 0 if labels == self._overflow or self._overflow in self._admitted else least
            if self.within_values(labels) is not labels or self._active + cost + kept > self.budget:
                return False
            self._kept = max(self._kept, cost)
            self._admit(labels, cost)
        return True

    def within_values(self, labels: Labels) -> Labels:
        """The label set with `__overflow__` for every value that is new and has no room; itself if there is none."""
        refused = [
            slot
            for slot, (value, uses, limit) in enumerate(zip(labels, self._uses, self.values, strict=True))
            if value not in uses and len(uses) >= limit and value and value != OVERFLOW
        ]
        if not refused:
            return labels
        return tuple(OVERFLOW if slot in refused else value for slot, value in enumerate(labels))

    def release(self, labels: Labels) -> None:
        """Free the place of an admitted label set, and the slots of values that no other one has."""
        self.changes += 1
        self._active -= self._admitted.pop(labels)
        for value, uses in zip(labels, self._uses, strict=True):
            if value in uses:
                uses[value] -= 1
                if not uses[value]:
                    del uses[value]

    def coarse(self, labels: Labels) -> Labels:
        """The label set with its identity only."""
        return labels[: self._identity] + self._overflow[self._identity :]

    def _admit(self, labels: Labels, cost: int) -> None:
        self.changes += 1
        self._admitted[labels] = cost
        self._active += cost
        for value, uses in zip(labels, self._uses, strict=True):
            if value and value != OVERFLOW:
                uses[value] = uses.get(value, 0) + 1

    def _coarse(self, labels: Labels) -> Labels:
        """The label set with its identity only; the label set itself if it is no more than that."""
        identity = self._identity
        return labels if not identity or identity == len(labels) else self.coarse(labels)

    def _has_room(self, labels: Labels, coarse: Labels, cost: int) -> bool:
        there = self._admitted.get(self._overflow)
        if there is None:
            self._kept = max(self._kept, cost)
        used = self._active - (there or 0)
        places = (self.budget - self._kept) // cost
        if labels is not coarse and any(labels[self._identity :]):
            places -= places // COARSE_SHARE
        return used + cost <= places * cost
