"""Readings of sources become series: the sum over series is what the sources counted, whatever folds or restarts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.cardinality import OVERFLOW, Limits
from processors.family import MOST_LABELS
from processors.series import SeriesStore
from processors.values import nothing, observations, plus
from schemas.errors import Malformed
from schemas.point import (
    ExponentialValue,
    HistogramValue,
    Kind,
    Labels,
    PointBatch,
    Reading,
    Shape,
    SummaryValue,
    Value,
)
from schemas.reasons import Reason
from schemas.sample import SeriesBlock, Tick, read_tick
from tests.processors.metric_strategies import Seen, apply

TIME = 1_700_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
NAMES = ("job", "instance", "route")
BOUNDS = ((1.0, 5.0), (2.0,), ())


def shape(kind: Kind, names: tuple[str, ...] = NAMES, bounds: tuple[float, ...] = ()) -> Shape:
    return Shape(kind, names, bounds, 2 if kind == "info" else 1, open=True)


def read(
    kind: Kind,
    *readings: tuple[Labels, Value | None, int, int, int]
    | tuple[Labels, Value | None, int, int, int, int]
    | tuple[Labels, Value | None, int, int, int, int, int],
    names: tuple[str, ...] = NAMES,
    bounds: tuple[float, ...] = (),
) -> PointBatch:
    """(labels, value, source, start, time) each, and maybe target and producer."""
    return PointBatch("m", shape(kind, names, bounds), readings=[Reading(*reading) for reading in readings])


def counted(kind: Kind, *rows: tuple[Labels, Value], bounds: tuple[float, ...] = ()) -> PointBatch:
    return PointBatch("m", shape(kind, bounds=bounds), rows=list(rows))


def tick(store: SeriesStore, time_ms: int) -> list[SeriesBlock]:
    """What the next owner would find."""
    return read_tick(Tick(1, time_ms, 1, 1, store.blocks(time_ms)).encode()).blocks


def successor(limits: Limits, blocks: list[SeriesBlock], time_ms: int) -> SeriesStore:
    """Who takes over after a tick."""
    store = SeriesStore(limits)
    store.load(blocks, time_ms)
    return store


def rows(blocks: list[SeriesBlock]) -> dict[Labels, Value]:
    return {labels: value for block in blocks for labels, value in block.rows}


def stale(blocks: list[SeriesBlock]) -> list[Labels]:
    return [labels for block in blocks for labels in block.stale]


def value_of(kind: Kind, bounds: tuple[float, ...], number: int) -> Value:
    """So many observations, which are known by their number."""
    if kind == "histogram":
        buckets = [0] * (len(bounds) + 1)
        buckets[number % len(buckets)] = number
        return HistogramValue(number, number / 8, tuple(buckets))
    if kind == "exponential":
        return ExponentialValue(number, number / 8, 3, 0, 0.0, number % 50, (number,) if number else (), 0, ())
    return SummaryValue(number, number / 8, (float(number),) * len(bounds)) if kind == "summary" else number


def total_of(kind: Kind, number: int) -> Value:
    """So many observations of one size: what a source has counted by now."""
    value = value_of(kind, (), number)
    return value._replace(positive_offset=0) if isinstance(value, ExponentialValue) else value


@dataclass
class Source:
    """A process that counts under some label sets and tells it cumulatively; `number` may change, `target` does not.

    A `start` of None: who tells it does not know, and says that it is the time of the next reading.
    """

    number: int
    target: int
    labels: Labels
    bounds: tuple[float, ...]
    start: int | None
    total: Value
    sent: list[Reading] = field(default_factory=list)


Which = tuple[int, str, str, str]
Schedule = list[tuple[str, Which | None, int]]


def ticks(
    schedule: Schedule, owner: Callable[[], SeriesStore], step: Callable[[SeriesStore, int, str, Which, int], None]
) -> Iterator[tuple[int, list[SeriesBlock], SeriesStore, bool]]:
    """Each tick of a schedule, whose other steps `step` takes: its time, what is told, who goes on, whether another."""
    store, time = owner(), TIME
    for what, which, number in schedule:
        time += 1
        if which is not None:
            step(store, time, what, which, number)
            continue
        time += number
        blocks, taken_over = tick(store, time), what == "take over"
        if taken_over:
            store = owner()
            store.load(blocks, time)
        yield time, blocks, store, taken_over


@dataclass
class Sources:
    """Several under one label set, with bounds of their own, that begin anew; readings that come late."""

    kind: Kind
    found: dict[tuple[int, Labels], Source] = field(default_factory=dict)
    counts: list[float] = field(default_factory=list)

    def step(self, store: SeriesStore, time: int, what: str, which: Which, number: int) -> None:
        kind, labels = self.kind, which[1:]
        bounds = BOUNDS[which[0] % 3] if kind in ("histogram", "summary") else ()
        start = nothing(shape(kind, bounds=bounds))
        new = Source(len(self.found), 500 + len(self.found), labels, bounds, time - 1, start)
        source = self.found.setdefault((which[0], labels), new)
        one = value_of(kind, bounds, number)
        if what == "tell otherwise" and source.start is not None and kind != "sum":
            source.number = 1000 * number + source.target
        elif what == "start unknown" and source.sent and kind != "sum":
            source.start, source.number, source.sent = None, source.sent[-1].source, []
        elif what == "count":
            source.total = plus(source.total, one)
            source.start = time if source.start is None else source.start
            reading = Reading(labels, source.total, source.number, source.start, time, source.target)
            source.sent.append(reading)
            apply(store, PointBatch("m", shape(kind, bounds=bounds), readings=[reading]), time)
            self.counts.append(number)
        elif what == "delta" and kind != "summary":
            apply(store, counted(kind, (labels, one), bounds=bounds), time)
            self.counts.append(number)
        elif what == "restart":
            if kind == "sum" and source.sent:  # what it had is there no more
                self.counts.append(-observations(source.total))
                apply(store, read(kind, (labels, None, source.number, TIME, time, source.target)), time)
            source.total, source.start = start, time
            source.sent = source.sent[-1:] if kind != "sum" else []
        elif what == "send again" and source.sent and number < len(source.sent):
            apply(store, PointBatch("m", shape(kind, bounds=bounds), readings=[source.sent[number]]), time)


sources = st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["", "/", "/q"]))
steps = st.one_of(
    st.tuples(st.just("count"), sources, st.integers(0, 100)),
    st.tuples(st.just("delta"), sources, st.integers(0, 100)),
    st.tuples(st.just("restart"), sources, st.just(0)),
    st.tuples(st.just("tell otherwise"), sources, st.integers(1, 3)),
    st.tuples(st.just("start unknown"), sources, st.just(0)),
    st.tuples(st.just("send again"), sources, st.integers(0, 9)),
    st.tuples(st.just("tick"), st.none(), st.integers(1, 1000)),
    st.tuples(st.just("take over"), st.none(), st.integers(1, 1000)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["counter", "histogram", "exponential", "sum", "summary"]),
    st.lists(steps, max_size=40),
    st.integers(5, 40),
    st.integers(0, 3),
)
def test_the_sum_over_all_series_is_what_the_sources_counted(
    kind: Kind, schedule: Schedule, budget: int, values: int
) -> None:
    limits, several = Limits(budget, values, values_of={("m", "route"): 2}), Sources(kind)
    sums: list[float] = []
    told: dict[Labels, float] = {}
    schedule = [*schedule, ("take over", None, 1)]
    for time, blocks, store, taken_over in ticks(schedule, lambda: SeriesStore(limits), several.step):
        if taken_over:
            blocks = tick(store, time)
        now = {labels: observations(value) for labels, value in rows(blocks).items()}
        if kind != "sum":
            assert not stale(blocks)
            assert all(now[labels] >= before for labels, before in told.items())
        told = now
        assert store.active().get("m", 0) <= budget
        sums = [value.sum for value in rows(blocks).values() if not isinstance(value, int | float)]
    assert sum(told.values()) == sum(several.counts)
    assert not sums or sum(sums) == sum(several.counts) / 8


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["counter", "histogram", "exponential", "summary"]),
    st.lists(steps, max_size=40),
    st.lists(st.tuples(st.integers(5, 40), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5),
)
@example(  # the row of a source goes on in another one, which has other bounds
    kind="histogram",
    schedule=[
        *[("count", (0, "a", "x", ""), 0)] * 6,
        ("count", (1, "a", "x", ""), 0),
        ("restart", (0, "a", "x", ""), 0),
        *[("count", (0, "a", "x", ""), 0)] * 3,
        ("restart", (0, "a", "x", ""), 0),
        ("count", (0, "a", "x", ""), 1),
        ("take over", None, 1),
        *[("count", (0, "a", "x", ""), 0)] * 3,
    ],
    limits=[(9, 0, 0), (5, 0, 0)],
)
def test_the_sum_is_the_same_whatever_the_limits_become(
    kind: Kind, schedule: Schedule, limits: list[tuple[int, int, int]]
) -> None:
    """Every owner has limits of its own: series, values per label, values of one label."""
    owners, several, last, seen = itertools.cycle(limits), Sources(kind), TIME - 1, Seen()
    most = 0

    def owner() -> SeriesStore:
        nonlocal most
        most, values, routes = next(owners)
        return SeriesStore(Limits(most, values, values_of={("m", "route"): routes}))

    schedule = [*schedule, ("take over", None, 1), ("take over", None, 1)]
    for time, blocks, store, taken_over in ticks(schedule, owner, several.step):
        seen.take(blocks, last, time)
        last = time
        if taken_over:
            assert store.active().get("m", 0) <= most
    seen.take(tick(store, last + 2), last, last + 2)
    assert seen.increase() == sum(several.counts)


processes = st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.just("x"), st.sampled_from(["", "/", "/q"]))
whiles = st.one_of(
    st.tuples(st.just("count"), processes, st.integers(1, 100)),
    st.tuples(st.just("count"), processes, st.integers(1, 100)),
    st.tuples(st.just("other labels"), processes, st.integers(1, 100)),
    st.tuples(st.just("no value"), processes, st.just(0)),
    st.tuples(st.just("restart"), processes, st.just(0)),
    st.tuples(st.just("tick"), st.none(), st.integers(2, 1000)),
    st.tuples(st.just("tick"), st.none(), st.integers(2, 1000)),
    st.tuples(st.just("take over"), st.none(), st.integers(2, 1000)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["counter", "histogram", "exponential", "summary"]),
    st.lists(whiles, max_size=40),
    st.integers(5, 40),
    st.integers(0, 3),
)
def test_prometheus_sees_the_rise_of_all_that_was_counted_whenever_a_source_ends(
    kind: Kind, schedule: Schedule, budget: int, values: int
) -> None:
    """Sources end between two ticks, or are told under other labels, by two gateways in turn."""
    limits = Limits(budget, values, values_of={("m", "route"): 2}, level_idle_ms=HOUR)
    last, seen, counts = TIME - 1, Seen(), 0
    found: dict[tuple[int, Labels], Source] = {}
    ended: set[int] = set()

    def step(store: SeriesStore, time: int, what: str, which: Which, number: int) -> None:
        nonlocal counts
        labels: Labels = which[1:]
        bounds = BOUNDS[which[0] % 3] if kind in ("histogram", "summary") else ()
        new = Source(len(found), 0, labels, bounds, time - 1, value_of(kind, bounds, 0))
        source = found.setdefault((which[0], labels), new)
        start = source.start or 0
        if what == "no value":
            if source.sent:  # of one that is not known whoever has its labels would end
                apply(store, read(kind, (labels, None, source.number, start, time), bounds=bounds), time)
                ended.add(source.number)
                source.sent.clear()
        elif what == "restart":
            source.start, source.total = time, value_of(kind, bounds, 0)
        else:
            source.total = plus(source.total, value_of(kind, bounds, number))
            told, names = ((*labels, "c"), (*NAMES, "cluster")) if what == "other labels" else (labels, NAMES)
            one = (told, source.total, source.number, start, time)
            batch = read(kind, one, names=names, bounds=bounds)
            apply(store, batch, time)
            source.sent = batch.readings
            counts += number
            ended.discard(source.number)

    schedule = [*schedule, ("tick", None, 2), ("tick", None, 2)]
    for time, blocks, _, taken_over in ticks(schedule, lambda: SeriesStore(limits), step):
        seen.take(blocks, last, time)
        last = time
        if taken_over:
            for source in found.values():  # what sources that ended had is forgotten: they come back as new ones
                if source.number in ended:
                    source.start, source.total = time, value_of(kind, source.bounds, 0)
    assert seen.increase() == counts
    assert seen.live() == len(rows(blocks))


A, B = ("shop", "1", "/a"), ("shop", "2", "/b")


@pytest.mark.parametrize("owners", [1, 2])
def test_a_source_that_ends_before_any_tick_told_of_it_is_told_with_the_next_one(owners: int) -> None:
    """A short job that is scraped through: its series begins at zero, has what was counted, and ends a tick later."""
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 7, 1, TIME, TIME + 1)), TIME + 1)
    apply(store, read("counter", (A, None, 1, TIME, TIME + 2)), TIME + 2)
    (block,) = told = tick(store, TIME + 3)
    assert (block.rows, block.fresh, block.stale) == ([(A, 7)], 1, [])
    if owners == 2:
        store = successor(Limits(100, 100), told, TIME + 3)
    told = tick(store, TIME + 4)
    assert (rows(told), stale(told)) == ({}, [A])
    assert not len(store)


def test_a_row_that_gets_a_source_again_before_it_ended_goes_on() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 7, 1, TIME, TIME + 1), (A, None, 1, TIME, TIME + 2)), TIME + 2)
    tick(store, TIME + 3)
    apply(store, read("counter", (A, 2, 2, TIME + 3, TIME + 4)), TIME + 4)
    for at in (5, 6):
        told = tick(store, TIME + at)
        assert (rows(told), stale(told)) == ({A: 9}, [])


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential"])
@pytest.mark.parametrize("order", ["delta, no value", "no value, delta"])
def test_deltas_that_come_after_no_value_are_of_a_series_that_goes_on(order: str, kind: Kind, owners: int) -> None:
    """Of a producer that had nothing to tell once, some minutes later as well: there is no staleness marker."""
    store, seen, count = SeriesStore(Limits(100, 100, idle_ms=HOUR)), Seen(), 0
    minutes = ("delta", order, "delta" if order.startswith("delta") else "", "", "delta", "")
    for minute, what in enumerate(minutes):
        time = TIME + minute * MINUTE
        for one in what.split(", "):
            if one == "delta":
                apply(store, counted(kind, (A, value_of(kind, (), 1 << minute))), time)
                count += 1 << minute
            elif one:
                apply(store, read(kind, (A, None, 1, 0, time)), time)
        blocks = tick(store, time)
        assert stale(blocks) == []
        seen.take(blocks, time - MINUTE, time)
        if owners == 2:
            store = successor(Limits(100, 100, idle_ms=HOUR), blocks, time)
    assert (seen.increase(), seen.live()) == (count, 1)


def test_two_sources_under_one_label_set_add_up() -> None:
    """Replicas without an instance id: each is compared with itself."""
    store = SeriesStore(Limits(100, 100))
    for number, value in ((1, 5), (2, 7), (1, 6), (2, 9)):
        apply(store, read("counter", (A, value, number, TIME, TIME + value)), TIME)
    assert rows(tick(store, TIME + 10)) == {A: 15}


def test_a_source_that_fell_without_a_new_start_time_began_anew() -> None:
    store = SeriesStore(Limits(100, 100))
    for time, value in ((1, 5), (2, 3), (3, 4)):
        apply(store, read("counter", (A, value, 1, 0, TIME + time)), TIME)
        tick(store, TIME + time)
    assert rows(tick(store, TIME + 10)) == {A: 9}


def test_a_late_reading_before_the_restart_still_counts_and_an_older_one_is_superseded() -> None:
    store = SeriesStore(Limits(100, 100))
    for start, time, value in ((1, 10, 5), (20, 30, 2), (1, 15, 8), (1, 12, 6)):
        apply(store, read("counter", (A, value, 1, TIME + start, TIME + time)), TIME + 30)
    assert rows(tick(store, TIME + 40)) == {A: 10}


def test_what_was_superseded_is_told() -> None:
    store = SeriesStore(Limits(100, 100))
    for time in (10, 10, 5):
        apply(store, read("gauge", (A, time, 1, 0, TIME + time)), TIME)
    assert store.dropped() == {Reason.SUPERSEDED: 2}
    assert not store.dropped()
    assert rows(tick(store, TIME + 20)) == {A: 10}


def test_history_is_taken_over_once_and_not_as_a_rise() -> None:
    """A source that began long ago: its series does not begin at zero, and a second one only adds what is new."""
    store = SeriesStore(Limits(100, 100, idle_ms=MINUTE))
    old = TIME - 24 * 60 * MINUTE
    apply(store, read("counter", (A, 1_000, 1, old, TIME)), TIME)
    apply(store, read("counter", (A, 5_000, 2, old, TIME)), TIME)
    (block,) = tick(store, TIME + 1)
    assert (block.rows, block.fresh) == ([(A, 1_000)], 0)
    apply(store, read("counter", (A, 1_001, 1, old, TIME + 2), (A, 5_020, 2, old, TIME + 2)), TIME)
    assert rows(tick(store, TIME + 3)) == {A: 1_021}


@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
@pytest.mark.parametrize("target", [0, 99])
def test_a_source_whose_start_is_not_known_counts_from_its_first_reading_on(kind: Kind, target: int) -> None:
    """Whoever scrapes began anew: the reading that begins at its own time says how much, and not since when.

    A process that is known goes on from what it told before.
    """
    store = SeriesStore(Limits(100, 100))
    told = []
    for start, time, number in ((1, 1, 1_000_000), (1, 2, 1_000_050), (60, 60, 1_000_100), (60, 75, 1_000_150)):
        value = value_of(kind, (), number)
        apply(store, read(kind, (A, value, 1, TIME + start, TIME + time, target)), TIME + time)
        (block,) = tick(store, TIME + time)
        told.append((observations(block.rows[0][1]), block.fresh))
    missed = 0 if target else 50
    assert store.dropped() == ({} if target else {Reason.START_UNKNOWN: 1})
    assert told == [(1_000_000, 0), (1_000_050, 0), (1_000_100 - missed, 0), (1_000_150 - missed, 0)]


def test_a_late_reading_under_a_start_that_was_given_up_counts_no_more() -> None:
    store = SeriesStore(Limits(100, 100))
    for start, time, value in ((1, 1, 1000.0), (60, 60, 1050.0), (60, 75, 1090.0), (1, 58, 1049.0)):
        apply(store, read("counter", (A, value, 1, TIME + start, TIME + time, 99)), TIME + time)
        tick(store, TIME + max(time, 75 + (time == 58)))
    assert rows(tick(store, TIME + 80)) == {A: 1090.0}
    assert store.dropped() == {Reason.SUPERSEDED: 1}


def test_who_never_knows_the_start_has_one_source_all_the_same() -> None:
    """And not one for each reading, all of which the next one would be compared with."""
    store = SeriesStore(Limits(100, 100))
    for time in range(1, 50):
        apply(store, read("counter", (A, 10.0 * time, 1, TIME + time, TIME + time, 99)), TIME + time)
        tick(store, TIME + time)
    (block,) = tick(store, TIME + 80)
    assert (rows([block]), len(block.sources)) == ({A: 490.0}, 1)


def test_a_process_that_fell_while_its_start_was_not_known_began_anew() -> None:
    store = SeriesStore(Limits(100, 100))
    for start, time, value in ((1, 1, 500.0), (60, 60, 7.0), (60, 75, 9.0)):
        apply(store, read("counter", (A, value, 1, TIME + start, TIME + time, 99)), TIME + time)
        tick(store, TIME + time)
    assert rows(tick(store, TIME + 80)) == {A: 509.0}


after_an_export = st.sampled_from(["", "tick", "take over"])
old_exports = st.tuples(st.integers(0, 2), st.lists(st.integers(0, 5), max_size=3), st.integers(0, 9), after_an_export)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["counter", "histogram", "exponential", "summary"]),
    st.lists(old_exports, max_size=12),
    st.integers(5, 40),
    st.integers(0, 3),
    st.booleans(),
)
def test_what_is_new_of_an_old_process_is_seen_to_rise(
    kind: Kind, exports: list[tuple[int, list[int], int, str]], budget: int, values: int, alike: bool
) -> None:
    """Processes are older than series may be idle. Each export tells all label sets; after some comes a tick.

    `alike`: the processes have their label sets in common.
    """
    limits = Limits(budget, values, idle_ms=HOUR, level_idle_ms=HOUR)
    store, time, last, seen, expected = SeriesStore(limits), TIME, TIME, Seen(), 0
    totals: dict[int, dict[int, Value]] = {}
    bounds = BOUNDS[0] if kind in ("histogram", "summary") else ()
    for process, sets, number, after in [*exports, (3, [], 0, "tick")]:
        time += MINUTE
        known = process in totals
        own = totals.setdefault(process, {6: value_of(kind, bounds, 1000)})
        for place in (*sets, *own):
            one = value_of(kind, bounds, number + 1)
            own[place] = plus(own[place], one) if place in own else one
            expected += known * (number + 1)
        start = TIME - 24 * HOUR - process
        told = [
            (
                ("shop", "" if alike else str(process), f"/{place}"),
                total,
                10 * process + place,
                start,
                time + place % 2,
                0,
                1 + process,
            )
            for place, total in own.items()
        ]
        apply(store, read(kind, *told, bounds=bounds), time)
        if not after:
            continue
        blocks = tick(store, time)
        seen.take(blocks, last, time)
        last = time
        if after == "take over":
            store = successor(limits, blocks, time)
    assert seen.increase() == expected


OLD = TIME - 24 * HOUR
C = ("shop", "3", "/c")


@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
def test_what_an_old_process_counts_before_the_first_tick_has_a_zero(kind: Kind) -> None:
    """It is read twice in the interval, and somebody younger has the same label set: the history alone is no rise."""
    store, bounds = SeriesStore(Limits(100, 100, idle_ms=HOUR)), BOUNDS[0] if kind in ("histogram", "summary") else ()
    young = (A, value_of(kind, bounds, 3), 2, TIME, TIME + 1)
    old = [(A, value_of(kind, bounds, number), 1, OLD, TIME + number // 10) for number in (900, 1050)]
    apply(store, read(kind, old[0], young, old[1], bounds=bounds), TIME + 1)
    (block,) = tick(store, TIME + 1000)
    assert ([observations(value) for _, value in block.rows], block.fresh) == ([153], 1)
    store = successor(Limits(100, 100, idle_ms=HOUR), [block], TIME + 1000)
    apply(store, read(kind, (A, value_of(kind, bounds, 1200), 1, OLD, TIME + 1001), bounds=bounds), TIME + 1001)
    (block,) = tick(store, TIME + 2000)
    assert ([observations(value) for _, value in block.rows], block.fresh) == ([303], 0)


def test_the_history_of_who_comes_in_the_place_of_a_series_that_just_ended_is_no_rise() -> None:
    """Prometheus is not told that it ended: it takes a larger value for a rise, a smaller one for a restart."""
    for value in (50, 5000):
        store, seen = SeriesStore(Limits(100, 100, idle_ms=HOUR)), Seen()
        apply(store, read("counter", (A, 1000, 1, OLD, TIME)), TIME)
        seen.take(tick(store, TIME), TIME - 2, TIME)
        apply(store, read("counter", (A, None, 1, OLD, TIME + 1), (A, value, 2, OLD, TIME + 2)), TIME + 2)
        seen.take(tick(store, TIME + 3), TIME, TIME + 3)
        apply(store, read("counter", (A, value + 7, 2, OLD, TIME + 4)), TIME + 4)
        seen.take(tick(store, TIME + 5), TIME + 3, TIME + 5)
        assert seen.increase() == 7


def test_what_comes_with_the_first_export_of_an_old_process_is_no_rise() -> None:
    """Some producers look at the clock for each of the points of an export."""
    store = SeriesStore(Limits(100, 100, idle_ms=HOUR))
    told = [(A, 900, 1, OLD, TIME, 0, 7), (B, 800, 2, OLD, TIME + 100, 0, 7), (A, 700, 3, OLD, TIME + 200, 0, 7)]
    apply(store, read("counter", *told), TIME)
    (block,) = tick(store, TIME + 1)
    assert (block.rows, block.fresh) == ([(A, 900), (B, 800)], 0)


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "it is silent"])
def test_a_label_set_of_an_old_process_that_comes_back_is_not_taken_for_new(owners: int, silent: bool) -> None:
    """After hours, while the process is read all along. After a takeover nobody knows what it had told."""
    store, time = SeriesStore(Limits(100, 100, idle_ms=HOUR)), TIME
    apply(store, read("counter", (A, 100, 1, OLD, time, 0, 7), (B, 900, 2, OLD, time, 0, 7)), time)
    tick(store, time)
    if not silent:
        apply(store, read("counter", (B, None, 2, OLD, time + 1, 0, 7)), time + 1)
    for _ in range(5):
        time += 40 * MINUTE
        apply(store, read("counter", (A, 100, 1, OLD, time, 0, 7)), time)
        blocks = tick(store, time)
    assert rows(blocks) == {A: 100}
    if owners == 2:
        store = successor(Limits(100, 100, idle_ms=HOUR), blocks, time)
    time += MINUTE
    apply(store, read("counter", (A, 100, 1, OLD, time, 0, 7), (B, 950, 2, OLD, time, 0, 7)), time)
    (block,) = tick(store, time)
    assert (block.rows[1], block.fresh) == (((B, 50), 1) if owners == 1 else ((B, 950), 0))


def test_a_label_set_that_there_was_no_room_for_is_not_taken_for_new() -> None:
    store = SeriesStore(Limits(100, 100, idle_ms=HOUR, sources=2))
    both = (A, 100, 1, OLD, TIME, 0, 7), (B, 200, 2, OLD, TIME, 0, 7)
    apply(store, read("counter", *both, (C, 900, 3, OLD, TIME, 0, 7)), TIME)
    assert store.dropped() == {Reason.OVER_LIMIT: 1}
    tick(store, TIME)
    later = TIME + MINUTE
    apply(store, read("counter", (B, None, 2, OLD, later, 0, 7), (C, 950, 3, OLD, later, 0, 7)), later)
    (block,) = tick(store, later)
    assert (block.rows, block.fresh) == ([(A, 100), (C, 950)], 0)


ENV = (*C[:2], "/env")


@pytest.mark.parametrize("kind", ["counter", "histogram"])
@pytest.mark.parametrize("values", [100, 1])
def test_a_set_in_whose_place_another_one_comes_is_not_counted_again(kind: Kind, values: int) -> None:
    """An attribute is added or masked on the way to all sets of a process, or changed in one, while it goes on."""
    bounds = BOUNDS[0] if kind == "histogram" else ()

    def export(store: SeriesStore, at: int, *sets: tuple[Labels, int]) -> list[SeriesBlock]:
        time, value = TIME + at * MINUTE, value_of(kind, bounds, 1000)
        for _ in range(at):
            value = plus(value, value_of(kind, bounds, 1))
        told = [(labels, value, number, OLD, time, 0, 7) for labels, number in sets]
        apply(store, read(kind, *told, bounds=bounds), time)
        return tick(store, time)

    for later in ([(C, 12), (ENV, 13)], [(A, 1), (ENV, 13)]):
        store, seen = SeriesStore(Limits(1000, values, idle_ms=HOUR)), Seen()
        for at, sets in enumerate(([(A, 1), (B, 2)], [(A, 1), (B, 2)], later, later)):
            seen.take(export(store, at, *sets), TIME + at * MINUTE - 2, TIME + at * MINUTE)
        # Two sets count one in a minute each; what comes in the place of another one counts from its first point on.
        assert seen.increase() <= 6


def test_a_new_set_is_new_only_if_the_others_go_on() -> None:
    """Candidates wait for the tick: a message that holds the others may come behind the one that holds them."""
    store = SeriesStore(Limits(100, 100, idle_ms=HOUR))
    for at, sets in enumerate(([(A, 1), (B, 2)], [(A, 1), (B, 2), (C, 3)])):
        time = TIME + at * MINUTE
        for labels, number in reversed(sets):
            apply(store, read("counter", (labels, 100 + at, number, OLD, time, 0, 7)), time)
        blocks = tick(store, time)
        assert sum(block.fresh for block in blocks) == at
    assert rows(blocks)[C] == 101


def test_of_a_process_that_an_older_worker_took_in_nobody_knows_which_sets_it_had() -> None:
    store = SeriesStore(Limits(100, 100, idle_ms=HOUR))
    apply(store, read("counter", (A, 100, 1, OLD, TIME)), TIME)
    for at, route in enumerate((B, C), 1):
        time = TIME + at * MINUTE
        apply(store, read("counter", (A, 100, 1, OLD, time, 0, 7), (route, 5, 1 + at, OLD, time, 0, 7)), time)
        blocks = tick(store, time)
        assert sum(block.fresh for block in blocks) == 0
    assert rows(blocks) == {A: 100, B: 5, C: 5}


def test_a_young_source_begins_at_zero() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 3, 1, TIME - MINUTE, TIME)), TIME)
    (block,) = tick(store, TIME + 1)
    assert (block.rows, block.fresh) == ([(A, 3)], 1)


@pytest.mark.parametrize("kind", ["counter", "gauge", "sum", "histogram"])
def test_a_series_ends_when_its_source_says_so(kind: Kind) -> None:
    """Also if it gives another start time then; while another source feeds the series it goes on."""
    store, value = SeriesStore(Limits(100, 100)), value_of(kind, (), 3)
    for number in (1, 2):
        apply(store, read(kind, (A, value, number, TIME, TIME)), TIME)
    assert len(rows(tick(store, TIME + 1))) == 1
    apply(store, read(kind, (A, None, 1, TIME + 1, TIME + 2)), TIME)
    blocks = tick(store, TIME + 2)
    assert (len(rows(blocks)), stale(blocks)) == (1, [])
    if kind == "sum":
        assert rows(blocks) == {A: 3}  # what the first source had is gone
    apply(store, read(kind, (A, None, 2, TIME, TIME + 2)), TIME)
    blocks = tick(store, TIME + 3)
    assert (rows(blocks), stale(blocks)) == ({}, [A])
    assert not len(store)


def test_a_level_without_a_new_point_is_stale_long_before_a_counter() -> None:
    limits = Limits(100, 100, idle_ms=60 * MINUTE, level_idle_ms=5 * MINUTE)
    store = SeriesStore(limits)
    apply(store, PointBatch("c", shape("counter"), readings=[Reading(A, 1, 1, TIME, TIME)]), TIME)
    apply(store, read("gauge", (A, 1, 1, 0, TIME), (B, 1, 2, 0, TIME)), TIME)
    blocks = tick(store, TIME)
    store = successor(limits, blocks, TIME)
    apply(store, read("gauge", (B, 2, 2, 0, TIME + 1)), TIME)
    blocks = tick(store, TIME + 5 * MINUTE)
    assert [(block.metric, rows([block]), block.stale) for block in blocks] == [("c", {A: 1}, []), ("m", {B: 2}, [A])]


def test_a_sum_of_deltas_that_may_fall_stays_while_nothing_changes() -> None:
    """What its rows have is nowhere else: coming back it would begin at zero."""
    store = SeriesStore(Limits(100, 100, idle_ms=60 * MINUTE, level_idle_ms=5 * MINUTE))
    apply(store, counted("sum", (A, 10)), TIME)
    tick(store, TIME)
    assert rows(tick(store, TIME + 30 * MINUTE)) == {A: 10}
    apply(store, counted("sum", (A, -1)), TIME)
    assert rows(tick(store, TIME + 31 * MINUTE)) == {A: 9}
    assert stale(tick(store, TIME + 92 * MINUTE)) == [A]


@pytest.mark.parametrize("kind", ["gauge", "counter"])
def test_a_clock_that_was_ahead_holds_nothing_up_once_it_is_right(kind: Kind) -> None:
    store = SeriesStore(Limits(100, 100))
    for ahead, now, value in ((180, 0, 1), (0, 2, 5), (0, 3, 7)):
        at = TIME + now * MINUTE
        apply(store, read(kind, (A, value, 1, TIME, at + ahead * MINUTE)), at)
    assert rows(tick(store, TIME + 4 * MINUTE)) == {A: 7}
    assert not store.dropped()


def test_a_sum_that_may_fall_loses_what_a_silent_source_had() -> None:
    """Two sources of one label set, as connections of two processes: one dies."""
    store = SeriesStore(Limits(100, 100, level_idle_ms=5 * MINUTE))
    apply(store, read("sum", (A, 10, 1, 0, TIME), (A, 4, 2, 0, TIME)), TIME)
    assert rows(tick(store, TIME)) == {A: 14}
    apply(store, read("sum", (A, 3, 2, 0, TIME + 1)), TIME)
    assert rows(tick(store, TIME + MINUTE)) == {A: 13}
    apply(store, read("sum", (A, 5, 2, 0, TIME + 2)), TIME)
    assert rows(tick(store, TIME + 5 * MINUTE)) == {A: 5}


def test_a_series_that_ends_and_comes_back_before_a_tick_never_ended() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, read("histogram", (A, HistogramValue(1, 1.0, (1, 0)), 1, TIME, TIME), bounds=(2.0,)), TIME)
    tick(store, TIME + 1)
    apply(store, read("histogram", (A, None, 1, TIME, TIME + 2), bounds=(2.0,)), TIME)
    again = HistogramValue(2, 1.0, (1, 0, 1))
    apply(store, read("histogram", (A, again, 2, TIME, TIME + 3), bounds=(1.0, 2.0)), TIME)
    (block,) = tick(store, TIME + 4)
    assert (block.shape.bounds, block.rows, block.stale) == ((2.0,), [(A, HistogramValue(2, 1.0, (1, 1)))], [])


def test_gauges_over_the_limit_are_refused_and_counted_and_those_that_are_there_go_on() -> None:
    """Several gauges have no sum: an overflow series would show a number that nobody measured."""
    store = SeriesStore(Limits(100, 1))
    apply(store, read("gauge", (A, 1, 1, 0, TIME)), TIME)
    apply(store, read("gauge", (A, 2, 1, 0, TIME + 1), (B, 7, 2, 0, TIME)), TIME)
    assert store.dropped() == {Reason.OVER_LIMIT: 1}
    (block,) = tick(store, TIME + 2)
    assert block.rows == [(A, 2)]
    state = {limit.label: limit for limit in block.limits}["route"]
    assert (state.active, state.demand, state.folded, state.offenders) == (1, 2, 1, (("/b", 1),))


def test_a_summary_that_folds_keeps_its_counts_and_loses_its_quantiles() -> None:
    store = SeriesStore(Limits(100, 1))
    for number, labels in enumerate((A, B)):
        value = SummaryValue(3, 1.5, (0.25, 0.5))
        apply(store, read("summary", (labels, value, number, TIME, TIME), bounds=(0.5, 0.9)), TIME)
    found = rows(tick(store, TIME + 1))
    assert found[A] == SummaryValue(3, 1.5, (0.25, 0.5))
    folded = found["shop", OVERFLOW, OVERFLOW]
    assert isinstance(folded, SummaryValue)
    assert (folded.observations, folded.sum) == (3, 1.5)


def test_more_sources_than_are_remembered_are_refused_and_counted() -> None:
    store = SeriesStore(Limits(100, 100, sources=2))
    apply(store, read("counter", *((A, 1, number, TIME - 1, TIME) for number in range(5))), TIME)
    assert store.dropped() == {Reason.OVER_LIMIT: 3}
    assert rows(tick(store, TIME + 1)) == {A: 2}


def test_metrics_beyond_their_number_are_refused_and_counted_until_one_ends() -> None:
    own = Shape("counter", NAMES)
    limits = Limits(100, 100, idle_ms=HOUR, names=3)
    store = SeriesStore(limits, {"calls": own})

    def some(name: str, shape: Shape, count: int) -> None:
        batch = PointBatch(name, shape, 0)
        batch.rows += [(A, 1), (B, 1)][:count]
        apply(store, batch, TIME)

    for name in ("a", "b", "c", "d", "e", "a"):
        some(name, own._replace(open=True), 2)
    assert store.dropped() == {Reason.TOO_MANY_METRICS: 4}
    assert store.dropped() == {}
    assert store.without_place == "e"
    some("calls", own, 1)
    loaded = SeriesStore(Limits(100, 100, idle_ms=HOUR, names=1), {"calls": own})
    loaded.load(store.blocks(TIME + 1), TIME + 1)
    assert sorted(loaded.active()) == ["a", "b", "c", "calls"], (
        "what was taken in once stays, whatever the limit is now"
    )
    store.blocks(TIME + 1 + HOUR)
    some("d", own._replace(open=True), 1)
    assert store.dropped() == {}
    assert sorted(store.active()) == ["d"]


def test_a_target_has_one_row_of_info() -> None:
    """A deployment changes a resource attribute: the old row ends with the tick in which the new one begins."""
    store = SeriesStore(Limits(100, 100))
    old, new = ("shop", "1", "v1"), ("shop", "1", "v2")
    apply(store, read("info", (old, 1, 1, 0, TIME), (("shop", "2", "v1"), 1, 2, 0, TIME)), TIME)
    tick(store, TIME + 1)
    apply(store, read("info", (new, 1, 1, 0, TIME + 2)), TIME)
    blocks = tick(store, TIME + 3)
    assert (rows(blocks), stale(blocks)) == ({("shop", "2", "v1"): 1, new: 1}, [old])


def test_labels_are_added_as_they_come_up_to_a_limit() -> None:
    """Attribute keys that are data: what does not fit is counted for its service, and nothing is lost."""
    store = SeriesStore(Limits(100, 100))
    for number in range(MOST_LABELS):
        names = ("job", "instance", f"l{number}")
        apply(store, read("counter", (A, 1, number, TIME - 1, TIME), names=names), TIME)
    blocks = tick(store, TIME + 1)
    assert {len(block.shape.label_names) for block in blocks} == {MOST_LABELS}
    assert sum(map(observations, rows(blocks).values())) == MOST_LABELS
    overflow = {labels: value for labels, value in rows(blocks).items() if OVERFLOW in labels}
    assert [(labels[:2], value) for labels, value in overflow.items()] == [(("shop", OVERFLOW), 2)]


def test_label_names_that_no_series_has_any_more_make_room() -> None:
    """A deployment with data in its attribute keys took all of them for as long as one series of the metric lived."""
    store = SeriesStore(Limits(1000, 1000, level_idle_ms=5 * MINUTE))
    bad = tuple(f"user_{number}" for number in range(1, MOST_LABELS))
    apply(store, read("gauge", (("a", *"x" * len(bad)), 1.0, 1, 0, TIME), names=("job", *bad)), TIME)
    new = ("job", "zone")
    for minute in range(8):
        time = TIME + minute * MINUTE
        apply(store, read("gauge", (("other",), 1.0, 2, 0, time), names=("job",)), time)
        apply(store, read("gauge", (("shop", "z"), 1.0, 3, 0, time), names=new), time)
        blocks = tick(store, time)
    assert store.dropped() == {Reason.OVER_LIMIT: 6}
    (block,) = blocks
    assert (block.shape.label_names, block.rows) == (new, [(("other", ""), 1.0), (("shop", "z"), 1.0)])


named = st.tuples(st.sampled_from("ab"), st.dictionaries(st.sampled_from("pqrstu"), st.sampled_from("xy"), max_size=3))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["counter", "histogram"]),
    st.lists(st.tuples(named, st.booleans(), st.integers(1, 9), st.sampled_from([0, 0, 1, 3])), max_size=25),
    st.integers(4, 40),
    st.integers(0, 3),
    st.integers(2, 4),
)
def test_prometheus_sees_all_that_was_counted_whichever_label_names_come_and_go(
    kind: Kind,
    schedule: list[tuple[tuple[str, dict[str, str]], bool, int, int]],
    budget: int,
    values: int,
    most: int,
) -> None:
    """Deltas and readings; after some of them a tick, so many minutes later."""
    limits = Limits(budget, values, idle_ms=3 * MINUTE)
    totals: dict[tuple[str, ...], tuple[int, int, Value, int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processors.family.MOST_LABELS", most)
        store, time, last, seen, counts = SeriesStore(limits), TIME, TIME - 1, Seen(), 0
        for (job, more), delta, number, minutes in [*schedule, (("a", {}), True, 1, 1)]:
            time += 1
            names, labels = ("job", *more), (job, *more.values())
            bounds = BOUNDS[len(more) % 3] if kind == "histogram" else ()
            one = value_of(kind, bounds, number)
            counts += number
            if delta:
                apply(store, PointBatch("m", shape(kind, names, bounds), rows=[(labels, one)]), time)
            else:
                key = (*names, *labels)
                source, start, before, newest = totals.get(key, (len(totals), 0, one, 0))
                goes_on = time - newest < 2 * MINUTE  # one that was silent is another run
                totals[key] = source, start if goes_on else time, plus(before, one) if goes_on else one, time
                source, start, total, _ = totals[key]
                reading = labels, total, source, start, time + 1
                apply(store, read(kind, reading, names=names, bounds=bounds), time)
            if minutes:
                time += minutes * MINUTE
                seen.take(tick(store, time), last, time)
                last = time
                (family,) = store._families.values() or [None]
                assert family is None or family.limiter.admitted == family.rows.keys()
                assert sum(store.active().values()) <= max(budget, 5)
    assert seen.increase() == counts


def test_a_name_has_one_kind_and_a_span_metric_is_not_to_be_mixed_up() -> None:
    spans = Shape("counter", ("service_name",), (), 1)
    store = SeriesStore(Limits(100, 100), {"calls_total": spans})
    apply(store, read("gauge", (A, 1, 1, 0, TIME)), TIME)
    with pytest.raises(Malformed, match="m is a gauge, a batch says counter"):
        apply(store, read("counter", (A, 1, 1, 0, TIME)), TIME)
    with pytest.raises(Malformed, match="m is a gauge, a batch says exponential"):
        apply(store, read("exponential", (A, value_of("exponential", (), 1), 1, 0, TIME)), TIME)
    with pytest.raises(Malformed, match="calls_total is a counter of span metrics"):
        apply(store, PointBatch("calls_total", shape("counter"), rows=[(A, 1)]), TIME)


def test_a_metric_from_outside_gives_way_to_a_span_metric_that_has_its_name_by_now() -> None:
    """`span_metrics.namespace` was changed, and a tick holds another metric: it ends, and the role goes on."""
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 3, 1, 0, TIME)), TIME)
    loaded = SeriesStore(Limits(100, 100), {"m": Shape("counter", ("service_name",), (), 1)})
    loaded.load(tick(store, TIME), TIME)
    told = tick(loaded, TIME + 1)
    assert (rows(told), stale(told)) == ({}, [A])


def test_label_sets_of_different_cost_are_all_there_after_a_restart() -> None:
    """Though a tick has them by their bounds, not in the order in which they were admitted."""
    limits = Limits(16, 100)
    store = SeriesStore(limits)
    for number, bounds in enumerate(((0.5, 0.9), (0.5,), (0.5, 0.9))):
        value = SummaryValue(1, 1.0, (1.0,) * len(bounds))
        apply(store, read("summary", (("shop", "", str(number)), value, number, TIME, TIME), bounds=bounds), TIME)
    before = tick(store, TIME + 1)
    store = successor(limits, before, TIME + 1)
    after = tick(store, TIME + 2)
    assert len(rows(before)) == 3
    assert (rows(after), stale(after)) == (rows(before), [])


def test_a_row_that_stands_for_several_lives_as_long_as_the_youngest_of_its_sources() -> None:
    """After a restart with a lower limit, in whatever order the label sets are loaded."""
    limits = Limits(10, 10, idle_ms=5 * MINUTE)
    store = SeriesStore(limits)
    x, y = ("shop", "", "x"), ("shop", "", "y")
    apply(store, read("counter", (x, 1.0, 1, TIME, TIME), (y, 1.0, 2, TIME, TIME)), TIME)
    tick(store, TIME)
    apply(store, read("counter", (x, 2.0, 1, TIME, TIME + 1)), TIME + 1)
    before = tick(store, TIME + 3 * MINUTE)
    store = successor(replace(limits, series=1), before, TIME + 3 * MINUTE)
    assert rows(tick(store, TIME + 6 * MINUTE)) == {(OVERFLOW,) * 3: 0.0}
    apply(store, read("counter", (x, 5.0, 1, TIME, TIME + 2)), TIME + 2)
    assert rows(tick(store, TIME + 7 * MINUTE)) == {(OVERFLOW,) * 3: 3.0}
    assert not rows(tick(store, TIME + 13 * MINUTE))


def test_classic_and_exponential_histograms_may_share_a_name() -> None:
    store = SeriesStore(Limits(100, 100))
    for kind in ("histogram", "exponential"):
        apply(store, counted(kind, (A, value_of(kind, (), 4))), TIME)
    assert [(block.shape.kind, len(block.rows)) for block in tick(store, TIME)] == [
        ("histogram", 1),
        ("exponential", 1),
    ]


def test_every_histogram_has_the_bounds_that_it_began_with() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, counted("histogram", (A, HistogramValue(3, 1.0, (1, 2))), bounds=(5.0,)), TIME)
    apply(store, counted("histogram", (B, HistogramValue(2, 1.0, (1, 0, 1))), bounds=(1.0, 9.0)), TIME)
    blocks = {block.shape.bounds: block.rows for block in tick(store, TIME)}
    assert blocks == {
        (5.0,): [(A, HistogramValue(3, 1.0, (1, 2)))],
        (1.0, 9.0): [(B, HistogramValue(2, 1.0, (1, 0, 1)))],
    }


@pytest.mark.parametrize("kind", ["histogram", "summary"])
def test_no_recorded_value_ends_a_source_though_it_lacks_the_bounds(kind: Kind) -> None:
    """They are part of the source's number. Of several that share the labels nobody knows which one it is."""
    for several in (False, True):
        store = SeriesStore(Limits(1000, 1000))
        bounds, labels = (0.5, 0.9), ("shop", "a", "/")
        for source in (1, 2) if several else (1,):
            value = value_of(kind, bounds, 3)
            apply(store, read(kind, (labels, value, source, TIME, TIME), bounds=bounds), TIME)
        assert labels in rows(tick(store, TIME))
        apply(store, read(kind, (labels, None, 7, TIME, TIME + 1)), TIME + 1)
        blocks = tick(store, TIME + 2)
        assert (labels in rows(blocks), labels in stale(blocks)) == (several, not several)


