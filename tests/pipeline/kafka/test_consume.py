"""Consuming by leases on a real Kafka: whole fetches, kill −9, rebalances, markers (docs/adr/0001)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from pipeline import config
from pipeline.kafka import fetching
from pipeline.kafka.consume import PIECE_BYTES, Group
from pipeline.kafka.lease import Lease
from pipeline.telemetry import REGISTRY
from pipeline.watching.identity import process_name
from pipeline.watching.settings import Telemetry
from pipeline.worker import Worker, application
from schemas.errors import ProtocolError, Unavailable
from tests.pipeline.configs import config_for
from tests.pipeline.copying import Copy, copier
from tests.pipeline.kafka import DEADLINE, committed, create, fresh, producing, read_all
from tests.pipeline.processes import Processes
from tests.services import Kafka, eventually

PARTITIONS = 8
ASKED = 8  # times, so that one of two brokers, drawn anew each time, is among them


class Copiers(Processes):
    """Copying workers as processes of their own."""

    def __init__(self, bootstrap: str, source: str, target: str) -> None:
        super().__init__()
        self._topics = bootstrap, source, target

    def start(self) -> subprocess.Popen[bytes]:
        return self.python("-m", "tests.pipeline.copying", *self._topics)


@pytest.fixture
def topics() -> tuple[str, str]:
    return fresh("in"), fresh("out")


@contextlib.asynccontextmanager
async def copying(kafka: Kafka, topics: tuple[str, str], **settings: Any) -> AsyncIterator[tuple[Worker, Group]]:
    """A worker in this process that copies a topic of one partition, and its group."""
    source, target = topics
    await create(kafka.bootstrap, {source: 1, target: 1})
    worker = copier(kafka.bootstrap, source, target, **settings)
    await worker.start()
    try:
        (group,) = worker.services
        yield worker, group
    finally:
        await worker.stop()


@pytest.fixture
def copiers(every_kafka: Kafka, topics: tuple[str, str]) -> Iterator[Copiers]:
    found = Copiers(every_kafka.bootstrap, *topics)
    yield found
    found.stop()


async def produce(
    producer: AIOKafkaProducer, topic: str, first: int, count: int, partitions: int = PARTITIONS
) -> list[bytes]:
    """`count` transactions of 50 values, one in seven aborted; returns the committed values."""
    values: list[bytes] = []
    for number in range(first, first + count):
        batch = [f"{number}-{i}".encode() for i in range(50)]
        await producer.begin_transaction()
        for future in [await producer.send(topic, v, partition=number % partitions) for v in batch]:
            await future
        if number % 7 == 3:
            await producer.abort_transaction()
        else:
            await producer.commit_transaction()
            values += batch
    return values


async def test_nothing_is_lost_or_doubled_by_joins_kill_9_and_sigterm(
    every_kafka: Kafka, topics: tuple[str, str], copiers: Copiers
) -> None:
    """A works, B joins, A is killed with SIGKILL, C joins, B leaves by SIGTERM; input has aborted transactions."""
    source, target = topics
    await create(every_kafka.bootstrap, {source: PARTITIONS, target: PARTITIONS})
    async with producing(every_kafka.bootstrap, fresh("raw")) as producer:
        expected: list[bytes] = []

        async def copied(share: float) -> bool:
            return len(await read_all(every_kafka.bootstrap, target)) >= len(expected) * share

        first = copiers.start()
        expected += await produce(producer, source, 0, 60)
        await eventually(lambda: copied(0.1), DEADLINE, "A copies")
        second = copiers.start()
        expected += await produce(producer, source, 60, 60)
        await eventually(lambda: copied(0.5), DEADLINE, "A and B copy")
        first.send_signal(signal.SIGKILL)
        expected += await produce(producer, source, 120, 60)
        copiers.start()
        expected += await produce(producer, source, 180, 60)
        await eventually(lambda: copied(0.75), DEADLINE, "B and C copy")
        second.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait, DEADLINE) == 0
        expected += await produce(producer, source, 240, 60)
        await eventually(lambda: copied(1.0), DEADLINE, "everything is copied")
    assert Counter(r.value for r in await read_all(every_kafka.bootstrap, target)) == Counter(expected)


async def test_a_rebalance_that_gives_partitions_back_keeps_their_leases(
    every_kafka: Kafka, topics: tuple[str, str], copiers: Copiers
) -> None:
    """F18: the epoch is the lease; of eight partitions four come back and are not taken over again."""
    source, target = topics
    await create(every_kafka.bootstrap, {source: PARTITIONS, target: PARTITIONS})
    leases: list[Copy] = []
    worker = copier(every_kafka.bootstrap, source, target, leases.append)
    await worker.start()
    try:
        (group,) = worker.services

        async def owns(count: int) -> bool:
            return len(group._leases) == count

        await eventually(lambda: owns(PARTITIONS), DEADLINE, "all partitions are ours")
        kept = dict(group._leases)
        copiers.start()
        await eventually(lambda: owns(PARTITIONS // 2), DEADLINE, "half of them moved")
        assert group.consumer._coordinator.member_id.startswith(f"{group.role}-{process_name()}-")
        assert len(leases) == PARTITIONS
        assert all(kept[unit] is lease for unit, lease in group._leases.items())
        async with producing(every_kafka.bootstrap, fresh("raw")) as producer:
            expected = await produce(producer, source, 0, 2 * PARTITIONS)

            async def copied() -> bool:
                return len(await read_all(every_kafka.bootstrap, target)) >= len(expected)

            await eventually(copied, DEADLINE, "everything is copied")
        assert Counter(r.value for r in await read_all(every_kafka.bootstrap, target)) == Counter(expected)
    finally:
        await worker.stop()


async def test_a_fenced_owner_writes_nothing_and_takes_over_again(every_kafka: Kafka, topics: tuple[str, str]) -> None:
    """F17, M6: somebody else takes the epoch; the commit fails, state is dropped, the next lease goes on."""
    source, target = topics
    await create(every_kafka.bootstrap, {source: 1, target: 1})
    leases: list[Copy] = []
    worker = copier(every_kafka.bootstrap, source, target, leases.append)
    await worker.start()
    try:
        (group,) = worker.services

        async def owned() -> bool:
            return len(group._leases) == 1

        await eventually(owned, DEADLINE, "the partition is ours")
        async with producing(every_kafka.bootstrap, leases[0].transaction._producer._txn_manager.transactional_id):
            pass  # InitProducerId of the same id: the worker is fenced
        async with producing(every_kafka.bootstrap, fresh("raw")) as producer:
            expected = await produce(producer, source, 0, 3, partitions=1)

            async def copied() -> bool:
                return len(await read_all(every_kafka.bootstrap, target)) >= len(expected)

            await eventually(copied, DEADLINE, "the next lease copies")
        assert len(leases) >= 2
        assert [r.value for r in await read_all(every_kafka.bootstrap, target)] == expected
    finally:
        await worker.stop()


async def test_an_exception_never_acknowledges(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a batch stops the worker; the batch's offset is not committed, not even on the way out."""
    source, target = topics
    await create(kafka.bootstrap, {source: 1, target: 1})
    process = Copy.process

    def fail(self: Copy, *batch: object) -> None:
        process(self, *batch)  # type: ignore[arg-type]
        raise ProtocolError("half-way through a batch")

    monkeypatch.setattr(Copy, "process", fail)
    worker = copier(kafka.bootstrap, source, target)
    await worker.start()
    async with producing(kafka.bootstrap, fresh("raw")) as producer:
        await produce(producer, source, 0, 1, partitions=1)
    with pytest.raises(ProtocolError, match="half-way"):
        await asyncio.wait_for(worker.wait(), DEADLINE)
    await worker.stop()
    assert await committed(kafka.bootstrap, f"{target}.copy", TopicPartition(source, 0)) == -1
    assert await read_all(kafka.bootstrap, target) == []


