"""The Grafana dashboards: their queries are PromQL on metrics that exist, and every panel says what it shows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.deploy.dashboards import FOLDER, dashboards, panels, queries
from tests.deploy.promql import known_metrics, metrics_in, parse_errors
from tests.repository import ROOT, read_yaml

QUERIES = queries()


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


def test_the_data_source_is_the_provisioned_one() -> None:
    sources = read_yaml("deploy/grafana/provisioning/datasources/tailrace.yaml")["datasources"]
    uids = {source["uid"] for source in sources}
    for board in dashboards().values():
        used = [p["datasource"] for p in panels()] + [v["datasource"] for v in board["templating"]["list"]]
        assert {source["uid"] for source in used} <= uids


def test_alerts_lead_to_a_dashboard_that_grafana_loads() -> None:
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/tailrace.yaml")["providers"]
    mounted = provider["options"]["path"].replace("/etc/grafana/", "deploy/grafana/")
    assert ROOT / mounted == FOLDER
    paths = {f"/d/{board['uid']}" for board in dashboards().values()}
    groups = read_yaml("deploy/prometheus/rules/tailrace.rules.yml")["groups"]
    assert {rule["annotations"]["dashboard"] for group in groups for rule in group["rules"]} <= paths
