"""The role `sink.NAME`: from an internal topic to one destination, at least once.

Each sink is a consumer group of its own, so a slow one delays nobody else. An offset is committed once everything
before it is settled (sending/delivery.py), and says what is settled behind it (sending/settled.py), so what moves to
another worker is not sent again. The writes of a predecessor that died unheard of are recognised by the destination: by
`_id` in Elasticsearch, by time in Prometheus; Jaeger may show a span twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import faust
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from pipeline import telemetry
from pipeline.config import Config
from pipeline.kafka import expired
from pipeline.kafka.commit import MAX_REQUEST_BYTES
from pipeline.kafka.consume import Group
from pipeline.kafka.lease import Lease
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import Topics
from pipeline.roles import sources
from pipeline.sending.delivery import SAID_CHARACTERS, Delivery
from pipeline.sending.offsets import Offsets
from pipeline.sending.settled import Settled
from pipeline.sending.settlement import STANDS, Account
from pipeline.watching.dead_letter_share import NEVER, DeadLetterShare
from pipeline.watching.seldom import Seldom
from schemas.dead_letter import OTLP, DeadLetter
from schemas.errors import Retryable
from schemas.kafka_client import let_go
from sinks import create
from sinks.contract import Item, Refusal, Signal, SourceRecord

UNREAD_LIMIT = 8 << 20  # bytes of one partition that may wait to be encoded before fetching pauses
UNREAD_TOTAL = 128 << 20  # of all partitions of a sink
ANSWERS_LIMIT = 1.5  # seconds that a partition which may move waits for answers: half of consume.PAUSE_LIMIT
TELL_EVERY = 1.0  # seconds between two looks at what stands
WARN_EVERY = 10.0  # seconds between two lines of what a destination says of what it takes
LAST_ANSWERS = 5.0  # seconds that a worker which stops waits for requests under way: less than a session

log = logging.getLogger(__name__)


def group(app: faust.App, config: Config, name: str) -> Group:
    """The consumer group of one entry of `sinks`."""
    topics_read = sources(config, name)

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        (partition,) = partitions
        return SinkPartition(owner, partition, topics_read[partition.topic], config, outlet)

    made = Group(app, config, f"sink.{name}", list(topics_read), lease, patience=config.sinks[name].batch.max_age)
    outlet = Outlet(name, config, made)
    return made


class Outlet:
    """What all partitions of a sink share: offsets, and its delivery and dead letters, open while any of them is held.

    `had` is what became of the partitions that this worker has had; what is done `regularly` ends only with an error.
    """

    regularly: tuple[asyncio.Task[None], ...]

    def __init__(self, name: str, config: Config, owner: Group) -> None:
        self._name, self._config, self._turns = name, config, owner.turns
        self.offsets = Offsets(owner)
        self.had: dict[TopicPartition, Account] = {}
        self._dead_letters = DeadLetters(f"sink.{name}", config)
        self._topics = sources(config, name)
        # Samples that came too late are refused for good, and newer ones say all that they say: no reason to stop.
        counts = "samples" not in self._topics.values()
        limit = config.limits.dead_letters if counts else NEVER
        self._share = DeadLetterShare(f"sink.{name}", name, limit)
        self._delivery: Delivery | None = None
        self.users = 0  # partitions that are held
        self._lock = asyncio.Lock()
        self._warnings = Seldom(WARN_EVERY)

    async def enter(self) -> Delivery:
        """One partition more. Waits for the destination for as long as it takes."""
        async with self._lock:
            if self._delivery is None:
                settings = self._config.sinks[self._name]
                destination = create(self._name, settings, self._config.sampling.compat == "none")
                destination.warned = self._warn
                bury, share = self._dead_letters.write, self._share
                confirmed = self.offsets.confirmed
                delivery = Delivery(self._name, destination, settings, bury, share, self._turns, confirmed)
                try:
                    await self._dead_letters.start()
                    await delivery.open()
                except BaseException:
                    await delivery.close()
                    await self._dead_letters.stop()
                    raise
                self._delivery = delivery
                self.regularly = (
                    asyncio.create_task(self.offsets.commit_regularly()),
                    asyncio.create_task(self._tell_regularly()),
                )
            self.users += 1
            return self._delivery

    async def leave(self) -> None:
        """One partition less; the last one closes the connections."""
        async with self._lock:
            self.users -= 1
            delivery = self._delivery
            if not self.users and delivery is not None:
                self._delivery = None
                for task in self.regularly:
                    task.cancel()
                await asyncio.wait(self.regularly)
                self._tell(())
                await delivery.close()
                await self._dead_letters.stop()

    async def _tell_regularly(self) -> None:
        while True:
            now = time.time()  # of all workers: how long a position stands goes on with the next one
            stood = [(p.topic, account.stood(now)) for p, account in self.had.items() if not account.closed]
            self._tell(stood)
            if any(seconds >= STANDS for _, seconds in stood):
                self.offsets.changed()  # the next owner is told since when
            await asyncio.sleep(TELL_EVERY)

    def _warn(self, said: str) -> None:
        if self._warnings.due(time.monotonic()):
            endpoint = ", ".join(self._config.sinks[self._name].servers)
            extra = {"sink": self._name, "endpoint": endpoint, "answer": said[:SAID_CHARACTERS]}
            log.warning("sink accepts everything, with a warning", extra=extra)

    def _tell(self, stood: Iterable[tuple[str, float]]) -> None:
        longest = dict.fromkeys(self._topics, 0.0)
        for topic, seconds in stood:
            longest[topic] = max(longest[topic], seconds)
        for topic, seconds in longest.items():
            telemetry.gauge("tailrace_sink_stuck_seconds", seconds, sink=self._name, topic=topic)


class DeadLetters:
    """Writes what destinations refuse to `dlq`."""

    def __init__(self, stage: str, config: Config) -> None:
        self._stage, self._config = stage, config
        self._topic = Topics(config.kafka.prefix).dlq
        self._other = {item.topic for item in config.inputs if item.encoding != OTLP}  # rows are OTLP by now
        self._producer: AIOKafkaProducer = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            acks="all", max_request_size=MAX_REQUEST_BYTES, **client_kwargs(self._config.kafka)
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect. Does not raise."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await let_go(producer)

    async def write(self, items: Sequence[Item], refusal: Refusal) -> None:
        """One letter, of items of one raw record. Raises Retryable if the brokers do not take it."""
        origin = items[0].origin
        letter = DeadLetter(
            items[0].dead_letter(*items[1:]),
            origin.topic,
            origin.partition,
            origin.offset,
            origin.timestamp,
            origin.index,
            self._stage,
            refusal.reason,
            refusal.detail,
            OTLP if origin.topic in self._other else "",
            len(items),
        ).fitted(self._config.limits.max_dead_letter_bytes)
        try:
            await self._producer.send_and_wait(self._topic, letter.value, letter.key(), headers=letter.headers())
        except KafkaError as error:
            raise Retryable(f"{self._topic}: {error!r}") from error


class SinkPartition(Lease):
    """One partition of what a sink reads; `signal` is what it holds."""

    fenced = False

    def __init__(self, owner: Group, partition: TopicPartition, signal: Signal, config: Config, outlet: Outlet) -> None:
        self._group, self._partition, self._signal = owner, partition, signal
        self._config, self._outlet = config, outlet
        self._unread: deque[SourceRecord] = deque()
        self._unread_bytes = 0
        self._arrived = asyncio.Event()
        self._next = self._known = 0
        self._delivery: Delivery | None = None
        self._account = Account(0)

    async def open(self) -> Mapping[TopicPartition, int]:
        """Reach the destination, then go on from the group's offset; a new group begins with what there is."""
        self._delivery = await self._outlet.enter()
        partition = self._partition
        committed = (await self._group.committed([partition])).get(partition)
        self._known = (await self._group.brokers.end([partition]))[partition]
        if committed is None:
            first = position = (await self._group.brokers.beginning([partition]))[partition]
            metadata = ""
        else:
            position, metadata = committed.offset, committed.metadata
        settled = Settled.unpack(metadata, position)
        if any(stop > self._known for _, stop in settled.records):
            settled = Settled()  # the log was cut
        begin, mine, lost = position, self._outlet.had.get(partition), 0
        if committed is not None and mine is not None and await self._same_log(mine):
            begin = max(position, mine.position)
            settled.add(mine.settled())
            lost = mine.lost if position < mine.began else 0  # nobody has committed since
        if committed is not None:
            gone, first = await self._group.brokers.gone(partition, begin)
            lost += gone
        if max(first, begin) != position:
            settled.since = None  # it was said of another offset
        expired.say(self._group.role, partition, lost)
        offsets = self._outlet.offsets
        self._account = Account(max(first, begin), settled, self._signal != "samples", offsets.changed, lost)
        self._next = self._account.position
        self._outlet.had[partition] = self._account
        offsets.begin(partition, self._account, position, metadata)
        return {partition: self._next}

    async def _same_log(self, mine: Account) -> bool:
        """Whether the log still has the newest record that this worker had of it: a topic may be made anew."""
        if mine.last is None:
            return False
        offset, timestamp = mine.last
        found = await self._group.brokers.written(self._partition, timestamp)
        return found is not None and found.offset <= offset < self._known and found.timestamp == timestamp

    def opening(self) -> Hashable | None:
        """Whether the destination was reached, which may be away for as long as it likes."""
        return None if self._delivery is None else "reached"

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to fetch."""
        return {self._partition: max(self._next, self._account.position)}

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Keep for `work`, which waits for room. What was there when the lease began may be a repetition."""
        for record in records:
            if record.offset >= self._next:
                self._unread.append(
                    SourceRecord(
                        partition.topic,
                        partition.partition,
                        record.offset,
                        record.timestamp,
                        record.value,
                        self._signal,
                        redelivered=record.offset < self._known,
                    )
                )
                self._unread_bytes += len(record.value)
                self._next = record.offset + 1
        self._arrived.set()

    def saturated(self) -> bool:
        """Whether enough records wait to be encoded."""
        return self._unread_bytes > min(UNREAD_LIMIT, UNREAD_TOTAL // max(1, self._outlet.users))

    async def work(self) -> None:
        """Feed the delivery, whose outlet commits what it has settled."""
        delivery = self._opened
        feeding = asyncio.create_task(self._feed(delivery))
        needed = (feeding, *self._outlet.regularly, delivery.failed)
        try:
            await asyncio.wait(needed, return_when=asyncio.FIRST_COMPLETED)
            for done in needed:
                if done.done():
                    done.result()
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def pause(self) -> None:
        """What the destination has is committed before the partition may move, so the next owner does not send it.

        An answer that takes longer than the group can wait is not waited for.
        """
        if self._delivery is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWERS_LIMIT):
                    await self._delivery.pause(self)
            await self._outlet.offsets.commit()

    def resume(self, kept: bool) -> None:
        """Send again; what is queued of a partition that moved is the next owner's to send."""
        if self._delivery is not None:
            if not kept:
                self._delivery.drop(self._account, self._partition.topic, self._partition.partition)
            self._delivery.resume(self)

    def progress(self) -> Hashable | None:
        """How far it is settled; None while a request is under way: a destination may be away for as long as it likes.

        Requests have time-outs of their own (`sinks.NAME.timeout`), and what is not answered is sent again for ever:
        an outage is back-pressure, with the alert SinkStuck.
        """
        busy = self._delivery is None or self._delivery.busy
        return None if busy or not (self._unread or self._account.unsettled) else self._account.position

    async def finish(self) -> None:
        """Wait for the answers to what was sent; commit what is settled by then, leave the rest to the next owner."""
        await self._opened.drain(LAST_ANSWERS)
        await self._outlet.offsets.commit()

    async def close(self) -> None:
        """Forget what is queued; the next owner reads it again."""
        delivery, self._delivery = self._delivery, None
        self._outlet.offsets.end(self._partition, self._account)
        if delivery is not None:
            delivery.drop(self._account, self._partition.topic, self._partition.partition)
            delivery.resume(self)
            await self._outlet.leave()

    @property
    def _opened(self) -> Delivery:
        if self._delivery is None:
            raise RuntimeError("the lease is not open")
        return self._delivery

    async def _feed(self, delivery: Delivery) -> None:
        while True:
            if not self._unread:
                self._arrived.clear()
                await self._arrived.wait()
            record = self._unread.popleft()
            await delivery.add(self._account, record)
            self._unread_bytes -= len(record.value)
            await asyncio.sleep(0)  # one record may hold thousands of rows: let heartbeats through
