"""What the sample role holds per trace, and what a new owner pays to load verdicts: bench/results/memory.json.

    python -m bench.micro.memory

Bytes are what Python's allocators gained (tracemalloc), without a cache of records: per undecided trace of five spans,
and per remembered verdict in a successor that loaded them, 5 % of them kept. Loading is in CPU seconds.
"""

from __future__ import annotations

import time
import tracemalloc

from bench.measure import machine, save
from bench.micro.window import MESSAGES, POLICIES, SPANS_A_MESSAGE, SPANS_A_TRACE, START, STEP, envelopes
from processors.regroup import Regroup
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Settings, Window

TRACES = MESSAGES * SPANS_A_MESSAGE // SPANS_A_TRACE
WAIT = 2 * MESSAGES * STEP  # ms: all input comes before the first deadline
SETTINGS = Settings(1, "spans", "logs", WAIT, 10 * WAIT, cache_bytes=0, stall_limits={"raw": 10 * WAIT})


def window() -> Window:
    """One that has read nothing."""
    plan = compile_policies([Policy.model_validate(p) for p in POLICIES], extra_keys=["service.name"])
    return Window(0, SETTINGS, plan, None)


def mark(at: int) -> bytes:
    """An envelope that says only that the raw partition was read up to `at` ms."""
    regroup = Regroup("raw", 0, "traces", "otlp_proto", 1, 1 << 20, 1 << 20)
    return regroup.flush(at, {"raw": 1}).envelopes[0][0]


def gained(before: int) -> int:
    """Bytes since then."""
    return tracemalloc.get_traced_memory()[0] - before


def main() -> None:
    records = envelopes()
    tracemalloc.start()
    owner, before = window(), tracemalloc.get_traced_memory()[0]
    owner.resume({}, {"spans": 0, "logs": 0})
    for offset, (at, value) in enumerate(records):
        owner.head("spans", offset, at, value)
    assert owner.undecided == TRACES
    undecided = gained(before) / TRACES

    owner.ended("logs", START + 2 * WAIT)
    owner.head("spans", len(records), START + 2 * WAIT, mark(START + 2 * WAIT))
    decisions = []
    while (burst := owner.burst()) is not None:
        decisions.append(burst.decisions)
        owner.committed(len(decisions))
        if not burst.more:
            break
    assert owner.undecided == 0

    successor, before = window(), tracemalloc.get_traced_memory()[0]
    for number, value in enumerate(decisions):
        successor.load(number, value)
    remembered = gained(before) / TRACES
    tracemalloc.stop()
    successor, began = window(), time.process_time()
    for number, value in enumerate(decisions):
        successor.load(number, value)
    figures = {
        "machine": machine(),
        "options": {"traces": TRACES, "spans_per_trace": SPANS_A_TRACE},
        "undecided_bytes_per_trace": undecided,
        "verdict_bytes_per_trace": remembered,
        "decision_bytes_per_trace": sum(map(len, decisions)) / TRACES,
        "load_seconds_per_million_verdicts": (time.process_time() - began) / TRACES * 1e6,
    }
    print(*(f"{name}: {value:.1f}" for name, value in figures.items() if isinstance(value, float)), sep="\n")
    save("memory", figures)


if __name__ == "__main__":
    main()
