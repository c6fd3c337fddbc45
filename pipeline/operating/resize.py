"""Another N for a pipeline that has run: rows and verdicts change their partition, and nothing is decided meanwhile.

ingest and sample are stopped; the raw topics hold the input. What `sample` has not forwarded yet, the verdicts that it
remembers, its checkpoints, and N in ingest's offsets are written for the new partitions in *one* transaction that moves
both groups' offsets (processors/sampling/rekey.py, docs/adr/0004). So a resize has happened or it has not: one that was
killed is begun again, or given up by resizing to the N that is in force. Only adding partitions comes before it, and
harms nobody. Sinks run on; the aggregate runs on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from pipeline.config import Config
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.commit import MAX_BATCH_BYTES, MAX_REQUEST_BYTES
from pipeline.kafka.reader import Progress, Range, Reader
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import Topics, placed_by_trace
from processors.sampling.rekey import Decisions, Rows, follow, join
from schemas.decision import Checkpoint, DecisionRecord
from schemas.envelope import Envelope
from schemas.errors import ConfigError, Permanent, Unavailable
from schemas.kafka_client import let_go
from schemas.raw_offset import RawOffset

INGEST, SAMPLE = "ingest", "sample"
LONGEST_TRANSACTION_MS = 900_000  # the longest that brokers allow unless told otherwise (transaction.max.timeout.ms)
READ_BYTES = 1 << 20  # of one partition at a time: all of them are read side by side
UNACKNOWLEDGED = 1000  # records under way
FENCED_AT_ONCE = 8  # producers
FENCE_TIMEOUT_MS = 10_000
POLL = 0.1  # seconds between looks
SEEN_SECONDS = 30.0  # that brokers may take to know of added partitions
DEAD = ("Empty", "Dead")  # states of a group without members


@dataclass(slots=True)
class Left:
    """What partition `index` of the N in force leaves: `tails`, `counted` and `ends` by topic."""

    index: int
    checkpoint: Checkpoint
    tails: dict[str, int]
    counted: dict[str, int]
    ends: dict[str, int]
    decisions: tuple[int, int]  # from the pointer to the end
    verdicts: int = 0

    @property
    def records(self) -> int:
        """Records between tail and end, markers of transactions included."""
        return sum(self.ends[topic] - self.tails[topic] for topic in self.tails)


@dataclass(slots=True)
class Plan:
    """What a resize will do. `raw` are the offsets of ingest's groups, `added` are partitions to add, by topic."""

    before: int
    after: int
    left: list[Left]
    raw: dict[str, dict[TopicPartition, OffsetAndMetadata]]
    added: dict[str, int]
    found: dict[str, int]


@dataclass(slots=True)
class _Place:
    """Where a new partition of a topic begins, ends so far, and up to where its spans are in the span metrics."""

    first: int = -1
    end: int = -1
    counted: int = -1


