"""Rates that follow the traffic, key by key, in stream time."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.sampling.adaptive import REST, UNITS, Adaptive, Averages, parts
from processors.sampling.keyed import Dynamic, Throughput
from processors.sampling.probability import ALWAYS, NEVER, threshold_of

NOON = 1_800_000_000_000
INTERVAL = 15_000
TENTH = Adaptive("p", 0.1, 0.0, False, threshold_of(10), INTERVAL, 0.5, 0.5, 2.0, 3, 500)
HUNDRED = replace(TENTH, share=0.0, per_second=100.0, of_traces=True)
STEPS = st.lists(st.tuples(st.integers(0, 9_000), st.integers(1, 6), st.integers(1, 40)), max_size=60)


def share(threshold: int) -> float:
    return (NEVER - threshold) / NEVER


def run(
    sampler: Averages, rates: dict[int, float], seconds: int, start: int = NOON, spans: int = 1
) -> dict[int, list[float]]:
    """So many traces a second of each key; the shares of each that would be kept."""
    found: dict[int, list[float]] = {key: [] for key in rates}
    due = sorted((start + int(1000 * n / rate), key) for key, rate in rates.items() for n in range(int(seconds * rate)))
    for now, key in due:
        found[key].append(share(sampler.threshold(now, key, spans)))
    return found


def averages(sampler: Averages) -> dict[int, int]:
    """Of each key, in units."""
    state = sampler.state()
    return dict(state[2 : 2 + state[1][0]])


def kept(found: dict[int, list[float]]) -> float:
    return sum(map(sum, found.values()))


def test_the_goal_is_met_over_all_keys_and_rare_ones_are_kept() -> None:
    """500 a second of one key, 50 and 5 of others, and one that comes every five seconds."""
    sampler, rates = Averages(TENTH, 1), {1: 500.0, 2: 50.0, 3: 5.0, 4: 0.2}
    run(sampler, rates, 30)
    found = run(sampler, rates, 30, NOON + 30_000)
    assert kept(found) / sum(map(len, found.values())) == pytest.approx(0.1, rel=0.02)
    shares = [sum(each) / len(each) for each in found.values()]
    assert shares == sorted(shares)
    assert shares[3] == 1.0


def test_before_anything_is_known_the_goal_holds_for_every_key() -> None:
    assert set(run(Averages(TENTH, 1), {1: 1000.0}, 14)[1]) == {share(threshold_of(10))}


def test_a_new_key_is_kept_until_it_is_known() -> None:
    sampler = Averages(TENTH, 1)
    run(sampler, {1: 1000.0}, 16)
    assert sampler.threshold(NOON + 16_000, 2, 1) == ALWAYS


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_throughput_is_kept_whatever_comes(partitions: int) -> None:
    """400 traces a second of 20 keys, a quarter each of four partitions; then five times as many."""
    sampler = Averages(replace(HUNDRED, per_second=50.0), partitions)
    rates = {key: 2 * 400 / partitions * key / (20 * 21) for key in range(1, 21)}
    run(sampler, rates, 30)
    assert kept(run(sampler, rates, 30, NOON + 30_000)) == pytest.approx(1500 / partitions, rel=0.1)
    more = {key: 5 * rate for key, rate in rates.items()}
    run(sampler, more, 90, NOON + 60_000)
    assert kept(run(sampler, more, 15, NOON + 150_000)) == pytest.approx(750 / partitions, rel=0.1)


def fleet(
    settings: Adaptive,
    partitions: int,
    rates: list[float],
    seconds: int,
    after: int,
    faster: float = 1.0,
    tail: float = 0,
) -> tuple[float, float, list[float]]:
    """Traces of about ten spans of keys that bring `rates` a second, at random, spread over the partitions.

    What comes and what is kept after `after` seconds, in spans a second, and the mean share of traces of the first
    tenth of the keys and of the last half. From half of `after` on the load is `faster` times as much. `tail`: the
    sigma of the logarithm of the sizes of traces.
    """
    draw = random.Random(5)
    samplers = [Averages(settings, partitions) for _ in range(partitions)]
    now, seen, counted = 0.0, 0, 0.0
    shares: list[list[float]] = [[], []]
    cumulated = list(accumulate(rates))
    while now < seconds:
        now += draw.expovariate(cumulated[-1] * (faster if now >= after / 2 else 1.0))
        key = draw.choices(range(len(rates)), cum_weights=cumulated)[0]
        spans = round(draw.lognormvariate(2.3 - tail**2 / 2, tail)) + 1 if tail else 10
        asked = draw.choice(samplers).threshold(NOON + int(now * 1000), key + 1, spans)
        if now >= after:
            seen, counted = seen + spans, counted + spans * share(asked)
            if key < len(rates) / 10 or key >= len(rates) / 2:
                shares[key >= len(rates) / 2].append(share(asked))
    return seen / (seconds - after), counted / (seconds - after), [sum(each) / len(each) for each in shares]


UNIFORM = [0.2] * 200  # traces a second of each key
SPARSE = [0.02] * 500
ZIPF = [8 / (number + 1) for number in range(400)]
ALL = [1, 4, 16, 64]


@pytest.mark.parametrize("partitions", ALL)
@pytest.mark.parametrize("rates", [UNIFORM, SPARSE, ZIPF, [5.0] * 10], ids=["uniform", "sparse", "zipf", "dense"])
def test_the_goals_hold_however_few_traces_of_a_key_a_partition_sees(rates: list[float], partitions: int) -> None:
    """One partition sees a key once in a minute, or in an hour: one by one they would all be new, and kept."""
    seen, counted, _ = fleet(replace(TENTH, share=0.05, initial=threshold_of(5)), partitions, rates, 180, 90)
    assert counted / seen == pytest.approx(0.05, rel=0.2)
    _, counted, _ = fleet(replace(TENTH, share=0.0, per_second=20.0), partitions, rates, 180, 90)
    assert counted == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("partitions", ALL)
@pytest.mark.parametrize("faster", [5.0, 0.2])
def test_a_throughput_holds_after_a_step_in_load(faster: float, partitions: int) -> None:
    rates = [rate / min(1.0, faster) for rate in UNIFORM]
    _, counted, _ = fleet(replace(TENTH, share=0.0, per_second=20.0), partitions, rates, 330, 210, faster)
    assert counted == pytest.approx(20, rel=0.25)


@pytest.mark.parametrize("partitions", ALL)
def test_a_goal_holds_though_some_traces_are_a_hundred_times_as_large(partitions: int) -> None:
    seen, counted, _ = fleet(TENTH, partitions, UNIFORM, 300, 100, tail=1.5)
    assert counted / seen == pytest.approx(0.1, rel=0.25)


@pytest.mark.parametrize("partitions", ALL)
def test_rare_keys_are_kept_more_often_than_frequent_ones(partitions: int) -> None:
    """By a factor that falls with what one partition can know of them."""
    *_, (frequent, rare) = fleet(replace(TENTH, share=0.05), partitions, [20 * rate / 8 for rate in ZIPF], 120, 60)
    assert rare > 1.2 * frequent


@pytest.mark.parametrize("partitions", [1, 16])
def test_a_goal_below_one_span_of_each_key_holds(partitions: int) -> None:
    """200 keys in 15 s, of which 75 spans may be kept."""
    _, counted, _ = fleet(replace(TENTH, share=0.0, per_second=5.0), partitions, UNIFORM, 180, 90)
    assert counted == pytest.approx(5, rel=0.25)


def test_nothing_of_a_forgotten_key_is_lost() -> None:
    """Averages add up to that of all traffic, of which no goal is a share otherwise."""
    sampler = Averages(TENTH, 1)
    for number in range(40 * 100):
        sampler.threshold(NOON + number * INTERVAL // 100, number + 1, 1)
    sampler.threshold(NOON + 40 * INTERVAL, 1, 1)
    assert sum(averages(sampler).values()) == pytest.approx(100 * UNITS, rel=0.02)


def test_the_state_of_the_release_before_is_gone_on_with() -> None:
    """It knows REST only where there were too many keys, and once; what that release reads has every key once more."""
    before = [(NOON, 5), (3, 2), (0, 4 * UNITS), (1, 9_000 * UNITS), (2, 50 * UNITS), (1, 3), (9, 1)]
    sampler = Averages(TENTH, 1)
    sampler.restore(before)
    assert averages(sampler) == {REST: 4 * UNITS, 1: 9_000 * UNITS, 2: 50 * UNITS}
    assert share(sampler.threshold(NOON + 1, 1, 1)) == pytest.approx(0.09, rel=0.1)
    (since, adjusted), (number, _), *pairs = sampler.state()
    assert (since, adjusted) == (NOON, 5)
    assert dict(pairs[:number]) == averages(sampler)
    assert dict(pairs[number:]) == {REST: 0, 1: 4, 9: 1}


def test_spans_or_traces_are_counted() -> None:
    of_spans = Averages(replace(HUNDRED, of_traces=False), 1)
    run(of_spans, {1: 1000.0}, 30, spans=8)
    found = run(of_spans, {1: 1000.0}, 15, NOON + 30_000, spans=8)
    assert 8 * kept(found) == pytest.approx(1500, rel=0.05)


def test_a_burst_is_not_waited_out() -> None:
    """Refinery's: after three adjustments, twice the average in less than an interval is reason to adjust."""
    patient, sampler = Averages(replace(HUNDRED, burst_multiple=-1), 1), Averages(HUNDRED, 1)
    for each in (patient, sampler):
        run(each, {1: 200.0}, 60)
    slow, quick = (kept(run(each, {1: 4_000.0}, 14, NOON + 60_000)) for each in (patient, sampler))
    assert quick < slow / 2


