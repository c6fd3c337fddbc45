"""How the limits of one partition's metrics stand, as metrics of the worker: bounded, whatever arrives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline import telemetry
from pipeline.config import Metrics
from processors.cardinality import ANY_METRIC, Limits
from schemas.sample import LimitState, SeriesBlock

# What /metrics tells of a partition; `tailrace cardinality` shows all.
MOST_METRICS = 1000  # 3 series each: names come from outside as well
MOST_LABELS = 200  # (metric, label) pairs, 4 series each
MOST_OFFENDERS, OF_LABEL = 100, 3  # values
NEARLY_FULL = 0.7  # of a metric's series, as the alert SeriesBudgetNearlyFull has it


def limits_of(metrics: Metrics) -> Limits:
    """The configured budgets."""
    return Limits(
        metrics.series_per_metric,
        metrics.values_per_label,
        {limit.metric: limit.series for limit in metrics.limits if limit.metric and limit.series is not None},
        {
            (limit.metric or ANY_METRIC, limit.label): limit.values
            for limit in metrics.limits
            if limit.label and limit.values is not None
        },
        int(metrics.idle_timeout * 1000),
        int(metrics.otlp.stale_after * 1000),
        metrics.otlp.sources_per_metric,
        metrics.otlp.names_per_partition,
    )


class ToldLimits:
    """Gauges and counters of one partition under one epoch.

    What alerts are about is told before all else: labels that fold now, metrics whose series are nearly used up. What
    was told keeps its place before the rest. A label whose place was taken goes on where it would be when it is told
    again: to Prometheus its counter has a gap, not a reset.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()  # with the label "" for the series of a metric
        self._offenders: set[tuple[str, str, str]] = set()
        self._begun: dict[tuple[str, str], float] = {}  # what had folded before this epoch
        self._folded: dict[tuple[str, str], float] = {}
        self._counted: dict[str, float] = {}  # what folded of metrics that have a counter of it

    def begin(self, blocks: Iterable[SeriesBlock]) -> None:
        """What a loaded tick had counted was told by the owner before."""
        self._begun = {(metric, limit.label): limit.folded for metric, limit in standing(blocks)}
        self._folded = self._begun

    def tell(self, blocks: Iterable[SeriesBlock], overflow: Mapping[str, float] | None = None) -> None:
        """A tick was committed; `overflow` as in `DueTick`."""
        found = sorted(standing(blocks), key=lambda item: self._rank(*item))
        labels = [(metric, limit) for metric, limit in found if limit.label][:MOST_LABELS]
        metrics = [(metric, limit) for metric, limit in found if not limit.label][:MOST_METRICS]
        told = {(metric, limit.label) for metric, limit in labels + metrics}
        counted = told | {(metric, limit.label) for metric, limit in found if self._counted.get(metric)}
        self._forget(self._told - told)
        self._uncount([metric for metric in self._counted if (metric, "") not in counted])
        for metric, limit in labels:
            self._tell_label(metric, limit)
        for metric, limit in metrics:
            self._tell_metric(metric, limit)
        for metric, observations in (overflow or {}).items():
            self._count(metric, observations)
        self._folded = {(metric, limit.label): limit.folded for metric, limit in found}
        self._begun = {key: folded for key, folded in self._begun.items() if key in self._folded}
        self._told = told
        self._tell_offenders(labels)

    def end(self) -> None:
        """The partition is another worker's."""
        self._forget(self._told)
        self._uncount(list(self._counted))
        self._tell_offenders(())

    def _rank(self, metric: str, limit: LimitState) -> tuple[bool, bool, bool, int]:
        """Who is told first. A limit of 0 is meant to fold."""
        key = metric, limit.label
        folds = limit.limit > 0 and limit.folded > self._folded.get(key, 0.0)
        pressing = folds if limit.label else limit.demand > NEARLY_FULL * limit.limit
        return not pressing, key not in self._told, not limit.folded, -limit.active

    def _tell_offenders(self, limits: Iterable[tuple[str, LimitState]]) -> None:
        found = [((m, s.label, value), least) for m, s in limits for value, least in s.offenders[:OF_LABEL]]
        told = dict(found[:MOST_OFFENDERS])
        for metric, label, value in self._offenders - told.keys():
            telemetry.remove("tailrace_label_offender_points", metric=metric, label=label, value=value)
        for (metric, label, value), least in told.items():
            telemetry.gauge("tailrace_label_offender_points", least, metric=metric, label=label, value=value)
        self._offenders = set(told)

    def _tell_metric(self, metric: str, limit: LimitState) -> None:
        telemetry.gauge("tailrace_series_active", limit.active, metric=metric)
        telemetry.gauge("tailrace_series_demand", limit.demand, metric=metric)
        telemetry.gauge("tailrace_series_budget", limit.limit, metric=metric)
        self._count(metric, 0)

    def _count(self, metric: str, observations: float) -> None:
        self._counted[metric] = self._counted.get(metric, 0.0) + observations
        telemetry.count("tailrace_overflow_points_total", observations, metric=metric)

    def _uncount(self, metrics: Collection[str]) -> None:
        """They are no more: names come from outside, and a counter of each would stay for ever."""
        for metric in metrics:
            del self._counted[metric]
            telemetry.remove("tailrace_overflow_points_total", metric=metric)

    def _tell_label(self, metric: str, limit: LimitState) -> None:
        key = metric, limit.label
        telemetry.gauge("tailrace_label_values_active", limit.active, metric=metric, label=limit.label)
        telemetry.gauge("tailrace_label_values_demand", limit.demand, metric=metric, label=limit.label)
        telemetry.gauge("tailrace_label_values_limit", limit.limit, metric=metric, label=limit.label)
        before = self._folded if key in self._told else self._begun
        # A metric that ended and came back counts from zero.
        more = max(0.0, limit.folded - before.get(key, 0.0))
        telemetry.count("tailrace_label_overflow_points_total", more, metric=metric, label=limit.label)

    def _forget(self, told: Iterable[tuple[str, str]]) -> None:
        for metric, label in told:
            if label:
                telemetry.remove("tailrace_label_values_active", metric=metric, label=label)
                telemetry.remove("tailrace_label_values_demand", metric=metric, label=label)
                telemetry.remove("tailrace_label_values_limit", metric=metric, label=label)
                telemetry.remove("tailrace_label_overflow_points_total", metric=metric, label=label)
            else:
                telemetry.remove("tailrace_series_active", metric=metric)
                telemetry.remove("tailrace_series_demand", metric=metric)
                telemetry.remove("tailrace_series_budget", metric=metric)


def standing(blocks: Iterable[SeriesBlock]) -> Iterator[tuple[str, LimitState]]:
    """Every limit with its metric, as a tick says it."""
    return ((block.metric, limit) for block in blocks for limit in block.limits)
