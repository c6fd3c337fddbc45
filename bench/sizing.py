"""The constants of `tailrace size`, out of committed results: `python -m bench.report` writes pipeline/measured.json.

Medians over the runs of bench/results/throughput.json; bench/results/sustained.json, and bench/results/memory.json.
Nothing else goes in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "pipeline" / "measured.json"
SINKS = ("sink.jaeger", "sink.elasticsearch", "sink.prometheus")
ROLES = ("ingest", "sample", "aggregate", *SINKS)
RESULTS = ("throughput", "sustained", "memory")
WHOLE_WAY, PACED, MEMORY = (f"bench/results/{name}.json" for name in RESULTS)
INTERNAL = ("spans", "logs", "untraced.logs", "decisions", "kept.spans", "kept.logs", "points", "samples")

Run = Mapping[str, Any]


def constants(whole: Mapping[str, Any], paced: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, Any]:
    """What pipeline/measured.json holds, out of these results."""
    runs: Sequence[Run] = whole["runs"]

    def middle(what: Callable[[Run], float]) -> float:
        return _rounded(median(map(what, runs)))

    def constant(name: str, value: float, unit: str, source: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "source": source}

    table = [
        constant("raw_bytes_per_span", middle(lambda r: _raw(r) / r["load"]["spans"]), "bytes", WHOLE_WAY),
        constant("spans_per_trace", middle(lambda r: r["load"]["spans"] / r["load"]["traces"]), "spans", WHOLE_WAY),
        constant("kept_share", middle(lambda r: r["kept_spans"] / r["load"]["spans"]), "of the spans", WHOLE_WAY),
    ]
    for role in ROLES:
        spent = middle(lambda r, role=role: r["cpu_seconds_per_million_spans"][role])  # type: ignore[misc]
        table.append(constant(f"cpu.{role}", spent, "CPU-s per million spans read", WHOLE_WAY))
        # What one worker of each took of a second beside its spans: fetches, transactions, requests.
        beside = paced["cpu_seconds_per_second"][role] - spent * paced["options"]["spans_per_second"] / 1e6
        table.append(constant(f"second.{role}", _rounded(max(0.0, beside)), "CPU-s a second of a worker", PACED))
    for role in ROLES:
        peak = middle(lambda r, role=role: r["peak_rss_bytes"][role])  # type: ignore[misc]
        table.append(constant(f"rss.{role}", peak, "bytes, peak of a worker", WHOLE_WAY))
    for topic in INTERNAL:
        share = middle(lambda r, topic=topic: r["kafka_bytes"][f".{topic}"] / _raw(r))  # type: ignore[misc]
        table.append(constant(f"kafka.{topic}", share, "bytes per raw byte, one replica", WHOLE_WAY))
    for name, unit in (
        ("undecided_bytes_per_trace", "bytes"),
        ("verdict_bytes_per_trace", "bytes"),
        ("load_seconds_per_million_verdicts", "CPU-s"),
    ):
        table.append(constant(name, _rounded(memory[name]), unit, MEMORY))
    return {"machine": whole["machine"], "constants": table}


def text(whole: Mapping[str, Any], paced: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    """The file's content."""
    return json.dumps(constants(whole, paced, memory), indent=2) + "\n"


def _raw(run: Run) -> float:
    """Bytes of the raw topics on the broker's disk, as compressed there."""
    found: float = run["kafka_bytes"]["-raw-spans"] + run["kafka_bytes"]["-raw-logs"]
    return found


def _rounded(value: float) -> float:
    """Three digits: more would say that the next run gives the same."""
    return float(f"{value:.3g}")
