"""History decided again: the records that `sample` has read, through its own Window, under other policies.

Partitions are read by assignment, committed records only: no group is joined, nothing is written or committed. A
replay begins where a new owner would have begun at that time: at the tails of the checkpoint before it, with the
verdicts of a late-span horizon loaded. So a trace that was decided before is no evidence, and none begins half.

One partition after the other; where a budget of the fleet is among the policies, all of them side by side in the order
in which records were appended, and each second of that time they tell each other what they want, as workers do.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import inf

from aiokafka import TopicPartition

from pipeline.budget_exchange import EVERY, SILENT
from pipeline.config import Config, Sampling
from pipeline.configuration.window_settings import window_settings
from pipeline.kafka.reader import Progress, Reader
from pipeline.kafka.topics import Topics
from pipeline.operating.history import CHUNK, Batch, Feed, History
from processors.feeds import topic_of
from processors.sampling.budget import Budget
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.trial import Agreement, Comparison, Fate, Replay
from schemas.errors import Permanent, ProtocolError

CACHE_BYTES = 1 << 30  # between heads and tails of replays; what does not fit is read again
NO_TIME = 0
NOT_REPLAYED = {"policies", "cache_bytes", "late_evidence", "commit_interval"}
TELL_MS = int(EVERY * 1000)


@dataclass(slots=True)
class Report:
    """What came out: times in ms since the epoch, `seconds` the replay took, `spans` that it read.

    `live` compares `old` with what the workers recorded. `firsts`: when the oldest record that was read was appended,
    by partition and feed of it; in `gone` are those of which Kafka had no more.
    `policies`: their names, new and old. `reads_logs`: whether `sample` has any. `differs`: settings of `sampling`
    beside policies that are not the same, (new, old) by name.
    """

    since: int
    until: int
    versions: tuple[str, str]
    policies: tuple[Sequence[str], Sequence[str]]
    reads_logs: bool
    comparison: Comparison = field(default_factory=Comparison)
    live: Agreement | None = None
    records: int = 0
    seconds: float = 0.0
    differs: dict[str, tuple[str, str]] = field(default_factory=dict)
    firsts: dict[tuple[int, str], int] = field(default_factory=dict)
    gone: set[tuple[int, str]] = field(default_factory=set)

    @property
    def first(self) -> float:
        """When the oldest record that was read was appended; infinite if there was none."""
        return min(self.firsts.values(), default=inf)

    @property
    def incomplete(self) -> dict[str, int | None]:
        """Topics that have lost records of times of which another one of a partition has some: their last first, ms.

        None: of the period nothing is left, and nobody knows of what time the lost ones were.
        """
        begins: dict[int, int] = {}
        for (index, _), first in self.firsts.items():
            begins[index] = max(self.since, min(first, begins.get(index, first)))
        found: dict[str, int] = {}
        for (index, feed), first in self.firsts.items():
            if (index, feed) in self.gone and first > begins[index]:
                found[topic_of(feed)] = max(first, found.get(topic_of(feed), first))
        read = {topic_of(feed) for _, feed in self.firsts}
        return found | {topic: None for _, feed in sorted(self.gone) if (topic := topic_of(feed)) not in read}

    @property
    def spans(self) -> int:
        """Spans that were read, with those from before `since` of traces that had begun."""
        return self.comparison.new.read

    def end_of_history(self) -> None:
        """Of some partitions all has been read."""
        self.comparison.end_of_history()
        if self.live is not None:
            self.live.end_of_history()


async def simulate(
    config: Config,
    new: Sampling,
    old: Sampling,
    since: int,
    until: int | None,
    told: Progress = lambda done, total: None,
) -> Report:
    """Both of them on the history between two times (ms; None: now), over all partitions.

    Raises ProtocolError for topics of another configuration, Permanent where there are no records between these times,
    KafkaError and TailraceError where Kafka does not answer.
    """
    started = time.monotonic()
    versions = _plan(new).version, _plan(old).version
    names = [policy.name for policy in new.policies], [policy.name for policy in old.policies]
    logs = config.raw_topic("logs") is not None
    report = Report(since, until or int(time.time() * 1000), versions, names, logs, differs=_differing(new, old))
    if old == config.sampling:
        report.live = Agreement(versions[1])
    shared = any(isinstance(rate, Budget) for each in (new, old) for rate in _plan(each).rates)
    count = config.kafka.partitions
    cache = CACHE_BYTES // count if shared else CACHE_BYTES
    partitions = [
        _Partition(config, index, await History.of(config, index), new, old, report, cache) for index in range(count)
    ]
    try:
        for partition in partitions:
            await partition.find(since, until)
        total = sum(partition.total for partition in partitions)
        for group in [partitions] if shared else [[partition] for partition in partitions]:
            async for _ in _side_by_side(group, TELL_MS if shared else float("inf")):
                told(sum(partition.history.done for partition in partitions), total)
            report.end_of_history()
        report.records = total
        if report.first == inf:
            raise Permanent(f"no record of {' or '.join(partitions[0].history.topics)} is of this period")
    finally:
        for partition in partitions:
            await partition.close()
    report.seconds = time.monotonic() - started
    return report


def _plan(sampling: Sampling) -> Plan:
    return compile_policies(sampling.policies, compat=sampling.compat)


def _differing(new: Sampling, old: Sampling) -> dict[str, tuple[str, str]]:
    """The settings that are not the same, as a file has them, of those that a replay goes by."""
    mine, theirs = (each.model_dump(mode="json", exclude=NOT_REPLAYED) for each in (new, old))
    return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}


async def _side_by_side(partitions: Sequence[_Partition], tell_ms: float) -> AsyncIterator[None]:
    """Replay partitions, a batch at a time, the oldest first; every `tell_ms` they hear of each other's limiters."""
    streams = {partition: partition.history.batches(tell_ms) for partition in partitions}
    waiting = {partition: batch for partition in partitions if (batch := await anext(streams[partition], None))}
    told_at = 0
    while waiting:
        partition, batch = min(waiting.items(), key=lambda item: item[1].newest)
        if batch.newest >= told_at + tell_ms:
            told_at = batch.newest
            heard = [partition.newest >= told_at - int(SILENT * 1000) for partition in partitions]
            for same in zip(*(partition.replays for partition in partitions), strict=True):
                states = [replay.limiters() if is_heard else None for replay, is_heard in zip(same, heard, strict=True)]
                for replay in same:
                    replay.allot(states)
        await partition.step(batch)
        partition.newest = batch.newest
        yield
        following = await anext(streams[partition], None)
        if following is None:
            del waiting[partition]
        else:
            waiting[partition] = following
    for partition in partitions:
        await partition.finish()


