"""The sample role: partition i of spans and logs, decided, correlated, counted, forwarded.

A thin shell around `processors.sampling.window`: this module takes over partitions, feeds the head, re-reads what
the cache could not hold, and puts each burst into one transaction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from math import inf

import faust
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline import telemetry
from pipeline.budget_exchange import BudgetExchange
from pipeline.config import Config
from pipeline.configuration.window_settings import settings
from pipeline.kafka import expired
from pipeline.kafka.alarm import breath
from pipeline.kafka.assignors import first_partitions
from pipeline.kafka.commit import Output, committer, dead_letters
from pipeline.kafka.consume import Group, Leases
from pipeline.kafka.lease import Lease, Rounds
from pipeline.kafka.log_start import LogStart, Retention
from pipeline.kafka.pace import Lead
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics
from pipeline.operating.restore import Restores
from pipeline.started import Started
from pipeline.telemetry import MetricName
from pipeline.watching.told_letters import TOLD
from processors.feeds import place_of
from processors.sampling.budget import Budget
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.stats import Stat, Stats
from processors.sampling.window import ACCEPT, Burst, Settings, Window
from processors.span_metrics import SpanMetrics
from schemas.errors import ProtocolError
from schemas.ids import partition_of_metric

log = logging.getLogger(__name__)

ROLE = "sample"
COUNTERS: Mapping[Stat, tuple[MetricName, str, Mapping[str, str]]] = {
    "spans_counted": ("tailrace_spans_read_total", "", {"role": ROLE}),
    "decided": ("tailrace_traces_decided_total", "verdict", {}),
    "policy": ("tailrace_policy_votes_total", "policy", {}),
    "drop_policy": ("tailrace_policy_drops_total", "policy", {}),
    "matched": ("tailrace_policy_matches_total", "policy", {}),
    "only": ("tailrace_policy_only_total", "policy", {}),
    "shadow_turned": ("tailrace_shadow_policy_changes_total", "policy", {}),
    "keys_shared": ("tailrace_policy_keys_shared_total", "policy", {}),
    "policy_spans": ("tailrace_policy_spans_total", "policy", {}),
    "policy_bytes": ("tailrace_policy_bytes_total", "policy", {}),
    "spans_kept": ("tailrace_spans_kept_total", "", {}),
    "spans_dropped": ("tailrace_dropped_total", "reason", {"signal": "spans", "intentional": "true"}),
    "logs_read": ("tailrace_logs_read_total", "", {"role": ROLE}),
    "logs_kept": ("tailrace_logs_kept_total", "", {}),
    "logs_dropped": ("tailrace_dropped_total", "reason", {"signal": "logs", "intentional": "true"}),
    "restored": ("tailrace_restored_rows_total", "signal", {}),
    "tail_reads": ("tailrace_tail_reads_total", "partition", {}),
}
"""Where the statistics of a burst are counted: the metric, its label that says of what, and its other labels."""
REREAD_BYTES = 8 << 20  # of values that are read in one go at most, of the decisions as well
REREAD_SHARE, REREAD_LEAST = 8, 1 << 20  # a part of the cache, and bytes, that the tail reads again in one go


def plan(config: Config) -> Plan:
    """The compiled policies; their attribute keys include what span metrics and log enrichment need."""
    metrics = config.metrics.span_metrics
    keys = ["service.name", *(metrics.dimensions if metrics.enabled else [])]
    return compile_policies(config.sampling.policies, compat=config.sampling.compat, extra_keys=keys)


def leases(config: Config, started: Started) -> Leases:
    """What makes the leases of this configuration; each covers partition i of spans and of logs."""
    shared = Shared(config, started)
    topics = shared.topics

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        assert isinstance(unit, int)
        if {p.topic for p in partitions} != {topics.spans, topics.logs}:
            raise ProtocolError(
                f"partition {unit} came without its pair ({sorted(p.topic for p in partitions)}): "
                f"{topics.spans} and {topics.logs} must have the same number of partitions"
            )
        return PartitionPair(owner, unit, shared, settings(config, cache_share(config, owner)))

    return lease


def group(app: faust.App, config: Config, started: Started) -> Group:
    """The consumer group of spans and logs."""
    topics = Topics(config.kafka.prefix)
    return Group(
        app,
        config,
        ROLE,
        [topics.spans, topics.logs],
        leases(config, started),
        unit=lambda partition: partition.partition,
        assignor=first_partitions(config.kafka.partitions),
        patience=interval(config),
    )


def interval(config: Config) -> float:
    """Seconds between two transactions of a partition."""
    return config.sampling.commit_interval or config.kafka.commit_interval


def cache_share(config: Config, owner: Group) -> int:
    """Bytes that one partition may cache: all that are assigned to a worker share."""
    return config.sampling.cache_bytes // max(1, owner.units)


class Shared:
    """What all leases of one configuration have; `exchange`: what partitions tell each other, if a policy needs it."""

    def __init__(self, config: Config, started: Started) -> None:
        self.config, self.started = config, started
        self.topics, self.plan = Topics(config.kafka.prefix), plan(config)
        self.retention = Retention(config.kafka.retention)
        self.exchange: BudgetExchange | None = None
        if any(isinstance(rate, Budget) for rate in self.plan.rates):
            self.exchange = BudgetExchange(self.topics, config.kafka.partitions, self.plan.meanings)

    def window(self, index: int, settings: Settings) -> Window:
        """An empty one of partition `index`."""
        metrics, counting = self.config.metrics.span_metrics, None
        if metrics.enabled:
            counting = SpanMetrics(metrics.namespace, metrics.dimensions, metrics.buckets_ms, self.plan.keys)
        return Window(index, settings, self.plan, counting)


class PartitionPair(Rounds):
    """Partition i of spans and logs under one epoch."""

    def __init__(self, owner: Group, index: int, shared: Shared, settings: Settings) -> None:
        super().__init__()
        config = shared.config
        self._group, self._index, self._config, self._topics = owner, index, config, shared.topics
        self._watch, self._accept_loss = shared.started.watch, shared.started.accept_loss
        self._exchange = shared.exchange
        self._window = shared.window(index, settings)
        self._pair = {feed: TopicPartition(*place_of(feed, index)) for feed in settings.feeds}
        self._committer = committer(config.kafka, owner, shared.topics.transactional_id(ROLE, index))
        self._window.limit = self._committer.size.bytes
        self._reader = Reader(config.kafka, config.limits, accept_loss=self._accept_loss and settings.direct)
        self._log_start = LogStart(owner, index, shared.retention)
        self._reread_bytes = min(REREAD_BYTES, max(REREAD_LEAST, settings.cache_bytes // REREAD_SHARE))
        self._loaded = 0
        self._burst_at = inf
        self._lead = Lead(interval(config))
        self._marked = 0  # the newest mark, ms, when the last burst began
        self._stalled: set[tuple[str, int]] = set()  # those that were counted
        self._first_append = -1
        self.restores = Restores(config, index, self._window, self._turn)

    async def open(self) -> Mapping[TopicPartition, int]:
        """InitProducerId, then the committed offset and its pointer, then the decisions up to their end (F8)."""
        telemetry.count("tailrace_tail_reads_total", 0, partition=str(self._index))
        await self._committer.start()
        committed = await self._group.committed(self._pair.values())
        decisions = TopicPartition(self._topics.decisions, self._index)
        first, end = await self._reader.end(decisions)
        pointer = next((int(o.metadata) for o in committed.values() if o.metadata and o.metadata.isdecimal()), None)
        if pointer is not None and pointer < first and not self._accept_loss:
            raise ProtocolError(
                f"{decisions.topic}/{self._index} begins at {first}, verdicts from {pointer} on are needed: its "
                f"retention must outlive spans retention plus late_horizon. To go on without them: {ACCEPT}"
            )
        start = first if pointer is None else max(first, pointer)
        while start < end:
            loaded = await self._reader.read(decisions, start, end, REREAD_BYTES)
            for offset, _, value in loaded.records:
                async with self._group.turns.work():
                    self._window.load(offset, value)
            start = self._loaded = loaded.position
        # Without transactions the offsets may lag behind the checkpoint, which is then the truth.
        trusted = committed if self._config.kafka.transactions else {}
        offsets = {name: o.offset if (o := trusted.get(p)) else None for name, p in self._pair.items()}
        if self._accept_loss:
            self._tell_gone(pointer is not None and pointer < first, offsets)
        starts = await self._starts(offsets)
        positions = self._window.resume(offsets, starts, self._accept_loss, await self._emptied(starts))
        self._stalled = set(self._window.stalled())  # whoever had the partition before has counted them
        lost = [(self._pair[name], records) for name, records in self._window.lost.items()]
        for partition, records in lost:
            expired.say(ROLE, partition, records)
        if lost:
            await self._checkpoint()
        for partition, records in lost:
            expired.count(self._config.kafka.prefix, partition, records)
        return {self._pair[name]: offset for name, offset in positions.items()}

    def _tell_gone(self, verdicts: bool, offsets: Mapping[str, int | None]) -> None:
        """Say so if `verdicts` that were needed are gone, or the checkpoint, which knew how far spans were counted."""
        counted = any(offsets[name] is not None for name in self._window.starting())
        text = "verdicts are gone: traces that were decided already are decided again, and may be split"
        if counted:
            text += "; so is the checkpoint: spans between the offsets and where the head was are counted again"
        if verdicts or counted:
            log.error(text, extra={"role": ROLE, "partition": self._index, "offsets": dict(offsets)})

    def opening(self) -> Hashable | None:
        """Up to where decisions were loaded."""
        return self._loaded

    async def _starts(self, offsets: Mapping[str, int | None]) -> dict[str, int]:
        """Where the topics start: for the very first owner, and to see whether retention overtook the tail.

        `offsets`: the group's, by feed.
        """
        first = await self._group.brokers.beginning(self._pair.values())
        return {name: first[partition] for name, partition in self._pair.items()}

    async def _emptied(self, starts: Mapping[str, int]) -> Collection[str]:
        """Feeds with nothing left: ingest writes in transactions, so the last that went was a marker."""
        ends = await self._group.brokers.end(self._pair.values()) if self._config.kafka.transactions else {}
        return {name for name, partition in self._pair.items() if ends.get(partition) == starts[name]}

    def positions(self) -> Mapping[TopicPartition, int]:
        """The heads."""
        return {self._pair[name]: offset for name, offset in self._window.positions().items()}

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Feed the head."""
        for record in records:
            self._window.head(partition.topic, record.offset, record.timestamp, record.value)
        if self._has_round() or self.is_full():
            self._alarm.ring()

    def _has_round(self) -> bool:
        """Whether every raw partition was marked since the last burst: what was due by then can be passed now."""
        now = self._window.now
        return now is not None and now > self._marked and self._lead.has_room

    async def work(self) -> None:
        """Burst by burst, every `commit_interval` or sooner while the tail has more to forward."""
        every = interval(self._config)
        self._burst_at = rested_at = time.monotonic()
        more = False
        while True:
            self._rounds += 1
            await self._reread()
            due = rested_at if self.is_full() else max(self.due(), rested_at)
            if not more and (left := due - time.monotonic()) > 0:
                await self._alarm.wait(left)
                continue
            self._burst_at = time.monotonic()
            self._marked = max((mark for mark, _ in self._window.marks().values()), default=0)
            await self._ask_ends()
            if self._exchange is not None and (states := await self._exchange.look(self._reader)) is not None:
                self._window.allot(states)
            late, self._window.late_errors = self._window.late_errors, {}
            async with self._turn:
                burst = await self._burst()
                if burst is not None:
                    await self._commit(burst)
                more = burst is not None and (burst.more or self._window.held.reads_on())
            self.restores.look(late, self._burst_at)  # their verdicts are in the log now
            self._show()
            await self._log_start.look(self._window.oldest())
            rested_at = time.monotonic() + breath(every)

    def due(self) -> float:
        """An interval after the last burst began, or half of it if there is a round of marks."""
        every = interval(self._config)
        return self._burst_at + (every / 2 if self._has_round() else every)

    def is_full(self) -> bool:
        """Whether so much waits that a burst should come before more is read."""
        return self._window.must_record

    def saturated(self) -> bool:
        """Until that burst has come."""
        return self.is_full()

    async def finish(self) -> None:
        """One last burst; what is undecided stays in the log for the next owner."""
        async with self._turn:
            burst = await self._burst(final=True)
            if burst is not None:
                await self._commit(burst)

    async def close(self) -> None:
        """Let go of the epoch."""
        # Whoever takes the partition shows its lag; what is left here would keep an alert and an autoscaler busy.
        telemetry.gauge("tailrace_head_lag_seconds", 0, partition=str(self._index))
        telemetry.gauge("tailrace_window_bytes", 0, partition=str(self._index))
        telemetry.gauge("tailrace_window_limit_bytes", 0, partition=str(self._index))
        self._tell_left_out(set())
        self._log_start.end()
        await self.restores.close()
        await self._committer.stop()
        await self._reader.close()

    async def _reread(self) -> None:
        for name, (position, end) in self._window.held.wanted().items():
            again = await self._reader.read(self._pair[name], position, end, self._reread_bytes)
            self._window.reread(name, again.records, again.position)

    async def _ask_ends(self) -> None:
        """Tell a silent topic from one that is read behind the other (only the former lets the clock go on)."""
        for name in self._window.quiet():
            newest = self._window.newest_append
            end = await self._group.written_end(self._pair[name])
            if end is not None and await self._group.passed(self._pair[name], end):
                self._window.ended(name, newest, end)

    async def _burst(self, final: bool = False) -> Burst | None:
        async with self._group.turns.work() as is_long:
            self._window.limit = self._committer.size.bytes
            return self._window.burst(final, is_long=is_long)

    async def _checkpoint(self) -> None:
        """Make durable where this owner begins."""
        burst = self._window.burst(always=True)
        assert burst is not None
        await self._commit(burst)

    async def _commit(self, burst: Burst) -> None:
        topics, index = self._topics, self._index
        outputs = [Output(topics.decisions, burst.decisions, index)]
        outputs += [Output(topics.kept_spans, value, index) for value in burst.kept_spans]
        outputs += [Output(topics.kept_logs, value, index) for value in burst.kept_logs]
        outputs += [Output(topics.untraced_logs, value, index) for value in burst.untraced_logs]
        outputs += dead_letters(topics, burst.dead_letters, self._config)
        for points in burst.points:
            partition = partition_of_metric(points.metric, self._config.kafka.metric_partitions)
            outputs.append(Output(topics.points, points.encode(), partition, points.metric.encode()))
        pointer = "" if burst.load_from is None else str(burst.load_from)
        written = await self._committer.commit(
            outputs,
            {self._pair[name]: OffsetAndMetadata(offset, pointer) for name, offset in burst.tails.items()},
            burst.more,
        )
        self._lead.took(self._committer.took)
        self._window.committed(written[0].offset)
        self.restores.committed()
        self._appended(written[0].timestamp)
        _count(burst.stats)
        TOLD.tell(burst.dead_letters)
        if self._watch is not None:
            self._watch.committed(burst.points, burst.kept_spans, burst.kept_logs)

    def _appended(self, time_ms: int) -> None:
        """A burst was appended at this time of the broker's."""

    def _show(self) -> None:
        window, index = self._window, str(self._index)
        if self._group.units:  # none while a rebalance is under way
            window.held.limit = cache_share(self._config, self._group)
        if self._first_append < 0:
            self._first_append = window.newest_append
        now = self._first_append if window.now is None else window.now  # a clock that never started lags too
        lag = max(0, window.newest_append - now) / 1000
        telemetry.gauge("tailrace_head_lag_seconds", lag, partition=index)
        telemetry.gauge("tailrace_window_bytes", window.held.bytes, partition=index)
        telemetry.gauge("tailrace_window_limit_bytes", window.held.limit, partition=index)
        stalled = set(window.stalled())
        for topic, _ in stalled - self._stalled:
            telemetry.count("tailrace_decisions_without_input_total", topic=topic)
        self._stalled = stalled
        self._tell_left_out(stalled)  # each time: a lease that closed late has told 0

    def _tell_left_out(self, stalled: Collection[tuple[str, int]]) -> None:
        """Of the topics that are read: what was left out of one that is no input any more stays so."""
        left_out = Counter(topic for topic, _ in stalled)
        for topic in self._config.traced:
            telemetry.gauge("tailrace_inputs_left_out", left_out[topic], topic=topic, partition=str(self._index))


def _count(stats: Stats) -> None:
    """Turn what a committed burst did into metrics; a burst that failed is not counted."""
    for (what, detail), number in stats.items():
        name, label, others = COUNTERS[what]
        telemetry.count(name, number, **others, **({label: detail} if label else {}))