told_bounds = st.tuples(st.sampled_from(BOUNDS), st.integers(0, 9), st.sampled_from(["", "tick", "take over"]))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["histogram", "summary"]),
    st.lists(told_bounds, max_size=12),
    st.sampled_from([TIME, TIME - 2 * HOUR]),
)
def test_a_process_is_counted_once_whichever_bounds_it_is_told_with(
    kind: Kind, schedule: list[tuple[tuple[float, ...], int, str]], start: int
) -> None:
    """Something on its way merges buckets from now on, or one of two gateways does: bounds are part of its number."""
    limits = Limits(1000, 100, idle_ms=HOUR)
    store, seen, time, last = SeriesStore(limits), Seen(), TIME, TIME
    observed: list[float] = []
    for bounds, number, after in [*schedule, ((2.0,), 1, "tick")]:
        time += MINUTE // 10
        observed += [float(number)] * (number + 1)
        if kind == "histogram":
            edges = (float("-inf"), *bounds, float("inf"))
            buckets = tuple(sum(low < one <= high for one in observed) for low, high in itertools.pairwise(edges))
            value: Value = HistogramValue(len(observed), sum(observed), buckets)
        else:
            value = SummaryValue(len(observed), sum(observed), (1.0,) * len(bounds))
        for late in (0, 1):  # what is sent again is not counted again
            one = (A, value, 10 + len(bounds), start, time - late, 20 + len(bounds), 7)
            apply(store, read(kind, one, bounds=bounds), time)
        if after:
            blocks = tick(store, time)
            seen.take(blocks, last, time)
            last = time
        if after == "take over":
            store = successor(limits, blocks, time)
    (block,) = blocks
    ((_, found),) = block.rows
    assert len(block.sources) == 1
    assert isinstance(found, HistogramValue | SummaryValue)
    if start == TIME:
        assert seen.increase() == found.observations == len(observed)
        assert found.sum == sum(observed)
    if isinstance(found, HistogramValue):
        assert sum(found.buckets) == found.observations


