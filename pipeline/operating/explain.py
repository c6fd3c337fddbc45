"""Why a trace was kept or dropped: its verdict in the log of decisions, and every policy's vote on its own rows.

Kafka has all of it. The record of the decision says when and by which version; the checkpoint before it says from where
on the trace's records are (the tail has passed no undecided trace: I2), its own says where the head stood. What lies
between is read in the order in which it was appended, so the rows that count are those that counted. Works for dropped
traces as for kept ones, and whether or not a worker runs.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.configuration.window_settings import window_settings
from pipeline.kafka.admin import connected, counts
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics, places
from pipeline.operating.decision_log import Decision, Place, Restored, side_by_side
from pipeline.operating.history import Batch, History
from processors.feeds import topic_of
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.evidence import Evidence
from processors.sampling.votes import (
    Known,
    PolicyVote,
    Rows,
    Steps,
    Trace,
    as_plain,
    counting,
    failed,
    gathering,
    verdict,
    voting,
)
from processors.stream_time import RawClock, StreamClock
from schemas.columns import gathered
from schemas.decision import Checkpoint
from schemas.envelope import Envelope
from schemas.errors import TailraceError
from schemas.ids import trace_key
from schemas.raw_batch import RawBatch
from schemas.trace_state import randomness_of_id

SOURCES_SHOWN = 5  # raw coordinates of a trace's records
T = TypeVar("T")
Source = tuple[str, int, int]  # of a raw record: topic, partition, offset
LATER_BYTES = 32 << 20  # of what was written after the verdict that are looked through: a part of a second


@dataclass(frozen=True, slots=True)
class Later:
    """Rows of a trace that came too late to count: how many, when the first was appended (ms), raw records.

    `until`: they were looked for up to that append time (ms) only; None: in all that there is.
    """

    spans: int = 0
    errors: int = 0
    logs: int = 0
    first: int = 0
    sources: tuple[Source, ...] = ()
    until: int | None = None


@dataclass(slots=True)
class Explanation:
    """What is known of a trace. `decision` is None while it waits for its deadline.

    `version` is that of the policies whose `votes` these are; `agrees`: they come to the verdict that was recorded.
    `restored`: it was dropped then, and kept after all. `elsewhere`: what other partitions made of its other rows.
    `unread`: of a trace that is unknown, the records that a group of ingest has yet to read, by group.
    """

    trace_id: str
    partition: int
    version: str
    decision: Decision | None = None
    restored: Restored | None = None
    trace: Trace | None = None
    seen: Evidence | None = None
    votes: list[PolicyVote] = field(default_factory=list)
    agrees: bool | None = None
    sources: list[Source] = field(default_factory=list)
    later: Later = field(default_factory=Later)
    unread: dict[str, int] = field(default_factory=dict)
    elsewhere: list[Explanation] = field(default_factory=list)

    @property
    def state(self) -> str:
        """kept, dropped, undecided, or unknown: neither in the log nor waiting."""
        if self.decision is not None:
            return "kept" if self.restored or self.decision.verdict.kept else "dropped"
        return "unknown" if self.trace is None else "undecided"


async def explain(config: Config, trace_id: bytes) -> Explanation:
    """Everything about one trace.

    With `regroup: never` it may be in any partition. Their logs of decisions are read side by side, from the newest
    back, until one has it and the others have been read for `late_horizon` further; all of them if none has it. Then
    it is looked for among what waits for a verdict, partition by partition. If several have decided it, because
    their producers placed it differently, each is told: one that kept it first, the others in `elsewhere`. Raises
    KafkaError and TailraceError where Kafka does not answer.
    """
    key, candidates = trace_key(trace_id), places(config, trace_id)
    async with side_by_side(config, candidates, key) as logs:
        told = []
        for log in [each for each in logs if each.found is not None] or logs:
            found = await _explain(config, trace_id, log.index, await log.place(key))
            if found.state == "undecided":
                return found
            told.append(found)
    told.sort(key=lambda each: each.state != "kept")
    if told[0].state != "unknown":
        told[0].elsewhere = told[1:]
    else:
        told[0].unread = await _unread(config)
    return told[0]


def _plan(config: Config) -> Plan:
    return compile_policies(config.sampling.policies, compat=config.sampling.compat)


async def _explain(config: Config, trace_id: bytes, index: int, place: Place) -> Explanation:
    plan = _plan(config)
    found = Explanation(trace_id.hex(), index, plan.version, place.decision, place.restored)
    history = await History.of(config, index)
    try:
        beginnings, ends = await history.beginnings(), await history.ends()
        for feed in history.feeds:
            start = max(beginnings[feed.name], place.before.tails.get(feed.name, 0))
            feed.between(start, place.heads.get(feed.name, start if place.heads else ends[feed.name]))
        rows = await _rows(config, history, trace_key(trace_id), place.before)
        for feed in history.feeds:
            feed.between(feed.end, ends[feed.name])
        after, until = await _after(history, trace_key(trace_id))
    finally:
        await history.close()
    if rows:
        await vote_again(config, plan, found, rows, place.before)
    later = [*(found.trace.later if found.trace else ()), *after]
    found.later = await _later(later, until)
    return found


async def vote_again(config: Config, plan: Plan, found: Explanation, rows: Sequence[Rows], before: Checkpoint) -> None:
    """Let every policy vote on the rows that counted: by the waits of its decision, if that says which."""
    sampling = config.sampling
    waits = found.decision.waits if found.decision is not None else None
    wait, after_root = waits or (
        int(seconds * 1000) for seconds in (sampling.decision_wait, sampling.decision_wait_after_root_received)
    )
    trace = await _in_turns(counting(rows, wait, after_root or None))
    found.trace, found.seen = trace, await _in_turns(gathering(plan, trace))
    known = Known(config.kafka.partitions, before.keyed if before.policy_version == plan.version else {})
    for policy in sampling.policies:
        found.votes.append(await _in_turns(voting(policy, sampling.compat, trace, known)))
    found.sources = _sources(trace.rows)
    if found.decision is not None:
        outcome = verdict(plan, found.seen, trace, known)
        recorded = found.decision.verdict
        found.agrees = (outcome.kept, outcome.policy if outcome.kept else "") == (recorded.kept, recorded.policy)


async def _in_turns(steps: Steps[T]) -> T:
    """Their answer. A worker's roles have their turn after each, and a limit of time ends it there."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
        await asyncio.sleep(0)


