"""docs/how-to/producers.md and the files it shows: each accepted by its program, or parsed; its messages read."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.redaction import Redaction, Redactor
from processors.regroup import Regroup
from schemas.envelope import Envelope
from schemas.formats.jaeger_model import TEXT
from tests.deploy import logstash
from tests.pipeline.kafka import create, fresh, read_all
from tests.repository import ROOT, read_yaml
from tests.services import Collector, Kafka, free_port
from tests.services.install import ensure
from tests.services.process import HOST
from tests.sinks.building import spans_of

PAGE = (ROOT / "docs" / "how-to" / "producers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TIME = 1_792_985_600_123_456_000  # 2026-10-26T03:33:20.123456Z
FILES = {
    "OpenTelemetry Collector": ("yaml", "deploy/otel-collector/config.yaml"),
    "Jaeger": ("yaml", "deploy/jaeger/to-kafka.yaml"),
    "Fluent Bit": ("ini", "deploy/fluent-bit/fluent-bit.conf"),
    "Vector": ("yaml", "deploy/vector/vector.yaml"),
    "Logstash": ("ruby", "deploy/logstash/tailrace.conf"),
}
LOGS = ["Fluent Bit", "Vector", "Logstash"]
INPUTS = yaml.safe_load(re.findall(r"^```yaml\n(kafka:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])["inputs"]


def _blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def _file(section: str) -> str:
    return (ROOT / FILES[section][1]).read_text(encoding="utf-8")


@pytest.mark.parametrize("section", FILES)
def test_what_the_page_shows_is_in_the_file_that_it_links(section: str) -> None:
    language, path = FILES[section]
    (block,) = _blocks(section, language)
    assert f"(../../{path})" in SECTIONS[section]
    lines = {line.strip() for line in _file(section).splitlines()}
    if language == "yaml":
        text = _file(section).replace("${env:KAFKA_BROKERS:-kafka:9092}", "kafka:9092")
        assert _within(yaml.safe_load(block), yaml.safe_load(text))
    else:
        assert {line.strip() for line in block.splitlines()} <= lines


@pytest.mark.parametrize("section", ["OpenTelemetry Collector", "Jaeger"])
def test_a_collector_accepts_the_file_and_the_block(section: str, tmp_path: Path) -> None:
    """The Jaeger binary is a Collector with the same exporter."""
    (block,) = _blocks(section, "yaml")
    for text in (block, _file(section)):
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        command = [str(ensure("jaeger") / "jaeger"), "validate", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


async def test_a_client_of_jaegers_own_protocol_reaches_kafka_through_jaeger(kafka: Kafka) -> None:
    topic, address = fresh("otlp-spans"), f"{HOST}:{free_port()}"
    await create(kafka.bootstrap, {topic: 1})
    config = read_yaml("deploy/jaeger/to-kafka.yaml")
    config["exporters"]["kafka"]["brokers"] = [kafka.bootstrap]
    config["exporters"]["kafka"]["traces"]["topic"] = topic
    del config["receivers"]["otlp"]  # fixed ports; the fixture puts free ones there
    config["receivers"]["jaeger"]["protocols"] = {"grpc": {"endpoint": address}}
    trace = os.urandom(16)
    batch = TEXT["Batch"](process={"service_name": "shop"})
    batch.spans.add(trace_id=trace, span_id=os.urandom(8), operation_name="pay")
    body = batch.SerializeToString()
    with Collector(config):
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans")
            await call(b"\x0a" + bytes([len(body)]) + body, timeout=30, wait_for_ready=True)
    (record,) = await read_all(kafka.bootstrap, topic)
    (found,) = spans_of(TracesData.FromString(record.value).resource_spans)
    assert (found.trace_id, found.name) == (trace, "pay")
    assert [len(envelope) for envelope in _read("traces", "otlp_proto", record.value)] == [1]


def test_fluent_bit_is_told_in_sections_of_keys_and_values() -> None:
    text = _file("Fluent Bit")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"\[(SERVICE|INPUT|FILTER|OUTPUT)\]|    [\w.]+ +\S.*", line) for line in lines)
    parser = configparser.ConfigParser(delimiters=[" "], strict=True, interpolation=None)
    parser.read_string("\n".join(line.strip() if line.startswith("    ") else line for line in lines))
    output = dict(parser["OUTPUT"])
    assert (output["name"], output["format"], output["rdkafka.acks"]) == ("kafka", "json", "all")
    assert output["topics"] == _topic()


def test_vectors_pipeline_leads_from_a_source_to_the_topic() -> None:
    config = read_yaml("deploy/vector/vector.yaml")
    sink = config["sinks"]["tailrace"]
    assert (sink["type"], sink["topic"], sink["encoding"]["codec"]) == ("kafka", _topic(), "json")
    assert sink["librdkafka_options"]["acks"] == "all"
    known = {**config["sources"], **config["transforms"]}
    used = [name for part in (sink, *config["transforms"].values()) for name in part["inputs"]]
    assert set(used) == set(known)


def test_logstashs_pipeline_leads_from_an_input_to_the_topic() -> None:
    plugins = logstash.plugins(_file("Logstash"))
    assert [(plugin.section, plugin.name) for plugin in plugins] == [
        ("input", "beats"),
        ("filter", "mutate"),
        ("filter", "json"),
        ("filter", "mutate"),
        ("output", "kafka"),
    ]
    settings = plugins[-1].settings
    assert (settings["topic_id"], settings["codec"], settings["acks"]) == (_topic(), "json", "all")


def test_no_line_is_sent_beside_its_fields() -> None:
    """A line's own `message` must survive, so the text goes first; without one nothing would overwrite it."""
    source = read_yaml("deploy/vector/vector.yaml")["transforms"]["app"]["source"]
    assert 0 < source.index("is_object(parsed)") < source.index("del(.message)") < source.index("merge!(., parsed)")
    before, parse, after = [p.settings for p in logstash.plugins(_file("Logstash")) if p.section == "filter"]
    line = before["rename"]["message"]
    assert (parse["source"], parse["remove_field"], after["rename"]) == (line, [line], {line: "message"})
    assert "target" not in parse
    assert before["remove_field"] == ["[event][original]"]  # the same text, from Logstash's codec


