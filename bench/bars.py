"""What the project set out to reach and what the newest results say of it: the first table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench import hops, pairs, series, sustained, window
from bench.compare_tables import Run, cpu, cpu_with_broker, ratio, rss
from bench.contestants import TAILRACE

HOPS = tuple(hops.results(partitions) for partitions in (hops.PARTITIONS, 1))
RESULTS = ("compare", "window", "sustained", "series", "encoding", *HOPS, "pairs")
COLUMNS = ("Goal", "Bar", "Measured", "Reached")
ENCODED_BAR = 1_000_000  # samples per CPU second

KEYED = "--modes a --loads catch-up --placements pinned"
KEYED_PACED = "--modes a --loads paced --placements pinned"
METRICS = "--modes am --loads catch-up --placements pinned"
METRICS_PACED = "--modes am --loads paced --placements pinned"
UNKEYED = "--modes b --loads catch-up --placements pinned"
UNKEYED_PACED = "--modes b --loads paced --placements pinned"
ONE = "--modes one --loads catch-up --placements pinned"
ONE_PACED = "--modes one --loads paced --placements pinned"
UNKEYED_WAITS = f"{UNKEYED} --decision-wait 20"  # two Collectors lose traces with 5 s
LEAST_CPU, LEAST_MEMORY = "Collector, least CPU", "Collector, least memory"
TWO, TWO_LEAN = "two Collectors, least CPU", "two Collectors, least memory"

AGAINST: Sequence[tuple[str, str, str, str, Callable[[Run], float], float]] = (
    ("CPU of a span, keyed topic", KEYED, TAILRACE, LEAST_CPU, cpu, 10),
    ("CPU of a span, keyed topic, span metrics on both sides", METRICS, TAILRACE, LEAST_CPU, cpu, 10),
    ("CPU of a span, un-keyed topic, against two Collectors", UNKEYED_WAITS, TAILRACE, TWO, cpu, 10),
    ("CPU of a span, un-keyed topic, against one Collector", UNKEYED, TAILRACE, LEAST_CPU, cpu, 4),
    ("CPU of a span, un-keyed topic, one worker against one Collector", ONE, TAILRACE, LEAST_CPU, cpu, 4),
    ("CPU with the broker's, keyed topic", KEYED, TAILRACE, LEAST_CPU, cpu_with_broker, 3),
    ("CPU with the broker's, span metrics on both sides", METRICS, TAILRACE, LEAST_CPU, cpu_with_broker, 3),
    ("CPU with the broker's, un-keyed topic, against two Collectors", UNKEYED_WAITS, TAILRACE, TWO, cpu_with_broker, 3),
    ("CPU with the broker's, un-keyed topic, against one Collector", UNKEYED, TAILRACE, LEAST_CPU, cpu_with_broker, 3),
    ("CPU with the broker's, one worker against one Collector", ONE, TAILRACE, LEAST_CPU, cpu_with_broker, 3),
    ("Peak memory, keyed topic, catch-up", KEYED, TAILRACE, LEAST_MEMORY, rss, 4),
    ("Peak memory, span metrics on both sides, catch-up", METRICS, TAILRACE, LEAST_MEMORY, rss, 4),
    ("Peak memory, un-keyed topic, catch-up, against two Collectors", UNKEYED_WAITS, TAILRACE, TWO_LEAN, rss, 4),
    ("Peak memory, keyed topic, paced", KEYED_PACED, TAILRACE, LEAST_MEMORY, rss, 4),
    ("Peak memory, span metrics on both sides, paced", METRICS_PACED, TAILRACE, LEAST_MEMORY, rss, 4),
    ("Peak memory, un-keyed topic, paced, against two Collectors", UNKEYED_PACED, TAILRACE, TWO_LEAN, rss, 4),
    ("Peak memory, un-keyed topic, catch-up, one worker against one Collector", ONE, TAILRACE, LEAST_MEMORY, rss, 4),
    ("Peak memory, un-keyed topic, paced, one worker against one Collector", ONE_PACED, TAILRACE, LEAST_MEMORY, rss, 4),
)
"""Goal, series of bench.compare, own side, other side, figure, bar: how many times ours the other side's must be."""


def rows(*results: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`, from what the benchmarks in `RESULTS` saved, in that order."""
    compared, windowed, paced, ticked, encoded, *hopped, paired = results
    return [
        *_against(compared["series"]),
        _row("A window of 10 min in 1 GiB, larger than that", "nothing evicted, ≤ 1.2 GiB", *_window(windowed["run"])),
        *_sustained(paced),
        _row(
            "6 million samples of 100,000 series into Prometheus",
            f"≤ {series.BAR:g} CPU-s",
            f"{series.both(ticked):.1f} CPU-s",
            series.both(ticked) <= series.BAR and series.is_exact(ticked),
        ),
        _encoding(encoded["cases"]["counter"]),
        *(
            _row(f"p99 of a hop, {name}", f"≤ {bar:,.0f} ms", f"{p99:,} ms", p99 <= bar)
            for figures in hopped
            for name, p99, bar in hops.told(figures)
        ),
        *_pairs(paired["cases"]),
    ]


def _row(goal: str, bar: str, measured: str, reached: bool) -> list[str]:
    return [goal, bar, measured, "yes" if reached else "no"]


def _against(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for goal, key, own, other, figure, bar in AGAINST:
        if key not in found or not {own, other} <= found[key]["sides"].keys():
            yield [goal, f"≥ {bar:g}×", "not measured", "–"]
        elif (times := ratio(found[key], own, other, figure)) is None:
            yield [goal, f"≥ {bar:g}×", "no run of one of them kept the right traces", "–"]
        else:
            yield _row(goal, f"≥ {bar:g}×", f"{times:.1f}×", times >= bar)


def _window(run: Mapping[str, Any]) -> tuple[str, bool]:
    peak = sum(run["peak_rss_bytes"].values())
    return f"{run['missing_traces']} missing, {peak / 2**30:.2f} GiB", window.is_met(run)


def _sustained(figures: Mapping[str, Any]) -> Iterator[list[str]]:
    worst, beyond = sustained.worst(figures)
    load, seconds = figures["load"], figures["options"]["seconds"]
    rates = f"{load['spans'] / seconds:,.0f} spans/s and {load['logs'] / seconds:,.0f} logs/s"
    goal = f"All roles and servers on 2 cores, {rates}"
    bar = f"slope of the lag ≤ {100 * sustained.SLOPE_BAR:g} %"
    yield _row(goal, bar, f"{100 * worst:.2f} %", worst <= sustained.SLOPE_BAR)
    bar = f"drained ≤ decision_wait + {sustained.DRAIN_BAR:g} s, exact"
    yield _row(goal, bar, f"+ {beyond:.1f} s", beyond <= sustained.DRAIN_BAR and figures["exact"])


def _encoding(case: Mapping[str, Any]) -> list[str]:
    pace = case["samples"] / case["write"]
    return _row("Remote-write encoding alone", f"≥ {ENCODED_BAR:,} samples/CPU-s", f"{pace:,.0f}", pace >= ENCODED_BAR)


def _pairs(cases: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, case in cases.items():
        middle, low, high = pairs.ratio(case)
        told = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        reached = high < pairs.TELEMETRY_BAR if name == "telemetry" else middle <= pairs.WORKERS_BAR
        yield _row(f"CPU of a span: {case['title']}", case["bar"], told, reached)
