"""deploy/kubernetes: valid for the API server's own schemas, and in agreement with itself and with the roles.

The schemas are closed (deploy/schemas/README.md): a misspelt field is an error here, as with
`kubectl --validate=strict`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.config import Config
from pipeline.configuration.config_file import parse
from pipeline.roles import diagram
from tests.deploy.promql import known_metrics, metrics_in, parse_errors
from tests.repository import ROOT, read_yaml

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = read_yaml("deploy/kubernetes/kustomization.yaml")
SCHEMA: dict[str, Any] = json.loads((ROOT / "deploy" / "schemas" / "kubernetes-1.37.json").read_text(encoding="utf-8"))
OBJECTS: list[dict[str, Any]] = [
    found
    for name in KUSTOMIZATION["resources"]
    for found in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
]
WORKLOADS = [o for o in OBJECTS if o["kind"] in ("StatefulSet", "Deployment", "Job")]
COMMANDS = next(o for o in WORKLOADS if o["metadata"]["name"] == "tailrace-commands")
SERVED = [o for o in WORKLOADS if o["kind"] != "Job" and o is not COMMANDS]  # they have pages
CANARY = next(o for o in SERVED if o["metadata"]["name"] == "tailrace-canary")
WORKERS = [o for o in SERVED if o is not CANARY]
CONFIG_FILE = "/etc/tailrace/tailrace.yaml"
GIB = 1 << 30


def _name(found: dict[str, Any]) -> str:
    return f"{found['kind']}-{found['metadata']['name']}"


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] == kind}


def _pod(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def _container(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = _pod(workload)["containers"]
    assert isinstance(container, dict)
    return container


def _selects(selector: dict[str, str], workload: dict[str, Any]) -> bool:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


def _errors(found: dict[str, Any]) -> list[str]:
    kind = SCHEMA["kinds"][f"{found['apiVersion']}/{found['kind']}"]
    validator = Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]


@pytest.fixture
def config() -> Config:
    """What the workers run with; its secrets stand for files that only a pod has."""
    text = (FOLDER / "tailrace.yaml").read_text(encoding="utf-8")
    return parse(re.sub(r"\$\{file:[^}]+\}", "that is in a file", text), "tailrace.yaml", {})


@pytest.mark.parametrize("found", OBJECTS, ids=_name)
def test_an_object_conforms_to_the_schema(found: dict[str, Any]) -> None:
    assert _errors(found) == []


def test_the_schemas_notice_a_misspelt_field() -> None:
    broken = json.loads(json.dumps(WORKERS[0]))
    _container(broken)["readynessProbe"] = {}
    _pod(broken)["terminationGracePeriodSeconds"] = "60s"
    assert len(_errors(broken)) == 2


def test_every_file_is_used_or_said_not_to_be() -> None:
    used = {*KUSTOMIZATION["resources"], "kustomization.yaml", "tailrace.yaml", "prometheus-adapter.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == used


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it_and_its_output_is_valid() -> None:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    (generated,) = [o for o in built if o["kind"] == "ConfigMap"]
    assert re.fullmatch(r"tailrace-config-[a-z0-9]+", generated["metadata"]["name"])
    for found in built:
        if found is generated:
            continue
        assert _errors(found) == []
        assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
        if found["kind"] in ("StatefulSet", "Deployment", "Job"):
            (volume,) = [v for v in _pod(found)["volumes"] if v["name"] == "config"]
            assert volume["configMap"]["name"] == generated["metadata"]["name"]


def test_every_role_of_the_configuration_runs_once(config: Config) -> None:
    roles = [_container(o)["args"][_container(o)["args"].index("--role") + 1] for o in WORKERS]
    assert sorted(roles) == sorted(role.name for role in diagram(config))


def test_roles_with_state_are_stateful_sets_with_a_service_of_their_own() -> None:
    sets = _of("StatefulSet")
    assert sets.keys() == {"tailrace-sample", "tailrace-aggregate"}
    for name, found in sets.items():
        service = _of("Service")[found["spec"]["serviceName"]]
        assert found["spec"]["serviceName"] == name
        assert service["spec"]["clusterIP"] == "None"
        assert _selects(service["spec"]["selector"], found)


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_a_pod_meets_the_restricted_standard(workload: dict[str, Any]) -> None:
    pod, container = _pod(workload), _container(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("workload", WORKLOADS, ids=_name)
def test_a_pod_mounts_what_it_is_told_to_read(workload: dict[str, Any]) -> None:
    pod, container = _pod(workload), _container(workload)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    (file,) = [word for word in container.get("args", [CONFIG_FILE]) if word.endswith(".yaml")]
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generator["name"]
    assert file == f"{mounts['config']}/{generator['files'][0]}"
    text = (FOLDER / "tailrace.yaml").read_text(encoding="utf-8")
    for secret in re.findall(r"\$\{file:([^}]+)\}|ca_file: (\S+)", text):
        assert "".join(secret).startswith(f"{mounts['secrets']}/")


def test_the_secret_of_the_how_to_holds_every_file_that_is_read() -> None:
    text = (FOLDER / "tailrace.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "how-to" / "deploy-on-kubernetes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"/run/secrets/tailrace/([a-z-.]+)", text)) <= set(re.findall(r"--from-file=(\S+)", page))


@pytest.mark.parametrize("workload", WORKERS, ids=_name)
def test_a_worker_is_probed_and_ends_in_time(workload: dict[str, Any], config: Config) -> None:
    container = _container(workload)
    (port,) = container["ports"]
    assert port["containerPort"] == config.telemetry.port
    assert config.telemetry.host == "0.0.0.0"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    # Leases finish within a session time-out each, groups leave after that.
    assert _pod(workload)["terminationGracePeriodSeconds"] >= 2 * config.kafka.session_timeout


@pytest.mark.parametrize("workload", WORKERS, ids=_name)
def test_a_worker_has_memory_for_its_cache_and_a_limit_that_the_alert_knows(
    workload: dict[str, Any], config: Config
) -> None:
    resources = _container(workload)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"] == {"memory": "2Gi"}
    assert config.sampling.cache_bytes <= 2 * GIB / 4
    groups = read_yaml("deploy/prometheus/rules/tailrace.rules.yml")["groups"]
    (rule,) = [r for group in groups for r in group["rules"] if r["alert"] == "HighMemoryUsage"]
    assert rule["expr"].endswith("> 1.5 * 1024 ^ 3")


@pytest.mark.parametrize("workload", WORKERS, ids=_name)
def test_a_worker_is_disrupted_one_at_a_time(workload: dict[str, Any]) -> None:
    budgets = [
        o for o in _of("PodDisruptionBudget").values() if _selects(o["spec"]["selector"]["matchLabels"], workload)
    ]
    assert [budget["spec"]["maxUnavailable"] for budget in budgets] == [1]
    assert workload["spec"]["selector"]["matchLabels"].items() <= workload["metadata"]["labels"].items()
    assert _selects(workload["spec"]["selector"]["matchLabels"], workload)


def test_no_selector_reaches_another_role() -> None:
    for found in SERVED:
        selector = found["spec"]["selector"]["matchLabels"]
        assert [o["metadata"]["name"] for o in WORKLOADS if _selects(selector, o)] == [found["metadata"]["name"]]


def test_prometheus_finds_all_workers_and_the_canary_and_only_them() -> None:
    selector = _of("Service")["tailrace-metrics"]["spec"]["selector"]
    assert [o for o in WORKLOADS if _selects(selector, o)] == SERVED


def test_commands_run_when_somebody_asks_and_not_in_a_worker() -> None:
    page = (ROOT / "docs" / "how-to" / "deploy-on-kubernetes.md").read_text(encoding="utf-8")
    assert COMMANDS["spec"]["replicas"] == 0
    assert "args" not in _container(COMMANDS)
    execs = re.findall(r"exec [^\n]*?(\S+) --\s+(\S+)", page)
    assert {where for where, _ in execs} == {"deployment/tailrace-commands"}
    assert CONFIG_FILE in page


def test_there_is_one_canary_and_it_is_probed(config: Config) -> None:
    """Two would count each other's spans, so not even for the time of an update."""
    spec, container = CANARY["spec"], _container(CANARY)
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert container["args"][0] == "canary"
    assert config.canary is not None
    (port,) = container["ports"]
    assert (config.canary.host, config.canary.port) == ("0.0.0.0", port["containerPort"])
    assert (
        container["livenessProbe"]["httpGet"]["port"] == container["readinessProbe"]["httpGet"]["port"] == port["name"]
    )
    (scraped,) = _of("Service")["tailrace-metrics"]["spec"]["ports"]
    assert scraped["port"] == port["containerPort"]


