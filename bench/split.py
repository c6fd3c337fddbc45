"""What the CPU of `sample` or `ingest` grows with: `make bench BENCH=split` or `python -m bench.split`.

One process of `sample` catches up with a keyed topic, or one of `ingest` with one that is not keyed (and `sample`
behind it), as in `bench.compare`, with loads of several sizes in turn: what they cost alike is the start (group,
partitions, connections, memory that is used for the first time), and what the larger ones cost more is what a span
costs. Then it waits with nothing to do, which is what a second costs. Every other run is that of a worker that adds
up the CPU of its steps (bench/timed.py).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.contest import Given, catch_up, run
from bench.contestants import Tailrace, Task
from bench.load import Load
from bench.measure import MINFLT, STIME, TICKS, UTIME, console, keep, machine, native_modules, stat, table
from bench.testbed import Starting
from bench.timed import STEPS, TimedWorker
from bench.verdicts import Mix
from tests.services import Kafka

DECISION_WAIT = 5.0
PARTITIONS = 4
IDLE_SECONDS = 5.0
WARM_UP = 50_000  # spans
COST_COLUMNS = ("Spans", "CPU-s", "In user code", "In the kernel", "Beside the main thread", "Page faults", "Seconds")
STEP_COLUMNS = ("Step", "µs of CPU a span", "Times per million spans")
RESULTS = {"sample": "split", "ingest": "split-ingest"}
REST = "the rest: event loop, client, sockets, start"

out = console()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used by now: CPU seconds, and pages that it touched for the first time."""

    user: float
    system: float
    beside: float  # of its other threads
    faults: int

    def since(self, before: Usage) -> Usage:
        """The difference."""
        mine, theirs = asdict(self), asdict(before)
        return Usage(**{name: mine[name] - theirs[name] for name in mine})


def usage(pid: int) -> Usage:
    """Of a living process."""
    process = Path(f"/proc/{pid}")
    user, system, faults = stat(process, UTIME, STIME, MINFLT)
    main = stat(process / "task" / str(pid), UTIME, STIME)
    # The two are read one by one.
    beside = sum(max(0, whole - own) for whole, own in zip((user, system), main, strict=True))
    return Usage(user / TICKS, system / TICKS, beside / TICKS, faults)


class _Timed(TimedWorker, Starting):
    """Starts as any side of a comparison does."""


class Looked(Tailrace):
    """The side; `used` is what its process used from when it had started, `idle` CPU-s a second once it was through."""

    def __init__(self, kafka: Kafka, name: str, task: Task, role: str, timed: bool) -> None:
        super().__init__(kafka, name, task, direct=role == "sample")
        self._role = role
        if timed:
            self.last = _Timed

    def start(self, cpus: Collection[int]) -> None:
        """Start it, and look."""
        super().start(cpus)
        self._before = usage(self.servers[self._role].pid)

    def close(self) -> None:
        """Look, wait and look again; then end it, and read its steps."""
        worker = self.servers[self._role]
        after = usage(worker.pid)
        self.used = after.since(self._before)
        self.native = native_modules(worker.pid)
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = usage(worker.pid).since(after)
        self.idle = (idle.user + idle.system) / (time.monotonic() - began)
        worker.stop()
        self.steps: dict[str, tuple[int, float]] = (
            json.loads(worker.steps.read_text()) if isinstance(worker, TimedWorker) else {}
        )
        super().close()