@pytest.mark.parametrize("kind", ["histogram", "summary"])
@pytest.mark.parametrize("others", [(500, 110), (105, 110)], ids=str)
@pytest.mark.parametrize("apart", [0, 1])
def test_a_second_set_with_the_same_labels_and_bounds_is_no_change_of_bounds(
    kind: Kind, others: tuple[int, int], apart: int
) -> None:
    """What tells the two apart is no label: another one has its name, or there are too many."""
    store = SeriesStore(Limits(1000, 100))

    def count(source: int, number: int, time_ms: int) -> None:
        value = HistogramValue(number, 1.0, (number, 0)) if kind == "histogram" else SummaryValue(number, 1.0, (1.0,))
        apply(store, read(kind, (A, value, source, TIME, time_ms, source, 7), bounds=(1.0,)), time_ms)

    count(1, 100, TIME + 1)
    tick(store, TIME + 5)
    count(2, others[0], TIME + 10)
    count(1, others[1], TIME + 10 + apart)
    (found,) = rows(tick(store, TIME + 15)).values()
    assert observations(found) == sum(others)
    if isinstance(found, HistogramValue):
        assert found.buckets == (sum(others), 0)


def test_a_late_reading_with_other_bounds_changes_nothing() -> None:
    """Of one of two gateways: what comes next from the other still goes into its buckets."""
    store = SeriesStore(Limits(1000, 100))
    for source, number, bounds, time_ms in ((1, 100, (1.0, 5.0), 10), (2, 90, (2.0,), 5), (1, 200, (1.0, 5.0), 20)):
        value = HistogramValue(number, 1.0, (number,) + (0,) * len(bounds))
        one = (A, value, source, TIME, TIME + time_ms, source, 7)
        apply(store, read("histogram", one, bounds=bounds), TIME + time_ms)
    (found,) = rows(tick(store, TIME + 30)).values()
    assert isinstance(found, HistogramValue)
    assert found.buckets == (200, 0, 0)


