"""The sample protocol of one partition: two cursors on one log, as a pure state machine.

Rows enter at the *head*, are counted and become evidence; a trace is decided when the stream clock has passed
its deadline. The *tail* passes the same rows again (held.py), in log order, once every trace in a record has a verdict,
and forwards the kept ones (forward.py). The committed offset is the tail. `burst` returns what goes into one
transaction: outputs, verdicts made since the last burst (decision_log.py), the checkpoint and the tails. docs/adr/0003
has the invariants:

I2: a record is passed only when all its traces have verdicts that are recorded in this burst or before it.
I3: an instance lives for one epoch; a failed transaction means a new instance, loaded from the log.

A record is an envelope of ingest, or with `regroup: never` a batch of raw records (schemas/raw_batch.py), which
counts as one record from its first offset on: it is passed as a whole. Then the clock is that of the raw records.

Nothing here waits, reads a clock or talks to Kafka, so the same code runs in the simulation
(tests/simulation/history.py). Times are ms; positions are the next offset to read.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from processors.feeds import feed_of, place_of, topic_of
from processors.sampling.ballot import Ballot
from processors.sampling.compile import Plan
from processors.sampling.decision_log import DECISION_BYTES, DECISION_OVERHEAD, DecisionLog
from processors.sampling.forward import Forward, encoded
from processors.sampling.held import Cursor, Held, Value, size_of
from processors.sampling.limits import Limits
from processors.sampling.restore import LATE_LOG, LATE_SPAN, TRIGGERS, LateError, Outcome, Restoration
from processors.sampling.stats import Stat, Stats
from processors.sampling.trace_table import ERROR, TraceTable
from processors.sampling.verdicts import Verdicts
from processors.span_labels import Resource, SpanLabels
from processors.span_metrics import SpanMetrics
from processors.stream_time import RawClock, StreamClock
from schemas.columns import gathered
from schemas.dead_letter import DeadLetter
from schemas.decision import Checkpoint, DecisionRecord, Enrichment, Verdict
from schemas.envelope import Envelope
from schemas.errors import ProtocolError, Unavailable
from schemas.otlp_scan import (
    LOG_CELLS,
    SEVERITY,
    SPAN_ID,
    STATUS,
    AttributeValue,
    LogColumns,
    SpanColumns,
    resource_attributes,
    signed,
)
from schemas.point import PointBatch
from schemas.raw_batch import RawBatch

FULL_CHECKPOINT_MS = 10_000  # of stream time; between two full ones only changed marks are written
IDLE_BURST_MS = 10_000  # tails that passed nothing but marks are committed this rarely
MOST_DECISIONS = 2 * DECISION_BYTES  # beyond it nothing is read: late rows of many traces repeat verdicts as well
RESOURCE_BYTES = 4 << 20  # of resources whose answers are remembered: some ten thousand pods
LABEL_SETS = 1 << 14  # remembered while nothing is counted
WAITS = 2  # decision_waits from the tail to the head; if there are more everything at the tail is decided
INPUT_PER_OUTPUT = 8  # a burst may read this many times its output limit while it keeps little

ACCEPT = "tailrace worker --role sample --accept-loss"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a partition needs to know; times in ms. `direct`: both topics are raw; there may be none of logs.

    `raw_partitions`: how many each raw topic has, if this window reads them all; none: it reads the one of its number.
    `late_evidence`: the lowest severity number of a late log that is told in `late_errors`, None: nothing is.
    """

    partitions: int
    spans_topic: str
    logs_topic: str | None
    decision_wait: int
    late_horizon: int
    unsampled: str = "warn"
    cache_bytes: int = 256 << 20
    burst_bytes: int = 8 << 20
    stall_limits: Mapping[str, int] = field(default_factory=dict)
    ingest_stall_limit: int = 300_000
    wait_after_root: int | None = None
    direct: bool = False
    late_evidence: int | None = None
    raw_partitions: Mapping[str, int] = field(default_factory=dict)

    @property
    def topics(self) -> tuple[str, ...]:
        """That of spans, and that of logs if there is one."""
        return (self.spans_topic,) if self.logs_topic is None else (self.spans_topic, self.logs_topic)

    @property
    def feeds(self) -> tuple[str, ...]:
        """What a window reads (processors/feeds.py), spans first."""
        return tuple(feed_of(topic, p, 0) for topic in self.topics for p in range(self.raw_partitions.get(topic, 1)))


