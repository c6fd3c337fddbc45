"""Token buckets in stream time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.limits import Limits, Rate

NOON = 1_800_000_000_000
STEPS = st.lists(st.tuples(st.integers(-50, 3_000), st.integers(1, 12)), max_size=40)
RATES = st.builds(Rate, st.just("p"), st.integers(1, 20), st.integers(1, 20))


def passing(limits: Limits, steps: list[tuple[int, int]], start: int = NOON) -> list[int]:
    """Spans of the traces that pass; a step is ms since the step before, and the spans of a trace."""
    spent, now = [], start
    for step, spans in steps:
        now += step
        if limits.at(now).take(0, spans):
            spent.append(spans)
    return spent


def test_a_bucket_is_full_at_first_and_fills_with_stream_time() -> None:
    limits = Limits([Rate("p", 10, 20)], 1)
    assert limits.at(NOON).take(0, 20)
    assert not limits.at(NOON + 99).take(0, 1)
    assert limits.at(NOON + 100).take(0, 1)
    assert not limits.at(NOON + 100).take(0, 1)
    assert limits.at(NOON + 3_600_000).take(0, 20)
    assert not limits.at(NOON + 3_600_000).take(0, 1)


def test_a_trace_that_does_not_pass_spends_nothing() -> None:
    limits = Limits([Rate("p", 10, 5)], 1)
    assert not limits.at(NOON).take(0, 6)
    assert limits.at(NOON).take(0, 5)


def test_time_that_goes_back_fills_nothing() -> None:
    limits = Limits([Rate("p", 1, 1)], 1)
    assert limits.at(NOON).take(0, 1)
    assert not limits.at(NOON - 10_000).take(0, 1)
    assert not limits.at(NOON + 999).take(0, 1)
    assert limits.at(NOON + 1_000).take(0, 1)


def test_a_trace_above_the_share_of_a_partition_passes_a_full_bucket_into_debt() -> None:
    """10 spans per second over 10 partitions: one per second here, two at once; traces of five spans are common."""
    limits = Limits([Rate("p", 10, 20)], 10)
    assert limits.at(NOON).take(0, 5)
    assert not limits.at(NOON + 3_999).take(0, 1)
    assert limits.at(NOON + 4_000).take(0, 1)
    assert not limits.at(NOON + 60_000).take(0, 21)
    assert limits.at(NOON + 60_000).take(0, 20)


@given(RATES, st.integers(1, 12), STEPS)
def test_no_more_passes_than_the_rate_the_capacity_and_one_trace(
    rate: Rate, partitions: int, steps: list[tuple[int, int]]
) -> None:
    spent = passing(Limits([rate], partitions), steps)
    newest = max((sum(step for step, _ in steps[1 : i + 1]) for i in range(len(steps))), default=0)
    room = min(rate.burst, 5 * max(spent, default=0), 15 * rate.per_second / partitions)
    allowed = rate.per_second * newest / 1000 / partitions + max(rate.burst / partitions, room)
    assert sum(spent[:-1]) <= allowed + 1e-6
    assert max(spent, default=0) <= rate.burst


@given(RATES, st.integers(1, 12), STEPS, st.integers(0, 40))
def test_who_continues_from_a_checkpoint_decides_alike(
    rate: Rate, partitions: int, steps: list[tuple[int, int]], at: int
) -> None:
    first, second, whole = (Limits([rate], partitions) for _ in range(3))
    before = passing(first, steps[:at])
    second.restore(first.state())
    middle = NOON + sum(step for step, _ in steps[:at])
    assert before + passing(second, steps[at:], middle) == passing(whole, steps)


def test_no_debt_of_another_rate_lasts_longer_than_a_trace_would_leave_it() -> None:
    """A rate was lowered, or counted bytes before."""
    for before in (Rate("p", 1_000, 2_000), Rate("p", 1_000_000, 2_000_000)):
        limits = Limits([before], 16)
        assert limits.at(NOON).take(0, before.burst - 1)
        lower = Limits([Rate("p", 10, 20)], 16)
        lower.restore(limits.state())
        assert not lower.at(NOON).take(0, 1)
        assert lower.at(NOON + 16 * 3_000).take(0, 1), "16 partitions of 10 spans a second, a trace of 20"


def test_state_is_by_policy() -> None:
    rates = [Rate("a", 1, 2), Rate("b", 3, 4), Rate("a", 5, 6), Rate("idle", 1, 1)]
    limits = Limits(rates, 2)
    for index in range(3):
        assert limits.at(NOON + index).take(index, 1)
    assert limits.state() == {"a": [(0, NOON), (4_000, NOON + 2)], "b": [(2_000, NOON + 1)]}
    reordered = Limits([rates[1], rates[3], rates[0], rates[2]], 2)
    reordered.restore(limits.state())
    assert reordered.state() == limits.state()


@pytest.mark.parametrize("rates", [[Rate("p", 1, 3)], [Rate("q", 1, 9)], [Rate("p", 1, 9), Rate("p", 1, 9)]])
def test_other_policies_or_smaller_buckets_after_a_restart(rates: list[Rate]) -> None:
    before = Limits([Rate("p", 1, 9)], 1)
    assert before.at(NOON).take(0, 1)
    after = Limits(rates, 1)
    after.restore(before.state())
    assert after.at(NOON).take(0, rates[0].burst)
    assert not after.at(NOON).take(0, 1)