@pytest.mark.parametrize("scaler", _of("HorizontalPodAutoscaler").values(), ids=_name)
def test_scaling_follows_the_head_lag_and_stops_at_the_partitions(scaler: dict[str, Any], config: Config) -> None:
    spec = scaler["spec"]
    target = spec["scaleTargetRef"]
    (workload,) = [o for o in WORKERS if (o["kind"], o["metadata"]["name"]) == (target["kind"], target["name"])]
    assert "replicas" not in workload["spec"]
    (metric,) = spec["metrics"]
    assert metric["external"]["metric"]["name"] == "tailrace_head_lag_seconds"
    assert spec["minReplicas"] <= spec["maxReplicas"] <= config.kafka.partitions
    down = spec["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] > config.sampling.late_horizon
    (pace,) = down["policies"]
    assert (pace["type"], pace["value"]) == ("Pods", 1)
    assert pace["periodSeconds"] > 15 * 60, "TakeoversFrequent: a takeover in each quarter of an hour is a loop"


def test_the_adapter_serves_the_metric_that_the_autoscalers_ask_for() -> None:
    (rule,) = read_yaml("deploy/kubernetes/prometheus-adapter.yaml")["rules"]["external"]
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="tailrace"')
    assert parse_errors([query, rule["seriesQuery"]]) == []
    assert metrics_in(query) == metrics_in(rule["seriesQuery"]) == {rule["name"]["as"]} <= known_metrics()


def test_images_are_ours_and_pinned() -> None:
    (image,) = KUSTOMIZATION["images"]
    assert {_container(o)["image"] for o in WORKLOADS} == {f"{image['name']}:{image['newTag']}"}
