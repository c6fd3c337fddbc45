"""Why a trace was kept or dropped: its verdict in the log of decisions, and every policy's vote on its own rows.

Kafka has all of it. The record of the decision says when and by which version; the checkpoint before it says from where
on the trace's records are (the tail has passed no undecided trace: I2), its own says where the head stood. What lies
between is read in the order in which it was appended, so the rows that count are those that counted. Works for dropped
traces as for kept ones, and whether or not a worker runs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aiokafka import TopicPartition

from pipeline.config import Config
from pipeline.history import Batch, Feed, History, window_settings
from pipeline.topics import Topics
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.evidence import Evidence
from processors.sampling.votes import PolicyVote, Rows, Trace, as_plain, counted, evidence, verdict, vote
from processors.stream_time import RawClock, StreamClock
from schemas.decision import Checkpoint, DecisionRecord, Verdict, decided_keys
from schemas.envelope import Envelope
from schemas.ids import partition_of, trace_key
from schemas.raw_batch import RawBatch
from schemas.trace_state import randomness_of_id

STRIDE = 512  # offsets of decisions that are read at a time, from the newest back
READ_BYTES = 16 << 20  # of them in one go
SOURCES_SHOWN = 5  # raw coordinates of a trace's records


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict in the log: the offset and append time (ms) of its record, the stream time that it was made at."""

    verdict: Verdict
    offset: int
    appended: int
    stream_time: int
    version: str


@dataclass(slots=True)
class Explanation:
    """What is known of a trace. `decision` is None while it waits for its deadline.

    `version` is that of the policies whose `votes` these are; `agrees`: they come to the verdict that was recorded.
    """

    trace_id: str
    partition: int
    version: str
    decision: Decision | None = None
    trace: Trace | None = None
    seen: Evidence | None = None
    votes: list[PolicyVote] = field(default_factory=list)
    agrees: bool | None = None
    sources: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """kept, dropped, undecided, or unknown: neither in the log nor waiting."""
        if self.decision is not None:
            return "kept" if self.decision.verdict.kept else "dropped"
        return "unknown" if self.trace is None else "undecided"


async def explain(config: Config, trace_id: bytes, partitions: Collection[int] | None = None) -> Explanation:
    """Everything about one trace, if it is in one of these partitions (None: in any).

    Raises KafkaError and TailraceError where Kafka does not answer.
    """
    candidates = places(config, trace_id)
    for index in candidates:
        if partitions is None or index in partitions:
            found = await _explain(config, trace_id, index)
            if found.state != "unknown":
                return found
    return Explanation(trace_id.hex(), candidates[0], _plan(config).version)


def places(config: Config, trace_id: bytes) -> Sequence[int]:
    """Partitions that the trace may be in: with `regroup: never` only its producers know."""
    n = config.kafka.partitions
    return range(n) if config.regroup == "never" else [partition_of(trace_id, n)]


def _plan(config: Config) -> Plan:
    return compile_policies(config.sampling.policies, compat=config.sampling.compat)


async def _explain(config: Config, trace_id: bytes, index: int) -> Explanation:
    sampling, plan = config.sampling, _plan(config)
    found = Explanation(trace_id.hex(), index, plan.version)
    decisions, history = _Decisions(config, index), History(config, index)
    try:
        place = await decisions.find(trace_key(trace_id), int(sampling.late_horizon * 1000))
        found.decision = place.decision
        beginnings, ends = await history.beginnings(), await history.ends()
        for feed in history.feeds:
            start = max(beginnings[feed.topic], place.before.tails.get(feed.topic, 0))
            feed.between(start, place.heads.get(feed.topic, ends[feed.topic]))
        rows = await _rows(config, history, trace_key(trace_id), place.before)
    finally:
        await history.close()
        await decisions.feed.reader.close()
    if rows:
        after_root = int(sampling.decision_wait_after_root_received * 1000) or None
        trace = counted(rows, int(sampling.decision_wait * 1000), after_root)
        found.trace, found.seen = trace, evidence(plan, trace)
        found.votes = [vote(policy, sampling.compat, trace) for policy in sampling.policies]
        found.sources = _sources(rows)
        if found.decision is not None:
            outcome = verdict(sampling.policies, sampling.compat, trace)
            recorded = found.decision.verdict
            found.agrees = (outcome.kept, outcome.policy if outcome.kept else "") == (recorded.kept, recorded.policy)
    return found


# ---- the log of decisions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a trace is: its decision if there is one, the state before it, where the heads stood when it was made."""

    decision: Decision | None
    before: Checkpoint
    heads: dict[str, int]


