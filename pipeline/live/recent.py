"""Some of the newest kept traces, with their logs: rows as they came, bounded in number and bytes.

A trace is followed from its first kept row on, be it a span or a log, if its policy has not begun another within
`EVERY` seconds; so a busy policy does not push out the rare ones, and traces with logs have a turn of their own. When
there are too many, the policy that has the most loses its oldest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pipeline.watching.seldom import Seldom
from schemas.envelope import Envelope

MOST_TRACES = 60
MOST_BYTES = 8 << 20
MOST_ROWS = 1000  # of one trace; the others are counted
EVERY = 1.0  # seconds between two traces of a policy that are followed
REMEMBERED = 1 << 16  # keys of traces that were not followed: their later rows must not pass for whole traces

Kind = Literal["spans", "logs"]


@dataclass(frozen=True, slots=True)
class Row:
    """One span or log record: its OTLP bytes and the header of its Resource. `received` is its raw record's, ms."""

    resource: bytes
    data: bytes
    received: int


@dataclass(slots=True)
class KeptTrace:
    """What is held of a trace; `more` rows came that were too many."""

    policy: str
    spans: list[Row] = field(default_factory=list)
    logs: list[Row] = field(default_factory=list)
    more: int = 0
    size: int = 0

    def add(self, kind: Kind, row: Row) -> None:
        """One row more, if there is room."""
        if len(self.spans) + len(self.logs) >= MOST_ROWS:
            self.more += 1
            return
        (self.spans if kind == "spans" else self.logs).append(row)
        self.size += len(row.data) + len(row.resource)


class Recent:
    """The traces that are followed, by trace key."""

    def __init__(self, most_traces: int = MOST_TRACES, most_bytes: int = MOST_BYTES) -> None:
        self._most_traces, self._most_bytes = most_traces, most_bytes
        self._traces: OrderedDict[int, KeptTrace] = OrderedDict()
        self._passed_over: OrderedDict[int, None] = OrderedDict()
        self._begun = Seldom(EVERY)  # by policy and kind
        self._bytes = 0

    def add(self, kind: Kind, envelope: Envelope, now: float) -> None:
        """The rows of a kept envelope at `now` (monotonic seconds). Logs of dropped traces have no place here."""
        for index, (key, verdict) in enumerate(zip(envelope.keys, envelope.verdicts, strict=False)):
            if verdict is None or not verdict.kept:
                continue
            trace = self._traces.get(key) or self._begin(key, kind, verdict.policy, now)
            if trace is None:
                continue
            before = trace.size
            received = envelope.messages[envelope.message[index]][1]
            trace.add(kind, Row(envelope.resources[envelope.resource[index]], envelope.row(index), received))
            self._bytes += trace.size - before
        self._shrink()

    def get(self, key: int) -> KeptTrace | None:
        """A trace by its key."""
        return self._traces.get(key)

    def items(self) -> Iterator[tuple[int, KeptTrace]]:
        """All, the newest first."""
        return iter(list(reversed(self._traces.items())))

    def _begin(self, key: int, kind: Kind, policy: str, now: float) -> KeptTrace | None:
        if key in self._passed_over:
            return None
        if not self._begun.due(now, (policy, kind)):
            self._pass_over(key)
            return None
        self._traces[key] = trace = KeptTrace(policy)
        return trace

    def _shrink(self) -> None:
        while len(self._traces) > self._most_traces or self._bytes > self._most_bytes:
            held = Counter(trace.policy for trace in self._traces.values())
            crowded = max(held, key=lambda policy: held[policy])
            oldest = next(key for key, trace in self._traces.items() if trace.policy == crowded)
            self._bytes -= self._traces.pop(oldest).size
            self._pass_over(oldest)

    def _pass_over(self, key: int) -> None:
        self._passed_over[key] = None
        if len(self._passed_over) > REMEMBERED:
            self._passed_over.popitem(last=False)
