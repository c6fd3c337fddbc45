"""What other loads than the usual one make of the comparison, a row for each: tables of docs/performance.md and
docs/performance-loads.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.compare_tables import Run, cpu, cpu_with_broker, middles, rss, times, unusual
from bench.contestants import TAILRACE

RESULTS = ("sweep",)
AGAINST: Sequence[tuple[str, str, str, Callable[[Run], float]]] = (
    ("Keyed: CPU against the least-CPU Collector", "a", LEAST_CPU, cpu),
    ("Keyed: peak RSS against the least-memory one", "a", LEAST_MEMORY, rss),
    ("Un-keyed: CPU against two Collectors, least CPU", "b", TWO, cpu),
    ("Un-keyed: CPU against one", "b", LEAST_CPU, cpu),
    ("Un-keyed, broker included, against one", "b", LEAST_CPU, cpu_with_broker),
    ("Un-keyed, one worker: CPU against one", "one", LEAST_CPU, cpu),
)
"""Column, mode of bench.compare, the other side, figure."""
GROWING: Mapping[str, object] = {"spans_per_trace": 12, "more_attributes": 0, "live": 0}
"""Options of the loads that tell how the cost of a span grows, and what they usually are."""
NONE: Mapping[str, Any] = {"sides": {}}  # a load that a mode was not run with
COLUMNS = ("Load", *(column for column, *_ in AGAINST))
GROWTH_COLUMNS = (
    "Load",
    "Spans",
    "Tailrace, CPU-s per million spans",
    "Collector, least CPU",
    "Ratio",
    "Tailrace, peak RSS, MiB",
    "Collector, least memory",
    "Ratio",
)


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`: how many times Tailrace's the other side's figure is, – where no run of one counts."""
    loads: dict[str, dict[str, Mapping[str, Any]]] = {}
    for series in figures["series"].values():
        if _grows(series):
            continue
        loads.setdefault(", ".join(unusual(series)), {})[series["mode"]] = series
    return [
        [load, *(times(modes.get(mode, NONE), TAILRACE, other, figure) for _, mode, other, figure in AGAINST)]
        for load, modes in loads.items()
    ]


def growth_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `GROWTH_COLUMNS`: of a keyed topic, runs that count."""
    return [
        [
            ", ".join(unusual(series)),
            f"{series['options']['spans']:,}",
            *(middles(series, side, cpu, ".2f") for side in (TAILRACE, LEAST_CPU)),
            times(series, TAILRACE, LEAST_CPU, cpu),
            *(middles(series, side, rss, ",.0f") for side in (TAILRACE, LEAST_MEMORY)),
            times(series, TAILRACE, LEAST_MEMORY, rss),
        ]
        for series in figures["series"].values()
        if _grows(series)
    ]


def _grows(series: Mapping[str, Any]) -> bool:
    return any(series["options"].get(name, usual) != usual for name, usual in GROWING.items())