@pytest.mark.parametrize("bounds", [(1.0,), (2.0, 3.0)], ids=str)
@pytest.mark.parametrize("other", [0, 100])
def test_a_new_set_of_an_old_process_counts_whole_though_its_number_changes(
    bounds: tuple[float, ...], other: int
) -> None:
    """Before the tick that would have told it: with its bounds, or with what a gateway adds to its resource."""
    store, seen, last = SeriesStore(Limits(1000, 100, idle_ms=HOUR)), Seen(), TIME
    exports: list[tuple[dict[int, int], tuple[float, ...], int]] = [
        ({1: 100}, (1.0,), 0),
        ({1: 110, 2: 30}, (1.0,), 0),
        ({1: 120, 2: 35}, bounds, other),
        ({1: 130, 2: 40}, bounds, other),
    ]
    for at, (sets, within, added) in enumerate(exports):
        time = TIME + (at + 1) * MINUTE // 6
        for one, number in sets.items():
            value = HistogramValue(number, 1.0, (number,) + (0,) * len(within))
            numbers = one * 10 + len(within) + added, one * 10 + len(within)
            reading = ((*A[:2], f"/{one}"), value, numbers[0], TIME - 24 * HOUR, time, numbers[1], 7)
            apply(store, read("histogram", reading, bounds=within), time)
        if at != 1:
            seen.take(tick(store, time + 1), last, time + 1)
            last = time + 1
    assert seen.increase() == 30 + 40


