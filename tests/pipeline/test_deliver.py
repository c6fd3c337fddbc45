"""The sink role on a real Kafka into real destinations: nothing lost, nothing twice, each sink by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline import deliver
from pipeline.config import Config
from pipeline.kafka import topics as internal
from pipeline.kafka.consume import Group
from pipeline.kafka.topics import Topics
from pipeline.sending.offsets import COMMIT_EVERY, Offsets
from pipeline.sending.settlement import STANDS
from pipeline.telemetry import REGISTRY
from pipeline.worker import running
from schemas.envelope import Envelope, RowVerdict
from schemas.sample import Tick
from tests.faults.proxy import spans_in
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import (
    DEADLINE,
    committed,
    create,
    dies_before_it_commits,
    expired,
    forget,
    fresh,
    producing,
    read_all,
)
from tests.pipeline.processes import Processes
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus, eventually, free_port, start_collector
from tests.services.process import HOST
from tests.sinks import faulty
from tests.sinks.building import counter, envelope, key_values, log, now_ms, span, spans_of

KEPT = RowVerdict(kept=True, policy="all")


class Setup:
    """The internal topics of one pipeline, and sinks that read them."""

    def __init__(self, kafka: Kafka, sinks: dict[str, dict[str, Any]], **fields: Any) -> None:
        self.raw = {
            **MINIMAL,
            "kafka": {
                "bootstrap_servers": [kafka.bootstrap],
                "prefix": fresh("deliver"),
                "session_timeout": "6s",
                "heartbeat_interval": "500ms",
                "commit_interval": "200ms",
            },
            "sinks": {
                name: {
                    "batch": {"max_age": "100ms", "max_items": 50},
                    "retry": {"initial_interval": "100ms", "max_interval": "500ms"},
                    "timeout": "5s",
                    **settings,
                }
                for name, settings in sinks.items()
            },
            "telemetry": {"port": 0},
            **fields,
        }
        self.config = Config.model_validate(self.raw)
        self.topics = Topics(self.config.kafka.prefix)
        self.bootstrap = kafka.bootstrap

    async def create(self) -> Setup:
        assert await internal.ensure(self.config) == []
        return self

    def producer(self, transactional_id: str | None = None) -> AbstractAsyncContextManager[AIOKafkaProducer]:
        return producing(self.bootstrap, transactional_id)

    async def write(self, topic: str, values: Sequence[bytes]) -> None:
        """Spread over all partitions."""
        async with self.producer() as producer:
            for number, value in enumerate(values):
                await producer.send(topic, value, partition=number % 4)

    async def delivered(self, role: str, *topics: str) -> None:
        """Wait until the group's offsets are at the ends of the topics."""

        async def there() -> bool:
            ends: dict[TopicPartition, int] = {}
            for topic in topics:
                for record in await read_all(self.bootstrap, topic):
                    partition = TopicPartition(record.topic, record.partition)
                    ends[partition] = max(ends.get(partition, 0), record.offset + 1)
            group = self.topics.group(role)
            return all([await committed(self.bootstrap, group, p) >= end for p, end in ends.items()])

        await eventually(there, DEADLINE, f"{role} has delivered {topics}")


def of_logs(numbers: Sequence[int], verdict: RowVerdict | None = None) -> bytes:
    """One envelope; the raw offset is the first number, so every log has a place of its own."""
    rows = [log(f"log {n}", number=n) for n in numbers]
    return envelope(rows, [verdict] * len(rows), offset=numbers[0]).encode()


async def documents(server: Elasticsearch, setup: Setup, dataset: str) -> Counter[int]:
    """How often each log is stored."""
    async with aiohttp.ClientSession() as client:
        stream = f"{server.url}/logs-{dataset}-default"
        async with client.post(f"{stream}/_refresh") as response:
            await response.read()
        async with client.get(f"{stream}/_search", json={"size": 10_000, "query": {"match_all": {}}}) as response:
            if response.status in (404, 503):  # no document yet, or its shard is not up yet
                return Counter()
            found = await response.json()
    sources = [hit["_source"] for hit in found["hits"]["hits"]]
    return Counter(source.get("attributes", source.get("labels"))["number"] for source in sources)


def dataset() -> str:
    return fresh("d").replace("-", "_")


