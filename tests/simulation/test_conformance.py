"""What the simulated Kafka does, asked of it and of a real broker alike."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from tests.pipeline.kafka import create, fresh
from tests.services import Kafka, eventually
from tests.simulation.kafka import Fenced, OutOfRange, SimulatedKafka

TIMEOUT_MS = 1_000  # of a transaction that is left open
SETTLED_SECONDS = 60.0


class Owner(ABC):
    """One epoch of a transactional id. Everything raises Fenced once there is a newer one."""

    @abstractmethod
    async def begin(self) -> None: ...
    @abstractmethod
    async def send(self, topic: str, value: bytes) -> int: ...
    @abstractmethod
    async def offsets(self, topic: str, offset: int, metadata: str) -> None: ...
    @abstractmethod
    async def end(self, commit: bool) -> None: ...


class Broker(ABC):
    """Topics of one partition, one group."""

    @abstractmethod
    async def topic(self) -> str: ...
    @abstractmethod
    async def owner(self, transactional_id: str) -> Owner: ...
    @abstractmethod
    async def append(self, topic: str, value: bytes) -> int: ...
    @abstractmethod
    async def read(self, topic: str, position: int, committed: bool = True) -> tuple[list[tuple[int, bytes]], int]: ...
    @abstractmethod
    async def bounds(self, topic: str) -> tuple[int, int, int]: ...
    @abstractmethod
    async def committed(self, topic: str) -> tuple[int, str] | None: ...
    @abstractmethod
    async def delete_before(self, topic: str, offset: int) -> None: ...
    @abstractmethod
    async def time_out(self, transactional_id: str) -> None: ...
    @abstractmethod
    async def settled(self, topic: str) -> None: ...


class SimulatedOwner(Owner):
    def __init__(self, kafka: SimulatedKafka, transactional_id: str) -> None:
        self._kafka, self._id, self._epoch = kafka, transactional_id, kafka.init(transactional_id)

    async def begin(self) -> None:
        pass

    async def send(self, topic: str, value: bytes) -> int:
        return self._kafka.send(self._id, self._epoch, (topic, 0), value)

    async def offsets(self, topic: str, offset: int, metadata: str) -> None:
        self._kafka.send_offsets(self._id, self._epoch, {(topic, 0): (offset, metadata)})

    async def end(self, commit: bool) -> None:
        self._kafka.end(self._id, self._epoch, commit)


class Simulated(Broker):
    def __init__(self) -> None:
        self._kafka = SimulatedKafka()

    async def topic(self) -> str:
        return fresh("topic")

    async def owner(self, transactional_id: str) -> Owner:
        return SimulatedOwner(self._kafka, transactional_id)

    async def append(self, topic: str, value: bytes) -> int:
        return self._kafka.append((topic, 0), value)

    async def read(self, topic: str, position: int, committed: bool = True) -> tuple[list[tuple[int, bytes]], int]:
        records, after = self._kafka.logs[topic, 0].read(position, 1_000, committed)
        return [(record.offset, record.value) for record in records], after

    async def bounds(self, topic: str) -> tuple[int, int, int]:
        log = self._kafka.logs[topic, 0]
        return log.start, log.stable, log.end

    async def committed(self, topic: str) -> tuple[int, str] | None:
        return self._kafka.offsets.get((topic, 0))

    async def delete_before(self, topic: str, offset: int) -> None:
        self._kafka.delete_before((topic, 0), offset)

    async def time_out(self, transactional_id: str) -> None:
        assert self._kafka.time_out(transactional_id)

    async def settled(self, topic: str) -> None:
        _, stable, end = await self.bounds(topic)
        assert stable == end


@contextlib.contextmanager
def fencing() -> Iterator[None]:
    """aiokafka says it in several ways; in its fatal state with an AssertionError (docs/adr/0003, M6)."""
    try:
        yield
    except (KafkaError, AssertionError) as error:
        raise Fenced from error


class RealOwner(Owner):
    def __init__(self, producer: AIOKafkaProducer, group: str) -> None:
        self._producer, self._group = producer, group

    async def begin(self) -> None:
        await self._producer.begin_transaction()

    async def send(self, topic: str, value: bytes) -> int:
        with fencing():
            offset: int = (await self._producer.send_and_wait(topic, value, partition=0)).offset
            return offset

    async def offsets(self, topic: str, offset: int, metadata: str) -> None:
        with fencing():
            moved = {TopicPartition(topic, 0): OffsetAndMetadata(offset, metadata)}
            await self._producer.send_offsets_to_transaction(moved, self._group)

    async def end(self, commit: bool) -> None:
        with fencing():
            await (self._producer.commit_transaction() if commit else self._producer.abort_transaction())


class Real(Broker):
    def __init__(self, bootstrap: str, ends: contextlib.AsyncExitStack) -> None:
        self._bootstrap, self._ends, self._group = bootstrap, ends, fresh("group")

    async def topic(self) -> str:
        name = fresh("topic")
        await create(self._bootstrap, {name: 1})
        return name

    async def owner(self, transactional_id: str) -> Owner:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            transactional_id=transactional_id,
            transaction_timeout_ms=TIMEOUT_MS if transactional_id.startswith("short") else 60_000,
            retry_backoff_ms=20,
        )
        await producer.start()
        self._ends.push_async_callback(_let_go, producer)
        return RealOwner(producer, self._group)

    async def append(self, topic: str, value: bytes) -> int:
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer:
            offset: int = (await producer.send_and_wait(topic, value, partition=0)).offset
            return offset

    async def read(self, topic: str, position: int, committed: bool = True) -> tuple[list[tuple[int, bytes]], int]:
        partition = TopicPartition(topic, 0)
        async with self._consumer(committed) as consumer:
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            consumer.seek(partition, position)
            found: list[tuple[int, bytes]] = []
            try:
                while await consumer.position(partition) < end:
                    for records in (await consumer.getmany(partition, timeout_ms=200)).values():
                        found += [(record.offset, record.value) for record in records]
            except OffsetOutOfRangeError as error:
                raise OutOfRange from error
            return found, await consumer.position(partition)

    def _consumer(self, committed: bool) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed" if committed else "read_uncommitted",
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )

    async def bounds(self, topic: str) -> tuple[int, int, int]:
        partition = TopicPartition(topic, 0)
        async with self._consumer(True) as stable, self._consumer(False) as everything:
            start = (await stable.beginning_offsets([partition]))[partition]
            lso = (await stable.end_offsets([partition]))[partition]
            return start, lso, (await everything.end_offsets([partition]))[partition]

    async def committed(self, topic: str) -> tuple[int, str] | None:
        async with self._admin() as admin:
            try:
                found = await admin.list_consumer_group_offsets(self._group, partitions=[TopicPartition(topic, 0)])
            except GroupCoordinatorNotAvailableError:  # the broker's very first group: its topic is being made
                return None
        known = found.get(TopicPartition(topic, 0))  # none at all while the broker is loading the group
        return None if known is None or known.offset < 0 else (known.offset, known.metadata)

    async def delete_before(self, topic: str, offset: int) -> None:
        async with self._admin() as admin:
            await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def time_out(self, transactional_id: str) -> None:
        """It does so by itself."""

    async def settled(self, topic: str) -> None:
        """Markers are written a moment after the answer to a commit."""

        async def written() -> bool:
            _, stable, end = await self.bounds(topic)
            return stable == end

        await eventually(written, SETTLED_SECONDS, "no transaction is open")


async def _let_go(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(KafkaError, AssertionError):
        await producer.stop()


@pytest.fixture(params=["simulated", "real"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    if request.param == "simulated":
        yield Simulated()
        return
    kafka: Kafka = request.getfixturevalue("kafka")
    async with contextlib.AsyncExitStack() as ends:
        yield Real(kafka.bootstrap, ends)


async def test_what_is_not_committed_is_not_seen_and_holds_what_follows(broker: Broker) -> None:
    topic = await broker.topic()
    assert await broker.append(topic, b"plain") == 0
    owner = await broker.owner(fresh("id"))
    await owner.begin()
    assert await owner.send(topic, b"open") == 1
    assert await broker.append(topic, b"after") == 2
    assert await broker.bounds(topic) == (0, 1, 3)
    assert await broker.read(topic, 0) == ([(0, b"plain")], 1)
    assert (await broker.read(topic, 0, committed=False))[0] == [(0, b"plain"), (1, b"open"), (2, b"after")]
    await owner.end(commit=True)
    await broker.settled(topic)
    assert await broker.bounds(topic) == (0, 4, 4), "a control marker has an offset"
    assert await broker.read(topic, 0) == ([(0, b"plain"), (1, b"open"), (2, b"after")], 4)


async def test_what_is_aborted_is_passed(broker: Broker) -> None:
    topic = await broker.topic()
    owner = await broker.owner(fresh("id"))
    await owner.begin()
    await owner.send(topic, b"never")
    await owner.end(commit=False)
    await owner.begin()
    await owner.send(topic, b"then")
    await owner.end(commit=True)
    await broker.settled(topic)
    assert await broker.read(topic, 0) == ([(2, b"then")], 4)
    assert (await broker.read(topic, 0, committed=False))[0] == [(0, b"never"), (2, b"then")]


async def test_offsets_move_with_their_transaction(broker: Broker) -> None:
    topic, source = await broker.topic(), await broker.topic()
    owner = await broker.owner(fresh("id"))
    assert await broker.committed(source) is None
    for number, commit in enumerate((True, False, True)):
        await owner.begin()
        await owner.send(topic, b"output")
        before = await broker.committed(source)
        await owner.offsets(source, 10 + number, f"told {number}")
        assert await broker.committed(source) == before, "pending ones are not seen"
        await owner.end(commit)
        wanted = (10 + number, f"told {number}") if commit else before
        assert await _told(broker, source, wanted)


async def test_a_newer_epoch_ends_the_older_one(broker: Broker) -> None:
    topic, source, transactional_id = await broker.topic(), await broker.topic(), fresh("id")
    old = await broker.owner(transactional_id)
    await old.begin()
    await old.send(topic, b"half")
    await old.offsets(source, 5, "half")
    new = await broker.owner(transactional_id)
    assert await broker.bounds(topic) == (0, 2, 2), "what was open is aborted"
    with pytest.raises(Fenced):
        await old.end(commit=True)
    await new.begin()
    await new.send(topic, b"whole")
    await new.offsets(source, 6, "whole")
    await new.end(commit=True)
    await broker.settled(topic)
    assert (await broker.read(topic, 0))[0] == [(2, b"whole")]
    assert await _told(broker, source, (6, "whole"))


async def test_an_idle_zombie_cannot_write(broker: Broker) -> None:
    topic, source, transactional_id = await broker.topic(), await broker.topic(), fresh("id")
    old = await broker.owner(transactional_id)
    await broker.owner(transactional_id)
    await old.begin()
    with pytest.raises(Fenced):
        await old.send(topic, b"late")
    assert await broker.bounds(topic) == (0, 0, 0)
    assert await broker.committed(source) is None


async def test_a_transaction_that_is_left_open_is_aborted(broker: Broker) -> None:
    topic, source, transactional_id = await broker.topic(), await broker.topic(), fresh("short")
    owner = await broker.owner(transactional_id)
    await owner.begin()
    await owner.send(topic, b"left")
    await owner.offsets(source, 5, "left")
    await broker.time_out(transactional_id)
    await broker.settled(topic)
    assert await broker.read(topic, 0) == ([], 2)
    with pytest.raises(Fenced):
        await owner.end(commit=True)
    assert await broker.committed(source) is None


async def test_what_is_deleted_cannot_be_read(broker: Broker) -> None:
    topic, source = await broker.topic(), await broker.topic()
    for number in range(4):
        await broker.append(topic, b"%d" % number)
    await broker.delete_before(topic, 2)
    assert await broker.bounds(topic) == (2, 4, 4)
    assert await broker.read(topic, 2) == ([(2, b"2"), (3, b"3")], 4)
    with pytest.raises(OutOfRange):
        await broker.read(topic, 1)
    assert await broker.committed(source) is None


async def _told(broker: Broker, topic: str, wanted: tuple[int, str] | None) -> bool:
    """A committed offset is seen a moment after the commit (M9)."""

    async def seen() -> bool:
        return await broker.committed(topic) == wanted

    await eventually(seen, SETTLED_SECONDS, f"the group's offset is {wanted}")
    return True