class _Decisions:
    """The decisions of one partition, from the newest back."""

    def __init__(self, config: Config, index: int) -> None:
        self.feed = Feed(config, TopicPartition(Topics(config.kafka.prefix).decisions, index))
        self._records: list[tuple[int, int, bytes]] = []  # (offset, append time, value), as far back as was read
        self._first = self._position = self._fresh = 0

    async def find(self, key: int, horizon: int) -> _Place:
        """The first record that has the trace: a verdict is repeated for as long as late spans keep it alive."""
        self._first, end = await self.feed.reader.end(self.feed.partition)
        self._position = end
        found: int | None = None  # offset
        appended = 0
        while await self._further():
            fresh = self._records[: self._fresh]
            for offset, when, value in reversed(fresh):
                if found is not None and when < appended - horizon:
                    break
                if key in decided_keys(value):
                    found, appended = offset, when
            if found is not None and fresh and fresh[0][1] < appended - horizon:
                break
        if found is None:
            return _Place(None, await self._state(len(self._records)), {})
        place = bisect_left(self._records, (found, -1, b""))
        while place == 0 and await self._further():
            place = self._fresh
        offset, when, value = self._records[place]
        record = DecisionRecord.decode(value)
        row = record.keys.index(key)
        version = record.checkpoint.policy_version
        decision = Decision(record.verdicts[row], offset, when, record.times[row], version)
        return _Place(decision, await self._state(place), dict(record.checkpoint.counted))

    async def _further(self) -> bool:
        """Read further back; False when there is nothing. `_fresh` is how many records came."""
        self._fresh = 0
        while self._fresh == 0 and self._position > self._first:
            start = max(self._first, self._position - STRIDE)
            position = start
            read: list[tuple[int, int, bytes]] = []
            while position < self._position:
                found = await self.feed.reader.read(self.feed.partition, position, self._position, READ_BYTES)
                read += [record for record in found.records if record[0] < self._position]
                position = found.position
            self._records[:0] = read
            self._position, self._fresh = start, len(read)
        return self._fresh > 0

    async def _state(self, place: int) -> Checkpoint:
        """What the checkpoints before a record add up to: tails, and the marks since the last full one."""
        state: Checkpoint | None = None
        while True:
            for _, _, value in reversed(self._records[:place]):
                point = DecisionRecord.decode(value).checkpoint
                state = point if state is None else replace(state, marks=point.marks | state.marks)
                if point.full:
                    return state
            if not await self._further():
                return state or Checkpoint()
            place = self._fresh


# ---- the rows of a trace -------------------------------------------------------------------------------------


async def _rows(config: Config, history: History, key: int, before: Checkpoint) -> list[Rows]:
    """The rows of a trace within the bounds of `history`, with their stream times, as the head met them."""
    found = window_settings(config, 0)
    topics = tuple(feed.topic for feed in history.feeds)
    limits = found.stall_limits, found.ingest_stall_limit
    index = history.feeds[0].partition.partition
    clock = RawClock(*limits, topics, partition=index) if found.direct else StreamClock(*limits, topics)
    clock.restore(before.marks, before.raw_topics)
    rows: list[Rows] = []
    async for batch in history.batches():
        for envelope, append in _envelopes(batch):
            chosen = [row for row, each in enumerate(envelope.keys) if each == key] if key in envelope.keys else []
            if chosen:
                raw = (envelope.topic, envelope.partition)
                stamps = [envelope.messages[envelope.message[row]][1] for row in chosen]
                times = array("q", [clock.row_time(raw, stamp, append) for stamp in stamps])
                part = envelope.select(chosen, [])
                rows.append(Rows(part, times, clock.now(), logs=batch.topic == found.logs_topic))
            clock.read(batch.topic, envelope, append)
        quiet = clock.quiet()
        for topic in history.silent(batch.newest):
            if found.direct or topic in quiet:
                clock.ended(topic, batch.newest)
    return rows


def _envelopes(batch: Batch) -> Iterable[tuple[Envelope, int]]:
    for _, append, value in batch.records:
        yield (value.rows if isinstance(value, RawBatch) else Envelope.decode(value)), append


def _sources(rows: Sequence[Rows]) -> list[tuple[str, int, int]]:
    """Raw records that the trace came in: topic, partition, offset."""
    places = {
        (each.envelope.topic, each.envelope.partition, offset): None
        for each in rows
        for offset, _ in each.envelope.messages
    }
    return list(places)[:SOURCES_SHOWN]


# ---- as JSON -------------------------------------------------------------------------------------------------


def document(found: Explanation) -> dict[str, Any]:
    """What `--json` prints and a worker's page answers. Times in ms since the epoch."""
    decision, trace, seen = found.decision, found.trace, found.seen
    told: dict[str, Any] = {
        "trace_id": found.trace_id,
        "state": found.state,
        "partition": found.partition,
        "policies_version": found.version,
        "agrees": found.agrees,
        "decision": None,
        "evidence": None,
        "votes": [as_plain(each) for each in found.votes],
        "sources": [{"topic": topic, "partition": part, "offset": offset} for topic, part, offset in found.sources],
    }
    if decision is not None:
        told["decision"] = {
            "policy": decision.verdict.policy,
            "threshold": f"{decision.verdict.threshold:014x}",
            "policies_version": decision.version,
            "stream_time": decision.stream_time,
            "appended": decision.appended,
            "offset": decision.offset,
        }
    if trace is not None and seen is not None:
        random = randomness_of_id(seen.trace_id) if seen.randomness is None else seen.randomness
        told["evidence"] = {
            "spans": seen.spans,
            "logs": seen.logs,
            "duration_ms": seen.duration_ns / 1e6,
            "randomness": f"{random:014x}",
            "first": trace.first,
            "deadline": trace.deadline,
            "trigger": trace.trigger,
        }
    return told
