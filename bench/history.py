"""How fast history is decided again, and how long `tailrace explain` takes: `make bench BENCH=history`.

A seeded load goes through `ingest` and `sample` until every trace is decided. Then one process on one core replays all
of it (`tailrace simulate`, the old policies and the new ones side by side), and some traces are explained from Kafka
alone, one after the other, kept and dropped ones. The yardstick of the replay is 16,700 spans/s of real time, of the
explanations a horizon of a million decisions (`--spans 2000000 --spans-per-trace 2`). Results of loads with other
`--spans-per-trace` stand side by side in bench/results/history.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from bench.load import Load
from bench.measure import console, load_results, machine, save
from bench.testbed import POLICIES, Testbed
from bench.write import write
from pipeline.operating.explain import explain
from schemas.decision import DecisionRecord
from tests.services import Kafka

REAL_TIME = 16_700  # spans/s
POLL_SECONDS = 0.5
NEW = [POLICIES[0], {"name": "slower", "type": "latency", "latency": {"threshold_ms": 1000}}]
P95 = 0.95
REPLAYS = {"same_policies": "those that ran", "two_policies": "old and new side by side"}
COLUMNS = (
    "Spans, a trace",
    "Policies",
    "Spans/s of the clock, one core",
    f"Times {REAL_TIME:,} spans/s",
    "Spans per CPU second",
    "Verdicts as the workers'",
)
EXPLAIN_COLUMNS = ("Decisions", "Traces explained", "Of them kept", "Median, s", "p95, s", "Longest, s")

out = console()


def settle(bed: Testbed, spans: int, limit: float) -> None:
    """Run ingest and sample until every span was forwarded or dropped."""
    roles = [bed.start(role) for role in ("sample", "ingest")]
    sample = roles[0]
    began = time.monotonic()
    while True:
        done = sample.metric("tailrace_spans_kept_total") + sample.metric("tailrace_dropped_total", signal="spans")
        if done >= spans:
            return
        if time.monotonic() - began > limit:
            raise RuntimeError(f"sample settled {done:,.0f} of {spans:,} spans in {limit:.0f} s")
        time.sleep(POLL_SECONDS)


def replay(file: Path, policies: list[dict[str, Any]]) -> dict[str, Any]:
    """`tailrace simulate` on one core: its report, its wall clock and its CPU seconds, start-up included."""
    new = file.with_name("new.yaml")
    new.write_text(yaml.safe_dump({"policies": policies}), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.cli", "simulate", "--config", str(file), "--policies", str(new)]
    core = min(os.sched_getaffinity(0))
    before, began = os.times(), time.monotonic()
    done = subprocess.run(
        [*command, "--since", "earliest", "--json"],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    wall, after = time.monotonic() - began, os.times()
    report: dict[str, Any] = json.loads(done.stdout)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    rate = report["spans_read"] / report["seconds"]
    return {
        "spans": report["spans_read"],
        "seconds": report["seconds"],
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "spans_per_second": rate,
        "times_real_time": rate / REAL_TIME,
        "spans_per_cpu_second": report["spans_read"] / cpu,
        "live": report["live"],
    }


def explanations(bed: Testbed, count: int, seed: int) -> dict[str, Any]:
    """Seconds of single explanations, of traces drawn from all decisions."""
    keys: list[int] = []
    ends = bed.ends([bed.topics.decisions])
    for message in bed.visible({}, ends):
        keys += DecisionRecord.decode(message.value()).keys
    chosen = random.Random(seed).sample(keys, min(count, len(keys)))
    seconds, states = [], []
    for key in chosen:
        began = time.monotonic()
        found = asyncio.run(explain(bed.config, bytes(8) + key.to_bytes(8, "big")))
        seconds.append(time.monotonic() - began)
        assert found.agrees, f"trace {key:016x}: its policies vote otherwise"
        states.append(found.state)
    seconds.sort()
    return {
        "decisions": len(keys),
        "explained": len(chosen),
        "kept": states.count("kept"),
        "median_seconds": seconds[len(seconds) // 2],
        "p95_seconds": seconds[min(len(seconds) - 1, int(P95 * len(seconds)))],
        "longest_seconds": seconds[-1],
    }


def _loads(figures: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was found of each load, the one with the largest traces first."""
    yield from sorted(figures["loads"].items(), key=lambda item: -int(item[0]))


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    shown = []
    for size, found in _loads(figures):
        for name, policies in REPLAYS.items():
            told, load = found[name], found["load"]
            shown.append(
                [
                    f"{load['spans']:,}, {size}",
                    policies,
                    f"{told['spans_per_second']:,.0f}",
                    f"{told['times_real_time']:.1f}",
                    f"{told['spans_per_cpu_second']:,.0f}",
                    f"{told['live']['same']:,} of {load['traces']:,}",
                ]
            )
    return shown


def explain_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `EXPLAIN_COLUMNS`."""
    shown = []
    for _, found in _loads(figures):
        told = found["explain"]
        seconds = (f"{told[name]:.2f}" for name in ("median_seconds", "p95_seconds", "longest_seconds"))
        shown.append([f"{told['decisions']:,}", f"{told['explained']}", f"{told['kept']}", *seconds])
    return shown


def runs(figures: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each load's figures, and the command that has them again."""
    for size, found in _loads(figures):
        yield found, f'make bench BENCH=history ARGS="--spans {found["load"]["spans"]} --spans-per-trace {size}"'


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--spans-per-trace", type=int, default=12)
    parser.add_argument("--explain", type=int, default=100, metavar="TRACES", help="to explain (default: 100)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for ingest and sample")
    given = parser.parse_args()
    with Kafka() as kafka:
        bed = Testbed(kafka, "history", 4, {"sampling": {"decision_wait": 5.0}})
        with closing(bed):
            begins = int((time.time() - given.spans / REAL_TIME - 600) * 1000)
            load = Load(given.spans, begins, spans_per_trace=given.spans_per_trace)
            made = write(kafka.bootstrap, bed.load_topics, load)
            out.print(f"{made.spans:,} spans of {made.traces:,} traces are in Kafka")
            settle(bed, made.spans, given.limit)
        out.print("every trace is decided, the workers are gone")
        figures: dict[str, Any] = {"machine": machine(), "load": {"spans": made.spans, "traces": made.traces}}
        figures["same_policies"] = replay(bed.file, POLICIES)
        figures["two_policies"] = replay(bed.file, NEW)
        figures["explain"] = explanations(bed, given.explain, seed=1)
    for name in ("same_policies", "two_policies"):
        told = figures[name]
        out.print(
            f"simulate, {name.replace('_', ' ')}: {told['spans_per_second']:,.0f} spans/s on one core, "
            f"{told['times_real_time']:.1f} times {REAL_TIME:,} spans/s; "
            f"{told['spans_per_cpu_second']:,.0f} spans per CPU second; live: {told['live']}"
        )
    told = figures["explain"]
    out.print(
        f"explain, {told['decisions']:,} decisions: median {told['median_seconds']:.3f} s, "
        f"p95 {told['p95_seconds']:.3f} s, longest {told['longest_seconds']:.3f} s"
    )
    loads = (load_results("history") or {"loads": {}})["loads"]
    file = save("history", {"loads": {**loads, str(given.spans_per_trace): figures}})
    out.print(f"saved as bench/results/{file.name}")


if __name__ == "__main__":
    main()
