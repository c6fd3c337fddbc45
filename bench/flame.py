"""Where the time of `sample` goes: `make bench BENCH=flame` or `python -m bench.flame`.

One process catches up with a keyed topic, as in `bench.compare`, twice, while py-spy looks at its stack: once for
docs/flame-sample.svg, a flame graph, and once for the shares in the tables. Compiled code and libraries have no frames
of their own: their time is that of the line which calls them. With native frames looking takes longer than working.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contest import Given, catch_up, run
from bench.contestants import Tailrace, Task
from bench.load import Load
from bench.measure import console, keep, machine, native_modules, table
from bench.verdicts import Mix
from tests.repository import ROOT
from tests.services import Kafka

GRAPH = ROOT / "docs" / "flame-sample.svg"
WAITS = "_worker (concurrent/futures/thread.py"  # a thread of a pool without work: py-spy takes it for busy
NOBODY = "no frame of Python"  # while a thread begins or ends
RATE = 250  # looks at the stack per second
LONGEST = 600  # seconds that py-spy may look: it ends with the worker
DECISION_WAIT = 5.0
OURS = ("pipeline/", "processors/", "schemas/")
SHOWN = 16  # rows of each table
WITH = ("Function of ours, with what it calls", "Share of the samples")
ALONE = ("Line, with what it calls in compiled code and libraries", "Share of the samples")

out = console()


class Watched(Tailrace):
    """The side, looked at from when it has started until it ends. What py-spy saw is in `seen`."""

    def __init__(self, kafka: Kafka, name: str, task: Task, shape: str, seen: Path) -> None:
        super().__init__(kafka, name, task, direct=True)
        self._spy: subprocess.Popen[bytes] | None = None
        self._look = [str(Path(sys.executable).with_name("py-spy")), "record", "--rate", str(RATE)]
        self._look += ["--duration", str(LONGEST)]
        self._look += ["--format", shape, "--output", str(seen)]

    def start(self, cpus: Collection[int]) -> None:
        """Start it, and py-spy once it has loaded its modules."""
        super().start(cpus)
        pid = self.servers["sample"].pid
        while not native_modules(pid):
            time.sleep(0.05)
        self._spy = subprocess.Popen([*self._look, "--pid", str(pid)], stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """End it, and wait for py-spy."""
        super().close()
        if self._spy is not None and self._spy.wait():
            raise RuntimeError("py-spy failed as it says above: it must be allowed to look at other processes")


def shares(stacks: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Of folded stacks (`outer (file:line);inner (file:line) samples`): by function of ours, and by innermost line.

    >>> shares(["work (pipeline/sample.py:3);crc (lib/crc.py:1) 3", "work (pipeline/sample.py:9) 1"])
    ({'work (pipeline/sample.py)': 1.0}, {'crc (lib/crc.py:1)': 0.75, 'work (pipeline/sample.py:9)': 0.25})
    >>> shares([" 1", "_worker (concurrent/futures/thread.py:81) 3"])
    ({}, {'no frame of Python': 1.0})
    """
    within: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for stack in stacks:
        frames, _, samples = stack.rpartition(" ")
        places = frames.split(";")
        if places[-1].startswith(WAITS):
            continue
        alone[places[-1] or NOBODY] += int(samples)
        for function in {
            f"{place.rpartition(':')[0]})" for place in places if place.partition(" (")[2].startswith(OURS)
        }:
            within[function] += int(samples)
    total = alone.total() or 1
    found = [{name: number / total for name, number in counts.most_common(SHOWN)} for counts in (within, alone)]
    return found[0], found[1]


def titled(graph: str) -> str:
    """The graph with a title that says what it shows; py-spy's own is its command line, with this machine's paths."""
    return re.sub(r'(<text id="title"[^>]*>)[^<]*', r"\1sample: the catch-up of a keyed topic", graph, count=1)


def rows(found: Mapping[str, float]) -> list[list[str]]:
    """For a table."""
    return [[f"`{name}`", f"{share:.1%}"] for name, share in found.items()]


def measured(spans: int, partitions: int) -> dict[str, Any]:
    """Both runs."""
    with Kafka() as kafka, tempfile.TemporaryDirectory(prefix="tailrace-flame-") as folder:
        given = catch_up(kafka, "flame-raw", Load(spans, 0, logs_per_span=0, keyed=partitions), Mix(), partitions)
        task = Task(given.topic, partitions, given.truth.traces, Mix(), DECISION_WAIT)
        stacks = Path(folder) / "stacks"
        _look(kafka, given, task, "raw", stacks)
        _look(kafka, given, task, "flamegraph", GRAPH)
        GRAPH.write_text(titled(GRAPH.read_text(encoding="utf-8")), encoding="utf-8")
        within, alone = shares(stacks.read_text(encoding="utf-8").splitlines())
    return {"within": within, "alone": alone}


def _look(kafka: Kafka, given: Given, task: Task, shape: str, seen: Path) -> None:
    out.print(f"{shape}: {given.load.spans:,} spans")
    run(kafka, Watched(kafka, f"flame-{shape}", task, shape, seen), given, task, (), 0.0, out.print)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--spans", type=int, default=2_000_000, help="of a run (default: 2,000,000)")
    parser.add_argument("--partitions", type=int, default=6, help="of every topic (default: 6)")
    return parser.parse_args(arguments)


def main() -> None:
    """Look, print, save."""
    options = vars(parsed())
    figures: dict[str, Any] = {"machine": machine(), "options": options, **measured(**options)}
    out.print(table(WITH, rows(figures["within"])))
    out.print(table(ALONE, rows(figures["alone"])))
    keep(out, "flame", figures)


if __name__ == "__main__":
    main()
