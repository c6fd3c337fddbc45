"""Rare traces at a budget of 1 %: `make bench BENCH=rare` or `python -m bench.rare`.

The same traces, by seed, are decided by `probabilistic` at 1 %, and by `rare` with one trace of each shape beside a
`probabilistic` that is as much smaller as `rare` costs: both keep at most about 1 % of all spans. Ten minutes of stream
time, one partition: common shapes by a Zipf law, and rare ones with one to ten traces each, each made of real spans.
"""

from __future__ import annotations

import argparse
import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from bench.measure import console, keep, machine, middle, table
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.decide import decide
from processors.sampling.evidence import Evidence
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.votes import Rows, counted, evidence
from schemas.envelope import Envelope

SECONDS = 600  # of stream time: one interval of `rare`
PER_SECOND = 300  # traces
COMMON, RARE = 200, 300  # shapes
MOST_RARE = 10  # traces of a rare shape
SPANS = 4  # a trace
BUDGET = 1.0  # percent
BASELINE = 0.7  # percent: what is left beside one trace of each of 500 shapes among 180,000
COLUMNS = ("Policies", "Spans kept", f"Of {RARE} rare shapes kept", "Of all shapes kept")
SIDES: dict[str, list[dict[str, Any]]] = {
    "`probabilistic` 1 %": [
        {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": BUDGET}},
    ],
    f"`rare`, and `probabilistic` {BASELINE} %": [
        {"name": "shapes", "type": "rare", "rare": {"traces": 1, "interval": "10m"}},
        {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": BASELINE}},
    ],
}

out = console()


def shape(plan: Plan, number: int) -> Evidence:
    """What is known of a trace of this shape: a root, the way it took, and of every third one a failure."""
    envelope = Envelope(1, "raw", 0, resources=[b""], scopes=[b""], messages=[(0, 0)])
    for place in range(SPANS):
        span = Span(
            trace_id=bytes(15) + b"\x01",
            span_id=(place + 1).to_bytes(8, "big"),
            parent_span_id=place.to_bytes(8, "big") if place else b"",
            name=f"GET /{number % 20}" if place == 0 else f"call {number} {place}" if place == 1 else f"call {place}",
            start_time_unix_nano=1,
            end_time_unix_nano=2,
            status=Status(code=Status.STATUS_CODE_ERROR) if place == 2 and number % 3 == 0 else None,
        )
        envelope.body += span.SerializeToString()
        envelope.ends.append(len(envelope.body))
        envelope.keys.append(1)
        for column in (envelope.resource, envelope.scope, envelope.message, envelope.item):
            column.append(0)
    return evidence(plan, counted([Rows(envelope, array("q", [0] * SPANS), 0)], 1, None))


def traces(seed: int, seconds: int) -> list[tuple[int, int, bytes]]:
    """(ms of stream time, shape, trace id) in order. Shapes from COMMON on are the rare ones."""
    draw = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(COMMON)]
    found = [
        (number * 1000 // PER_SECOND, kind, draw.randbytes(16))
        for number, kind in enumerate(draw.choices(range(COMMON), weights, k=seconds * PER_SECOND))
    ]
    for kind in range(COMMON, COMMON + RARE):
        times = [draw.randrange(seconds * 1000) for _ in range(draw.randint(1, MOST_RARE))]
        found += [(time, kind, draw.randbytes(16)) for time in times]
    return sorted(found)


def measured(seed: int, policies: Sequence[Mapping[str, Any]], seconds: int = SECONDS) -> dict[str, float]:
    """Shares, of 1: of spans, of rare shapes and of all shapes that are kept."""
    plan = compile_policies([Policy.model_validate(policy) for policy in policies])
    limits = Limits(plan.rates, 1, plan.samplers)
    known = [shape(plan, number) for number in range(COMMON + RARE)]
    kept: Counter[int] = Counter()
    everything = traces(seed, seconds)
    for time, kind, trace_id in everything:
        if decide(plan, replace(known[kind], trace_id=trace_id), limits.at(time)).kept:
            kept[kind] += 1
    rare = sum(kind >= COMMON for kind in kept)
    return {
        "spans": kept.total() / len(everything),
        "rare": rare / RARE,
        "all": len(kept) / len({kind for _, kind, _ in everything}),
    }


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    return [
        [
            side,
            *(
                middle([run[what] for run in runs], form)
                for what, form in (("spans", ".2%"), ("rare", ".0%"), ("all", ".0%"))
            ),
        ]
        for side, runs in figures["sides"].items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m bench.rare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the traces (default: 1 2 3)")
    seeds = parser.parse_args(arguments).seeds
    sides = {side: [measured(seed, policies) for seed in seeds] for side, policies in SIDES.items()}
    figures: dict[str, Any] = {"machine": machine(), "options": {"seeds": seeds}, "sides": sides}
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "rare", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
