"""One worker that reads all partitions of raw topics, keyed or not (`kafka.partitions: 1`), on a real Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions, RecordsToDelete
from click.testing import CliRunner

from pipeline import telemetry
from pipeline.cli import cli
from pipeline.kafka.assignors import one_member
from pipeline.kafka.topics import direct_topics
from pipeline.operating.explain import explain
from pipeline.worker import running
from tests.pipeline.kafka import DEADLINE, committed, create
from tests.pipeline.operating.restoring import Restoring
from tests.pipeline.stages import administration, busy, holds, log_of, more_kept, partition, trace_id
from tests.services import Kafka, eventually
from tests.services.process import HOST

SPANS, LOGS = 3, 2  # raw partitions


class Alone(Restoring):
    """No ingest; the spans of a trace lie in any partition."""

    SECTIONS = {**Restoring.SECTIONS, "regroup": "never"}
    partitions = SPANS

    async def create(self, raw: int = SPANS) -> Self:
        await create(self.bootstrap, {self.raw: raw, f"{self.raw}.logs": LOGS})
        await self.ensured()
        return self

    def placed(self, name: str) -> int:
        """Span n of a trace is in partition n, and so on."""
        return int(name.split("/")[1].rstrip("!")) % self.partitions

    async def produce(
        self, producer: AIOKafkaProducer, *names: str, partition: int | None = None, at: int | None = None
    ) -> None:
        """Each span by itself; `partition` is for one alone.

        What failed goes first: where the machine is slow the rest may come after the verdict, which it follows.
        """
        for name in sorted(names, key=lambda name: not name.endswith("!")):
            place = self.placed(name) if partition is None or len(names) > 1 else partition
            await super().produce(producer, name, partition=place, at=at)

    async def reads(self, place: int) -> bool:
        """Whether the group has an offset for a partition of spans."""
        return await committed(self.bootstrap, self.topics.group("sample"), partition(self.raw, place)) >= 0

    async def grow(self, count: int) -> None:
        """Give the topic of spans more partitions."""
        async with administration(self.bootstrap) as admin:
            await admin.create_partitions({self.raw: NewPartitions(count)})
        await self.create_seen(self.raw, count)


@pytest.fixture
async def alone(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Alone]:
    found = Alone(kafka.bootstrap, tmp_path, partitions=1)
    await found.create()
    yield found
    found.stop()


async def test_a_trace_on_all_partitions_is_decided_once(alone: Alone) -> None:
    """Kept whole, explained and restored from all partitions, replayed alike; logs find it anywhere."""
    bad, calm = ("bad/1", "bad/2!", "bad/3", "bad/4"), ("calm/1", "calm/2", "calm/3", "calm/4")
    async with alone.producer() as producer, running(alone.config, ["sample"]) as worker:
        await holds(worker, "sample")
        url = f"http://{HOST}:{worker.server.port}"
        await alone.produce(producer, *bad, *calm)
        for place, name in enumerate(("bad", "calm")):
            await producer.send_and_wait(f"{alone.raw}.logs", log_of(name, f"{name} said"), partition=place)
        await producer.send_and_wait(alone.raw, b"\xff", partition=2, key=b"poison")
        await alone.decided("bad", "calm")
        await alone.produce(producer, "last/1")  # or a replay would end before they are due
        await alone.settled()
        for name, state in (("bad", "kept"), ("calm", "dropped")):
            found = await explain(alone.config, trace_id(name))
            assert (found.state, found.agrees, found.partition) == (state, True, 0)
            assert {topic for topic, _, _ in found.sources} <= {alone.raw, f"{alone.raw}.logs"}
            assert {place for topic, place, _ in found.sources if topic == alone.raw} == set(range(SPANS))

        async def passed() -> bool:
            ends = {partition(alone.raw, place): 1 for place in range(SPANS)}
            group = alone.topics.group("sample")
            return all([(await committed(alone.bootstrap, group, place) or 0) >= end for place, end in ends.items()])

        await eventually(passed, DEADLINE, "all tails have moved")
        code, told = await alone.restore("calm", url)
        assert (code, told["outcome"], told["spans"], told["logs"]) == (0, "restored", 4, 1)
        await alone.kept(*bad, *calm)

        async def logs() -> bool:
            return {name: kept for name, (kept, _) in (await alone.kept_logs()).items()} == {
                "bad said": True,
                "calm said": True,
            }

        await eventually(logs, DEADLINE, "both logs are kept")
    (letter,) = await alone.records(alone.topics.dlq)
    assert dict(letter.headers)["partition"] == b"2"
    assert await alone.verdicts() == {"bad": ["errors"], "calm": ["", "restored"], "last": [""]}
    words = ["simulate", "--config", str(alone.file), "--policies", str(alone.file), "--since", "earliest", "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["live"]["same"], report["live"]["different"], report["new"]["traces"]) == (2, 0, 2)


async def test_with_the_operators_consent_it_goes_on_where_the_group_was(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any verdicts, and whatever `kafka.start` says: what lies there is forwarded, none of it passed over."""
    alone = await Alone(kafka.bootstrap, tmp_path, partitions=1, start="latest").create()
    async with alone.producer() as producer:
        async with running(alone.config, ["sample"]) as worker:
            await holds(worker, "sample")
            await alone.produce(producer, "a/1!", "a/2")
            await alone.settled()
        decisions = partition(alone.topics.decisions)
        async with administration(alone.bootstrap) as admin:
            end = (await alone.records(alone.topics.decisions))[-1].offset + 1
            await admin.delete_records({decisions: RecordsToDelete(before_offset=end)})
        await alone.produce(producer, "b/1!", "b/2", "b/3")
        async with running(alone.config, ["sample"], accept_loss=True) as worker:
            await holds(worker, "sample")
            await alone.kept("a/1!", "a/2", "b/1!", "b/2", "b/3")
    assert "are counted again" in caplog.text


