"""The aggregate role on a real Kafka: no count is lost or doubled by kills; a tick is all its state."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from aiokafka.admin import NewPartitions
from aiokafka.errors import OffsetOutOfRangeError

from pipeline import aggregate, telemetry
from pipeline.config import Config
from pipeline.demo.broker import EmbeddedBroker
from pipeline.kafka import topics
from pipeline.kafka.admin import partition_counts
from pipeline.worker import Worker, running
from schemas.errors import ProtocolError
from schemas.sample import Tick
from tests.pipeline.aggregating import NAMES, PARTITION, Pipeline, configuration, sums
from tests.pipeline.kafka import DEADLINE, committed, dies_before_it_commits, expired, forget, fresh, read_all
from tests.pipeline.stages import administration
from tests.services import Kafka, eventually


@pytest.fixture
async def pipeline(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Pipeline]:
    found = Pipeline(configuration(kafka.bootstrap), tmp_path)
    assert await topics.ensure(found.config) == []
    yield found
    found.stop()


def check(ticks: Sequence[Tick], budget: int) -> None:
    """Whole, numbered, ever later, ever more, and within the budget."""
    assert [tick.number for tick in ticks] == list(range(1, len(ticks) + 1))
    for before, after in pairwise(ticks):
        assert before.time_ms < after.time_ms
        assert before.points <= after.points
    for tick in ticks:
        assert all(len(block.rows) * block.shape.series <= budget for block in tick.blocks)


async def test_no_count_is_lost_or_doubled_by_kills(pipeline: Pipeline) -> None:
    """Killed with SIGKILL while points come, some of them in no tick yet; in the end told to leave."""
    group = pipeline.topics.group("aggregate")

    async def counts(more_than: float) -> bool:
        return (await pipeline.counted())[0] > more_than

    async with pipeline.producer(fresh("sample")) as producer:

        async def produce(until: asyncio.Event) -> None:
            while not until.is_set():
                await producer.begin_transaction()
                await pipeline.produce(producer, 10)
                await producer.commit_transaction()

        worker = pipeline.start()
        for _ in range(3):
            before, enough = pipeline.produced, asyncio.Event()
            flowing = asyncio.create_task(produce(enough))
            await eventually(lambda before=before: counts(before), DEADLINE, "the worker counts")  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            enough.set()
            await flowing
            points = await read_all(pipeline.bootstrap, pipeline.points.topic)
            assert 0 < await committed(pipeline.bootstrap, group, pipeline.points) <= points[-1].offset
            worker = pipeline.start()
        await eventually(lambda: counts(pipeline.produced - 1), DEADLINE, "everything is counted")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, DEADLINE) == 0
    ticks = await pipeline.ticks()
    check(ticks, 50)
    assert sums(ticks[-1]) == pipeline.expected
    overflow = {labels[0] for block in ticks[-1].blocks for labels, _ in block.rows if labels[-1] == "__overflow__"}
    assert overflow >= {"service-0", "service-1", "service-2"}


async def test_ticks_go_on_while_idle_and_after_a_takeover_in_the_brokers_time(pipeline: Pipeline) -> None:
    async def idle_ticks(least: int) -> list[Tick]:
        found = await pipeline.ticks()
        return found if len(found) >= least else []

    async with pipeline.producer() as producer:
        async with running(pipeline.config, ["aggregate"]):
            await pipeline.produce(producer, 3)
            first = await eventually(lambda: idle_ticks(5), DEADLINE, "idle ticks")
        async with running(pipeline.config, ["aggregate"]):
            ticks = await eventually(lambda: idle_ticks(len(first) + 10), DEADLINE, "idle ticks of the next owner")
            assert telemetry.REGISTRY.get_sample_value("tailrace_series_budget", {"metric": NAMES.calls}) == 50
        check(ticks, 50)
        assert sums(ticks[-1]) == pipeline.expected
        newest = (await pipeline.records())[-1]
        assert 0 <= newest.timestamp - ticks[-1].time_ms < 2_000
        assert telemetry.REGISTRY.get_sample_value("tailrace_series_budget", {"metric": NAMES.calls}) is None


async def test_leaving_counts_what_was_read(pipeline: Pipeline) -> None:
    """SIGTERM's path: the next owner finds everything that was read in one last tick."""
    raw = pipeline.config.model_dump(by_alias=True) | {
        "metrics": {"interval": 3600.0, "series_per_metric": 50, "idle_timeout": 0.0}
    }
    config = Config.model_validate(raw)
    async with pipeline.producer() as producer:
        async with running(config, ["aggregate"]) as worker:
            await eventually(lambda: _ready(worker), DEADLINE, "the partition is ours")
            await pipeline.produce(producer, 7)
            (lease,) = worker.services[0]._leases.values()

            async def read() -> bool:
                return lease.positions()[pipeline.points] == 14

            await eventually(read, DEADLINE, "the points are read")
            assert await pipeline.ticks() == []
        (tick,) = await pipeline.ticks()
        assert tick.points == 14
        assert sums(tick) == pipeline.expected


