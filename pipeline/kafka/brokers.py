"""What a role asks the brokers: where partitions begin and end, what lies when, what groups have committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp

from pipeline.config import Kafka
from pipeline.kafka.admin import settings
from pipeline.kafka.fetching import consumer_kwargs
from pipeline.kafka.security import client_kwargs
from schemas.errors import Unavailable
from schemas.settings import parse_duration

log = logging.getLogger(__name__)

END_LIMIT = 1.0  # seconds that a question for the end may take before rows in hand are committed without the answer
METADATA_AGE_MS = 30_000  # until then a partition whose leader vanished without a word is asked for there
CLOSE_LIMIT = 10.0  # seconds after which a client that was told to end is no longer waited for


class Brokers:
    """Answers about `topics`, asked afresh each time. Whatever asks raises KafkaError if there is none.

    Most are asked on the connections of the role's consumer; the end of what is written on one of its own, because
    there an answer comes behind a fetch that waits.
    """

    def __init__(self, kafka: Kafka, topics: Sequence[str]) -> None:
        self._kafka, self._topics = kafka, topics
        self._consumer: AIOKafkaConsumer = None
        self._asking: AIOKafkaConsumer = None
        self.admin: AIOKafkaAdminClient = None

    async def start(self, consumer: AIOKafkaConsumer) -> None:
        """Connect; the role's `consumer` need not be started yet."""
        self._consumer = consumer
        self.admin = AIOKafkaAdminClient(**client_kwargs(self._kafka))
        asking = {"isolation_level": "read_uncommitted", "metadata_max_age_ms": METADATA_AGE_MS}
        self._asking = AIOKafkaConsumer(**consumer_kwargs(self._kafka) | asking)
        await self.admin.start()
        await self._asking.start()
        # Its metadata may be asked of a broker that hangs: another one must have its turn before a session is over.
        self._asking._client._request_timeout_ms = round(self._kafka.session_timeout * 1000 / 2)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What keeps the metadata of the clients that are its own up to date."""
        return [self._asking._client._sync_task, self.admin._client._sync_task]

    async def close(self) -> None:
        """Disconnect, the role's consumer first. Does not raise."""
        for client, end in (
            (self._consumer, AIOKafkaConsumer.stop),
            (self._asking, AIOKafkaConsumer.stop),
            (self.admin, AIOKafkaAdminClient.close),
        ):
            with contextlib.suppress(Exception):  # a consumer whose fetcher ended raises that once more
                await asyncio.wait_for(end(client), CLOSE_LIMIT)

    # ---- partitions --------------------------------------------------------------------------------------

    async def beginning(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset that still exists, per partition."""
        found: dict[TopicPartition, int] = await self._consumer.beginning_offsets(list(partitions))
        return found

    async def end(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offset, per partition: everything before it is decided."""
        found: dict[TopicPartition, int] = await self._consumer.end_offsets(list(partitions))
        return found

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """`end` of those that have a leader, each asked for by itself. Raises KafkaError if there are only others."""
        answers = await asyncio.gather(*(self.end([partition]) for partition in partitions), return_exceptions=True)
        found = {p: end for answer in answers if not isinstance(answer, BaseException) for p, end in answer.items()}
        for answer in answers:
            if isinstance(answer, BaseException) and not (found and isinstance(answer, KafkaError)):
                raise answer
        return found

    async def written_end(self, partition: TopicPartition) -> int | None:
        """The partition's end, asked now, open transactions included: none is left before it once it was passed.

        None when there is no quick answer.
        """
        try:
            async with asyncio.timeout(END_LIMIT):
                return (await self.written_ends([partition]))[partition]
        except (TimeoutError, KafkaError):
            return None

    async def written_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The ends with open transactions included, however long the answer takes. Raises KafkaError."""
        found: dict[TopicPartition, int] = await self._asking.end_offsets(list(partitions))
        return found

    async def gone(self, partition: TopicPartition, position: int) -> tuple[int, int]:
        """How many offsets from `position` on a partition has no more, records and markers between them; its first one.

        What a transaction wrote ends with its marker: a partition with nothing left has lost none with its last offset.
        Who produces to a raw topic need not use transactions: of one that is empty a record may be missing here. That
        is better than a loss each time that a topic of somebody who does runs dry.
        """
        first = (await self.beginning([partition]))[partition]
        emptied = self._kafka.transactions and first == (await self.end([partition]))[partition]
        return max(0, first - position - emptied), first

    async def first(self, partition: TopicPartition, since: str) -> int:
        """Where a group that is new to a raw partition begins: `since` as in `kafka.start`."""
        if since == "earliest":
            return (await self.beginning([partition]))[partition]
        end = (await self.end([partition]))[partition]
        if since == "latest":
            log.warning(
                "first start at the end of the raw topic: what is in it already will not be read; "
                "set kafka.start or --since to read it",
                extra={"topic": partition.topic, "partition": partition.partition, "offset": end},
            )
            return end
        found = await self.at_time(partition, int((time.time() - parse_duration(since)) * 1000))
        return end if found is None else found

    async def at_time(self, partition: TopicPartition, timestamp: int) -> int | None:
        """First offset at or after a time (ms), None when there is none."""
        found = await self.written(partition, timestamp)
        return None if found is None else found.offset

    async def written(self, partition: TopicPartition, timestamp: int) -> OffsetAndTimestamp | None:
        """Where the first record at or after a time (ms) is, and its time."""
        found: dict[TopicPartition, OffsetAndTimestamp | None]
        found = await self._consumer.offsets_for_times({partition: timestamp})
        return found.get(partition)

    async def first_times(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Timestamp (ms) of the first record that still exists, per partition; an empty partition is absent."""
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, 0))
        return {p: answer.timestamp for p, answer in found.items() if answer is not None}

    async def retention(self) -> dict[str, float]:
        """Seconds that each topic of the group keeps its records; those whose settings are not told are absent."""
        found = await settings(self.admin, self._topics)
        told = {topic: float(values["retention.ms"]) for topic, values in found.items() if "retention.ms" in values}
        return {topic: float("inf") if ms < 0 else ms / 1000 for topic, ms in told.items()}

    async def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Let the brokers forget a partition's records below an offset."""
        await self.admin.delete_records({partition: RecordsToDelete(offset)})

    async def counts(self) -> dict[str, int]:
        """How many partitions each topic has, whoever reads it."""
        return {topic["topic"]: len(topic["partitions"]) for topic in await self.admin.describe_topics(None)}

    # ---- groups ------------------------------------------------------------------------------------------

    async def answer(self, group: str, partitions: Collection[TopicPartition]) -> None:
        """Return once the leaders of these partitions and the coordinator of the consumer's group have.

        Raises KafkaError, at once while the consumer looks for a coordinator. Here none is looked up: that asks any
        broker, and one that hangs may have nothing to do with the group.
        """
        await self.written_ends(partitions)
        if (coordinator := self._consumer._coordinator.coordinator_id) is None:
            raise GroupCoordinatorNotAvailableError(group)
        await self.admin.list_consumer_group_offsets(group, coordinator, [])

    async def offsets(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a group has committed for each of these partitions, -1 for nothing.

        Raises Unavailable while the coordinator is loading or moving: aiokafka 0.14 overlooks the error of the whole
        answer and finds no partitions in it, whereas one that was asked for by name is always answered.
        """
        found: dict[TopicPartition, OffsetAndMetadata]
        found = await self.admin.list_consumer_group_offsets(group, partitions=list(partitions))
        if missing := set(partitions) - set(found):
            raise Unavailable(f"the coordinator of {group} did not answer for {len(missing)} partitions")
        return found

    async def members_of(self, group: str) -> int:
        """How many members another group has now; 0 if there is no such group. Raises KafkaError."""
        (answer,) = await self.admin.describe_consumer_groups([group])
        ((code, _, _, _, _, members, *_),) = answer.groups
        if code:
            raise for_code(code)(group)
        return len(members)