# ---- the rows of a trace -------------------------------------------------------------------------------------


async def _rows(config: Config, history: History, key: int, before: Checkpoint) -> list[Rows]:
    """The rows of a trace within the bounds of `history`, with their stream times, as the head met them."""
    found = window_settings(config, 0, history.raw_partitions)
    limits = found.stall_limits, found.ingest_stall_limit
    index = history.feeds[0].partition.partition
    clock = RawClock(*limits, found.feeds, partition=index) if found.direct else StreamClock(*limits, found.feeds)
    clock.restore(before.marks, before.raw_topics)
    rows: list[Rows] = []
    async for batch in history.batches():
        await asyncio.sleep(0)  # a worker answers as well, and what is in memory is read without a pause
        for envelope, append in _envelopes(batch):
            if (part := _of_trace(envelope, key)) is not None:
                raw = (part.topic, part.partition)
                stamps = gathered(part.timestamps(), part.message)
                times = clock.row_times(raw, stamps, append)
                logs = topic_of(batch.feed) == found.logs_topic
                rows.append(Rows(part, times, clock.now(), logs, _came(history, part, append)))
            clock.read(batch.feed, envelope, append)
        quiet = clock.quiet()
        for feed in history.silent(batch.newest):
            if found.direct or feed in quiet:
                clock.ended(feed, batch.newest)
    return rows


async def _after(history: History, key: int) -> tuple[list[Rows], int | None]:
    """The rows of a trace within the bounds of `history`, and how far they were looked for, None: to the end."""
    rows: list[Rows] = []
    read, spans_topic = 0, history.topics[0]
    async for batch in history.batches():
        await asyncio.sleep(0)
        for envelope, append in _envelopes(batch):
            if (part := _of_trace(envelope, key)) is not None:
                logs = topic_of(batch.feed) != spans_topic
                rows.append(Rows(part, array("q"), None, logs, _came(history, part, append)))
        read += sum(value.size if isinstance(value, RawBatch) else len(value) for _, _, value in batch.records)
        if read >= LATER_BYTES:
            return rows, batch.newest
    return rows, None


def _of_trace(envelope: Envelope, key: int) -> Envelope | None:
    if key not in envelope.keys:
        return None
    return envelope.select([row for row, each in enumerate(envelope.keys) if each == key], [])


