"""What was made and when Kafka had it, so that what came too late for its decision is known apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.end_to_end.harness import DECISION_WAIT
from tests.end_to_end.truth import Log, Span, Trace, Truth


@dataclass(slots=True)
class Ledger(Truth):
    """Facts are added once Kafka has acknowledged them.

    A trace is `late` if something of it was acknowledged more than decision_wait after its beginning, as happens
    while the broker is away: then its verdict may rest on a part of it. Everything else must hold for it too, so the
    pipeline's own verdict, in `decided`, says whether it had to be kept.
    """

    late: set[str] = field(default_factory=set)
    decided: Mapping[str, str] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)

    def add(self, *facts: Span | Log) -> None:
        """Write facts down that have been acknowledged now."""
        now = time.time()
        Truth.add(self, *facts)
        for fact in facts:
            if fact.trace_id:
                made = (fact.start_ns if isinstance(fact, Span) else fact.time_ns) / 1e9
                began = self._began[fact.trace_id] = min(made, self._began.get(fact.trace_id, made))
                if now > began + DECISION_WAIT:
                    self.late.add(fact.trace_id)

    @property
    def kept(self) -> dict[str, str]:
        """The policy of each trace that must be kept."""
        return {i: policy for i, trace in self.traces.items() if (policy := self._expected(i, trace))}

    def _expected(self, trace_id: str, trace: Trace) -> str:
        if trace_id in self.late:
            return self.decided.get(trace_id, "")
        return trace.expected(trace_id)