class _Partition:
    def __init__(
        self, config: Config, index: int, history: History, new: Sampling, old: Sampling, report: Report, cache: int
    ) -> None:
        self._config, self._index, self._report, self._cache = config, index, report, cache
        self._new, self._old = new, old
        self.history = history
        reader = Reader(config.kafka, config.limits)
        self._decisions = Feed(reader, TopicPartition(Topics(config.kafka.prefix).decisions, index))
        self.replays: list[Replay] = []
        self.total = 0
        self.newest = 0  # time (ms) of the newest record that was read

    def _replay(self, sampling: Sampling) -> Replay:
        config = self._config.model_copy(update={"sampling": sampling})
        return Replay(
            self._index,
            window_settings(config, self._cache, self.history.raw_partitions),
            sampling.policies,
            sampling.compat,
        )

    async def find(self, since: int, until: int | None) -> None:
        """Where to read, with what a worker would have known there."""
        told, history = self._decisions, self.history
        start = await told.reader.at(told.partition, since)
        horizon = int(max(self._new.late_horizon, self._old.late_horizon) * 1000)
        position = await told.reader.at(told.partition, max(NO_TIME, since - horizon))
        values = []
        while position < start:
            found = await told.reader.read(told.partition, position, start, CHUNK)
            values += [(offset, value) for offset, _, value in found.records if offset < start]
            position = found.position
        told.between(start, (await told.reader.end(told.partition))[1])
        kept = await history.beginnings()
        starts = kept if values else await history.at(since)
        same = self._new == self._old
        self.replays = [self._replay(each) for each in ((self._new,) if same else (self._new, self._old))]
        if not same:
            self.replays[0].other, self.replays[1].other = self.replays[1], self.replays[0]
        try:
            for replay in self.replays:
                for offset, value in values:
                    replay.load(offset, value)
                positions = replay.resume(dict.fromkeys(starts), starts)
        except ProtocolError as error:
            raise ProtocolError(f"{error}; begin later (--since)") from error
        ends = await (history.ends() if until is None else history.at(until))
        unknown = self.replays[0].starting()  # of the others all that is gone was done with before
        self._report.gone |= {(self._index, name) for name in unknown if 0 < kept[name] == positions[name]}
        for feed in history.feeds:
            feed.between(positions[feed.name], ends[feed.name])
            self.total += feed.end - feed.start

    async def step(self, batch: Batch) -> None:
        """Read on."""
        history = self.history
        self._report.firsts.setdefault((self._index, batch.feed), batch.records[0][1])
        silent = history.silent(batch.newest)
        for replay in self.replays:
            for offset, append, value in batch.records:
                replay.head(batch.feed, offset, append, value)
            quiet = replay.quiet()
            for feed in silent:  # as an end-offset request would have told the worker
                if history.direct or feed in quiet:
                    replay.ended(feed, batch.newest)
            await self._reread(replay)
        await self._compare(batch.newest)

    async def finish(self) -> None:
        """Everything has been read."""
        tails = None
        while tails != (tails := [replay.tails() for replay in self.replays]):  # they wait for each other
            for replay in self.replays:
                await self._reread(replay)
                while replay.held.wanted():  # what did not fit between head and tail, up to the first undecided trace
                    await self._reread(replay)
        await self._compare(float("inf"))
        self._report.comparison.new.close(self.replays[0])
        self._report.comparison.old.close(self.replays[-1])

    async def _reread(self, replay: Replay) -> None:
        for feed, (position, end) in replay.held.wanted().items():
            replay.reread(feed, *await self.history.again(feed, position, end))
        replay.settle()

    async def _compare(self, newest: float) -> None:
        fates: list[dict[int, Fate]] = [replay.take() for replay in self.replays]
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
        await self.history.close()
        await self._decisions.reader.close()
