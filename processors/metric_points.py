"""What ingest does to a raw partition of OTLP metrics: decode, name and label as Prometheus does, pack by metric.

One instance per raw partition. `add` takes raw messages, `flush` returns everything since the last flush: batches of
points by metric, and dead letters. Deltas stay deltas and readings stay readings: only `aggregate` adds up.

Labels of a series: the point's attributes; `job` (service.namespace/service.name) and `instance` (service.instance.id),
which win; the scope's name, version, schema URL and attributes as `otel_scope_…`; resource attributes that are asked
for. All others are on `target_info`, once for each job and instance. Source: OpenTelemetry specification, "Prometheus
and OpenMetrics Compatibility". Readings of a message that are alike because redaction took out what told them from
each other are added up.

A point of a series that was there before costs 6 µs here, four times as much the first time, and 7 in `aggregate`
(numbers and histograms of 16 buckets, three attributes: `python -m bench.micro.otlp_points`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, islice
from operator import itemgetter, not_
from typing import Any

from processors.otlp_series import KnownSeries, Series, Stream, digest, number, text_bytes, text_of, texts_of
from processors.redaction import Redactor
from processors.resources import attributes_in_short
from processors.span_metrics import BATCH_CHARACTERS, MAX_LABEL_CHARACTERS
from processors.values import fitted, plus
from schemas.dead_letter import OTLP, DeadLetter, grouped
from schemas.errors import Malformed
from schemas.formats import detect, otlp_json
from schemas.formats.otlp_metrics import (
    Metric,
    Part,
    read_attributes,
    read_metric,
    read_metrics,
    read_name,
    read_value,
    together,
)
from schemas.point import UNCOUNTED, ExponentialValue, Kind, PointBatch, Reading, Shape, Value
from schemas.prometheus_names import Strategy, label_name, metric_name
from schemas.raw_message import checked, encoding_of
from schemas.reasons import Reason

STAGE = "ingest"
AUTO = "auto"
TARGET_INFO = "target_info"
JOB, INSTANCE = "job", "instance"
NAMED = ("service.name", "service.namespace", "service.instance.id")  # they are job and instance
# What a Collector may add to a resource later than other attributes, as it hears of it from Kubernetes: objects above a
# pod's containers and volumes, which may be what tells two sources of one process apart.
_ADDED = (
    "pod",
    "namespace",
    "node",
    "deployment",
    "replicaset",
    "statefulset",
    "daemonset",
    "job",
    "cronjob",
    "cluster",
)
ADDED = tuple(f"k8s.{kind}." for kind in _ADDED)
# Labels that the kind of metric gives a meaning of its own.
RESERVED = {"histogram": ("le",), "summary": ("quantile",)}
MS = 1_000_000  # ns
RESOURCES, RESOURCE_BYTES = 1024, 8 << 10  # whose labels are remembered, if they are no longer than that
# Label names of one record: each of its points has them all, and attribute keys that are data would make a square.
MOST_NAMES = 128
POINT_BYTES = 2 << 20  # of a single one: bounds and labels are the producers' own; MOST_NAMES long labels fit
_NUMBER_BYTES = 9
_POINT_BYTES = 64  # msgpack's heads, source and times

_Point = tuple[Series, Value | None, tuple[int, int] | None, int]
"""Series, value, of a reading start and time (a delta has none), and about how many bytes it takes."""
_Alike = dict[tuple[int, tuple[float, ...], int, int], int]
"""Where what a source told at a time is among the points of a metric: redaction may have made several of them alike."""

TO_OTLP: dict[str, Callable[[bytes], bytes]] = {"otlp_proto": bytes, "otlp_json": otlp_json.metrics}


@dataclass(frozen=True, slots=True)
class Naming:
    """How OTLP is told to Prometheus; `promoted` are resource attributes that become labels of every series."""

    strategy: Strategy = "UnderscoreEscapingWithSuffixes"
    scope_labels: bool = True
    promoted: tuple[str, ...] = ()


@dataclass(slots=True)
class MetricFlush:
    """What one transaction of ingest writes; `rows` are the points in it."""

    batches: list[PointBatch]
    dead_letters: list[DeadLetter]
    rows: int


@dataclass(slots=True)
class _Group:
    """Points of one metric, kind and bounds."""

    points: list[_Point] = field(default_factory=list)


@dataclass(slots=True)
class _Resource:
    """What all points of a resource have in common. `info` is the series of its target_info, None for none.

    `digest` is that of all attributes; `target` that of those which are always there, empty where nothing says which
    process it is: what Kubernetes tells may come later, and from one of two gateways. `process` is that of the names of
    the process, `attributes` stand for the others of those, None where they are too many.
    """

    message: bytes
    labels: dict[str, str]
    promoted: dict[str, str]
    info: Series | None
    digest: bytes
    target: bytes
    process: bytes
    attributes: bytes | None


@dataclass(slots=True)
class _Scope:
    """What all points of an instrumentation scope have in common; its labels only if they are asked for."""

    labels: dict[str, str]
    digest: bytes


@dataclass(slots=True)
class MetricPoints:
    """One raw partition. `encoding` is one of TO_OTLP or auto; sizes in bytes. `known` may be shared."""

    topic: str
    partition: int
    encoding: str
    naming: Naming
    max_message_bytes: int
    redactor: Redactor | None = None
    known: KnownSeries = field(default_factory=KnownSeries)
    size: int = 0
    lost: int = 0  # messages since the last flush of which nothing can be used
    _rows: int = 0
    _groups: dict[tuple[str, Kind, tuple[float, ...]], _Group] = field(default_factory=dict)
    _dead: list[DeadLetter] = field(default_factory=list)
    _resources: dict[bytes, _Resource] = field(default_factory=dict)

    def add_all(self, records: Iterable[tuple[int, int, bytes | None]]) -> None:
        """Raw messages: offset, timestamp and value, see `add`."""
        for offset, timestamp, value in records:
            self.add(offset, timestamp, value)

    def add(self, offset: int, timestamp: int, value: bytes | None) -> None:
        """Take in a raw message; `timestamp` (ms) is that of points without a time of their own."""
        value = value or b""
        encoding = detect.detect_metrics(value) if self.encoding == AUTO else self.encoding
        index, rows, letters = 0, self._rows, len(self._dead)
        try:
            checked(value, self.max_message_bytes)
            otlp = TO_OTLP[encoding](value)
            left = otlp if self.redactor is None else self.redactor.message(otlp, "metrics")
            message = read_metrics(left)
        except Malformed as error:
            detail = f"taken for {encoding}: {error.detail}" if self.encoding == AUTO else error.detail
            if self.redactor is not None:
                value, detail = self.redactor.buried(value, detail)
            self._bury(offset, timestamp, 0, value, error.reason, detail)
            self.lost += 1
            return
        bad: dict[str, list[tuple[int, str, Part]]] = {}
        for resource in message.resource_metrics:
            common = self._resource(resource.resource)
            newest = 0
            for scope in resource.scope_metrics:
                scoped = self._scope(scope)
                described = common.message, scope.scope.SerializeToString(), scope.schema_url
                for metric in scope.metrics:
                    try:
                        name = read_name(metric)
                        read = read_metric(metric)
                        told = self._name(name, metric, read.kind)
                    except Malformed as error:
                        reason, detail = _why(error)
                        bad.setdefault(reason, []).append((index, detail, Part(resource, scope, metric)))
                        index += 1
                        continue
                    stream = *described, metric.name, metric.unit, read.kind
                    alike: _Alike | None = None if left is otlp else {}
                    for point in read.points:
                        time_ms = point.time_unix_nano // MS or timestamp
                        newest = max(newest, time_ms)
                        try:
                            self._point(told, read, point, time_ms, common, scoped, stream, alike)
                        except Malformed as error:
                            part = Part(resource, scope, metric, [point])
                            bad.setdefault(error.reason, []).append((index, error.detail, part))
                        index += 1
            if common.info is not None and newest:
                self._put(TARGET_INFO, "info", (), common.info, 1.0, (0, newest))
        self._bury_parts(offset, timestamp, bad)
        self.lost += self._rows == rows and len(self._dead) > letters

    def _bury_parts(self, offset: int, timestamp: int, bad: Mapping[str, list[tuple[int, str, Part]]]) -> None:
        """Each alone, in their order; of one reason many together, for each takes its resource along."""
        found = []
        for reason, parts in bad.items():
            found += [(each[0][0], reason, each) for each in grouped(parts)]
        for first, reason, each in sorted(found, key=lambda letter: letter[0]):
            detail = each[0][1] if len(each) == 1 else f"{len(each)} points; the first: {each[0][1]}"
            value = together(part for *_, part in each)
            self._bury(offset, timestamp, first, value, reason, detail, wrapped=True)

    def _point(
        self,
        metric: str,
        read: Metric,
        point: Any,
        time_ms: int,
        common: _Resource,
        scope: _Scope,
        stream: Stream,
        alike: _Alike | None,
    ) -> None:
        kind = read.kind
        value, bounds = read_value(kind, point)
        if isinstance(value, ExponentialValue):
            try:
                value = fitted(value)
            except ValueError as error:
                raise Malformed(Reason.BUCKETS_DO_NOT_FIT, str(error)) from None
        key = stream, bounds, tuple(point.attributes[:])
        series = self.known.get(key)
        if series is None:
            attributes = texts_of(read_attributes(key[2]))
            labels = self._labels(attributes, common.promoted, scope.labels, common.labels)
            for name in RESERVED.get(kind, ()):
                labels.pop(name, None)
            # What a source is, beside its attributes: a metric in another unit is another one.
            told: list[str | tuple[str, str]] = [*attributes.items(), *map(repr, bounds)]
            alone = digest(common.digest, scope.digest, *stream[3:])
            source, target, producer, resource = number(digest(alone, *told)), 0, number(alone), b""
            if common.target:
                producer = number(digest(common.target, scope.digest, *stream[3:]))
                target = producer ^ number(digest(*told))
                if common.attributes is not None and kind not in UNCOUNTED:
                    resource = digest(common.process, scope.digest, *stream[3:]) + common.attributes
            series = self.known.remember(key, Series.of(labels, source, target, producer, resource))
        if read.delta and value is not None:
            self._put(metric, kind, bounds, series, value, None)
            return
        start_ms = point.start_time_unix_nano // MS
        if start_ms == time_ms and point.start_time_unix_nano != point.time_unix_nano:
            time_ms += 1  # that they are one says that the start is not known
        self._put(metric, kind, bounds, series, value, (start_ms, time_ms), alike)

    def _put(
        self,
        metric: str,
        kind: Kind,
        bounds: tuple[float, ...],
        series: Series,
        value: Value | None,
        reading: tuple[int, int] | None,
        alike: _Alike | None = None,
    ) -> None:
        """Add a point to its group, and count it. Raises Malformed for one that no record takes."""
        size = _size(series, value, bounds)
        if (alone := size + series.size_of_names) > POINT_BYTES:
            raise Malformed(Reason.MESSAGE_TOO_LARGE, f"a point of about {alone} bytes, limit {POINT_BYTES}")
        self._rows += metric != TARGET_INFO
        self.size += size
        key = metric, kind, bounds
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        if alike is not None and reading is not None and value is not None and kind != "gauge":
            place = series.source, bounds, 0 if kind == "sum" else reading[0], reading[1]  # as in processors/family.py
            at = alike.setdefault(place, len(group.points))
            if at < len(group.points):
                _, others, _, _ = group.points[at]
                assert others is not None
                group.points[at] = series, plus(others, value), reading, size
                return
        group.points.append((series, value, reading, size))

    def _name(self, name: str, metric: Any, kind: Kind) -> str:
        try:
            return metric_name(name, str(metric.unit, "utf-8", "replace"), kind, self.naming.strategy)
        except ValueError as error:
            raise Malformed(Reason.NO_NAME, str(error)) from None

    def _labels(self, attributes: Mapping[str, str], *more: Mapping[str, str]) -> dict[str, str]:
        """Attributes as labels. Of `more` the first gives way to them, the others take precedence.

        Attributes that become one label are joined with `;`, in the order of their keys. Raises Malformed.
        """
        texts: dict[str, list[str]] = {}
        for key, text in attributes.items():
            try:
                name = label_name(key, self.naming.strategy)
            except ValueError as error:
                raise Malformed(Reason.NO_NAME, str(error)) from None
            texts.setdefault(name, []).append(text)
        promoted, *winning = more or ({},)
        own = {name: ";".join(dropwhile(not_, found)) for name, found in texts.items()}
        labels = {**promoted, **{name: text for name, text in own.items() if text}}
        for labelled in winning:
            labels |= labelled
        labels.pop("__name__", None)
        return {name: text[:MAX_LABEL_CHARACTERS] for name, text in labels.items() if text}

    def _resource(self, resource: Any) -> _Resource:
        key: bytes = resource.SerializeToString()
        found = self._resources.get(key)
        if found is None:
            found = self._read_resource(key, texts_of(resource.attributes))
            if len(self._resources) >= RESOURCES:
                self._resources.clear()
            if len(key) <= RESOURCE_BYTES:
                self._resources[key] = found
        return found

    def _read_resource(self, message: bytes, attributes: dict[str, str]) -> _Resource:
        service, namespace, instance = map(attributes.get, NAMED)
        labels = {}
        if service:
            labels[JOB] = f"{namespace}/{service}" if namespace else service
        if instance:
            labels[INSTANCE] = instance
        promoted = {key: attributes[key] for key in self.naming.promoted if key in attributes and self._is_label(key)}
        beside = {key: text for key, text in attributes.items() if key not in NAMED}
        # One attribute whose key gives no label must not cost a service its metrics.
        beside = dict(islice(((k, text) for k, text in beside.items() if self._is_label(k)), MOST_NAMES - 2))
        info = self._labels(beside, {}, labels) if labels and beside else {}
        target = Series.of(info, number(digest(*labels.items())))
        told, always, process, others = digest(*attributes.items()), b"", b"", None
        if service and instance:
            lasting = {key: text for key, text in attributes.items() if not key.startswith(ADDED)}
            always, process = digest(*lasting.items()), digest(service, namespace or "", instance)
            others = attributes_in_short({key: text for key, text in lasting.items() if key not in NAMED})
        labelled = self._labels(promoted)
        return _Resource(message, labels, labelled, target if info else None, told, always, process, others)

    def _is_label(self, key: str) -> bool:
        try:
            return bool(label_name(key, self.naming.strategy))
        except ValueError:
            return False

    def _scope(self, scope: Any) -> _Scope:
        found = {
            "otel_scope_name": text_of(scope.scope.name),
            "otel_scope_version": text_of(scope.scope.version),
            "otel_scope_schema_url": text_of(scope.schema_url),
        }
        for key, text in texts_of(scope.scope.attributes).items():
            if self._is_label(key := f"otel_scope_{key}"):
                found.setdefault(label_name(key, self.naming.strategy), text)
        return _Scope(found if self.naming.scope_labels else {}, digest(*found.items()))

    def _bury(
        self, offset: int, timestamp: int, index: int, value: bytes, reason: str, detail: str, wrapped: bool = False
    ) -> None:
        """`wrapped`: the points are OTLP now, whatever their message was."""
        place = (self.topic, self.partition, offset, timestamp, index)
        encoding = OTLP if wrapped and self.encoding != OTLP else encoding_of(value)
        self._dead.append(DeadLetter(value, *place, STAGE, reason, detail, encoding))
        self.size += len(value)

    def flush(self) -> MetricFlush:
        """Everything since the last flush."""
        batches = [
            batch
            for (metric, kind, bounds), group in self._groups.items()
            for batch in _batches(metric, kind, bounds, group.points)
        ]
        flushed = MetricFlush(batches, self._dead, self._rows)
        self._groups, self._dead = {}, []
        self.size = self._rows = self.lost = 0
        return flushed


def _batches(metric: str, kind: Kind, bounds: tuple[float, ...], points: Iterable[_Point]) -> Iterable[PointBatch]:
    """The points of a group in records far below what the topic takes."""
    part: list[_Point] = []
    names, size = {JOB, INSTANCE}, 0
    last: tuple[str, ...] = ()
    producer = 0
    for point in points:
        series, _, _, bytes_of = point
        if series.producer != producer:
            producer, bytes_of = series.producer, bytes_of + len(series.resource)
        new = set(series.names) - names if series.names is not last else set()
        if part and (size >= BATCH_CHARACTERS or (new and len(names) + len(new) > MOST_NAMES)):
            yield _batch(metric, kind, bounds, part, names)
            part, names, size = [], {JOB, INSTANCE}, 0
            new = set(series.names)
        part.append(point)
        names |= new
        last = series.names
        size += bytes_of + len(names) + text_bytes(new)
    yield _batch(metric, kind, bounds, part, names)


def _batch(metric: str, kind: Kind, bounds: tuple[float, ...], points: Sequence[_Point], names: set[str]) -> PointBatch:
    in_order = (JOB, INSTANCE, *sorted(names - {JOB, INSTANCE}))
    # A service outlives its instances when label sets fold; a target is both.
    batch = PointBatch(metric, Shape(kind, in_order, bounds, 2 if kind == "info" else 1, open=True))
    last: tuple[str, ...] | None = None
    for series, value, reading, _ in points:
        if series.names is not last:
            slots = {name: slot for slot, name in enumerate(series.names)}
            in_slots = itemgetter(*[slots.get(name, len(slots)) for name in in_order])
            last = series.names
        values = in_slots((*series.values, ""))
        if reading is not None:
            batch.readings.append(Reading(values, value, series.source, *reading, series.target, series.producer))
            if series.resource:
                batch.resources[series.producer] = series.resource
        elif value is not None:
            batch.rows.append((values, value))
    return batch


def _size(series: Series, value: Value | None, bounds: tuple[float, ...]) -> int:
    """About the bytes of a point."""
    numbers = len(bounds)
    if isinstance(value, ExponentialValue):
        numbers += len(value.positive) + len(value.negative)
    return series.size + _POINT_BYTES + _NUMBER_BYTES * numbers


def _why(error: Malformed) -> tuple[str, str]:
    return error.reason, error.detail