async def test_nothing_is_fetched_while_a_lease_that_failed_is_taken_over(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be thrown away, and fetched again from where the next lease begins."""
    process, take_over = Copy.process, Copy.open
    paused: list[set[TopicPartition]] = []
    failures = [Unavailable("something that it asked")]

    def fail_once(self: Copy, *batch: Any) -> None:
        if failures:
            raise failures.pop()
        process(self, *batch)

    monkeypatch.setattr(Copy, "process", fail_once)
    async with copying(kafka, topics) as (_, group), producing(kafka.bootstrap, fresh("raw")) as producer:

        async def open_and_look(self: Copy) -> Any:
            paused.append(group.consumer.paused())
            return await take_over(self)

        monkeypatch.setattr(Copy, "open", open_and_look)
        expected = await produce(producer, topics[0], 0, 1, partitions=1)

        async def copied() -> bool:
            return len(await read_all(kafka.bootstrap, topics[1])) >= len(expected)

        await eventually(copied, DEADLINE, "the next lease copies it")
    assert paused[-1] == {TopicPartition(topics[0], 0)}


async def test_a_takeover_that_was_overtaken_is_tried_again(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the offset and the state, it finds a contradiction of its own making when it wakes."""
    source, target = topics
    opened: list[int] = []
    take_over = Copy.open

    async def open_slowly(self: Copy) -> Any:
        positions = await take_over(self)
        opened.append(positions[self.partition])
        if len(opened) == 1:
            await self.transaction.commit([], {self.partition: OffsetAndMetadata(1, "")})  # as a successor would
            raise ProtocolError("group offset 0 but its checkpoint says 1")
        return positions

    monkeypatch.setattr(Copy, "open", open_slowly)
    await create(kafka.bootstrap, {source: 1, target: 1})
    async with producing(kafka.bootstrap, fresh("raw")) as producer:
        expected = await produce(producer, source, 0, 1, partitions=1)
        worker = copier(kafka.bootstrap, source, target)
        await worker.start()
        try:

            async def copied() -> bool:
                return len(await read_all(kafka.bootstrap, target)) >= len(expected) - 1

            await eventually(copied, DEADLINE, "it goes on from the successor's offset")
        finally:
            await worker.stop()
    assert opened == [0, 1]
    assert [r.value for r in await read_all(kafka.bootstrap, target)] == expected[1:]


async def test_what_a_fetch_has_decompressed_is_handed_over_piece_by_piece(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all of it keeps the loop busy at once, while transactions and heartbeats wait."""
    source, _ = topics
    size, pieces = PIECE_BYTES // 3, list[int]()
    process = Copy.process

    def processed(self: Copy, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        pieces.append(sum(len(record.value) for record in records))
        process(self, partition, records)

    monkeypatch.setattr(Copy, "process", processed)
    await create(kafka.bootstrap, {source: 1})
    most = 32 * size
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, compression_type="gzip", max_batch_size=most, max_request_size=most
    )
    await producer.start()
    try:
        futures = [await producer.send(source, bytes([number]) * size) for number in range(16)]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()
    async with copying(kafka, topics):

        async def handed_over() -> bool:
            return sum(pieces) >= 16 * size

        await eventually(handed_over, DEADLINE, "all of it is handed over")
    assert sum(pieces) == 16 * size
    assert max(pieces) <= PIECE_BYTES


class Committing(Lease):
    """A lease that commits the same offset without end, as at-least-once roles do, only more often."""

    def __init__(self, owner: Group, partition: TopicPartition) -> None:
        self.owner, self.partition = owner, partition

    async def open(self) -> dict[TopicPartition, int]:
        return self.positions()

    def process(self, partition: TopicPartition, records: object) -> None:
        """Nothing comes."""

    def positions(self) -> dict[TopicPartition, int]:
        return {self.partition: 0}

    async def work(self) -> None:
        while True:
            with contextlib.suppress(KafkaError):
                await self.owner.commit({self.partition: OffsetAndMetadata(0, "")})
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_commit_does_not_fall_into_a_rebalance(kafka: Kafka) -> None:
    """A plain commit of the old generation makes aiokafka forget who it is: the ghost holds the group for a session."""
    topic, session = fresh("commits"), 45.0
    await create(kafka.bootstrap, {topic: PARTITIONS})
    settings = config_for(kafka.bootstrap, prefix=topic, session_timeout=session, heartbeat_interval=0.2)

    def worker() -> Worker:
        app = application("committer")

        def lease(owner: Group, unit: object, partitions: Collection[TopicPartition]) -> Lease:
            (partition,) = partitions
            return Committing(owner, partition)

        return Worker(app, [Group(app, settings, "commit", [topic], lease)], Telemetry(port=0))

    async with contextlib.AsyncExitStack() as stack:
        workers: list[Worker] = []
        loop = asyncio.get_running_loop()
        for _ in range(4):
            began = loop.time()
            workers.append(worker())
            await workers[-1].start()
            stack.push_async_callback(workers[-1].stop)

            async def shared() -> bool:
                held = [len(group._leases) for worker in workers for group in worker.services]
                return all(held) and sum(held) == PARTITIONS

            await eventually(shared, DEADLINE, "every partition has one lease")
            assert loop.time() - began < session / 3, "the group waited for a member that is gone"


async def test_an_answer_without_the_partition_is_no_first_start(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While `__consumer_offsets` loads, aiokafka answers {}: that must not pass for a group without offsets.

    (A real broker answers so for about a second after it was killed; two hundred calls in a row were seen.)
    """
    source, _ = topics
    async with copying(kafka, topics) as (_, group):
        partition = TopicPartition(source, 0)
        assert await group.committed([partition]) == {}

        async def loading(*_: object, **__: object) -> dict[TopicPartition, object]:
            return {}

        monkeypatch.setattr(group.brokers.admin, "list_consumer_group_offsets", loading)
        with pytest.raises(Unavailable, match="did not answer"):
            await group.committed([partition])


@pytest.mark.parametrize("answer", [-1, 6])
async def test_an_answer_that_goes_back_is_not_believed(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """M21: a coordinator of Kafka 4.1 may answer while it loads, with what it has read by then, and no error."""
    source, _ = topics
    async with copying(kafka, topics) as (_, group):
        partition = TopicPartition(source, 0)

        async def ready() -> bool:
            return group.ready

        await eventually(ready, DEADLINE, "the partition has its lease")
        await group.commit({partition: OffsetAndMetadata(7, "")})

        async def loading(*_: object, **__: object) -> dict[TopicPartition, OffsetAndMetadata]:
            return {partition: OffsetAndMetadata(answer, "")}

        with monkeypatch.context() as patch:
            patch.setattr(group.brokers.admin, "list_consumer_group_offsets", loading)
            with pytest.raises(Unavailable, match=f"says {answer} for .*, it was 7"):
                await group.committed([partition])
        assert (await group.committed([partition]))[partition].offset == 7


async def test_another_group_may_be_deleted(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--signals` was changed: the group of before is asked too, and may go once it is done."""
    async with copying(kafka, topics) as (_, group):
        partition = TopicPartition(topics[0], 0)
        answers = [OffsetAndMetadata(7, ""), OffsetAndMetadata(-1, "")]

        async def told(*_: object, **__: object) -> dict[TopicPartition, OffsetAndMetadata]:
            return {partition: answers.pop(0)}

        monkeypatch.setattr(group.brokers.admin, "list_consumer_group_offsets", told)
        assert (await group.committed([partition], "before"))[partition].offset == 7
        assert await group.committed([partition], "before") == {}


async def test_a_fetcher_that_died_in_silence_stops_the_worker(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka tells nobody; heartbeats go on and nothing is ever fetched again."""
    source, _ = topics
    async with copying(kafka, topics, watchdog=3.0) as (worker, group):

        async def died(*_: object) -> None:
            raise RuntimeError("a batch that does not decode")

        monkeypatch.setattr(group.consumer._fetcher, "_proc_fetch_request", died)
        async with producing(kafka.bootstrap, fresh("raw")) as producer:
            await produce(producer, source, 0, 1, partitions=1)
        with pytest.raises(Unavailable, match=f"{source}/0: nothing fetched from 0 on, it ends at 51; it has stood"):
            await asyncio.wait_for(worker.wait(), DEADLINE)
        assert (REGISTRY.get_sample_value("tailrace_stalled_seconds", {"role": "copy"}) or 0) > 3.0


@pytest.mark.parametrize("whose", ["consumer", "brokers._asking", "brokers.admin"])
async def test_a_metadata_task_that_died_in_silence_stops_the_worker(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Whoever looks for a leader that moved would wait for ever, the watchdog too."""
    async with copying(kafka, topics, watchdog=0.0) as (worker, group):

        async def died(*_: object) -> None:
            raise RuntimeError("an answer that does not decode")

        client = attrgetter(whose)(group)._client
        monkeypatch.setattr(client, "_metadata_update", died)
        client.force_metadata_update()
        with pytest.raises(RuntimeError, match="does not decode"):
            await asyncio.wait_for(worker.wait(), DEADLINE)


async def test_only_the_leader_says_that_a_log_ends_before_the_position(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a follower in this rack (KIP-392), which lags and has been left out of the in-sync replicas."""
    source, target = topics
    async with (
        copying(kafka, topics, client_rack="here") as (worker, group),
        producing(kafka.bootstrap, fresh("raw")) as producer,
    ):
        expected = await produce(producer, source, 0, 1, partitions=1)

        async def copied() -> bool:
            return len(await read_all(kafka.bootstrap, target)) == len(expected)

        await eventually(copied, DEADLINE, "all is copied")
        partition, told = TopicPartition(source, 0), asyncio.Event()
        fetch = group.consumer.getmany

        async def behind(*args: Any, **kwargs: Any) -> Any:
            if not told.is_set():
                told.set()
                raise OffsetOutOfRangeError({partition: await group.consumer.position(partition)})
            return await fetch(*args, **kwargs)

        monkeypatch.setattr(group.consumer, "getmany", behind)
        await asyncio.wait_for(told.wait(), DEADLINE)
        expected += await produce(producer, source, 1, 1, partitions=1)
        await eventually(copied, DEADLINE, "the leader has the rest")
        group.consumer.seek(partition, 1_000)
        with pytest.raises(ProtocolError, match="records are gone before they were read, or the log was cut"):
            await asyncio.wait_for(worker.wait(), DEADLINE)


async def test_without_racks_the_leader_has_said_it_already(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that was cut grows beyond the position again, and what is before it would be passed over."""
    async with copying(kafka, topics) as (worker, group):

        async def cut(**_: Any) -> Any:
            raise OffsetOutOfRangeError({TopicPartition(topics[0], 0): 0})

        monkeypatch.setattr(group.consumer, "getmany", cut)
        with pytest.raises(ProtocolError, match="or the log was cut"):
            await asyncio.wait_for(worker.wait(), DEADLINE)


async def test_a_heartbeat_that_died_stops_the_worker(
    kafka: Kafka, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group goes on without the member, which would otherwise fence the true owner for ever."""
    async with copying(kafka, topics) as (worker, group):

        async def owned() -> bool:
            return len(group._leases) == 1

        await eventually(owned, DEADLINE, "the partition is ours")

        async def died() -> bool:
            raise KafkaError("an answer that aiokafka does not know")

        monkeypatch.setattr(group.consumer._coordinator, "_do_heartbeat", died)
        with pytest.raises(KafkaError):
            await asyncio.wait_for(worker.wait(), DEADLINE)


async def test_records_thrown_away_in_a_rebalance_were_not_passed(kafka: Kafka, topics: tuple[str, str]) -> None:
    """Between revocation and assignment the position lies beyond what the lease has seen: no mark may say otherwise."""
    source, _ = topics
    async with copying(kafka, topics) as (_, group):
        partition = TopicPartition(source, 0)

        async def passed() -> bool:
            return await group.passed(partition, 0)

        await eventually(passed, DEADLINE, "an empty partition is passed")
        await group.on_partitions_revoked([partition])
        assert not await passed()


async def test_a_worker_leaves_nothing_on_disk(
    kafka: Kafka, topics: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers have a read-only root; Faust would make a folder for tables that there are none of."""
    monkeypatch.chdir(tmp_path)
    source, target = topics
    await create(kafka.bootstrap, {source: 1, target: 1})
    worker = copier(kafka.bootstrap, source, target)
    await worker.start()
    await worker.stop()
    assert os.listdir(tmp_path) == []


def test_consumers_name_their_rack() -> None:
    """KIP-392: brokers let them read from the replica in their own availability zone."""
    kafka = config.Kafka(bootstrap_servers=["a:1"], client_rack="eu-1a")
    assert fetching.consumer_kwargs(kafka)["client_rack"] == "eu-1a"


async def test_the_base_classes_do_not_narrate(
    kafka: Kafka, topics: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with copying(kafka, topics) as (_, group):

            async def ready() -> bool:
                return group.ready

            await eventually(ready, DEADLINE, "the partition is taken over")
    assert "taken over" in caplog.messages
    narrated = {record.name.split(".")[0] for record in caplog.records if record.getMessage().startswith("[^")}
    assert narrated <= {"faust", "mode"}, "pipeline/watching/logs.py keeps these quiet"


async def test_a_partition_without_a_leader_does_not_hide_what_others_say(
    kafka: Kafka, topics: tuple[str, str]
) -> None:
    """The watchdog asks for all ends at once: a lease that hangs would go unnoticed for as long as one is missing."""
    source, _ = topics
    async with copying(kafka, topics) as (_, group):
        group.consumer._request_timeout_ms = 1000  # what is not there is waited for as what has no leader
        there, missing = TopicPartition(source, 0), TopicPartition(source, 7)
        assert await group.brokers.ends([there, missing]) == {there: 0}
        with pytest.raises(KafkaError):
            await group.brokers.ends([missing])


async def test_brokers_answer_one_that_has_no_partitions(kafka: Kafka, topics: tuple[str, str]) -> None:
    """A member that waits for partitions is ready as long as the group's coordinator answers."""
    async with copying(kafka, topics) as (_, group):
        async with asyncio.timeout(DEADLINE):
            await group.brokers.answer(group.group_id, ())


async def test_a_broker_that_has_nothing_may_hang(topics: tuple[str, str]) -> None:
    """It answers for no partition and no group: what is asked of any broker would be asked of it, sooner or later."""
    with Kafka() as first:
        async with copying(first, topics):
            pass  # coordinators are there from now on
        with first.another() as second:
            async with copying(first, topics) as (_, group):
                assert len(group.brokers.admin._client.cluster.brokers()) == 2
                second.pause()
                for _ in range(ASKED):
                    group.brokers._asking._client.force_metadata_update()  # as it is every METADATA_AGE_MS
                    await group.brokers.answer(group.group_id, group.consumer.assignment())
                second.resume()
