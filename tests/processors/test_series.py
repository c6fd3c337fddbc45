"""The sum over a metric's series is what was counted: for any limit, order, restarts and change of configuration."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.cardinality import OVERFLOW, Limits
from processors.series import SeriesStore
from schemas.errors import ProtocolError
from schemas.point import HistogramValue, Labels, PackedBatch, PointBatch, Shape, Value, encode_labels
from schemas.sample import SeriesBlock, Tick, read_tick
from tests.processors.metric_strategies import COUNTER, HISTOGRAM, Seen, apply, batches, total

TIME = 1_700_000_000_000
COUNTED = ("calls_total", "duration")
budgets = st.integers(HISTOGRAM.series, 150)


def limits(series: int) -> Limits:
    return Limits(series, 1000, idle_ms=0)


def through_a_tick(store: SeriesStore) -> list[SeriesBlock]:
    return read_tick(Tick(1, 1, 1, 1, store.blocks(TIME)).encode()).blocks


def rows(store: SeriesStore, metric: str) -> list[tuple[Labels, Value]]:
    return next((block.rows for block in store.blocks(TIME) if block.metric == metric and block.rows), [])


def counted(given_batches: list[PointBatch], metric: str) -> list[float]:
    return total([row for batch in given_batches if batch.metric == metric for row in batch.rows])


steps = st.lists(st.tuples(batches(), st.sampled_from([0, 1, 15, 60, 400]), st.booleans()), max_size=15)


@settings(max_examples=200)
@given(steps, budgets, st.integers(0, 4), st.sampled_from([0, 60, 100]))
def test_whatever_the_limits_ages_and_restarts_every_count_is_told_once(
    schedule: list[tuple[PointBatch, int, bool]], budget: int, values: int, idle_ms: int
) -> None:
    """Each step: count a batch; after a while of ms (0: none) a tick, after which the owner may change."""
    config = Limits(budget, values, {"calls_total": budget + 3}, {("", "path"): values + 2}, idle_ms)
    store, undisturbed = SeriesStore(config), SeriesStore(config)
    told: dict[str, dict[Labels, list[float]]] = {"calls_total": {}, "duration": {}}
    deltas: dict[str, list[float]] = {"calls_total": [], "duration": []}
    counted_at: dict[tuple[str, Labels], int] = {}
    time = TIME
    done: list[PointBatch] = []
    for batch, ms, restart in [*schedule, (PointBatch("calls_total", COUNTER), 1, True)]:
        overflow = apply(store, batch)
        assert overflow == apply(undisturbed, batch)
        done.append(batch)
        if not ms:
            continue
        time += ms
        tick = read_tick(Tick(1, time, 1, 1, store.blocks(time)).encode())
        assert [_comparable(block) for block in tick.blocks] == [_comparable(b) for b in undisturbed.blocks(time)]
        for block in tick.blocks:
            series = told[block.metric]
            for labels in block.stale:
                del series[labels]  # KeyError: it was never there, or ended before
            fresh = {labels for labels, _ in block.rows[len(block.rows) - block.fresh :]}
            assert fresh == {labels for labels, _ in block.rows} - series.keys()
            assert series.keys() <= {
                labels for labels, _ in block.rows
            }  # what is admitted stays until it is told stale
            for labels, value in block.rows:
                now = total([(labels, value)])
                before = series.get(labels, [0.0] * len(now))
                assert now[0] >= before[0]
                deltas[block.metric].extend([0.0] * (len(now) - len(deltas[block.metric])))
                deltas[block.metric] = [d + b - a for d, a, b in zip(deltas[block.metric], before, now, strict=True)]
                series[labels] = now
            _within(block, config)
            for (labels, _), idle in zip(block.rows, block.idle or [0] * len(block.rows), strict=True):
                assert not idle_ms or idle < idle_ms
                assert counted_at.setdefault((block.metric, labels), time) <= time - idle
        if restart:
            store = SeriesStore(config)
            store.load(tick.blocks, time)
    for metric, delta in deltas.items():
        assert delta == counted(done, metric) or not any(delta + counted(done, metric))


spelled = st.permutations(["service_name", "span_name", "tenant", "path"]).map(tuple)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(batches(), spelled, st.booleans(), st.sampled_from([0, 1, 60, 400])),
        max_size=12,
    ),
    budgets,
    st.integers(0, 4),
    st.sampled_from([0, 60]),
)
def test_what_stays_packed_is_counted_like_what_is_unpacked(
    schedule: list[tuple[PointBatch, tuple[str, ...], bool, int]], budget: int, values: int, idle_ms: int
) -> None:
    """Whatever folds, ends and comes back, in whatever order the labels are spelled, in closed and in open shapes."""
    config = Limits(budget, values, {}, {("", "path"): values + 2}, idle_ms)
    unpacked, packed = SeriesStore(config), SeriesStore(config)
    time = TIME
    for batch, names, is_open, ms in schedule:
        batch.metric += "_open" * is_open
        batch.shape = batch.shape._replace(label_names=names, open=is_open)
        for _ in range(2):
            assert apply(packed, batch) == without_memory(unpacked, batch)
        if ms:
            time += ms
            _told_alike(packed, unpacked, time)
    _told_alike(packed, unpacked, time + 1)


def without_memory(store: SeriesStore, batch: PointBatch) -> float:
    """Row by row, by a store that knows no label set again; the first batch says the shape though it is empty."""
    overflow = apply(store, replace(batch, rows=[]))
    for row in batch.rows:
        for family in store._families.values():
            family._known = {}
        overflow += apply(store, replace(batch, rows=[row]))
    return overflow


def _told_alike(packed: SeriesStore, unpacked: SeriesStore, time: int) -> None:
    """What a tick writes of label values are bytes that came, or were made once: they must be those of its rows."""
    told = packed.blocks(time)
    assert told == unpacked.blocks(time)
    for block in told:
        assert block.packed == [encode_labels(labels) for labels, _ in block.rows]


def test_a_series_that_ended_is_not_counted_in_what_it_was() -> None:
    store = SeriesStore(Limits(100, 100, idle_ms=60))
    batch = PackedBatch.decode(calls(("cart", "a", 2)).encode())
    for time in (TIME, TIME + 100, TIME + 200):
        store.apply(batch)
        (block,) = store.blocks(time)
        assert (block.rows, block.fresh) == ([(("cart", "a"), 2)], 1)
        (block,) = store.blocks(time + 60)
        assert (block.rows, block.stale) == ([], [("cart", "a")])


def test_what_is_known_of_spellings_is_bounded() -> None:
    store = SeriesStore(Limits(100, 1000))
    for number in range(300):
        names = ("service", f"label_{number % 30}")
        shape = Shape("counter", names, (), 1, open=True)
        apply(store, PointBatch("c", shape, 0, [(("cart", ""), 1)]))
    (family,) = store._families.values()
    assert sum(map(len, family._known.values())) <= 5
    assert total(store.blocks(TIME)[0].rows) == [300]


def test_what_is_known_of_one_spelling_is_bounded() -> None:
    """Label sets come and end: what is remembered of those that ended is forgotten."""
    store = SeriesStore(Limits(100, 10_000, idle_ms=60))
    for number in range(300):
        apply(store, calls(("cart", str(number), 1)))
        store.blocks(TIME + 40 * number)
    (family,) = store._families.values()
    assert len(family.rows) < 5
    assert sum(map(len, family._known.values())) < 30


def test_what_was_folded_goes_on_when_labels_are_added_and_ends_like_any_other() -> None:
    """An open metric over its limit gets a new attribute: one overflow series, which begins at zero with what no tick
    has told, and a marker for what it was before.
    """

    def points(*labels: str, names: tuple[str, ...]) -> PointBatch:
        return PointBatch("c", Shape("counter", names, (), 0, open=True), 0, [(labels, 1)])

    store = SeriesStore(Limits(3, 1000, idle_ms=100))
    for value in "abcdef":
        apply(store, points(value, names=("x",)))
    (block,) = store.blocks(TIME)
    assert ((OVERFLOW,), 4) in block.rows
    apply(store, points("f", names=("x",)))
    apply(store, points("g", "1", names=("x", "y")))
    apply(store, points("h", names=("x",)))
    live, ended = store.blocks(TIME + 50)
    assert (live.rows[-1], live.fresh) == (((OVERFLOW, OVERFLOW), 3), 1)
    assert sum(labels[0] == OVERFLOW for labels, _ in live.rows) == 1
    assert (ended.shape.label_names, ended.stale) == (("x",), [(OVERFLOW,)])
    assert [stale for block in store.blocks(TIME + 500) for stale in block.stale].count((OVERFLOW, OVERFLOW)) == 1
    assert len(store) == 0


def _within(block: SeriesBlock, config: Limits) -> None:
    assert len(block.rows) * block.shape.series <= config.series_of.get(block.metric, config.series)
    for slot, label in enumerate(block.shape.label_names):
        used = {labels[slot] for labels, _ in block.rows} - {"", OVERFLOW}
        state = next(limit for limit in block.limits if limit.label == label)
        assert len(used) == state.active <= state.limit == config.values_of.get(("", label), config.values)
        assert state.demand >= state.active


def _comparable(block: SeriesBlock) -> SeriesBlock:
    """Without the sketches: the same content has several forms."""
    return replace(block, limits=[replace(limit, sketch=()) for limit in block.limits])


@given(st.lists(batches(), max_size=8), budgets, st.randoms(use_true_random=False))
def test_conserved_in_any_order(given_batches: list[PointBatch], budget: int, random: object) -> None:
    shuffled = list(given_batches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    store = SeriesStore(limits(budget))
    for batch in shuffled:
        apply(store, batch)
    for metric in ("calls_total", "duration"):
        assert total(rows(store, metric)) == counted(given_batches, metric)


@given(st.lists(st.tuples(batches(), budgets), max_size=8))
def test_conserved_when_the_budget_changes(schedule: list[tuple[PointBatch, int]]) -> None:
    store, time, seen = SeriesStore(limits(1000)), TIME, Seen()
    for batch, budget in schedule:
        apply(store, batch)
        time += 10
        blocks = store.blocks(time)
        seen.take(blocks, time - 10, time)
        before = {m: {row[0] for block in blocks if block.metric == m for row in block.rows} for m in COUNTED}
        store = SeriesStore(limits(budget))
        store.load(read_tick(Tick(1, time, 1, 1, blocks).encode()).blocks, time)
        assert all(active <= budget for active in store.active().values())
        time += 10
        told = store.blocks(time)
        seen.take(told, time - 10, time)
        for metric, labels in before.items():
            after = {row[0] for block in told if block.metric == metric for row in block.rows}
            stale = [labels for block in told if block.metric == metric for labels in block.stale]
            assert len(stale) == len(set(stale))
            assert labels - after <= set(stale) <= labels  # every series that ended is told, and none that lives
            assert not set(stale) & after
    for metric in COUNTED:
        assert [seen.increase(metric)] == (counted([batch for batch, _ in schedule], metric)[:1] or [0])


label_names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True).map(tuple)
bounds = st.lists(st.sampled_from([1.0, 2.0, 5.0, 10.0]), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def histograms_of_any_shape(draw: st.DrawFn) -> PointBatch:
    shape = Shape("histogram", draw(label_names), draw(bounds), draw(st.integers(0, 1)))
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        counts = tuple(draw(st.lists(st.integers(0, 9), min_size=len(shape.bounds) + 1, max_size=5)))
        counts = counts[: len(shape.bounds) + 1]
        labels = tuple(draw(st.sampled_from(["", "x", "y"])) for _ in shape.label_names)
        drawn.append((labels, HistogramValue(sum(counts), float(sum(counts)), counts)))
    return PointBatch("d", shape, 0, list(drawn))


def below(rows: list[tuple[Labels, Value]], shape: Shape, bound: float) -> int:
    """Observations at or below a bound of the shape."""
    index = shape.bounds.index(bound) + 1
    return sum(sum(value.buckets[:index]) for _, value in rows if isinstance(value, HistogramValue))


def pairs(names: tuple[str, ...], labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset((name, text) for name, text in zip(names, labels, strict=True) if text)


@given(st.lists(histograms_of_any_shape(), min_size=1, max_size=6), histograms_of_any_shape(), st.integers(7, 60))
def test_conserved_when_the_shape_changes(given_batches: list[PointBatch], configured: PointBatch, budget: int) -> None:
    """What Prometheus knows goes on with what it had, all others begin at zero; what comes then is counted."""
    first = SeriesStore(limits(budget))
    *earlier, last = given_batches
    for batch in earlier:
        apply(first, batch)
    shape = configured.shape
    store = SeriesStore(limits(budget), {"d": shape})
    loaded = through_a_tick(first)
    store.load(loaded, TIME)
    before = [row for block in store.blocks(TIME) for row in block.rows]
    had = {pairs(block.shape.label_names, labels): (labels, value) for block in loaded for labels, value in block.rows}
    common = set(shape.bounds).intersection(*(batch.shape.bounds for batch in given_batches))
    for labels, value in before:
        own = [had[found]] if (found := pairs(shape.label_names, labels)) in had else []
        assert total([(labels, value)])[:2] == (total(own)[:2] or [0, 0])
        for bound in common:
            assert below([(labels, value)], shape, bound) == (below(own, loaded[0].shape, bound) if own else 0)
    apply(store, last)
    (block,) = [b for b in store.blocks(TIME + 1) if b.rows]
    assert block.shape == shape
    rise = [now - then for now, then in zip(total(block.rows), total(before) or itertools.repeat(0), strict=False)]
    assert rise[:2] == total(last.rows)[:2]
    for bound in common:
        counted_then = below(before, shape, bound)
        assert below(block.rows, shape, bound) - counted_then == below(last.rows, last.shape, bound)


def test_a_new_dimension_goes_on_with_the_series_that_lack_it() -> None:
    old = Shape("counter", ("service",), (), 1)
    new = Shape("counter", ("service", "tenant"), (), 1)
    store = SeriesStore(limits(100), {"c": new})
    store.load([SeriesBlock("c", old, [(("cart",), 5)])], TIME)
    apply(store, PointBatch("c", new, 0, [(("cart", "a"), 1)]))
    apply(store, PointBatch("c", old, 0, [(("cart",), 2)]))  # from a worker with the old configuration
    (block,) = store.blocks(TIME)
    assert (block.shape, block.rows, block.fresh) == (new, [(("cart", ""), 7), (("cart", "a"), 1)], 1)


def test_a_dimension_that_is_gone_adds_no_history_to_the_series_that_lacked_it() -> None:
    old = Shape("counter", ("service", "tenant"), (), 1)
    new = Shape("counter", ("service",), (), 1)
    store = SeriesStore(limits(100), {"c": new})
    store.load([SeriesBlock("c", old, [(("cart", ""), 5), (("cart", "a"), 1), (("cart", "b"), 2)])], TIME)
    live, ended = store.blocks(TIME)
    assert (live.shape, live.rows, live.fresh) == (new, [(("cart",), 5)], 0)
    assert ended == SeriesBlock("c", old, [], [("cart", "a"), ("cart", "b")])
    assert store.blocks(TIME) == [live]  # told once


def test_a_dimension_that_is_gone_leaves_series_that_begin_at_zero() -> None:
    """In whatever order they come: one that goes on takes its value along, none takes that of another."""
    old = Shape("counter", ("service", "tenant"), (), 1)
    new = Shape("counter", ("service",), (), 1)
    store = SeriesStore(limits(100), {"c": new})
    before: list[tuple[Labels, Value]] = [(("cart", "a"), 1), (("cart", ""), 5), (("pay", "a"), 4), (("pay", "b"), 2)]
    store.load([SeriesBlock("c", old, before)], TIME)
    apply(store, PointBatch("c", new, 0, [(("cart",), 1), (("pay",), 1)]))
    live, _ = store.blocks(TIME)
    assert (live.rows, live.fresh) == ([(("cart",), 6), (("pay",), 1)], 1)


def test_a_metric_cannot_become_another_kind() -> None:
    store = SeriesStore(limits(100))
    apply(store, PointBatch("m", COUNTER, 0, [(("a", "b", "", ""), 1)]))
    with pytest.raises(ProtocolError, match="m is a counter"):
        apply(store, PointBatch("m", HISTOGRAM, 0, []))


def test_overflow_is_told_in_observations() -> None:
    store = SeriesStore(limits(HISTOGRAM.series))
    value = HistogramValue(3, 1.5, (1, 1, 1, 0))
    assert apply(store, PointBatch("d", HISTOGRAM, 0, [(("a", "b", "", ""), value)])) == 3


CALLS = Shape("counter", ("service", "tenant"), (), 1)


def calls(*rows: tuple[str, str, float]) -> PointBatch:
    return PointBatch("c", CALLS, 0, [((service, tenant), number) for service, tenant, number in rows])


def test_only_new_values_overflow_and_only_in_their_label() -> None:
    store = SeriesStore(Limits(100, 10, values_of={("c", "tenant"): 2}))
    assert apply(store, calls(("cart", "a", 1), ("cart", "b", 2))) == 0
    assert apply(store, calls(("cart", "c", 3), ("pay", "d", 4), ("pay", "a", 5))) == 7
    (block,) = store.blocks(TIME)
    assert dict(block.rows) == {
        ("cart", "a"): 1,
        ("cart", "b"): 2,
        ("cart", OVERFLOW): 3,
        ("pay", OVERFLOW): 4,
        ("pay", "a"): 5,
    }
    state = {limit.label: limit for limit in block.limits}["tenant"]
    assert (state.active, state.limit, state.demand, state.folded) == (2, 2, 4, 7)
    assert state.offenders == (("d", 4), ("c", 3))


def test_an_idle_value_ends_once_and_leaves_its_slot_to_another() -> None:
    store = SeriesStore(Limits(100, 1, {}, {}, 60))
    apply(store, calls(("cart", "a", 9), ("cart", "b", 1)))
    store.blocks(TIME)
    apply(store, calls(("cart", "b", 1)))  # the overflow series is in use
    (block,) = store.blocks(TIME + 60)
    assert (block.rows, block.stale) == ([(("cart", OVERFLOW), 2)], [("cart", "a")])
    apply(store, calls(("cart", "b", 1), ("cart", "a", 1)))
    (block,) = store.blocks(TIME + 100)
    assert (block.rows, block.stale, block.fresh) == ([(("cart", OVERFLOW), 3), (("cart", "b"), 1)], [], 1)
    assert [b.stale for b in store.blocks(TIME + 1000)] == [[("cart", OVERFLOW), ("cart", "b")]]
    assert store.blocks(TIME + 2000) == []  # nothing is left of the metric
    assert len(store) == 0


def test_demand_forgets_what_was_refused_two_idle_timeouts_ago() -> None:
    store = SeriesStore(Limits(100, 1, {}, {}, 100))

    def demand(time: int) -> int:
        apply(store, calls(("cart", "a", 1)))
        (block,) = store.blocks(time)
        return {limit.label: limit for limit in block.limits}["tenant"].demand

    apply(store, calls(*(("cart", str(number), 1) for number in range(50))))
    assert 45 <= demand(1000) <= 55
    assert 45 <= demand(1100) <= 55
    assert demand(1200) < 5


def test_memory_stays_flat_however_many_values_come() -> None:
    store = SeriesStore(Limits(2_000, 500))

    def held_after(first: int, last: int) -> int:
        for start in range(first, last, 1_000):
            apply(store, calls(*(("cart", f"tenant-{number}", 1) for number in range(start, start + 1_000))))
        store.blocks(TIME)
        gc.collect()  # what is garbage is not held, whenever it would be collected
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few, many = held_after(0, 5_000), held_after(5_000, 60_000)
    finally:
        tracemalloc.stop()
    assert many < 1.1 * few
