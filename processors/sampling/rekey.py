"""Another N: what the `sample` partitions of one N leave in the log, as those of another N would have left it.

A partition leaves the rows from its tail on (their traces are undecided, or decided and not forwarded yet), the
verdicts it remembers, and a checkpoint. Nothing is decided here, and nothing early: rows and verdicts change their
partition, and who takes over the new ones goes on as after any takeover (docs/adr/0004).

- Rows keep the order that they had in their partition, and their stream time, which depends on the marks around them:
  where it is not the raw timestamp of their message, it takes its place. A raw partition's mark holds once every row
  before it is there, in whichever partition it was: no clock is ahead of a row.
- Rows that are counted in the span metrics come first: `counted` is one position per partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from processors.sampling.decision_log import DECISION_BYTES, decision_bytes
from processors.stream_time import LEFT_OUT, RawPartition
from schemas.decision import Checkpoint, DecisionRecord
from schemas.envelope import Envelope


def follow(before: Checkpoint | None, point: Checkpoint) -> Checkpoint:
    """The state after a record, whose marks may be only those that changed."""
    if before is None or point.full:
        return point
    return replace(point, marks=before.marks | point.marks)


def join(points: Sequence[Checkpoint]) -> Checkpoint:
    """The checkpoint from which every new partition goes on, but for its positions.

    A raw partition is where the slowest reader has it, and left out only if all leave it out. A bucket of a rate limit
    holds a share of 1/N of it, so each new one gets the average.
    """
    raws = {raw for point in points for raw in point.marks}
    raw_topics: dict[str, int] = {}
    for point in points:
        for topic, count in point.raw_topics.items():
            raw_topics[topic] = max(count, raw_topics.get(topic, 0))
    marks = {raw: mark for raw in raws if (mark := _slowest(points, raw)) is not None}
    policy = points[0].policy_version if points else ""
    meant = {name: meaning for point in points for name, meaning in point.meant.items()}
    for point in points:
        point.forget(meant)
    limiters = _shared(points)
    meant = {name: meaning for name, meaning in meant.items() if name in limiters}
    return Checkpoint(
        marks=marks, raw_topics=raw_topics, policy_version=policy, full=True, limiters=limiters, meant=meant
    )


def _slowest(points: Sequence[Checkpoint], raw: RawPartition) -> tuple[int, int] | None:
    known = [point.marks[raw] for point in points if raw in point.marks]
    mark = min((mark for mark, _ in known), default=-1)
    if len(known) == len(points) and all(append == LEFT_OUT for _, append in known):
        return mark, LEFT_OUT
    return None if len(known) < len(points) or mark < 0 else (mark, max(append for _, append in known))


def _shared(points: Sequence[Checkpoint]) -> dict[str, list[tuple[int, int]]]:
    shared = {}
    for policy in {policy for point in points for policy in point.limiters}:
        states = [point.limiters[policy] for point in points if policy in point.limiters]
        shared[policy] = [
            (sum(tokens for tokens, _ in bucket) // len(bucket), max(filled for _, filled in bucket))
            for bucket in zip(*states, strict=False)
        ]
    return shared


class Rows:
    """The rows of one internal topic, from old partitions to `partitions` new ones.

    `points` are the checkpoints of the old partitions, in order.
    """

    def __init__(self, points: Sequence[Checkpoint], partitions: int) -> None:
        self._partitions = partitions
        self._marks = [{raw: mark for raw, (mark, _) in point.marks.items()} for point in points]
        self._told = {raw: mark for raw, (mark, _) in join(points).marks.items()}

    def place(self, partition: int, append: int, envelope: Envelope) -> Iterator[tuple[int, Envelope]]:
        """The next record of an old partition, appended at `append`, as records of new ones."""
        raw, marks = (envelope.topic, envelope.partition), self._marks
        own = marks[partition]
        known = own.get(raw, -1)
        envelope.messages = [(offset, max(known, min(time, append))) for offset, time in envelope.messages]
        rows: dict[int, list[int]] = {}
        for row, key in enumerate(envelope.keys):
            rows.setdefault(key % self._partitions, []).append(row)
        for target, chosen in rows.items():
            placed = envelope.select(chosen, [])
            placed.partitions, placed.raw_topics = self._partitions, envelope.raw_topics
            yield target, placed
        if envelope.mark < 0:
            return
        own[raw] = max(envelope.mark, known)
        slowest = min(mark.get(raw, -1) for mark in marks)
        if slowest > self._told.get(raw, -1):
            self._told[raw] = slowest
            for target in range(self._partitions):
                yield target, Envelope(self._partitions, *raw, slowest, envelope.raw_topics)


class Decisions:
    """The verdicts of old records, in order, as records of `partitions` new ones; checkpoints are the caller's."""

    def __init__(self, partitions: int) -> None:
        self._pending = [DecisionRecord(partitions) for _ in range(partitions)]
        self._bytes = [0] * partitions

    def add(self, record: DecisionRecord) -> Iterator[tuple[int, DecisionRecord]]:
        """The verdicts of an old record; yields new records that are full, each with its partition."""
        partitions, repeated = len(self._pending), Counter(record.repeated)
        first = Counter(record.keys) - repeated  # what is not a repetition comes first
        for key, time, verdict in zip(record.keys, record.times, record.verdicts, strict=True):
            target = key % partitions
            self._pending[target].append(key, time, verdict)
            if key in record.restored:
                self._pending[target].restored[key] = record.restored[key]
            if first[key]:
                first[key] -= 1
            elif repeated[key]:
                self._pending[target].repeated.append(key)
            self._bytes[target] += decision_bytes(verdict)
            if self._bytes[target] >= DECISION_BYTES:
                yield target, self._pending[target]
                self._pending[target], self._bytes[target] = DecisionRecord(partitions), 0

    def rest(self) -> Iterator[tuple[int, DecisionRecord]]:
        """One more record for every partition: it may be empty, but for its checkpoint."""
        yield from enumerate(self._pending)
