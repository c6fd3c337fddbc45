"""Results of benchmarks, as they are written."""

from __future__ import annotations

from typing import Any

from bench.compare_tables import DEFAULTS


def one(cpu: float, *, broker: float = 0.0, rss: int = 100, missing: int = 0) -> dict[str, Any]:
    return {
        "cpu_per_million": cpu,
        "broker_cpu_per_million": broker,
        "peak_rss_bytes": {"x": rss << 20},
        "missing_traces": missing,
        "surplus_traces": 0,
    }


def series(mode: str, sides: dict[str, list[dict[str, Any]]], **unusual: Any) -> dict[str, Any]:
    return {"mode": mode, "options": {**DEFAULTS, "failures": True, **unusual}, "sides": sides}


MACHINE = {
    "cpu": "A",
    "cores": 2,
    "memory_gib": 8.0,
    "kernel": "Linux 6",
    "python": "3.11.7",
    "load_before": 0.1,
    "commit": "abc",
    "date": "2026-01-01 00:00 UTC",
}
