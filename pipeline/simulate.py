"""History decided again: the records that `sample` has read, through its own Window, under other policies.

Partitions are read by assignment, committed records only: no group is joined, nothing is written or committed. A
replay begins where a new owner would have begun at that time: at the tails of the checkpoint before it, with the
verdicts of a late-span horizon loaded. So a trace that was decided before is no evidence, and none begins half.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from aiokafka import TopicPartition

from pipeline.config import Config, Sampling
from pipeline.direct import direct_settings
from pipeline.reader import Reader
from pipeline.sample import settings
from pipeline.topics import Topics
from processors.sampling.compile import compile_policies
from processors.sampling.trial import Agreement, Comparison, Fate, Replay
from processors.sampling.window import Settings, Value
from schemas.errors import ProtocolError
from schemas.raw_batch import RawReader

CHUNK = 4 << 20  # bytes of values that are fetched of a topic at a time
BATCH_BYTES = 1 << 20  # of raw values that are taken apart together, as in pipeline/direct.py
CACHE_BYTES = 1 << 30  # between head and tail of a replay; what does not fit is read again
NO_TIME = 0

Progress = Callable[[int, int], None]
"""Called with records read and records in all."""


@dataclass(slots=True)
class Report:
    """What came out: times in ms since the epoch, `seconds` the replay took, `spans` that it read.

    `live` compares `old` with what the workers recorded.
    """

    since: int
    until: int
    versions: tuple[str, str]
    comparison: Comparison = field(default_factory=Comparison)
    live: Agreement | None = None
    records: int = 0
    seconds: float = 0.0

    @property
    def spans(self) -> int:
        """Spans that were read at the head."""
        return self.comparison.new.totals["spans_counted", ""]


async def simulate(
    config: Config,
    new: Sampling,
    old: Sampling,
    since: int,
    until: int | None,
    told: Progress = lambda done, total: None,
) -> Report:
    """Both of them on the history between two times (ms; None: now), over all partitions.

    Raises ProtocolError for topics of another configuration, KafkaError and TailraceError where Kafka does not answer.
    """
    started = time.monotonic()
    versions = _version(new), _version(old)
    report = Report(since, until or int(time.time() * 1000), versions)
    if old == config.sampling:
        report.live = Agreement(versions[1])
    partitions = [_Partition(config, index, new, old, report) for index in range(config.kafka.partitions)]
    try:
        for partition in partitions:
            await partition.find(since, until)
        total = sum(partition.total for partition in partitions)
        for partition in partitions:
            done = report.records
            await partition.replay(lambda records, done=done: told(done + records, total))  # type: ignore[misc]
            report.records += partition.total
    finally:
        for partition in partitions:
            await partition.close()
    report.seconds = time.monotonic() - started
    return report


def _version(sampling: Sampling) -> str:
    return compile_policies(sampling.policies, compat=sampling.compat).version


class _Feed:
    """The records of one topic's partition from `position` to `end`; `buffer` has (offset, time, value)."""

    def __init__(self, config: Config, partition: TopicPartition) -> None:
        self.partition, self.topic = partition, partition.topic
        self.reader = Reader(config.kafka)
        self.position = self.start = self.end = 0
        self.buffer: deque[tuple[int, int, bytes]] = deque()

    async def fill(self) -> None:
        """Fetch more, if there is nothing left and more to come."""
        while not self.buffer and self.position < self.end:
            found = await self.reader.read(self.partition, self.position, self.end, CHUNK)
            self.buffer.extend(record for record in found.records if record[0] < self.end)
            self.position = found.position

    @property
    def next_time(self) -> float:
        """Time (ms) of the next record, infinite when there is none."""
        return self.buffer[0][1] if self.buffer else float("inf")


