"""Shares of one rate: guaranteed, and what nobody uses is not lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.limits import Allowance, Limits, Rate
from processors.sampling.shares import Shares, SharesBySecond

NOON = 1_800_000_000_000
STEPS = st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 2), st.integers(1, 12)), max_size=40)
ALLOWANCES = st.builds(
    lambda kind, total, parts: kind("p", total, tuple(total * part // 100 for part in parts)),
    st.sampled_from([Shares, SharesBySecond]),
    st.integers(1, 30),
    st.sampled_from([(50, 25, 25), (70, 0, 0), (34, 33, 33), (0, 0, 100)]),
)


def passing(limits: Limits, steps: list[tuple[int, int, int]], start: int = NOON) -> list[tuple[int, int, int]]:
    """What passes of (ms since the step before, part, spans): (time, part, spans)."""
    found, now = [], start
    for step, part, spans in steps:
        now += step
        if limits.at(now).take(0, spans, part):
            found.append((now, part, spans))
    return found


def spent(limits: Limits, seconds: int, *loads: int) -> list[int]:
    """Spans of each part that pass of `loads` traces of one span a second each, after the first burst is used up."""
    found = [0] * len(loads)
    for tick in range(1_000 * (seconds + 10)):
        for part, load in enumerate(loads):
            if tick % 1_000 < load and limits.at(NOON + tick).take(0, 1, part) and tick >= 10_000:
                found[part] += 1
    return [round(spans / seconds) for spans in found]


def test_every_part_has_its_share_however_busy_the_others_are() -> None:
    assert spent(Limits([Shares("p", 100, (50, 30, 20))], 1), 5, 900, 900, 900) == [50, 30, 20]


def test_what_one_does_not_use_is_for_the_others() -> None:
    assert spent(Limits([Shares("p", 100, (50, 30, 20))], 1), 5, 10, 0, 900) == [10, 0, 90]
    assert spent(Limits([Shares("p", 100, (50, 0))], 1), 5, 0, 900) == [0, 100]


def test_by_second_what_one_does_not_use_is_lost() -> None:
    assert spent(Limits([SharesBySecond("p", 100, (50, 30, 20))], 1), 5, 10, 0, 900) == [10, 0, 20]


def test_a_debt_of_the_pool_takes_nothing_from_a_share() -> None:
    limits = Limits([Shares("p", 10, (5, 5))], 4)  # 2.5 spans/s here, 1.25 each
    assert limits.at(NOON).take(0, 10, 0)  # the largest trace: far into debt
    assert limits.at(NOON).take(0, 1, 1)
    assert not limits.at(NOON + 1_000).take(0, 2, 0)
    assert limits.at(NOON + 1_000).take(0, 1, 1)


TOTAL = 1_000  # spans per second
PARTITIONS = [(1, 50), (4, 50), (16, 10), (16, 50), (16, 200), (64, 10), (64, 50)]
"""How many, and spans of a trace."""
GIVEN = [((1_000,), (1,)), ((500, 500), (1, 0)), ((500, 500, 0), (0, 0, 1)), ((700, 200, 100), (0.7, 0.2, 0.1))]
"""Spans per second of each part, and its part of the demand."""


def steady(shares: Shares, partitions: int, loads: list[tuple[float, int]]) -> tuple[list[float], list[float]]:
    """Spans a second of each part that come by chance, and those that pass, in 100 s after 50.

    `loads`: spans a second of each part, about, and of a trace.
    """
    draw, limits = random.Random(3), [Limits([shares], partitions) for _ in range(partitions)]
    traces = []
    for part, (demand, size) in enumerate(loads):
        now = 0.0
        while demand and (now := now + draw.expovariate(demand / size)) < 150:
            traces.append((now, part, size))
    came, passed = [0.0] * len(loads), [0.0] * len(loads)
    for now, part, size in sorted(traces):
        passes = limits[draw.randrange(partitions)].at(NOON + int(now * 1_000)).take(0, size, part)
        if now >= 50:
            came[part] += size / 100
            passed[part] += passes * size / 100
    return came, passed


@pytest.mark.parametrize(("parts", "weights"), GIVEN, ids=str)
@pytest.mark.parametrize(("partitions", "spans"), PARTITIONS, ids=str)
def test_few_large_traces_of_a_partition_pass_up_to_the_total(
    partitions: int, spans: int, parts: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    """Whoever's they are: of a part that has the whole, half, or nothing while others are quiet, or of all parts."""
    shares = Shares("p", TOTAL, parts)
    for demand, least in ((500, 0.95), (900, 0.85), (2_000, 0.95)):
        came, passed = steady(shares, partitions, [(demand * weight, spans) for weight in weights])
        assert least * min(sum(came), TOTAL) <= sum(passed) <= 1.05 * TOTAL, demand


@pytest.mark.parametrize("flood", [5, 50])
@pytest.mark.parametrize(("partitions", "spans"), PARTITIONS, ids=str)
def test_a_share_is_good_for_few_large_traces_beside_a_flood(partitions: int, spans: int, flood: int) -> None:
    """In small traces or large ones: the flood gets what the share leaves, and no more."""
    for demand, least in ((450, 0.8), (1_000, 0.9)):
        came, (mine, others) = steady(Shares("p", TOTAL, (500, 500)), partitions, [(demand, spans), (2_000, flood)])
        assert mine >= least * min(came[0], 500), demand
        assert 0.95 * TOTAL <= mine + others <= 1.05 * TOTAL, demand


@given(ALLOWANCES, st.integers(1, 12), STEPS)
def test_together_they_never_exceed_the_total(
    allowance: Allowance, partitions: int, steps: list[tuple[int, int, int]]
) -> None:
    assert isinstance(allowance, Shares | SharesBySecond)
    found = passing(Limits([allowance], partitions), steps)
    assert max((spans for _, _, spans in found), default=0) <= allowance.total
    if isinstance(allowance, SharesBySecond):
        return
    lasted = sum(step for step, _, _ in steps[1:])
    largest = max((spans for _, _, spans in found), default=0)
    saved = min(15 * allowance.total / partitions, (len(allowance.parts) + 1) * 5 * largest)
    allowed = allowance.total * lasted / 1000 / partitions + allowance.total / partitions + saved
    debts = (len(allowance.parts) + 1) * largest
    assert sum(spans for _, _, spans in found) <= allowed + debts + 1e-6


@given(ALLOWANCES, st.integers(1, 12), STEPS, st.integers(0, 40))
def test_who_continues_from_a_checkpoint_decides_alike(
    allowance: Allowance, partitions: int, steps: list[tuple[int, int, int]], at: int
) -> None:
    first, second, whole = (Limits([allowance, Rate("p", 1, 1)], partitions) for _ in range(3))
    before = passing(first, steps[:at])
    second.restore(first.state())
    middle = NOON + sum(step for step, _, _ in steps[:at])
    assert before + passing(second, steps[at:], middle) == passing(whole, steps)


@given(STEPS, st.integers(1, 30))
def test_with_one_partition_a_second_is_the_collectors(steps: list[tuple[int, int, int]], total: int) -> None:
    """The loop of composite.go, v0.155.0."""
    parts = (total // 2, total // 4, total)
    expected, now, second, counters = [], NOON, 0, [0, 0, 0]
    for step, part, spans in steps:
        now += step
        if now // 1_000 != second:
            second, counters = now // 1_000, [0, 0, 0]
        if counters[part] + spans <= parts[part] and counters[part] + spans <= total:
            counters[part] += spans
            expected.append((now, part, spans))
    assert passing(Limits([SharesBySecond("p", total, parts)], 1), steps) == expected
