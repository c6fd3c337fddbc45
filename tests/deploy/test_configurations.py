"""The configuration files under deploy/, each read by the program it is for or checked against its own rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.commands.console import EX_CONFIG
from pipeline.commands.worker import worker
from pipeline.config import Config
from pipeline.configuration.config_file import load, parse
from pipeline.roles import diagram
from tests.repository import ROOT, committed, read_yaml
from tests.services.install import ensure

TOLD = "from the environment"
SERVICES: dict[str, Any] = read_yaml("docker-compose.yml")["services"]


@pytest.mark.parametrize("path", committed("*.yaml", "*.yml"), ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_parses(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", committed("deploy/*.json"), ids=lambda path: str(path.relative_to(ROOT)))
def test_json_parses(path: Path) -> None:
    assert json.loads(path.read_text(encoding="utf-8"))


def test_the_configuration_of_the_roles_is_valid() -> None:
    config = load(
        ROOT / "deploy" / "compose" / "tailrace.yaml", dict.fromkeys(("ELASTIC_PASSWORD", "TAILRACE_TOKEN"), TOLD)
    )
    assert config.sinks.keys() == {"jaeger", "elasticsearch", "prometheus"}


def test_the_configuration_for_keyed_topics_is_valid_and_has_no_ingest() -> None:
    text = (ROOT / "deploy" / "tailrace-keyed.yaml").read_text(encoding="utf-8")
    config = parse(re.sub(r"\$\{file:[^}]+\}", "that is in a file", text), "tailrace-keyed.yaml", {})
    assert config.regroup == "never"
    assert [role.name for role in diagram(config)][:2] == ["sample", "aggregate"]


def test_the_collector_writes_what_the_roles_read() -> None:
    exporter = read_yaml("deploy/otel-collector/config.yaml")["exporters"]["kafka"]
    inputs = read_yaml("deploy/compose/tailrace.yaml")["inputs"]
    assert {(i["topic"], i["signal"]) for i in inputs} == {
        (exporter[signal]["topic"], signal) for signal in ("traces", "logs", "metrics")
    }
    script = (ROOT / "deploy" / "kafka" / "create-raw-topics.sh").read_text(encoding="utf-8")
    assert all(i["topic"] in script for i in inputs)


def test_jaeger_accepts_its_configuration(tmp_path: Path) -> None:
    mounted = (ROOT / "deploy" / "jaeger" / "config.yaml").read_text(encoding="utf-8")
    file = tmp_path / "config.yaml"
    file.write_text(mounted.replace("/etc/jaeger", str(ROOT / "deploy" / "jaeger")), encoding="utf-8")
    _accepts(ensure("jaeger") / "jaeger", "validate", "--config", file)


def test_a_collector_accepts_the_configuration_of_the_collector() -> None:
    """The Jaeger binary is a Collector, an older one, with the same Kafka exporter."""
    _accepts(ensure("jaeger") / "jaeger", "validate", "--config", ROOT / "deploy" / "otel-collector" / "config.yaml")


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """With the secret of docker-compose.yml where a container has it."""
    (secret,) = SERVICES["prometheus"]["secrets"]
    mounted = tmp_path / secret
    mounted.write_text(TOLD)
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    assert f"/run/secrets/{secret}" in text
    shutil.copytree(ROOT / "deploy" / "prometheus" / "rules", tmp_path / "rules")
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace(f"/run/secrets/{secret}", str(mounted)))
    _accepts(ensure("prometheus") / "promtool", "check", "config", file)


def test_prometheus_scrapes_every_worker() -> None:
    jobs = {job["job_name"]: job for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    workers = {name for name, service in SERVICES.items() if service.get("command", [])[:1] == ["worker"]}
    port = Config.model_fields["telemetry"].default.port
    assert set(jobs["tailrace"]["static_configs"][0]["targets"]) == {f"{name}:{port}" for name in workers}


def test_grafana_links_trace_logs_and_metrics_by_uids_that_exist() -> None:
    sources = read_yaml("deploy/grafana/provisioning/datasources/tailrace.yaml")["datasources"]
    uids = {source["uid"]: source for source in sources}
    assert uids.keys() == {"jaeger", "elasticsearch", "prometheus"}
    links = {uid: set(_values(source["jsonData"], "datasourceUid")) for uid, source in uids.items()}
    assert links == {"jaeger": {"elasticsearch", "prometheus"}, "elasticsearch": {"jaeger"}, "prometheus": {"jaeger"}}


def test_grafana_expands_only_what_compose_gives_it() -> None:
    """A single dollar is an environment variable in a provisioning file; Grafana's own variables need two."""
    for path in (ROOT / "deploy" / "grafana" / "provisioning").rglob("*.yaml"):
        code = re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        expanded = set(re.findall(r"(?<!\$)\$\{?(\w+)", code))
        assert expanded <= SERVICES["grafana"]["environment"].keys(), path


@pytest.mark.parametrize("role", ["sink.jaeger", "sink.otlp/eu-west", "ingest,sample"])
def test_the_service_runs_a_role_and_stops_as_workers_do(role: str) -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "systemd" / "tailrace@.service", encoding="utf-8")
    service = unit["Service"]
    escaped = re.sub(r"[^\w./]", lambda found: rf"\x{ord(found[0]):02x}", role).replace("/", "-")  # as systemd-escape
    program, *words = service["ExecStart"].replace("%i", escaped).replace("%I", role).split()
    assert program.endswith("/bin/tailrace")
    options = worker.make_context("worker", words[1:]).params
    assert words[0] == "worker"
    assert options["names"] == role.split(",")
    files = service["EnvironmentFile"].replace("%i", escaped).replace("%I", role)
    assert files == f"-/etc/tailrace/{escaped}.environment", "a slash would be a folder"
    assert int(service["RestartPreventExitStatus"]) == EX_CONFIG
    assert int(service["LimitNOFILE"]) > 1024, "leases have connections of their own"
    sample, *_ = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "sample.yaml").read_text(encoding="utf-8"))
    pod = sample["spec"]["template"]["spec"]
    assert int(service["TimeoutStopSec"]) == pod["terminationGracePeriodSeconds"]
    assert service["MemoryMax"] + "i" == pod["containers"][0]["resources"]["limits"]["memory"]


def _accepts(program: Path, *arguments: str | Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _values(tree: Any, key: str) -> list[str]:
    """Every value of `key`, at any depth."""
    if isinstance(tree, dict):
        here = [tree[key]] if key in tree else []
        return here + [value for child in tree.values() for value in _values(child, key)]
    if isinstance(tree, list):
        return [value for child in tree for value in _values(child, key)]
    return []