def test_two_sources_of_one_export_that_differ_by_their_bounds_alone_add_up() -> None:
    """Redaction took out what told them from each other."""
    store = SeriesStore(Limits(1000, 100))
    for at in (1, 2, 3):
        for number, bounds in enumerate(((1.0,), (5.0,)), 1):
            value = HistogramValue(at * number, 1.0, (at * number, 0))
            apply(store, read("histogram", (A, value, number, TIME, TIME + at, 0, 7), bounds=bounds), TIME + at)
    assert [observations(value) for value in rows(tick(store, TIME + 9)).values()] == [9]


@pytest.mark.parametrize("kind", ["counter", "gauge", "sum"])
def test_other_labels_of_a_source_are_another_series(kind: Kind) -> None:
    """`promote_resource_attributes` was changed: nothing was folded, and the old label set ends.

    What a counter had was told under the old one, and must not count once more.
    """
    store = SeriesStore(Limits(100, 100))
    apply(store, read(kind, (("j", "i", "/"), 5.0, 1, TIME, TIME)), TIME)
    assert rows(tick(store, TIME)) == {("j", "i", "/"): 5.0}
    given, value = (7.0, 2.0) if kind == "counter" else (-6.0, -6.0)
    other = read(kind, (("j", "i", "/", "c"), given, 1, TIME, TIME + 1), names=(*NAMES, "x"))
    assert apply(store, other, TIME + 1) == 0.0
    told = tick(store, TIME + 1)
    assert rows(told) == {("j", "i", "/", "c"): value}
    assert stale(told) == [("j", "i", "/", "")]


