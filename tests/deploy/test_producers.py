"""docs/how-to/producers.md: what it shows is what the producer accepts, or what the formats read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from schemas.formats.json_logs import LogRow, parse
from tests.repository import ROOT
from tests.services.install import ensure

PAGE = (ROOT / "docs" / "how-to" / "producers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TIME = 1_792_985_600_123_456_000  # 2026-10-26T03:33:20.123456Z


def _blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("section", ["OpenTelemetry Collector", "Jaeger"])
def test_a_collector_accepts_the_block(section: str, tmp_path: Path) -> None:
    """The Jaeger binary is a Collector with the same exporter."""
    (block,) = _blocks(section, "yaml")
    file = tmp_path / "config.yaml"
    file.write_text(block, encoding="utf-8")
    command = [str(ensure("jaeger") / "jaeger"), "validate", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("section", ["Fluent Bit", "Vector", "Logstash"])
def test_a_message_is_read_as_a_log_of_its_trace(section: str) -> None:
    (message,) = _blocks(section, "json")
    assert json.loads(message)
    (row,) = parse(message.encode())
    assert isinstance(row, LogRow)
    record, resource = LogRecord.FromString(row.record), _resource(row.resource)
    assert row.trace_id.hex() == record.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert record.span_id.hex() == "00f067aa0ba902b7"
    assert (record.body.string_value, record.severity_number) == ("card declined", 17)
    assert record.time_unix_nano == TIME
    assert resource == {"service.name": "checkout"}


@pytest.mark.parametrize("section", ["Fluent Bit", "Vector", "Logstash"])
def test_a_block_writes_to_the_topic_that_is_read_and_waits_for_all_replicas(section: str) -> None:
    (inputs,) = re.findall(r"^```yaml\n(kafka:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (topic,) = [i["topic"] for i in yaml.safe_load(inputs)["inputs"] if i.get("encoding") == "json"]
    (block,) = [block for language in ("ini", "yaml", "ruby") for block in _blocks(section, language)]
    assert topic in block
    assert re.search(r"acks\W+all", block)


def _resource(header: bytes) -> dict[str, str]:
    # Field 1 of ResourceSpans and ResourceLogs: one length-delimited Resource, here shorter than 128 bytes.
    assert header[0] == 0x0A
    resource = Resource.FromString(header[2 : 2 + header[1]])
    return {attribute.key: attribute.value.string_value for attribute in resource.attributes}