async def test_the_others_wait_and_one_of_them_takes_over(alone: Alone) -> None:
    """The first worker has everything. It is killed, and nothing is lost or doubled; so when partitions are added."""
    workers = [alone.start("sample")]
    await eventually(lambda: alone.has_members("sample", 1), DEADLINE, "the first is there")
    async with busy(alone, whole=True):
        for turn in range(2):
            workers.append(alone.start("sample"))
            await eventually(lambda: alone.has_members("sample", 2), DEADLINE, "both are there")
            await more_kept(alone)
            workers.pop(0).kill()
            if turn:
                await alone.grow(SPANS + 2)
            await more_kept(alone)
        await eventually(lambda: alone.reads(SPANS + 1), DEADLINE, "the group knows of the new partitions")
        async with alone.producer() as producer:
            await alone.produce(producer, "new/1!", partition=SPANS + 1)
            await alone.produce(producer, "new/2", partition=0)
        await more_kept(alone)
    await alone.settled(2 * DEADLINE)


async def test_a_partition_that_is_added_is_read_from_its_beginning(kafka: Kafka, tmp_path: Path) -> None:
    """Though a first start is at the end of what is there: nothing is lost before anybody knows the partition."""
    before = telemetry.REGISTRY.get_sample_value("tailrace_takeovers_total", {"role": "sample"}) or 0
    alone = Alone(kafka.bootstrap, tmp_path, partitions=1, start="latest")
    await alone.create(raw=1)
    alone.partitions = 1
    async with alone.producer() as producer:
        await producer.send_and_wait(alone.raw, b"\xff")  # not read, so not in the dead-letter queue
        async with running(alone.config, ["sample"]) as worker:
            await holds(worker, "sample")
            await alone.produce(producer, "old/1!")
            await alone.decided("old")
    await alone.grow(2)
    async with alone.producer() as producer:
        await alone.produce(producer, "young/1!", partition=1)
        async with running(alone.config, ["sample"]):
            await alone.settled()
    assert await alone.records(alone.topics.dlq) == []
    assert (telemetry.REGISTRY.get_sample_value("tailrace_takeovers_total", {"role": "sample"}) or 0) == before + 2


def test_any_number_of_raw_partitions_is_right(alone: Alone) -> None:
    assert direct_topics(alone.config) == [alone.raw, f"{alone.raw}.logs"]
    assert yaml.safe_load(alone.file.read_text())["kafka"]["partitions"] == 1


def test_one_member_has_all_partitions() -> None:
    """The first by its id, who keeps them when another one comes; and when it is gone, another one."""
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range({"a": 3, "b": 1}[topic])))
    members = {name: one_member() for name in ("y", "z")}

    def rebalance() -> dict[str, Any]:
        found = members["z"].assign(cluster, {name: member.metadata(["a", "b"]) for name, member in members.items()})
        for name, assignment in found.items():
            members[name].on_assignment(assignment)
        return {name: assignment.assignment for name, assignment in found.items()}

    everything = [("a", [0, 1, 2]), ("b", [0])]
    assert rebalance() == {"y": everything, "z": []}
    members["x"] = one_member()
    assert rebalance() == {"x": [], "y": everything, "z": []}
    del members["y"]
    assert rebalance() == {"x": everything, "z": []}
    members["z"].on_assignment(SimpleNamespace(assignment=everything))  # x was away, and z took over
    members["x"].forget()
    assert rebalance() == {"x": [], "z": everything}