async def test_logs_of_both_topics_arrive_and_their_offsets_are_committed(
    kafka: Kafka, elasticsearch: Elasticsearch
) -> None:
    name = dataset()
    setup = await Setup(kafka, {"elasticsearch": {"endpoint": elasticsearch.url, "dataset": name}}).create()
    t = setup.topics
    await setup.write(t.kept_logs, [of_logs(range(n * 10, n * 10 + 10), KEPT) for n in range(20)])
    async with running(setup.config, ["sink.elasticsearch"]) as worker:
        await setup.write(t.untraced_logs, [of_logs(range(1000 + n * 10, 1000 + n * 10 + 10)) for n in range(20)])
        await setup.delivered("sink.elasticsearch", t.kept_logs, t.untraced_logs)
        assert worker.ready() == {"sink.elasticsearch": True}
    expected = Counter([*range(200), *range(1000, 1200)])
    assert await documents(elasticsearch, setup, name) == expected
    assert await read_all(kafka.bootstrap, t.dlq) == []


async def test_two_sinks_of_a_kind_get_everything_each_in_its_shape(kafka: Kafka, elasticsearch: Elasticsearch) -> None:
    """One of them has two nodes, the first of which is not there."""
    name, audit = dataset(), dataset()
    down = f"http://{HOST}:{free_port()}"
    sinks: dict[str, dict[str, Any]] = {
        "elasticsearch": {"endpoint": elasticsearch.url, "dataset": name},
        "elasticsearch/audit": {"endpoints": [down, elasticsearch.url], "dataset": audit, "mapping": "ecs"},
    }
    setup = await Setup(kafka, sinks).create()
    t = setup.topics
    await setup.write(t.kept_logs, [of_logs(range(n * 10, n * 10 + 10), KEPT) for n in range(10)])
    async with running(setup.config, ["sinks"]) as worker:
        for role in ("sink.elasticsearch", "sink.elasticsearch/audit"):
            await setup.delivered(role, t.kept_logs)
        assert worker.ready() == {"sink.elasticsearch": True, "sink.elasticsearch/audit": True}
    for stream in (name, audit):
        assert await documents(elasticsearch, setup, stream) == Counter(range(100))
    assert await read_all(kafka.bootstrap, t.dlq) == []


async def test_refused_logs_are_dead_letters_that_can_be_replayed(kafka: Kafka, elasticsearch: Elasticsearch) -> None:
    name = dataset()
    setup = await Setup(kafka, {"elasticsearch/audit": {"endpoint": elasticsearch.url, "dataset": name}}).create()
    refused = log("refused", number=1)
    refused.attributes.extend(key_values({"k" * 40_000: "x"}))
    wrong = log("cut off").SerializeToString() + b"\xff"
    rows: list[LogRecord | bytes] = [log("good", number=0), refused, wrong, log("good", number=3)]
    await setup.write(setup.topics.kept_logs, [envelope(rows, topic="raw", offset=77).encode()])
    async with running(setup.config, ["sink.elasticsearch/audit"]):
        await setup.delivered("sink.elasticsearch/audit", setup.topics.kept_logs)
    assert await documents(elasticsearch, setup, name) == Counter([0, 3])
    letters = {record.key: record for record in await read_all(kafka.bootstrap, setup.topics.dlq)}
    assert letters.keys() == {b"raw/1/77/1", b"raw/1/77/2"}
    headers = {key: {name: text.decode() for name, text in letter.headers} for key, letter in letters.items()}
    assert {h["stage"] for h in headers.values()} == {"sink.elasticsearch/audit"}
    assert headers[b"raw/1/77/1"]["reason"] == "refused_by_sink"
    assert headers[b"raw/1/77/1"]["detail"].startswith("400 document_parsing_exception")
    assert headers[b"raw/1/77/2"]["reason"] == "malformed"
    first = LogsData.FromString(letters[b"raw/1/77/1"].value)
    assert list(first.resource_logs[0].scope_logs[0].log_records) == [refused]
    assert wrong in letters[b"raw/1/77/2"].value


