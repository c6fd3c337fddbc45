"""Tailrace against the OpenTelemetry Collector, side by side: `make bench` or `python -m bench.compare`.

A *series* is a mode (bench/contestants.py: keyed or un-keyed topic, with or without span metrics), a load and a
placement. In each, all sides run in turn, `--runs` times, on one broker and one load.

- paced: 16,700 spans/s are written while the sides run, `--seconds` long, `decision_wait` 30 s;
- catch-up: `--spans` spans lie in the topic, `decision_wait` 5 s.
- pinned: all processes of a side share one core, the broker and the bench have the others; free: nobody is pinned.

A run counts only if what it kept is exactly what the policies keep (bench/verdicts.py): else it is shown as lossy.
Each series goes into bench/results/compare.json after each turn of all sides, in the place of an older one.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.compare_tables import COLUMNS, DEFAULTS, RATIO_COLUMNS, heading, is_whole, kept, key, native, ratios, rows
from bench.contest import Given, catch_up, run, task_of, to_be_paced
from bench.contestants import MODES, Mode
from bench.load import Load
from bench.measure import COMPILED, console, load_results, machine, save, table
from bench.testbed import idle_cpu
from bench.verdicts import Mix
from tests.services import Kafka

LOADS = ("paced", "catch-up")
PLACEMENTS = ("pinned", "free")
DECISION_WAIT = {"paced": 30.0, "catch-up": 5.0}  # seconds
SPANS_PER_SECOND = 16_700
LIVE_SECONDS = 10  # of stream time, in which all traces of `--live` begin
READ_A_SECOND = 30_000  # spans, at least, by either side: none of them is decided before the last has begun
RESULTS = "compare"

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What every series has."""

    runs: int
    seconds: float
    spans: int
    spans_per_message: int
    partitions: int
    warm_up_spans: int
    decision_wait: float | None
    percentage: float
    failures: bool
    unmet: int
    spans_per_trace: int
    more_attributes: int
    live: int

    @property
    def mix(self) -> Mix:
        """The policies."""
        return Mix(self.percentage, self.failures, self.unmet)


def load_of(options: Options, mode: Mode, spans: int) -> Load:
    """What both sides read: spans alone, each trace within a second (tests/bench/test_load.py)."""
    return Load(
        spans,
        0,
        options.spans_per_message,
        options.spans_per_trace,
        spans_per_second=spans / LIVE_SECONDS if options.live else SPANS_PER_SECOND,
        logs_per_span=0,
        keyed=options.partitions if mode.keyed else 0,
        more_attributes=options.more_attributes,
    )


class Series:
    """A mode, a load and a placement, on a broker of its own."""

    def __init__(self, mode: str, load: str, placement: str, options: Options, sides: Sequence[str]) -> None:
        self._mode: Mode = MODES[mode]
        self._load, self._options = load, options
        self._sides = [name for name in self._mode.sides if not sides or name in sides]
        self._wait = DECISION_WAIT[load] if options.decision_wait is None else options.decision_wait
        if options.live:
            self._wait = LIVE_SECONDS + options.spans / READ_A_SECOND
        self._rest, self._cpus = _cores(placement)
        self._topics = itertools.count()

    def run(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Every side's runs so far, after each turn. A smaller one, thrown away, warms broker and file caches."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._rest)
        kafka = Kafka()
        kafka.cpus = self._rest
        try:
            with kafka:
                if self._options.warm_up_spans:
                    out.print("  warm-up")
                    given = self._catch_up(kafka, self._options.warm_up_spans)
                    for name in self._sides:
                        self._run(kafka, name, given, 0.0)
                yield from self._runs(kafka)
        finally:
            os.sched_setaffinity(0, before)

    def _runs(self, kafka: Kafka) -> Iterator[dict[str, list[dict[str, Any]]]]:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self._sides}
        lying = self._catch_up(kafka, self._options.spans) if self._load == "catch-up" else None
        for number in range(1, self._options.runs + 1):
            idle = idle_cpu({"broker": kafka.pid})["broker"]
            for name in self._sides:
                out.print(f"  run {number}/{self._options.runs}: {name}")
                figures = self._run(kafka, name, lying or self._paced(kafka), idle)
                found[name].append(figures)
                out.print(f"    {told(figures)}")
            yield found

    def _run(self, kafka: Kafka, name: str, given: Given, idle: float) -> dict[str, Any]:
        task = task_of(self._mode, given, self._options.partitions, self._options.mix, self._wait)
        side = self._mode.sides[name](kafka, f"{name.split()[0].strip(',').lower()}-{next(self._topics)}", task)
        return run(kafka, side, given, task, self._cpus, idle, out.print)

    def _catch_up(self, kafka: Kafka, spans: int) -> Given:
        options = self._options
        return catch_up(kafka, self._topic(), load_of(options, self._mode, spans), options.mix, options.partitions)

    def _paced(self, kafka: Kafka) -> Given:
        options = self._options
        load = load_of(options, self._mode, round(options.seconds * SPANS_PER_SECOND))
        return to_be_paced(kafka, self._topic(), load, options.mix, options.partitions)

    def _topic(self) -> str:
        return f"raw-{next(self._topics)}"


