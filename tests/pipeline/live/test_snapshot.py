"""What one worker says: the same over the wire, and as much as /metrics tells of one without a page."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline.live.snapshot import Cell, Limit, Sample, Snapshot, Step, TraceSummary, of_registry, of_text
from schemas.errors import Malformed


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("tailrace_records_read_total", "-", ["role", "topic"], registry=registry).labels("ingest", 'a"b').inc(7)
    Counter("other_total", "-", registry=registry).inc()
    Histogram("tailrace_transaction_seconds", "-", registry=registry).observe(2.5)
    for name, value in {"active": 40, "demand": 90, "limit": 50}.items():
        Gauge(f"tailrace_label_values_{name}", "-", ["metric", "label"], registry=registry).labels("m", "l").set(value)
    for name, value in {"active": 1000, "demand": 1001, "budget": 1200}.items():
        Gauge(f"tailrace_series_{name}", "-", ["metric"], registry=registry).labels("m").set(value)
    Counter("tailrace_label_overflow_points_total", "-", ["metric", "label"], registry=registry).labels("m", "l").inc(5)
    Counter("tailrace_overflow_points_total", "-", ["metric"], registry=registry).labels("m").inc(6)
    return registry


def test_metrics_over_the_wire_are_those_of_the_worker(registry: CollectorRegistry) -> None:
    own = of_registry(registry)
    assert Sample("tailrace_records_read_total", {"role": "ingest", "topic": 'a"b'}, 7) in own
    assert Sample("tailrace_transaction_seconds_sum", {}, 2.5) in own
    assert {sample.name.split("_")[0] for sample in own} == {"tailrace"}
    assert not [sample for sample in own if sample.name.endswith(("_bucket", "_created"))]
    assert of_text(generate_latest(registry).decode(), 1.0).samples == own


def test_limits_are_known_from_the_gauges(registry: CollectorRegistry) -> None:
    limits = of_text(generate_latest(registry).decode(), 1.0).limits
    assert sorted(limits, key=lambda limit: limit.label) == [
        Limit("m", "", 1200, 1000, 1001, 6), Limit("m", "l", 50, 40, 90, 5)
    ]  # fmt: skip


def test_a_snapshot_survives_the_wire() -> None:
    snapshot = Snapshot(
        5.5,
        [Sample("tailrace_ready", {"role": "ingest"}, 1.0)],
        [Step(4, [1.0, 2.0], {"cart": Cell(3, 1, [1, 1, 1])})],
        [Limit("m", "l", 1, 1, 2, 3, [])],
        [TraceSummary("0" * 32, "errors", "cart", "GET /", 1.5, 2.5, 3, 4, True, False)],
    )
    assert Snapshot.decode(snapshot.encode()) == snapshot


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"time": 1, "samples": [1], "steps": [], "limits": [], "traces": []}']
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Snapshot.decode(data)


def test_foreign_text_is_refused() -> None:
    with pytest.raises(Malformed):
        of_text("<html>not metrics</html>", 1.0)