async def test_an_outage_and_a_kill_with_batches_in_hand(kafka: Kafka, tmp_path: Path) -> None:
    """SIGKILL while Elasticsearch holds unanswered requests; then Elasticsearch crashes under the successor."""
    name = dataset()
    with Elasticsearch() as server:
        setup = await Setup(kafka, {"elasticsearch": {"endpoint": server.url, "dataset": name}}).create()
        t, role = setup.topics, "sink.elasticsearch"
        file = tmp_path / "tailrace.yaml"
        file.write_text(yaml.safe_dump(setup.raw))
        processes = Processes()

        async def stored(number: int) -> None:
            async def there() -> bool:
                return len(await documents(server, setup, name)) >= number

            await eventually(there, DEADLINE, f"{number} logs")

        async def send(first: int) -> None:
            await setup.write(t.kept_logs, [of_logs(range(n, n + 10)) for n in range(first, first + 400, 10)])

        worker = processes.worker(file, role)
        try:
            await send(0)
            await stored(400)
            await setup.delivered(role, t.kept_logs)
            server.pause()
            before = [await committed(kafka.bootstrap, t.group(role), TopicPartition(t.kept_logs, p)) for p in range(4)]
            await send(400)
            await eventually(lambda: _holds_requests(server), DEADLINE, "requests lie at the paused server")
            worker.kill()
            worker.wait()
            after = [await committed(kafka.bootstrap, t.group(role), TopicPartition(t.kept_logs, p)) for p in range(4)]
            assert after == before, "nothing that was not answered is committed"
            server.resume()
            worker = processes.worker(file, role)
            await stored(800)
            server.kill()
            await send(800)
            server.restart()
            await setup.delivered(role, t.kept_logs)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(DEADLINE) == 0
        finally:
            processes.stop()
        assert await documents(server, setup, name) == Counter(range(1200))
        assert await read_all(kafka.bootstrap, t.dlq) == []


async def _holds_requests(server: Elasticsearch) -> bool:
    """Whether bytes lie unread in the paused server's sockets."""
    return await asyncio.to_thread(_unread_bytes, int(server.url.rpartition(":")[2])) > 1000


def _unread_bytes(port: int) -> int:
    """Receive queues of the sockets of a port (fields 2 and 5 of /proc/net/tcp)."""
    lines = [
        line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    return sum(int(line[4].split(":")[1], 16) for line in lines if int(line[1].rpartition(":")[2], 16) == port)


async def test_a_signal_that_is_stuck_shows_while_the_other_one_is_delivered(kafka: Kafka) -> None:
    """A backend without a service for logs."""

    def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=404 if request.path == "/v1/logs" else 200)

    async with faulty.faulty(reply) as server:
        setup = await Setup(kafka, {"otlp": {"endpoint": server.url, "signals": ["traces", "logs"]}}).create()
        t = setup.topics

        def stuck(topic: str) -> float | None:
            return REGISTRY.get_sample_value("tailrace_sink_stuck_seconds", {"sink": "otlp", "topic": topic})

        async def shows() -> bool:
            return (stuck(t.kept_logs) or 0) > 0

        await setup.write(t.kept_logs, [of_logs([n]) for n in range(4)])
        await setup.write(t.kept_spans, [envelope([span()], [KEPT]).encode() for _ in range(4)])
        async with running(setup.config, ["sink.otlp"]):
            await setup.delivered("sink.otlp", t.kept_spans)
            await eventually(shows, DEADLINE, "the logs are said to be stuck")
            assert (stuck(t.kept_spans), stuck(t.untraced_logs)) == (0, 0)
        assert stuck(t.kept_logs) == 0  # the next owner's to show


async def test_a_destination_that_warns_of_every_request_is_heard_now_and_then(
    kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    warning = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(error_message="old protocol"))
    message = warning.SerializeToString()
    async with faulty.faulty(lambda request, body: web.Response(body=message)) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url, "batch": {"max_items": 1}}}).create()
        await setup.write(setup.topics.kept_spans, [envelope([span()], [KEPT]).encode() for _ in range(4)])
        async with running(setup.config, ["sink.jaeger"]):
            await setup.delivered("sink.jaeger", setup.topics.kept_spans)
    assert len(server.seen) == 4
    (told,) = [r.__dict__ for r in caplog.records if r.name == "pipeline.deliver"]
    assert (told["sink"], told["endpoint"], told["answer"]) == ("jaeger", server.url, "old protocol")


