"""Each series beside the Collector in a line, for docs/performance.md; docs/performance-series.md has the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO, TWO_LEAN
from bench.compare_tables import cpu, cpu_with_broker, heading, is_whole, middles, rss, times
from bench.contestants import TAILRACE

RESULTS = ("compare",)
OTHERS = (("", LEAST_CPU, LEAST_MEMORY), (", against two Collectors", TWO, TWO_LEAN))
"""What is said of them, the setting for the least CPU and that for the least memory."""
COLUMNS = (
    "Topic, load",
    "Runs",
    "Tailrace, CPU-s per million spans",
    "Collector, least CPU",
    "×",
    "× with the broker's",
    "Tailrace, peak RSS, MiB",
    "Collector, least memory",
    "×",
)


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`, of runs that count."""
    return [row for series in figures["series"].values() for row in _rows(series)]


def _rows(series: Mapping[str, Any]) -> Iterator[list[str]]:
    for said, least_cpu, least_memory in OTHERS:
        if not series["sides"].keys() & {least_cpu, least_memory}:
            continue
        yield [
            heading(series) + said,
            str(sum(map(is_whole, series["sides"][TAILRACE]))),
            *(middles(series, side, cpu, ".1f") for side in (TAILRACE, least_cpu)),
            times(series, TAILRACE, least_cpu, cpu),
            times(series, TAILRACE, least_cpu, cpu_with_broker),
            *(middles(series, side, rss, ",.0f") for side in (TAILRACE, least_memory)),
            times(series, TAILRACE, least_memory, rss),
        ]
