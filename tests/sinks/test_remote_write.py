"""Ticks as TimeSeries, read back by an independent decoder."""

from __future__ import annotations

import math
from typing import Literal

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.demo.remote_write import decode
from schemas.formats.write_request import Slices
from schemas.point import HistogramValue, Shape, SummaryValue
from schemas.sample import PackedChunk, SeriesBlock, TickChunk, encode_record, find_record
from sinks.remote_write import defect, series_of, write_series
from tests.sinks.building import series_in

NAMES = st.sampled_from(["A", "Z", "_x", "aa", "le2", "service_name", "z"])


def series_as_told(block: SeriesBlock, time_ms: int, since_ms: int = 0) -> list[bytes]:
    """Through the record that a sink gets."""
    chunk = find_record(encode_record(TickChunk(1, time_ms, 0, [block], since_ms)))
    assert isinstance(chunk, PackedChunk)
    (found,) = chunk.blocks
    into = Slices(1, 3, 1000)
    write_series(found, into, chunk.time_ms, chunk.since_ms)
    return [series for _, series in series_in(into)]


def samples(block: SeriesBlock, time_ms: int = 1_000) -> list[tuple[dict[str, str], int, float | None]]:
    body = b"".join(series_as_told(block, time_ms))
    found = decode(bytes(cramjam.snappy.compress_raw(body)))
    return [(dict(sample.labels), sample.time_ms, sample.value) for sample in found]


def names_in_order(series: bytes) -> list[bytes]:
    """The label names of one TimeSeries, as they lie there (all fields shorter than 128 bytes)."""
    names, at = [], 2
    while series[at] == 0x0A:
        names.append(series[at + 4 : at + 4 + series[at + 3]])
        at += 2 + series[at + 1]
    return names


@given(
    st.lists(NAMES, unique=True).flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.text(max_size=4), min_size=len(names), max_size=len(names)))
    ),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
)
def test_a_counter(labels: tuple[list[str], list[str]], value: float, time_ms: int) -> None:
    names, values = labels
    block = SeriesBlock("calls_total", Shape("counter", tuple(names)), [(tuple(values), value)])
    ((found, time, number),) = samples(block, time_ms)
    given_labels = dict(zip(names, values, strict=True))
    assert found == {"__name__": "calls_total"} | {name: text for name, text in given_labels.items() if text}
    assert time == time_ms
    assert number == value or value != value
    (series,) = series_as_told(block, time_ms)
    assert names_in_order(series) == sorted(names_in_order(series))


@pytest.mark.parametrize("kind", ["histogram", "summary"])
def test_a_bound_has_no_exponent(kind: Literal["histogram", "summary"]) -> None:
    shape = Shape(kind, (), (1e-7, 1e-05, 0.005, 1.0, 1e16, 1e22))
    told = [bound for _, bound in series_of("ms", shape) if bound not in ("", "+Inf")]
    assert told == ["0.0000001", "0.00001", "0.005", "1", "10000000000000000", "10000000000000000000000"]


def test_a_histogram() -> None:
    shape = Shape("histogram", ("service",), (2.0, 2.5, 10.0))
    value = HistogramValue(10, 12.5, (1, 2, 3, 4))
    found = samples(SeriesBlock("ms", shape, [(("cart",), value)]))
    assert [(labels["__name__"], labels.get("le"), number) for labels, _, number in found] == [
        ("ms_bucket", "2", 1),
        ("ms_bucket", "2.5", 3),
        ("ms_bucket", "10", 6),
        ("ms_bucket", "+Inf", 10),
        ("ms_sum", None, 12.5),
        ("ms_count", None, 10),
    ]
    assert all(labels["service"] == "cart" for labels, _, _ in found)
    assert len(series_of("ms", shape)) == shape.series


def test_a_sum_that_nobody_told_has_no_sample() -> None:
    shape = Shape("histogram", ("service",), (2.0,))
    found = samples(SeriesBlock("ms", shape, [(("cart",), HistogramValue(3, math.nan, (1, 2)))]))
    assert [labels["__name__"] for labels, _, _ in found] == ["ms_bucket", "ms_bucket", "ms_count"]


@pytest.mark.parametrize("value", [HistogramValue(3, math.nan, (1, 2)), SummaryValue(3, math.nan, (4.0,))])
def test_a_sum_that_nobody_told_has_no_zero_to_begin_with(value: HistogramValue | SummaryValue) -> None:
    shape = Shape("histogram" if isinstance(value, HistogramValue) else "summary", ("service",), (2.0,), 1, True)
    known = (("pay",), value._replace(sum=7.0))
    block = SeriesBlock("ms", shape, [known, (("cart",), value), known], fresh=2)
    body = b"".join(series_as_told(block, 2_000, 1_000))
    told = [(dict(s.labels), s.time_ms, s.value) for s in decode(bytes(cramjam.snappy.compress_raw(body)))]
    sums = [(labels["service"], time, number) for labels, time, number in told if labels["__name__"] == "ms_sum"]
    assert sums == [("pay", 1_001, 0), ("pay", 2_000, 7), ("pay", 2_000, 7)]
    counts = [(labels["service"], time, number) for labels, time, number in told if labels["__name__"] == "ms_count"]
    assert counts == [("cart", 1_001, 0), ("pay", 1_001, 0), ("pay", 2_000, 3), ("cart", 2_000, 3), ("pay", 2_000, 3)]


def test_a_summary_begins_with_its_counts_and_not_with_its_quantiles() -> None:
    shape = Shape("summary", ("service",), (0.5, 1.0), 1, True)
    block = SeriesBlock("ms", shape, [(("cart",), SummaryValue(3, 12.5, (4.0, 6.0)))], fresh=1)
    body = b"".join(series_as_told(block, 2_000, 1_000))
    found = decode(bytes(cramjam.snappy.compress_raw(body)))
    assert [
        (labels["__name__"], labels.get("quantile"), sample.time_ms, sample.value)
        for sample in found
        if (labels := dict(sample.labels))
    ] == [
        ("ms_sum", None, 1_001, 0),
        ("ms_count", None, 1_001, 0),
        ("ms", "0.5", 2_000, 4.0),
        ("ms", "1", 2_000, 6.0),
        ("ms_sum", None, 2_000, 12.5),
        ("ms_count", None, 2_000, 3),
    ]
    assert len(series_of("ms", shape)) == shape.series


def test_series_that_end() -> None:
    shape = Shape("histogram", ("service",), (1.0,))
    found = samples(SeriesBlock("ms", shape, [], [("cart",)]))
    assert [number for _, _, number in found] == [None] * shape.series


@pytest.mark.parametrize(
    ("metric", "kind", "names", "text"),
    [
        ("a:b_1", "counter", ("x", "_y"), ""),
        ("a.b ü", "counter", ("x.y", "ü"), ""),
        ("", "counter", (), "'' is not a name"),
        ("a", "counter", ("",), "'' is not a name"),
        ("a", "counter", ("\ud800",), "'\\ud800' is not a name"),
        ("a", "counter", ("x", "x"), "label 'x' occurs twice"),
        ("a", "counter", ("__name__",), "label '__name__' occurs twice"),
        ("a", "counter", ("le",), ""),
        ("a", "histogram", ("le",), "label 'le' occurs twice"),
        ("a", "summary", ("quantile",), "label 'quantile' occurs twice"),
    ],
)
def test_what_prometheus_would_drop_without_a_word(metric: str, kind: str, names: tuple[str, ...], text: str) -> None:
    assert defect(metric, Shape(kind, names, (1.0,) if kind == "histogram" else ())) == text  # type: ignore[arg-type]
