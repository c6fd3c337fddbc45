"""What a PromQL expression says, for checks of rules and dashboards."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from pipeline.config import SpanMetrics
from pipeline.telemetry import METRICS
from processors.span_metrics import span_metric_names
from tests.services.install import ensure

_HISTOGRAM = ("_bucket", "_sum", "_count")
# What Prometheus says about a target, and prometheus_client's ProcessCollector about the process.
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
_WORDS = {"and", "or", "unless", "offset", "bool", "Inf", "NaN"}
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NOT_NAMES = re.compile(r"\"[^\"]*\"|'[^']*'|\{[^}]*\}|\[[^\]]*\]")
_NUMBERS = re.compile(r"(?<![\w:])[0-9][\w.]*")
_NAMES = re.compile(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()")


def known_metrics() -> set[str]:
    """Every series name that Tailrace exposes or writes with its default configuration."""
    defaults = SpanMetrics()
    spans = span_metric_names(defaults.namespace, defaults.dimensions, defaults.buckets_ms)
    names = {m.name for m in METRICS if m.kind != "histogram"} | {spans.calls} | OTHERS
    histograms = [*(m.name for m in METRICS if m.kind == "histogram"), spans.duration]
    return names | {f"{name}{suffix}" for name in histograms for suffix in _HISTOGRAM}


def metrics_in(expression: str) -> set[str]:
    """The metric names that an expression selects.

    >>> sorted(metrics_in('sum by (a) (rate(b_total{c="d"}[5m])) / on (a) e > 0.5 or f offset 5m'))
    ['b_total', 'e', 'f']
    """
    bare = _NUMBERS.sub("", _LABELS.sub(" ", _NOT_NAMES.sub(" ", expression)))
    return set(_NAMES.findall(bare)) - _WORDS


def parse_errors(expressions: Iterable[str]) -> list[str]:
    """What promtool says about those that are not PromQL."""
    promtool = ensure("prometheus") / "promtool"
    errors = []
    for expression in expressions:
        command = [str(promtool), "promql", "format", "--experimental", expression]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors.append(f"{expression}: {done.stderr.strip()}")
    return errors