@pytest.mark.parametrize("section", LOGS)
@pytest.mark.parametrize("kept", [True, False])
def test_a_line_without_message_has_no_secret_left(section: str, kept: bool) -> None:
    """Nor where a shipper keeps the text beside the fields it parsed: with other settings than the files here have."""
    (block,) = _blocks(section, "json")
    line = {"level": "error", "msg": "no funds", "password": "hunter2", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    shippers = json.loads(block)
    text = "log" if section == "Fluent Bit" else "message"
    del shippers[text]
    message = shippers | {"password": "hunter3"} | ({text: json.dumps(line) + "\n"} if kept else line)
    for fields in (message, message | line):
        rules = Redaction(allow_all_keys=True, blocked_key_patterns=["^password$"])
        (envelope,) = _read("logs", "json", json.dumps(fields).encode(), Redactor(rules))
        assert LogRecord.FromString(envelope.row(0)).body.string_value == "no funds"
        assert b"hunter" not in envelope.row(0)


@pytest.mark.parametrize("text", ["output { kafka { a => } }", "output { kafka {", "outputs {}", "input { a => }"])
def test_what_is_no_pipeline_is_none(text: str) -> None:
    with pytest.raises(SyntaxError):
        logstash.plugins(text)


@pytest.mark.parametrize("section", LOGS)
def test_a_message_is_read_as_a_log_of_its_trace(section: str) -> None:
    (message,) = _blocks(section, "json")
    assert json.loads(message)
    (item,) = [i for i in INPUTS if i["topic"] == _topic()]
    (envelope,) = _read(item["signal"], item["encoding"], message.encode())
    record, resource = LogRecord.FromString(envelope.row(0)), _resource(envelope.resources[0])
    assert record.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert record.span_id.hex() == "00f067aa0ba902b7"
    assert (record.body.string_value, record.severity_number) == ("card declined", 17)
    assert record.time_unix_nano == TIME
    assert resource == {"service.name": "checkout"}


def _topic() -> str:
    """The topic of JSON logs."""
    (topic,) = [item["topic"] for item in INPUTS if item.get("encoding") == "json"]
    return str(topic)


def _read(signal: str, encoding: str, value: bytes, redactor: Redactor | None = None) -> list[Envelope]:
    """What ingest makes of a raw message with a trace, of which nothing may be a dead letter."""
    regroup = Regroup("raw", 0, signal, encoding, 1, 1 << 20, 1 << 20, redactor)
    regroup.add(7, 1_000, value)
    flushed = regroup.flush(None, {})
    assert (flushed.dead_letters, flushed.untraced) == ([], [])
    return [Envelope.decode(encoded) for encoded in flushed.envelopes[0]]


def _within(part: Any, whole: Any) -> bool:
    """Whether a tree is in another, with all its values."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _within(part[key], whole[key]) for key in part)
    return bool(part == whole)


def _resource(header: bytes) -> dict[str, str]:
    # Field 1 of ResourceSpans and ResourceLogs: one length-delimited Resource, here shorter than 128 bytes.
    assert header[0] == 0x0A
    resource = Resource.FromString(header[2 : 2 + header[1]])
    return {attribute.key: attribute.value.string_value for attribute in resource.attributes}
