"""Logs without a trace id, each with a text of its own, at an even pace."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Producer
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

PER_MESSAGE = 20
FLUSH_SECONDS = 30.0


def write_untraced(bootstrap: str, topic: str, partitions: int, per_second: float, stopped: threading.Event) -> None:
    """Until told to stop. Raises RuntimeError when Kafka did not take them all."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": "all", "log_level": 0})
    began, number = time.monotonic(), 0
    while not stopped.is_set():
        data = LogsData()
        resource = data.resource_logs.add()
        name = resource.resource.attributes.add(key="service.name")
        name.value.string_value = "gateway"
        records = resource.scope_logs.add().log_records
        for row in range(number, number + PER_MESSAGE):
            records.append(LogRecord(time_unix_nano=time.time_ns(), severity_number=9))  # type: ignore[arg-type]
            records[-1].body.string_value = f"request {row} served"
        producer.produce(topic, data.SerializeToString(), partition=number // PER_MESSAGE % partitions)
        producer.poll(0)
        number += PER_MESSAGE
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
    if left := producer.flush(FLUSH_SECONDS):
        raise RuntimeError(f"{left} messages of logs were not acknowledged")


def texts(value: bytes) -> list[str]:
    """The texts of a message's logs that have no trace id."""
    data = LogsData.FromString(value)
    return [
        record.body.string_value
        for resource in data.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if not record.trace_id
    ]