@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
def test_a_process_of_which_more_is_told_by_now_is_the_same_source(kind: Kind) -> None:
    """Attributes of Kubernetes that come late, and that only one of two gateways adds; a takeover in between."""
    limits = Limits(100, 100)
    store, plain, enriched = SeriesStore(limits), 1, 2
    for at, number in enumerate((plain, enriched, enriched, plain, enriched), 1):
        apply(store, read(kind, (A, value_of(kind, (), 50 * at), number, TIME, TIME + at, 99)), TIME + at)
        blocks = tick(store, TIME + at)
        store = successor(limits, blocks, TIME + at)
        assert [observations(value) for value in rows(blocks).values()] == [50 * at]
    assert sum(len(block.sources) for block in blocks) == 1
    assert not store.dropped()
    apply(store, read(kind, (A, None, plain, TIME, TIME + 6, 99)), TIME + 6)
    assert stale(tick(store, TIME + 6)) == [A]


@pytest.mark.parametrize("kind", ["counter", "sum", "gauge"])
def test_a_target_without_a_start_says_nothing(kind: Kind) -> None:
    """Levels have none, and who scrapes may not know it: two processes would be one."""
    store = SeriesStore(Limits(100, 100))
    for at, values in enumerate(((100.0, 5.0), (103.0, 6.0)), 1):
        pair = [(A, value, number, 0, TIME + at, 99) for number, value in enumerate(values)]
        apply(store, read(kind, *pair), TIME + at)
        tick(store, TIME + at)
    told = {"counter": 104.0, "sum": 109.0, "gauge": 6.0}[kind]
    assert rows(tick(store, TIME + 3)) == {A: told}
    assert not store.dropped()


def test_two_sources_that_were_one_process_are_one_from_now_on() -> None:
    """An older worker took them for two, and both are in the tick."""
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 100.0, 1, TIME, TIME + 1), (A, 100.0, 2, TIME, TIME + 1)), TIME)
    for at, number in enumerate((1, 2, 1, 2), 2):
        apply(store, read("counter", (A, 100.0 + 10 * at, number, TIME, TIME + at, 99)), TIME)
    assert rows(tick(store, TIME + 9)) == {A: 250.0}
    assert len(store.blocks(TIME + 10)[0].sources) == 1


