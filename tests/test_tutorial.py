"""docs/tutorial.md, done: its configuration and its commands, on real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.demo.send import send
from pipeline.demo.traffic import Traffic
from tests.end_to_end.harness import Worker
from tests.repository import ROOT, python_path, read_yaml
from tests.services import Collector, Elasticsearch, Jaeger, Kafka, Prometheus, eventually

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 90.0
TRAFFIC_SECONDS = 3.0


@pytest.fixture
def kafka_of_its_own() -> Iterator[Kafka]:
    """The tutorial's raw topics have fixed names."""
    with Kafka() as server:
        yield server


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)


def commands(start: str) -> list[list[str]]:
    """The arguments of every command of the tutorial that begins with these words, in order."""
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line[: len(start.split())] == start.split()]


def tailrace(arguments: list[str], folder: Path, expected: int = 0) -> str:
    """Run `tailrace …` from this checkout; what it printed."""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def answer(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_a_mistake_is_found(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "shop.yaml").write_text(text, encoding="utf-8")
    (check,) = [command for command in commands("tailrace check") if "--connect" not in command]
    tailrace(check[1:], tmp_path)
    (tmp_path / "shop.yaml").write_text(text.replace("type: latency", "type: latancy"), encoding="utf-8")
    assert "did you mean latency?" in tailrace(check[1:], tmp_path, expected=78)


async def test_from_nothing_to_kept_traces(
    kafka_of_its_own: Kafka, jaeger: Jaeger, elasticsearch: Elasticsearch, prometheus: Prometheus, tmp_path: Path
) -> None:
    kafka = kafka_of_its_own
    (text,) = blocks("yaml")
    for address, real in {
        "localhost:9092": kafka.bootstrap,
        "http://localhost:14318": jaeger.otlp_http,
        "http://localhost:9200": elasticsearch.url,
        "http://localhost:9090": prometheus.url,
    }.items():
        assert address in text
        text = text.replace(address, real)
    # Not the tutorial's, but several tests may run on one machine.
    text += "telemetry:\n  port: ${TELEMETRY_PORT:-0}\nmetrics:\n  span_metrics: {namespace: tutorial}\n"
    (tmp_path / "shop.yaml").write_text(text, encoding="utf-8")

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    raw = [NewTopic(line[line.index("--topic") + 1], 4, 1) for line in commands("kafka-topics.sh")]
    await admin.create_topics(raw)
    await admin.close()
    (create,) = commands("tailrace topics")
    tailrace(create[1:], tmp_path)
    (check,) = [command for command in commands("tailrace check") if "--connect" in command]
    tailrace(check[1:], tmp_path)

    collector_config = read_yaml("deploy/otel-collector/config.yaml")
    del collector_config["receivers"]
    collector_config["exporters"]["kafka"]["brokers"] = [kafka.bootstrap]
    (worker,) = commands("tailrace worker")
    roles = worker[worker.index("--role") + 1].split(",")
    messages = [m for m in Traffic(3, 300, TRAFFIC_SECONDS, time.time_ns(), 10).messages() if not m.dead_letters]
    failed = {log.trace_id.hex() for m in messages for log in m.logs if log.error and log.trace_id}
    failed &= {span.trace_id.hex() for m in messages for span in m.spans if span.status == 2}
    with Collector(collector_config) as collector, Worker(tmp_path / "shop.yaml", roles):
        await send(messages, collector.otlp_http)
        one = min(failed)

        async def logs() -> list[Any]:
            stream, there = f"{elasticsearch.url}/logs-tailrace-default", "ignore_unavailable=true"
            query = {"query": {"bool": {"filter": [{"term": {"trace_id": one}}]}}}
            answer(f"{stream}/_refresh?{there}")
            return list(answer(f"{stream}/_search?{there}", query)["hits"]["hits"])

        async def counted() -> bool:
            query = quote("sum(tutorial_calls_total) by (service_name)")
            found = answer(f"{prometheus.url}/api/v1/query?query={query}")["data"]["result"]
            return sum(float(series["value"][1]) for series in found) == sum(len(m.spans) for m in messages)

        assert await eventually(logs, DEADLINE_SECONDS, f"logs of the failed trace {one}")
        assert await eventually(counted, DEADLINE_SECONDS, "every span is counted")
    trace = answer(f"{jaeger.query_url}/api/v3/traces/{one}")["result"]["resourceSpans"]
    spans = [span for resource in trace for scope in resource["scopeSpans"] for span in scope["spans"]]
    assert {span["spanId"] for span in spans} == {
        span.span_id.hex() for m in messages for span in m.spans if span.trace_id.hex() == one
    }
    for span in spans:
        attributes = {item["key"]: item["value"].get("stringValue") for item in span["attributes"]}
        assert attributes["tailsampling.policy"] == "errors"