class _Writer:
    """Writes in the one transaction, and remembers where."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._under_way: list[tuple[TopicPartition, asyncio.Future[RecordMetadata]]] = []
        self.places: dict[TopicPartition, _Place] = {}
        self.records = 0

    async def write(self, topic: str, partition: int, value: bytes) -> None:
        """One record. Raises KafkaError, for an earlier one as well."""
        sent = await self._producer.send(topic, value, partition=partition)
        self._under_way.append((TopicPartition(topic, partition), sent))
        if len(self._under_way) >= UNACKNOWLEDGED:
            await self.acknowledged()

    async def acknowledged(self) -> None:
        """Everything that was written is where `places` says."""
        under_way, self._under_way = self._under_way, []
        for partition, sent in under_way:
            offset = (await sent).offset
            place = self.places.setdefault(partition, _Place(first=offset))
            place.end = offset + 1
        self.records += len(under_way)


class Resize:
    """One resize of the pipeline of a configuration, whose own `kafka.partitions` may be the old or the new N."""

    def __init__(self, config: Config, partitions: int) -> None:
        if not config.kafka.transactions:
            raise ConfigError("kafka.transactions is false: a resize is one transaction, these brokers have none")
        if config.regroup == "never":
            raise ConfigError("regroup: never: the producers place traces, N is the partitions of their topics")
        self._config, self._after = config, partitions
        self._topics = Topics(config.kafka.prefix)
        self._pair = (self._topics.spans, self._topics.logs)
        self._sample = self._topics.group(SAMPLE)
        self._admin: AIOKafkaAdminClient = None
        self._reader = Reader(config.kafka)
        self._told: Progress = lambda done, total: None
        self._done = self._total = 0  # of the records that are to be read now

    async def __aenter__(self) -> Resize:
        self._admin = AIOKafkaAdminClient(**client_kwargs(self._config.kafka))
        try:
            await self._admin.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.close()
        await self._admin.close()

    # ---- looking -----------------------------------------------------------------------------------------

    async def members(self) -> dict[str, int]:
        """How many workers ingest and sample have; both must be 0."""
        ingest = sum([await self._members(group) for group in self._topics.ingest_groups])
        return {INGEST: ingest, SAMPLE: await self._members(self._sample)}

    async def _members(self, group: str) -> int:
        (answer,) = await self._admin.describe_consumer_groups([group])
        (code, _, state, _, _, members, *_) = answer.groups[0]
        if code:
            raise Unavailable(f"the coordinator of {group} does not answer (error {code})")
        return 0 if state in DEAD else max(1, len(members))

    async def plan(self, told: Progress = lambda done, total: None) -> Plan:
        """What there is to do. Reads the decisions, `told` how much of them; changes nothing."""
        self._told = told
        found = await partition_counts(self._config, placed_by_trace(self._config))
        if missing := sorted(set(placed_by_trace(self._config)) - set(found)):
            raise ConfigError(f"{', '.join(missing)} do not exist; `tailrace topics FILE --create` makes them")
        physical = min(found[topic] for topic in self._pair)
        raw = await self._raw_offsets()
        places = [RawOffset.unpack(offset.metadata) for offsets in raw.values() for offset in offsets.values()]
        known = {place.partitions for place in places} - {None}
        if len(known) > 1:
            raise ConfigError(f"the offsets of {self._topics.group(INGEST)} do not agree about N: {known}")
        before = next(iter(known), None) or await self._decided_by() or self._config.kafka.partitions
        if before > physical:
            raise ConfigError(f"N = {before} is in force, topics have {physical} partitions: were they made anew?")
        decisions = [await self._decisions(index) for index in range(before)]
        self._begin(decisions)
        left = [await self._left(index, *each) for index, each in enumerate(decisions)]
        added = {topic: self._after for topic, count in found.items() if count < self._after}
        return Plan(before, self._after, left, raw, added, found)

    async def _raw_offsets(self) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        counts = await partition_counts(self._config, [item.topic for item in self._config.inputs])
        raw = [TopicPartition(topic, p) for topic, count in counts.items() for p in range(count)]
        return {group: await self._committed(group, raw) for group in self._topics.ingest_groups}

    async def _committed(
        self, group: str, wanted: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        found = await self._admin.list_consumer_group_offsets(group, partitions=list(wanted))
        if set(wanted) - set(found):
            raise Unavailable(f"the coordinator of {group} did not answer for all partitions")
        return {p: offset for p, offset in found.items() if offset.offset >= 0}

    async def _decided_by(self) -> int | None:
        """N as the first partition's verdicts say it, where ingest's offsets do not."""
        async for record in self._verdicts(*await self._decisions(0)):
            return record.partitions
        return None

    async def _decisions(self, index: int) -> tuple[int, int]:
        """From where to where a new owner would read the verdicts of a partition."""
        pair = [TopicPartition(topic, index) for topic in self._pair]
        committed = await self._committed(self._sample, pair)
        first, end = await self._reader.end(TopicPartition(self._topics.decisions, index))
        pointers = [int(o.metadata) for o in committed.values() if o.metadata.isdecimal()]
        return max(first, *pointers) if pointers else first, end

    async def _verdicts(self, start: int, end: int, index: int = 0) -> AsyncIterator[DecisionRecord]:
        partition = TopicPartition(self._topics.decisions, index)
        while start < end:
            chunk = await self._read(partition, start, end)
            for _, _, value in chunk.records:
                yield DecisionRecord.decode(value)
            start = chunk.position

    def _begin(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._done, self._total = 0, sum(end - start for start, end in ranges)

    async def _read(self, partition: TopicPartition, start: int, end: int) -> Range:
        chunk = await self._reader.read(partition, start, end, READ_BYTES)
        self._done += min(end, chunk.position) - start
        if self._total:
            self._told(self._done, self._total)
        return chunk

    async def _left(self, index: int, start: int, end: int) -> Left:
        point: Checkpoint | None = None
        verdicts = 0
        async for record in self._verdicts(start, end, index):
            point = follow(point, record.checkpoint)
            verdicts += len(record.keys)
        firsts, ends = {}, {}
        for topic in self._pair:
            firsts[topic], ends[topic] = await self._reader.end(TopicPartition(topic, index))
        tails = firsts if point is None else {topic: point.tails[topic] for topic in self._pair}
        if gone := [topic for topic in self._pair if tails[topic] < firsts[topic]]:
            raise Permanent(f"{gone[0]}/{index}: retention overtook the tail, records that were not forwarded are gone")
        counted = {topic: max(tails[topic], point.counted.get(topic, 0) if point else 0) for topic in self._pair}
        return Left(index, point or Checkpoint(), tails, counted, ends, (start, end), verdicts)

    # ---- doing -------------------------------------------------------------------------------------------

    async def end_open_transaction(self) -> None:
        """End what a resize that was killed has left open."""
        await self._fence(self._topics.resize)

    async def run(self, plan: Plan, told: Progress = lambda done, total: None) -> int:
        """Do it; returns how many records were written. Raises ConfigError if a worker came meanwhile.

        `told` hears how much was read of what is to be written.
        """
        await self._add_partitions(plan)
        await self._fence_workers(plan)
        plan = await self.plan(told)  # what a fenced worker had under way has ended
        rows = [(left.tails[topic], left.ends[topic]) for left in plan.left for topic in self._pair]
        self._begin([*rows, *(left.decisions for left in plan.left)])
        producer = self._producer(self._topics.resize, LONGEST_TRANSACTION_MS)
        try:
            await producer.start()
            async with producer.transaction():
                writer = _Writer(producer)
                for topic in self._pair:
                    await self._write_rows(writer, topic, plan)
                await self._write_verdicts(writer, plan)
                await self._move_offsets(producer, writer, plan)
                if here := {role: count for role, count in (await self.members()).items() if count}:
                    raise ConfigError(f"{here} came meanwhile: nothing was changed; stop them and begin again")
            return writer.records
        finally:
            await let_go(producer)

    async def _add_partitions(self, plan: Plan) -> None:
        if not plan.added:
            return
        await self._admin.create_partitions({topic: NewPartitions(count) for topic, count in plan.added.items()})
        async with asyncio.timeout(SEEN_SECONDS):
            while await partition_counts(self._config, plan.added) != plan.added:  # noqa: ASYNC110 (brokers are waited for)
                await asyncio.sleep(POLL)

    async def _fence_workers(self, plan: Plan) -> None:
        """End the epochs of all workers, also of those that sleep: nothing of theirs comes any more."""
        counts = await partition_counts(self._config, [item.topic for item in self._config.inputs])
        ids = [self._topics.transactional_id(INGEST, p, topic) for topic, n in counts.items() for p in range(n)]
        ids += [self._topics.transactional_id(SAMPLE, index) for index in range(max(plan.before, plan.after))]
        turn = asyncio.Semaphore(FENCED_AT_ONCE)

        async def fence(transactional_id: str) -> None:
            async with turn:
                await self._fence(transactional_id)

        await asyncio.gather(*map(fence, ids))

    async def _fence(self, transactional_id: str) -> None:
        producer = self._producer(transactional_id, FENCE_TIMEOUT_MS)
        try:
            await producer.start()
        finally:
            await let_go(producer)

    def _producer(self, transactional_id: str, timeout_ms: int) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=MAX_BATCH_BYTES,
            **client_kwargs(self._config.kafka),
        )

    async def _write_rows(self, writer: _Writer, topic: str, plan: Plan) -> None:
        """What the tails have not passed, in the order of its append times; counted spans first."""
        rows = Rows([left.checkpoint for left in plan.left], plan.after)
        for target in range(plan.after):  # something must be there to begin with
            await writer.write(topic, target, Envelope(plan.after, "", 0).encode())
        middle = [min(left.counted[topic], left.ends[topic]) for left in plan.left]
        for ranges in (
            [(left.tails[topic], at) for left, at in zip(plan.left, middle, strict=True)],
            [(at, left.ends[topic]) for left, at in zip(plan.left, middle, strict=True)],
        ):
            async for index, append, value in self._merged(topic, ranges):
                for target, envelope in rows.place(index, append, Envelope.decode(value)):
                    await writer.write(topic, target, envelope.encode())
            await writer.acknowledged()
            for target in range(plan.after):
                place = writer.places[TopicPartition(topic, target)]
                place.counted = place.end if place.counted < 0 else place.counted

    async def _merged(self, topic: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, int, bytes]]:
        """The records of several partitions (index, append time, value), each from start to end, by append time."""
        waiting: list[deque[tuple[int, int, bytes]]] = [deque() for _ in ranges]
        positions = [start for start, _ in ranges]
        while True:
            for index, (_, end) in enumerate(ranges):
                while not waiting[index] and positions[index] < end:
                    partition = TopicPartition(topic, index)
                    chunk = await self._read(partition, positions[index], end)
                    waiting[index].extend(record for record in chunk.records if record[0] < end)
                    positions[index] = chunk.position
            heads = [index for index, records in enumerate(waiting) if records]
            if not heads:
                return
            index = min(heads, key=lambda i: waiting[i][0][1])
            _, append, value = waiting[index].popleft()
            yield index, append, value

    async def _write_verdicts(self, writer: _Writer, plan: Plan) -> None:
        joined = join([left.checkpoint for left in plan.left])
        decisions = Decisions(plan.after)

        async def write(target: int, record: DecisionRecord) -> None:
            places = {topic: writer.places[TopicPartition(topic, target)] for topic in self._pair}
            record.checkpoint = replace(
                joined,
                tails={topic: place.first for topic, place in places.items()},
                counted={topic: place.counted for topic, place in places.items()},
            )
            await writer.write(self._topics.decisions, target, record.encode())

        for left in plan.left:
            async for old in self._verdicts(*left.decisions, left.index):
                for target, record in decisions.add(old):
                    await write(target, record)
        for target, record in decisions.rest():
            await write(target, record)
        await writer.acknowledged()

    async def _move_offsets(self, producer: AIOKafkaProducer, writer: _Writer, plan: Plan) -> None:
        moved: dict[TopicPartition, tuple[int, str]] = {}
        for topic in self._pair:
            for target in range(plan.after):
                pointer = writer.places[TopicPartition(self._topics.decisions, target)].first
                partition = TopicPartition(topic, target)
                moved[partition] = writer.places[partition].first, str(pointer)
            for left in plan.left[plan.after :]:  # unused from now on: no lag
                moved[TopicPartition(topic, left.index)] = left.ends[topic], ""
        await producer.send_offsets_to_transaction(moved, self._sample)
        ends = {topic: writer.places[TopicPartition(topic, 0)].end for topic in self._pair}
        fed = {"traces": ends[self._topics.spans], "logs": ends[self._topics.logs]}
        behind = {item.topic: fed.get(item.signal) for item in self._config.inputs}
        for group, offsets in plan.raw.items():
            known = {partition: RawOffset.unpack(offset.metadata) for partition, offset in offsets.items()}
            places = {
                p: (offsets[p].offset, replace(place, partitions=plan.after, place=behind[p.topic], own=0).pack())
                for p, place in known.items()
            }
            if places:
                # aiokafka 0.14 takes one group a transaction: it would send the offsets of a second one without telling
                # the transaction's coordinator, and they would never be committed.
                producer._txn_manager._txn_consumer_group = None
                await producer.send_offsets_to_transaction(places, group)
