"""A pipeline of worker processes on real servers: topics, configuration, workers, and what can be asked of them."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pipeline.kafka.topics import Topics
from schemas.envelope import Envelope
from tests.end_to_end.truth import POLICIES, UNSAMPLED
from tests.repository import ROOT
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus, Server, eventually, free_port
from tests.services.process import HOST, answers, guarded

DECISION_WAIT = 3.0
COMMIT_INTERVAL = 0.5
SESSION_TIMEOUT = 6.0  # the broker's group.min.session.timeout.ms: how soon a killed worker's partitions move
METRICS_INTERVAL = 2.0
RAW_PARTITIONS = 4
RAW_MESSAGE_BYTES = 34_000_000
READY_SECONDS = 60.0
DELIVERED_SECONDS = 60.0
ALL_ROLES = ("ingest", "sample", "aggregate", "sink.jaeger", "sink.elasticsearch", "sink.prometheus")


class Worker(Server):
    """One `tailrace worker` process. `kill`, `stop` (SIGTERM), `pause` and `start` are those of any server.

    `flags` are further ones of the command line, from the next start on.
    """

    name = "worker"

    def __init__(self, config: Path, roles: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._environment = dict(environment or {})
        self.flags: list[str] = []
        self.roles = tuple(",".join(roles).split(","))
        self._config, self._port = config, free_port()
        self.address = f"{HOST}:{self._port}"

    def command(self) -> list[str]:
        """The console script's module, from this checkout."""
        environment = {"TELEMETRY_PORT": self._port, **self._environment}
        worker = [sys.executable, "-m", "pipeline.cli", "worker", "--config", str(self._config)]
        told = [f"{key}={value}" for key, value in environment.items()]
        return ["env", *told, *worker, "--role", ",".join(self.roles), *self.flags]

    def is_ready(self) -> bool:
        """Whether every role holds its partitions."""
        return answers(f"http://{self.address}/readyz")

    def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(READY_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        return sum(s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items())

    def samples(self) -> list[Sample]:
        """Everything that its page of metrics has."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as page:
            families = text_string_to_metric_families(page.read().decode())
        return [sample for family in families for sample in family.samples]

    def said(self, message: str) -> list[dict[str, Any]]:
        """The lines of its log with this message."""
        lines = (json.loads(text) for text in self.log.read_text().splitlines() if text.startswith("{"))
        return [line for line in lines if line.get("message") == message]

    def assigned(self, role: str) -> set[TopicPartition]:
        """What the group gave it last."""
        told = [line["partitions"] for line in self.said("assigned") if line["role"] == role]
        pairs = (name.rsplit("/", 1) for name in told[-1]) if told else ()
        return {TopicPartition(topic, int(partition)) for topic, partition in pairs}


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where everything ends."""

    jaeger: Jaeger
    elasticsearch: Elasticsearch
    prometheus: Prometheus


@dataclass(slots=True)
class Pipeline:
    """Topics with a prefix of their own, a configuration file, and the workers that run it."""

    kafka: Kafka
    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    destinations: Destinations | None = None
    inputs: list[dict[str, str]] = field(default_factory=list)
    made_by: Path = ROOT
    """The folder of the release that creates the internal topics."""
    workers: list[Worker] = field(default_factory=list)
    admin: AIOKafkaAdminClient = None

    @property
    def topics(self) -> Topics:
        """The internal topics."""
        return Topics(self.name)

    @property
    def spans_topic(self) -> str:
        """Raw spans."""
        return f"{self.name}-otlp-spans"

    @property
    def logs_topic(self) -> str:
        """Raw logs."""
        return f"{self.name}-otlp-logs"

    @property
    def namespace(self) -> str:
        """The first part of the names of the span metrics."""
        return self.name.replace("-", "_")

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.folder / f"{self.name}.yaml"

    def config(self) -> dict[str, Any]:
        """The content of the file; `settings` goes over each section."""
        sinks: dict[str, Any] = {}
        batch = {"max_items": 200, "max_age": "500ms"}
        if self.destinations is not None:
            to = self.destinations
            sinks = {
                "jaeger": {"endpoint": to.jaeger.otlp_http, "batch": batch},
                "elasticsearch": {"endpoint": to.elasticsearch.url, "batch": batch, "dataset": self.namespace},
                "prometheus": {"endpoint": to.prometheus.remote_write_url, "batch": batch},
            }
        config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap,
                "prefix": self.name,
                "start": "earliest",
                "commit_interval": COMMIT_INTERVAL,
                "session_timeout": SESSION_TIMEOUT,
                "heartbeat_interval": SESSION_TIMEOUT / 4,
            },
            "inputs": [
                {"topic": self.spans_topic, "signal": "traces"},
                {"topic": self.logs_topic, "signal": "logs"},
                *self.inputs,
            ],
            "sampling": {"decision_wait": DECISION_WAIT, "policies": POLICIES},
            "logs": {"unsampled": UNSAMPLED},
            "metrics": {"interval": METRICS_INTERVAL, "span_metrics": {"namespace": self.namespace}},
            "sinks": sinks,
            "telemetry": {"port": "${TELEMETRY_PORT:-0}"},
        }
        for section, values in self.settings.items():
            config[section] = config.get(section, {}) | values
        return config

    async def run(
        self, *arguments: str, program: Sequence[str] = ("-m", "pipeline.cli"), release: Path = ROOT
    ) -> tuple[int, str]:
        """A command of the command line of a release: its exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *guarded([sys.executable, *program, *arguments]),
            cwd=release,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    async def prepare(self) -> None:
        """Create the raw topics, write the file, create the internal topics with the command for it."""
        self.write()
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await self.admin.start()
        large = {"max.message.bytes": str(RAW_MESSAGE_BYTES)}
        raw = [item["topic"] for item in self.config()["inputs"]]
        answer = await self.admin.create_topics([NewTopic(n, RAW_PARTITIONS, 1, topic_configs=large) for n in raw])
        assert not any(code for _, code, *_ in answer.topic_errors), answer
        code, printed = await self.run("topics", str(self.file), "--create", release=self.made_by)
        assert code == 0, printed

    def write(self) -> None:
        """Write the file."""
        self.file.write_text(json.dumps(self.config(), indent=2))  # JSON is YAML

    async def start(self, *roles: str, **environment: str) -> Worker:
        """A new worker with these roles, ready."""
        worker = Worker(self.file, roles, environment)
        self.workers.append(worker)
        await asyncio.to_thread(worker.start)
        return worker

    def show_logs(self) -> None:
        """What the workers said, for the report of a failed test."""
        for worker in self.workers:
            tail = worker.log.read_text(errors="replace").splitlines()[-30:]
            print(f"--- {','.join(worker.roles)} (pid {worker.pid}):", *tail, sep="\n")

    # ---- what the log says ---------------------------------------------------------------------------------

    async def partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        found = await self.admin.describe_topics(list(topics))
        return [TopicPartition(t["topic"], p["partition"]) for t in found for p in t["partitions"]]

    async def committed(self, role: str) -> dict[TopicPartition, int]:
        """The offsets of a role's group."""
        try:
            found = await self.admin.list_consumer_group_offsets(self.topics.group(role))
        except GroupCoordinatorNotAvailableError:  # the broker's very first group: its topic is being made
            return {}
        return {p: o.offset for p, o in found.items() if o.offset >= 0}

    async def members(self, role: str) -> int:
        """How many workers the role's group has; 0 while it rebalances."""
        (answer,) = await self.admin.describe_consumer_groups([self.topics.group(role)])
        (code, _, state, _, _, members, *_) = answer.groups[0]
        if code:
            raise for_code(code)
        return len(members) if state == "Stable" else 0

    async def records(
        self, topics: Collection[str], since: Mapping[TopicPartition, int] | None = None
    ) -> list[ConsumerRecord]:
        """Every committed record of these topics at or after `since` (default: the beginning), up to now."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=RAW_MESSAGE_BYTES,
        )
        await consumer.start()
        try:
            partitions = await self.partitions(topics)
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                consumer.seek(partition, (since or {}).get(partition, 0))
            found: list[ConsumerRecord] = []
            waiting = set(partitions)
            while waiting:
                for fetched in (await consumer.getmany(timeout_ms=50)).values():
                    found += fetched
                waiting = {p for p in waiting if await consumer.position(p) < ends[p]}
            return found
        finally:
            await consumer.stop()

    async def read(self, role: str, topics: Collection[str]) -> dict[TopicPartition, int]:
        """Records of these topics before the role's offsets. Unlike offsets, they skip the markers of transactions."""
        offsets = await self.committed(role)
        counts: dict[TopicPartition, int] = defaultdict(int)
        for record in await self.records(topics):
            partition = TopicPartition(record.topic, record.partition)
            counts[partition] += record.offset < offsets.get(partition, 0)
        return counts

    @asynccontextmanager
    async def open_transactions(
        self, topics: Collection[str]
    ) -> AsyncIterator[Callable[[], Awaitable[set[tuple[TopicPartition, int]]]]]:
        """A function that tells where written records wait for a commit: partitions, and the first such offset."""
        everything, stable = (
            AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap, isolation_level=level)
            for level in ("read_uncommitted", "read_committed")
        )
        partitions = await self.partitions(topics) if topics else []

        async def opened() -> set[tuple[TopicPartition, int]]:
            if not partitions:
                return set()
            decided = await stable.end_offsets(partitions)
            written = await everything.end_offsets(partitions)
            return {(p, decided[p]) for p in partitions if decided[p] < written[p]}

        await everything.start()
        await stable.start()
        try:
            yield opened
        finally:
            await everything.stop()
            await stable.stop()

    async def ingested(self) -> bool:
        """Whether every raw record has been read."""
        raw = [item["topic"] for item in self.config()["inputs"]]
        return not await self.records(raw, since=await self.committed("ingest"))

    async def sampled(self) -> bool:
        """Whether every row has been passed by the tail; marks may come for ever."""
        topics = [self.topics.spans, self.topics.logs]
        left = await self.records(topics, since=await self.committed("sample"))
        return not any(len(Envelope.decode(record.value)) for record in left)

    async def sent(self, sink: str) -> bool:
        """Whether a sink has nothing left to send."""
        logs = [self.topics.kept_logs, self.topics.untraced_logs]
        topics = [self.topics.kept_spans] if sink.startswith("jaeger") else logs
        return not await self.records(topics, since=await self.committed(f"sink.{sink}"))

    async def settled(self, deadline: float = DELIVERED_SECONDS) -> None:
        """Wait until everything that was sent has gone all the way."""
        await eventually(self.ingested, deadline, "every raw record is read")
        await eventually(self.sampled, deadline, "every row is passed")
        for sink in self.config()["sinks"]:
            if not sink.startswith("prometheus"):
                await eventually(lambda sink=sink: self.sent(sink), deadline, f"sink {sink} has sent everything")  # type: ignore[misc]


@asynccontextmanager
async def running(pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    """A prepared pipeline; its workers end with the block, and show their logs if it failed."""
    try:
        await pipeline.prepare()
        yield pipeline
    except BaseException:
        pipeline.show_logs()
        raise
    finally:
        async with AsyncExitStack() as ends:  # each of them, whatever another raises
            if pipeline.admin is not None:
                ends.push_async_callback(pipeline.admin.close)
            for worker in pipeline.workers:
                ends.callback(worker.close)
                ends.callback(worker.kill)