async def test_how_long_a_sink_is_stuck_goes_on_with_the_next_worker(kafka: Kafka) -> None:
    """It began anew with each lease: where workers came and went every few minutes the alert never fired."""
    async with faulty.faulty(faulty.status(503)) as server:
        setup = await Setup(kafka, {"otlp": {"endpoint": server.url, "signals": ["traces"]}}).create()
        labels = {"sink": "otlp", "topic": setup.topics.kept_spans}

        def seconds() -> float:
            return REGISTRY.get_sample_value("tailrace_sink_stuck_seconds", labels) or 0.0

        async def stands() -> bool:
            return seconds() > STANDS

        async def stood_before() -> bool:
            return seconds() > time.monotonic() - began

        await setup.write(setup.topics.kept_spans, [envelope([span()], [KEPT]).encode()])
        async with running(setup.config, ["sink.otlp"]):
            await eventually(stands, DEADLINE, "the sink stands for long")
        began = time.monotonic()
        async with running(setup.config, ["sink.otlp"]):
            await eventually(stood_before, DEADLINE, "it has stood since before this worker began")


async def test_a_sink_that_is_down_delays_nobody_else_and_stops_at_once(
    kafka: Kafka, elasticsearch: Elasticsearch
) -> None:
    name = dataset()
    sinks: dict[str, dict[str, Any]] = {
        "elasticsearch": {"endpoint": elasticsearch.url, "dataset": name},
        "elasticsearch/down": {"endpoint": f"http://{HOST}:{free_port()}"},
        "jaeger/down": {"endpoint": f"http://{HOST}:{free_port()}"},
        "otlp/down": {"endpoint": f"http://{HOST}:{free_port()}", "protocol": "grpc"},
        "kafka/down": {"bootstrap_servers": [f"{HOST}:{free_port()}"]},
    }
    setup = await Setup(kafka, sinks).create()
    t = setup.topics
    await setup.write(t.kept_logs, [of_logs([n]) for n in range(8)])
    await setup.write(t.kept_spans, [envelope([span()], [KEPT]).encode()])
    async with running(setup.config, ["sinks"]) as worker:
        await setup.delivered("sink.elasticsearch", t.kept_logs)
        ready = worker.ready()
        assert (ready["sink.elasticsearch"], ready["sink.elasticsearch/down"]) == (True, False)
        async with asyncio.timeout(DEADLINE):
            await worker.stop()
    assert await documents(elasticsearch, setup, name) == Counter(range(8))
    for role in ("sink.jaeger/down", "sink.otlp/down", "sink.kafka/down"):
        assert await committed(kafka.bootstrap, t.group(role), TopicPartition(t.kept_spans, 0)) <= 0
    assert await committed(kafka.bootstrap, t.group("sink.elasticsearch/down"), TopicPartition(t.kept_logs, 0)) <= 0


async def test_workers_that_come_and_go_share_the_spans(kafka: Kafka, jaeger: Jaeger) -> None:
    setup = await Setup(kafka, {"jaeger": {"endpoint": jaeger.otlp_http}}).create()
    t = setup.topics
    traces = [os.urandom(16) for _ in range(60)]

    async def send(part: Sequence[bytes]) -> None:
        await setup.write(t.kept_spans, [spans(trace).encode() for trace in part])

    def spans(trace: bytes) -> Envelope:
        return envelope([span(trace, "a"), span(trace, "b")], [KEPT, KEPT])

    async with running(setup.config, ["sink.jaeger"]):
        await send(traces[:20])
        await setup.delivered("sink.jaeger", t.kept_spans)
        async with running(setup.config, ["sink.jaeger"]) as second:
            await eventually(lambda: _ready(second), DEADLINE, "the second worker has partitions")
            await send(traces[20:40])
            await setup.delivered("sink.jaeger", t.kept_spans)
        await send(traces[40:])
        await setup.delivered("sink.jaeger", t.kept_spans)
    async with aiohttp.ClientSession() as client:
        for trace in traces:
            async with client.get(f"{jaeger.query_url}/api/v3/traces/{trace.hex()}") as response:
                found = await response.json(content_type=None)
            parts = found["result"]["resourceSpans"]
            assert {s["name"] for p in parts for scope in p["scopeSpans"] for s in scope["spans"]} == {"a", "b"}


