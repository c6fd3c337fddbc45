"""What every benchmark stands on: topics, a configuration file and workers, one role per process, on one broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from bench.load import Signal
from bench.measure import Meter
from pipeline.config import Config
from pipeline.configuration.config_file import load as load_config
from pipeline.kafka.topics import Topics, ensure
from tests.end_to_end.harness import Worker
from tests.services import Kafka
from tests.services.process import HOST, answers

POLICIES: list[dict[str, Any]] = [
    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
    {"name": "share", "type": "probabilistic", "probabilistic": {"sampling_percentage": 5}},
]
SILENT = 0  # librdkafka prints to standard error when the broker goes away; what matters is raised
ADMIN_SECONDS = 30.0
READ_SECONDS = 60.0
IDLE_CALM, IDLE_SLICES, IDLE_SLICE = 5.0, 5, 1.5  # seconds, count, seconds
# The transaction coordinator's and the group coordinator's own logs: what transactions write beside our topics.
COORDINATORS = ("__transaction_state", "__consumer_offsets")

Place = tuple[str, int]
"""A topic and a partition of it."""


def idle_cpu(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds per second of processes that nobody asks anything: the median of IDLE_SLICES after IDLE_CALM.

    A broker that has just made topics is busy for a while; slices keep one burst of its own work out.
    """
    time.sleep(IDLE_CALM)
    slices = []
    for _ in range(IDLE_SLICES):
        meter = Meter(pids)
        time.sleep(IDLE_SLICE)
        slices.append(meter.rates()[1])
    return {name: median(found[name] for found in slices) for name in pids}


class Starting(Worker):
    """A worker that counts as started when its process answers, before it has joined its group."""

    def is_ready(self) -> bool:
        """Whether it serves pages: imports and configuration are done."""
        return answers(f"http://{HOST}:{self._port}/healthz")


