"""A window that does not fit into memory: `make bench BENCH=window` or `python -m bench.window`.

`sample` catches up with a keyed topic whose spans come over more stream time than `decision_wait` (10 min), so that the
head has read the whole window before the first trace is decided. `cache_bytes` leaves room in BOUND for everything else
that the process holds: batches wait in it compressed, and what it does not take even so is read again. The load is as
that of bench.compare, in stream time of its own: the run lasts as long as the work does. It counts only if every trace
that the policies keep came out whole and once, and no other one: nothing was evicted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contest import catch_up, run
from bench.contestants import Tailrace, Task
from bench.load import Load
from bench.measure import console, keep, machine, table
from bench.testbed import idle_cpu
from bench.verdicts import COMPAT, Mix
from tests.end_to_end.harness import Worker
from tests.services import Kafka

DECISION_WAIT = 600.0  # seconds
STREAM_SECONDS = 690.0  # of the load
PARTITIONS = 4
BOUND = 1 << 30  # bytes: of the process
MOST = 1.2  # of BOUND, in resident memory
CACHE_BYTES = 320 << 20
COLUMNS = ("Figure", "Value")

out = console()


class Watched(Tailrace):
    """It is asked how often the tail had to read again before it ends."""

    reread = 0.0

    def __init__(self, kafka: Kafka, name: str, task: Task, cache_bytes: int) -> None:
        sampling = {
            "policies": task.mix.policies(),
            "compat": COMPAT,
            "decision_wait": task.decision_wait,
            "late_horizon": 2 * task.decision_wait,
            "cache_bytes": cache_bytes,
        }
        super().__init__(kafka, name, task, direct=True, over={"sampling": sampling})

    def close(self) -> None:
        for worker in self.servers.values():
            if isinstance(worker, Worker) and worker.is_running:
                self.reread += worker.metric("tailrace_tail_reads_total")
        super().close()


def measured(spans: int) -> dict[str, Any]:
    """One run."""
    with Kafka() as kafka:
        load = Load(spans, 0, logs_per_span=0, keyed=PARTITIONS, spans_per_second=spans / STREAM_SECONDS)
        given = catch_up(kafka, "window-raw", load, Mix(), PARTITIONS)
        assert given.written is not None
        task = Task(given.topic, PARTITIONS, given.truth.traces, Mix(), DECISION_WAIT)
        idle = idle_cpu({"broker": kafka.pid})["broker"]
        side = Watched(kafka, "window", task, CACHE_BYTES)
        figures = run(kafka, side, given, task, (), idle, out.print)
    window = given.written.value_bytes * DECISION_WAIT / STREAM_SECONDS
    return figures | {
        "window_bytes": window,
        "window_traces": given.truth.traces * DECISION_WAIT / STREAM_SECONDS,
        "reread": side.reread,
        "truth_spans": given.truth.spans,
    }


def is_met(figures: Mapping[str, Any]) -> bool:
    """Whether the window was larger than the bound, memory was not, and every kept trace came out whole and once."""
    return bool(
        figures["window_bytes"] > BOUND
        and sum(figures["peak_rss_bytes"].values()) <= MOST * BOUND
        and figures["reread"] > 0
        and not (figures["missing_traces"] or figures["surplus_traces"] or figures["repeated_spans"])
    )


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    run = figures["run"]
    peak = sum(run["peak_rss_bytes"].values())
    return [
        ["`decision_wait`, stream time", f"{DECISION_WAIT:.0f} s"],
        ["Spans in the window, uncompressed", f"{run['window_bytes'] / 2**20:,.0f} MiB"],
        ["Traces undecided at once", f"{run['window_traces']:,.0f}"],
        ["The bound, and what of it `sampling.cache_bytes` may take", f"{BOUND >> 20:,} MiB, {CACHE_BYTES >> 20} MiB"],
        ["Peak RSS of `sample`", f"{peak / 2**20:,.0f} MiB, {peak / BOUND:.0%} of the bound"],
        ["Messages that the tail read again", f"{run['reread']:,.0f}"],
        ["Kept traces, of them missing or cut", f"{run['kept_traces']:,}, {run['missing_traces']:,}"],
        [
            "Spans that came twice, traces that should not have come",
            f"{run['repeated_spans']}, {run['surplus_traces']}",
        ],
        ["Seconds", f"{run['seconds']:.0f}"],
        ["CPU-s per million spans", f"{run['cpu_per_million']:.2f}"],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save; 1 if the bound did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.window", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--spans", type=int, default=4_800_000, help="of the load (default: 4,800,000)")
    spans = parser.parse_args(arguments).spans
    figures: dict[str, Any] = {"machine": machine(), "options": {"spans": spans}, "run": measured(spans)}
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "window", figures)
    return int(not is_met(figures["run"]))


if __name__ == "__main__":
    raise SystemExit(main())