async def test_nothing_is_sent_twice_because_partitions_move(kafka: Kafka) -> None:
    """What the destination has is committed before a worker joins its group again."""
    async with faulty.faulty(faulty.status(200)) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url}}).create()
        t, sent = setup.topics, set[str]()
        stopping = asyncio.Event()

        async def feed() -> None:
            async with setup.producer() as producer:
                while not stopping.is_set():
                    rows = [span() for _ in range(8)]
                    value = envelope(rows, [KEPT] * len(rows)).encode()
                    await producer.send_and_wait(t.kept_spans, value, partition=random.randrange(4))
                    sent.update(f"{row.trace_id.hex()}/{row.span_id.hex()}" for row in rows)

        feeding = asyncio.create_task(feed())
        async with running(setup.config, ["sink.jaeger"]):
            for _ in range(3):
                async with running(setup.config, ["sink.jaeger"]) as second:
                    await eventually(lambda second=second: _ready(second), DEADLINE, "it has partitions")  # type: ignore[misc]
            stopping.set()
            await feeding
            await setup.delivered("sink.jaeger", t.kept_spans)
        got = Counter(key for seen in server.seen for key in spans_in(seen.path, seen.body))
    assert got.keys() == sent
    assert got.total() == len(sent)


async def test_what_is_delivered_behind_what_waits_is_not_sent_again_by_the_next_worker(kafka: Kafka) -> None:
    """Of a record that two requests share, one half is refused for as long as the first worker lives."""
    rows = [span() for _ in range(60)]
    first = f"{rows[0].trace_id.hex()}/{rows[0].span_id.hex()}"
    taken, lets_through = Counter[str](), asyncio.Event()

    def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        keys = spans_in(request.path, body)
        if first in keys and not lets_through.is_set():
            return web.Response(status=503)
        taken.update(keys)
        return web.Response()

    async with faulty.faulty(reply) as server:
        batch = {"max_items": 20, "max_age": "100ms"}
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url, "batch": batch}}).create()
        topic = setup.topics.kept_spans
        async with setup.producer(fresh("sample")) as producer:  # so that there are markers between the records
            for part in (rows[:30], rows[30:40], rows[40:]):
                async with producer.transaction():
                    await producer.send(topic, envelope(part, [KEPT] * len(part)).encode(), partition=0)
        async with running(setup.config, ["sink.jaeger"]):

            async def waits() -> bool:
                return taken.total() == 40

            await eventually(waits, DEADLINE, "all but the first request is accepted")
        assert await committed(kafka.bootstrap, setup.topics.group("sink.jaeger"), TopicPartition(topic, 0)) == 0
        lets_through.set()
        async with running(setup.config, ["sink.jaeger"]):
            await setup.delivered("sink.jaeger", topic)
    assert taken.total() == len(taken) == 60


async def test_what_retention_took_is_counted_once_and_the_rest_is_delivered(
    kafka: Kafka, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction's marker is no record: a topic that was emptied after everything was delivered has lost nothing.

    It is counted by the owner whose offset is behind it.
    """
    taken = Counter[str]()

    def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        taken.update(spans_in(request.path, body))
        return web.Response()

    async with faulty.faulty(reply) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url}}).create()
        role, place = "sink.jaeger", TopicPartition(setup.topics.kept_spans, 0)

        async def started(spans: int) -> float:
            """What a new owner says is gone; it goes once so many spans are delivered."""
            before = expired("kept.spans")

            async def there() -> bool:
                return await _ready(worker) and len(taken) == spans

            async with running(setup.config, [role]) as worker:
                await eventually(there, DEADLINE, f"{spans} spans are delivered")
            return expired("kept.spans") - before

        async def no_commit(_: Offsets) -> None:
            await asyncio.sleep(COMMIT_EVERY)

        async with setup.producer(fresh("sample")) as producer:

            async def produce(count: int) -> None:
                async with producer.transaction():
                    for _ in range(count):
                        await producer.send(place.topic, envelope([span()], [KEPT]).encode(), partition=0)

            await produce(2)
            assert await started(2) == 0
            await forget(kafka.bootstrap, place)
            assert await started(2) == 0
            await produce(4)
            await forget(kafka.bootstrap, place, before=5)
            with monkeypatch.context() as patched:
                dies_before_it_commits(patched, deliver.SinkPartition)
                patched.setattr(Offsets, "commit", no_commit)
                assert await started(2) == 0
            caplog.clear()  # it has said so all the same
            assert await started(4) == 2
            assert await started(4) == 0
    (told,) = [r.__dict__ for r in caplog.records if r.name == "pipeline.kafka.expired"]
    assert [told[key] for key in ("levelname", "role", "topic", "partition", "records")] == [
        "ERROR", role, place.topic, 0, 2
    ]  # fmt: skip
    assert set(taken.values()) == {1}


@pytest.mark.parametrize("left", [0, 1])
async def test_what_retention_took_is_counted_by_a_worker_that_could_not_commit_at_first(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Once, though it has taken the partition over twice, and goes on the second time behind what is gone."""

    async def refused(_: Group, offsets: object) -> None:
        raise CommitFailedError

    async with faulty.faulty(faulty.status(200)) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url}}).create()
        role, place = "sink.jaeger", TopicPartition(setup.topics.kept_spans, 0)
        async with running(setup.config, [role]):
            await setup.write(place.topic, [envelope([span()], [KEPT]).encode()])
            await setup.delivered(role, place.topic)
        await setup.write(place.topic, [envelope([span()], [KEPT]).encode() for _ in range(4 * 3)])
        await forget(kafka.bootstrap, place, before=4 - left)
        before = expired("kept.spans")
        with monkeypatch.context() as patched:
            patched.setattr(Group, "commit", refused)
            async with running(setup.config, [role]) as worker:
                (group,) = worker.services
                await eventually(lambda: _ready(worker), DEADLINE, "it has partitions")
                first: Any = group.lease(place)
                if left:
                    await eventually(lambda: _read(first), DEADLINE, "the one that is left is read")
                group._hold(place, doubt=False)

                async def again() -> bool:
                    return group.lease(place) not in (None, first)

                await eventually(again, DEADLINE, "the partition is taken over again")
                assert expired("kept.spans") == before
                patched.undo()
                await setup.delivered(role, place.topic)
        assert expired("kept.spans") - before == 2


