"""docker-compose.yml and the Dockerfile: what can be known of them without running them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.repository import ROOT, read_yaml

COMPOSE = read_yaml("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PINNED = re.compile(r"[a-z0-9./_-]+:v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?")
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")


def test_it_conforms_to_the_compose_specification() -> None:
    schema = json.loads((ROOT / "deploy" / "schemas" / "compose-spec.json").read_text(encoding="utf-8"))
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(COMPOSE)]
    assert errors == []


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"]), SERVICES[name]["image"]


def test_the_dockerfile_pins_its_base_and_is_not_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) >= 2
    assert len(set(bases)) == 1
    assert PINNED.fullmatch(bases[0])
    assert re.search(r"^USER [1-9]\d*(:[1-9]\d*)?$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.MULTILINE)


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M) for word in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed, name


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_has_a_default(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if "PASSWORD" in key or "TOKEN" in key:
            assert REQUIRED.fullmatch(value), f"{key} must be required from the environment"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_can_happen(name: str) -> None:
    for other, rule in SERVICES[name].get("depends_on", {}).items():
        target = SERVICES[other]
        if rule["condition"] == "service_healthy":
            assert other in OURS or "healthcheck" in target, f"{other} says nothing about its health"
        if rule["condition"] == "service_completed_successfully":
            assert target.get("restart", "no") == "no", f"{other} would be started again and never complete"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source


def test_every_role_of_the_configuration_runs_once() -> None:
    sinks = read_yaml("deploy/compose/tailrace.yaml")["sinks"]
    run = [role for command in _workers() for role in command[command.index("--role") + 1].split(",")]
    assert sorted(run) == sorted(["ingest", "sample", "aggregate", *(f"sink.{name}" for name in sinks)])


@pytest.mark.parametrize("name", SERVICES)
def test_addresses_in_what_is_mounted_name_services(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = ROOT / volume.split(":")[0]
        for path in [source] if source.is_file() else sorted(source.rglob("*.yaml")):
            called = re.findall(r"https?://([a-z-]+):\d", path.read_text(encoding="utf-8"))
            assert {*called} <= {*SERVICES, "localhost"}, path


def _workers() -> Iterator[list[str]]:
    for name in sorted(OURS):
        command = SERVICES[name].get("command", [])
        if command[:1] == ["worker"]:
            yield command
