"""How limits stand, as metrics of a worker: who offends most, and never more series than is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline import telemetry
from pipeline.watching.told_limits import MOST_LABELS, MOST_METRICS, MOST_OFFENDERS, ToldLimits
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


def folding(metric: str, folded: float, limit: int = 1) -> SeriesBlock:
    return block(metric, LimitState("tenant", limit, 1, 2, folded))


def quiet(number: int, active: int = 9) -> list[SeriesBlock]:
    return [block(f"told-quiet-{n}", LimitState("tenant", 10, active, active)) for n in range(number)]


def folds(metric: str) -> float | None:
    return counters().get(("tailrace_label_overflow_points_total", metric, "tenant"))


def test_a_label_that_folds_is_told_whatever_was_told_before(told: ToldLimits) -> None:
    told.tell(quiet(MOST_LABELS))
    told.tell([*quiet(MOST_LABELS), folding("told-late", 5)])
    assert folds("told-late") == 5
    assert len(counters()) == MOST_LABELS


def test_a_label_that_is_told_again_counts_on(told: ToldLimits) -> None:
    """A counter that began anew at more than it had been before is no reset to Prometheus, but lost counts."""
    told.begin([folding("told-early", 100)])
    told.tell([folding("told-early", 105)])
    assert folds("told-early") == 5
    others = [folding(f"told-other-{n}", 1) for n in range(MOST_LABELS)]
    told.tell([folding("told-early", 105), *others])
    assert folds("told-early") is None
    told.tell([folding("told-early", 112), *others])
    assert folds("told-early") == 12
    told.tell([folding("told-early", 113), *others])
    assert folds("told-early") == 13


def test_a_limit_of_zero_takes_no_place_from_others(told: ToldLimits) -> None:
    zeros = [folding(f"told-zero-{n}", 1, limit=0) for n in range(MOST_LABELS)]
    told.tell(zeros)
    told.tell([*(folding(f"told-zero-{n}", 2, limit=0) for n in range(MOST_LABELS)), folding("told-late", 5)])
    assert folds("told-late") == 5


def test_a_metric_that_is_nearly_full_is_told_whatever_was_told_before(told: ToldLimits) -> None:
    """Its counter stays when its place is taken, if it has counted anything."""
    many = [block(f"told-{n}", LimitState("", 10, 2, 2)) for n in range(MOST_METRICS)]
    told.tell(many, {"told-7": 3.0})
    late = [block(f"told-late-{n}", LimitState("", 10, 8, 8)) for n in range(MOST_METRICS)]
    told.tell([*many, *late])
    assert ("tailrace_series_demand", "told-late-0") in series()
    assert len(series()) == 3 * MOST_METRICS
    assert len(counters()) == MOST_METRICS + 1
    assert counters()["tailrace_overflow_points_total", "told-7"] == 3.0
