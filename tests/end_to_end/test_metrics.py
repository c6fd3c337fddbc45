"""OTLP metrics of a real SDK through real topics and workers, killed on the way, into a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.sdk.metrics.export import AggregationTemporality

from tests.end_to_end.harness import Pipeline, running
from tests.end_to_end.sdk_metrics import Program, Truth
from tests.services import Kafka, Prometheus, eventually

DEADLINE = 40.0
JOINED = "sum by (service_version) (shop_orders_total * on (job, instance) group_left (service_version) target_info)"
ROUNDS = 12  # exports of every program between two kills
SUMS = {
    "shop_orders_total": "sum by (job) (shop_orders_total)",
    "connections": "sum by (job) (connections)",
    "pool_size": "sum by (job) (pool_size)",
    "cpu_time_seconds_total": "sum by (job) (cpu_time_seconds_total)",
    "http_server_request_duration_seconds_count": "sum by (job) (http_server_request_duration_seconds_count)",
    "http_server_request_duration_seconds_sum": "sum by (job) (http_server_request_duration_seconds_sum)",
    "at most 2.5 s": 'sum by (job) (http_server_request_duration_seconds_bucket{le="2.5"})',
    "http_server_response_size_bytes": "histogram_sum(sum by (job) (http_server_response_size_bytes))",
}


def query(prometheus: Prometheus, expression: str, label: str = "job") -> dict[str, float]:
    """The values of an instant query, by a label."""
    url = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return {series["metric"].get(label, ""): float(series["value"][1]) for series in found}


def summary() -> bytes:
    """Which SDKs do not make any more; a Collector's receivers do."""
    data = MetricsData()
    resource = data.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "batch"
    point = resource.scope_metrics.add().metrics.add(name="job.duration", unit="s").summary.data_points.add()
    point.count, point.sum = 7, 3.5
    point.start_time_unix_nano, point.time_unix_nano = 1, 2
    for quantile, value in ((0.5, 0.25), (0.99, 2.0)):
        point.quantile_values.add(quantile=quantile, value=value)
    return bytes(data.SerializeToString())


def impostor() -> bytes:
    """A gauge under the name that a counter has already."""
    data = MetricsData()
    metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name="shop_orders_total")
    metric.gauge.data_points.add(time_unix_nano=1, as_int=1)
    return bytes(data.SerializeToString())


async def test_promql_says_what_the_sdk_measured_whoever_is_killed(
    kafka: Kafka, prometheus: Prometheus, tmp_path: Path
) -> None:
    """Two services of two instances, one with cumulative and one with delta temporality; an instance restarts."""
    sink = {"endpoint": prometheus.remote_write_url, "batch": {"max_items": 200, "max_age": "500ms"}}
    pipeline = Pipeline(kafka, tmp_path, "otlpm", {"sinks": {"prometheus": sink}, "metrics": {"interval": "1s"}})
    pipeline.inputs.append({"topic": "otlpm-metrics", "signal": "metrics"})
    truth: Truth = Counter()
    programs = [
        Program(job, instance, temporality, truth)
        for job, temporality in (("cart", AggregationTemporality.CUMULATIVE), ("pay", AggregationTemporality.DELTA))
        for instance in ("1", "2")
    ]

    async with running(pipeline):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
        await producer.start()

        async def export() -> None:
            """As four exporters would, in any partition."""
            for _ in range(ROUNDS):
                for program in programs:
                    program.work()
                    await producer.send_and_wait("otlpm-metrics", program.export())

        async def found() -> dict[str, dict[str, float]]:
            return await asyncio.to_thread(lambda: {name: query(prometheus, e) for name, e in SUMS.items()})

        def measured() -> dict[str, dict[str, float]]:
            return {name: {job: truth[name, job] for job in ("cart", "pay")} for name in SUMS}

        async def told() -> bool:
            return await found() == measured()

        async def settled(what: str) -> None:
            try:
                await eventually(told, DEADLINE, what)
            except TimeoutError:
                assert await found() == measured()
                raise

        try:
            ingest, aggregate, _ = await asyncio.gather(
                *map(pipeline.start, ("ingest", "aggregate", "sink.prometheus"))
            )
            await export()
            await settled("Prometheus has what was measured")
            for victim in (ingest, aggregate):
                flowing = asyncio.create_task(export())
                offsets = await pipeline.committed("ingest")
                await eventually(lambda offsets=offsets: _moved(pipeline, offsets), DEADLINE, "metrics flow")  # type: ignore[misc]
                victim.kill()
                await flowing
                await pipeline.start(*victim.roles)
            programs[0].restart()
            await producer.send_and_wait("otlpm-metrics", b"\x0a\x03not")
            await producer.send_and_wait("otlpm-metrics", summary())
            await producer.send_and_wait("otlpm-metrics", impostor())
            await export()
            await settled("Prometheus has what was measured, after two kills and a restart")
        finally:
            await producer.stop()
        loads = {program.instance: program.load for program in programs if program.job == "cart"}
        orders = sum(truth["shop_orders_total", job] for job in ("cart", "pay"))
        for expression, label, expected in (
            ("job_duration_seconds", "quantile", {"0.5": 0.25, "0.99": 2.0}),
            ("job_duration_seconds_count", "job", {"batch": 7}),
            ('cpu_load_ratio{job="cart"}', "instance", loads),
            ('cpu_temperature_celsius{job="cart"}', "instance", {name: 40 + load for name, load in loads.items()}),
            (JOINED, "service_version", {"1.0": orders}),
            ("sum by (otel_scope_name) (shop_orders_total)", "otel_scope_name", {"shop": orders}),
        ):
            assert await says(prometheus, expression, label, expected) == expected
        letters = await pipeline.records([pipeline.topics.dlq])
        told_of = [{name: value.decode() for name, value in letter.headers} for letter in letters]
        assert {(header["stage"], header["reason"]) for header in told_of} == {
            ("ingest", "malformed"),
            ("aggregate", "name_taken"),
        }
        assert len(letters) == 2
        assert b"\x0a\x03not" in [letter.value for letter in letters]


async def says(prometheus: Prometheus, expression: str, label: str, expected: Mapping[str, float]) -> dict[str, float]:
    """The answer to a query, once it is the one that is expected or the deadline is over."""

    async def same() -> bool:
        return await asyncio.to_thread(query, prometheus, expression, label) == expected

    with contextlib.suppress(TimeoutError):
        await eventually(same, DEADLINE, expression)
    return query(prometheus, expression, label)


async def _moved(pipeline: Pipeline, since: dict[Any, int]) -> bool:
    return await pipeline.committed("ingest") != since
