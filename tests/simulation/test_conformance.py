"""What the simulated Kafka does, asked of it and of a real broker alike."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    MemberIdRequired,
    NotCoordinatorForGroupError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata

from tests.pipeline.kafka import create, fresh
from tests.services import Kafka, eventually
from tests.simulation.groups import Group, IllegalGeneration, Rebalancing, UnknownMember
from tests.simulation.kafka import Fenced, OutOfRange, SimulatedKafka

SESSION_MS = 60_000
SHORT_SESSION_MS = 6_000  # the least that brokers allow
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


class Member(ABC):
    """A member of the group, request by request. Raises UnknownMember, IllegalGeneration, Rebalancing."""

    id = ""
    generation = -1

    @abstractmethod
    async def join(self) -> None:
        """JoinGroup, answered when all have joined."""

    @abstractmethod
    async def sync(self, *assigned: Member) -> bytes:
        """SyncGroup; of the leader with everybody's assignment, here the id of each: the own one."""

    @abstractmethod
    async def heartbeat(self) -> None: ...
    @abstractmethod
    async def commit(self, topic: str, offset: int) -> None: ...
    @abstractmethod
    async def leave(self) -> None: ...


class Broker(ABC):
    """Topics of one partition, one group."""

    @abstractmethod
    async def member(self, session_ms: int = SESSION_MS) -> Member: ...
    @abstractmethod
    async def end_session(self, silent: Member, other: Member) -> None:
        """Of a member that is silent, while the other is not: this one then has to join again."""

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


