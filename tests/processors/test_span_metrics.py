from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import span_metrics
from processors.span_metrics import MAX_LABEL_CHARACTERS, SpanMetrics, label_text, span_metric_names
from schemas.errors import ConfigError
from schemas.otlp_scan import AttributeValue
from schemas.point import HistogramValue, PointBatch
from tests.processors.metric_strategies import total
from tests.schemas.rows import SpanScan, columns_of

MS = 1_000_000
KEYS = {b"service.name": 0, b"http.method": 1, b"user": 2}
JAEGER_BUCKETS = (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000)


def span(
    name: bytes = b"GET /",
    kind: int = 2,
    status: int = 0,
    ms: float = 5,
    attributes: tuple[AttributeValue | None, ...] = (None, None, None),
) -> SpanScan:
    start = 1_700_000_000_000_000_000
    return SpanScan(
        b"t" * 16, b"s" * 8, b"", b"", name, kind, start, start + int(ms * MS), status, list(attributes)
    )  # fmt: skip


def counting(*dimensions: str) -> SpanMetrics:
    return SpanMetrics("traces_span_metrics", dimensions, JAEGER_BUCKETS, KEYS)


def add(metrics: SpanMetrics, scan: SpanScan, service: str, resource: Sequence[AttributeValue | None]) -> None:
    """Count one span."""
    columns = columns_of([scan], KEYS)
    metrics.labels.assign(columns, array("I", [0]), [(service, tuple(resource[s] for s in metrics.labels.slots))])
    metrics.add(columns)


def test_names_and_labels_are_those_that_jaeger_queries() -> None:
    metrics = counting("http.method")
    add(metrics, span(status=2, attributes=("cart", "GET", None)), "cart", ["cart", None, None])
    calls, duration = metrics.flush(start_ms=5)
    labels = ("cart", "GET /", "SPAN_KIND_SERVER", "STATUS_CODE_ERROR", "GET")
    assert calls.metric == "traces_span_metrics_calls_total"
    assert duration.metric == "traces_span_metrics_duration_milliseconds"
    assert calls.shape.label_names == ("service_name", "span_name", "span_kind", "status_code", "http_method")
    assert calls.shape.label_names == duration.shape.label_names
    assert calls.rows == [(labels, 1)]
    assert duration.shape.bounds == JAEGER_BUCKETS
    assert duration.shape.series == 19
    assert duration.rows == [(labels, HistogramValue(1, 5.0, (0, 0, 1) + (0,) * 14))]
    assert calls.start_ms == duration.start_ms == 5
    assert metrics.flush() == []


@pytest.mark.parametrize(("ms", "bucket"), [(0, 0), (2, 0), (2.000001, 1), (15000, 15), (15000.000001, 16), (-3, 0)])
def test_a_bound_includes_itself_and_negative_durations_count_as_zero(ms: float, bucket: int) -> None:
    metrics = counting()
    add(metrics, span(ms=ms), "s", [None] * 3)
    value = metrics.flush()[1].rows[0][1]
    assert isinstance(value, HistogramValue)
    assert value.buckets.index(1) == bucket
    assert value.sum == max(ms, 0)


def test_a_dimension_is_taken_from_the_span_then_from_its_resource() -> None:
    metrics = counting("user")
    resource: list[AttributeValue | None] = [None, None, "resource"]
    add(metrics, span(attributes=(None, None, "span")), "s", resource)
    add(metrics, span(), "s", resource)
    add(metrics, span(), "s", [None] * 3)
    assert [row[0][-1] for row in metrics.flush()[0].rows] == ["span", "resource", ""]


def test_values_of_different_types_that_python_calls_equal_stay_apart() -> None:
    metrics = counting("user")
    for value in (True, 1, 1.0, "true", False, 0):
        add(metrics, span(attributes=(None, None, value)), "s", [None] * 3)
    counts: Counter[str] = Counter()
    for labels, number in metrics.flush()[0].rows:  # equal label sets may come in several rows
        counts[labels[-1]] += number  # type: ignore[assignment,operator]
    assert counts == {"true": 2, "1": 2, "false": 1, "0": 1}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (7, "7"),
        (1.5, "1.5"),
        (1e22, "1e+22"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (b"\x00", "AA=="),
        (None, ""),
    ],
)
def test_attributes_as_text(value: AttributeValue | None, text: str) -> None:
    assert label_text(value) == text


def test_names_that_are_no_text_or_too_long_are_cut_and_counted() -> None:
    metrics = counting()
    add(metrics, span(name=b"\xff" + b"x" * 5000, kind=99, status=-1), "s", [None] * 3)
    ((labels, number),) = metrics.flush()[0].rows
    assert labels[1] == "�" + "x" * (MAX_LABEL_CHARACTERS - 1)
    assert labels[2:] == ("SPAN_KIND_UNSPECIFIED", "STATUS_CODE_UNSET")
    assert number == 1


spans = st.builds(
    span,
    name=st.sampled_from([b"a", b"b", b"\xff"]),
    kind=st.integers(-1, 7),
    status=st.integers(0, 3),
    ms=st.integers(-10, 20_000),
    attributes=st.tuples(
        st.none(), st.none(), st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.text(max_size=3))
    ),
)


@given(st.lists(spans, max_size=60), st.sets(st.integers(0, 60)))
def test_every_span_is_counted_once_whenever_it_is_flushed(given_spans: list[SpanScan], flushes: set[int]) -> None:
    metrics = counting("user")
    batches: list[PointBatch] = []
    for turn, scan in enumerate(given_spans):
        if turn in flushes:
            batches += metrics.flush()
        add(metrics, scan, "s", [None] * 3)
    batches += metrics.flush()
    calls = [row for batch in batches if batch.metric.endswith("calls_total") for row in batch.rows]
    durations = [row for batch in batches if batch.metric.endswith("milliseconds") for row in batch.rows]
    assert sum(total(calls)) == len(given_spans)
    by_status = Counter(row[0][3] for row in calls for _ in range(int(row[1])))  # type: ignore[arg-type]
    assert by_status["STATUS_CODE_ERROR"] == sum(scan.status == 2 for scan in given_spans)
    if given_spans:
        observations, milliseconds, *buckets = total(durations)
        assert observations == sum(buckets) == len(given_spans)
        assert milliseconds == sum(max(0, scan.end_ns - scan.start_ns) / MS for scan in given_spans)


def test_a_batch_stays_small_however_many_label_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_metrics, "BATCH_CHARACTERS", 1000)
    metrics = counting("user")
    for user in range(100):
        add(metrics, span(attributes=(None, None, f"user-{user}")), "s", [None] * 3)
    batches = metrics.flush()
    assert len(batches) > 10
    assert sum(len(batch.rows) for batch in batches) == 200


@pytest.mark.parametrize(
    ("dimensions", "buckets", "message"),
    [
        (["http.method", "http_method"], [1], "http_method"),
        (["service.name"], [1], "service_name"),
        (["le"], [1], "'le'"),
        (["..name"], [1], "__name"),
        ([], [], "not be empty"),
        ([], [1, 1], "rise"),
        ([], [0, 1], "positive"),
        ([], [1, float("inf")], "rise"),
    ],
)
def test_settings_that_cannot_be_counted_are_refused(dimensions: list[str], buckets: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        span_metric_names("traces_span_metrics", dimensions, buckets)


def test_a_namespace_with_dots_becomes_underscores() -> None:
    assert span_metric_names("traces.span.metrics", [], [1]).calls == "traces_span_metrics_calls_total"
