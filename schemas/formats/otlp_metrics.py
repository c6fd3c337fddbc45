"""The data points of OTLP metrics, each checked and taken into this pipeline's values (schemas/point.py).

protobuf's own parser (upb) reads the message; strings are bytes in it, so that text which is not UTF-8 costs its
characters and not the message. Attributes of points are bytes as well: most are of a series that is known by them. What
cannot be told to Prometheus is Malformed, one point at a time.
Source: opentelemetry-proto metrics.proto; OpenTelemetry specification, "Metrics Data Model".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.errors import Malformed
from schemas.otlp_check import LIBRARY_FIELD, KeyValue, PointsData, library_of
from schemas.point import ExponentialValue, HistogramValue, Kind, SummaryValue, Value
from schemas.reasons import Reason
from schemas.remembered import remembered

NO_RECORDED_VALUE = 1  # DataPointFlags
DELTA, CUMULATIVE = 1, 2  # AggregationTemporality
# Larger counts are no counts: a float does not hold them exactly, and sums of them would leave 64 bits.
MOST = 1 << 53
# A sum beyond it is no count, of nanoseconds or bytes either: whatever is added to it would be lost in it.
MOST_SUM = float(1 << 63)
# Exponents that doubles have: no observation lies in a bucket beyond.
_LOWEST_EXPONENT, _HIGHEST_EXPONENT = -1075, 1024
_HIGHEST_SCALE = 64  # two numbers that are next to each other lie in buckets of their own long before
_KNOWN_BOUNDS = 256  # lists of them that are remembered


class Metric(NamedTuple):
    """What the points of a Metric message are. `delta`: they are not readings."""

    kind: Kind
    delta: bool
    points: Sequence[Any]


def read_metrics(data: bytes) -> Any:
    """The MetricsData (ExportMetricsServiceRequest) message. Raises Malformed."""
    message = PointsData()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Malformed(Reason.MALFORMED, f"not OTLP MetricsData: {error}") from None
    if not message.resource_metrics:  # type: ignore[attr-defined]
        raise Malformed(Reason.MALFORMED, "no ResourceMetrics in the message")
    for resource in message.resource_metrics:  # type: ignore[attr-defined]
        if not resource.scope_metrics and _has_library(UnknownFieldSet(resource)):
            raise Malformed(Reason.MALFORMED, library_of("metrics"))
    return message


def _has_library(unknown: UnknownFieldSet) -> bool:
    return any(unknown[i].field_number == LIBRARY_FIELD for i in range(len(unknown)))


def read_name(metric: Any) -> str:
    """A metric's own name. Raises Malformed if it has none, or one that is no text, as spans have."""
    try:
        name = str(metric.name, "utf-8")
    except UnicodeDecodeError:
        raise Malformed(Reason.NO_NAME, f"the metric's name {metric.name[:100]!r} is not UTF-8") from None
    if not name:
        raise Malformed(Reason.NO_NAME, "the metric has no name")
    return name


def read_metric(metric: Any) -> Metric:
    """Kind and points of a Metric message. Raises Malformed for what is no metric that we know."""
    which = metric.WhichOneof("data")
    if which is None:
        raise Malformed(Reason.UNKNOWN_TYPE, "none of gauge, sum, histogram, exponential_histogram, summary")
    data = getattr(metric, which)
    if which in ("gauge", "summary"):
        return Metric(which, False, data.data_points)
    temporality = data.aggregation_temporality
    if temporality not in (DELTA, CUMULATIVE):
        raise Malformed(Reason.UNKNOWN_TYPE, f"aggregation_temporality {temporality} is neither delta nor cumulative")
    kinds: dict[str, Kind] = {"histogram": "histogram", "exponential_histogram": "exponential"}
    kind = kinds.get(which) or ("counter" if data.is_monotonic else "sum")
    return Metric(kind, temporality == DELTA, data.data_points)


def read_value(kind: Kind, point: Any) -> tuple[Value | None, tuple[float, ...]]:
    """A point's value and bounds; None for "no recorded value". Raises Malformed."""
    if point.flags & NO_RECORDED_VALUE:
        return None, tuple(point.explicit_bounds) if kind == "histogram" else ()
    if kind == "histogram":
        return _histogram(point)
    if kind == "exponential":
        return _exponential(point), ()
    return _summary(point) if kind == "summary" else (_number(kind, point), ())


def read_attributes(attributes: Iterable[bytes]) -> list[Any]:
    """The KeyValue messages of a point. Raises Malformed."""
    try:
        return [KeyValue.FromString(attribute) for attribute in attributes]
    except DecodeError as error:
        raise Malformed(Reason.MALFORMED, f"an attribute is no KeyValue: {error}") from None


class Part(NamedTuple):
    """Points of a metric, or without any the whole metric, where it lies in its message."""

    resource: Any
    scope: Any
    metric: Any
    points: Sequence[Any] = ()


