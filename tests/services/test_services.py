"""One real round trip per server: what the other tests take for granted."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from tests.services import (
    Collector,
    Elasticsearch,
    Jaeger,
    Kafka,
    Prometheus,
    Server,
    ServerFailed,
    eventually,
    start_collector,
    wait_for,
)
from tests.services.process import spawn

DEADLINE_SECONDS = 20.0
TRACE_ID = bytes.fromhex("5b8efff798038103d269b633813fc60c")
LARGE_TOPIC_BYTES = 34_000_000
EMPTY_STATUS = Status()  # the Collector writes an empty status and scope where there was none
RESOURCE = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="checkout"))])


def request(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body of one HTTP request; JSON unless the headers say otherwise."""
    headers = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text.startswith(b"{") else text


def a_span() -> Span:
    start = time.time_ns()
    end = start + 1_000_000
    return Span(
        trace_id=TRACE_ID,
        span_id=b"12345678",
        name="GET /",
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        status=EMPTY_STATUS,
    )


def a_trace_request() -> ExportTraceServiceRequest:
    scope = ScopeSpans(scope=InstrumentationScope(), spans=[a_span()])
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=RESOURCE, scope_spans=[scope])])


def a_logs_request() -> ExportLogsServiceRequest:
    scope = ScopeLogs(
        scope=InstrumentationScope(),
        log_records=[LogRecord(trace_id=TRACE_ID, body=AnyValue(string_value="card refused"))],
    )
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=RESOURCE, scope_logs=[scope])])


async def create_topics(bootstrap: str, *names: str, configs: dict[str, str] | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs) for name in names])
        assert [error[1] for error in answer.topic_errors] == [0] * len(names), answer
    finally:
        await admin.close()