class _Partition:
    def __init__(self, config: Config, index: int, new: Sampling, old: Sampling, report: Report) -> None:
        self._config, self._index, self._report = config, index, report
        self._new, self._old = new, old
        topics = Topics(config.kafka.prefix)
        base = self._settings(new)
        names = [name for name in (base.spans_topic, base.logs_topic) if name is not None]
        self._direct = base.direct
        self._feeds = [_Feed(config, TopicPartition(name, index)) for name in names]
        self._decisions = _Feed(config, TopicPartition(topics.decisions, index))
        self._replays: list[Replay] = []
        self.total = 0
        self._raw = {
            item.topic: RawReader(
                item.topic, index, config.kafka.partitions, item.signal, config.limits.max_message_bytes,
                config.limits.max_span_bytes,
            )
            for item in config.inputs if item.signal != "metrics"
        }  # fmt: skip

    def _settings(self, sampling: Sampling) -> Settings:
        config = self._config.model_copy(update={"sampling": sampling})
        found = direct_settings(config, 1) if config.regroup == "never" else settings(config, 1)
        return replace(found, cache_bytes=CACHE_BYTES)

    def _replay(self, sampling: Sampling) -> Replay:
        return Replay(self._index, self._settings(sampling), sampling.policies, sampling.compat)

    async def find(self, since: int, until: int | None) -> None:
        """Where to read, with what a worker would have known there."""
        told = self._decisions
        start = await told.reader.at(told.partition, since)
        horizon = int(max(self._new.late_horizon, self._old.late_horizon) * 1000)
        first = await told.reader.at(told.partition, max(NO_TIME, since - horizon))
        _, end = await told.reader.end(told.partition)
        values = []
        position = first
        while position < start:
            found = await told.reader.read(told.partition, position, start, CHUNK)
            values += [(offset, value) for offset, _, value in found.records if offset < start]
            position = found.position
        told.position, told.end = start, end
        beginning = {feed.topic: (await feed.reader.end(feed.partition))[0] for feed in self._feeds}
        same = self._new == self._old
        self._replays = [self._replay(each) for each in ((self._new,) if same else (self._new, self._old))]
        for replay in self._replays:
            for offset, value in values:
                replay.load(offset, value)
        fresh = {feed.topic: await feed.reader.at(feed.partition, since) for feed in self._feeds}
        try:
            resumed = [self._resumed(replay, beginning if values else fresh) for replay in self._replays]
        except ProtocolError as error:
            raise ProtocolError(f"{error}; begin later (--since)") from error
        for feed in self._feeds:
            feed.position = feed.start = resumed[0][feed.topic]
            feed.end = (await feed.reader.end(feed.partition))[1]
            if until is not None:
                feed.end = max(feed.start, await feed.reader.at(feed.partition, until))
            self.total += feed.end - feed.start

    @staticmethod
    def _resumed(replay: Replay, starts: dict[str, int]) -> dict[str, int]:
        return replay.resume(dict.fromkeys(starts), starts)

    async def replay(self, told: Callable[[int], None]) -> None:
        """Read everything."""
        while True:
            for feed in self._feeds:
                await feed.fill()
            feed = min(self._feeds, key=lambda each: each.next_time)
            if not feed.buffer:
                break
            others = min((each.next_time for each in self._feeds if each is not feed), default=float("inf"))
            newest = self._read(feed, others)
            self._ended(newest)
            for replay in self._replays:
                await self._reread(replay)
                replay.settle()
            await self._compare(newest)
            told(sum(each.position - each.start - len(each.buffer) for each in self._feeds))
        await self._compare(float("inf"))
        comparison = self._report.comparison
        comparison.new.close(self._replays[0])
        comparison.old.close(self._replays[-1])
        comparison.end_of_partition()
        if self._report.live is not None:
            self._report.live.end_of_partition()

    def _read(self, feed: _Feed, until: float) -> int:
        """Some records of a topic, none newer than the next of the other; the time of the last."""
        taken: list[tuple[int, int, bytes]] = []
        size = 0
        while feed.buffer and (not taken or (feed.next_time <= until and size < BATCH_BYTES)):
            taken.append(feed.buffer.popleft())
            size += len(taken[-1][2])
        newest = max(when for _, when, _ in taken)
        values: Sequence[tuple[int, int, Value]] = taken
        if self._direct:
            values = [(taken[0][0], newest, self._raw[feed.topic].read(taken))]
        for replay in self._replays:
            for offset, append, value in values:
                replay.head(feed.topic, offset, append, value)
        return newest

    def _ended(self, newest: int) -> None:
        """Topics without a record up to then are silent, as an end-offset request would have told the worker."""
        for replay in self._replays:
            quiet = replay.quiet()
            for feed in self._feeds:
                if feed.next_time > newest and (self._direct or feed.topic in quiet):
                    replay.ended(feed.topic, newest)

    async def _reread(self, replay: Replay) -> None:
        for topic, position in replay.wanted().items():
            (feed,) = (feed for feed in self._feeds if feed.topic == topic)
            head = replay.positions()[topic]
            found = await feed.reader.read(feed.partition, position, head, CHUNK)
            records: Sequence[tuple[int, int, Value]] = [record for record in found.records if record[0] < head]
            if self._direct and records:
                raw = [record for record in found.records if record[0] < head]
                records = [(raw[0][0], raw[-1][1], self._raw[topic].read(raw))]
            replay.reread(topic, records, min(found.position, head))

    async def _compare(self, newest: float) -> None:
        fates: list[dict[int, Fate]] = [replay.take() for replay in self._replays]
        self._report.comparison.add(fates[0], fates[-1])
        if self._report.live is None:
            return
        self._report.live.add(fates[-1])
        while True:
            await self._decisions.fill()
            if self._decisions.next_time > newest or not self._decisions.buffer:
                break
            self._report.live.recorded(self._decisions.buffer.popleft()[2])

    async def close(self) -> None:
        """Disconnect."""
        for feed in (*self._feeds, self._decisions):
            await feed.reader.close()
