"""The sample role on raw topics (`regroup: never`): no ingest, no hop.

Where they are keyed by trace id, partition i of them is to `sample` what partition i of spans and logs is otherwise:
`PartitionPair` does the rest. With `kafka.partitions: 1` one window reads all their partitions, keyed or not. This
module turns fetched records into batches, finds out where a partition ends, and keeps the head from running away: with
nobody in between there is no other reason to read far ahead of the tail.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

import faust
from aiokafka import ConsumerRecord, TopicPartition

from pipeline import telemetry
from pipeline.config import Config
from pipeline.configuration.window_settings import direct_settings
from pipeline.kafka.assignors import Spread, one_member
from pipeline.kafka.consume import Group, Leases, pieces
from pipeline.kafka.key_check import KeyCheck
from pipeline.kafka.lease import Lease
from pipeline.kafka.pace import LONGEST_SILENCE
from pipeline.kafka.raw_reader import raw_reader, redactors
from pipeline.sample import ROLE, PartitionPair, Shared, cache_share, interval
from pipeline.started import Started
from pipeline.watching.dead_letter_share import DeadLetterShare
from pipeline.watching.seldom import Seldom
from processors.feeds import feed_of, topic_of
from processors.sampling.window import Burst, Settings
from processors.stream_time import BrokerClock
from schemas.errors import ProtocolError, Unavailable
from schemas.raw_batch import RawBatch, Record
from schemas.raw_records import Records

ENDS_PER_WAIT = 10  # times per decision_wait that a partition's end is asked for, if LONGEST_SILENCE is no shorter
AHEAD_OF_OTHER = 4  # decision_waits that one partition may be read ahead of another
AHEAD_SHARE = 4  # a part of the cache that is enough to read while a transaction is under way
REREAD_LEAST_OF_MANY = 256 << 10  # bytes, of one of many partitions: each may hold so much beside the cache
MOST_REREADS = 2  # partitions that are read again for one burst, each as far as one may be
CLOSE_LIMIT = 1.0  # seconds that the check of the keys may take to end
CHECKER = 0  # the partition whose owner looks for traces that are on two partitions


def leases(config: Config, started: Started) -> Leases:
    """What makes the leases of this configuration, each of partition i of all."""
    shared, raw, n = Shared(config, started), config.traced, config.kafka.partitions
    shares = {topic: DeadLetterShare(ROLE, topic, config.limits.dead_letters) for topic in raw}

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        assert isinstance(unit, int)
        found = {topic: sorted(p.partition for p in partitions if p.topic == topic) for topic in raw}
        told = ", ".join(f"{topic} has {count}" for topic, count in sorted(owner.raw_topics().items()))
        if config.reads_whole_topics:
            if not all(numbers and numbers == list(range(len(numbers))) for numbers in found.values()):
                raise Unavailable(f"all partitions of the raw topics belong together, but some did not come: {told}")
            listed = {topic: len(numbers) for topic, numbers in found.items()}
        elif all(found.values()) and unit < n:
            listed = {}
        else:
            raise ProtocolError(
                f"with regroup: never all raw topics must have kafka.partitions ({n}) partitions: {told}; or one "
                "worker reads any number of them, with kafka.partitions: 1 under another kafka.prefix"
            )
        window = direct_settings(config, cache_share(config, owner), listed)
        return RawPair(owner, unit, shared, window, shares)

    return lease


def group(app: faust.App, config: Config, started: Started) -> Group:
    """The consumer group of the raw topics."""
    return Group(
        app,
        config,
        ROLE,
        config.traced,
        leases(config, started),
        unit=lambda partition: 0 if config.reads_whole_topics else partition.partition,
        assignor=one_member() if config.reads_whole_topics else Spread,
        raw=True,
        patience=interval(config),
        accept_loss=started.accept_loss,
    )


def _asks_every(settings: Settings) -> float:
    """Seconds after which the ends of raw partitions are asked for again."""
    return min(settings.decision_wait / 1000 / ENDS_PER_WAIT, LONGEST_SILENCE)


class RawPair(PartitionPair):
    """Partition i of the raw topics, or all of them, under one epoch."""

    def __init__(
        self,
        owner: Group,
        index: int,
        shared: Shared,
        settings: Settings,
        shares: Mapping[str, DeadLetterShare],
    ) -> None:
        super().__init__(owner, index, shared, settings)
        config = shared.config
        self._reread_bytes = max(REREAD_LEAST_OF_MANY, 2 * self._reread_bytes // max(2, len(self._pair)))
        self._redactors = redactors(config)
        self._readers = {name: raw_reader(config, partition, self._redactors) for name, partition in self._pair.items()}
        self._shares = shares
        self._since = shared.started.start(config)
        self._wait = settings.decision_wait
        self._clock = BrokerClock()
        self._ending: dict[str, tuple[int, int]] = {}  # where a topic ended, and the broker's time before
        self._asked = Seldom(_asks_every(settings))
        self._began: int | None = None  # the first mark that any of them had
        self._checking: asyncio.Task[None] | None = None

    async def open(self) -> Mapping[TopicPartition, int]:
        """As for any pair; then a checkpoint, which pins a first start and tells the broker's time."""
        positions = await super().open()
        await self._checkpoint()
        return positions

    async def _starts(self, offsets: Mapping[str, int | None]) -> dict[str, int]:
        starts, starting = await super()._starts(offsets), self._window.starting()
        known = {topic_of(name) for name in self._pair.keys() - set(starting)}
        for name in starting:
            if offsets[name] is not None:
                continue  # whoever wants to go on without its checkpoint goes on from there
            since = "earliest" if topic_of(name) in known else self._since  # a partition that was added since
            starts[name] = await self._group.brokers.first(self._pair[name], since)
        return starts

    async def _emptied(self, starts: Mapping[str, int]) -> Collection[str]:
        return ()  # nobody knows whether its producers wrote in transactions

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Feed the head, batch by batch. Raises TooManyDeadLetters: the tail, which acknowledges, is far behind."""
        name = feed_of(partition.topic, partition.partition, self._index)
        now, first, counted = self._now(), self._window.positions()[name], self._window.uncounted(name)
        assert isinstance(records, Records)
        found = records.since(first)
        cut = bisect_left(found.offsets, counted)
        for part in (found[:cut], found[cut:]):
            if part:  # a piece of a fetch is no larger than a batch
                batch = self._readers[name].read(part)
                self._share(partition.topic, batch)
                self._window.head(name, part.offsets[0], now, batch)
        if self.is_full():
            self._alarm.ring()
        for signal, redactor in self._redactors.items():
            for rule, number in redactor.take().items():
                telemetry.count("tailrace_redacted_total", number, signal=signal, rule=rule)

    def _share(self, topic: str, batch: RawBatch) -> None:
        now, read, lost, share = time.monotonic(), len(batch.rows.messages), batch.lost, self._shares[topic]
        share.check(now, read, lost)
        share.add(now, read, lost)

    def _batches(self, name: str, records: Sequence[Record]) -> Iterator[tuple[int, RawBatch]]:
        """Consecutive records as batches, each with its first offset."""
        for piece in pieces([len(value) for _, _, value in records]):
            yield records[piece.start][0], self._readers[name].read(records[piece])

    def _now(self) -> int:
        now = self._clock.now(time.monotonic())
        assert now is not None  # since open()
        return now

    def _appended(self, time_ms: int) -> None:
        # Where a mark lies ahead, the broker's clock was set back: time goes on from there (F11).
        marks = [mark for mark, _ in self._window.marks().values()]
        self._clock.observe(max([time_ms, *marks]), time.monotonic())

    def _has_round(self) -> bool:
        return False  # what a fetch brings is due with it, and fetches end right before a burst

    # ---- how far to read ---------------------------------------------------------------------------------

    def held(self) -> Collection[TopicPartition]:
        """All while enough is read and the tail can go on; one that is far ahead of another."""
        if self.is_full():
            return self._pair.values()
        marks = {TopicPartition(*raw): mark for raw, (mark, _) in self._window.marks().items()}
        if not marks:
            return ()
        slowest = min(marks.values())
        if self._began is None:
            self._began = slowest
        if len(marks) < len(self._pair):  # one of which nothing is known yet: it may stand for long, as behind a
            slowest = self._began  # transaction that is open, and nothing is decided before it
        limit = slowest + AHEAD_OF_OTHER * self._wait
        return [partition for partition, mark in marks.items() if mark > limit]

    def is_full(self) -> bool:
        """Whether enough is read for some bursts, and the tail not held up by what is undecided."""
        window = self._window
        if super().is_full():
            return True
        if window.now is None or window.held.bytes < window.held.limit // AHEAD_SHARE:
            return False
        if window.tail_now is not None and window.waits():
            return False
        return window.can_pass()  # a head that waits for what only it can decide waits for ever

    async def _burst(self, final: bool = False) -> Burst | None:
        burst = await super()._burst(final)
        self._group.throttle()  # what it has passed made room: the head goes on beside its transaction
        return burst

    async def _reread(self) -> None:
        left = MOST_REREADS * self._reread_bytes
        for name, (position, end) in self._window.held.wanted().items():
            if left <= 0:
                break  # the rest after what this makes room for
            again = await self._reader.read(self._pair[name], position, end, min(left, self._reread_bytes))
            left -= sum(len(value) for _, _, value in again.records)
            records = [record for record in again.records if record[0] < end]
            now, made, batches = self._now(), self._batches(name, records), []
            while True:
                async with self._group.turns.work():
                    if (batch := next(made, None)) is None:
                        break
                    for redactor in self._redactors.values():
                        redactor.take()  # counted when the head passed
                batches.append((batch[0], now, batch[1]))
            self._window.reread(name, batches, min(again.position, end))

    async def _ask_ends(self) -> None:
        """Mark a partition that was read to its end with the broker's time, whatever its producers' clocks say.

        Where it ends is asked once in `_asks_every`; one in live traffic has passed that by the next time.
        """
        if self._asked.due(time.monotonic()):
            before, names = self._now(), [name for name in self._pair if name not in self._ending]
            ends = await asyncio.gather(*(self._group.written_end(self._pair[name]) for name in names))
            self._ending |= {name: (end, before) for name, end in zip(names, ends, strict=True) if end is not None}
        for name, partition in self._pair.items():
            if name in self._ending and await self._group.passed(partition, self._ending[name][0]):
                end, before = self._ending.pop(name)
                self._window.ended(name, before, end)

    # ---- the check of the keys ---------------------------------------------------------------------------

    async def work(self) -> None:
        """Burst by burst; and look for traces that are on two partitions, once in all workers."""
        if self._index == CHECKER and not self._config.reads_whole_topics:
            check = KeyCheck(self._config, self._topics)
            self._checking = asyncio.create_task(check.run(), name="check of the keys")
        await super().work()

    async def close(self) -> None:
        """Let go of the epoch."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking], timeout=CLOSE_LIMIT)
        await super().close()
