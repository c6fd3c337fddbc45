"""ingest and sample between real topics: what goes in, what is to be seen in the topics behind them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from pipeline.config import Config
from pipeline.kafka import topics
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.topics import Topics
from pipeline.worker import Worker
from schemas.decision import DecisionRecord
from schemas.envelope import Envelope
from schemas.ids import trace_key
from schemas.point import PointBatch
from tests.pipeline.kafka import DEADLINE, create, fresh, producing, read_all
from tests.pipeline.processes import Processes
from tests.schemas.rows import scan_span
from tests.services import eventually

DECISION_WAIT_MS = 1_000


def configuration(bootstrap: str, raw: str, **kafka: Any) -> dict[str, Any]:
    """Errors are kept; traces from `raw`, logs from `raw`.logs."""
    return {
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "prefix": fresh("stages"),
            "partitions": 2,
            "metric_partitions": 1,
            "start": "earliest",
            "session_timeout": "6s",
            "heartbeat_interval": "500ms",
            "commit_interval": "100ms",
            **kafka,
        },
        "inputs": [{"topic": raw, "signal": "traces"}, {"topic": f"{raw}.logs", "signal": "logs"}],
        "sampling": {
            "decision_wait": f"{DECISION_WAIT_MS}ms",
            "policies": [
                {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
            ],
        },
        "telemetry": {"port": 0},
    }


class Stages(Processes):
    """One pipeline: raw topics, internal topics, workers as processes. SECTIONS are further ones of its file."""

    SECTIONS: ClassVar[dict[str, Any]] = {}

    def __init__(self, bootstrap: str, folder: Path, **kafka: Any) -> None:
        super().__init__()
        self.bootstrap, self.raw = bootstrap, fresh("raw")
        self.settings = {**configuration(bootstrap, self.raw, **kafka), **self.SECTIONS}
        self.config = Config.model_validate(self.settings)
        self.topics = Topics(self.config.kafka.prefix)
        self.file = folder / "tailrace.yaml"
        self.file.write_text(yaml.safe_dump(self.settings))
        self.produced: dict[str, int] = {}

    async def create(self, raw: int = 2) -> Self:
        """All topics; `raw` partitions of spans, one of logs, or as many where they are keyed."""
        await create(self.bootstrap, {self.raw: raw, f"{self.raw}.logs": 1 if self.config.regroup == "always" else raw})
        await self.ensured()
        return self

    async def ensured(self, problems: bool = False) -> None:
        """The internal topics; `problems`: something is wrong with the others."""
        assert bool(await topics.ensure(self.config)) == problems

    def start(self, *roles: str) -> subprocess.Popen[bytes]:
        """A worker process."""
        return self.worker(self.file, *roles)

    async def has_members(self, role: str, count: int) -> bool:
        """Whether the role's group is stable with so many members."""
        async with administration(self.bootstrap) as admin:
            try:
                (answer,) = await admin.describe_consumer_groups([self.topics.group(role)])
            except KafkaError:
                return False  # the coordinator is about to be there
        (_, _, state, _, _, members, *_) = answer.groups[0]
        return state == "Stable" and len(members) == count

    async def create_seen(self, topic: str, count: int) -> None:
        """Wait until the brokers know that a topic has so many partitions."""

        async def seen() -> bool:
            return (await partition_counts(self.config, [topic])).get(topic) == count

        await eventually(seen, DEADLINE, f"{topic} has {count} partitions")

    def producer(self, transactional_id: str | None = None) -> contextlib.AbstractAsyncContextManager[AIOKafkaProducer]:
        return producing(self.bootstrap, transactional_id)

    async def produce(self, producer: AIOKafkaProducer, *names: str, partition: int = 0, at: int | None = None) -> None:
        """One raw message of spans (`trace/span`, `!` failed) with its timestamp in ms."""
        value = traces(*names)
        for name in names:
            self.produced[name] = self.produced.get(name, 0) + 1
        await producer.send_and_wait(self.raw, value, partition=partition, timestamp_ms=at)

    async def records(self, topic: str) -> list[ConsumerRecord]:
        return sorted(await read_all(self.bootstrap, topic), key=lambda r: (r.partition, r.offset))

    async def envelopes(self, topic: str) -> list[tuple[ConsumerRecord, Envelope]]:
        return [(record, Envelope.decode(record.value)) for record in await self.records(topic)]

    async def names(self, topic: str) -> Counter[str]:
        """Span names in a topic."""
        found: Counter[str] = Counter()
        for _, envelope in await self.envelopes(topic):
            for row in map(envelope.row, range(len(envelope))):
                found[scan_span(row, 0, len(row), {}).name.decode()] += 1
        return found

    async def marks(self, topic: str, raw: int, output: int = 0) -> list[tuple[int, int]]:
        """(mark, append time) of one raw partition in one output partition, in the order of the log."""
        return [
            (envelope.mark, record.timestamp)
            for record, envelope in await self.envelopes(topic)
            if (envelope.partition, record.partition) == (raw, output) and envelope.mark >= 0
        ]

    async def verdicts(self) -> dict[str, list[str]]:
        """Trace → policies of its verdicts."""
        keys = {trace_key(trace_id(name)): name.split("/")[0] for name in self.produced}
        found: dict[str, list[str]] = {}
        for record in await self.records(self.topics.decisions):
            decisions = DecisionRecord.decode(record.value)
            for key, verdict in zip(decisions.keys, decisions.verdicts, strict=True):
                found.setdefault(keys.get(key, "?"), []).append(verdict.policy)
        return found

    async def counted(self) -> float:
        """Spans in the span metrics."""
        batches = [PointBatch.decode(record.value) for record in await self.records(self.topics.points)]
        calls = [batch for batch in batches if batch.shape.kind == "counter"]
        return sum(n for batch in calls for _, n in batch.rows if isinstance(n, int | float))

    async def settled(self, deadline: float = DEADLINE) -> None:
        """Every trace that was produced is decided, the kept ones forwarded once, every span counted once."""
        failed = {name.split("/")[0] for name in self.produced if name.endswith("!")}
        kept = {name: count for name, count in self.produced.items() if name.split("/")[0] in failed}
        total = sum(self.produced.values())

        async def all_there() -> bool:
            found = await self.names(self.topics.kept_spans)
            return found.total() >= sum(kept.values()) and await self.counted() >= total

        with contextlib.suppress(TimeoutError):  # what is missing is told below
            await eventually(all_there, deadline, "everything that was produced is decided, forwarded and counted")
        found = await self.names(self.topics.kept_spans)
        assert found == Counter(kept), f"missing {Counter(kept) - found}, surplus {found - Counter(kept)}"
        assert await self.counted() == total
        for trace, policies in (await self.verdicts()).items():
            assert set(policies) == {"errors" if trace in failed else ""}


