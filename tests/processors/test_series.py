"""The sum over a metric's series is what was counted: for any limit, order, restarts and change of configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.series import SeriesStore
from schemas.errors import ProtocolError
from schemas.point import HistogramValue, Labels, PointBatch, Shape, Value
from schemas.sample import SeriesBlock, Tick, read_tick
from tests.processors.metric_strategies import COUNTER, HISTOGRAM, batches, total

budgets = st.integers(HISTOGRAM.series, 150)


def through_a_tick(store: SeriesStore) -> list[SeriesBlock]:
    return read_tick(Tick(1, 1, 1, 1, store.blocks()).encode()).blocks


def rows(store: SeriesStore, metric: str) -> list[tuple[Labels, Value]]:
    return next((block.rows for block in store.blocks() if block.metric == metric and block.rows), [])


def counted(given_batches: list[PointBatch], metric: str) -> list[float]:
    return total([row for batch in given_batches if batch.metric == metric for row in batch.rows])


@given(st.lists(batches(), max_size=12), budgets, st.sets(st.integers(0, 12)))
def test_conserved_within_budget_and_unmoved_by_restarts(
    given_batches: list[PointBatch], budget: int, restarts: set[int]
) -> None:
    store, undisturbed = SeriesStore(budget), SeriesStore(budget)
    live: dict[str, set[Labels]] = {}
    for turn, batch in enumerate(given_batches):
        if turn in restarts:
            blocks = through_a_tick(store)
            store = SeriesStore(budget)
            store.load(blocks)
        assert store.apply(batch) == undisturbed.apply(batch)
        assert all(active <= budget for active in store.active().values())
        now = {labels for labels, _ in rows(store, batch.metric)}
        assert live.get(batch.metric, set()) <= now  # the admitted stay
        live[batch.metric] = now
    blocks = [block for block in store.blocks() if block.rows]
    assert blocks == [block for block in undisturbed.blocks() if block.rows]
    assert not any(block.stale for block in blocks)
    for metric in ("calls_total", "duration"):
        assert total(rows(store, metric)) == counted(given_batches, metric)


@given(st.lists(batches(), max_size=8), budgets, st.randoms(use_true_random=False))
def test_conserved_in_any_order(given_batches: list[PointBatch], budget: int, random: object) -> None:
    shuffled = list(given_batches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    store = SeriesStore(budget)
    for batch in shuffled:
        store.apply(batch)
    for metric in ("calls_total", "duration"):
        assert total(rows(store, metric)) == counted(given_batches, metric)


@given(st.lists(batches(), max_size=8), st.lists(budgets, max_size=4))
def test_conserved_when_the_budget_changes(given_batches: list[PointBatch], budgets: list[int]) -> None:
    store = SeriesStore(1000)
    for batch in given_batches:
        store.apply(batch)
    for budget in budgets:
        before = {m: {labels for labels, _ in rows(store, m)} for m in ("calls_total", "duration")}
        blocks = through_a_tick(store)
        store = SeriesStore(budget)
        store.load(blocks)
        assert all(active <= budget for active in store.active().values())
        told = store.blocks()
        for metric, labels in before.items():
            after = {labels for labels, _ in rows(store, metric)}
            stale = [labels for block in told if block.metric == metric for labels in block.stale]
            assert len(stale) == len(set(stale))
            assert labels - after <= set(stale) <= labels  # every series that ended is told, and none that lives
            assert not set(stale) & after
    for metric in ("calls_total", "duration"):
        assert total(rows(store, metric)) == counted(given_batches, metric)


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


@given(st.lists(histograms_of_any_shape(), min_size=1, max_size=6), histograms_of_any_shape(), st.integers(7, 60))
def test_conserved_when_the_shape_changes(given_batches: list[PointBatch], configured: PointBatch, budget: int) -> None:
    first = SeriesStore(budget)
    for batch in given_batches[:-1]:
        first.apply(batch)
    shape = configured.shape
    store = SeriesStore(budget, {"d": shape})
    store.load(through_a_tick(first))
    store.apply(given_batches[-1])
    (block,) = [b for b in store.blocks() if b.rows]
    assert block.shape == shape
    assert total(block.rows)[:2] == [
        sum(column) for column in zip(*(total(b.rows)[:2] for b in given_batches), strict=True)
    ]
    common = set(shape.bounds).intersection(*(batch.shape.bounds for batch in given_batches))
    for bound in common:
        assert below(block.rows, shape, bound) == sum(below(b.rows, b.shape, bound) for b in given_batches)


def test_a_new_dimension_goes_on_with_the_series_that_lack_it() -> None:
    old = Shape("counter", ("service",), (), 1)
    new = Shape("counter", ("service", "tenant"), (), 1)
    store = SeriesStore(100, {"c": new})
    store.load([SeriesBlock("c", old, [(("cart",), 5)])])
    store.apply(PointBatch("c", new, 0, [(("cart", "a"), 1)]))
    store.apply(PointBatch("c", old, 0, [(("cart",), 2)]))  # from a worker with the old configuration
    assert store.blocks() == [SeriesBlock("c", new, [(("cart", ""), 7), (("cart", "a"), 1)])]


def test_a_dimension_that_is_gone_is_summed_and_its_series_end() -> None:
    old = Shape("counter", ("service", "tenant"), (), 1)
    new = Shape("counter", ("service",), (), 1)
    store = SeriesStore(100, {"c": new})
    store.load([SeriesBlock("c", old, [(("cart", ""), 5), (("cart", "a"), 1), (("cart", "b"), 2)])])
    live = SeriesBlock("c", new, [(("cart",), 8)])
    assert store.blocks() == [live, SeriesBlock("c", old, [], [("cart", "a"), ("cart", "b")])]
    assert store.blocks() == [live]  # told once


def test_a_metric_cannot_become_another_kind() -> None:
    store = SeriesStore(100)
    store.apply(PointBatch("m", COUNTER, 0, [(("a", "b", "", ""), 1)]))
    with pytest.raises(ProtocolError, match="m is a counter"):
        store.apply(PointBatch("m", HISTOGRAM, 0, []))


def test_overflow_is_told_in_observations() -> None:
    store = SeriesStore(HISTOGRAM.series)
    value = HistogramValue(3, 1.5, (1, 1, 1, 0))
    assert store.apply(PointBatch("d", HISTOGRAM, 0, [(("a", "b", "", ""), value)])) == 3
