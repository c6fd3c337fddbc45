"""The tables of bench.throughput, for the terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table

from bench.measure import middle, table

ROLES = ("ingest", "sample", "aggregate", "sink.jaeger", "sink.elasticsearch", "sink.prometheus")
INTERVAL = 5.0  # seconds between two samples of a series
ROLE_COLUMNS = ("Process", "CPU-s per million spans", "CPU-s at start", "Idle, CPU-s/s", "Peak RSS, MiB")
TOTAL_COLUMNS = ("Figure", "Value")


def _middle(figures: Mapping[str, Any], find: Callable[[Any], float], form: str) -> str:
    """The median of all runs, with the extremes if there is more than one."""
    return middle([find(found) for found in figures["runs"]], form)


def total_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """What the whole way did."""
    made = figures["runs"][0]["load"]

    def row(name: str, find: Callable[[Any], float], form: str) -> list[str]:
        return [name, _middle(figures, find, form)]

    return [
        ["Load", f"{made['spans']:,} spans, {made['logs']:,} logs, {made['traces']:,} traces"],
        row("Spans/s, raw topic to acknowledged by Jaeger and Elasticsearch", lambda r: r["spans_per_second"], ",.0f"),
        row("Seconds until ingest was through", lambda r: r["stage_seconds"]["ingest"], ".1f"),
        row("… sample", lambda r: r["stage_seconds"]["sample"], ".1f"),
        row("… Jaeger had all", lambda r: r["stage_seconds"]["sink.jaeger"], ".1f"),
        row("… Elasticsearch had all", lambda r: r["stage_seconds"]["sink.elasticsearch"], ".1f"),
        row(
            f"… Prometheus' totals were exact (one sample every {INTERVAL:g} s)",
            lambda r: r["stage_seconds"]["sink.prometheus"],
            ".1f",
        ),
        row("Share of spans kept, %", lambda r: 100 * r["kept_spans"] / r["load"]["spans"], ".1f"),
        row(
            "CPU-s per million spans, all roles",
            lambda r: sum(r["cpu_seconds_per_million_spans"][role] for role in ROLES),
            ".1f",
        ),
        row("Kafka bytes written per raw byte", lambda r: r["kafka_bytes_per_raw_byte"], ".2f"),
        row("Raw bytes per span in Kafka", lambda r: _raw_bytes(r) / r["load"]["spans"], ".0f"),
    ]


def _raw_bytes(found: Mapping[str, Any]) -> float:
    sizes: dict[str, int] = found["kafka_bytes"]
    return sizes["-raw-spans"] + sizes["-raw-logs"]


def role_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `ROLE_COLUMNS` for each role, then for each server."""
    shown = []
    idle = figures["runs"][0]["idle_cpu"]
    for name in figures["runs"][0]["cpu_seconds"]:
        started = name in ROLES
        shown.append(
            [
                name if name != "broker" else "Kafka broker (idle subtracted)",
                _middle(figures, lambda r, n=name: r["cpu_seconds_per_million_spans"][n], ".1f"),  # type: ignore[misc]
                _middle(figures, lambda r, n=name: r["start_up_cpu_seconds"][n], ".1f") if started else "",  # type: ignore[misc]
                _middle(figures, lambda r, n=name: r["idle_cpu"][n], ".3f") if name in idle else "",  # type: ignore[misc]
                _middle(figures, lambda r, n=name: r["peak_rss_bytes"][n] / (1 << 20), ".0f"),  # type: ignore[misc]
            ]
        )
    return shown


def tables(figures: Mapping[str, Any]) -> list[Table]:
    """The figures for the terminal."""
    return [table(TOTAL_COLUMNS, total_rows(figures)), table(ROLE_COLUMNS, role_rows(figures))]
