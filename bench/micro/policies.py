"""What thirty policies cost beside three: ns of CPU per span from its bytes to its trace's decision, in one process.

    python -m bench.micro.policies

The shop's spans and the policies of the comparison (bench.verdicts): errors, slow ones, a share, and policies of six
kinds that look at every span and keep nothing. Rounds of both alternate, and the best of each counts.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

from bench.load import Load, messages
from bench.verdicts import Mix
from processors.sampling.ballot import Ballot
from processors.sampling.compile import compile_policies
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from schemas.otlp_scan import RawRows, SpanColumns, resource_attributes

FEW, MANY = 3, 30
SPANS = 20_000
ROUNDS = 7
START_MS = 1_800_000_000_000
WAIT_MS = 1_000


def batches() -> list[tuple[bytes, RawRows]]:
    """The shop's traffic, its rows found."""
    found = []
    for message in messages(Load(SPANS, START_MS, logs_per_span=0.0)):
        rows = RawRows("traces")
        rows.scan(message.value, array("I", [len(message.value)]))
        found.append((message.value, rows))
    return found


def decider(policies: int, given: list[tuple[bytes, RawRows]]) -> Callable[[], int]:
    """Decides all traces with this many policies, anew at every call; returns how many it kept."""
    plan = compile_policies([Policy.model_validate(p) for p in Mix(unmet=policies - FEW).policies()], compat="otel")
    columns, labels = SpanColumns(plan.keys), SpanLabels([])
    resources = [[plan.resource_bits(resource_attributes(h, plan.keys)) for h in rows.resources] for _, rows in given]
    limits = Limits(plan.rates, 1)

    def decide() -> int:
        table, ballot, kept = TraceTable(WAIT_MS, None, plan.words), Ballot(plan.conditions, plan.drops, plan.words), 0
        for (data, rows), bits in zip(given, resources, strict=True):
            count = len(rows.keys)
            columns.scan(data, rows.ends, rows.starts)
            labels.assign(columns, rows.resource, [("", ())] * len(rows.resources))
            plan.span_bits.assign(columns, rows.resource, bits)
            times, skip = array("q", bytes(8 * count)), array("B", bytes(count))
            table.fold_spans(columns, rows.keys, times, skip, 0, plan.span_bits, labels)
        while due := table.list_due(WAIT_MS):
            place = ballot.next_kept(table, 0, due, limits)
            while place < due:
                kept += 1
                place = ballot.next_kept(table, place + 1, due, limits)
            table.settle(due)
        return kept

    return decide


def measure() -> tuple[float, float]:
    """ns of CPU per span with FEW and with MANY policies."""
    given = batches()
    deciders = [decider(policies, given) for policies in (FEW, MANY)]
    assert deciders[0]() == deciders[1](), "the further policies keep nothing"
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for number, decide in enumerate(deciders):
            began = time.process_time_ns()
            decide()
            best[number] = min(best[number], (time.process_time_ns() - began) / SPANS)
    return best[0], best[1]


def main() -> None:
    """Print both, and the ratio."""
    few, many = measure()
    print(f"{FEW} policies {few:.0f} ns/span, {MANY} policies {many:.0f} ns/span: {many / few:.2f} times")


if __name__ == "__main__":
    main()