async def first_value(bootstrap: str, topic: str) -> bytes:
    """The first committed value of a topic with one partition."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    try:

        async def fetch() -> bytes | None:
            batches = await consumer.getmany(timeout_ms=500)
            return next((records[0].value for records in batches.values()), None)

        value = await eventually(fetch, DEADLINE_SECONDS, f"a record in {topic}")
        assert value is not None
        return value
    finally:
        await consumer.stop()


async def test_kafka_shows_committed_transactions_only(kafka: Kafka) -> None:
    await create_topics(kafka.bootstrap, "services-transactions")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="services")
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait("services-transactions", b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait("services-transactions", b"committed")
    finally:
        await producer.stop()
    assert await first_value(kafka.bootstrap, "services-transactions") == b"committed"


async def test_kafka_takes_the_largest_dead_letter(kafka: Kafka) -> None:
    limit = {"max.message.bytes": str(LARGE_TOPIC_BYTES)}
    await create_topics(kafka.bootstrap, "services-large", configs=limit)
    value = os.urandom(LARGE_TOPIC_BYTES - 1000)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=LARGE_TOPIC_BYTES)
    await producer.start()
    try:
        await producer.send_and_wait("services-large", value)
    finally:
        await producer.stop()
    assert await first_value(kafka.bootstrap, "services-large") == value


def test_elasticsearch_refuses_a_second_create(elasticsearch: Elasticsearch) -> None:
    create = b'{"create": {"_index": "services", "_id": "1"}}\n{"body": "card refused"}\n'
    statuses = []
    for _ in range(2):
        _, answer = request("POST", f"{elasticsearch.url}/_bulk?refresh=true", create)
        statuses += [item["create"]["status"] for item in answer["items"]]
    assert statuses == [201, 409]
    _, answer = request("GET", f"{elasticsearch.url}/services/_search?q=body:refused")
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == ["1"]


def test_jaeger_returns_a_trace(jaeger: Jaeger) -> None:
    body = a_trace_request().SerializeToString()
    status, _ = request("POST", f"{jaeger.otlp_http}/v1/traces", body, Content_Type="application/x-protobuf")
    assert status == 200
    status, answer = request("GET", f"{jaeger.query_url}/api/v3/traces/{TRACE_ID.hex()}")
    assert status == 200
    assert answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "GET /"


def test_prometheus_returns_a_remote_write(prometheus: Prometheus) -> None:
    def field(number: int, value: bytes) -> bytes:
        """A length-delimited protobuf field; lengths below 128 only."""
        return bytes([number << 3 | 2, len(value)]) + value

    labels = b"".join(field(1, field(1, key) + field(2, b"services")) for key in (b"__name__", b"job"))
    timestamp, varint = int(time.time() * 1000), bytearray()
    while timestamp >= 128:
        varint.append(timestamp & 127 | 128)
        timestamp >>= 7
    sample = b"\x09" + struct.pack("<d", 42.0) + b"\x10" + bytes([*varint, timestamp])
    status, answer = request(
        "POST",
        prometheus.remote_write_url,
        bytes(cramjam.snappy.compress_raw(field(1, labels + field(2, sample)))),
        Content_Type="application/x-protobuf",
        Content_Encoding="snappy",
        X_Prometheus_Remote_Write_Version="0.1.0",
    )
    assert status == 204, answer
    query = urlencode({"query": 'services{job="services"}'})
    _, answer = request("GET", f"{prometheus.url}/api/v1/query?{query}")
    assert [series["value"][1] for series in answer["data"]["result"]] == ["42"]


@pytest.fixture
async def collector(kafka: Kafka) -> AsyncIterator[Collector]:
    """A Collector that writes to the topics services-spans and services-logs."""
    await create_topics(kafka.bootstrap, "services-spans", "services-logs")
    with start_collector(kafka.bootstrap, "services-spans", "services-logs") as server:
        yield server


async def test_collector_puts_otlp_into_kafka(kafka: Kafka, collector: Collector) -> None:
    protobuf = "application/x-protobuf"
    spans, logs = a_trace_request(), a_logs_request()
    for path, message in (("traces", spans), ("logs", logs)):
        url = f"{collector.otlp_http}/v1/{path}"
        status, answer = request("POST", url, message.SerializeToString(), Content_Type=protobuf)
        assert status == 200, answer
    traces = TracesData.FromString(await first_value(kafka.bootstrap, "services-spans"))
    assert traces.resource_spans == spans.resource_spans
    records = LogsData.FromString(await first_value(kafka.bootstrap, "services-logs"))
    assert records.resource_logs == logs.resource_logs


def test_a_restart_keeps_ports_and_data() -> None:
    with Elasticsearch() as server:
        url = server.url
        request("PUT", f"{url}/services/_doc/1?refresh=true", b"{}")
        for end in (server.stop, server.kill):
            end()
            assert not server.is_running
            server.start()
            assert request("GET", f"{url}/services/_doc/1")[1]["found"]
    assert not server.data.exists()


def test_a_failed_start_shows_the_log() -> None:
    pipelines = {"traces": {"receivers": ["nosuch"], "exporters": ["nop"]}}
    broken = Collector({"exporters": {"nop": {}}, "service": {"pipelines": pipelines}})
    with pytest.raises(ServerFailed, match="nosuch"), broken:
        pass
    assert not broken.data.exists()


@pytest.fixture
def orphan(tmp_path: Path) -> int:
    """The process id of a server whose parent was killed."""
    program = (
        "from tests.services import Prometheus; import time; "
        "print(Prometheus().start().pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to delete the data
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    return pid


def test_servers_die_with_the_tests(orphan: int) -> None:
    assert wait_for(lambda: is_gone(orphan), DEADLINE_SECONDS, f"process {orphan} is gone")


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or it has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Parent(Server):
    """A server whose helper writes into the data for as long as it lives."""

    name = "parent"

    def command(self) -> list[str]:
        """The helper, and a server that does nothing."""
        helper = f"while :; do mkdir -p {self.data}/deep && echo . > {self.data}/deep/file; done"
        return ["sh", "-c", f"({helper}) 2> /dev/null & echo $! > helper; exec sleep 600"]

    def is_ready(self) -> bool:
        """Whether the helper has begun."""
        helper = self.data / "helper"
        return (self.data / "deep" / "file").exists() and helper.exists() and helper.read_text().endswith("\n")

    @property
    def helper(self) -> int:
        """The helper's process id."""
        return int((self.data / "helper").read_text())


def test_what_a_server_has_started_ends_with_it_though_it_ended_before() -> None:
    with Parent() as server:
        helper = server.helper
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not server.is_running, DEADLINE_SECONDS, "the server has ended")
        assert not is_gone(helper)
    assert not server.data.exists()
    assert wait_for(lambda: is_gone(helper), DEADLINE_SECONDS, "the helper is gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    begun, temporary = tmp_path / "begun", tmp_path / "temporary"
    temporary.mkdir()
    test = tmp_path / "test_waits.py"
    test.write_text(
        "import pathlib, signal\n"
        "def test_waits(prometheus):\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    signal.pause()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.services.fixtures", "-p", "no:cacheprovider"]
    run = spawn([*command, str(test)], {"TMPDIR": str(temporary)})
    try:
        wait_for(begun.exists, DEADLINE_SECONDS, "the test has a server")
        assert [path.name for path in temporary.glob("tailrace-*")]
        run.send_signal(number)
        assert run.wait(DEADLINE_SECONDS) == pytest.ExitCode.INTERRUPTED
    finally:
        run.kill()
        run.wait()
    assert not list(temporary.glob("tailrace-*"))
