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
    `idle_ms`: a series that was not counted for this long ends; 0: never.
    """

    series: int
    values: int
    series_of: Mapping[str, int] = field(default_factory=dict)
    values_of: Mapping[tuple[str, str], int] = field(default_factory=dict)
    idle_ms: int = 0

    def limiter(self, metric: str, shape: Shape) -> SeriesLimiter:
        """The limiter of a metric. Raises ConfigError as `SeriesLimiter` does."""
        any_metric = {label: self.values_of.get((ANY_METRIC, label), self.values) for label in shape.label_names}
        values = [self.values_of.get((metric, label), default) for label, default in any_metric.items()]
        return SeriesLimiter(shape, self.series_of.get(metric, self.series), values)


class SeriesLimiter:
    """Admission of label sets of one metric. `budget` is in Prometheus series, `values` one limit per label name.

    Raises ConfigError when the budget does not hold even the one label set that everything could fold into.
    """

    __slots__ = (
        "_admitted",
        "_fine_places",
        "_identity",
        "_overflow",
        "_places",
        "_series",
        "_uses",
        "budget",
        "values",
    )

    def __init__(self, shape: Shape, budget: int, values: Sequence[int]) -> None:
        label_sets = budget // shape.series
        if label_sets < 1:
            raise ConfigError(
                f"metrics.series_per_metric: {budget} is too small, one label set of this {shape.kind} "
                f"is {shape.series} series"
            )
        self.budget = budget
        self.values = tuple(values)
        self._series = shape.series
        self._identity = shape.identity
        self._overflow: Labels = (OVERFLOW,) * len(shape.label_names)
        self._places = label_sets - 1
        dimensions = 0 < shape.identity < len(shape.label_names)
        self._fine_places = self._places - self._places // COARSE_SHARE if dimensions else self._places
        self._admitted: dict[Labels, None] = {}
        # Of each label: how many admitted label sets have a value. "" (absent) and __overflow__ take no slot.
        self._uses: tuple[dict[str, int], ...] = tuple({} for _ in shape.label_names)

    @property
    def active(self) -> int:
        """Prometheus series in use; never more than the budget."""
        return len(self._admitted) * self._series

    @property
    def admitted(self) -> Set[Labels]:
        """The label sets that are counted as they are, oldest first."""
        return self._admitted.keys()

    def in_use(self, slot: int) -> Set[str]:
        """The values of a label, never more than its limit."""
        return self._uses[slot].keys()

    def place(self, labels: Labels) -> Labels:
        """The label set under which to count `labels`: admitted before, or now. Itself, unless it folds."""
        admitted = self._admitted
        if labels in admitted:
            return labels
        within = self.within_values(labels)
        coarse = self._coarse(within)
        for candidate in (within, coarse):
            if candidate in admitted:
                return candidate
            if self._has_room(candidate, coarse):
                self._admit(candidate)
                return candidate
        if self._overflow not in admitted:
            self._admit(self._overflow)
        return self._overflow

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
        del self._admitted[labels]
        for value, uses in zip(labels, self._uses, strict=True):
            if value in uses:
                uses[value] -= 1
                if not uses[value]:
                    del uses[value]

    def _admit(self, labels: Labels) -> None:
        self._admitted[labels] = None
        for value, uses in zip(labels, self._uses, strict=True):
            if value and value != OVERFLOW:
                uses[value] = uses.get(value, 0) + 1

    def _coarse(self, labels: Labels) -> Labels:
        """The label set with its identity only; the label set itself if it is no more than that."""
        identity = self._identity
        if not identity or identity == len(labels):
            return labels
        return labels[:identity] + self._overflow[identity:]

    def _has_room(self, labels: Labels, coarse: Labels) -> bool:
        used = len(self._admitted) - (self._overflow in self._admitted)
        fine = labels is not coarse and any(labels[self._identity :])
        return used < (self._fine_places if fine else self._places)
