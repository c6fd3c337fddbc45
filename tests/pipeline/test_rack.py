"""`kafka.client_rack` on two real brokers: who is in the follower's rack reads from the follower (KIP-392)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.config import Kafka as KafkaSettings
from pipeline.kafka.reader import Reader
from tests.pipeline.copying import copier
from tests.pipeline.kafka import DEADLINE, create, fresh, read_all
from tests.services import Kafka, eventually

VALUES = [f"{number}".encode() * 100 for number in range(50)]
COMPLETED = "Completed request:"


@dataclass(frozen=True)
class Racks:
    """The controller and leader of everything is in rack a, a second replica of some topics in rack b."""

    leader: Kafka
    follower: Kafka

    def fetched(self, topic: str) -> dict[tuple[str, str], int]:
        """Bytes of records of a topic that clients were sent, by the broker's rack and by theirs."""
        found: dict[tuple[str, str], int] = {}
        for rack, broker in (("a", self.leader), ("b", self.follower)):
            for entry in _requests(broker, "FETCH"):
                sizes = [
                    partition["recordsSizeInBytes"]
                    for response in entry["response"]["responses"]
                    for partition in response["partitions"]
                    if response.get("topic") == topic
                ]
                if any(sizes):
                    key = (rack, entry["request"]["rackId"])
                    found[key] = found.get(key, 0) + sum(sizes)
        return found


def _requests(broker: Kafka, name: str) -> Iterator[dict[str, Any]]:
    for line in broker.log.read_text().splitlines():
        _, told, entry = line.partition(COMPLETED)
        if told and (found := json.loads(entry))["requestHeader"]["requestApiKeyName"] == name:
            yield found


@pytest.fixture(scope="module")
def racks() -> Iterator[Racks]:
    """Their request logs tell whom they have sent what."""
    leader = Kafka()
    follower = leader.another()
    for broker, rack in ((leader, "a"), (follower, "b")):
        broker.flags = ["-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug"]
        broker.properties |= {
            "broker.rack": rack,
            "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        }
    with leader, follower:
        yield Racks(leader, follower)


@contextlib.asynccontextmanager
async def copying(bootstrap: str, source: str, target: str, rack: str) -> AsyncIterator[None]:
    worker = copier(bootstrap, source, target, client_rack=rack)
    await worker.start()
    try:
        yield
    finally:
        await worker.stop()


async def test_the_replica_in_the_workers_rack_is_read(racks: Racks) -> None:
    """By groups as well as by what reads outside them; somebody in no broker's rack reads from the leader."""
    bootstrap, partition = racks.leader.bootstrap, TopicPartition(fresh("racks"), 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    replicated = NewTopic(partition.topic, -1, -1, replica_assignments={0: [1, 2]})
    assert not any(code for _, code, *_ in (await admin.create_topics([replicated])).topic_errors)
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await asyncio.gather(*[await producer.send(partition.topic, value, partition=0) for value in VALUES])

    async def read(rack: str) -> None:
        reader = Reader(KafkaSettings(bootstrap_servers=[bootstrap], client_rack=rack))
        found = await reader.read(partition, 0, len(VALUES), 1 << 20)
        await reader.close()
        assert [value for _, _, value in found.records] == VALUES

    async def served(*racks_of_both: tuple[str, str], more_than: int = 0) -> int:
        """Bytes that the last of these pairs of broker and client has moved. A broker logs what it sent a bit later."""

        async def told() -> dict[tuple[str, str], int] | None:
            found = racks.fetched(partition.topic)
            return found if found.keys() == set(racks_of_both) and found[racks_of_both[-1]] > more_than else None

        found = await eventually(told, DEADLINE, f"{racks_of_both} and no others moved records")
        assert found is not None
        return found[racks_of_both[-1]]

    await read("elsewhere")
    await served(("a", "elsewhere"))
    await read("b")
    before = await served(("a", "elsewhere"), ("b", "b"))

    target = fresh("copied")
    await create(bootstrap, {target: 1})
    async with copying(bootstrap, partition.topic, target, "b"):

        async def copied() -> bool:
            return [record.value for record in await read_all(bootstrap, target)] == VALUES

        await eventually(copied, DEADLINE, "the group has read everything")
    await served(("a", "elsewhere"), ("b", "b"), more_than=before)
