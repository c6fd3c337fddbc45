"""What the limits of one metric made fold: how much, which values, and how many would come if there were room."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from processors.cardinality import SeriesLimiter
from processors.sketch import Refused
from schemas.point import Labels, Shape
from schemas.sample import LimitState

SERIES = ""  # stands for the budget of series among the labels' limits
OFFENDERS = 10  # told per limit


@dataclass(slots=True)
class _Fold:
    """What one limit made fold: observations since the metric has been there, and the refused values."""

    folded: float = 0.0
    refused: Refused = field(default_factory=Refused)


class Folds:
    """Those of one metric, by label, SERIES for the budget of series."""

    def __init__(self) -> None:
        self._folds: dict[str, _Fold] = {}

    def add(self, names: tuple[str, ...], labels: Labels, within: Labels, placed: Labels, number: float) -> None:
        """So many observations of `labels` went under `placed`; `within` is what the limits of values leave of them.

        Whose limit it was: of the labels whose value was refused, and of the series.
        """
        if within != labels:
            for name, given, kept in zip(names, labels, within, strict=True):
                if given != kept:
                    self._refuse(name, given, number)
        if placed != within:
            self._refuse(SERIES, spelled(names, labels), number)

    def _refuse(self, label: str, value: str, number: float) -> None:
        fold = self._folds.get(label)
        if fold is None:
            fold = self._folds[label] = _Fold()
        fold.folded += number
        fold.refused.add(value, number)

    def forget(self, label: str) -> None:
        """The metric has no such label any more."""
        self._folds.pop(label, None)

    def rotate(self) -> None:
        """Sketches begin a generation."""
        for fold in self._folds.values():
            fold.refused.rotate()

    def states(self, shape: Shape, limiter: SeriesLimiter) -> list[LimitState]:
        """Each label's limit, in the order of the labels, then that of the series."""
        states = []
        for slot, (label, limit) in enumerate(zip(shape.label_names, limiter.values, strict=True)):
            states.append(self._state(label, limit, limiter.in_use(slot)))
        label_sets = self._state(SERIES, limiter.budget, ())
        demand = limiter.active + label_sets.demand * shape.series
        return [*states, replace(label_sets, active=limiter.active, demand=demand)]

    def _state(self, label: str, limit: int, active: Collection[str]) -> LimitState:
        fold = self._folds.get(label)
        if fold is None:
            return LimitState(label, limit, len(active), len(active))
        refused = fold.refused
        demand = len(active) if refused.empty else refused.together_with(active)
        offenders = () if refused.empty else refused.offenders(OFFENDERS)
        return LimitState(label, limit, len(active), demand, fold.folded, offenders, refused.state())

    def restore(self, limit: LimitState) -> None:
        """What a loaded limit goes on from."""
        self._folds[limit.label] = _Fold(limit.folded, Refused(limit.sketch))


def spelled(names: tuple[str, ...], values: Labels) -> str:
    """A label set in one line.

    >>> spelled(("service", "tenant"), ("cart", ""))
    'service=cart'
    """
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True) if value)