@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
@pytest.mark.parametrize("apart", [0, 5, 7_000], ids=["one time", "5 ms apart", "7 s apart"])
@pytest.mark.parametrize("larger", [1, 2])
def test_two_pods_that_share_instance_and_start_are_two(kind: Kind, apart: int, larger: int) -> None:
    """As where a Collector names the node as instance. Both go on after all was silent, whichever comes first."""
    limits = Limits(100, 100)
    store, seen, time = SeriesStore(limits), Seen(), TIME
    pods = [(A, 1, 0), (("j", "i", "/other"), 2, apart)]
    for at in range(1, 9):
        before, time = time, TIME + at * MINUTE
        for labels, number, later in reversed(pods) if at == 6 else pods:
            total = None if at == 5 else total_of(kind, at * (10 if number == larger else 2))
            apply(store, read(kind, (labels, total, number, TIME, time + later, 99)), time + later)
        blocks = tick(store, time + 10_000)
        seen.take(blocks, before + 10_000, time + 10_000)
        if at == 3:
            store = successor(limits, blocks, time + 10_000)
    assert seen.increase() == 8 * 12
    assert not store.dropped()


def test_a_reading_that_is_sent_again_on_another_way_is_of_the_same_source() -> None:
    store = SeriesStore(Limits(100, 100))
    for number in (1, 2, 1):
        apply(store, read("counter", (A, 10, number, TIME - MINUTE, TIME, 99)), TIME)
    assert rows(tick(store, TIME + 1)) == {A: 10}


def test_processes_without_a_target_are_told_apart_by_their_numbers() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 5.0, 1, TIME - 1, TIME), (A, 7.0, 2, TIME - 1, TIME)), TIME)
    apply(store, read("counter", (A, 6.0, 1, TIME - 1, TIME + 1), (A, 9.0, 2, TIME - 1, TIME + 1)), TIME)
    assert rows(tick(store, TIME + 2)) == {A: 15.0}


def test_a_target_is_the_source_that_an_older_worker_knew_by_its_number_alone() -> None:
    """Upgraded and downgraded, one kind of worker after the other: `ingest` and `aggregate` of either."""
    for turns in itertools.product((0, 99), repeat=4):
        store = SeriesStore(Limits(100, 100))
        for at, target in enumerate(turns, 1):
            apply(store, read("counter", (A, 10 * at, 1, TIME, TIME + at, target)), TIME + at)
            blocks = [
                replace(
                    block, sources=[source._replace(target=0) for source in block.sources] if at % 2 else block.sources
                )
                for block in tick(store, TIME + at)
            ]
            store = successor(Limits(100, 100), blocks, TIME + at)
        assert rows(tick(store, TIME + 9)) == {A: 40}


def test_a_process_that_ended_and_comes_back_with_more_told_of_it_goes_on() -> None:
    store = SeriesStore(Limits(100, 100))
    apply(store, read("counter", (A, 5.0, 1, TIME, TIME, 99)), TIME)
    apply(store, read("counter", (A, None, 1, TIME, TIME + 1, 99)), TIME)
    tick(store, TIME + 1)
    tick(store, TIME + 2)
    apply(store, read("counter", (A, 7.0, 2, TIME, TIME + 3, 99)), TIME)
    assert rows(tick(store, TIME + 3)) == {A: 2.0}


def test_a_folded_source_is_not_taken_for_another() -> None:
    store = SeriesStore(Limits(100, 1))
    for time, value in ((TIME, 5.0), (TIME + 1, 9.0)):
        apply(store, read("counter", (("j", "i", "/a"), value, 1, TIME, time)), time)
        apply(store, read("counter", (("j", "i", "/b"), value, 2, TIME, time)), time)
        tick(store, time)
    assert rows(tick(store, TIME + 1)) == {("j", "i", "/a"): 9.0, ("j", "i", OVERFLOW): 9.0}


@pytest.mark.parametrize("kind", ["counter", "sum", "histogram", "exponential", "summary"])
@pytest.mark.parametrize("target", [0, 99])
def test_a_source_that_was_folded_has_its_own_series_when_there_is_room(kind: Kind, target: int) -> None:
    """The limit is raised: what it had counted was told under the overflow series, which stays for those in it."""
    bounds, time, seen = BOUNDS[0] if kind in ("histogram", "summary") else (), TIME, Seen()
    blocks: list[SeriesBlock] = []
    total = {route: value_of(kind, bounds, 0) for route in "abc"}
    for values in (1, 1, 100, 100):
        store = successor(Limits(1000, 100, values_of={("m", "route"): values}), blocks, time)
        time += MINUTE
        for number, route in enumerate(total):
            total[route] = plus(total[route], value_of(kind, bounds, 5))
            one = ("j", "i", route), total[route], number, TIME, time, target and target + number
            assert bool(apply(store, read(kind, one, bounds=bounds), time)) == (route != "a" and values == 1)
        blocks = tick(store, time)
        seen.take(blocks, time - MINUTE, time)
    assert not store.dropped()
    found = {labels[2]: observations(value) for labels, value in rows(blocks).items()}
    assert found == ({"a": 20, "b": 20, "c": 20} if kind == "sum" else {"a": 20, OVERFLOW: 20, "b": 10, "c": 10})
    assert {block.shape.bounds for block in blocks for labels, _ in block.rows if labels[2] != OVERFLOW} == {bounds}
    if kind != "sum":
        assert seen.increase() == 60


def test_a_histogram_that_gets_its_own_series_has_nothing_in_buckets_that_it_never_filled() -> None:
    """It was folded beside others with other bounds: what came with the reading that moves it is told with those."""
    blocks: list[SeriesBlock] = []
    coarse, fine = (5.0, 50.0, 500.0), (1.0, 10.0)
    for at, values in enumerate((1, 1, 100, 100), 1):
        store, time = SeriesStore(Limits(1000, 100, values_of={("m", "route"): values})), TIME + at * MINUTE
        store.load(blocks, time - MINUTE)
        for number, (route, bounds) in enumerate((("a", coarse), ("b", coarse), ("c", fine))):
            fast = HistogramValue(100 * at, 1.0, (100 * at, *[0] * len(bounds)))
            apply(store, read("histogram", (("j", "i", route), fast, number, TIME, time), bounds=bounds), time)
        blocks = tick(store, time)
    (own,) = [value for labels, value in rows(blocks).items() if labels[2] == "c"]
    assert isinstance(own, HistogramValue)
    assert own.buckets == (own.observations, 0, 0)
    assert observations(own) == 100
    assert sum(observations(value) for value in rows(blocks).values()) == 1200


def test_a_place_that_becomes_free_goes_to_a_source_that_was_folded() -> None:
    store = SeriesStore(Limits(100, 1, idle_ms=HOUR))
    for minute, routes in ((0, "ab"), (50, "b"), (60, "b"), (61, "b")):
        time = TIME + minute * MINUTE
        told = [(("j", "i", route), 1.0 + minute, ord(route), TIME, time) for route in routes]
        apply(store, read("counter", *told), time)
        blocks = tick(store, time)
    assert rows(blocks) == {("j", "i", OVERFLOW): 61.0, ("j", "i", "b"): 1.0}


def test_sources_beyond_a_lower_limit_of_theirs_move_all_the_same() -> None:
    blocks: list[SeriesBlock] = []
    for minute, limits in enumerate((Limits(100, 1), Limits(100, 100, sources=1))):
        store, time = SeriesStore(limits), TIME + minute * MINUTE
        store.load(blocks, time)
        told = [(("j", "i", f"/{n}"), 1.0 + minute, n, TIME - 1, time) for n in range(3)]
        apply(store, read("counter", *told), time)
        assert not store.dropped()
        blocks = tick(store, time)
    assert rows(blocks)["j", "i", "/2"] == 1.0


def test_a_reading_beyond_the_budget_may_be_any_number() -> None:
    store = SeriesStore(Limits(100, 1))
    for source, value in ((1, 1.0), (2, 2e19), (3, 1e300)):
        apply(store, read("counter", (("j", "i", f"/{source}"), value, source, TIME - 1, TIME)), TIME)
    assert rows(tick(store, TIME))["j", "i", OVERFLOW] == 2e19 + 1e300


def test_a_folded_histogram_keeps_no_buckets_of_its_sources() -> None:
    """Bounds are the producers' own, and a source is remembered until it is idle."""
    bounds = tuple(map(float, range(1000)))
    store, buckets = SeriesStore(Limits(1, 100)), (1,) * 1001
    for time, times in ((TIME, 1), (TIME + 1, 3)):
        for source in range(5):
            value = HistogramValue(1001 * times, 1.0 * times, tuple(times * count for count in buckets))
            apply(
                store, read("histogram", (("j", "i", f"/{source}"), value, source, TIME - 1, time), bounds=bounds), time
            )
    (block,) = tick(store, TIME + 1)
    assert rows([block]) == {(OVERFLOW,) * 3: HistogramValue(5 * 3 * 1001, 15.0, (5 * 3 * 1001,))}
    assert [len(source.last.buckets) for source in block.sources if isinstance(source.last, HistogramValue)] == [1] * 5


def test_a_source_of_a_tick_with_bounds_of_its_own_goes_on() -> None:
    """Ticks once had what a source had counted within the source's bounds, not its row's."""
    store = SeriesStore(Limits(1, 100))
    value = HistogramValue(2, 1.0, (2, 0))
    apply(store, read("histogram", (("j", "i", "/"), value, 1, TIME, TIME), bounds=(1.0,)), TIME)
    (block,) = tick(store, TIME)
    old = replace(block, sources=[block.sources[0]._replace(last=HistogramValue(2, 1.0, (1, 1, 0)))])
    after = successor(Limits(1, 100), [old], TIME)
    for time, count in ((TIME + HOUR, 4), (TIME + HOUR + 1, 7)):
        later = HistogramValue(count, 1.0, (count, 0))
        apply(after, read("histogram", (("j", "i", "/"), later, 1, TIME, time), bounds=(1.0,)), time)
    (total,) = rows(tick(after, TIME + HOUR + 1)).values()
    assert total == HistogramValue(7, 1.0, (7,))