def test_keys_beyond_the_bound_share_one_rate_and_are_counted() -> None:
    sampler = Averages(replace(TENTH, max_keys=10), 1)
    for key in range(1, 5_001):
        sampler.threshold(NOON, key, 1)
    assert sampler.shared == 4_990
    assert len(dict(sampler.state()[2:])) <= 11
    sampler.threshold(NOON + INTERVAL, 1, 1)
    assert 0 < share(sampler.threshold(NOON + INTERVAL, 99_999, 1)) < 0.2
    assert REST in dict(sampler.state()[2:])


@pytest.mark.parametrize("weight", [0.1, 0.2, 0.3, 0.5, 0.6, 0.8])
def test_a_key_that_comes_once_in_each_interval_is_not_forgotten(weight: float) -> None:
    """Its average is the weight itself, which is where it would age out."""
    goal = replace(HUNDRED, per_second=0.5, weight=weight, age_out=weight)
    sampler, rates = Averages(goal, 16), {key: 1 / 15 for key in range(1, 41)}
    run(sampler, {99: 1.0}, 30)  # in the first interval a count is the average
    run(sampler, rates, 60, NOON + 30_000)
    found = run(sampler, rates, 300, NOON + 90_000)
    assert kept(found) / sum(map(len, found.values())) < 0.5


