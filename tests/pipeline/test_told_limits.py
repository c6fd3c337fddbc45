"""How limits stand, as metrics of a worker: who offends most, and never more series than is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline import telemetry
from pipeline.told_limits import MOST_LABELS, MOST_METRICS, MOST_OFFENDERS, ToldLimits
from schemas.point import Shape
from schemas.sample import LimitState, SeriesBlock

SHAPE = Shape("counter", ("tenant",))


@pytest.fixture
def told() -> Iterator[ToldLimits]:
    found = ToldLimits()
    yield found
    found.end()
    assert not series()
    assert not counters()


def block(metric: str, *limits: LimitState) -> SeriesBlock:
    return SeriesBlock(metric, SHAPE, [(("a",), 1)], limits=list(limits))


def full(label: str, *offenders: tuple[str, int]) -> LimitState:
    return LimitState(label, 1, 1, 1 + len(offenders), float(sum(n for _, n in offenders)), offenders)


def series() -> list[tuple[str, ...]]:
    """The gauges of limits of this module's metrics."""
    samples = [sample for metric in telemetry.REGISTRY.collect() if metric.type == "gauge" for sample in metric.samples]
    return [(s.name, *s.labels.values()) for s in samples if s.labels.get("metric", "").startswith("told-")]


def counters() -> dict[tuple[str, ...], float]:
    """The counters of this module's metrics."""
    samples = [sample for metric in telemetry.REGISTRY.collect() for sample in metric.samples]
    named = [s for s in samples if s.name.endswith("_total") and s.labels.get("metric", "").startswith("told-")]
    return {(s.name, *s.labels.values()): s.value for s in named}


def offenders() -> dict[tuple[str, ...], float]:
    found = telemetry.REGISTRY.collect()
    (gauge,) = [metric for metric in found if metric.name == "tailrace_label_offender_points"]
    return {tuple(sample.labels.values()): sample.value for sample in gauge.samples}


def test_the_values_that_were_refused_most_are_told_until_they_are_not(told: ToldLimits) -> None:
    told.tell([block("told-a", full("tenant", ("t1", 9), ("t2", 8), ("t3", 7), ("t4", 6)), full("", ("tenant=t1", 9)))])
    assert offenders() == {("told-a", "tenant", f"t{n}"): 10 - n for n in (1, 2, 3)}
    told.tell([block("told-a", full("tenant", ("t2", 11)))])
    assert offenders() == {("told-a", "tenant", "t2"): 11}
    told.tell([])
    assert not offenders()


def test_the_counters_of_a_metric_end_with_it(told: ToldLimits) -> None:
    """Names come from outside: a counter of each that ever was would stay for ever."""
    for number in range(3):
        told.tell(
            [block(f"told-{number}", full("tenant", ("t", 1)))], {f"told-{number}": 1.0, f"told-few-{number}": 2.0}
        )
        assert counters() == {
            ("tailrace_label_overflow_points_total", f"told-{number}", "tenant"): 1.0,
            ("tailrace_overflow_points_total", f"told-{number}"): 1.0,
            ("tailrace_overflow_points_total", f"told-few-{number}"): 2.0,
        }


def test_whatever_comes_so_many_series_and_no_more(told: ToldLimits) -> None:
    """In OTLP metrics even the names of metrics may be data."""
    for tick in range(3):
        several = [(f"{n}", 9) for n in range(5)]
        told.tell(
            [
                block(f"told-{tick}-{number}", full("tenant", *several), full("path", *several), full("", *several))
                for number in range(2 * MOST_METRICS)
            ]
        )
        assert len(offenders()) == MOST_OFFENDERS
        assert len(series()) <= 3 * MOST_METRICS + 3 * MOST_LABELS + MOST_OFFENDERS
