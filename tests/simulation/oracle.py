"""What must become of simulated traces, worked out from all their rows at once, in another way than the code's.

A row counts when it is no later than its trace's deadline. Traces meet the token buckets of their partition in order of
deadline; buckets are exact fractions of spans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from schemas.ids import partition_of, trace_key


class Row(NamedTuple):
    """A span or log record at raw time `at` (ms)."""

    at: int
    span: bool
    failed: bool = False
    root: bool = False


@dataclass
class Rules:
    """How traces are decided. `rates` is policy → (spans per second, burst, fewest spans that reach it), in order.

    `placed` says which partition a trace id is on, where that is not Tailrace's own choice.
    """

    wait: int
    after_root: int | None
    partitions: int
    rates: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    placed: Callable[[bytes], int] | None = None


@dataclass
class _Bucket:
    rate: Fraction  # spans per ms
    capacity: Fraction
    largest: int
    tokens: Fraction
    at: int | None = None

    def take(self, time: int, spans: int) -> bool:
        if self.at is not None:
            room = min(Fraction(5 * spans), Fraction(self.largest), 15_000 * self.rate)
            self.tokens = min(max(self.capacity, room), self.tokens + (time - self.at) * self.rate)
        self.at = time
        passes = spans <= self.largest and self.tokens >= min(Fraction(spans), self.capacity)
        self.tokens -= spans * passes
        return passes


def deadline(rows: list[Row], rules: Rules) -> int:
    """When a trace of these rows is due."""
    due = [min(row.at for row in rows) + rules.wait]
    if rules.after_root is not None:
        due += [row.at + rules.after_root for row in rows if row.span and row.root]
    return min(due)


def verdicts(traces: Mapping[bytes, list[Row]], rules: Rules) -> dict[int, str]:
    """Trace key → the policy that keeps it, "" for none."""
    found: dict[int, str] = {}
    buckets: dict[tuple[int, str], _Bucket] = {}
    due: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
    for trace_id, rows in traces.items():
        partition = rules.placed(trace_id) if rules.placed else partition_of(trace_id, rules.partitions)
        due[partition].append((deadline(rows, rules), trace_key(trace_id), trace_id))
    for partition, order in due.items():
        for time, key, trace_id in sorted(order):
            rows = [row for row in traces[trace_id] if row.at <= time]
            spans = sum(row.span for row in rows)
            keeps = []
            if any(row.span and row.failed for row in rows):
                keeps.append("errors")
            if any(not row.span and row.failed for row in rows):
                keeps.append("error-logs")
            for policy, (rate, burst, fewest) in rules.rates.items():
                share, capacity = Fraction(rate, 1000 * rules.partitions), Fraction(burst, rules.partitions)
                bucket = buckets.setdefault((partition, policy), _Bucket(share, capacity, burst, capacity))
                if spans and spans >= fewest and bucket.take(time, spans):
                    keeps.append(policy)
            found[key] = keeps[0] if keeps else ""
    return found
