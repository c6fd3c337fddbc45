"""Exponential histograms: whatever meets at whatever scale, no observation is lost or lies in a wrong bucket."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.values import LOWEST_SCALE, MOST_BUCKETS, fitted, minus, plus
from schemas.point import ExponentialValue, HistogramValue, SummaryValue

# Powers of two and what lies between them; exact in binary, so that bounds can be asserted.
numbers = st.integers(-60, 60).flatmap(lambda e: st.sampled_from([2.0**e, 1.25 * 2.0**e, 1.9375 * 2.0**e]))
observed = st.lists(st.one_of(numbers, numbers.map(lambda n: -n), st.just(0.0)), max_size=30)
scales = st.integers(LOWEST_SCALE, 20)


def index_of(number: float, scale: int) -> int:
    """By the definition: the bucket (base^index, base^(index + 1)] that holds a number."""
    exact = log2(number) * 2.0**scale
    return int(exact) - 1 if exact == int(exact) else int(exact // 1)


def side(found: list[float], scale: int) -> tuple[int, tuple[int, ...]]:
    indices = [index_of(number, scale) for number in found]
    if not indices:
        return 0, ()
    low = min(indices)
    counts = [0] * (max(indices) - low + 1)
    for index in indices:
        counts[index - low] += 1
    return low, tuple(counts)


def width(found: list[float], scale: int) -> int:
    indices = [index_of(number, scale) for number in found]
    return max(indices) - min(indices) + 1 if indices else 0


def histogram(found: list[float], scale: int) -> ExponentialValue:
    """What an SDK has of these observations: it scales down until its buckets suffice."""
    above, below = [n for n in found if n > 0], [-n for n in found if n < 0]
    while scale > LOWEST_SCALE and max(width(above, scale), width(below, scale)) > MOST_BUCKETS:
        scale -= 1
    sides = *side(above, scale), *side(below, scale)
    return ExponentialValue(len(found), sum(found), scale, found.count(0.0), 0.0, *sides)


@given(observed, scales, observed, scales)
def test_two_histograms_together_are_the_histogram_of_both(
    some: list[float], scale: int, others: list[float], other_scale: int
) -> None:
    both = plus(histogram(some, scale), histogram(others, other_scale))
    assert isinstance(both, ExponentialValue)
    assert both.scale <= min(8, scale, other_scale)
    truth = histogram(some + others, both.scale)
    assert both._replace(sum=0) == truth._replace(sum=0)
    size = sum(map(abs, some + others))  # numbers that cancel each other leave what was rounded
    assert both.sum == pytest.approx(truth.sum, abs=1e-12 * size)


@given(observed, scales, observed, scales)
def test_what_came_between_two_readings(before: list[float], scale: int, since: list[float], later: int) -> None:
    """The SDK may have scaled down meanwhile."""
    first, second = histogram(before, scale), histogram(before + since, min(scale, later))
    delta = minus(fitted(second), fitted(first))
    assert isinstance(delta, ExponentialValue)
    truth = histogram(since, delta.scale)
    assert delta._replace(sum=0) == truth._replace(sum=0)


def test_far_apart_they_are_scaled_down_before_they_meet() -> None:
    low = ExponentialValue(1, 1.0, 8, 0, 0.0, -250_000, (1,), 0, ())
    high = ExponentialValue(1, 1.0, 8, 0, 0.0, 250_000, (1,), 0, ())
    both = plus(low, high)
    assert isinstance(both, ExponentialValue)
    assert (sum(both.positive), both.observations) == (2, 2)
    assert len(both.positive) <= MOST_BUCKETS


def test_zero_thresholds_meet_at_the_larger_one() -> None:
    """Buckets of scale 0 are (1, 2], (2, 4], (4, 8]; 3 is in the second."""
    fine = ExponentialValue(6, 9.0, 0, 1, 0.0, 0, (1, 1, 1), 1, (1, 1))
    rough = ExponentialValue(2, 0.0, 0, 2, 3.0, 0, (), 0, ())
    both = plus(fine, rough)
    assert both == ExponentialValue(8, 9.0, 0, 6, 3.0, 2, (1,), 2, (1,))


@pytest.mark.parametrize("scale", [0, 3, 5, 8])
@pytest.mark.parametrize("later", [0, 1, 2])
def test_a_zero_bucket_that_was_widened_is_no_restart(scale: int, later: int) -> None:
    """As client_golang does, to a bucket's bound, for want of buckets; `later` powers of two fewer of them."""
    observations = [2 ** ((number + 0.37) / 16) for number in range(-160, 160)]
    before = histogram(observations, scale)
    scale = before.scale
    for place in range(len(before.positive)):
        threshold = 2 ** ((before.positive_offset + place + 1) / 2**scale)
        index = before.positive_offset + place
        above = [n for n in observations if index_of(n, scale) > index]
        after = histogram(above, scale - later)
        after = after._replace(observations=320, sum=before.sum, zero=320 - len(above), zero_threshold=threshold)
        delta = minus(after, before)
        assert isinstance(delta, ExponentialValue), threshold
        assert (delta.observations, delta.zero, sum(delta.positive)) == (0, 0, 0)


def test_a_scale_that_prometheus_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="scale -5"):
        fitted(ExponentialValue(0, 0.0, -5, 0, 0.0, 0, (), 0, ()))


def test_what_fell_began_anew() -> None:
    assert minus(HistogramValue(2, 1.0, (1, 1)), HistogramValue(2, 1.0, (2, 0))) is None
    assert minus(HistogramValue(3, -1.0, (2, 1)), HistogramValue(2, 1.0, (1, 1))) == HistogramValue(1, -2.0, (1, 0))
    assert minus(SummaryValue(1, 1.0, (0.5,)), SummaryValue(2, 1.0, (0.5,))) is None
    assert minus(histogram([1.0], 3), histogram([2.0], 3)) is None
