from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.cardinality import OVERFLOW, SeriesLimiter
from schemas.errors import ConfigError
from schemas.point import Labels, Shape
from tests.processors.metric_strategies import COUNTER, HISTOGRAM, labels


def limiter_of(shape: Shape, budget: int, *values: int) -> SeriesLimiter:
    """Without limits of values unless they are given."""
    return SeriesLimiter(shape, budget, values or (1_000_000,) * len(shape.label_names))


@given(st.sampled_from([COUNTER, HISTOGRAM]), st.integers(6, 200), st.lists(labels, max_size=300))
def test_never_more_than_the_budget_and_the_admitted_stay(shape: Shape, budget: int, arrivals: list[Labels]) -> None:
    limiter = limiter_of(shape, budget)
    counted_as: dict[Labels, Labels] = {}
    for arrival in arrivals:
        placed = limiter.place(arrival)
        assert limiter.active <= budget
        assert limiter.active == len(limiter.admitted) * shape.series
        assert placed in limiter.admitted
        if counted_as.get(arrival) == arrival:
            assert placed == arrival
        counted_as[arrival] = placed
        assert placed in (arrival, arrival[: shape.identity] + (OVERFLOW,) * 2, (OVERFLOW,) * 4)


@given(st.lists(labels, max_size=300), st.integers(1, 200), st.integers(0, 300))
def test_the_same_admissions_in_the_same_order_decide_alike(arrivals: list[Labels], budget: int, cut: int) -> None:
    whole = limiter_of(COUNTER, budget)
    for arrival in arrivals[:cut]:
        whole.place(arrival)
    restored = limiter_of(COUNTER, budget)
    for admitted in list(whole.admitted):
        assert restored.place(admitted) == admitted
    for arrival in arrivals[cut:]:
        assert restored.place(arrival) == whole.place(arrival)
    assert list(restored.admitted) == list(whole.admitted)


def test_a_dimension_that_explodes_keeps_services_apart() -> None:
    limiter = limiter_of(Shape("counter", ("service", "user"), (), 1), 41)
    for user in range(1000):
        limiter.place(("cart", str(user)))
    assert limiter.active == 31  # three quarters of 40, and cart's own overflow
    assert limiter.place(("cart", "another")) == ("cart", OVERFLOW)
    assert limiter.place(("checkout", "1")) == ("checkout", OVERFLOW)
    assert limiter.place(("batch", "")) == ("batch", "")


def test_when_there_is_no_room_at_all_everything_new_is_one_series() -> None:
    limiter = limiter_of(Shape("counter", ("service", "user"), (), 1), 5)
    for service in "abcd":
        limiter.place((service, ""))
    assert limiter.place(("e", "1")) == (OVERFLOW, OVERFLOW)
    assert limiter.place(("f", "")) == (OVERFLOW, OVERFLOW)
    assert limiter.active == 5


def test_without_dimensions_nothing_is_set_aside() -> None:
    limiter = limiter_of(Shape("counter", ("service",), (), 1), 5)
    assert [limiter.place((s,)) for s in "abcde"] == [("a",), ("b",), ("c",), ("d",), (OVERFLOW,)]


@given(st.lists(labels, max_size=300), st.integers(1, 20))
@example([("a", "b", str(path), "") for path in range(9)], 8)
def test_gauges_have_every_place_but_the_one_that_is_kept(arrivals: list[Labels], budget: int) -> None:
    shape = Shape("gauge", COUNTER.label_names, (), COUNTER.identity)
    limiter = limiter_of(shape, budget)
    arrivals = [arrival for arrival in arrivals if arrival != limiter.overflow]
    admitted = dict.fromkeys(arrival for arrival in arrivals if limiter.admits(arrival))
    assert list(limiter.admitted) == list(admitted) == list(dict.fromkeys(arrivals))[: budget - 1]
    restored = limiter_of(shape, budget)
    assert all(restored.restore(arrival, 1, 1) for arrival in reversed(admitted))


def test_a_budget_of_one_label_set_holds_the_overflow_alone() -> None:
    limiter = limiter_of(HISTOGRAM, 6)
    assert limiter.place(("a", "b", "", "")) == (OVERFLOW,) * 4
    assert limiter.active == 6


def test_a_budget_below_one_label_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"series_per_metric: 5 is too small.* 6 series"):
        limiter_of(HISTOGRAM, 5)