async def _read(lease: Any) -> bool:
    return lease._account.last is not None


@pytest.mark.parametrize("anew", [False, True], ids=["the same topic", "a topic made anew"])
async def test_what_could_not_be_committed_is_not_sent_again_by_the_same_worker(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    """If its record still is where it was: another one may have its offset, and that was not delivered."""
    taken = Counter[str]()

    def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        taken.update(spans_in(request.path, body))
        return web.Response()

    async def refused(offsets: object) -> None:
        raise CommitFailedError

    async with faulty.faulty(reply) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url}}).create()
        topic, role = setup.topics.kept_spans, "sink.jaeger"
        partition = TopicPartition(topic, 0)
        async with running(setup.config, [role]) as worker:
            (group,) = worker.services
            await setup.write(topic, [envelope([span()], [KEPT]).encode()])
            await setup.delivered(role, topic)
            monkeypatch.setattr(group, "commit", refused)
            before: Any = group.lease(partition)
            await setup.write(topic, [envelope([span()], [KEPT]).encode()])

            async def accepted() -> bool:
                return len(taken) == 2 and not before._account.unsettled

            await eventually(accepted, DEADLINE, "the second span is accepted")
            if anew:
                offset, time = before._account.last
                before._account.last = offset, time + 1
            group._hold(partition, doubt=False)

            async def again() -> bool:
                return group.lease(partition) not in (None, before)

            await eventually(again, DEADLINE, "the partition is taken over again")
            monkeypatch.undo()
            await setup.write(topic, [envelope([span()], [KEPT]).encode()])
            await setup.delivered(role, topic)
    assert sorted(taken.values()) == ([1, 1, 2] if anew else [1, 1, 1])


async def test_a_partition_that_another_worker_may_have_had_is_taken_over_again(kafka: Kafka) -> None:
    """What it still holds of it the other one may have sent."""
    async with faulty.faulty(faulty.status(200)) as server:
        setup = await Setup(kafka, {"jaeger": {"endpoint": server.url}}).create()
        role = "sink.jaeger"
        async with running(setup.config, [role]) as worker:
            (group,) = worker.services
            await eventually(lambda: _ready(worker), DEADLINE, "it has partitions")
            before = {partition: group.lease(partition) for partition in group.consumer.assignment()}
            group._generation -= 1  # as if one had gone by
            async with running(setup.config, [role]) as second:
                await eventually(lambda: _ready(second), DEADLINE, "it has partitions")
                await eventually(lambda: _ready(worker), DEADLINE, "the first one has what is left")
                left = group.consumer.assignment()
                assert 0 < len(left) < len(before)
                assert not any(group.lease(partition) is before[partition] for partition in left)