def _cores(placement: str) -> tuple[set[int], set[int]]:
    """For the broker and the bench, and for the side under test."""
    every = sorted(os.sched_getaffinity(0))
    if placement == "free":
        return set(every), set()
    if len(every) < 2:
        raise SystemExit("--placements pinned needs two cores: one for the side under test, one for the broker")
    return set(every[:-1]), {every[-1]}


def told(figures: dict[str, Any]) -> str:
    """A run in a line."""
    compiled = all(COMPILED in names for names in figures["native"].values())
    rss = sum(figures["peak_rss_bytes"].values()) / (1 << 20)
    verdict = "the same traces" if is_whole(figures) else "NOT THE SAME TRACES"
    return (
        f"{figures['cpu_per_million']:.1f} CPU-s per million spans, broker {figures['broker_cpu_per_million']:.1f}, "
        f"{rss:.0f} MiB, {figures['seconds']:.1f} s; "
        f"kept {figures['kept_traces']:,} traces, ids {figures['kept_ids']}, {verdict}: "
        f"{figures['missing_traces']} missing, {figures['surplus_traces']} too many"
        f"{'; compiled' if compiled else ''}"
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["a", "am", "b", "one"])
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=["pinned"])
    parser.add_argument("--sides", nargs="+", default=[], metavar="NAME", help="as in the tables (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="of each side (default: 5)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the paced load (default: 120)")
    parser.add_argument("--spans", type=int, default=1_000_000, help="of the catch-up (default: 1,000,000)")
    parser.add_argument("--spans-per-message", type=int)
    parser.add_argument("--partitions", type=int, help="of every topic (default: 4)")
    parser.add_argument("--warm-up", type=int, default=50_000, metavar="SPANS", help="run before, not measured")
    parser.add_argument("--decision-wait", type=float, help="seconds (default: paced 30, catch-up 5)")
    parser.add_argument(
        "--percentage", type=float, default=DEFAULTS["percentage"], help="of all traces are kept (default: 5)"
    )
    parser.add_argument("--no-failures", action="store_true", help="errors and slow traces are not kept as well")
    parser.add_argument(
        "--unmet", type=int, default=DEFAULTS["unmet"], metavar="COUNT", help="more policies, which keep nothing"
    )
    parser.add_argument("--spans-per-trace", type=int, help="on average (default: 12)")
    parser.add_argument("--more-attributes", type=int, metavar="COUNT", help="of each span, beside its four to seven")
    parser.add_argument(
        "--live", type=int, metavar="TRACES", help="so many are undecided at once: sets --spans and the decision wait"
    )
    parser.add_argument("--results", default=RESULTS, help=f"file in bench/results (default: {RESULTS})")
    parser.set_defaults(**DEFAULTS)
    return parser.parse_args(arguments)


def options_of(given: argparse.Namespace) -> Options:
    """Those that every series has."""
    return Options(
        runs=given.runs,
        seconds=given.seconds,
        spans=given.live * given.spans_per_trace or given.spans,
        spans_per_message=given.spans_per_message,
        partitions=given.partitions,
        warm_up_spans=given.warm_up,
        decision_wait=given.decision_wait,
        percentage=given.percentage,
        failures=not given.no_failures,
        unmet=given.unmet,
        spans_per_trace=given.spans_per_trace,
        more_attributes=given.more_attributes,
        live=given.live,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save."""
    given = parsed(arguments)
    options = options_of(given)
    for mode, load, placement in itertools.product(given.modes, given.loads, given.placements):
        found: dict[str, Any] = {
            "mode": mode,
            "title": MODES[mode].title,
            "load": load,
            "placement": placement,
            "options": asdict(options),
            "machine": machine(),
        }
        out.print(heading(found))
        for sides in Series(mode, load, placement, options, given.sides).run():
            found["sides"], found["options"]["runs"] = sides, len(next(iter(sides.values())))
            figures = load_results(given.results) or {"series": {}}
            figures["series"][key(found)] = found
            file = save(given.results, figures)
        out.print(table(COLUMNS, rows(found)))
        if times := ratios(found):
            out.print(table(RATIO_COLUMNS, times))
            out.print(native(found))
        out.print(kept(found))
        out.print(f"saved in bench/results/{file.name}; `python -m bench.report` writes the tables of the documents")


if __name__ == "__main__":
    main()
