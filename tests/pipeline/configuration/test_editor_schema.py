"""The schema for editors takes every example of the repository and refuses what a person mistypes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft7Validator

from pipeline.cli import cli
from pipeline.config import Config
from pipeline.configuration.editor_schema import schema
from tests.pipeline.configs import MINIMAL
from tests.repository import ROOT, committed

VALIDATOR = Draft7Validator(schema())
MODELINE = re.compile(r"^# yaml-language-server: \$schema=(\S+)\n")
FILES = [path for path in committed("deploy/*.yaml") if "\nsampling:" in path.read_text(encoding="utf-8")]
BLOCKS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}-{n}")
    for page in committed("*.md")
    for n, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    if text.startswith("kafka:")
]


def errors(data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(schema())
    assert "title" not in json.dumps(schema()["$defs"])


@pytest.mark.parametrize("text", BLOCKS)
def test_it_takes_the_examples_of_the_documents(text: str) -> None:
    assert errors(yaml.safe_load(text)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_takes_the_files_in_deploy_and_they_name_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert errors(yaml.safe_load(text)) == []
    named = MODELINE.match(text)
    assert named
    assert (path.parent / named[1]).resolve() == ROOT / "docs" / "reference" / "tailrace.schema.json"


def test_there_are_such_files() -> None:
    assert {path.parent.name for path in FILES} == {"deploy", "compose", "kubernetes"}
    assert BLOCKS


def test_the_command_prints_what_is_committed() -> None:
    """That the committed file is current is tests/pipeline/configuration/test_reference.py's."""
    printed = CliRunner().invoke(cli, ["config", "schema"]).output
    assert printed == (ROOT / "docs" / "reference" / "tailrace.schema.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("sampling", "decision_wate", "30s"),
        ("sampling", "decision_wait", 30),
        ("sampling", "decision_wait", "30 seconds"),
        ("sampling", "compat", "Otel"),
        ("kafka", "partitions", 0),
        ("kafka", "partitions", "many"),
        ("kafka", "bootstrap_servers", 9092),
        ("kafka", "start", True),
    ],
)
def test_it_refuses(section: str, key: str, value: Any) -> None:
    assert errors(MINIMAL | {section: MINIMAL[section] | {key: value}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("sampling", "decision_wait", "1m30s"),
        ("sampling", "decision_wait", "${WAIT:-30s}"),
        ("kafka", "partitions", "${N}"),
        ("kafka", "bootstrap_servers", "a:1,b:2"),
        ("kafka", "security", {"password": "${file:/run/secrets/password}"}),
    ],
)
def test_it_takes(section: str, key: str, value: Any) -> None:
    assert errors(MINIMAL | {section: MINIMAL[section] | {key: value}}) == []


def test_every_key_has_its_meaning() -> None:
    for name, definition in schema()["$defs"].items():
        for key, found in definition.get("properties", {}).items():
            assert found.get("description"), f"{name}.{key}"
    assert schema()["properties"].keys() == Config.model_fields.keys()
