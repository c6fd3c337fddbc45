"""Tailrace against itself, in pairs: `make bench BENCH=pairs` or `python -m bench.pairs`.

- telemetry: self-telemetry on (the usual) against off (`telemetry.metrics_level: none`), keyed topic, one process;
- workers: three processes of each role against one, un-keyed topic;
- paced-workers: the same, 40,000 spans/s.

Of the first two both catch up with the same topic: of the first at the same time, so that whatever slows the machine
slows both, of the others in turn. Several processes do not start at one moment: the brokers wait for
GATHER_MS before they give out the partitions, and until then the last is up. Of the last each gets a topic of its own;
the load begins when all of them hold their partitions, and what they use until then with nothing to do is told as well.
The ratio of a pair is of CPU-seconds, start-up left out; beside the mean there is the interval that holds the true one
with 95 % (Student's t of the logarithms).
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean, median, stdev
from typing import Any

from bench.compare_tables import is_whole
from bench.contest import Given, catch_up, run
from bench.contestants import Tailrace, Task
from bench.load import Load
from bench.measure import Meter, console, keep, load_results, machine, table
from bench.testbed import create_topics, idle_cpu
from bench.verdicts import Mix, judged
from tests.end_to_end.harness import Worker
from tests.services import Kafka

DECISION_WAIT = 5.0
PACE = 40_000.0  # spans/s
TELEMETRY_BAR, WORKERS_BAR = 1.02, 1.15
GATHER_MS = 12_000  # that brokers wait for more members of a new group: longer than six processes take to start
CALM_SECONDS, IDLE_SECONDS = 2.0, 5.0  # after the last process is ready: until it is idle, and while it is
# Student's t for 95 % and so many degrees of freedom, from 1 on.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T95_MANY = 2.0
COLUMNS = ("Pair", "Pairs", "CPU-s per million spans", "against", "Ratio", "95 % interval", "Bar", "Idle, CPU-s/s")

out = console()


@dataclass(frozen=True, slots=True)
class Case:
    """Two ways to run Tailrace; `bar` is for the first one's CPU over the second one's.

    `paced`: the spans come while they run; else all are there before. `keyed`: by trace, and nothing regroups them.
    `at_once`: both at the same time.
    """

    title: str
    bar: str
    first: tuple[int, Mapping[str, Any]]
    second: tuple[int, Mapping[str, Any]]
    paced: bool = False
    keyed: bool = False
    at_once: bool = False


OFF: Mapping[str, Any] = {"telemetry": {"port": "${TELEMETRY_PORT:-0}", "metrics_level": "none"}}
CASES = {
    "telemetry": Case(
        "self-telemetry on against off", f"upper bound < {TELEMETRY_BAR}", (1, {}), (1, OFF), keyed=True, at_once=True
    ),
    "workers": Case("three workers against one", f"≤ {WORKERS_BAR}", (3, {}), (1, {})),
    "paced-workers": Case("three workers against one", f"≤ {WORKERS_BAR}", (3, {}), (1, {}), paced=True),
}


class Paced(Tailrace):
    """It has started when every process holds its partitions, of which nothing is to be read yet.

    `idle` is what all of them together use then, CPU seconds per second.
    """

    last = Worker
    idle = 0.0

    def start(self, cpus: Collection[int]) -> None:
        """Start every process, and look at them with nothing to do."""
        super().start(cpus)
        time.sleep(CALM_SECONDS)
        meter = Meter({name: server.pid for name, server in self.servers.items()})
        time.sleep(IDLE_SECONDS)
        self.idle = sum(meter.rates()[1].values())


def why_not_whole(run: Mapping[str, Any]) -> str:
    """What to do about a run that did not keep what the policies keep."""
    missing, late = f"{run['missing_traces']:,} traces are missing or cut", run["late_seconds"] or 0.0
    if late < DECISION_WAIT:
        return missing
    return (
        f"{missing}: the load was up to {late:.1f} s late, decision_wait is {DECISION_WAIT:g} s, so spans came after "
        "the verdict on their trace; this machine needs a lower --pace"
    )


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of at least two ratios, and the interval of 95 % around it."""
    logs = [math.log(ratio) for ratio in ratios]
    freedom = len(logs) - 1
    t = T95[freedom - 1] if freedom <= len(T95) else T95_MANY
    half = t * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean(logs)), math.exp(mean(logs) - half), math.exp(mean(logs) + half)