def measured(role: str, sizes: Sequence[int], runs: int) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Every run, in order, and the native modules of each."""
    found, native = [], []
    with Kafka() as kafka:
        givens = {spans: _given(kafka, role, spans) for spans in (WARM_UP, *sizes)}
        turns = [(WARM_UP, False), *[(size, timed) for _ in range(runs) for timed in (False, True) for size in sizes]]
        for number, (spans, timed) in enumerate(turns):
            given = givens[spans]
            task = Task(given.topic, PARTITIONS, given.truth.traces, Mix(), DECISION_WAIT)
            side = Looked(kafka, f"split-{number}", task, role, timed)
            seconds = run(kafka, side, given, task, (), 0.0, out.print)["seconds"]
            row = {"spans": spans, "timed": timed, "seconds": seconds, "idle": side.idle, "steps": side.steps}
            row |= asdict(side.used)
            out.print(f"{spans:,} spans{', timed' if timed else ''}: {row['user'] + row['system']:.2f} CPU-s")
            if number:
                found.append(row)
                native.append(side.native)
    return found, native


def _given(kafka: Kafka, role: str, spans: int) -> Given:
    load = Load(spans, 0, logs_per_span=0, keyed=PARTITIONS if role == "sample" else 0)
    return catch_up(kafka, f"split-raw-{spans}", load, Mix(), PARTITIONS)


def _cpu(row: Mapping[str, Any]) -> float:
    return float(row["user"] + row["system"])


def _runs(figures: Mapping[str, Any], spans: int, timed: bool) -> list[Mapping[str, Any]]:
    return [row for row in figures["runs"] if row["spans"] == spans and row["timed"] is timed]


def cost_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Medians of each size."""
    rows = []
    for spans in figures["options"]["spans"]:
        found = _runs(figures, spans, False)
        middle = {
            name: median(row[name] for row in found) for name in ("user", "system", "beside", "faults", "seconds")
        }
        shown = [f"{median(map(_cpu, found)):.2f}", *(f"{middle[name]:.2f}" for name in ("user", "system", "beside"))]
        rows.append([f"{spans:,}", *shown, f"{middle['faults']:,.0f}", f"{middle['seconds']:.1f}"])
    return rows


def grown(figures: Mapping[str, Any]) -> tuple[float, float]:
    """CPU-s of every run whatever its size, and µs a span: the line through the two largest loads.

    >>> runs = [{"spans": n, "timed": False, "user": 0.25 + n / 1e6, "system": 0.0} for n in (1_000_000, 3_000_000)]
    >>> grown({"options": {"spans": [1_000_000, 3_000_000]}, "runs": runs})
    (0.25, 1.0)
    """
    small, large = sorted(figures["options"]["spans"])[-2:]
    low, high = (median(map(_cpu, _runs(figures, spans, False))) for spans in (small, large))
    slope = (high - low) / (large - small)
    return low - slope * small, slope * 1e6


def verdict(figures: Mapping[str, Any]) -> str:
    """A sentence below the table."""
    start, span = grown(figures)
    idle = median(row["idle"] for row in figures["runs"])
    return (
        f"By the two largest loads: {start:.2f} CPU-s for a run of any size, {span:.2f} µs for each span. "
        f"With nothing to do: {idle * 1000:.0f} ms of CPU a second."
    )


def step_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Of the largest load: every step that there was, and what is left."""
    spans = max(figures["options"]["spans"])
    found = _runs(figures, spans, True)
    steps = STEPS[figures["options"]["role"]]
    spent = {step: [row["steps"].get(step, (0, 0.0)) for row in found] for step in steps}
    rows = [
        [step, f"{median(s for _, s in took) / spans * 1e6:.3f}", f"{median(n for n, _ in took) / spans * 1e6:,.0f}"]
        for step, took in spent.items()
        if any(times for times, _ in took)
    ]
    rest = [_cpu(row) - sum(seconds for _, seconds in row["steps"].values()) for row in found]
    return [*rows, [REST, f"{median(rest) / spans * 1e6:.3f}", "–"]]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.split", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    sizes = [2_000, 1_000_000, 3_000_000]
    parser.add_argument("--role", choices=STEPS, default="sample", help="(default: sample)")
    parser.add_argument("--spans", type=int, nargs="+", default=sizes, help="of the loads (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each load and kind (default: %(default)s)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, save."""
    options = vars(parsed())
    figures: dict[str, Any] = {"machine": machine(), "options": options}
    figures["runs"], native = measured(options["role"], options["spans"], options["runs"])
    out.print(table(COST_COLUMNS, cost_rows(figures)))
    out.print(verdict(figures))
    out.print(table(STEP_COLUMNS, step_rows(figures)))
    keep(out, RESULTS[options["role"]], figures, native)


if __name__ == "__main__":
    main()