def test_the_rest_takes_no_place_of_a_key() -> None:
    sampler = Averages(replace(TENTH, max_keys=2), 1)
    run(sampler, {1: 5.0, 2: 5.0, 3: 5.0}, 16)
    run(sampler, {4: 5.0, 5: 5.0, 6: 5.0}, 320, NOON + 16_000)  # others than those come, and these age out
    assert len({key for key, _ in sampler.state()[2:]} - {REST}) == 2


def test_a_key_that_comes_no_more_is_forgotten_and_silence_forgets_nothing() -> None:
    sampler = Averages(TENTH, 1)
    run(sampler, {1: 10.0, 2: 1.0}, 15)
    run(sampler, {1: 10.0}, 15 * 8, NOON + 15_000)
    assert 2 not in dict(sampler.state()[2:])
    sampler.threshold(NOON + 135_000, 1, 1)
    before = averages(sampler)
    sampler.threshold(NOON + 3_600_000, 1, 1)
    after = averages(sampler)
    assert 0 < before[1] // 3 < after[1] < before[1]  # one adjustment for an hour without traces, not 230


@given(STEPS, st.integers(0, 60), st.sampled_from([TENTH, HUNDRED, replace(TENTH, max_keys=2, burst_delay=0)]))
def test_who_continues_from_a_checkpoint_decides_alike(
    steps: list[tuple[int, int, int]], at: int, settings: Adaptive
) -> None:
    first, second, whole = (Averages(settings, 3) for _ in range(3))
    now, told, expected = NOON, [], []
    for place, (step, key, spans) in enumerate(steps):
        now += step
        if place == at:
            second.restore(first.state())
        told.append((first if place < at else second).threshold(now, key, spans))
        expected.append(whole.threshold(now, key, spans))
    assert told == expected


@given(st.dictionaries(st.integers(1, 50), st.floats(0.5, 1e7), min_size=1), st.floats(1, 1e6))
def test_parts_add_up_to_the_goal_and_are_no_more_than_there_is(sizes: dict[int, float], goal: float) -> None:
    found = parts(sizes, goal)
    assert all(found[key] <= size for key, size in sizes.items())
    assert all(found[key] >= min(size, 1.0, goal / len(sizes)) for key, size in sizes.items())
    assert sum(found.values()) <= goal * (1 + 1e-9)
    assert sum(found.values()) >= min(goal, sum(sizes.values())) * 0.999


def test_what_was_kept_counts_for_all() -> None:
    """Totals from adjusted counts of kept traces: the rates differ by key and time, the sum is that of all traces."""
    sampler, draw, estimate = Averages(TENTH, 1), random.Random(7), 0.0
    for number in range(60_000):
        threshold = sampler.threshold(NOON + number, 1 if number % 20 else 2, 1)
        if draw.randrange(NEVER) >= threshold:
            estimate += 1 / share(threshold)
    assert estimate == pytest.approx(60_000, rel=0.05)


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        ({}, "field_list"),
        ({"field_list": []}, "field_list"),
        ({"field_list": ["a", "a"]}, "'a' must be there once"),
        ({"field_list": ["root."]}, "'root.' names nothing"),
        ({"field_list": ["a"], "weight": 1}, "weight"),
        ({"field_list": ["a"], "adjustment_interval": "0s"}, "adjustment_interval: must be at least 1s"),
        ({"field_list": ["a"], "goal_sample_rate": 0.5}, "goal_sample_rate"),
    ],
)
def test_dynamic_says_what_is_wrong(block: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Dynamic.model_validate(block)


@pytest.mark.parametrize("goals", [{}, {"goal_spans_per_second": 1, "goal_traces_per_second": 1}])
def test_throughput_has_one_goal(goals: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="goal_spans_per_second: one of it and goal_traces_per_second"):
        Throughput.model_validate({"field_list": ["a"], **goals})