def measured(case: Case, name: str, pairs: int, spans: int, partitions: int, pace: float) -> dict[str, Any]:
    """The pairs of a case, the first member first in every other one."""
    numbers = itertools.count()
    found: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}
    gathers = not case.paced and case.first[0] > 1
    with Kafka({"group.initial.rebalance.delay.ms": str(GATHER_MS)} if gathers else {}) as kafka:
        if case.paced:
            load = Load(spans, 0, logs_per_span=0, spans_per_second=pace)
            made = Given("", load, None, judged(load, Mix()))
        else:
            load = Load(spans, 0, logs_per_span=0, keyed=partitions if case.keyed else 0)
            made = catch_up(kafka, f"{name}-raw", load, Mix(), partitions)
        for pair in range(-1, pairs):  # the first is a warm-up
            idle = idle_cpu({"broker": kafka.pid})["broker"]
            members = ("first", "second") if pair % 2 else ("second", "first")
            tried = {}
            for member in members:
                (workers, over), number = getattr(case, member), next(numbers)
                given = replace(made, topic=f"{name}-raw-{number}") if case.paced else made
                if case.paced:
                    create_topics(kafka, [given.topic], partitions)
                task = Task(given.topic, partitions, given.truth.traces, Mix(), DECISION_WAIT)
                kind = Paced if case.paced else Tailrace
                side = kind(kafka, f"{name}-{number}", task, case.keyed, workers, over)
                tried[member] = side, partial(run, kafka, side, given, task, (), idle, lambda text: None)
            with ThreadPoolExecutor(max_workers=len(members) if case.at_once else 1) as turns:
                ran = [turns.submit(attempt) for _, attempt in tried.values()]
            for (member, (side, _)), ended in zip(tried.items(), ran, strict=True):
                figures = ended.result()
                if not is_whole(figures):
                    raise RuntimeError(f"{name}: {why_not_whole(figures)}")
                out.print(
                    f"  pair {pair + 1}/{pairs} {member}: {figures['cpu_per_million']:.2f} CPU-s per million spans"
                )
                if isinstance(side, Paced):
                    figures["idle_cpu"] = side.idle
                if pair >= 0:
                    found[member].append(figures)
    title = f"{case.title}, {f'{pace:,.0f} spans/s' if case.paced else 'catch-up'}"
    options = {"pairs": pairs, "spans": spans, "partitions": partitions, "pace": pace}
    return {"title": title, "bar": case.bar, "machine": machine(), "options": options, **found}


def _costs(case: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    first, second = ([run["cpu_per_million"] for run in case[member]] for member in ("first", "second"))
    return first, second


def ratio(case: Mapping[str, Any]) -> tuple[float, float, float]:
    """Of the first one's cost to the second one's, and the interval around it."""
    return interval([a / b for a, b in zip(*_costs(case), strict=True)])


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    shown = []
    for case in figures["cases"].values():
        first, second = _costs(case)
        middle, low, high = ratio(case)
        costs = [f"{median(first):.2f}", f"{median(second):.2f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        idle = [[run["idle_cpu"] for run in case[member] if "idle_cpu" in run] for member in ("first", "second")]
        rates = " against ".join(f"{median(found):.3f}" for found in idle if found)
        shown.append([case["title"], str(len(first)), *costs, case["bar"], rates or "–"])
    return shown


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.pairs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pairs", type=int, default=10, help="of each case (default: 10)")
    parser.add_argument("--spans", type=int, default=1_000_000, help="of a run (default: 1,000,000)")
    parser.add_argument("--partitions", type=int, default=6, help="of every topic (default: 6)")
    parser.add_argument("--pace", type=float, default=PACE, help=f"spans/s of paced-workers (default: {PACE:,.0f})")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, save."""
    given = parsed()
    figures = load_results("pairs") or {"cases": {}}
    for name in given.cases:
        out.print(CASES[name].title)
        figures["cases"][name] = measured(CASES[name], name, given.pairs, given.spans, given.partitions, given.pace)
        out.print(table(COLUMNS, rows(figures)))
        runs = figures["cases"][name]["first"]
        keep(out, "pairs", figures, [modules for each in runs for modules in each["native"].values()])


if __name__ == "__main__":
    main()
