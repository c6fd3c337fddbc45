"""A budget of the fleet over skewed partitions: kept within 5 %, by what partitions read of each other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.sampling.blocks import FleetBudget
from processors.sampling.budget import EQUAL, Budget, shares
from processors.sampling.limits import BucketState, Limits, Rate

NOON = 1_800_000_000_000
BUDGET = 1_000  # spans per second
WORKERS = 3
STEP = 10  # ms
SKEWED = (40, 20, 10, 10, 5, 5, 4, 3, 2, 1, 0, 0)  # percent of 5,000 spans/s, by partition
Told = dict[str, list[BucketState]]


@cache
def traffic(load: tuple[int, ...], seconds: int, shift: int) -> list[list[tuple[int, int]]]:
    """(ms, spans) of the traces of each partition."""
    draw, n = random.Random(7), len(load)
    found: list[list[tuple[int, int]]] = [[] for _ in load]
    for tick in range(0, seconds * 1000, STEP):
        weights = load if not shift or tick < shift * 1000 else load[::-1]
        spans = 5 * STEP
        while spans > 0:
            index, size = draw.choices(range(n), weights)[0], draw.randint(1, 8)
            spans -= size
            found[index].append((tick, size))
    return found


def fleet(
    rate: Budget | Rate,
    load: tuple[int, ...],
    seconds: int,
    shift: int = 0,
    stalls: Sequence[tuple[int, ...]] = (),
) -> list[int]:
    """Spans that pass in each second of stream time.

    Traces of 1 to 8 spans come by `load` percent of 5,000 spans/s; after `shift` seconds the other way round. Each of
    three workers owns a third of the partitions, looks once a second at a time of its own, and sees what partitions
    wrote up to a second before: they write once a second too. A stall (from, to, workers) is a time in which workers
    do nothing; then they catch up ten times as fast as time goes.
    """
    n, coming = len(load), traffic(load, seconds, shift)
    limits = [Limits([rate], n) for _ in load]
    written: list[Told] = [{} for _ in load]
    passed = [0] * seconds
    reached, done = [0] * WORKERS, [0] * n  # stream time of each worker, traces of each partition
    for tick in range(0, seconds * 1000, STEP):
        stalled = {worker for begin, end, *who in stalls if begin * 1000 <= tick < end * 1000 for worker in who}
        for worker in set(range(WORKERS)) - stalled:
            reached[worker] = min(tick, reached[worker] + 10 * STEP)
            for index in range(worker, n, WORKERS):
                while done[index] < len(coming[index]) and coming[index][done[index]][0] <= reached[worker]:
                    time, size = coming[index][done[index]]
                    done[index] += 1
                    if limits[index].at(NOON + time).take(0, size):
                        passed[time // 1000] += size
                if tick % 1000 == 70 * index % 1000:
                    written[index] = limits[index].state()
                if tick % 1000 == 330 * worker:
                    limits[index].allot(index, written, NOON + reached[worker])
    return passed


def test_three_workers_with_skewed_partitions_keep_within_five_percent_for_a_minute() -> None:
    """From a cold start: all partitions begin with an equal share and a second's worth."""
    passed = fleet(Budget("p", BUDGET, BUDGET), SKEWED, 60)
    assert sum(passed) == pytest.approx(60 * BUDGET, rel=0.05)
    assert sum(passed[:5]) <= 1.05 * 6 * BUDGET
    for begin in range(5, 60, 5):
        assert sum(passed[begin : begin + 5]) == pytest.approx(5 * BUDGET, rel=0.05)


def test_an_nth_for_each_would_waste_a_sixth() -> None:
    """The same traffic under rate_limiting: what the test above can tell apart."""
    assert sum(fleet(Rate("p", BUDGET, BUDGET), SKEWED, 60)) < 0.85 * 60 * BUDGET


def test_the_load_moves_to_other_partitions() -> None:
    passed = fleet(Budget("p", BUDGET, BUDGET), SKEWED, 60, shift=30)
    assert sum(passed) == pytest.approx(60 * BUDGET, rel=0.05)
    assert sum(passed[35:]) == pytest.approx(25 * BUDGET, rel=0.05)


@pytest.mark.parametrize(
    "stalls", [[(20, 24, 0, 1, 2), (40, 50, 0, 1, 2)], [(10, 25, 1)], [(5, 17, 0, 1), (30, 35, 2)]], ids=str
)
def test_workers_that_stand_still_and_catch_up_hold_it_too(stalls: list[tuple[int, ...]]) -> None:
    """What the others have written is then seconds old, by stream time, and nobody may take them for silent."""
    passed = fleet(Budget("p", BUDGET, BUDGET), SKEWED, 60, stalls=stalls)
    assert sum(passed) == pytest.approx(60 * BUDGET, rel=0.05)
    assert max(sum(passed[begin : begin + 5]) for begin in range(0, 55, 5)) < 1.3 * 5 * BUDGET


