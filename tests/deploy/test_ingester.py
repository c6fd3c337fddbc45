"""deploy/jaeger/ingester.yaml: a real Jaeger reads the topic that a sink of kind kafka fills."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer

from pipeline.config import Config
from pipeline.kafka import topics as internal
from pipeline.kafka.topics import Topics
from pipeline.worker import running
from schemas.envelope import RowVerdict
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import DEADLINE, create, fresh, read_all
from tests.repository import read_yaml
from tests.services import Collector, Kafka, eventually, free_port
from tests.services.process import HOST
from tests.sinks.building import envelope, span

KEPT = RowVerdict(kept=True, policy="errors")


async def test_kept_spans_reach_jaeger_through_its_ingester(kafka: Kafka) -> None:
    topic, group, query = fresh("jaeger-spans"), fresh("ingester"), f"{HOST}:{free_port()}"
    await create(kafka.bootstrap, {topic: 3})
    setup: dict[str, Any] = {
        **MINIMAL,
        "kafka": {"bootstrap_servers": [kafka.bootstrap], "prefix": fresh("ingested"), "commit_interval": "200ms"},
        "sinks": {"kafka/jaeger": {"bootstrap_servers": [kafka.bootstrap], "topic": topic}},
        "telemetry": {"port": 0},
    }
    config = Config.model_validate(setup)
    t = Topics(config.kafka.prefix)
    assert await internal.ensure(config) == []
    traces = [os.urandom(16) for _ in range(30)]

    jaeger = read_yaml("deploy/jaeger/ingester.yaml")
    receiver = jaeger["receivers"]["kafka"]
    receiver["brokers"], receiver["traces"]["topic"], receiver["group_id"] = [kafka.bootstrap], topic, group
    jaeger["extensions"]["jaeger_query"] |= {"http": {"endpoint": query}, "grpc": {"endpoint": f"{HOST}:{free_port()}"}}
    with Collector(jaeger):
        async with running(config, ["sink.kafka/jaeger"]) as worker:
            producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
            await producer.start()
            for number, trace in enumerate(traces):
                rows = envelope([span(trace, "a"), span(trace, "b")], [KEPT, KEPT])
                await producer.send_and_wait(t.kept_spans, rows.encode(), partition=number % config.kafka.partitions)
            await producer.stop()
            async with aiohttp.ClientSession() as client:

                async def complete(trace: bytes) -> bool:
                    async with client.get(f"http://{query}/api/v3/traces/{trace.hex()}") as response:
                        found = await response.json(content_type=None) if response.status == 200 else {}
                    parts = found.get("result", {}).get("resourceSpans", [])
                    spans = [s for part in parts for scope in part["scopeSpans"] for s in scope["spans"]]
                    decided = {a["value"]["stringValue"] for s in spans for a in s["attributes"]}
                    return {s["name"] for s in spans} == {"a", "b"} and decided == {"errors"}

                for trace in traces:
                    await eventually(partial(complete, trace), DEADLINE, f"trace {trace.hex()} in Jaeger")
            assert worker.ready() == {"sink.kafka/jaeger": True}
    written = await read_all(kafka.bootstrap, topic)
    assert sorted(record.key for record in written) == sorted(trace.hex().encode() for trace in traces)