async def test_old_ticks_are_deleted_but_never_the_state(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "DELETE_INTERVAL", 0.0)
    kafka = pipeline.config.kafka.model_copy(update={"retention": 1.0})
    config = pipeline.config.model_copy(update={"kafka": kafka})

    async def deleted(least: int) -> bool:
        try:
            found = await pipeline.ticks()
        except OffsetOutOfRangeError:
            return False  # deleted while they were read
        return bool(found) and found[0].number > least and sums(found[-1]) == pipeline.expected

    async with pipeline.producer() as producer:
        async with running(config, ["aggregate"]):
            await pipeline.produce(producer, 5)
            await eventually(lambda: deleted(3), DEADLINE, "old ticks are gone")
        last = (await pipeline.ticks())[-1].number
        config = config.model_copy(update={"kafka": kafka.model_copy(update={"retention": 0.0})})
        async with running(config, ["aggregate"]):
            await pipeline.produce(producer, 5)
            await eventually(lambda: deleted(last), DEADLINE, "the next owner goes on and deletes")
        left, first = await pipeline.ticks(), (await pipeline.records())[0]
        # What was appended after the time of the last tick but one is not old: a slow machine leaves more of that.
        assert len(left) <= 2 or first.timestamp >= left[-2].time_ms
        async with running(config, ["aggregate"]):
            await pipeline.produce(producer, 5)
            await eventually(lambda: deleted(last + 1), DEADLINE, "one tick was enough")


async def test_points_are_lost_only_if_retention_overtook_them(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction's marker is no record: a log that was emptied after everything was counted has lost nothing.

    They are counted once, by the owner that has written down that it passed them.
    """

    async def restarted() -> float:
        """What a new owner says is gone."""
        before = expired("points")
        async with running(pipeline.config, ["aggregate"]) as worker:
            await eventually(lambda: _ready(worker), DEADLINE, "the partition is ours")
            group = worker.services[0]
            (lease,) = group._leases.values()
            end = (await group.brokers.end([pipeline.points]))[pipeline.points]

            async def read() -> bool:
                return lease.positions()[pipeline.points] >= end - 1  # a marker is the last

            await eventually(read, DEADLINE, "everything is read")
        return expired("points") - before

    async with pipeline.producer(f"{pipeline.topics.points}-test") as producer:
        async with producer.transaction():
            await pipeline.produce(producer, 3)
        assert await restarted() == 0
        await forget(pipeline.bootstrap, pipeline.points)
        assert await restarted() == 0
        async with producer.transaction():
            await pipeline.produce(producer, 2)
        await forget(pipeline.bootstrap, pipeline.points)
        with monkeypatch.context() as patched:
            dies_before_it_commits(patched, aggregate.PointsPartition)
            assert await restarted() == 0
        assert await restarted() == 4
        assert await restarted() == 0, "the topic is still empty"


async def _ready(worker: Worker) -> bool:
    return all(worker.ready().values()) and bool(worker.services[0]._leases)


async def test_partitions_that_were_added_stop_no_worker(pipeline: Pipeline) -> None:
    """The ticks say which M is in force: it goes on, and a configuration that follows the topics is told to go back."""
    names = (pipeline.topics.points, pipeline.topics.samples)

    async def counted() -> bool:
        return await pipeline.counted() == pipeline.expected

    async def grown() -> bool:
        return await partition_counts(pipeline.config, names) == dict.fromkeys(names, 3)

    async with pipeline.producer() as producer:
        async with running(pipeline.config, ["aggregate"]):
            await pipeline.produce(producer, 5)
            await eventually(counted, DEADLINE, "there is a tick")
        async with administration(pipeline.bootstrap) as admin:
            await admin.create_partitions({name: NewPartitions(3) for name in names})
        await eventually(grown, DEADLINE, "the brokers know the partitions")
        assert await topics.check(pipeline.config) == []
        async with running(pipeline.config, ["aggregate"]):
            await pipeline.produce(producer, 5)
            await eventually(counted, DEADLINE, "it goes on")
    config = pipeline.config
    other = config.model_copy(update={"kafka": config.kafka.model_copy(update={"metric_partitions": 2})})
    told = [problem.text for problem in await topics.check(other)]
    assert len(told) == len(names)
    assert all("M = 1 partitions are in force, the configuration says 2" in text for text in told)
    assert all("set it back to 1" in text for text in told)


async def test_ticks_without_an_offset_stop_the_role(pipeline: Pipeline) -> None:
    """First start is explicit: counting from zero beside existing ticks would be a silent reset."""
    tick = Tick(1, 1, 0, 1, [])
    async with pipeline.producer() as producer:
        for value in tick.encode():
            await producer.send_and_wait(pipeline.topics.samples, value, partition=PARTITION)
    async with running(pipeline.config, ["aggregate"]) as worker:
        with pytest.raises(ProtocolError, match="holds ticks but the group has no offset"):
            async with asyncio.timeout(DEADLINE):
                await worker.wait()


async def test_the_same_without_transactions(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        raw = configuration(broker.url, transactions=False, metric_partitions=4)
        pipeline = Pipeline(raw, tmp_path)

        async def everything() -> bool:
            return await pipeline.counted() == pipeline.expected

        broker.create([pipeline.topics.points, pipeline.topics.samples])
        async with pipeline.producer() as producer:
            for _ in range(2):
                async with running(pipeline.config, ["aggregate"]):
                    await pipeline.produce(producer, 20)
                    await eventually(everything, DEADLINE, "everything is counted")
        check(await pipeline.ticks(), 50)