def laid_over(settings: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of `sections` in their place, key by key of a section."""
    merged = dict(settings)
    for section, values in sections.items():
        merged[section] = merged.get(section, {}) | values if isinstance(values, Mapping) else values
    return merged


class Testbed:
    """One pipeline with a prefix of its own. Close it to end its workers.

    It makes two raw topics, unless `inputs` names others. `sections` go over those of its configuration file, other
    values in their place.
    """

    __test__ = False  # not for pytest

    def __init__(
        self,
        kafka: Kafka,
        prefix: str,
        raw_partitions: int,
        sections: Mapping[str, Any],
        inputs: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.kafka, self.prefix, self.raw_partitions, self._inputs = kafka, prefix, raw_partitions, inputs
        self.topics = Topics(prefix)
        self.workers: dict[str, Worker] = {}
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": SILENT})
        self._file = kafka.data / f"{prefix}.yaml"
        self._file.write_text(json.dumps(self._settings(sections), indent=2), encoding="utf-8")  # JSON is YAML
        self.config: Config = load_config(self._file, {})
        if not inputs:
            create_topics(kafka, self.raw, raw_partitions)
        if problems := asyncio.run(ensure(self.config)):
            raise RuntimeError("; ".join(map(str, problems)))

    def _settings(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "kafka": {"bootstrap_servers": self.kafka.bootstrap, "prefix": self.prefix, "start": "earliest"},
            "inputs": self._inputs
            or [{"topic": self.raw[0], "signal": "traces"}, {"topic": self.raw[1], "signal": "logs"}],
            "sampling": {"policies": POLICIES},
            "telemetry": {"port": "${TELEMETRY_PORT:-0}"},
        }
        return laid_over(settings, sections)

    @property
    def file(self) -> Path:
        """Its configuration file."""
        return self._file

    @property
    def raw(self) -> tuple[str, str]:
        """The raw topics of spans and of logs."""
        return f"{self.prefix}-raw-spans", f"{self.prefix}-raw-logs"

    @property
    def load_topics(self) -> dict[Signal, tuple[str, int]]:
        """Where a load is written to."""
        return {"traces": (self.raw[0], self.raw_partitions), "logs": (self.raw[1], self.raw_partitions)}

    @property
    def internal(self) -> list[str]:
        """The topics that the roles write."""
        t = self.topics
        return [
            t.spans, t.logs, t.untraced_logs, t.decisions, t.kept_spans, t.kept_logs, t.points, t.samples, t.dlq
        ]  # fmt: skip

    def start(self, role: str, *, kind: type[Worker] = Worker, cpus: Collection[int] = ()) -> Worker:
        """A process of its own for one role; when this returns it holds its partitions (`Starting`: it runs)."""
        worker = kind(self._file, [role])
        worker.cpus = cpus
        self.workers[role] = worker
        worker.start()
        return worker

    def close(self) -> None:
        """Ask the workers to end. Topics stay: their deletion would cost the broker a minute later."""
        for worker in self.workers.values():
            worker.close()

    def show_logs(self, roles: Collection[str]) -> None:
        """What these workers said last."""
        for role in roles:
            print(f"--- {role}:", *self.workers[role].log.read_text(errors="replace").splitlines()[-20:], sep="\n")

    # ---- what Kafka holds --------------------------------------------------------------------------------

    def ends(self, topics: Collection[str]) -> dict[Place, int]:
        """End offsets, records of open transactions and control records included."""
        known = self._admin.list_topics(timeout=ADMIN_SECONDS).topics
        wanted = {
            TopicPartition(name, partition): OffsetSpec.latest()
            for name in topics
            if name in known
            for partition in known[name].partitions
        }
        found = self._admin.list_offsets(wanted)
        return {(p.topic, p.partition): future.result(ADMIN_SECONDS).offset for p, future in found.items()}

    def visible(self, since: Mapping[Place, int], until: Mapping[Place, int]) -> Iterator[Message]:
        """The committed records between two states of `ends`; control records and aborted ones are not among them."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "group.id": f"{self.prefix}-bench",
                "enable.auto.commit": False,
                "log_level": SILENT,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )
        left = {place for place, end in until.items() if end > since.get(place, 0)}
        consumer.assign([TopicPartition(name, p, since.get((name, p), 0)) for name, p in left])
        try:
            silent_since = time.monotonic()
            while left:
                if time.monotonic() - silent_since > READ_SECONDS:
                    raise TimeoutError(f"{len(left)} partitions cannot be read to their ends")
                for message in consumer.consume(5000, 0.2):
                    silent_since = time.monotonic()
                    place = (message.topic(), message.partition())
                    error = message.error()
                    if error is None and message.offset() < until[place]:
                        yield message
                    elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise RuntimeError(str(error))
                    # Control records are skipped silently: the end of the partition may be all there is to see.
                    if error is not None or message.offset() >= until[place] - 1:
                        left.discard(place)
        finally:
            consumer.close()

    def stored_bytes(self, topics: Sequence[str]) -> dict[str, int]:
        """See the function of the same name."""
        return stored_bytes(self.kafka, topics)


def create_topics(kafka: Kafka, names: Sequence[str], partitions: int, config: Mapping[str, str] | None = None) -> None:
    """New topics."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": SILENT})
    new = [NewTopic(name, partitions, 1, config=dict(config or {})) for name in names]
    for future in admin.create_topics(new).values():
        future.result(ADMIN_SECONDS)


def stored_bytes(kafka: Kafka, topics: Sequence[str]) -> dict[str, int]:
    """Bytes of each topic's log on the broker's disk: what was written and must be read again, indexes aside."""
    logs = kafka.data / "logs"
    return {name: sum(_size(file) for file in logs.glob(f"{name}-*/*.log") if _is_of(file, name)) for name in topics}


def _is_of(file: Path, topic: str) -> bool:
    """Whether a segment belongs to the topic and not to one whose name begins like it."""
    return file.parent.name.removeprefix(f"{topic}-").isdecimal()


def _size(file: Path) -> int:
    return file.stat().st_size
