"""What policies cost: ns of CPU per span from its bytes to its trace's decision, in one process.

    python -m bench.micro.policies

The shop's spans and the policies of the comparison (bench.verdicts): errors, slow ones, a share; with further ones of
six kinds that look at every span and keep nothing; and with each of those that go by keys or by what the fleet may
keep. Rounds of all of them alternate, and the best of each counts.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.load import Load, messages
from bench.measure import console, keep, machine, table
from bench.verdicts import Mix
from processors.sampling.ballot import Ballot
from processors.sampling.compile import compile_policies
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from schemas.otlp_scan import RawRows, SpanColumns, resource_attributes
from schemas.otlp_scan import __file__ as hot

FEW, MANY = 3, 30
FIELDS = ["root.service.name", "root.name", "http.route", "http.response.status_code"]
KEYED: dict[str, dict[str, Any]] = {
    "dynamic": {"field_list": FIELDS, "goal_sample_rate": 20},
    "throughput": {"field_list": FIELDS, "goal_spans_per_second": 1_000},
    "rare": {},
    "budget": {"spans_per_second": 1_000},
}
COLUMNS = ("Policies", "ns of CPU a span", "Against three")
SPANS = 20_000
ROUNDS = 7
START_MS = 1_800_000_000_000
WAIT_MS = 1_000

out = console()


def batches() -> list[tuple[bytes, RawRows]]:
    """The shop's traffic, its rows found."""
    found = []
    for message in messages(Load(SPANS, START_MS, logs_per_span=0.0)):
        rows = RawRows("traces")
        rows.scan(message.value, array("I", [len(message.value)]))
        found.append((message.value, rows))
    return found


def sets() -> dict[str, list[dict[str, Any]]]:
    """Policies by what the table calls them: the first are FEW, the second MANY."""
    few = Mix().policies()
    keyed = {f"{FEW} and `{kind}`": [*few, {"name": kind, "type": kind, kind: block}] for kind, block in KEYED.items()}
    return {str(FEW): few, str(MANY): Mix(unmet=MANY - FEW).policies()} | keyed


def decider(policies: Sequence[Mapping[str, Any]], given: list[tuple[bytes, RawRows]]) -> Callable[[], int]:
    """Decides all traces with these policies, anew at every call; returns how many it kept."""
    plan = compile_policies([Policy.model_validate(policy) for policy in policies], compat="otel")
    columns, labels = SpanColumns(plan.keys), SpanLabels([])
    resources = [[resource_attributes(header, plan.keys) for header in rows.resources] for _, rows in given]
    answers = [[plan.resource_bits(values) for values in each] for each in resources]
    parts = [[plan.features.of_resource(values) if plan.features else [] for values in each] for each in resources]

    def decide() -> int:
        traces = TraceTable(WAIT_MS, None, plan.words, plan.features is not None)
        ballot, kept = Ballot(plan.conditions, plan.drops, plan.words), 0
        limits = Limits(plan.rates, 1, plan.samplers)
        for (data, rows), bits, of_keys in zip(given, answers, parts, strict=True):
            count = len(rows.keys)
            columns.scan(data, rows.ends, rows.starts)
            labels.assign(columns, rows.resource, [("", ())] * len(rows.resources))
            plan.span_bits.assign(columns, rows.resource, bits)
            if plan.features is not None:
                plan.features.assign(columns, rows.resource, of_keys)
            times, skip = array("q", bytes(8 * count)), array("B", bytes(count))
            traces.fold_spans(columns, rows.keys, times, skip, 0, plan.span_bits, labels, plan.features)
        while due := traces.list_due(WAIT_MS):
            place = ballot.next_kept(traces, 0, due, limits)
            while place < due:
                kept += 1
                place = ballot.next_kept(traces, place + 1, due, limits)
            traces.settle(due)
        return kept

    return decide


def measure(given: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """ns of CPU per span with each set of policies."""
    load = batches()
    deciders = {name: decider(policies, load) for name, policies in given.items()}
    kept = {name: decide() for name, decide in deciders.items()}
    assert kept.get(str(MANY), kept[str(FEW)]) == kept[str(FEW)], "the further policies keep nothing"
    best = dict.fromkeys(deciders, float("inf"))
    for _ in range(ROUNDS):
        for name, decide in deciders.items():
            began = time.process_time_ns()
            decide()
            best[name] = min(best[name], (time.process_time_ns() - began) / SPANS)
    return best


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    few = figures["ns"][str(FEW)]
    return [[name, f"{ns:.0f}", f"{ns / few:.2f}×"] for name, ns in figures["ns"].items()]


def main() -> None:
    """Measure, print, save."""
    figures: dict[str, Any] = {"machine": machine(), "options": {"compiled": not hot.endswith(".py")}}
    figures["ns"] = measure(sets())
    out.print(table(COLUMNS, rows(figures)))
    if not figures["options"]["compiled"]:
        out.print("NOT COMPILED: `make bench BENCH=micro.policies` compiles the hot modules")
    keep(out, "policies", figures)


if __name__ == "__main__":
    main()