@dataclass(slots=True)
class Burst:
    """One transaction: everything in it becomes visible at once or not at all."""

    kept_spans: list[bytes]
    kept_logs: list[bytes]
    untraced_logs: list[bytes]
    dead_letters: list[DeadLetter]
    points: list[PointBatch]
    decisions: bytes
    tails: dict[str, int]
    load_from: int | None
    more: bool
    stats: Stats


@dataclass(slots=True)
class _Passed:
    """What the tails of one signal have passed in a burst: bytes that they forward and read; `full`: it was enough."""

    kept: list[bytes] = field(default_factory=list)
    records: int = 0
    rows: int = 0
    size: int = 0
    read: int = 0
    full: bool = False


class Window:
    """Partition `partition` of spans and logs, for one epoch."""

    def __init__(self, partition: int, settings: Settings, plan: Plan, metrics: SpanMetrics | None) -> None:
        self.partition = partition
        self._settings = settings
        self._plan = plan
        self._service = plan.keys[b"service.name"]
        self._metrics = metrics
        self._labels = SpanLabels([]) if metrics is None else metrics.labels
        self._resources: dict[bytes, tuple[Resource, int, list[int]]] = {}
        self._resource_bytes = 0
        self._spans = SpanColumns(plan.keys)
        self._logs = LogColumns()
        self._feeds = settings.feeds
        self._span_feeds = {feed for feed in self._feeds if topic_of(feed) == settings.spans_topic}
        self.held = Held(settings.cache_bytes)
        self.limit = settings.burst_bytes  # bytes that a burst forwards of a signal, or has of verdicts
        self._order = self._feeds  # in which tails move
        self.lost: dict[str, int] = {}  # records of a feed that were gone when this owner came
        self._clock, self._tail_clock = self._clocks()
        self._traces = TraceTable(
            settings.decision_wait,
            settings.wait_after_root,
            plan.words,
            keyed=plan.features is not None,
            logged=settings.logs_topic is not None,
        )
        shadows = plan.shadows, plan.shadow_drops, plan.shadow_limits
        self._ballot = Ballot(plan.conditions, plan.drops, plan.words, *shadows)
        self._limits = Limits(plan.rates, settings.partitions, plan.samplers)
        self._verdicts = Verdicts(settings.late_horizon)
        self._log = DecisionLog(settings.partitions)
        self._stats: Stats = Counter()
        self._forward = Forward(self._verdicts, self._logs, settings.unsampled, self._stats)
        self._loaded: Checkpoint | None = None
        self._last_full: int | None = None
        self._last_burst: int | None = None
        self._ends: dict[str, deque[tuple[int, int]]] = {feed: deque() for feed in self._feeds}  # (head, append)
        self._left_out: set[tuple[str, int]] = set()
        self._untraced: list[bytes] = []
        self._dead: list[DeadLetter] = []
        self._restored_spans, self._restored_logs = list[bytes](), list[bytes]()
        self.late_errors: dict[int, LateError] = {}  # by trace; whoever reads them forgets them

    def _clocks(self) -> tuple[StreamClock, StreamClock]:
        """Of the head and of the tail."""
        limits = self._settings.stall_limits, self._settings.ingest_stall_limit
        if self._settings.direct:
            head = RawClock(*limits, self._feeds, partition=self.partition)
            return head, RawClock(*limits, self._feeds, partition=self.partition, leader=head)
        return StreamClock(*limits, self._feeds), StreamClock(*limits, self._feeds)

    # ---- taking over -------------------------------------------------------------------------------------

    def load(self, offset: int, value: bytes) -> None:
        """One record of the decisions partition, in order, before `resume`."""
        record = DecisionRecord.decode(value)
        self._check_partitions(record.partitions)
        point = record.checkpoint
        heads = self._in_order(point.counted)
        for key, time, verdict in zip(record.keys, record.times, record.verdicts, strict=True):
            self._verdicts.put(key, time, verdict, heads)
        if self._loaded is not None and not point.full:
            point.marks = self._loaded.marks | point.marks
        if strange := sorted(set(point.tails) - set(self._feeds)):
            if all(topic_of(feed) in map(topic_of, self._feeds) for feed in strange):
                raise Unavailable(f"{', '.join(map(self._named, strange))}: not among what the group reads now")
            raise ProtocolError(
                f"the last owner of partition {self.partition} read {', '.join(strange)}, this one reads "
                f"{', '.join(self._feeds)}: `regroup` or the inputs were changed; let the old configuration forward "
                "everything first, then go on under another kafka.prefix"
            )
        self._loaded = point
        self._log.load(offset, record, heads)

    def starting(self) -> list[str]:
        """Feeds that no checkpoint knows yet, once all decisions are loaded."""
        return [feed for feed in self._feeds if self._loaded is None or feed not in self._loaded.tails]

    def resume(
        self,
        committed: Mapping[str, int | None],
        starts: Mapping[str, int],
        accept_loss: bool = False,
        emptied: Collection[str] = (),
    ) -> dict[str, int]:
        """All decisions are loaded: where to read from, per feed.

        `committed` are the group's offsets (None: none), `starts` the first offsets of the feeds, for the very
        first start; of those that are `emptied` the last offset was no record. Raises ProtocolError when offsets and
        checkpoint contradict each other; and when records are gone that were not forwarded yet, unless `accept_loss`:
        then `lost` says how many, and it goes on after them.
        """
        point = self._loaded
        for feed in self._feeds:
            offset = committed.get(feed)
            if feed in self.starting():
                if offset is not None and not accept_loss:
                    raise ProtocolError(
                        f"group offset {offset} of {self._named(feed)} but no checkpoint: the decisions topic was "
                        "emptied or recreated; delete the group's offsets to start anew, or let it go on after what "
                        f"is gone with {ACCEPT}"
                    )
                tail = starts[feed] if offset is None else offset
            else:
                assert point is not None
                tail = point.tails[feed]
                if offset is not None and offset != tail:
                    raise ProtocolError(
                        f"group offset {offset} of {self._named(feed)} but its checkpoint says {tail}: offsets of "
                        "this group must not be reset by hand"
                    )
            if tail < starts[feed]:
                lost = starts[feed] - tail - (feed in emptied)
                if lost and not accept_loss:
                    raise ProtocolError(
                        f"{self._named(feed)} starts at {starts[feed]}, {lost} records that were not forwarded "
                        f"yet are gone: retention overtook the tail. To go on after them: {ACCEPT}"
                    )
                tail = starts[feed]
                if lost:
                    self.lost[feed] = lost
            self.held.cursors[feed] = Cursor(tail, tail, point.counted.get(feed, 0) if point else 0)
        if point is not None:
            self._clock.restore(point.marks, point.raw_topics)
            self._tail_clock.restore(point.marks, point.raw_topics)
            self._left_out = set(self._tail_clock.stalled())
            point.forget(self._plan.meanings)
            self._limits.restore(point.limiters)
            self._limits.restore_keys(point.keyed)
            self._expire()
        return self.tails()

    # ---- the head ----------------------------------------------------------------------------------------

    def positions(self) -> dict[str, int]:
        """The head, per feed."""
        return {feed: cursor.head for feed, cursor in self.held.cursors.items()}

    def uncounted(self, feed: str) -> int:
        """Spans before this position are in the span metrics already: no batch may reach across it."""
        return self.held.cursors[feed].counted

    def head(self, feed: str, offset: int, append: int, value: Value) -> None:
        """The next record of a feed: count it, gather evidence, decide what is due.

        A record that was seen already is ignored. `append` is when it was appended; with raw records, which may not
        say so, a time before now. Raises ProtocolError on anything but this pipeline's envelopes.
        """
        cursor = self.held.cursors[feed]
        if offset < cursor.head:
            return
        envelope = self._envelope(value)
        self.held.add(cursor, offset, append, value, isinstance(value, RawBatch) and self.waits())
        raw = (envelope.topic, envelope.partition)
        if len(envelope):
            times = self._clock.row_times(raw, envelope.timestamps(), append)
            if self._has_spans(feed):
                self._fold_spans(envelope, times, counted=offset < cursor.counted)
            else:
                self._fold_logs(envelope, times, counted=offset < cursor.counted)
        self._clock.read(feed, envelope, append)
        self._decide_due()

    def _has_spans(self, feed: str) -> bool:
        return feed in self._span_feeds

    def _named(self, feed: str) -> str:
        return "{}/{}".format(*place_of(feed, self.partition))

    def _envelope(self, value: Value) -> Envelope:
        if isinstance(value, RawBatch):
            return value.rows
        envelope = Envelope.decode(value)
        self._check_partitions(envelope.partitions)
        return envelope

    def quiet(self) -> list[str]:
        """Feeds that have fallen silent, or that are read more slowly than the others: `ended` tells which."""
        return self._clock.quiet()

    def ended(self, feed: str, append: int, end: int = 0) -> None:
        """Nothing of `feed` that was appended up to then is unread: it is silent, not merely read more slowly.

        `append` is `newest_append` as it was before the end of the feed, `end`, was asked for. What lies between the
        head and `end` are no records: markers of transactions, which may go by retention while the head stands there.
        """
        ends, cursor = self._ends[feed], self.held.cursors[feed]
        cursor.head = max(cursor.head, end)
        if ends and ends[-1][0] == cursor.head:
            ends.pop()
        ends.append((cursor.head, append))
        self._clock.ended(feed, append)
        self._decide_due()

    def _fold_spans(self, envelope: Envelope, times: array[int], counted: bool) -> None:
        plan, columns, labels = self._plan, self._spans, self._labels
        resources = [self._resource(header) for header in envelope.resources]
        columns.scan(envelope.body, envelope.ends, envelope.starts)
        if self._metrics is None and len(labels) > LABEL_SETS:
            labels.clear()  # with metrics every flush does
        labels.assign(columns, envelope.resource, [labelled for labelled, _, _ in resources])
        if not counted:
            if self._metrics is not None:
                self._metrics.add(columns)
            self._stats["spans_counted", ""] += len(envelope)
        now, row_times, met = self._clock.now(), *self._late(envelope, times)
        if self._settings.late_evidence is not None and not counted and b"\x01" in met.tobytes():
            for row in range(columns.rows):
                at = row * columns.width
                if met[row] and columns.cells[at + STATUS] == ERROR:
                    self._late_error(envelope, row, LATE_SPAN, columns.cells[at + SPAN_ID : at + SPAN_ID + 2])
        plan.answer(columns, envelope, [bits for _, bits, _ in resources])
        if plan.features is not None:
            plan.features.assign(columns, envelope.resource, [parts for _, _, parts in resources])
        self._traces.fold_spans(columns, envelope.keys, row_times, met, now, plan.span_bits, labels, plan.features)

    def _resource(self, header: bytes) -> tuple[Resource, int, list[int]]:
        """A resource's labels, its answers to the policies, its parts of keys: read once while it keeps coming."""
        known = self._resources.get(header)
        if known is None:
            values = resource_attributes(header, self._plan.keys)
            labelled = _text(values[self._service]), tuple(values[slot] for slot in self._labels.slots)
            self._resource_bytes += len(header)
            if self._resource_bytes > RESOURCE_BYTES:
                self._resources, self._resource_bytes = {}, len(header)
            parts = self._plan.features.of_resource(values) if self._plan.features is not None else []
            known = self._resources[header] = labelled, self._plan.resource_bits(values), parts
        return known

    def _fold_logs(self, envelope: Envelope, times: array[int], counted: bool) -> None:
        columns = self._logs
        columns.scan(envelope.body, envelope.ends, envelope.starts)
        now, row_times, met = self._clock.now(), *self._late(envelope, times)
        lowest = self._settings.late_evidence
        if lowest is not None and not counted and b"\x01" in met.tobytes():
            for row in range(columns.rows):
                at = row * LOG_CELLS
                if met[row] and signed(columns.cells[at + SEVERITY]) >= lowest:
                    self._late_error(envelope, row, LATE_LOG, columns.cells[at + SPAN_ID : at + SPAN_ID + 2])
        self._traces.fold_logs(columns, envelope.keys, row_times, met, now, self._plan.severity_bits)

    def _late_error(self, envelope: Envelope, row: int, trigger: str, span: array[int]) -> None:
        """A row that is evidence came after its trace's verdict.

        Not asked of rows that an owner before has counted: they met the verdict only now that it is loaded.
        """
        key = envelope.keys[row]
        verdict = self._verdicts.get(key)
        if verdict is not None and not verdict.kept:
            told = f"{TRIGGERS[trigger]} (span {envelope.body[span[0] : span[1]].hex() or 'unknown'})"
            self.late_errors.setdefault(key, LateError(trigger, told))

    def _late(self, envelope: Envelope, times: array[int]) -> tuple[array[int], array[int]]:
        """The stream time of each row, and whether its trace is decided already.

        Such a row follows its verdict, which then must live on.
        """
        row_times = gathered(times, envelope.message)
        met = array("B", bytes(len(envelope)))
        now, heads = self._clock.now(), self.held.heads()
        for row in self._verdicts.late(envelope.keys, row_times, now, heads, met):
            key = envelope.keys[row]
            needed = row_times[row] if now is None else max(row_times[row], now)
            verdict = self._verdicts.get(key)
            if verdict is not None and self._verdicts.touch(key, needed, heads):
                self._log.repeat(key, needed, verdict)
        return row_times, met

    def _decide_due(self) -> None:
        """Decide what is due, as much as one decision record holds; the next burst makes room for more."""
        now = self._clock.now()
        if now is None or self._log.room(self.limit) <= 0:
            return
        heads = self.held.heads()
        while count := self._traces.list_due(now - 1):  # a row at `now` may still come, and one at the deadline counts
            place, kept = 0, list[int]()
            while place < count and (room := self._log.room(self.limit)) > 0:
                end = min(count, place + 1 + room // DECISION_OVERHEAD)
                found = self._ballot.next_kept(self._traces, place, end, self._limits)
                self._log.bytes += DECISION_OVERHEAD * (found - place)
                place = found
                if found < end:
                    self._keep(found, heads)
                    kept.append(found)
                    place += 1
            self._drop(place, kept, heads)
            self._traces.settle(place)
            if place < count:
                break

    def _count_votes(self) -> None:
        """What the policies voted since the last burst."""
        ballot, stats = self._ballot, self._stats
        voting = len(ballot.names)
        votes: tuple[tuple[Stat, Sequence[str], Sequence[int]], ...] = (
            ("drop_policy", ballot.drop_names, ballot.dropped_by),
            ("matched", ballot.names, ballot.together[:: voting + 1]),
            ("only", ballot.names, ballot.only),
            ("matched", ballot.shadow_names, ballot.shadowed),
            ("shadow_turned", ballot.shadow_names, ballot.turned),
        )
        for what, names, numbers in votes:
            for name, number in zip(names, numbers, strict=False):
                if number:
                    stats[what, name] += number
        for name, number in self._limits.shared().items():
            stats["keys_shared", name] += number
        ballot.clear()

    def _drop(self, count: int, kept: Sequence[int], heads: tuple[int, ...]) -> None:
        """Drop the first `count` of the traces that are due, but for those that were kept."""
        keys, times = self._traces.due_keys[:count], self._traces.due_times[:count]
        for place in reversed(kept):
            del keys[place], times[place]
        if keys:
            self._verdicts.drop(keys, times, heads)
            self._log.drop(keys, times)
            self._stats["decided", "dropped"] += len(keys)

    def _keep(self, place: int, heads: tuple[int, ...]) -> None:
        key, time = self._traces.due_keys[place], self._traces.due_times[place]
        policy = self._ballot.names[self._ballot.policy]
        root, spans = self._traces.enrichments(place)
        verdict = _verdict(policy, self._ballot.threshold, root)
        if spans:
            verdict = replace(verdict, spans=spans)
        self._stats["policy", policy] += 1
        self._stats["decided", "kept"] += 1
        self._verdicts.put(key, time, verdict, heads)
        self._log.add(key, time, verdict)

    # ---- how far it may read -----------------------------------------------------------------------------

    def reread(self, feed: str, records: Sequence[tuple[int, int, Value]], position: int) -> None:
        """Records (offset, append, value) of the stretch that was wanted; `position` is what follows them."""
        self._stats["tail_reads", str(self.partition)] += self.held.reread(feed, records, position)

    def allot(self, states: Sequence[Mapping[str, Sequence[tuple[int, int]]] | None]) -> None:
        """What all partitions say of their limiters, None if silent: budgets take the share of this one."""
        if (now := self._clock.now()) is not None:
            self._limits.allot(self.partition, states, now)

    @property
    def must_record(self) -> bool:
        """Whether a burst has to come before more is read, or its decision record outgrows what the topic takes."""
        return self._log.bytes >= MOST_DECISIONS

    def waits(self) -> bool:
        """Whether the tail waits for verdicts. One that is further behind has them, and waits for its turn."""
        head, tail = self._clock.now(), self._tail_clock.now()
        return head is None or tail is None or head - tail <= WAITS * self._settings.decision_wait

    def can_pass(self) -> bool:
        """Whether the next burst may pass something; if not, only what the head still has to read helps."""
        if self.held.wanted():
            return True  # it is read first
        oldest = [found[2] for cursor in self.held.cursors.values() if (found := cursor.next()) is not None]
        return any(self._verdicts.missing(self._envelope(value).keys) < 0 for value in oldest)

    # ---- the tail ----------------------------------------------------------------------------------------

    def burst(
        self, final: bool = False, always: bool = False, is_long: Callable[[], bool] = lambda: False
    ) -> Burst | None:
        """Everything that can go into a transaction now; None when nothing moved that is worth one, unless `always`.

        It ends at `limit`, or when `is_long`, asked in between, says so. The instance has moved on when this returns:
        if the transaction fails, drop it and take over again.
        """
        spans, logs = _Passed(), _Passed()
        for feed in self._order:
            self._pass(feed, spans if self._has_spans(feed) else logs, is_long)
        if spans.full or logs.full:
            self._order = (*self._order[1:], self._order[0])  # or the others might never have their time
        spans.kept[:0], logs.kept[:0] = self._restored_spans, self._restored_logs
        self._restored_spans, self._restored_logs = [], []
        points = self._metrics.flush() if self._metrics else []
        moved = bool(spans.rows or logs.rows or points or self._log.pending.keys or self._untraced or self._dead)
        read = spans.records or logs.records or self._tail_clock.changed
        now = self._tail_clock.now()
        idle_due = now is not None and (self._last_burst is None or now - self._last_burst >= IDLE_BURST_MS)
        if not (moved or always) and not (read and (final or idle_due)):
            return None
        full = self._last_full is None or (now is not None and now - self._last_full >= FULL_CHECKPOINT_MS)
        if full:
            self._last_full = now if now is not None else 0
        self._last_burst = now
        limiters, keyed, tails = self._limits.state(), self._limits.keys(), self.tails()
        counted = {feed: max(cursor.counted, cursor.head) for feed, cursor in self.held.cursors.items()}
        checkpoint = Checkpoint(
            tails=tails,
            counted=counted,
            marks=self._marks_to_save(full),
            raw_topics=dict(self._tail_clock.raw_topics),
            policy_version=self._plan.version,
            full=full,
            limiters=limiters,
            keyed=keyed,
            meant={policy: self._plan.meanings[policy] for policy in {**limiters, **keyed}},
            waits=(self._settings.decision_wait, self._settings.wait_after_root or 0),
        )
        decisions = self._log.take(checkpoint, self._in_order(counted))
        self._count_votes()
        stats = Counter(self._stats)
        self._stats.clear()
        untraced, self._untraced = self._untraced, []
        dead, self._dead = self._dead, []
        self._expire()
        self._decide_due()
        return Burst(
            spans.kept,
            logs.kept,
            untraced,
            dead,
            points,
            decisions,
            tails,
            self._log.load_from(-1 if now is None else now - self._settings.late_horizon, self.held.tails()),
            spans.full or logs.full or bool(self._log.pending.keys),
            stats,
        )

    def committed(self, decisions_offset: int) -> None:
        """The last burst is durable; its decision record has this offset."""
        self._log.written(decisions_offset)

    def _marks_to_save(self, full: bool) -> dict[tuple[str, int], tuple[int, int]]:
        """All marks as of the tail, or those that moved or whose raw partition was left out or returned.

        What was removed is not known to the clock any more.
        """
        clock, left_out = self._tail_clock, set(self._tail_clock.stalled())
        raws = {*clock.marks, *left_out} if full else clock.changed | (left_out ^ self._left_out)
        clock.changed, self._left_out = set(), left_out
        return {raw: clock.saved(raw) for raw in raws if clock.knows(raw)}

    def _pass(self, feed: str, passed: _Passed, is_long: Callable[[], bool]) -> None:
        """Move one tail."""
        cursor, limit = self.held.cursors[feed], self.limit
        forward = self._forward.spans if self._has_spans(feed) else self._forward.logs
        while (oldest := cursor.next()) is not None:
            if passed.size >= limit or passed.read >= limit * INPUT_PER_OUTPUT or (passed.records and is_long()):
                passed.full = True
                break
            offset, append, value = oldest
            size, envelope = size_of(value), self._envelope(value)
            if len(envelope) and not self._all_decided(envelope.keys, feed, offset):
                break
            if isinstance(value, RawBatch):
                whole = value.whole()
                size, envelope = whole.size, whole.rows
                passed.size += self._set_aside(whole)
            if len(envelope):
                outputs = forward(envelope)
                passed.kept += outputs
                passed.size += sum(map(len, outputs))
            self._tail_clock.read(feed, envelope, append)
            self.held.pop(cursor)
            self._pass_ends(feed, cursor)
            passed.records += 1
            passed.rows += len(envelope)
            passed.read += size
        cursor.skip()
        self._pass_ends(feed, cursor)

    def _pass_ends(self, feed: str, cursor: Cursor) -> None:
        """What `ended` said when the head was where the tail is now. A tail with a record always before it comes by."""
        ends = self._ends[feed]
        while ends and ends[0][0] <= cursor.tail:
            self._tail_clock.ended(feed, ends.popleft()[1])

    def _all_decided(self, keys: array[int], feed: str, offset: int) -> bool:
        row: int = self._verdicts.missing(keys)
        if row >= 0 and keys[row] not in self._traces:
            raise ProtocolError(f"trace {keys[row]:016x} at {self._named(feed)}/{offset} has no verdict (I2)")
        return row < 0

    def _set_aside(self, batch: RawBatch) -> int:
        """What leaves a raw batch beside its traces; bytes."""
        self._dead += batch.dead_letters
        untraced = encoded(batch.untraced, array("I", range(len(batch.untraced))), [None] * len(batch.untraced))
        self._untraced += untraced
        if batch.rows.topic == self._settings.logs_topic:
            self._stats["logs_read", ""] += len(batch.rows) + len(batch.untraced)
        return sum(map(len, untraced)) + sum(len(letter.value) for letter in batch.dead_letters)

    # ---- a dropped trace that is kept after all ----------------------------------------------------------

    def fate(self, key: int) -> Outcome | None:
        """Why a trace cannot be restored: it is undecided, or kept; None if it was dropped or forgotten."""
        if key in self._traces or self._clock.now() is None:
            return Outcome.UNDECIDED
        verdict = self._verdicts.get(key)
        return Outcome.KEPT if verdict is not None and verdict.kept else None

    @property
    def raw_partitions(self) -> Mapping[str, int]:
        """How many each raw topic had when this owner came, if it reads them all."""
        return self._settings.raw_partitions

    def tails(self) -> dict[str, int]:
        """The tail, per feed."""
        return {feed: cursor.tail for feed, cursor in self.held.cursors.items()}

    def restore(self, found: Restoration) -> Outcome:
        """Keep a trace that was dropped: the one second verdict, in the next burst together with what was found.

        `found` must have been read up to the tails, and so up to the rows that the tail will meet, unless it is too
        large.
        """
        if found.too_large:
            return Outcome.TOO_LARGE
        if found.behind(self.tails()):
            raise ValueError("not read up to the tails")
        now = self._clock.now()
        if now is None or (fate := self.fate(found.key)) is not None:
            return Outcome.UNDECIDED if now is None else fate or Outcome.UNDECIDED
        if found.is_gone(self.tails()):
            return Outcome.GONE
        spans = [each for feed, envelopes in found.rows.items() if self._has_spans(feed) for each in envelopes]
        headers = {header for envelope in spans for header in envelope.resources}
        verdict = found.verdict(spans, {header: self._resource(header)[0][0] for header in headers})
        for feed, envelopes in found.rows.items():
            for envelope in envelopes:
                if self._has_spans(feed):
                    self._restored_spans += self._forward.restored_spans(envelope, verdict)
                else:
                    self._restored_logs += self._forward.restored_logs(envelope, verdict)
        self._verdicts.put(found.key, now, verdict, self.held.heads())
        self._log.add(found.key, now, verdict)
        self._log.pending.restored[found.key] = found.why
        return Outcome.RESTORED

    def _expire(self) -> None:
        now = self._tail_clock.now()
        if now is not None:
            self._verdicts.expire(now, self.held.tails())

    def _in_order(self, positions: Mapping[str, int]) -> tuple[int, ...]:
        """Positions by feed as a tuple, in the order of the cursors."""
        return tuple(positions.get(feed, 0) for feed in self._feeds)

    # ---- what an operator sees ---------------------------------------------------------------------------

    @property
    def now(self) -> int | None:
        """The clock at the head, ms; None while a raw partition has no mark yet."""
        return self._clock.now()

    @property
    def newest_append(self) -> int:
        """Append time (ms) of the newest record read."""
        return self._clock.newest_append

    def oldest(self) -> dict[str, int | None]:
        """Append time (ms) of the first record that the tail has not passed, per feed; None: it has passed all.

        While that record has to be read again, the time of the one before it.
        """
        return {feed: cursor.oldest() for feed, cursor in self.held.cursors.items()}

    @property
    def tail_now(self) -> int | None:
        """The clock at the tail, ms."""
        return self._tail_clock.now()

    def marks(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Up to when each raw partition has been read at the head: (mark, append time), ms."""
        return self._clock.marks

    @property
    def undecided(self) -> int:
        """Traces that wait for their deadline."""
        return len(self._traces)

    def stalled(self) -> list[tuple[str, int]]:
        """Raw partitions that the clock leaves out."""
        return self._clock.stalled()

    def _check_partitions(self, found: int) -> None:
        if found != (expected := self._settings.partitions):
            raise ProtocolError(
                f"a record says N = {found} partitions, the configuration {expected}: correct kafka.partitions, or "
                f"`tailrace topics resize FILE --partitions {expected}` (docs/how-to/upgrade.md)"
            )


@lru_cache(maxsize=4096)
def _verdict(policy: str, threshold: int, root: Enrichment | None) -> Verdict:
    """The one shared verdict of these values."""
    return Verdict(True, policy, threshold, root)


def _text(value: AttributeValue | None) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
