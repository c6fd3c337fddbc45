"""The ingest role: raw topics in, envelopes by trace id or points by metric out, one transaction per raw partition.

Stateless but for what has been read since the last transaction. Each transaction carries the mark of its raw
partition to every partition of the topic it feeds. An idle raw partition writes a mark alone, soon and then ever more
rarely down to one in a tenth of `decision_wait` or LONGEST_SILENCE, so that clocks downstream go on. Metrics wait for
no decision: their raw topics have no marks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from math import inf

import faust
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from pipeline import telemetry
from pipeline.config import MARKS_PER_STALL, Config, Input
from pipeline.kafka import expired
from pipeline.kafka.alarm import breath
from pipeline.kafka.commit import Committer, Output, committer, dead_letters
from pipeline.kafka.consume import Group, Leases
from pipeline.kafka.ingested import Ingested
from pipeline.kafka.lease import Lease, Rounds
from pipeline.kafka.pace import LONGEST_SILENCE, Lead
from pipeline.kafka.raw_pace import RawPace, is_later
from pipeline.kafka.topics import Topics
from pipeline.started import Started
from pipeline.watching.dead_letter_share import DeadLetterShare
from pipeline.watching.told_letters import TOLD
from processors.metric_points import MetricPoints, Naming
from processors.otlp_series import KnownSeries
from processors.redaction import Redactor
from processors.regroup import Regroup
from processors.stream_time import BrokerClock, RawMark
from schemas.dead_letter import DeadLetter
from schemas.errors import ProtocolError, Unavailable
from schemas.ids import partition_of_metric
from schemas.raw_offset import RawOffset
from schemas.raw_records import Records

log = logging.getLogger(__name__)

ROLE = "ingest"
MARKS_PER_WAIT = 10  # idle marks per decision_wait
LEAST_SILENCE = 0.05  # seconds between two of them, whatever the intervals are
DOUBTS, DOUBT = 10, 1.0  # times, and seconds between them, that a group is asked which should have an offset
UNREAD_COMMITS = 2  # times commit_bytes that may wait for a transaction before fetching pauses


def group(app: faust.App, config: Config, started: Started, signal: str | None = None) -> Group:
    """The consumer group of the raw topics that are for ingest, or of those of one signal.

    The transactional ids are the same either way: they fence each other, and each goes on where the other ended.
    """
    mine = [item for item in config.inputs if item.topic in config.ingested]
    inputs = {item.topic: item for item in mine if signal in (None, item.signal)}
    return Group(
        app,
        config,
        ROLE,
        inputs,
        leases(config, started),
        signal=signal,
        others=[item.topic for item in mine if item.topic not in inputs],
        raw=True,
        patience=min((config.commit_interval(item) for item in inputs.values()), default=inf),
        accept_loss=started.accept_loss,
    )


def leases(config: Config, started: Started) -> Leases:
    """What makes the leases of this configuration, for one group."""
    shared = _Shared(config, started)

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        (partition,) = partitions
        return RawPartition(owner, partition, shared)

    return lease


class _Shared:
    """What all leases of one configuration have."""

    def __init__(self, config: Config, started: Started) -> None:
        self.config, self.topics, self.since = config, Topics(config.kafka.prefix), started.start(config)
        self.inputs = {item.topic: item for item in config.inputs if item.topic in config.ingested}
        self.shares = {topic: DeadLetterShare(ROLE, topic, config.limits.dead_letters) for topic in self.inputs}
        self.pace, self.ingested, self.known = RawPace(config), Ingested(config.kafka), KnownSeries()


def reloaded(config: Config) -> tuple[object, ...]:
    """What of the configuration may change while it runs and concerns ingest.

    How often marks come and who waits for whom; what OTLP metrics are called.
    """
    sampling = config.sampling
    return sampling.decision_wait, sampling.ingest_stall_limit, config.logs.max_skew, config.metrics.otlp


def _silences(source: Input, config: Config) -> tuple[float, float]:
    """Seconds after which an idle raw partition is marked for the first time, and at most between two of its marks.

    The first: what the sample clock takes to move at best, as it waits for all raw partitions; one that has a message
    now and then would hold it. The other: well within what that clock takes for a stalled partition, and what an
    autoscaler takes for a backlog.
    """
    if source.signal == "metrics":
        return inf, inf
    sampling, stall = config.sampling, config.stall_limit(source)
    longest = min(sampling.decision_wait / MARKS_PER_WAIT, stall / MARKS_PER_STALL, LONGEST_SILENCE)
    longest = max(LEAST_SILENCE, longest)
    slowest = max(config.commit_interval(item) for item in config.inputs if item.topic in config.traced)
    return min(max(LEAST_SILENCE, slowest), longest), longest


class RawPartition(Rounds):
    """One raw partition under one epoch."""

    def __init__(self, owner: Group, partition: TopicPartition, shared: _Shared) -> None:
        super().__init__()
        config, topics, source = shared.config, shared.topics, shared.inputs[partition.topic]
        self._group, self._partition, self._source = owner, partition, source
        self._config, self._topics, self._pace, self._ingested = config, topics, shared.pace, shared.ingested
        self._interval = config.commit_interval(source)
        self._lead = Lead(self._interval)
        self._share, self._read = shared.shares[partition.topic], 0  # records since the last commit
        whole = topics.group(ROLE)  # the other group of the same partition is with or without --signals
        self._other_group = f"{whole}.{source.signal}" if owner.group_id == whole else whole
        self._since = shared.since
        self._target = {"traces": topics.spans, "logs": topics.logs, "metrics": topics.points}[source.signal]
        self._processor = processor(partition, source, config, shared.known)
        self._committer: Committer = committer(
            config.kafka, owner, topics.transactional_id(ROLE, partition.partition, partition.topic)
        )
        self._clock = BrokerClock()
        self._place: int | None = None  # behind the last mark, in partition 0 of what is fed
        self._next = self._committed = 0
        self._mark = RawMark()
        self._flushed_at = self._moved_at = time.monotonic()  # `_moved_at`: it was read, or there was nothing to read
        self._stall = config.stall_limit(source)
        self._marked_at = 0.0
        self._first_silence, self._longest_silence = _silences(source, config)
        self._silence = self._first_silence  # seconds until the next mark, while there is nothing else to commit
        self._known = 0  # partitions that the topic had when the group first read it
        self._pinned = True  # there is an offset; without one each takeover would be a first start
        self._lost = 0  # records that retention took, until that is written down
        self._ending: tuple[int, int | None] | None = None  # where the partition ended, and the broker's time before

    async def open(self) -> Mapping[TopicPartition, int]:
        """Fence the predecessor, then ask for the offset: in this order (docs/adr/0003, F8).

        What retention took is passed with the next transaction, or a topic that stays empty would lose it every time.
        """
        if self._config.kafka.transactions and (members := await self._group.brokers.members_of(self._other_group)):
            raise Unavailable(
                f"group {self._other_group} still has {members} members: stop the workers that run ingest with other "
                f"--signals; {self._group.group_id} then goes on where they ended"
            )
        await self._committer.start()
        committed = (await self._offsets([self._partition])).get(self._partition)
        if committed is not None:
            place = RawOffset.unpack(committed.metadata)
            self._check_partitions([place])
            await self._look(committed.offset, place)
            self._lost, first = await self._group.brokers.gone(self._partition, committed.offset)
            expired.say(ROLE, self._partition, self._lost)
            self._next, self._committed = max(first, committed.offset), committed.offset
            self._mark, self._known = RawMark(place.mark), place.known
        else:
            self._pinned, self._next = False, await self._first_position()
            self._committed = self._next
            await self._look(None, RawOffset(None, 0, None))
        return {self._partition: self._next}

    def opening(self) -> Hashable | None:
        """How much of the log was looked at: there may be much of it."""
        return self._ingested.looked

    async def _offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """The group's offsets, or those of the group with or without --signals where that has come further.

        One that somebody has set by hand, which has no metadata, is believed.
        """
        found = await self._group.committed(partitions)
        for partition, offset in (await self._group.committed(partitions, self._other_group)).items():
            known = found.get(partition)
            if known is None or (known.metadata and is_later(offset, known)):
                found[partition] = offset
                if partition == self._partition:
                    log.warning(
                        "going on where another group ended: --signals was changed; delete that group when it is done",
                        extra={"topic": partition.topic, "partition": partition.partition, "offset": offset.offset}
                        | {"group": self._group.group_id, "other": self._other_group},
                    )
        return found

    async def _first_position(self) -> int:
        """Where a new group begins: the explicit `kafka.start` or `--since`.

        A partition that was added to a topic which the group knows already is read from its beginning, and so is a
        topic that was deleted and made anew while this worker ran. Offsets of the others say how many there were when
        the group met the topic: at its first start they are committed one by one. Those of all raw topics, and of all
        groups that ingest may have, say which N is in force.
        """
        counts, topic = self._group.raw_topics(), self._partition.topic
        if not counts[topic]:
            raise Unavailable(f"the brokers do not say how many partitions {topic} has")
        everywhere = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        places = [
            (partition, RawOffset.unpack(offset.metadata))
            for group in self._topics.ingest_groups
            for partition, offset in (await self._group.committed(everywhere, group)).items()
        ]
        self._check_partitions([place for _, place in places])
        known = [place.known for partition, place in places if partition.topic == topic]
        self._known = min(known, default=counts[topic])
        if self._partition.partition >= self._known:
            return await self._group.brokers.first(self._partition, "earliest")
        if await self._ingested.fed(self._target) and await self._has_offset_after_all():
            raise Unavailable(f"the coordinator of {self._group.group_id} answered while it was loading")
        since = "earliest" if topic in self._group.deleted else self._since
        return await self._group.brokers.first(self._partition, since)

    async def _has_offset_after_all(self) -> bool:
        """Ask for a while: a coordinator of Kafka 4.1 may say that there is none while it loads (adr/0003, M21)."""
        for _ in range(DOUBTS):
            await asyncio.sleep(DOUBT)
            if self._partition in await self._offsets([self._partition]):
                return True
        return False

    async def _look(self, offset: int | None, place: RawOffset) -> None:
        """Raises Unavailable if there are marks that this offset knows nothing of: it is out of date.

        One that somebody else has set says nothing of the log, and is believed.
        """
        if self._source.signal == "metrics" or not self._config.kafka.transactions:
            return
        marks, self._place = await self._ingested.look(self._target, self._partition, place.place)
        if len(marks) > place.own:
            raise Unavailable(
                f"the coordinator of {self._group.group_id} says {offset} for {self._partition.topic}/"
                f"{self._partition.partition}, but {self._target}/0 has later transactions, the last at {marks[-1]}: "
                "it answers while it loads. To read again on purpose, set the offset with kafka-consumer-groups.sh, "
                "which leaves no metadata"
            )

    def _check_partitions(self, places: Sequence[RawOffset]) -> None:
        """Nothing is written for an N that is not in force: a worker may have slept through a resize."""
        own = self._config.kafka.partitions
        for found in {place.partitions for place in places} - {own, None}:
            raise ProtocolError(
                f"N = {found} partitions are in force, the configuration says kafka.partitions: {own}; correct it, or "
                f"`tailrace topics resize FILE --partitions {own}` (docs/how-to/upgrade.md)"
            )

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next raw offset."""
        return {self._partition: self._next}

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Decode and regroup."""
        idle = self._next == self._committed
        assert isinstance(records, Records)
        if found := records.since(self._next):
            self._processor.add_all(found)
            self._next = found.after
            self._read += len(found)
            self._mark.read_all(found.timestamps)
        if idle or self._is_full():
            self._alarm.ring()

    def _is_full(self) -> bool:
        """Whether a transaction holds no more."""
        return self._processor.size >= self._committer.size.bytes

    def saturated(self) -> bool:
        """Whether a transaction has to come first, or the other raw partitions have to catch up."""
        full = self._processor.size > UNREAD_COMMITS * self._committer.size.bytes
        return full or self._pace.ahead(self._partition)

    async def work(self) -> None:
        """Commit by size or age; mark when idle."""
        while True:
            self._rounds += 1
            async with self._turn:
                if self._due_in() > 0:
                    pass
                elif self._next > self._committed or not self._pinned:
                    await self._look_at_end()
                    await self._commit()
                    await self._ask_for_end()
                else:
                    await self._mark_idle()
            left = self._due_in()
            await self._alarm.wait(left if left > 0 else breath(self._interval))

    def _due_in(self) -> float:
        """Seconds until what was read has to be committed, or a mark if nothing was."""
        now = time.monotonic()
        if self._next > self._committed:
            return 0.0 if self._is_full() else self._flushed_at + self._interval - self._lead.seconds - now
        if not self._pinned:
            return 0.0
        return self._marked_at + self._silence - now

    async def finish(self) -> None:
        """Commit what has been read."""
        async with self._turn:
            if self._next > self._committed:
                await self._commit()

    async def close(self) -> None:
        """Let go of the epoch."""
        self._pace.leave(self._partition)
        await self._committer.stop()

    async def _look_at_end(self) -> None:
        """Mark a partition that is busy but read to its end with the broker's time, whatever its producers' clocks say.

        Where it ended is asked after one commit and has been passed, in live traffic, at the next.
        """
        if self._ending is not None:
            end, before = self._ending
            if self._next >= end or await self._group.passed(self._partition, end):
                self._mark.ended(before)
                self._ending = None

    async def _ask_for_end(self) -> None:
        """After a commit, not before it: records would wait for the answer."""
        if self._source.signal != "metrics" and self._ending is None:
            before = self._clock.now(time.monotonic())
            end = await self._group.written_end(self._partition)
            self._ending = None if end is None else (end, before)

    async def _mark_idle(self) -> None:
        """At the end of the partition the mark is the broker's time before the request that found nothing left."""
        before = self._clock.now(time.monotonic())
        at_end = await self._group.drained(self._partition)
        if self._next > self._committed:
            return  # records came meanwhile: they carry the mark
        if at_end:
            self._mark.ended(before)
        if self._stands(at_end):
            self._marked_at = time.monotonic()
            return
        self._move(self._mark.mark, at_end)
        await self._commit()

    def _move(self, mark: int | None, at_end: bool) -> None:
        self._pace.move(self._partition, mark, at_end)
        self._pace.follow(self._group)

    def _stands(self, at_end: bool) -> bool:
        """Whether nobody can read on for longer than the stall limit, as without a leader.

        Then neither marks, which would hold all clocks where they are, nor the pace may speak for it.
        """
        now = time.monotonic()
        if at_end or self.saturated():
            self._moved_at = now
        if now - self._moved_at <= self._stall:
            return False
        self._pace.leave(self._partition)
        return True

    async def _commit(self) -> None:
        """One transaction with everything since the last one. Raises TooManyDeadLetters before anything is taken."""
        async with self._group.turns.work():
            self._flushed_at = time.monotonic()
            read, lost = self._read, self._processor.lost
            self._share.check(self._flushed_at, read, lost)
            now = self._clock.now(self._flushed_at)
            mark = self._mark.cut(now)
            self._marked_at = 0.0 if now is None else self._flushed_at  # no mark before the broker's time is known
            self._silence = self._first_silence if read else min(2 * self._silence, self._longest_silence)
            if read:
                self._moved_at = self._flushed_at
            until, full = self._next, self._is_full()
            rows, outputs, letters = self._flush(mark)
            self._read = 0
        redactor = self._processor.redactor
        redacted = {} if redactor is None else redactor.take()
        outputs += dead_letters(self._topics, letters, self._config)
        place = RawOffset(mark, self._known, self._config.kafka.partitions, self._place)
        offsets = {self._partition: OffsetAndMetadata(until, place.pack())}
        written = await self._committer.commit(outputs, offsets, full)
        self._lead.took(self._committer.took)
        self._committed, self._pinned = until, True
        expired.count(self._config.kafka.prefix, self._partition, self._lost)
        self._lost = 0
        self._share.add(time.monotonic(), read, lost)
        self._observe(written)
        if self._source.signal == "traces":
            telemetry.count("tailrace_spans_read_total", rows, role=ROLE)
        elif self._source.signal == "logs":
            telemetry.count("tailrace_logs_read_total", rows, role=ROLE)
        else:
            telemetry.count("tailrace_metric_points_read_total", rows, role=ROLE)
        TOLD.tell(letters)
        for rule, number in redacted.items():
            telemetry.count("tailrace_redacted_total", number, signal=self._source.signal, rule=rule)

    def _flush(self, mark: int | None) -> tuple[int, list[Output], list[DeadLetter]]:
        """Rows, records and dead letters of everything since the last flush."""
        if isinstance(self._processor, MetricPoints):
            points = self._processor.flush()
            count = self._config.kafka.metric_partitions
            outputs = [
                Output(self._target, b.encode(), partition_of_metric(b.metric, count), b.metric.encode())
                for b in points.batches
            ]
            return points.rows, outputs, points.dead_letters
        raw_topics = {topic: n for topic, n in self._group.raw_topics().items() if topic in self._config.traced}
        flushed = self._processor.flush(mark, raw_topics)
        if self._read:  # rows or not: whoever reads nothing but what is set aside gets on as well
            self._move(mark, at_end=False)
        outputs = [
            Output(self._target, value, partition)
            for partition, values in flushed.envelopes.items()
            for value in values
        ]
        outputs += [
            Output(self._topics.untraced_logs, value, self._partition.partition % self._config.kafka.partitions)
            for _, value in flushed.untraced
        ]
        return flushed.rows, outputs, flushed.dead_letters

    def _observe(self, written: list[RecordMetadata]) -> None:
        fed = [record for record in written if record.topic == self._target]
        if self._source.signal != "metrics":  # which have no marks
            self._place = 1 + max(record.offset for record in fed if record.partition == 0)
        newest = max((record.timestamp for record in fed), default=-1)
        if newest > 0:
            # Where a predecessor's mark lies ahead, the broker's clock was set back: time goes on from there (F11).
            self._clock.observe(max(newest, self._mark.mark or 0), time.monotonic())
            if self._clock.behind:
                self._silence = self._first_silence


def processor(partition: TopicPartition, source: Input, config: Config, known: KnownSeries) -> Regroup | MetricPoints:
    """What takes the messages of a raw partition apart."""
    limits, otlp = config.limits, config.metrics.otlp
    redactor = None if config.redaction is None else Redactor(config.redaction)
    if source.signal == "metrics":
        naming = Naming(otlp.translation_strategy, otlp.scope_labels, tuple(otlp.promote_resource_attributes))
        return MetricPoints(
            partition.topic, partition.partition, source.encoding, naming, limits.max_message_bytes, redactor, known
        )
    return Regroup(
        partition.topic,
        partition.partition,
        source.signal,
        source.encoding,
        config.kafka.partitions,
        limits.max_message_bytes,
        limits.max_span_bytes,
        redactor,
    )
