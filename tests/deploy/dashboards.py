"""The queries of the shipped dashboards, as Grafana sends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config import SpanMetrics
from tests.repository import ROOT

FOLDER = ROOT / "deploy" / "grafana" / "provisioning" / "dashboards"
RATE_INTERVAL = "1m"  # Grafana's own: four scrape intervals of 15 s


def dashboards() -> dict[Path, dict[str, Any]]:
    """Each dashboard by its file."""
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something, of all dashboards."""
    return [panel for found in dashboards().values() for panel in found["panels"] if panel["type"] != "row"]


def queries(job: str = ".*", namespace: str = "") -> list[tuple[str, str]]:
    """Panel title and PromQL, variables filled in: every service is selected, and rates look back RATE_INTERVAL.

    `namespace`: what `metrics.span_metrics.namespace` is, if not the default, which the dashboards have.
    """
    variables = {"$__rate_interval": RATE_INTERVAL, "$job": job, "$service": ".*"}
    if namespace:
        variables[SpanMetrics().namespace] = namespace
    found = []
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in variables.items():
                expression = expression.replace(variable, value)
            found.append((panel["title"], expression))
    return found
