"""Alertmanager reads its configuration, sends each severity where it belongs, and holds no secret."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.repository import ROOT, read_yaml
from tests.services.install import ensure

FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
# Fields that hold a secret or an address that is one; each has a twin that names a file.
SECRETS = {
    "routing_key", "service_key", "api_key", "api_url", "webhook_url", "url", "password", "bot_token", "credentials",
    "auth_password", "smtp_auth_password", "slack_api_url", "opsgenie_api_key", "victorops_api_key", "app_token",
}  # fmt: skip


def _amtool(*arguments: str) -> str:
    command = [str(ensure("alertmanager") / "amtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_alertmanager_accepts_it() -> None:
    assert "SUCCESS" in _amtool("check-config", str(FILE))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "alertname=SinkStuck", "sink=jaeger"], "page"),
        (["severity=ticket", "alertname=TailReadsHigh"], "ticket"),
        (["alertname=from-somebody-else"], "ticket"),
    ],
)
def test_each_severity_reaches_its_receiver(labels: list[str], receiver: str) -> None:
    assert _amtool("config", "routes", "test", f"--config.file={FILE}", *labels) == receiver


def test_every_severity_of_the_rules_has_a_route() -> None:
    groups = read_yaml("deploy/prometheus/rules/tailrace.rules.yml")["groups"]
    severities = {rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    config = read_yaml(FILE)
    assert severities == {receiver["name"] for receiver in config["receivers"]}


def test_a_page_leaves_at_once() -> None:
    """The rest of the way to a notification is in the rules: `interval: 5s` and no `for`."""
    (page,) = [route for route in read_yaml(FILE)["route"]["routes"] if route["receiver"] == "page"]
    assert page["group_wait"] == "1s"


def test_secrets_are_files() -> None:
    assert _keys(read_yaml(FILE)) & SECRETS == set()
    files = {value for key, value in _items(read_yaml(FILE)) if key.endswith("_file")}
    assert files
    assert all(value.startswith("/etc/alertmanager/secrets/") for value in files)


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    children = tree.items() if isinstance(tree, dict) else ((None, child) for child in tree)
    for key, child in children:
        if isinstance(child, dict | list):
            yield from _items(child)
        elif key is not None:
            yield key, child


def _keys(tree: Any) -> set[str]:
    return {key for key, _ in _items(tree)}
