"""What other loads than the usual one make of the comparison, a row for each: a table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.compare_tables import Run, cpu, cpu_with_broker, rss, times, unusual
from bench.contestants import TAILRACE

RESULTS = ("sweep",)
AGAINST: Sequence[tuple[str, str, str, Callable[[Run], float]]] = (
    ("Keyed: CPU against the least-CPU Collector", "a", LEAST_CPU, cpu),
    ("Keyed: peak RSS against the least-memory one", "a", LEAST_MEMORY, rss),
    ("Un-keyed: CPU against two Collectors, least CPU", "b", TWO, cpu),
    ("Un-keyed: CPU against one", "b", LEAST_CPU, cpu),
    ("Un-keyed, broker included, against one", "b", LEAST_CPU, cpu_with_broker),
)
"""Column, mode of bench.compare, the other side, figure."""
NONE: Mapping[str, Any] = {"sides": {}}  # a load that a mode was not run with
COLUMNS = ("Load", *(column for column, *_ in AGAINST))


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`: how many times Tailrace's the other side's figure is, – where no run of one counts."""
    loads: dict[str, dict[str, Mapping[str, Any]]] = {}
    for series in figures["series"].values():
        loads.setdefault(", ".join(unusual(series)), {})[series["mode"]] = series
    return [
        [load, *(times(modes.get(mode, NONE), TAILRACE, other, figure) for _, mode, other, figure in AGAINST)]
        for load, modes in loads.items()
    ]
