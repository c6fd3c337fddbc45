"""Faults from seeds against a pipeline on real servers, and a checker that knows what was made.

Exit code 1 if anything was lost, split, doubled or miscounted, or a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.end_to_end.harness import Destinations
from tests.faults import report
from tests.faults.measure import MEASUREMENTS
from tests.faults.run import Report, run
from tests.faults.scenarios import SCENARIOS
from tests.faults.schedule import LONG, SHORT, Schedule, schedule
from tests.repository import ROOT
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus
from tests.services.install import InstallError, ensure
from tests.simulation.history import kind_of
from tests.simulation.minimise import failure, minimised

HISTORIES = 10_000
TOLD_EVERY = 1_000
DEFAULT_SEEDS = "1..50"


def seeds(text: str) -> list[int]:
    """`7`, or `1..50` with both ends.

    >>> seeds("7"), seeds("1..3")
    ([7], [1, 2, 3])
    """
    first, _, last = text.partition("..")
    return list(range(int(first), int(last or first) + 1))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; without arguments everything is done."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", "--seeds", dest="seeds", type=seeds, default=[], metavar="N or A..B")
    parser.add_argument("--short", action="store_true", help="runs as small as those of make test")
    parser.add_argument("--measure", nargs="*", choices=MEASUREMENTS, help="how long faults are felt (default: all)")
    parser.add_argument("--scenario", nargs="*", choices=SCENARIOS, help="what no seed draws (default: all)")
    parser.add_argument("--simulate", type=int, default=0, metavar="N", help="simulated histories")
    parser.add_argument("--mutate", action="store_true", help="take each guard of the protocol away: is it noticed?")
    parser.add_argument("--save", action="store_true", help="put what was found into tests/faults/results.json")
    options = parser.parse_args(arguments)
    if options.measure is not None and not options.measure:
        options.measure = list(MEASUREMENTS)
    if options.scenario is not None and not options.scenario:
        options.scenario = list(SCENARIOS)
    if not (options.seeds or options.simulate or options.measure or options.scenario or options.mutate):
        options.seeds, options.simulate, options.mutate = seeds(DEFAULT_SEEDS), HISTORIES, True
        options.measure, options.scenario = list(MEASUREMENTS), list(SCENARIOS)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, run seeds, measure: what was asked for."""
    options = parsed(arguments)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of the harness's clients: the broker is away at times
    fine = simulate(options.simulate, options.save)
    if options.mutate:
        fine &= mutate(options.save)
    if options.seeds or options.measure or options.scenario:
        fine &= asyncio.run(on_servers(options))
    if options.save:
        report.main()
    return 0 if fine else 1


def simulate(count: int, save: bool) -> bool:
    """Histories 0 to `count` - 1, of all kinds; the first that fails is made smaller and raises AssertionError."""
    if not count:
        return True
    began = time.monotonic()
    for seed in range(count):
        if (found := failure(seed, kind_of(seed))) is not None:
            raise AssertionError(str(minimised(found)))
        if not (seed + 1) % TOLD_EVERY:
            print(f"  {seed + 1:,} of {count:,} histories, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"{count:,} simulated histories: nothing lost, split or counted twice ({seconds:.0f} s)", flush=True)
    if save:
        report.save(simulation={"histories": count, "seconds": round(seconds)})
    return True


def mutate(save: bool) -> bool:
    """Each guard of the protocol taken away in turn, in a process of uncompiled code, which can be patched."""
    command = [sys.executable, "-m", "tests.simulation.guards"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print(report.aligned(report.guards_table(rows)), flush=True)
    if save:
        report.save(guards={"rows": rows})
    return all(row["check"] for row in rows)


async def on_servers(options: argparse.Namespace) -> bool:
    """With one set of servers."""
    shape, fine, runs = SHORT if options.short else LONG, True, []
    faketime = clock_library()
    with ExitStack() as servers, tempfile.TemporaryDirectory(prefix="tailrace-faults-") as folder:
        kafka, jaeger = servers.enter_context(Kafka()), servers.enter_context(Jaeger())
        elasticsearch, prometheus = servers.enter_context(Elasticsearch()), servers.enter_context(Prometheus())
        to = Destinations(jaeger, elasticsearch, prometheus)
        for seed in options.seeds:
            plan = schedule(seed, shape)
            print(*plan.lines(), sep="\n", flush=True)
            began = time.monotonic()

            def say(text: str, began: float = began) -> None:
                print(f"  [{time.monotonic() - began:6.1f} s] {text}", flush=True)

            try:
                found = await run(plan, kafka, to, Path(folder), faketime, say)
            except Exception:
                print(again(plan), flush=True)
                raise
            runs.append(found.as_json())
            print(*told(found), sep="\n", flush=True)
            fine &= found.row.clean
            if options.save and not options.short:
                report.save(runs=[found.as_json()])
        if len(runs) > 1:
            print(report.aligned(report.table(runs)), flush=True)
        for name in options.scenario or ():
            outcome = await SCENARIOS[name](kafka, to, Path(folder), lambda text: print(f"  {text}", flush=True))
            print(report.aligned(report.scenario_table(name, outcome.as_json())), *outcome.facts.values(), flush=True)
            for whose, row in outcome.rows.items():
                print(*(f"  {whose}: {line}" for line in row.lines()), sep="\n", flush=True)
            for each in outcome.measured:
                print(each.as_json(), flush=True)
            fine &= outcome.holds
            if options.save:
                report.save(scenarios={name: outcome.as_json()})
        figures: list[dict[str, Any]] = []
        for name in options.measure or ():
            measured = await MEASUREMENTS[name](kafka, to, Path(folder), print)
            figures += [each.as_json() for each in measured]
            for each in measured:
                print(each.as_json(), flush=True)
            fine &= all(each.holds for each in measured)
        if figures and options.save:
            report.save(measurements={"figures": figures})
    return fine


def told(found: Report) -> list[str]:
    """The table of a run; of one that failed also what is wrong and how to do it again."""
    allowed = {column: dict(causes) for column, causes in found.row.allowed.items()}
    lines = [report.aligned(report.table([found.as_json()])), f"  {found.figures} allowed: {allowed}"]
    return lines if found.row.clean else [*lines, *found.row.lines(), again(found.schedule)]


def again(plan: Schedule) -> str:
    """The command that does a failed run once more."""
    short = "--short " if plan.shape == SHORT else ""
    return f'seed {plan.seed} failed, again: make faults ARGS="{short}--seed {plan.seed}"'


def clock_library() -> Path | None:
    """libfaketime; None, and clocks do not step, where it cannot be had."""
    try:
        return next(ensure("faketime").rglob("libfaketime.so.1"))
    except InstallError as error:
        print(f"clocks will not step: {error}", flush=True)
        return None


if __name__ == "__main__":
    sys.exit(main())
