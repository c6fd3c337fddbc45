"""OTLP metrics as points: names and labels, readings and deltas; what is bad leaves alone, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan, nan
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.metric_points import MOST_NAMES, RESOURCE_BYTES, MetricPoints, Naming
from processors.otlp_series import KnownSeries, Series, Stream
from processors.span_metrics import MAX_LABEL_CHARACTERS
from processors.values import observations, plus
from schemas.otlp_check import PointsData
from schemas.point import ExponentialValue, HistogramValue, PointBatch, Reading, SummaryValue
from schemas.prometheus_names import LONGEST_NAME
from schemas.reasons import Reason
from tests.processors.points import MS, NOW, START, message, processor, read, timed
from tests.schemas.rows import attribute

CUMULATIVE, DELTA = 2, 1


def labelled(batch: PointBatch) -> list[dict[str, str]]:
    names = batch.shape.label_names
    rows = [*(labels for labels, _ in batch.rows), *(reading.labels for reading in batch.readings)]
    return [{name: text for name, text in zip(names, labels, strict=True) if text} for labels in rows]


def test_every_kind_with_its_temporality() -> None:
    data, metrics = message()
    timed(metrics.add(name="level").gauge.data_points.add()).as_double = 1.5
    for name, monotonic, temporality in (("a", True, CUMULATIVE), ("b", True, DELTA), ("c", False, CUMULATIVE)):
        total = metrics.add(name=name).sum
        total.is_monotonic, total.aggregation_temporality = monotonic, temporality
        timed(total.data_points.add()).as_int = 4
    histogram = metrics.add(name="d").histogram
    histogram.aggregation_temporality = DELTA
    timed(histogram.data_points.add(count=3, sum=2.5, bucket_counts=[1, 2], explicit_bounds=[5]))
    exponential = metrics.add(name="e").exponential_histogram
    exponential.aggregation_temporality = CUMULATIVE
    point = timed(exponential.data_points.add(count=6, sum=2.5, scale=9, zero_count=1))
    point.positive.offset, point.negative.offset = 3, -1
    point.positive.bucket_counts.extend([1, 1, 1])
    point.negative.bucket_counts.extend([2])
    summary = timed(metrics.add(name="f").summary.data_points.add(count=2, sum=4))
    summary.quantile_values.add(quantile=0.9, value=3)
    summary.quantile_values.add(quantile=0.5, value=1)

    batches, dead = read(data)
    assert not dead
    assert {name: batch.shape.kind for name, batch in batches.items()} == {
        "level": "gauge",
        "a_total": "counter",
        "b_total": "counter",
        "c": "sum",
        "d": "histogram",
        "e": "exponential",
        "f": "summary",
    }
    readings = {name: batch.readings for name, batch in batches.items() if batch.readings}
    values = {name: [(r.value, r.start_ms, r.time_ms) for r in found] for name, found in readings.items()}
    assert values == {
        "level": [(1.5, START, NOW)],
        "a_total": [(4, START, NOW)],
        "c": [(4, START, NOW)],
        "e": [(ExponentialValue(6, 2.5, 8, 1, 0.0, 1, (1, 2), -1, (2,)), START, NOW)],
        "f": [(SummaryValue(2, 4, (1, 3)), START, NOW)],
    }
    assert batches["f"].shape.bounds == (0.5, 0.9)
    assert [value for _, value in batches["b_total"].rows] == [4]
    assert [value for _, value in batches["d"].rows] == [HistogramValue(3, 2.5, (1, 2))]
    assert batches["d"].shape.bounds == (5,)


def test_labels_are_those_of_point_scope_and_resource() -> None:
    resource = {
        "service.name": "cart",
        "service.namespace": "shop",
        "service.instance.id": "i-1",
        "host.name": "h",
        "n": 5,
    }
    data, metrics = message(resource)
    scope = data.resource_metrics[0].scope_metrics[0]
    scope.scope.name, scope.scope.version, scope.schema_url = "lib", "1.2", "http://schema"
    scope.scope.attributes.append(attribute("short.name", "l"))
    point = timed(
        metrics.add(name="g").gauge.data_points.add(as_int=1), **{"http.route": "/", "job": "mine", "empty": ""}
    )
    point.attributes.extend(
        [attribute("a.b", "2"), attribute("a_b", "1"), attribute("flag", True), attribute("x", 2.0)]
    )
    point.attributes.add(key="list").value.array_value.values.extend(
        [AnyValue(int_value=1), AnyValue(string_value="z")]
    )
    nested = KeyValueList(values=[KeyValue(key="k", value=AnyValue(array_value=ArrayValue()))])
    point.attributes.add(key="map", value=AnyValue(kvlist_value=nested))

    batches, dead = read(data, "otlp_proto", Naming(promoted=("host.name", "nobody.has")))
    assert not dead
    assert labelled(batches["g"]) == [
        {
            "job": "shop/cart",  # of the resource, whatever the point says
            "instance": "i-1",
            "http_route": "/",
            "a_b": "2;1",  # in the order of the original keys
            "flag": "true",
            "x": "2",
            "list": '[1,"z"]',
            "map": '{"k":[]}',
            "host_name": "h",
            "otel_scope_name": "lib",
            "otel_scope_version": "1.2",
            "otel_scope_schema_url": "http://schema",
            "otel_scope_short_name": "l",
        }
    ]
    assert batches["g"].shape.label_names[:2] == ("job", "instance")
    assert labelled(batches["target_info"]) == [{"job": "shop/cart", "instance": "i-1", "host_name": "h", "n": "5"}]
    assert [(r.value, r.time_ms) for r in batches["target_info"].readings] == [(1, NOW)]
    assert batches["target_info"].shape[3:] == (2, True)


@pytest.mark.parametrize(
    ("attributes", "labels"),
    [
        ({"a.b": "", "a_b": "2", "b": "", "b.": "1", "b_": ""}, {"a_b": "2", "b_": "1;"}),
        ({"host.name": ""}, {"host_name": "h"}),
        ({"otel_scope_version": "p", "otel_scope_schema_url": "p"}, {"otel_scope_version": "1.2"}),
    ],
    ids=["one that is empty comes first", "one that is empty and promoted", "a scope has no schema URL"],
)
def test_what_is_empty_is_what_prometheus_own_receiver_makes_of_it(
    attributes: dict[str, str], labels: dict[str, str]
) -> None:
    data, metrics = message({"host.name": "h"} if "host.name" in attributes else {})
    data.resource_metrics[0].scope_metrics[0].scope.version = "1.2"
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1), **attributes)
    batches, _ = read(data, "otlp_proto", Naming(promoted=("host.name",)))
    assert labelled(batches["g"]) == [{"otel_scope_version": "1.2"} | labels]


def test_numbers_in_a_list_are_those_of_the_specification() -> None:
    data, metrics = message({})
    values = [AnyValue(double_value=number) for number in (1.0, 2.5, -3.0, 1e21)]
    point = timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    point.attributes.add(key="list", value=AnyValue(array_value=ArrayValue(values=values)))
    assert labelled(read(data)[0]["g"]) == [{"list": "[1,2.5,-3,1e+21]"}]


def test_a_long_label_value_is_cut() -> None:
    data, metrics = message({})
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1), query="x" * 3000)
    assert labelled(read(data)[0]["g"]) == [{"query": "x" * MAX_LABEL_CHARACTERS}]


@pytest.mark.parametrize("resource", [{}, {"service.name": "shop"}, {"host.name": "h"}])
def test_no_target_info_without_a_target_or_anything_to_tell_of_it(resource: dict[str, str]) -> None:
    data, metrics = message(resource)
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    assert list(read(data)[0]) == ["g"]


def test_labels_that_a_kind_needs_for_itself_are_not_taken_from_the_point() -> None:
    data, metrics = message()
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = DELTA
    timed(histogram.data_points.add(sum=0), le="5", __name__="x")
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1), le="5")
    batches, _ = read(data)
    assert [labelled(batches[name])[0].get("le") for name in "hg"] == [None, "5"]
    assert "__name__" not in batches["h"].shape.label_names


Change = Callable[[Any, Any, Any], None]


def sources(change: Change, before: Change = lambda resource, scope, point: None) -> int:
    """How many sources two messages are, when resource, scope and point of the second are changed, and of the first."""
    reader = processor()
    for turn in range(2):
        data, metrics = message({"service.name": "shop", "host.name": "h"})
        total = metrics.add(name="a").sum
        total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
        point = timed(total.data_points.add(as_int=turn), route="/", user="u")
        made = change if turn else before
        made(data.resource_metrics[0].resource, data.resource_metrics[0].scope_metrics[0].scope, point)
        reader.add(turn, NOW, data.SerializeToString())
    return len({r.source for batch in reader.flush().batches if batch.metric == "a_total" for r in batch.readings})


def test_a_source_is_known_by_what_describes_it_in_any_order() -> None:
    assert sources(lambda resource, scope, point: None) == 1
    assert sources(lambda resource, scope, point: point.attributes.reverse()) == 1
    assert sources(lambda resource, scope, point: resource.attributes.reverse()) == 1
    assert sources(lambda resource, scope, point: setattr(point, "time_unix_nano", 1)) == 1
    assert sources(lambda resource, scope, point: resource.attributes.append(attribute("pid", 4))) == 2
    assert sources(lambda resource, scope, point: setattr(scope, "name", "lib")) == 2
    assert sources(lambda resource, scope, point: point.attributes.pop()) == 2


@pytest.mark.parametrize("where", ["resource", "scope", "point"])
def test_a_map_is_the_same_in_any_order(where: str) -> None:
    def told(keys: str) -> Change:
        entries = [attribute(key, key) for key in keys]
        value = AnyValue(array_value=ArrayValue(values=[AnyValue(kvlist_value=KeyValueList(values=entries))]))
        return lambda *parts: parts[["resource", "scope", "point"].index(where)].attributes.append(
            KeyValue(key="map", value=value)
        )

    assert sources(told("ba"), told("ab")) == 1
    assert sources(told("ba"), told("bc")) == 2


INSTANCE = {"service.name": "shop", "service.instance.id": "1"}


@pytest.mark.parametrize(
    ("resource", "numbers", "targets"),
    [
        (INSTANCE, [1, 1], [1, 1]),
        (INSTANCE | {"k8s.pod.name": "p", "k8s.node.name": "n"}, [1, 2], [1, 1]),
        (INSTANCE | {"k8s.volume.name": "v"}, [1, 2], [1, 2]),
        (INSTANCE | {"postgresql.table.name": "orders"}, [1, 2], [1, 2]),
        (INSTANCE | {"service.namespace": "eu"}, [1, 2], [1, 2]),
        (INSTANCE | {"process.pid": "7"}, [1, 2], [1, 2]),
        ({"service.name": "shop"}, [1, 2], [1, 0]),
        ({"service.instance.id": "1", "host.name": "h"}, [1, 2], [1, 0]),
    ],
    ids=["same", "more is told", "a volume", "a table", "another namespace", "a fork", "no instance", "no service"],
)
def test_a_target_is_what_is_always_told_of_a_process(
    resource: dict[str, str], numbers: list[int], targets: list[int]
) -> None:
    reader, found = processor(), []
    for turn, attributes in enumerate((INSTANCE, resource)):
        data, metrics = message(attributes)
        total = metrics.add(name="a").sum
        total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
        timed(total.data_points.add(as_int=turn), route="/")
        timed(total.data_points.add(as_int=turn), route="/b")
        reader.add(turn, NOW, data.SerializeToString())
        (batch,) = [batch for batch in reader.flush().batches if batch.metric == "a_total"]
        found += PointBatch.decode(batch.encode()).readings[:1]
        assert len({(reading.source, reading.target) for reading in batch.readings}) == 2
        assert len({reading.producer for reading in batch.readings}) == 1
    assert [1 if reading.source == found[0].source else 2 for reading in found] == numbers
    assert [0 if not of.target else 1 if of.target == found[0].target else 2 for of in found] == targets
    assert (found[0].producer == found[1].producer) == (targets == [1, 1])


def test_a_start_within_the_millisecond_of_the_point_is_known() -> None:
    """That both are one says that nobody knows the start."""
    starts = []
    for start in (NOW * MS, NOW * MS - 1, NOW * MS + 7):
        data, metrics = message()
        total = metrics.add(name="a").sum
        total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
        total.data_points.add(as_int=1, start_time_unix_nano=start, time_unix_nano=NOW * MS + 7 * (start > NOW * MS))
        (reading,) = read(data)[0]["a_total"].readings
        starts.append(reading.start_ms == reading.time_ms)
    assert starts == [True, False, True]
    total.data_points[0].start_time_unix_nano -= 1
    (reading,) = read(data)[0]["a_total"].readings
    assert (reading.start_ms, reading.time_ms) == (NOW, NOW + 1)


def test_no_recorded_value_is_told_as_such() -> None:
    data, metrics = message()
    timed(metrics.add(name="g").gauge.data_points.add(flags=1))
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = DELTA
    timed(histogram.data_points.add(flags=1))
    batches, dead = read(data)
    assert not dead
    assert [[reading.value for reading in batches[name].readings] for name in "gh"] == [[None], [None]]


def test_a_gauge_may_be_no_number_and_a_sum_of_observations_not_told() -> None:
    data, metrics = message()
    for value in (nan, inf):
        timed(metrics.add(name="g").gauge.data_points.add(as_double=value))
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = CUMULATIVE
    timed(histogram.data_points.add(count=2))
    timed(histogram.data_points.add(count=3, bucket_counts=[1, 1, 1], explicit_bounds=[1, inf]))
    reader = processor()
    reader.add(0, NOW, data.SerializeToString())
    batches = reader.flush().batches
    first, second = (reading.value for reading in batches[0].readings)
    assert isinstance(first, float)
    assert isnan(first)
    assert second == inf
    told = {batch.shape.bounds: batch.readings[0].value for batch in batches[1:]}
    assert isinstance(told[()], HistogramValue)
    assert isnan(told[()].sum)
    assert (told[()].buckets, told[(1.0,)][2]) == ((2,), (1, 2))  # type: ignore[index]


def bad_total(**point: Any) -> Callable[[Any], None]:
    def add(metrics: Any) -> None:
        total = metrics.add(name="bad").sum
        total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
        timed(total.data_points.add(**point))

    return add


def bad_histogram(**point: Any) -> Callable[[Any], None]:
    def add(metrics: Any) -> None:
        metrics.add(name="bad").histogram.aggregation_temporality = CUMULATIVE
        timed(metrics[-1].histogram.data_points.add(**point))

    return add


def bad_exponential(counts: list[int], offset: int = 0, **point: Any) -> Callable[[Any], None]:
    def add(metrics: Any) -> None:
        metrics.add(name="bad").exponential_histogram.aggregation_temporality = CUMULATIVE
        added = timed(metrics[-1].exponential_histogram.data_points.add(**point))
        added.positive.offset = offset
        added.positive.bucket_counts.extend(counts)

    return add


def bad_summary(metrics: Any) -> None:
    timed(metrics.add(name="bad").summary.data_points.add()).quantile_values.add(quantile=1.5)


def without_temporality(metrics: Any) -> None:
    timed(metrics.add(name="bad").sum.data_points.add(as_int=1))


def nameless_label(metrics: Any) -> None:
    timed(metrics.add(name="bad").gauge.data_points.add(as_int=1), **{"": "x"})


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (bad_total(as_double=nan), Reason.NOT_FINITE),
        (bad_total(as_double=inf), Reason.NOT_FINITE),
        (bad_total(as_double=1e300), Reason.NOT_FINITE),  # what others under the same labels count would be lost in it
        (bad_total(as_int=-1), Reason.NEGATIVE),
        (bad_total(), Reason.NO_VALUE),
        (without_temporality, Reason.UNKNOWN_TYPE),
        (lambda metrics: metrics.add(name="bad"), Reason.UNKNOWN_TYPE),
        (lambda metrics: metrics.add().gauge.data_points.add(as_int=1), Reason.NO_NAME),
        (lambda metrics: metrics.add(name="…").gauge.data_points.add(as_int=1), Reason.NO_NAME),
        (nameless_label, Reason.NO_NAME),
        (bad_histogram(count=1, bucket_counts=[1], explicit_bounds=[1, 2]), Reason.BUCKETS_DO_NOT_FIT),
        (bad_histogram(count=5, bucket_counts=[1, 1], explicit_bounds=[1]), Reason.BUCKETS_DO_NOT_FIT),
        (bad_histogram(count=3, bucket_counts=[1, 1, 1], explicit_bounds=[2, 1]), Reason.BUCKETS_DO_NOT_FIT),
        (bad_histogram(count=1 << 60, bucket_counts=[1 << 60]), Reason.NOT_FINITE),
        (bad_exponential([1, 1], count=3), Reason.BUCKETS_DO_NOT_FIT),
        (bad_exponential([1], count=1, scale=-5), Reason.BUCKETS_DO_NOT_FIT),
        (bad_exponential([1], count=1, scale=1024), Reason.BUCKETS_DO_NOT_FIT),
        (bad_exponential([], count=1, zero_count=1, scale=(1 << 31) - 1), Reason.BUCKETS_DO_NOT_FIT),
        (bad_exponential([1], offset=1 << 30, count=1, scale=3), Reason.BUCKETS_DO_NOT_FIT),
        (bad_summary, Reason.BUCKETS_DO_NOT_FIT),
    ],
)
def test_a_bad_point_leaves_alone_and_can_be_replayed(add: Callable[[Any], None], reason: Reason) -> None:
    """The letter is a message of its own, with nothing but that point."""
    data, metrics = message()
    timed(metrics.add(name="before").gauge.data_points.add(as_int=1))
    add(metrics)
    for _ in range(2):
        timed(metrics.add(name="after").gauge.data_points.add(as_int=1))
    batches, ((found, letter),) = read(data)
    assert list(batches) == ["before", "after"]
    assert found == reason
    replayed = MetricsData.FromString(letter)
    assert replayed.resource_metrics[0].resource == data.resource_metrics[0].resource
    assert list(replayed.resource_metrics[0].scope_metrics[0].metrics) == [metrics[1]]
    assert [reason for reason, _ in read(letter)[1]] == [reason]


@pytest.mark.parametrize("threshold", [-1.0, -0.0, float("nan"), float("-inf"), 0.25])
def test_a_zero_threshold_below_zero_is_none(threshold: float) -> None:
    """Two different ones could not be added up."""
    data, metrics = message()
    histogram = metrics.add(name="e").exponential_histogram
    histogram.aggregation_temporality = CUMULATIVE
    timed(histogram.data_points.add(count=1, sum=0, zero_count=1, zero_threshold=threshold))
    batches, dead = read(data)
    (reading,) = batches["e"].readings
    assert isinstance(reading.value, ExponentialValue)
    assert (reading.value.zero_threshold, dead) == (0.25 if threshold > 0 else 0.0, [])
    lower = reading.value._replace(zero_threshold=-0.5)  # as written before
    total = plus(lower, lower._replace(zero_threshold=-1.0))
    assert observations(total) == 2


def test_a_name_has_an_end() -> None:
    """It is in the keys of records and in every tick: what is too long for a record would be refused for ever."""
    data, metrics = message()
    for length in (LONGEST_NAME, LONGEST_NAME + 1):
        timed(metrics.add(name="n" * length).gauge.data_points.add(as_int=1))
    timed(metrics.add(name="m", unit="u" * LONGEST_NAME).gauge.data_points.add(as_int=1))
    for number, length in enumerate((LONGEST_NAME, LONGEST_NAME + 1)):
        point = metrics.add(name=f"labelled.{number}").gauge.data_points.add(as_int=1)
        point.attributes.add(key="k" * length).value.string_value = "v"
        timed(point)
    batches, dead = read(data)
    assert list(batches) == ["n" * LONGEST_NAME, "labelled_0"]
    assert [reason for reason, _ in dead] == [Reason.NO_NAME] * 3


def test_a_long_name_in_a_scope_costs_no_point() -> None:
    data, metrics = message()
    attribute = data.resource_metrics[0].scope_metrics[0].scope.attributes.add(key="k" * LONGEST_NAME)
    attribute.value.string_value = "v"
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    batches, dead = read(data)
    assert ("g" in batches, dead) == (True, [])


def test_label_names_count_as_what_a_point_takes() -> None:
    data, metrics = message()
    for point in range(3):
        added = metrics.add(name="g").gauge.data_points.add(as_int=1)
        for number in range(4_000 if point == 1 else 100):
            added.attributes.add(key=f"{point}.{number}." + "k" * 1000).value.string_value = "v"
        timed(added)
    made = processor()
    made.add(7, NOW, data.SerializeToString())
    flushed = made.flush()
    assert [letter.reason for letter in flushed.dead_letters] == [Reason.MESSAGE_TOO_LARGE]
    assert sum(len(batch.readings) for batch in flushed.batches if batch.metric == "g") == 2


def test_long_keys_are_not_remembered() -> None:
    """What is remembered of label names is bounded in bytes, not only in number."""
    known = KnownSeries(1 << 16)
    for number in range(100):
        key = ((b"r", b"s", b"", b"m", b"", "gauge"), (), (b"%d" % number * 4_000,))
        known.remember(key, Series.of({f"{number}" * 4_000: "v"}, number))
    assert len(known) == 0
    assert not known._names


def test_a_large_resource_is_not_remembered() -> None:
    data, metrics = message()
    data.resource_metrics[0].resource.attributes.add(key="large").value.string_value = "v" * RESOURCE_BYTES
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    made = processor()
    made.add(7, NOW, data.SerializeToString())
    assert (len(made.flush().batches), made._resources) == (2, {})


def test_many_bad_metrics_are_one_letter() -> None:
    """Each takes its resource along, which may be as large as the message."""
    data, metrics = message({"service.name": "shop", "large": "x" * 100_000})
    for number in range(500):
        metrics.add(name="" if number % 2 else f"empty_{number}")
    timed(metrics.add(name="good").gauge.data_points.add(as_int=1))
    for _ in range(20):
        timed(metrics.add(name="bad").gauge.data_points.add())
    batches, letters = read(data)
    assert "good" in batches
    assert {reason for reason, _ in letters} == {Reason.NO_NAME, Reason.UNKNOWN_TYPE, Reason.NO_VALUE}
    assert len(letters) == 3
    for reason, letter in letters:
        assert {found for found, _ in read(letter)[1]} == {reason}
        (resource,) = MetricsData.FromString(letter).resource_metrics
        (scope,) = resource.scope_metrics
        assert len(scope.metrics) == (20 if reason == Reason.NO_VALUE else 250)


def test_the_neighbours_of_a_bad_point_in_its_metric_go_on() -> None:
    data, metrics = message()
    total = metrics.add(name="a").sum
    total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
    for value in (1, -1, 2):
        timed(total.data_points.add(as_int=value), n=value)
    batches, ((_, letter),) = read(data)
    assert [reading.value for reading in batches["a_total"].readings] == [1, 2]
    (point,) = MetricsData.FromString(letter).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    assert point.as_int == -1


def test_an_attribute_that_is_no_key_value_costs_its_point() -> None:
    data, metrics = message()
    points = metrics.add(name="a").gauge.data_points
    for number in range(3):
        timed(points.add(as_int=number), n=number)
    raw: Any = PointsData.FromString(data.SerializeToString())
    raw.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[1].attributes.append(b"\x0a\x05n")
    batches, ((reason, letter),) = read(raw.SerializeToString())
    assert [reading.value for reading in batches["a"].readings] == [0, 2]
    assert reason == Reason.MALFORMED
    assert read(letter) == ({}, [(reason, letter)])


def spans() -> bytes:
    data = TracesData()
    data.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\xff" * 16, span_id=b"\x01" * 8)
    return bytes(data.SerializeToString())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.EMPTY_MESSAGE),
        (b"\x0a\x03abc", Reason.MALFORMED),
        (b"{}", Reason.MALFORMED),
        (b"x" * 101, Reason.MESSAGE_TOO_LARGE),
        (spans(), Reason.NO_NAME),
    ],
)
def test_a_bad_message_is_kept_whole(value: bytes, reason: Reason) -> None:
    assert [found for found, _ in read(value, "auto", None, 100)[1]] == [reason]


@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json", "auto"])
def test_a_null_message_is_empty(encoding: str) -> None:
    """Kafka values may be null."""
    points = MetricPoints("raw", 0, encoding, Naming(), 100)
    points.add(1, 2, None)
    assert [(letter.reason, letter.value) for letter in points.flush().dead_letters] == [(Reason.EMPTY_MESSAGE, b"")]


def test_json_is_read_as_protobuf_is() -> None:
    data, metrics = message()
    total = metrics.add(name="a").sum
    total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
    timed(total.data_points.add(as_int=1 << 40), route="/")
    timed(metrics.add(name="g").gauge.data_points.add(as_double=nan))
    json = MessageToJson(data, indent=None).encode()
    for encoding in ("otlp_json", "auto"):
        batches, dead = read_without_comparing(json, encoding)
        assert not dead
        assert batches["a_total"] == read_without_comparing(data.SerializeToString(), "auto")[0]["a_total"]
        assert len(batches["g"].readings) == 1


def read_without_comparing(data: bytes, encoding: str) -> tuple[dict[str, PointBatch], list[Any]]:
    """NaN is not equal to itself."""
    reader = processor(encoding)
    reader.add(7, NOW, data)
    flushed = reader.flush()
    return {batch.metric: batch for batch in flushed.batches}, flushed.dead_letters


def test_text_that_is_no_utf8_costs_its_characters_and_not_the_message() -> None:
    data, metrics = message()
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1), route="QQQ")
    batches, dead = read(data.SerializeToString().replace(b"QQQ", b"\xff/\xff"))
    assert not dead
    assert labelled(batches["g"])[0]["route"] == "�/�"


def test_points_without_a_time_have_that_of_their_record() -> None:
    data, metrics = message()
    metrics.add(name="g").gauge.data_points.add(as_int=1)
    assert [reading.time_ms for reading in read(data)[0]["g"].readings] == [NOW + 1]


def test_a_large_metric_becomes_records_of_a_stated_size() -> None:
    data, metrics = message()
    for number in range(3_000):
        timed(metrics.add(name="g").gauge.data_points.add(as_int=number), route=f"{number}-{'x' * 400}")
    reader = processor()
    reader.add(0, NOW, data.SerializeToString())
    assert reader.size > 1_200_000
    batches = reader.flush().batches
    assert len(batches) > 3
    assert sum(len(batch.readings) for batch in batches) == 3_000
    assert {type(reading) for batch in batches for reading in batch.readings} == {Reading}


def test_buckets_count_for_the_size_of_a_record() -> None:
    data, metrics = message()
    histogram = metrics.add(name="e").exponential_histogram
    histogram.aggregation_temporality = DELTA
    counts = [(1 << 40) + number for number in range(160)]
    for number in range(1_000):
        point = timed(histogram.data_points.add(scale=3, count=sum(counts)), route=str(number))
        point.positive.bucket_counts.extend(counts)
    reader = processor()
    reader.add(0, NOW, data.SerializeToString())
    batches = reader.flush().batches
    assert sum(len(batch.rows) for batch in batches) == 1_000
    assert max(len(batch.rows) for batch in batches) * len(counts) * 9 < 1 << 20


def test_attribute_keys_that_are_data_do_not_make_every_point_wider() -> None:
    """20,000 points of 20,000 keys are no table of 400 million cells."""
    data, metrics = message()
    points = metrics.add(name="g").gauge.data_points
    for number in range(20_000):
        timed(points.add(as_int=number), **{f"key{number}": "x"})
    reader = processor()
    reader.add(0, NOW, data.SerializeToString())
    batches = reader.flush().batches
    assert max(len(batch.shape.label_names) for batch in batches) <= MOST_NAMES
    found = [labels for batch in batches for labels in labelled(batch)]
    assert sorted(int(next(name for name in labels if name != "job")[3:]) for labels in found) == list(range(20_000))


def test_a_point_that_no_record_takes_leaves_alone() -> None:
    data, metrics = message()
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = DELTA
    for size in (3, 300_000):
        timed(histogram.data_points.add(sum=0, explicit_bounds=range(size), bucket_counts=[0] * (size + 1)))
    batches, dead = read(data)
    assert [len(batch.rows) for batch in batches.values()] == [1]
    assert [reason for reason, _ in dead] == [Reason.MESSAGE_TOO_LARGE]


def test_a_resource_of_any_size_costs_its_info_only() -> None:
    data, metrics = message({"service.name": "shop", **{f"a{n:04}": "€" * 3_000 for n in range(1_000)}})
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    batches, dead = read(data)
    assert (set(batches), dead) == ({"g", "target_info"}, [])
    assert len(batches["target_info"].shape.label_names) <= MOST_NAMES


def test_an_attribute_that_gives_no_label_is_not_promoted() -> None:
    data, metrics = message({"service.name": "shop", "__": "x", "zone": "a"})
    timed(metrics.add(name="g").gauge.data_points.add(as_int=1))
    batches, _ = read(data, "otlp_proto", Naming(promoted=("__", "zone")))
    assert labelled(batches["g"]) == [{"job": "shop", "zone": "a"}]


def test_many_bad_points_cost_no_more_than_they_hold() -> None:
    """A counter that an SDK made of no numbers: none of its points may cost the others of its metric."""
    data, metrics = message()
    total = metrics.add(name="a", unit="s", description="d").sum
    total.is_monotonic, total.aggregation_temporality = True, CUMULATIVE
    for number in range(30_000):
        timed(total.data_points.add(as_double=nan), route=str(number))
    batches, ((reason, letter),) = read(data)
    assert (batches, reason) == ({}, Reason.NOT_FINITE)
    assert MetricsData.FromString(letter).resource_metrics[0].scope_metrics[0].metrics == metrics


def test_what_is_remembered_of_series_is_bounded_and_what_is_sent_again_stays() -> None:
    known = KnownSeries(100_000)
    stream: Stream = (b"", b"", b"", b"m", b"", "gauge")
    for number in range(1000):
        known.remember((stream, (), (b"%d" % number,)), Series.of({"a": str(number)}, number))
        kept = known.get((stream, (), (b"0",)))
        assert kept is not None
        assert (kept.names, kept.values, kept.source) == (("a",), ("0",), 0)
        assert len(known) <= 2 * 100_000 // 600
    assert known.get((stream, (), (b"1",))) is None


@pytest.mark.parametrize("where", ["attribute", "stream"])
def test_what_is_remembered_is_bounded_in_bytes_whatever_producers_send(where: str) -> None:
    for size in (1_000, 14_000, 100_000):
        known = KnownSeries(1_000_000)
        for number in range(200):
            text = b"%d" % number + b"x" * size
            stream: Stream = (text if where == "stream" else b"", b"", b"", b"m", b"", "gauge")
            known.remember((stream, (), (text if where == "attribute" else b"",)), Series.of({"a": "b"}, number))
        assert len(known) * size <= 2 * 1_000_000
    before = len(known)
    huge = (stream, (), (b"x" * 20_000,))
    assert known.remember(huge, Series.of({"a": "b"}, 1)).values == ("b",)
    assert (known.get(huge), len(known)) == (None, before), "it is not worth the others"


def test_attributes_that_lie_alike_end_to_end_are_two_series() -> None:
    """A key without a value and a value without a key are, end to end, the bytes of one attribute."""
    data, metrics = message()
    points = metrics.add(name="level").gauge.data_points
    whole, halves = points.add(as_int=1), points.add(as_int=2)
    whole.attributes.append(attribute("a", "x"))
    halves.attributes.extend([KeyValue(key="a"), KeyValue(value=AnyValue(string_value="x"))])
    assert b"".join(e.SerializeToString() for e in halves.attributes) == whole.attributes[0].SerializeToString()
    batches, dead = read(data)
    assert [label.get("a") for label in labelled(batches["level"])] == ["x"]
    assert [reason for reason, _ in dead] == [Reason.NO_NAME]


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 3))
@settings(max_examples=500)
def test_mutated_messages_say_the_same_when_their_series_are_known(bits: bytes, at: int, cut: int) -> None:
    """What is remembered never shows: a worker that has read much says what one says that has read nothing."""
    data, metrics = message({"service.name": "shop", "service.instance.id": "i"})
    for number in range(3):
        timed(metrics.add(name="level").gauge.data_points.add(as_double=number), cpu=number, mode="user")
    histogram = metrics.add(name="d").histogram
    histogram.aggregation_temporality = CUMULATIVE
    timed(histogram.data_points.add(count=3, sum=2.5, bucket_counts=[1, 2], explicit_bounds=[5]), route="/a")
    value = data.SerializeToString()
    mutated = value[:at] + bits + value[at + cut :]
    known = processor()
    known.add(0, NOW, value)
    known.flush()
    fresh = processor()
    for reader in (known, fresh):
        reader.add(1, NOW, mutated)
    assert repr(known.flush()) == repr(fresh.flush())
