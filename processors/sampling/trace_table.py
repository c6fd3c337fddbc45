"""The undecided traces of a partition, and when each is due.

A trace is due `decision_wait` of stream time after its first record, or earlier: `after_root` after its root span.
Raw partitions drain unevenly, so rows of a partition that ran ahead arrive before older rows of another: evidence that
may lie beyond the deadline is kept apart (`ahead`) until the deadline is certain, and then counts only if it lies
before. So a backlog is decided as live traffic would have been. In live traffic nothing is ever kept apart, as long as
the raw partitions are read within the shorter of the two waits of each other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from processors.correlation import SpanNames
from processors.sampling.evidence import Evidence


@dataclass(slots=True)
class Trace:
    """One undecided trace; times are stream time in ms, `root` is that of its earliest root span."""

    first: int
    last: int
    root: int | None
    deadline: int
    evidence: Evidence
    names: SpanNames
    ahead: dict[int, Evidence] = field(default_factory=dict)  # by stream time


@dataclass(slots=True)
class TraceTable:
    """Trace key → undecided trace, with a heap of deadlines (an entry outlived by an earlier one is skipped).

    Waits in ms; without `after_root` root spans are spans like others.
    """

    decision_wait: int
    after_root: int | None = None
    _traces: dict[int, Trace] = field(default_factory=dict)
    _deadlines: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._traces)

    def __contains__(self, key: int) -> bool:
        return key in self._traces

    def trace(self, key: int, time: int, trace_id: bytes, root: bool = False) -> Trace:
        """The trace of a row at stream time `time`, which is a `root` span or not; a new one if there is none."""
        trace = self._traces.get(key)
        if trace is None:
            deadline = time + self.decision_wait
            trace = self._traces[key] = Trace(time, time, None, deadline, Evidence(trace_id), SpanNames())
            heapq.heappush(self._deadlines, (deadline, key))
        elif time < trace.first:
            trace.first = time
            self._bring_forward(key, trace, time + self.decision_wait)
        if time > trace.last:
            trace.last = time
        if root and self.after_root is not None and (trace.root is None or time < trace.root):
            trace.root = time
            self._bring_forward(key, trace, time + self.after_root)
        return trace

    def _bring_forward(self, key: int, trace: Trace, deadline: int) -> None:
        if deadline < trace.deadline:
            trace.deadline = deadline
            heapq.heappush(self._deadlines, (deadline, key))

    def evidence(self, trace: Trace, time: int, now: int | None) -> Evidence:
        """Where a row at `time` belongs, given the clock: no later row can be older than `now`."""
        if now is not None and time <= self._earliest_deadline(trace, now):
            return trace.evidence
        evidence = trace.ahead.get(time)
        if evidence is None:
            evidence = trace.ahead[time] = Evidence(trace.evidence.trace_id)
        return evidence

    def _earliest_deadline(self, trace: Trace, now: int) -> int:
        """The deadline of the trace, should its next row be at `now` and a root."""
        if self.after_root is None:
            return min(trace.first, now) + self.decision_wait
        root = now if trace.root is None else min(trace.root, now)
        return min(min(trace.first, now) + self.decision_wait, root + self.after_root)

    def due(self, now: int) -> Iterator[tuple[int, Trace]]:
        """Take out every trace whose deadline has come, in order of deadline, its evidence complete."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            trace = self._traces.get(key)
            if trace is None or trace.deadline != deadline:
                continue
            del self._traces[key]
            for time, evidence in trace.ahead.items():
                if time <= deadline:
                    trace.evidence.merge(evidence)
            yield key, trace
