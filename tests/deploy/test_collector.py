"""The shipped Collector configuration and the traffic generator, with a real Collector and a real Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from uuid import uuid4

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from pipeline.demo.send import send
from pipeline.demo.traffic import Traffic
from processors.metric_points import MetricPoints, Naming
from tests.repository import read_yaml
from tests.services import Collector, Kafka

NOON = 1_800_000_000_000_000_000
PARTITIONS = 4


async def no_wait(_: float) -> None:
    """The traffic is sent as fast as it is taken."""


def count_something(otlp_http: str) -> None:
    """One point of an SDK."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{otlp_http}/v1/metrics"), export_interval_millis=inf)
    provider = MeterProvider([reader])
    provider.get_meter("test").create_counter("orders").add(1)
    assert provider.force_flush()
    provider.shutdown()


async def test_everything_sent_is_in_the_raw_topics_once_it_is_answered(kafka: Kafka) -> None:
    topics = [f"{signal}-{uuid4().hex[:8]}" for signal in ("spans", "logs", "metrics")]
    spans_topic, _, metrics_topic = topics
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics])
    await admin.close()
    config = read_yaml("deploy/otel-collector/config.yaml")
    del config["receivers"]  # fixed ports; the fixture puts free ones there
    exporter = config["exporters"]["kafka"]
    exporter["brokers"] = [kafka.bootstrap]
    for signal, topic in zip(("traces", "logs", "metrics"), topics, strict=True):
        exporter[signal]["topic"] = topic

    messages = [message for message in Traffic(7, 500, 3, NOON, 10).messages() if not message.dead_letters]
    with Collector(config) as collector:
        await send(messages, collector.otlp_http, no_wait)
        await asyncio.to_thread(count_something, collector.otlp_http)

    found: Counter[str] = Counter()
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if partition.topic == spans_topic:
                        resources = TracesData.FromString(record.value).resource_spans
                        found["spans"] += sum(len(scope.spans) for one in resources for scope in one.scope_spans)
                    elif partition.topic == metrics_topic:
                        points = MetricPoints(metrics_topic, 0, "otlp_proto", Naming(), 1 << 20)
                        points.add(record.offset, record.timestamp, record.value)
                        found["metrics"] += points.flush().rows
                    else:
                        logs = LogsData.FromString(record.value).resource_logs
                        found["logs"] += sum(len(scope.log_records) for one in logs for scope in one.scope_logs)
    finally:
        await consumer.stop()
    sent = Counter(spans=sum(len(m.spans) for m in messages), logs=sum(len(m.logs) for m in messages), metrics=1)
    assert found == sent
    assert found["spans"] > 1000