def _came(history: History, envelope: Envelope, append: int) -> int:
    """When it was appended (ms); a batch of raw records has the times of its records."""
    return min(stamp for _, stamp in envelope.messages) if history.direct else append


def _envelopes(batch: Batch) -> Iterable[tuple[Envelope, int]]:
    for _, append, value in batch.records:
        yield (value.rows if isinstance(value, RawBatch) else Envelope.decode(value)), append


async def _later(rows: Sequence[Rows], until: int | None) -> Later:
    if not rows:
        return Later(until=until)
    spans = [each for each in rows if not each.logs]
    errors = 0
    for each in spans:
        errors += failed(each)
        await asyncio.sleep(0)
    return Later(
        sum(len(each.envelope) for each in spans),
        errors,
        sum(len(each.envelope) for each in rows if each.logs),
        min(each.came for each in rows),
        tuple(_sources(rows)),
        until,
    )


def _sources(rows: Sequence[Rows]) -> list[Source]:
    """Raw records that the trace came in: topic, partition, offset."""
    places = {
        (each.envelope.topic, each.envelope.partition, offset): None
        for each in rows
        for offset, _ in each.envelope.messages
    }
    return list(places)[:SOURCES_SHOWN]


# ---- what nobody has read ------------------------------------------------------------------------------------


async def _unread(config: Config) -> dict[str, int]:
    """Raw records of spans and logs that ingest has yet to read, by group, where there are any; {} if nobody may ask.

    Without it, `sample` reads the raw topics itself and its history ends where they do. A partition without an offset
    counts only where no group has any.
    """
    if config.regroup == "never" or not config.kafka.transactions:
        return {}
    names = Topics(config.kafka.prefix).ingest_groups
    reader = Reader(config.kafka, config.limits)
    try:
        async with connected(config) as admin:
            listed = await counts(admin)
            raw = [TopicPartition(topic, n) for topic in config.traced for n in range(listed.get(topic, 0))]
            groups = await _offsets(admin, names, raw)
        found: dict[str, int] = {}
        for group, offsets in (groups or {names[0]: dict.fromkeys(raw, 0)}).items():
            for partition, offset in offsets.items():
                first, end = await reader.end(partition)
                found[group] = found.get(group, 0) + max(0, end - max(first, offset))
        return {group: count for group, count in found.items() if count}
    except (KafkaError, TailraceError):
        return {}  # the rights of `sample`, which are enough for the rest, need not be enough for this
    finally:
        await reader.close()


async def _offsets(
    admin: AIOKafkaAdminClient, groups: Sequence[str], partitions: Sequence[TopicPartition]
) -> dict[str, dict[TopicPartition, int]]:
    """What these groups have committed of these partitions."""
    found = {}
    for group in groups:
        committed = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
        if offsets := {partition: each.offset for partition, each in committed.items() if each.offset >= 0}:
            found[group] = offsets
    return found


# ---- as JSON -------------------------------------------------------------------------------------------------


def document(found: Explanation, values: bool = True) -> dict[str, Any]:
    """What `--json` prints and a worker's page answers. Times in ms since the epoch. `values` as in `as_plain`."""
    decision, trace, seen = found.decision, found.trace, found.seen
    told: dict[str, Any] = {
        "trace_id": found.trace_id,
        "state": found.state,
        "partition": found.partition,
        "policies_version": found.version,
        "agrees": found.agrees,
        "decision": None,
        "restored": None,
        "evidence": None,
        "votes": [as_plain(each, values) for each in found.votes],
        "sources": _plain(found.sources),
        "later": None,
        "later_until": found.later.until,
        "unread": found.unread,
        "elsewhere": [document(each, values) for each in found.elsewhere],
    }
    if decision is not None:
        told["decision"] = {
            "policy": decision.verdict.policy,
            "threshold": f"{decision.verdict.threshold:014x}",
            "policies_version": decision.version,
            "stream_time": decision.stream_time,
            "waits": decision.waits,
            "appended": decision.appended,
            "offset": decision.offset,
        }
    if (later := found.later).first:
        told["later"] = {
            "spans": later.spans,
            "errors": later.errors,
            "logs": later.logs,
            "first": later.first,
            "sources": _plain(later.sources),
        }
    if (after := found.restored) is not None:
        told["restored"] = {"why": after.why, "offset": after.offset, "appended": after.appended}
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


def _plain(sources: Iterable[Source]) -> list[dict[str, Any]]:
    return [{"topic": topic, "partition": part, "offset": offset} for topic, part, offset in sources]
