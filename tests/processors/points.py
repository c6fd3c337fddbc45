"""OTLP metrics through `MetricPoints`: messages, and what became of them."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from processors.metric_points import MetricPoints, Naming
from schemas.point import PointBatch
from tests.schemas.rows import attribute

MS = 1_000_000
START, NOW = 1_700_000_000_000, 1_700_000_060_000


def message(resource: dict[str, Any] | None = None) -> tuple[MetricsData, Any]:
    """A message, and its list of metrics."""
    data = MetricsData()
    part = data.resource_metrics.add()
    for key, value in (resource if resource is not None else {"service.name": "shop"}).items():
        part.resource.attributes.append(attribute(key, value))
    return data, part.scope_metrics.add().metrics


def timed(point: Any, **attributes: Any) -> Any:
    point.start_time_unix_nano, point.time_unix_nano = START * MS, NOW * MS
    for key, value in attributes.items():
        point.attributes.append(attribute(key, value))
    return point


def processor(encoding: str = "otlp_proto", naming: Naming | None = None, limit: int = 1 << 24) -> MetricPoints:
    return MetricPoints("raw", 3, encoding, naming or Naming(), limit)


def read(data: MetricsData | bytes, *args: Any) -> tuple[dict[str, PointBatch], list[tuple[str, bytes]]]:
    """Batches by metric, and dead letters as (reason, bytes): the same when its series are known already."""
    reader = processor(*args)
    value = data if isinstance(data, bytes) else data.SerializeToString()
    reader.add(7, NOW + 1, value)
    flushed = reader.flush()
    reader.add(7, NOW + 1, value)
    assert repr(reader.flush()) == repr(flushed)
    batches = [PointBatch.decode(batch.encode()) for batch in flushed.batches]
    assert batches == flushed.batches
    assert not reader.size
    assert {(d.topic, d.partition, d.offset, d.timestamp) for d in flushed.dead_letters} <= {("raw", 3, 7, NOW + 1)}
    return {batch.metric: batch for batch in batches}, [(d.reason, d.value) for d in flushed.dead_letters]
