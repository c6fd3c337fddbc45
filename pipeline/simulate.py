"""History decided again: the records that `sample` has read, through its own Window, under other policies.

Partitions are read by assignment, committed records only: no group is joined, nothing is written or committed. A
replay begins where a new owner would have begun at that time: at the tails of the checkpoint before it, with the
verdicts of a late-span horizon loaded. So a trace that was decided before is no evidence, and none begins half.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from pipeline.config import Config, Sampling
from pipeline.history import CHUNK, Feed, History
from pipeline.topics import Topics
from pipeline.window_settings import window_settings
from processors.sampling.compile import compile_policies
from processors.sampling.trial import Agreement, Comparison, Fate, Replay
from schemas.errors import ProtocolError

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


class _Partition:
    def __init__(self, config: Config, index: int, new: Sampling, old: Sampling, report: Report) -> None:
        self._config, self._index, self._report = config, index, report
        self._new, self._old = new, old
        self._history = History(config, index)
        self._decisions = Feed(config, TopicPartition(Topics(config.kafka.prefix).decisions, index))
        self._replays: list[Replay] = []
        self.total = 0

    def _replay(self, sampling: Sampling) -> Replay:
        config = self._config.model_copy(update={"sampling": sampling})
        return Replay(self._index, window_settings(config, CACHE_BYTES), sampling.policies, sampling.compat)

    async def find(self, since: int, until: int | None) -> None:
        """Where to read, with what a worker would have known there."""
        told, history = self._decisions, self._history
        start = await told.reader.at(told.partition, since)
        horizon = int(max(self._new.late_horizon, self._old.late_horizon) * 1000)
        position = await told.reader.at(told.partition, max(NO_TIME, since - horizon))
        values = []
        while position < start:
            found = await told.reader.read(told.partition, position, start, CHUNK)
            values += [(offset, value) for offset, _, value in found.records if offset < start]
            position = found.position
        told.between(start, (await told.reader.end(told.partition))[1])
        starts = await (history.beginnings() if values else history.at(since))
        same = self._new == self._old
        self._replays = [self._replay(each) for each in ((self._new,) if same else (self._new, self._old))]
        try:
            for replay in self._replays:
                for offset, value in values:
                    replay.load(offset, value)
                positions = replay.resume(dict.fromkeys(starts), starts)
        except ProtocolError as error:
            raise ProtocolError(f"{error}; begin later (--since)") from error
        ends = await (history.ends() if until is None else history.at(until))
        for feed in history.feeds:
            feed.between(positions[feed.topic], ends[feed.topic])
            self.total += feed.end - feed.start

    async def replay(self, told: Callable[[int], None]) -> None:
        """Read everything."""
        async for batch in self._history.batches():
            silent = self._history.silent(batch.newest)
            for replay in self._replays:
                for offset, append, value in batch.records:
                    replay.head(batch.topic, offset, append, value)
                quiet = replay.quiet()
                for topic in silent:  # as an end-offset request would have told the worker
                    if self._history.direct or topic in quiet:
                        replay.ended(topic, batch.newest)
                for topic, position in replay.wanted().items():
                    replay.reread(topic, *await self._history.again(topic, position, replay.positions()[topic]))
                replay.settle()
            await self._compare(batch.newest)
            told(self._history.done)
        for replay in self._replays:
            while wanted := replay.wanted():  # what did not fit between head and tail, up to the first undecided trace
                for topic, position in wanted.items():
                    replay.reread(topic, *await self._history.again(topic, position, replay.positions()[topic]))
                replay.settle()
        await self._compare(float("inf"))
        comparison = self._report.comparison
        comparison.new.close(self._replays[0])
        comparison.old.close(self._replays[-1])
        comparison.end_of_partition()
        if self._report.live is not None:
            self._report.live.end_of_partition()

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
        await self._history.close()
        await self._decisions.reader.close()
