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
    """Gauges and counters of one partition under one epoch. Labels that refuse values are told before others."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self._metrics: set[str] = set()
        self._offenders: set[tuple[str, str, str]] = set()
        self._folded: dict[tuple[str, str], float] = {}
        self._counted: set[str] = set()  # metrics with a counter of what folds

    def begin(self, blocks: Iterable[SeriesBlock]) -> None:
        """What a loaded tick had counted was told by the owner before."""
        self._folded = {(metric, limit.label): limit.folded for metric, limit in standing(blocks)}

    def tell(self, blocks: Iterable[SeriesBlock], overflow: Mapping[str, float] | None = None) -> None:
        """A tick was committed; `overflow` as in `DueTick`."""
        found = sorted(standing(blocks), key=lambda item: (not item[1].folded, -item[1].active))
        present = {(metric, limit.label) for metric, limit in found}
        metrics = {metric for metric, label in present if not label}
        self._forget(self._metrics - metrics, self._told - present)
        self._uncount(self._counted - metrics)
        self._metrics, self._told = self._metrics & metrics, self._told & present
        for metric, limit in found:
            if limit.label:
                if (metric, limit.label) in self._told or len(self._told) < MOST_LABELS:
                    self._tell_label(metric, limit)
            elif metric in self._metrics or len(self._metrics) < MOST_METRICS:
                self._tell_metric(metric, limit)
        for metric, observations in (overflow or {}).items():
            self._count(metric, observations)
        self._folded = {(metric, limit.label): limit.folded for metric, limit in found}
        self._tell_offenders([(metric, limit) for metric, limit in found if (metric, limit.label) in self._told])

    def end(self) -> None:
        """The partition is another worker's."""
        self._forget(self._metrics, self._told)
        self._uncount(set(self._counted))
        self._tell_offenders(())

    def _tell_offenders(self, limits: Iterable[tuple[str, LimitState]]) -> None:
        found = [((m, s.label, value), least) for m, s in limits for value, least in s.offenders[:OF_LABEL]]
        told = dict(found[:MOST_OFFENDERS])
        for metric, label, value in self._offenders - told.keys():
            telemetry.remove("tailrace_label_offender_points", metric=metric, label=label, value=value)
        for (metric, label, value), least in told.items():
            telemetry.gauge("tailrace_label_offender_points", least, metric=metric, label=label, value=value)
        self._offenders = set(told)

    def _tell_metric(self, metric: str, limit: LimitState) -> None:
        self._metrics.add(metric)
        telemetry.gauge("tailrace_series_active", limit.active, metric=metric)
        telemetry.gauge("tailrace_series_demand", limit.demand, metric=metric)
        telemetry.gauge("tailrace_series_budget", limit.limit, metric=metric)
        self._count(metric, 0)

    def _count(self, metric: str, observations: float) -> None:
        self._counted.add(metric)
        telemetry.count("tailrace_overflow_points_total", observations, metric=metric)

    def _uncount(self, metrics: Collection[str]) -> None:
        """They are no more: names come from outside, and a counter of each would stay for ever."""
        self._counted -= set(metrics)
        for metric in metrics:
            telemetry.remove("tailrace_overflow_points_total", metric=metric)

    def _tell_label(self, metric: str, limit: LimitState) -> None:
        key = metric, limit.label
        self._told.add(key)
        telemetry.gauge("tailrace_label_values_active", limit.active, metric=metric, label=limit.label)
        telemetry.gauge("tailrace_label_values_demand", limit.demand, metric=metric, label=limit.label)
        telemetry.gauge("tailrace_label_values_limit", limit.limit, metric=metric, label=limit.label)
        # A metric that ended and came back counts from zero.
        more = max(0.0, limit.folded - self._folded.get(key, 0.0)) if limit.folded else 0.0
        telemetry.count("tailrace_label_overflow_points_total", more, metric=metric, label=limit.label)

    def _forget(self, metrics: Iterable[str], labels: Iterable[tuple[str, str]]) -> None:
        for metric in metrics:
            telemetry.remove("tailrace_series_active", metric=metric)
            telemetry.remove("tailrace_series_demand", metric=metric)
            telemetry.remove("tailrace_series_budget", metric=metric)
        for metric, label in labels:
            telemetry.remove("tailrace_label_values_active", metric=metric, label=label)
            telemetry.remove("tailrace_label_values_demand", metric=metric, label=label)
            telemetry.remove("tailrace_label_values_limit", metric=metric, label=label)
            telemetry.remove("tailrace_label_overflow_points_total", metric=metric, label=label)


def standing(blocks: Iterable[SeriesBlock]) -> Iterator[tuple[str, LimitState]]:
    """Every limit with its metric, as a tick says it."""
    return ((block.metric, limit) for block in blocks for limit in block.limits)