async def _ready(worker: Any) -> bool:
    return all(service.ready and service.consumer.assignment() for service in worker.services)


@pytest.mark.parametrize("interrupted", [False, True], ids=["clean", "aborted tick"])
async def test_ticks_reach_prometheus_once_they_are_committed(
    kafka: Kafka, prometheus: Prometheus, interrupted: bool
) -> None:
    setup = await Setup(kafka, {"prometheus": {"endpoint": prometheus.remote_write_url}}).create()
    t, metric, now = setup.topics, fresh("m").replace("-", "_"), now_ms()

    def tick(number: int, value: float) -> list[bytes]:
        block = counter(metric, [((f"s{n}",), value + n) for n in range(10)])
        return Tick(number, now - 60_000 + number * 1000, 0, 4, [block]).encode()

    async with setup.producer(fresh("aggregate")) as producer, running(setup.config, ["sink.prometheus"]):
        for number in range(1, 4):
            async with producer.transaction():
                for value in tick(number, number * 100):
                    await producer.send(t.samples, value, partition=1)
            if interrupted:
                await producer.begin_transaction()
                for value in tick(number, 7_000)[:-1]:
                    await producer.send_and_wait(t.samples, value, partition=1)
                await producer.abort_transaction()
        last = (await read_all(kafka.bootstrap, t.samples))[-1].offset + 1
        partition = TopicPartition(t.samples, 1)

        async def there() -> bool:
            return bool(await committed(kafka.bootstrap, t.group("sink.prometheus"), partition) == last)

        await eventually(there, DEADLINE, "the last tick is committed")
    async with aiohttp.ClientSession() as client:
        params = {"query": f"{metric}[10m]", "time": str(now / 1000)}
        async with client.get(f"{prometheus.url}/api/v1/query", params=params) as response:
            series = (await response.json())["data"]["result"]
    assert {s["metric"]["service"]: [float(value) for _, value in s["values"]] for s in series} == {
        f"s{n}": [100.0 + n, 200.0 + n, 300.0 + n] for n in range(10)
    }


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_spans_and_logs_go_to_an_otlp_backend(kafka: Kafka, protocol: str) -> None:
    """A Collector takes both signals and puts them into Kafka, where they are counted."""
    spans_topic, logs_topic = fresh("otlp-spans"), fresh("otlp-logs")
    await create(kafka.bootstrap, {spans_topic: 1, logs_topic: 1})
    with start_collector(kafka.bootstrap, spans_topic, logs_topic) as collector:
        down = f"http://{HOST}:{free_port()}"
        here = f"http://{collector.otlp_grpc}" if protocol == "grpc" else collector.otlp_http
        backend = {"endpoints": [down, here], "protocol": protocol, "signals": ["traces", "logs"]}
        setup = await Setup(kafka, {"otlp/tempo": backend}).create()
        t = setup.topics
        await setup.write(t.kept_spans, [envelope([span(), span()], [KEPT, KEPT]).encode() for _ in range(20)])
        await setup.write(t.kept_logs, [of_logs(range(n, n + 5), KEPT) for n in range(0, 100, 5)])
        await setup.write(t.untraced_logs, [of_logs([n]) for n in range(1000, 1010)])
        async with running(setup.config, ["sink.otlp/tempo"]):
            await setup.delivered("sink.otlp/tempo", t.kept_spans, t.kept_logs, t.untraced_logs)
    messages = [TracesData.FromString(record.value) for record in await read_all(kafka.bootstrap, spans_topic)]
    assert sum(len(spans_of(message.resource_spans)) for message in messages) == 40
    numbers: Counter[int] = Counter()
    decided: Counter[bool] = Counter()
    for record in await read_all(kafka.bootstrap, logs_topic):
        for part in LogsData.FromString(record.value).resource_logs:
            for row in (row for scope in part.scope_logs for row in scope.log_records):
                found = {a.key: a.value for a in row.attributes}
                numbers[found["number"].int_value] += 1
                decided["trace.sampled" in found] += 1
    assert numbers == Counter([*range(100), *range(1000, 1010)])
    assert decided == Counter({True: 100, False: 10})
    assert await read_all(kafka.bootstrap, t.dlq) == []