def steady(rate: Budget | Rate, partitions: int, spans: int, demand: int, seconds: int = 150) -> list[int]:
    """Spans that pass in each second of traces of `spans` spans, `demand` spans/s by chance over the partitions."""
    draw, limits = random.Random(3), [Limits([rate], partitions) for _ in range(partitions)]
    passed, asked = [0] * seconds, [0] * partitions
    now = 0.0
    for second in range(seconds):
        told = [one.state() if second - last < 15 else None for one, last in zip(limits, asked, strict=True)]
        for index, one in enumerate(limits):
            one.allot(index, told, NOON + second * 1000)
        while now < second + 1:
            index = draw.randrange(partitions)
            asked[index] = second
            passed[second] += spans * limits[index].at(NOON + int(now * 1000)).take(0, spans)
            now += draw.expovariate(demand / spans)
    return passed


COARSE = [(16, 10, 0.9), (16, 50, 0.9), (16, 200, 0.9), (64, 50, 0.8)]
"""Partitions, spans of a trace, and what passes at least of what the budget allows, near to and above it."""


@pytest.mark.parametrize("kind", [Budget, Rate])
@pytest.mark.parametrize(("partitions", "spans", "least"), COARSE, ids=str)
def test_few_traces_of_a_partition_pass_nearly_as_many_would(
    kind: type[Budget] | type[Rate], partitions: int, spans: int, least: float
) -> None:
    """One in a second, or in ten: a bucket with room for one loses what gaps between them save."""
    rate = kind("p", BUDGET, BUDGET if kind is Budget else 2 * BUDGET)
    for demand, part in ((500, max(0.85, least)), (900, least), (2_000, least)):
        passed = steady(rate, partitions, spans, demand)[30:]
        assert sum(passed) >= part * min(demand, BUDGET) * len(passed), demand
        for begin in range(0, len(passed) - 60, 10):
            assert sum(passed[begin : begin + 60]) <= 1.05 * 60 * BUDGET + 5 * spans


@pytest.mark.parametrize("rate", [Budget("p", BUDGET, BUDGET), Rate("p", BUDGET, 2 * BUDGET)], ids=str)
def test_what_was_saved_for_large_traces_is_bounded(rate: Budget | Rate) -> None:
    """Sixteen partitions that had nothing for an hour: small ones find their share, large ones 15 s of the rate."""
    for spans, most in ((1, rate.burst), (60, 15 * BUDGET), (1_000, 15 * BUDGET)):
        limits = [Limits([rate], 16) for _ in range(16)]
        for one in limits:
            one.at(NOON).take(0, spans)
        passed = [spans * one.at(NOON + 3_600_000).take(0, spans) for one in limits for _ in range(2_000 // spans)]
        assert sum(passed) <= most + 16 * spans


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=64), st.integers(1, 64 * EQUAL))
def test_shares_are_of_the_whole_and_nobody_has_none(demands: list[int], whole: int) -> None:
    found = shares(demands, whole)
    assert sum(found) <= whole + len(demands)
    assert min(found) >= 1
    assert [share for _, share in sorted(zip(demands, found, strict=True))] == sorted(found)


STEPS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 12), st.integers(0, 3)), max_size=60)


@given(STEPS, st.integers(0, 60))
def test_who_continues_from_a_checkpoint_decides_alike(steps: list[tuple[int, int, int]], at: int) -> None:
    """Given what was read: `states` come in the same places."""
    first, second, whole = (Limits([Budget("p", 20, 40)], 3) for _ in range(3))
    now, told, expected = NOON, [], []
    for place, (step, size, look) in enumerate(steps):
        now += step
        if place == at:
            second.restore(first.state())
        mine = first if place < at else second
        if look == 0:
            states: list[Told] = [{}, {"p": [(0, now), (EQUAL, 7 * size), (0, now), (size, -1)]}, {"other": [(1, 2)]}]
            mine.allot(0, states, now)
            whole.allot(0, states, now)
        told.append(mine.at(now).take(0, size))
        expected.append(whole.at(now).take(0, size))
    assert told == expected


@pytest.mark.parametrize("before", [[Rate("p", 10, 10)], [Budget("p", 10, 10), Rate("p", 10, 10)]])
def test_a_checkpoint_of_another_policy_of_that_name_tells_nothing(before: list[Rate | Budget]) -> None:
    """Its type was changed while it runs: the state of others, and one's own, is that of the old one for a while."""
    old = Limits(before, 2)
    old.at(NOON).take(0, 1)
    limits = Limits([Budget("p", 10, 10)], 2)
    limits.restore(old.state())
    limits.allot(0, [old.state(), old.state()], NOON)
    assert limits.at(NOON).take(0, 1)


def test_other_limiters_keep_their_nth() -> None:
    limits = Limits([Rate("p", 10, 10), Budget("p", 10, 10)], 2)
    before = limits.state()["p"][0]
    limits.allot(1, [{}, {}], NOON)
    assert limits.state()["p"][0] == before


@pytest.mark.parametrize("block", [{}, {"spans_per_second": 1, "bytes_per_second": 1}])
def test_a_budget_is_of_one_kind(block: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="spans_per_second: one of it and bytes_per_second is required"):
        FleetBudget.model_validate(block)
