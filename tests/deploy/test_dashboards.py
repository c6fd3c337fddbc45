"""The Grafana dashboards: their queries are PromQL on metrics that exist, and every panel says what it shows."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SpanMetrics
from pipeline.telemetry import METRICS
from processors.span_metrics import IDENTITY, span_metric_names
from tests.deploy.dashboards import FOLDER, dashboards, panels, queries
from tests.deploy.promql import known_metrics, metrics_in, parse_errors
from tests.repository import ROOT, read_yaml
from tests.services.install import ensure

QUERIES = queries()
# What a label can be; others have one value.
VALUES = {
    "role": ("ingest", "sample", "aggregate", "sink.jaeger"),
    "verdict": ("kept", "dropped"),
    "reason": ("retention", "malformed"),
    "outcome": ("committed", "failed", "accepted"),
    "span_kind": ("SPAN_KIND_SERVER",),
    "status_code": ("STATUS_CODE_UNSET", "STATUS_CODE_ERROR"),
}


def test_queries_are_promql() -> None:
    assert QUERIES
    assert parse_errors(expression for _, expression in QUERIES) == []


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_uses_metrics_that_exist(title: str, expression: str) -> None:
    assert "$" not in expression
    found = metrics_in(expression)
    assert found
    assert found <= known_metrics()


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_a_description_and_a_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    for runbook in re.findall(r"Runbook: (\w+)\.", panel["description"]):
        assert (ROOT / "docs" / "runbooks" / f"{runbook}.md").exists()


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    for board in dashboards().values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))


def test_the_data_source_is_chosen_and_the_provisioned_one_is_the_default() -> None:
    """Whoever imports a dashboard has a Prometheus of another name."""
    sources = read_yaml("deploy/grafana/provisioning/datasources/tailrace.yaml")["datasources"]
    for board in dashboards().values():
        chosen, *variables = board["templating"]["list"]
        assert (chosen["name"], chosen["type"]) == ("datasource", "datasource")
        assert [s["type"] for s in sources if s.get("isDefault")] == [chosen["query"]]
        used = [v["datasource"] for v in variables]
        for panel in board["panels"]:
            used += (
                [panel["datasource"], *(t["datasource"] for t in panel["targets"])] if panel["type"] != "row" else []
            )
        assert all(found == {"type": chosen["query"], "uid": "${datasource}"} for found in used)


def test_alerts_lead_to_a_dashboard_that_grafana_loads() -> None:
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/tailrace.yaml")["providers"]
    mounted = provider["options"]["path"].replace("/etc/grafana/", "deploy/grafana/")
    assert ROOT / mounted == FOLDER
    paths = {f"/d/{board['uid']}" for board in dashboards().values()}
    groups = read_yaml("deploy/prometheus/rules/tailrace.rules.yml")["groups"]
    assert {rule["annotations"]["dashboard"] for group in groups for rule in group["rules"]} <= paths


def test_what_expired_is_counted_as_the_alert_counts_it() -> None:
    """Also what a worker counted before it was first scraped, while it took its partitions over."""
    groups = read_yaml("deploy/prometheus/rules/tailrace.rules.yml")["groups"]
    (alert,) = (rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == "RecordsExpired")
    (shown,) = (query for title, query in QUERIES if title == "Records expired in the last hour")
    expected = alert.replace("sum by (job, signal) ", "sum").replace("[15m]", "[1h]").replace("< 900", "< 3600")
    expected = expected.removesuffix(" > 0") + " or vector(0)"
    assert re.sub(r"\s", "", expected) == re.sub(r'\s|job=~"[^"]*",', "", shown)


def test_every_query_finds_something_when_all_metrics_are_there(tmp_path: Path) -> None:
    """promtool loads one growing series per combination of these label values and evaluates each query."""
    defaults = SpanMetrics()
    spans = span_metric_names(defaults.namespace, defaults.dimensions, defaults.buckets_ms)
    exposed: list[tuple[str, str, tuple[str, ...]]] = [(m.name, m.kind, m.labels) for m in METRICS]
    exposed += [(spans.calls, "counter", IDENTITY), (spans.duration, "histogram", IDENTITY)]
    exposed += [("process_resident_memory_bytes", "gauge", ()), ("process_cpu_seconds_total", "counter", ())]
    series = [
        {"series": one, "values": "1+1x40"} for name, kind, labels in exposed for one in _series(name, kind, labels)
    ]
    checks = [
        {"expr": f"count({expression}) > bool 0", "eval_time": "9m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for _, expression in QUERIES
    ]
    case = {"interval": "15s", "input_series": series, "promql_expr_test": checks}
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [case]}), encoding="utf-8")
    command = [str(ensure("prometheus") / "promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _series(name: str, kind: str, labels: Sequence[str]) -> Iterator[str]:
    for values in itertools.product(*(VALUES.get(label, ("some",)) for label in labels)):
        pairs = ["job='tailrace'", "instance='a'", *(f"{k}='{v}'" for k, v in zip(labels, values, strict=True))]
        if kind == "histogram":
            for bound in ("1", "+Inf"):
                bucket = [*pairs, f"le='{bound}'"]
                yield f"{name}_bucket{{{','.join(bucket)}}}"
        else:
            yield f"{name}{{{','.join(pairs)}}}"