class Unhurried(Stages):
    """Commits once an hour, but for what is in more of a hurry."""

    SECTIONS = {
        "sampling": {**configuration("", "")["sampling"], "ingest_stall_limit": "4h"},
        "logs": {"max_skew": "4h"},
    }

    def __init__(self, bootstrap: str, folder: Path) -> None:
        super().__init__(bootstrap, folder, commit_interval="1h")


@contextlib.asynccontextmanager
async def administration(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, closed on the way out."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def trace_id(name: str) -> bytes:
    """The trace of `trace/span`."""
    return name.split("/")[0].encode().rjust(16, b"\x01")[-16:]


def traces(*names: str) -> bytes:
    """A message of these spans."""
    data = TracesData()
    part = data.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = part.scope_spans.add()
    for name in names:
        span = Span(trace_id=trace_id(name), span_id=name.encode().rjust(8, b"\x01")[-8:], name=name)
        if name.endswith("!"):
            span.status.code = Status.STATUS_CODE_ERROR
        scope.spans.append(span)
    return bytes(data.SerializeToString())


def log_of(name: str, body: str) -> bytes:
    """A message of one log of a trace; without a name it belongs to none."""
    data = LogsData()
    record = data.resource_logs.add().scope_logs.add().log_records.add(trace_id=trace_id(name) if name else b"")
    record.body.string_value = body
    return bytes(data.SerializeToString())


def now() -> int:
    return int(time.time() * 1000)


async def holds(worker: Worker, *roles: str) -> None:
    """Every partition has its lease."""

    async def ready() -> bool:
        services = [s for s in worker.services if s.role in roles]
        return all(s.ready and s._leases for s in services)

    await eventually(ready, DEADLINE, f"{roles} hold their partitions")


async def refusal(worker: Worker) -> str:
    """What the worker stops with."""
    try:
        async with asyncio.timeout(DEADLINE):
            await worker.wait()
    except TimeoutError:
        raise AssertionError("the worker goes on") from None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("the worker stopped without a reason")


def partition(topic: str, number: int = 0) -> TopicPartition:
    return TopicPartition(topic, number)


def monotone(marks: Sequence[tuple[int, int]]) -> bool:
    """Marks never go back, and none is ahead of the broker's time of its record."""
    times = [mark for mark, _ in marks]
    return times == sorted(times) and all(mark <= append for mark, append in marks)


async def traffic(stages: Stages, producer: AIOKafkaProducer, stop: asyncio.Event, whole: bool = False) -> None:
    """Traces of three spans, one in three failed, until told to stop; over both raw partitions unless they are `whole`.

    The second half of a trace may come after its verdict where the machine is slow; what is whole is decided whole.
    """
    number = 0
    while not stop.is_set():
        number += 1
        failed = "!" if number % 3 == 0 else ""
        first, second, third = f"t{number}/1", f"t{number}/2{failed}", f"t{number}/3"
        if whole:
            await stages.produce(producer, first, second, third, partition=number % 2)
        else:
            await stages.produce(producer, first, second, partition=number % 2)
            await stages.produce(producer, third, partition=(number + 1) % 2)
        await asyncio.sleep(0.03)


@contextlib.asynccontextmanager
async def busy(stages: Stages, whole: bool = False) -> AsyncIterator[None]:
    """Traffic while the block runs."""
    stop = asyncio.Event()
    async with stages.producer() as producer:
        running_traffic = asyncio.create_task(traffic(stages, producer, stop, whole))
        try:
            yield
        finally:
            stop.set()
            await running_traffic


async def more_kept(stages: Stages) -> None:
    """Wait until something that is produced from now on has been kept."""
    names = set(stages.produced)

    async def newer() -> bool:
        return bool(set(await stages.names(stages.topics.kept_spans)) - names)

    await eventually(newer, DEADLINE, "newer traces are kept")
