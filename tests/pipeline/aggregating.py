"""`aggregate` between real topics: points that go in, ticks that come out."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from pipeline.config import Config
from pipeline.kafka.topics import Topics
from processors.span_metrics import span_metric_names
from schemas.point import HistogramValue, PointBatch
from schemas.sample import Tick, read_tick
from tests.pipeline.kafka import fresh, producing, read_all
from tests.pipeline.processes import Processes

NAMES = span_metric_names("traces_span_metrics", ["tenant"], [10, 100])
PARTITION = 0
INTERVAL_MS = 200


def configuration(bootstrap: str, **kafka: Any) -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "prefix": fresh("aggregate"),
            "metric_partitions": 1,
            "session_timeout": "6s",
            "heartbeat_interval": "500ms",
            **kafka,
        },
        "inputs": [{"topic": "raw", "signal": "traces"}],
        "sampling": {"policies": [{"name": "all", "type": "always_sample"}]},
        "metrics": {
            "interval": f"{INTERVAL_MS}ms",
            "series_per_metric": 50,
            "span_metrics": {"dimensions": ["tenant"], "buckets_ms": [10.0, 100.0]},
        },
        "telemetry": {"port": 0},
    }


class Pipeline(Processes):
    """Points by number, ticks as the Prometheus sink would read them, workers as processes."""

    def __init__(self, raw: dict[str, Any], folder: Path) -> None:
        super().__init__()
        self.config = Config.model_validate(raw)
        self.topics = Topics(self.config.kafka.prefix)
        self.bootstrap = self.config.kafka.bootstrap_servers[0]
        self.points = TopicPartition(self.topics.points, PARTITION)
        self.file = folder / "tailrace.yaml"
        self.file.write_text(yaml.safe_dump(raw))
        self.produced = 0

    def start(self) -> subprocess.Popen[bytes]:
        """A worker process with the aggregate role."""
        return self.worker(self.file, "aggregate")

    def producer(self, transactional_id: str | None = None) -> contextlib.AbstractAsyncContextManager[AIOKafkaProducer]:
        return producing(self.bootstrap, transactional_id)

    async def produce(self, producer: AIOKafkaProducer, count: int) -> None:
        """`count` spans of as many tenants: one point for each metric."""
        for number in range(self.produced, self.produced + count):
            labels = (f"service-{number % 3}", "GET /", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET", f"tenant-{number}")
            duration = HistogramValue(1, float(number), (0, 1, 0))
            for batch in (
                PointBatch(NAMES.calls, NAMES.calls_shape, 0, [(labels, 1)]),
                PointBatch(NAMES.duration, NAMES.duration_shape, 0, [(labels, duration)]),
            ):
                await (await producer.send(self.points.topic, batch.encode(), partition=PARTITION))
        self.produced += count

    async def records(self) -> list[ConsumerRecord]:
        return sorted(
            (r for r in await read_all(self.bootstrap, self.topics.samples) if r.partition == PARTITION),
            key=lambda r: r.offset,
        )

    async def ticks(self) -> list[Tick]:
        """Every committed tick; raises ProtocolError if one is not whole."""
        values = iter([r.value for r in await self.records()])
        found: list[Tick] = []
        with contextlib.suppress(StopIteration):
            while True:
                first = next(values)
                found.append(read_tick(_chain(first, values)))
        return found

    async def counted(self) -> tuple[float, float, float]:
        """Calls, observations and summed milliseconds of the newest tick."""
        found = await self.ticks()
        return sums(found[-1]) if found else (0, 0, 0)

    @property
    def expected(self) -> tuple[float, float, float]:
        return (self.produced, self.produced, sum(range(self.produced)))


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def sums(tick: Tick) -> tuple[float, float, float]:
    rows = {block.metric: block.rows for block in tick.blocks if block.rows}
    durations = [value for _, value in rows[NAMES.duration] if isinstance(value, HistogramValue)]
    return (
        sum(value for _, value in rows[NAMES.calls] if isinstance(value, int | float)),
        sum(value.observations for value in durations),
        sum(value.sum for value in durations),
    )
