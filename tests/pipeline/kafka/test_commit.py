"""Transactions on every supported version of Kafka: the traps of docs/adr/0003 that live in the producer."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from pipeline.config import Kafka as KafkaSettings
from pipeline.kafka.commit import MAX_BATCH_BYTES, Output, Transaction
from pipeline.kafka.pace import Turns
from pipeline.kafka.reader import Reader
from schemas.errors import Retryable
from tests.pipeline.kafka import committed, create, fresh, read_all
from tests.services import Kafka

SMALL = "10000"  # max.message.bytes of a topic that refuses large records


class Target:
    """A topic, a group and an input partition of one test."""

    def __init__(self, kafka: Kafka) -> None:
        self.settings = KafkaSettings(bootstrap_servers=[kafka.bootstrap])
        self.bootstrap = kafka.bootstrap
        self.topic, self.group, self.id = fresh("out"), fresh("group"), fresh("id")
        self.input = TopicPartition(fresh("in"), 0)
        self._group: Any = SimpleNamespace(
            group_id=self.group, role="test", turns=Turns(), sizes={}, moved=lambda offsets: None
        )

    def transaction(self) -> Transaction:
        return Transaction(self.settings, self._group, self.id)

    def offset(self, value: int, metadata: str = "") -> dict[TopicPartition, OffsetAndMetadata]:
        return {self.input: OffsetAndMetadata(value, metadata)}

    async def committed(self) -> int:
        return await committed(self.bootstrap, self.group, self.input)

    async def values(self) -> list[bytes]:
        return [record.value for record in await read_all(self.bootstrap, self.topic)]


@pytest.fixture
async def target(every_kafka: Kafka) -> Target:
    found = Target(every_kafka)
    await create(every_kafka.bootstrap, {found.topic: 1, found.input.topic: 1}, **{"max.message.bytes": SMALL})
    return found


async def test_a_refused_record_commits_nothing(target: Target) -> None:
    """F1: aiokafka would commit the offsets of a transaction whose batch was refused (M12)."""
    first = target.transaction()
    await first.start()
    await first.commit([Output(target.topic, b"before", 0)], target.offset(10))
    with pytest.raises(KafkaError):
        await first.commit(
            [Output(target.topic, b"fits", 0), Output(target.topic, b"x" * 20_000, 0)], target.offset(1000)
        )
    await first.stop()
    second = target.transaction()
    await second.start()
    assert await target.committed() == 10
    await second.commit([Output(target.topic, b"after", 0)], target.offset(11))
    await second.stop()
    assert await target.values() == [b"before", b"after"]
    assert await target.committed() == 11


async def test_a_zombie_moves_neither_outputs_nor_offsets(target: Target) -> None:
    """I1: only the newest epoch writes; an idle zombie with offsets alone is refused too (M7)."""
    zombie, owner = target.transaction(), target.transaction()
    await zombie.start()
    await zombie.commit([Output(target.topic, b"mine", 0)], target.offset(1))
    await owner.start()
    with pytest.raises((KafkaError, AssertionError, Retryable)):
        await zombie.commit([], target.offset(500))
    with pytest.raises((KafkaError, AssertionError, Retryable)):
        await zombie.commit([Output(target.topic, b"ghost", 0)], target.offset(500))
    await zombie.stop()
    await owner.commit([Output(target.topic, b"theirs", 0)], target.offset(2))
    await owner.stop()
    assert await target.values() == [b"mine", b"theirs"]
    assert await target.committed() == 2


@pytest.mark.parametrize("outputs", [0, 3, 12], ids=["offsets alone", "a batch", "more than a batch"])
async def test_a_zombie_leaves_no_exception_that_nobody_asked_for(
    target: Target, caplog: pytest.LogCaptureFixture, outputs: int
) -> None:
    """asyncio logs such a future once nothing refers to it, as a bug of ours."""
    zombie, owner = target.transaction(), target.transaction()
    await zombie.start()
    await zombie.commit([], target.offset(1))
    await owner.start()
    with pytest.raises(KafkaError):
        await zombie.commit([Output(target.topic, bytes(MAX_BATCH_BYTES // 3), 0)] * outputs, target.offset(2))
    await zombie.stop()
    await owner.stop()
    del zombie
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_taking_over_ends_the_predecessors_open_transaction(target: Target) -> None:
    """F8, F12: after InitProducerId the offset is final and readers are not held up by what was left open."""
    dead = target.transaction()
    await dead.start()
    await dead.commit([Output(target.topic, b"done", 0)], target.offset(1))
    await dead._producer.begin_transaction()
    await (await dead._producer.send(target.topic, b"half", partition=0))
    await dead._producer.send_offsets_to_transaction({target.input: (7, "")}, target.group)
    owner = target.transaction()
    await asyncio.wait_for(owner.start(), 5)
    assert await target.committed() == 1
    assert await asyncio.wait_for(target.values(), 5) == [b"done"]
    await owner.stop()
    await dead.stop()


async def test_the_offset_is_seen_right_after_the_next_init(target: Target) -> None:
    """M9: right after a commit the answer may be stale; after a new InitProducerId it never is."""
    for number in range(1, 16):
        owner = target.transaction()
        await owner.start()
        assert await target.committed() == (number - 1 or -1)
        await owner.commit([Output(target.topic, b"v", 0)], target.offset(number))
        await owner.stop()


async def test_offsets_may_name_where_the_outputs_went(target: Target) -> None:
    """M10: metadata of the committed offset is a pointer to a record of the same transaction."""
    owner = target.transaction()
    await owner.start()

    def placed(written: list[RecordMetadata]) -> dict[TopicPartition, OffsetAndMetadata]:
        return target.offset(5, str(written[0].offset))

    (record,) = await owner.commit([Output(target.topic, b"state", 0)], placed)
    await owner.stop()
    reader = Reader(target.settings)
    first, end = await reader.end(TopicPartition(target.topic, 0))
    assert (first, end) == (0, 2), "one record and the marker of its transaction"
    found = await reader.read(TopicPartition(target.topic, 0), record.offset, end, 1 << 20)
    await reader.close()
    assert [value for _, _, value in found.records] == [b"state"]
    assert found.position == end, "positions pass control records (M13)"


async def test_after_a_commit_that_failed_the_epoch_commits_nothing_more(target: Target) -> None:
    """Its rows are in memory no longer: a commit that waited for its turn would acknowledge them."""
    owner = target.transaction()
    await owner.start()
    with pytest.raises(KafkaError):
        await owner.commit([Output(target.topic, b"x" * 20_000, 0)], target.offset(5))
    with pytest.raises(Retryable, match="unknown outcome"):
        await owner.commit([], target.offset(5))
    await owner.stop()
    assert await target.committed() == -1
