"""What a worker holds for its page: bounded whatever arrives, and no values that came in unless asked for."""

from __future__ import annotations

import pytest

from pipeline.live.recent import EVERY
from pipeline.live.watch import MOST_LIMITS, MOST_OFFENDERS, Watch
from schemas.point import Shape
from schemas.sample import LimitState, SeriesBlock
from tests.pipeline.live.building import kept, span, trace_id

SHAPE = Shape("counter", ("service", "tenant"), (), 1)


def block(metric: str, folded: float, active: int) -> SeriesBlock:
    offenders = tuple((f"customer-{n}", 100 - n) for n in range(50))
    state = LimitState("tenant", 100, active, active, folded, offenders, (b"sketch",))
    return SeriesBlock(metric, SHAPE, limits=[state])


def test_the_limits_that_fold_and_the_fullest_are_held() -> None:
    watch = Watch(payloads=False)
    watch.ticked(0, [block(f"m{n}", 0, n % 100) for n in range(5 * MOST_LIMITS)])
    watch.ticked(1, [block("folds", 7, 1)])
    limits = watch.snapshot().limits
    assert len(limits) == MOST_LIMITS
    assert (limits[0].metric, limits[0].folded) == ("folds", 7)
    assert limits[1].active == 99
    watch.ticked(1, [])
    assert watch.snapshot().limits[0].active == 99


@pytest.mark.parametrize(("payloads", "told"), [(False, 0), (True, MOST_OFFENDERS)])
def test_values_that_were_refused_are_payload(payloads: bool, told: int) -> None:
    watch = Watch(payloads)
    watch.ticked(0, [block("m", 7, 100)])
    (limit,) = watch.snapshot().limits
    assert len(limit.offenders) == told


def test_a_wall_clock_that_is_set_back_stops_nothing() -> None:
    wall, monotonic = iter((1e9, 1e9 - 3600)), iter((0.0, 2 * EVERY))
    watch = Watch(payloads=False, clock=lambda: next(wall), monotonic=lambda: next(monotonic))
    for number in (1, 2):
        watch.committed([], [kept(span(number, 1)).encode()], [])
    assert all(watch.trace(trace_id(number)) for number in (1, 2))


def test_a_trace_that_grows_is_summed_up_again() -> None:
    watch = Watch(payloads=False)
    watch.committed([], [kept(span(1, 1)).encode()], [])
    assert [trace.spans for trace in watch.snapshot().traces] == [1]
    watch.committed([], [kept(span(1, 2, 1)).encode()], [])
    assert [trace.spans for trace in watch.snapshot().traces] == [2]
    assert watch.trace(trace_id(1)) is not None
    assert watch.trace(trace_id(2)) is None
