"""How many series a metric may have, and under which labels a new one is counted instead.

Admitted label sets stay; only *new* ones fold, and nothing is dropped: the sum over all series is what was counted.
A budget is in Prometheus series, as an operator sees them: one label set of a histogram with 16 bounds costs 19.

A label set for which there is no room is counted
1. under its identity labels (service, span name, ...), all others `__overflow__`; if there is no room for that,
2. with all labels `__overflow__`, for which a place is always kept.

Room is dealt in the order of arrival. While a label set without dimension values may take any free place, one with
them may not take the last quarter: so an exploding dimension cannot push a service that comes later into step 2.
"""

from __future__ import annotations

from collections.abc import Set

from schemas.errors import ConfigError
from schemas.point import Labels, Shape

OVERFLOW = "__overflow__"
# 1/4 of the places is out of reach of label sets with dimension values, when there are dimensions.
COARSE_SHARE = 4


class SeriesLimiter:
    """Admission of label sets of one metric. `budget` is in Prometheus series.

    Raises ConfigError when the budget does not hold even the one label set that everything could fold into.
    """

    __slots__ = ("_admitted", "_fine_places", "_identity", "_overflow", "_places", "_series")

    def __init__(self, shape: Shape, budget: int) -> None:
        label_sets = budget // shape.series
        if label_sets < 1:
            raise ConfigError(
                f"metrics.series_per_metric: {budget} is too small, one label set of this {shape.kind} "
                f"is {shape.series} series"
            )
        self._series = shape.series
        self._identity = shape.identity
        self._overflow: Labels = (OVERFLOW,) * len(shape.label_names)
        self._places = label_sets - 1
        dimensions = 0 < shape.identity < len(shape.label_names)
        self._fine_places = self._places - self._places // COARSE_SHARE if dimensions else self._places
        self._admitted: dict[Labels, None] = {}

    @property
    def active(self) -> int:
        """Prometheus series in use; never more than the budget."""
        return len(self._admitted) * self._series

    @property
    def admitted(self) -> Set[Labels]:
        """The label sets that are counted as they are, oldest first."""
        return self._admitted.keys()

    def place(self, labels: Labels) -> Labels:
        """The label set under which to count `labels`: admitted before, or now. Itself, unless it folds."""
        admitted = self._admitted
        if labels in admitted:
            return labels
        coarse = self._coarse(labels)
        for candidate in (labels, coarse):
            if candidate in admitted:
                return candidate
            if self._has_room(candidate, coarse):
                admitted[candidate] = None
                return candidate
        admitted[self._overflow] = None
        return self._overflow

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
