"""The constants of `tailrace size`, out of committed results: `python -m bench.report` writes FILE.

Medians over the runs of bench/results/throughput.json, bench/results/attributes.json and, of its series with more
attributes, bench/results/sweep.json; bench/results/sustained.json, and bench/results/memory.json. Nothing else goes in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from bench.compare_tables import unusual
from bench.contestants import TAILRACE

FILE = Path(__file__).resolve().parent.parent / "pipeline" / "operating" / "measured.json"
SINKS = ("sink.jaeger", "sink.elasticsearch", "sink.prometheus")
ROLES = ("ingest", "sample", "aggregate", *SINKS)
GROWN = ("ingest", "sample")
"""Roles that were measured with more attributes a span, and so more bytes."""
GROWN_COLUMNS = ("Load", "Bytes of a span on disk", *(f"`{role}`, CPU-s per million spans" for role in GROWN))
RESULTS = ("throughput", "sustained", "memory", "attributes", "sweep")
WHOLE_WAY, PACED, MEMORY, ATTRIBUTES, SWEEP = (f"bench/results/{name}.json" for name in RESULTS)
INTERNAL = ("spans", "logs", "untraced.logs", "decisions", "kept.spans", "kept.logs", "points", "samples")

Run = Mapping[str, Any]


def constants(
    whole: Mapping[str, Any],
    paced: Mapping[str, Any],
    memory: Mapping[str, Any],
    grown: Mapping[str, Any],
    sweep: Mapping[str, Any],
) -> dict[str, Any]:
    """What pipeline/operating/measured.json holds, out of these results."""
    runs: Sequence[Run] = whole["runs"]

    def middle(what: Callable[[Run], float]) -> float:
        return _rounded(median(map(what, runs)))

    def constant(name: str, value: float, unit: str, source: str) -> dict[str, Any]:
        return {"name": name, "value": value, "unit": unit, "source": source}

    size = whole["options"]["spans_per_message"]
    table = [
        constant("raw_bytes_per_span", middle(lambda r: _raw(r) / r["load"]["spans"]), "bytes", WHOLE_WAY),
        constant("spans_per_trace", middle(lambda r: r["load"]["spans"] / r["load"]["traces"]), "spans", WHOLE_WAY),
        constant("spans_per_message", size, "spans", WHOLE_WAY),
        constant("kept_share", middle(lambda r: r["kept_spans"] / r["load"]["spans"]), "of the spans", WHOLE_WAY),
    ]
    for role in ROLES:
        spent = middle(lambda r, role=role: r["cpu_seconds_per_million_spans"][role])  # type: ignore[misc]
        table.append(constant(f"cpu.{role}", spent, "CPU-s per million spans read", WHOLE_WAY))
        # What one worker of each took of a second beside its spans: fetches, transactions, requests.
        beside = paced["cpu_seconds_per_second"][role] - spent * paced["options"]["spans_per_second"] / 1e6
        table.append(constant(f"second.{role}", _rounded(max(0.0, beside)), "CPU-s a second of a worker", PACED))
    points = [_grown(series) for series in grown["series"].values()]
    of_each = "CPU-s per million spans and byte of each"
    table += [constant(f"byte.{role}", _slope(points, role), of_each, ATTRIBUTES) for role in GROWN]
    # With `regroup: never` it has what ingest does with them to do as well.
    alone = [_grown(series) for series in sweep["series"].values() if series["options"]["more_attributes"]]
    table.append(constant("direct_byte.sample", _slope(alone, "sample"), of_each, SWEEP))
    most = _rounded(max(point["bytes"] for point in points))
    table.append(constant("most_raw_bytes_per_span", most, "bytes, of the spans with most attributes", ATTRIBUTES))
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


def text(*results: Mapping[str, Any]) -> str:
    """The file's content, out of RESULTS."""
    return json.dumps(constants(*results), indent=2) + "\n"


def grown_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `GROWN_COLUMNS`."""
    rows = []
    for series in sorted(figures["series"].values(), key=lambda series: series["options"]["more_attributes"]):
        found = _grown(series)
        roles = (f"{found[role]:.2f}" for role in GROWN)
        rows.append([", ".join(unusual(series)) or "the usual", f"{found['bytes']:.0f}", *roles])
    return rows


def _grown(series: Mapping[str, Any]) -> dict[str, float]:
    """Bytes of a span in the raw topic on disk, and CPU-s per million spans of each role."""
    runs, spans = series["sides"][TAILRACE], series["options"]["spans"]
    raw = median(sum(run["kafka_bytes"].values()) / run["kafka_bytes_per_raw_byte"] for run in runs)
    used = {role: median(run["cpu_seconds"][role] for run in runs) * 1e6 / spans for role in runs[0]["cpu_seconds"]}
    return {"bytes": raw / spans, **used}


def _slope(points: Sequence[Mapping[str, float]], role: str) -> float:
    """Of the straight line through what a role takes for spans of so many bytes."""
    return _rounded(linear_regression([p["bytes"] for p in points], [p[role] for p in points]).slope)


def _raw(run: Run) -> float:
    """Bytes of the raw topics on the broker's disk, as compressed there."""
    found: float = run["kafka_bytes"]["-raw-spans"] + run["kafka_bytes"]["-raw-logs"]
    return found


def _rounded(value: float) -> float:
    """Three digits: more would say that the next run gives the same."""
    return float(f"{value:.3g}")