def test_sources_end_though_series_never_do() -> None:
    """Each run of a producer is one, and there is room for so many."""
    store = SeriesStore(Limits(100, 100, sources=3))
    for run in range(10):
        time = TIME + run * 2 * HOUR
        apply(store, read("counter", (("j", "i", "/"), 7.0, 1, time - 1, time)), time)
        store.blocks(time)
        store.blocks(time + HOUR)
    assert rows(tick(store, TIME + 20 * HOUR)) == {("j", "i", "/"): 70.0}
    assert not store.dropped()


def test_the_end_of_many_unknown_sources_costs_no_look_at_all_of_them() -> None:
    """A rollout says "no recorded value" of thousands of sources at once, under another start time."""
    store = SeriesStore(Limits(1 << 20, 1 << 20))
    number = 20_000
    known = [((f"{n}", "i", "/"), 1.0, n, TIME, TIME) for n in range(number)]
    unknown = [((f"x{n}", "i", "/"), None, number + n, TIME + 1, TIME + 1) for n in range(number)]
    costs = []
    for readings in (known, unknown):
        batch, began = read("counter", *readings), process_time()
        apply(store, batch, TIME)
        costs.append(process_time() - began)
    assert costs[1] < 5 * costs[0]
    ended = read("counter", *[((f"{n}", "i", "/"), None, n, TIME + 1, TIME + 1) for n in range(0, number, 2)])
    store.blocks(TIME)
    apply(store, ended, TIME)
    assert len(store) == number // 2


def test_new_sets_of_many_processes_that_share_them_cost_no_look_at_all_of_them() -> None:
    """Replicas without an instance id. The least of some rounds: Python's garbage may be collected in any of them."""
    number, rounds = 5_000, []
    for _ in range(3):
        store, costs = SeriesStore(Limits(1 << 20, 1 << 20)), []
        for place, labels in enumerate((A, B, A)):
            bounds = BOUNDS[place // 2]
            one = value_of("histogram", bounds, 1)
            told = [(labels, one, place * number + n, TIME - 1, TIME + place, 0, 1 + n) for n in range(number)]
            batch, began = read("histogram", *told, bounds=bounds), process_time()
            apply(store, batch, TIME)
            costs.append(process_time() - began)
        rounds.append(costs)
    first, *others = map(min, zip(*rounds, strict=True))
    assert max(others) < 5 * first
    assert {labels: observations(value) for labels, value in rows(tick(store, TIME + 9)).items()} == {
        A: number,
        B: number,
    }


def test_a_sum_that_ends_before_its_sources_does_not_stop_the_role() -> None:
    """`idle_timeout` may be shorter than `stale_after`."""
    store = SeriesStore(Limits(100, 100, idle_ms=2 * MINUTE, level_idle_ms=5 * MINUTE))
    apply(store, read("sum", (("j", "i", "/"), 5.0, 1, TIME, TIME)), TIME)
    told = {minute: rows(tick(store, TIME + minute * MINUTE)) for minute in range(10)}
    assert [bool(found) for found in told.values()] == [True] * 5 + [False] * 5


@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "it is silent"])
def test_a_young_source_that_comes_back_goes_on(kind: Kind, shared: bool, silent: bool) -> None:
    """As after a scrape that failed, or an exporter that was away: its whole value would be counted once more."""
    store = SeriesStore(Limits(100, 100, idle_ms=0, level_idle_ms=5 * MINUTE))
    own, bounds = ("j", "i", "/"), BOUNDS[1] if kind in ("histogram", "summary") else ()
    values = {number: value_of(kind, bounds, number) for number in (1000, 1050)}
    if shared:
        apply(store, read(kind, (own, value_of(kind, bounds, 1), 2, TIME, TIME), bounds=bounds), TIME)
    apply(store, read(kind, (own, values[1000], 1, TIME, TIME), bounds=bounds), TIME)
    before = observations(rows(tick(store, TIME))[own])
    later = TIME + 10 * MINUTE
    if not silent:
        apply(store, read(kind, (own, None, 1, TIME, later - MINUTE), bounds=bounds), later - MINUTE)
    tick(store, later - MINUTE)
    tick(store, later)
    apply(store, read(kind, (own, values[1050], 1, TIME, later), bounds=bounds), later)
    blocks = tick(store, later)
    after, fresh = observations(rows(blocks)[own]), sum(block.fresh for block in blocks)
    assert after - (0 if fresh else before) == 50


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("kind", ["counter", "histogram", "exponential", "summary"])
def test_what_comes_back_after_a_long_silence_and_counted_nothing_is_no_rise(kind: Kind, processes: int) -> None:
    """The row had the counts of three processes, or of one in two runs: with one of them alone it would have fallen."""
    store, seen, time = SeriesStore(Limits(100, 100, idle_ms=HOUR)), Seen(), TIME
    runs = [(number, TIME - MINUTE) for number in range(processes)] if processes > 1 else [(1, TIME - 9), (1, TIME + 9)]
    for total in (5, 9, 0, 0, 9, 12):
        before, time = time, time + (MINUTE if total else 2 * HOUR)
        for number, start in runs if total else ():
            apply(store, read(kind, (A, total_of(kind, total), number, start, time, 0, 70 + number)), time)
        seen.take(tick(store, time), before, time)
        assert seen.live() == bool(total)
    assert seen.increase() == 12 * len(runs)


@pytest.mark.parametrize("age", [0, 2 * HOUR])
def test_a_late_reading_of_a_source_that_ended_is_superseded(age: int) -> None:
    """What it says was told by newer ones: it is neither a return nor a beginning."""
    store, own = SeriesStore(Limits(100, 100)), ("j", "i", "/")
    start = TIME - age
    apply(store, read("counter", (own, 100.0, 1, start, TIME)), TIME)
    tick(store, TIME)
    apply(store, read("counter", (own, None, 1, start, TIME + 30)), TIME + 30)
    apply(store, read("counter", (own, 80.0, 1, start, TIME - 15)), TIME + 31)
    assert store.dropped() == {Reason.SUPERSEDED: 1}
    told = tick(store, TIME + MINUTE)
    assert (rows(told), stale(told)) == ({}, [own])


def test_no_value_any_more_ends_the_runs_before_as_well() -> None:
    """A process that was started again and then went away: the old run would keep its series for as long as it may."""
    store, own = SeriesStore(Limits(100, 100)), ("j", "i", "/")
    for start, value in ((TIME, 5.0), (TIME + MINUTE, 1.0)):
        apply(store, read("counter", (own, value, 1, start, start)), start)
        tick(store, start)
    apply(store, read("counter", (own, None, 1, TIME + MINUTE, TIME + 2 * MINUTE)), TIME + 2 * MINUTE)
    assert stale(tick(store, TIME + 2 * MINUTE)) == [own]


def test_no_value_any_more_ends_no_later_run() -> None:
    store, own = SeriesStore(Limits(100, 100)), ("j", "i", "/")
    for start, value in ((TIME, 5.0), (TIME + MINUTE, 1.0)):
        apply(store, read("counter", (own, value, 1, start - 1, start)), start)
    apply(store, read("counter", (own, None, 1, TIME - 1, TIME + 2 * MINUTE)), TIME + 2 * MINUTE)
    apply(store, read("counter", (own, 3.0, 1, TIME + MINUTE - 1, TIME + 3 * MINUTE)), TIME + 3 * MINUTE)
    assert rows(tick(store, TIME + 3 * MINUTE)) == {own: 8.0}


@pytest.mark.parametrize("delta", [False, True])
def test_a_folded_summary_has_no_quantiles(delta: bool) -> None:
    """They cannot be merged: those of whoever wrote last would stand for all."""
    store = SeriesStore(Limits(100, 1))
    for number, instance in enumerate("abc"):
        value, labels = SummaryValue(10, 1.0, (float(number),)), ("j", instance, "")
        batch = (
            counted("summary", (labels, value), bounds=(0.5,))
            if delta
            else read("summary", (labels, value, number, TIME - 1, TIME), bounds=(0.5,))
        )
        apply(store, batch, TIME)
    found = {labels: (block.shape.bounds, value) for block in tick(store, TIME) for labels, value in block.rows}
    assert found == {
        ("j", "a", ""): ((0.5,), SummaryValue(10, 1.0, (0.0,))),
        ("j", OVERFLOW, ""): ((), SummaryValue(20, 2.0, ())),
    }


def test_a_target_with_more_names_than_there_is_room_for_is_told_without_them() -> None:
    """Attribute keys that are data, of one resource, would take every other one's `target_info`."""
    store = SeriesStore(Limits(1000, 1000))
    names = tuple(f"n{number}" for number in range(MOST_LABELS))
    apply(store, read("info", (("j", "bad", *["x"] * len(names)), 1.0, 1, 0, TIME), names=(*NAMES[:2], *names)), TIME)
    apply(store, read("info", (("j", "good", "1.2"), 1.0, 2, 0, TIME), names=(*NAMES[:2], "version")), TIME)
    told = tick(store, TIME)
    assert ("j", "good") in {labels[:2] for labels in rows(told)}
    assert store.dropped() == {}