class SimulatedMember(Member):
    def __init__(self, kafka: SimulatedKafka, group: Group) -> None:
        self._kafka, self._group = kafka, group

    async def join(self) -> None:
        self.id = self._group.join(self.id, self._kafka.now)
        while (generation := self._group.joined(self.id)) is None:  # noqa: ASYNC110 (the others join meanwhile)
            await asyncio.sleep(0)
        self.generation = generation

    async def sync(self, *assigned: Member) -> bytes:
        given = {member.id: [(member.id, 0)] for member in assigned} or None
        while (found := self._group.sync(self.id, self.generation, self._kafka.now, given)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found[0][0].encode()

    async def heartbeat(self) -> None:
        self._group.heartbeat(self.id, self.generation, self._kafka.now)

    async def commit(self, topic: str, offset: int) -> None:
        self._kafka.commit_plain(self._group, self.id, self.generation, {(topic, 0): (offset, "")})

    async def leave(self) -> None:
        self._group.leave(self.id, self._kafka.now)


class Simulated(Broker):
    def __init__(self) -> None:
        self._kafka, self._group = SimulatedKafka(), Group(SESSION_MS)

    async def member(self, session_ms: int = SESSION_MS) -> Member:
        return SimulatedMember(self._kafka, self._group)

    async def end_session(self, silent: Member, other: Member) -> None:
        for _ in range(3):
            self._kafka.now += SESSION_MS // 2
            with contextlib.suppress(Rebalancing):
                await other.heartbeat()
            self._group.expire(self._kafka.now)

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
        return self._kafka.committed((topic, 0))

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


REFUSALS = {
    UnknownMemberIdError: UnknownMember,
    IllegalGenerationError: IllegalGeneration,
    RebalanceInProgressError: Rebalancing,
}
NOT_READY = (CoordinatorLoadInProgressError, GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)


def _refusal(code: int) -> type[Exception]:
    error: type[Exception] = for_code(code)
    return REFUSALS.get(error, error)


class RealMember(Member):
    """Over a connection of its own: the answer to JoinGroup holds up everything behind it."""

    def __init__(self, connection: AIOKafkaConnection, group: str, session_ms: int) -> None:
        self._connection, self._group, self._session_ms = connection, group, session_ms

    async def _send(self, request: Any) -> Any:
        answer = await self._connection.send(request)
        code = answer.topics[0][1][0][1] if isinstance(request, OffsetCommitRequest) else answer.error_code
        if code:
            raise _refusal(code)
        return answer

    async def join(self) -> None:
        async def answered() -> bool:
            waits = self._session_ms, SESSION_MS
            request = JoinGroupRequest(self._group, *waits, self.id, None, "consumer", [("range", b"")])
            answer = await self._connection.send(request)
            if answer.error_code == MemberIdRequired.errno:  # a new member is told its id first
                self.id = answer.member_id
            elif answer.error_code and for_code(answer.error_code) not in NOT_READY:
                raise _refusal(answer.error_code)
            elif not answer.error_code:
                self.id, self.generation = answer.member_id, answer.generation_id
            return not answer.error_code

        await eventually(answered, SETTLED_SECONDS, "the group is joined")

    async def sync(self, *assigned: Member) -> bytes:
        given = [(member.id, member.id.encode()) for member in assigned]
        answer = await self._send(SyncGroupRequest(self._group, self.generation, self.id, None, given))
        found: bytes = answer.member_assignment
        return found

    async def heartbeat(self) -> None:
        await self._send(HeartbeatRequest(self._group, self.generation, self.id))

    async def commit(self, topic: str, offset: int) -> None:
        places = [(topic, [(0, offset, "")])]
        await self._send(OffsetCommitRequest(self._group, self.generation, self.id, -1, places))

    async def leave(self) -> None:
        await self._send(LeaveGroupRequest(self._group, self.id))


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

    async def member(self, session_ms: int = SESSION_MS) -> Member:
        host, port = self._bootstrap.split(":")
        with contextlib.suppress(GroupCoordinatorNotAvailableError):
            async with self._admin() as admin:  # which asks for the group's coordinator, and so makes the broker be one
                await admin.list_consumer_group_offsets(self._group)
        connection = await create_conn(host, int(port))
        self._ends.callback(connection.close)
        return RealMember(connection, self._group, session_ms)

    async def end_session(self, silent: Member, other: Member) -> None:
        async def over() -> bool:
            try:
                await other.heartbeat()
            except Rebalancing:
                return True
            return False

        await eventually(over, SETTLED_SECONDS, "the silent member is no member any more")

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


async def test_a_rebalance_is_a_new_generation_of_all_who_join_again(broker: Broker) -> None:
    topic, first, second = await broker.topic(), await broker.member(), await broker.member()
    await first.join()
    assert await first.sync(first) == first.id.encode()
    await first.heartbeat()
    await first.commit(topic, 1)
    joining = asyncio.create_task(second.join())
    await _hears_of_a_rebalance(first)
    await first.commit(topic, 2)  # what it had read may be committed before it joins again
    assert not joining.done(), "all members are waited for"
    before = first.generation
    await first.join()
    await joining
    assert first.generation == second.generation == before + 1
    with pytest.raises(Rebalancing):
        await first.commit(topic, 3)  # nobody knows whose it is before the leader has told
    following = asyncio.create_task(second.sync())
    assert await first.sync(first, second) == first.id.encode()
    assert await following == second.id.encode()
    await second.commit(topic, 4)
    assert await _told(broker, topic, (4, ""))
    first.generation = before
    with pytest.raises(IllegalGeneration):
        await first.heartbeat()
    with pytest.raises(IllegalGeneration):
        await first.commit(topic, 5)
    await first.leave()
    with pytest.raises(UnknownMember):
        await first.commit(topic, 6)
    await _hears_of_a_rebalance(second)
    await second.join()
    assert second.generation == before + 2
    assert await second.sync(second) == second.id.encode()
    assert await _told(broker, topic, (4, "")), "no refused commit has moved it"


async def test_who_is_silent_for_a_session_is_no_member_but_its_epoch_still_commits(broker: Broker) -> None:
    """Generations are not asked for in a transaction (aiokafka 0.14 tells none): InitProducerId alone fences (I1)."""
    topic, transactional_id = await broker.topic(), fresh("id")
    other, silent = await broker.member(), await broker.member(SHORT_SESSION_MS)
    await other.join()
    await other.sync(other)
    joining = asyncio.create_task(silent.join())
    await _hears_of_a_rebalance(other)
    await other.join()
    await joining
    await asyncio.gather(other.sync(other, silent), silent.sync())
    zombie = await broker.owner(transactional_id)
    await broker.end_session(silent, other)
    with pytest.raises(UnknownMember):
        await silent.heartbeat()
    with pytest.raises(UnknownMember):
        await silent.commit(topic, 5)
    assert await broker.committed(topic) is None
    await zombie.begin()
    await zombie.send(topic, b"late")
    await zombie.offsets(topic, 7, "late")
    await zombie.end(commit=True)
    assert await _told(broker, topic, (7, "late"))
    await broker.owner(transactional_id)
    await zombie.begin()
    with pytest.raises(Fenced):
        await zombie.send(topic, b"never")


async def _hears_of_a_rebalance(member: Member) -> None:
    async def heard() -> bool:
        try:
            await member.heartbeat()
        except Rebalancing:
            return True
        await asyncio.sleep(0)
        return False

    await eventually(heard, SETTLED_SECONDS, "the member has to join again")


async def _told(broker: Broker, topic: str, wanted: tuple[int, str] | None) -> bool:
    """A committed offset is seen a moment after the commit (M9)."""

    async def seen() -> bool:
        return await broker.committed(topic) == wanted

    await eventually(seen, SETTLED_SECONDS, f"the group's offset is {wanted}")
    return True