def together(parts: Iterable[Part]) -> bytes:
    """A message of these parts, in the order of theirs: what of a message is dead-lettered."""
    message: Any = PointsData()
    resource = scope = metric = outer = inner = copy = None
    for part in parts:
        if part.resource is not resource:
            resource, scope = part.resource, None
            outer = message.resource_metrics.add(resource=resource.resource, schema_url=resource.schema_url)
        if part.scope is not scope:
            scope, metric = part.scope, None
            inner = outer.scope_metrics.add(scope=scope.scope, schema_url=scope.schema_url)  # type: ignore[union-attr]
        if part.metric is metric and part.points:
            getattr(copy, metric.WhichOneof("data")).data_points.extend(part.points)
            continue
        metric, copy = part.metric, inner.metrics.add()  # type: ignore[union-attr]
        _copy(metric, part.points, copy)
    return bytes(message.SerializeToString())


def _copy(metric: Any, points: Sequence[Any], copy: Any) -> None:
    which = metric.WhichOneof("data")
    if not points or not which:
        copy.CopyFrom(metric)
    else:  # without its other points, of which there may be very many, all of them bad
        copy.name, copy.description, copy.unit = metric.name, metric.description, metric.unit
        copy.metadata.extend(metric.metadata)
        data, of = getattr(copy, which), getattr(metric, which)
        for field in ("aggregation_temporality", "is_monotonic"):
            if field in data.DESCRIPTOR.fields_by_name:
                setattr(data, field, getattr(of, field))
        data.data_points.extend(points)


def _number(kind: Kind, point: Message) -> float:
    which = point.WhichOneof("value")
    if which is None:
        raise Malformed(Reason.NO_VALUE, "neither as_double nor as_int")
    value = float(getattr(point, which))
    if kind == "gauge":
        return value if value == value else nan  # one NaN: another one's bits mean "stale" to Prometheus
    if not abs(value) <= MOST_SUM:
        raise Malformed(Reason.NOT_FINITE, f"a sum of {value} cannot go on")
    if kind == "counter" and value < 0:
        raise Malformed(Reason.NEGATIVE, f"{value} in a monotonic sum")
    return value


def _total(point: Any) -> float:
    """The sum of observations; NaN if it is not told or not a number, so that what it is added to is not known."""
    return float(point.sum) if point.HasField("sum") and isfinite(point.sum) else nan


def _counted(point: Any, counts: Sequence[int]) -> int:
    count, found = int(point.count), sum(counts)
    if found != count:
        raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"{found} in the buckets, {count} in all")
    if count > MOST:
        raise Malformed(Reason.NOT_FINITE, f"{count} observations")
    return count


def _histogram(point: Any) -> tuple[HistogramValue, tuple[float, ...]]:
    bounds, counts = point.explicit_bounds[:], point.bucket_counts[:]  # lists, in half the time of list()
    if not bounds and not counts:
        counts = [point.count]
    if len(counts) != len(bounds) + 1:
        raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"{len(counts)} buckets for {len(bounds)} bounds")
    if bounds and bounds[-1] == inf:  # said, though it goes without saying
        counts[-2:] = [sum(counts[-2:])]
        del bounds[-1]
    fixed = tuple(bounds)
    if not _rise(fixed):
        raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"bounds do not rise: {bounds}")
    return HistogramValue(_counted(point, counts), _total(point), tuple(counts)), fixed


@remembered(_KNOWN_BOUNDS)
def _rise(bounds: tuple[float, ...]) -> bool:
    """Whether they are numbers, each greater than the one before: looked at once, for all points that have them."""
    return all(map(isfinite, bounds)) and all(low < high for low, high in pairwise(bounds))


def _exponential(point: Any) -> ExponentialValue:
    if point.scale > _HIGHEST_SCALE:
        raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"scale {point.scale}, no number needs more than {_HIGHEST_SCALE}")
    sides: list[Any] = []
    for side in (point.positive, point.negative):
        counts = tuple(side.bucket_counts)
        first, last = side.offset, side.offset + len(counts)
        scale = point.scale
        if counts and not (_LOWEST_EXPONENT * 2.0**scale <= first and last <= _HIGHEST_EXPONENT * 2.0**scale + 1):
            raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"buckets {first} to {last - 1} of scale {scale}")
        sides += [first, counts]
    observations = _counted(point, [point.zero_count, *sides[1], *sides[3]])
    threshold = point.zero_threshold if isfinite(point.zero_threshold) and point.zero_threshold > 0 else 0.0
    return ExponentialValue(observations, _total(point), point.scale, point.zero_count, threshold, *sides)


def _summary(point: Any) -> tuple[SummaryValue, tuple[float, ...]]:
    quantiles = {entry.quantile: entry.value for entry in point.quantile_values}
    if not all(0 <= quantile <= 1 for quantile in quantiles):
        raise Malformed(Reason.BUCKETS_DO_NOT_FIT, f"quantiles {sorted(quantiles)} are not all between 0 and 1")
    if point.count > MOST:
        raise Malformed(Reason.NOT_FINITE, f"{point.count} observations")
    bounds = tuple(sorted(quantiles))
    values = tuple(value if value == value else nan for value in map(quantiles.__getitem__, bounds))
    return SummaryValue(int(point.count), point.sum if isfinite(point.sum) else nan, values), bounds
