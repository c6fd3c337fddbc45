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
from typing import Any

from pipeline.config import Config
from pipeline.decision_log import Decision, Place, Restored, side_by_side
from pipeline.history import Batch, History
from pipeline.topics import places
from pipeline.window_settings import window_settings
from processors.feeds import topic_of
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.evidence import Evidence
from processors.sampling.votes import Known, PolicyVote, Rows, Trace, as_plain, counted, evidence, verdict, vote
from processors.stream_time import RawClock, StreamClock
from schemas.decision import Checkpoint
from schemas.envelope import Envelope
from schemas.ids import trace_key
from schemas.raw_batch import RawBatch
from schemas.trace_state import randomness_of_id

SOURCES_SHOWN = 5  # raw coordinates of a trace's records


@dataclass(slots=True)
class Explanation:
    """What is known of a trace. `decision` is None while it waits for its deadline.

    `version` is that of the policies whose `votes` these are; `agrees`: they come to the verdict that was recorded.
    `restored`: it was dropped then, and kept after all. `elsewhere`: what other partitions made of its other rows.
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
    sources: list[tuple[str, int, int]] = field(default_factory=list)
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
    return told[0]


def _plan(config: Config) -> Plan:
    return compile_policies(config.sampling.policies, compat=config.sampling.compat)


async def _explain(config: Config, trace_id: bytes, index: int, place: Place) -> Explanation:
    sampling, plan = config.sampling, _plan(config)
    found = Explanation(trace_id.hex(), index, plan.version, place.decision, place.restored)
    history = await History.of(config, index)
    try:
        beginnings, ends = await history.beginnings(), await history.ends()
        for feed in history.feeds:
            start = max(beginnings[feed.name], place.before.tails.get(feed.name, 0))
            feed.between(start, place.heads.get(feed.name, start if place.heads else ends[feed.name]))
        rows = await _rows(config, history, trace_key(trace_id), place.before)
    finally:
        await history.close()
    if rows:
        after_root = int(sampling.decision_wait_after_root_received * 1000) or None
        trace = counted(rows, int(sampling.decision_wait * 1000), after_root)
        found.trace, found.seen = trace, evidence(plan, trace)
        keyed = place.before.keyed if place.before.policy_version == plan.version else {}
        known = Known(config.kafka.partitions, keyed)
        found.votes = [vote(policy, sampling.compat, trace, known) for policy in sampling.policies]
        found.sources = _sources(rows)
        if found.decision is not None:
            outcome = verdict(sampling.policies, sampling.compat, trace, known)
            recorded = found.decision.verdict
            found.agrees = (outcome.kept, outcome.policy if outcome.kept else "") == (recorded.kept, recorded.policy)
    return found


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
            chosen = [row for row, each in enumerate(envelope.keys) if each == key] if key in envelope.keys else []
            if chosen:
                raw = (envelope.topic, envelope.partition)
                stamps = [envelope.messages[envelope.message[row]][1] for row in chosen]
                times = array("q", [clock.row_time(raw, stamp, append) for stamp in stamps])
                part = envelope.select(chosen, [])
                rows.append(Rows(part, times, clock.now(), logs=topic_of(batch.feed) == found.logs_topic))
            clock.read(batch.feed, envelope, append)
        quiet = clock.quiet()
        for feed in history.silent(batch.newest):
            if found.direct or feed in quiet:
                clock.ended(feed, batch.newest)
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
        "restored": None,
        "evidence": None,
        "votes": [as_plain(each) for each in found.votes],
        "sources": [{"topic": topic, "partition": part, "offset": offset} for topic, part, offset in found.sources],
        "elsewhere": [document(each) for each in found.elsewhere],
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
