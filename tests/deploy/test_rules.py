"""The alerts: promtool runs their cases, and each has a runbook and what a notification needs."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import known_metrics, metrics_in, parse_errors
from tests.repository import ROOT, committed, read_yaml
from tests.services.install import ensure

RULES = "deploy/prometheus/rules/tailrace.rules.yml"
CASES = sorted((ROOT / "tests" / "deploy" / "rules").glob("*.yml"))
GROUPS: list[dict[str, Any]] = read_yaml(RULES)["groups"]
ALERTS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
NAMES = sorted({alert["alert"] for alert in ALERTS})
HEADINGS = ["What it means", "First look", "What to do"]


def _promtool(*arguments: str) -> None:
    command = [str(ensure("prometheus") / "promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_rules() -> None:
    _promtool("check", "rules", str(ROOT / RULES))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent_as_the_cases_say(cases: Any) -> None:
    _promtool("test", "rules", str(cases))


def test_every_alert_has_a_case_for_firing_and_one_for_silence() -> None:
    seen: defaultdict[str, set[bool]] = defaultdict(set)
    for path in CASES:
        for case in read_yaml(path)["tests"]:
            for check in case["alert_rule_test"]:
                seen[check["alertname"]].add(bool(check["exp_alerts"]))
    assert dict(seen) == {name: {True, False} for name in NAMES}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_uses_metrics_that_exist(alert: dict[str, Any]) -> None:
    found = metrics_in(alert["expr"])
    assert found
    assert found <= known_metrics()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_says_how_urgent_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook", "dashboard"}
    assert notes["runbook"] == f"docs/runbooks/{alert['alert']}.md"


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_answers_three_questions(name: str) -> None:
    page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("page", committed("docs/*.md"), ids=lambda page: page.stem)
def test_queries_in_the_documents_are_promql_on_metrics_that_exist(page: Path) -> None:
    queries = re.findall(r"^```promql\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert parse_errors(queries) == []
    for query in queries:
        assert metrics_in(query) <= known_metrics(), query


def test_the_how_to_makes_a_prometheus_rule_of_them(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "deploy-on-kubernetes.md").read_text(encoding="utf-8")
    (addressed,) = re.findall(r"^```sh\n(sed .*?)^```", page, re.MULTILINE | re.DOTALL)
    (wrapped,) = re.findall(r"^```sh\n(\{\n.*?\}) \| kubectl apply --filename -$", page, re.MULTILINE | re.DOTALL)
    script = addressed.replace("deploy/", f"{ROOT}/deploy/") + wrapped
    done = subprocess.run(["sh", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    made = yaml.safe_load(done.stdout)
    assert (made["kind"], made["spec"].keys()) == ("PrometheusRule", {"groups"})
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert [rule["expr"] for rule in rules] == [alert["expr"] for alert in ALERTS]
    for rule in rules:
        assert rule["annotations"]["runbook_url"].startswith("https://")
        assert rule["annotations"]["dashboard"].startswith("https://")


def test_there_is_no_runbook_without_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages - {"README"} == set(NAMES)


def test_prometheus_loads_the_rules_and_sends_alerts() -> None:
    config = read_yaml("deploy/prometheus/prometheus.yml")
    folder = ROOT / "deploy" / "prometheus"
    assert ROOT / RULES in [path for pattern in config["rule_files"] for path in folder.glob(pattern)]
    assert config["alerting"]["alertmanagers"]
