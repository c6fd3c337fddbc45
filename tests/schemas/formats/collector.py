"""What the OpenTelemetry Collector writes to Kafka in each encoding, and what it reads Jaeger's spans as.

`python -m tests.schemas.formats.collector` writes golden.json anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.pipeline.kafka import create, fresh, read_all
from tests.services import Collector, Kafka, eventually

GOLDEN = Path(__file__).with_name("golden.json")
DEADLINE_SECONDS = 20.0
TRACE_ID = bytes.fromhex("5b8efff798038103d269b633813fc60c")
OTHER_TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
START = 1_700_000_000_123_456_789


def attributes(**values: Any) -> list[KeyValue]:
    """Of `kind_of_AnyValue__key=value`."""
    return [
        KeyValue(key=name.split("__")[1], value=AnyValue(**{name.split("__")[0]: value}))
        for name, value in values.items()
    ]


def every_kind() -> list[KeyValue]:
    """One attribute of every type."""
    pair = {"key": "inner", "value": {"array_value": {"values": [{"int_value": 1}, {}, {"string_value": ""}]}}}
    return attributes(
        string_value__text='quotes " and ☃\n', bool_value__flag=True, bool_value__off=False, double_value__ratio=0.1,
        int_value__large=(1 << 63) - 1, int_value__small=-(1 << 63), bytes_value__raw=b"\x00\xfe\xff",
        kvlist_value__map={"values": [pair]}, array_value__list={"values": []}, string_value__empty="",
    )  # fmt: skip


def traces() -> TracesData:
    """Two services, three spans."""
    parent, child = b"parent01", b"child002"
    rich = {
        "trace_id": TRACE_ID, "span_id": child, "parent_span_id": parent, "trace_state": "ot=th:8;rv:1,other=1",
        "flags": 0x301, "name": "POST /pay", "kind": 3, "start_time_unix_nano": START,
        "end_time_unix_nano": START + 1_500_000_001, "attributes": every_kind(), "dropped_attributes_count": 2,
        "events": [{"time_unix_nano": START + 1, "name": "retry", "attributes": attributes(int_value__attempt=2)},
                   {"time_unix_nano": START + 2, "dropped_attributes_count": 1}],
        "dropped_events_count": 3, "dropped_links_count": 4,
        "links": [{"trace_id": OTHER_TRACE_ID, "span_id": b"linked03", "trace_state": "a=b", "flags": 1,
                   "attributes": attributes(string_value__why="batch"), "dropped_attributes_count": 1}],
        "status": {"code": 2, "message": "card refused"},
    }  # fmt: skip
    root = {"trace_id": TRACE_ID, "span_id": parent, "name": "GET /", "kind": 2, "status": {"code": 1}}
    bare = {"trace_id": OTHER_TRACE_ID, "span_id": b"linked03"}
    parts: Any = [
        {
            "resource": {"attributes": attributes(string_value__service="cart"), "dropped_attributes_count": 1},
            "schema_url": "https://example.com/resource",
            "scope_spans": [
                {
                    "scope": {"name": "shop", "version": "1.2", "attributes": attributes(int_value__n=1)},
                    "schema_url": "https://example.com/scope",
                    "spans": [rich, root],
                }
            ],
        },
        {"scope_spans": [{"spans": [bare]}]},
    ]
    return TracesData(resource_spans=parts)


def logs() -> LogsData:
    """A log with everything, and one with nothing but a body."""
    rich = {
        "time_unix_nano": START, "observed_time_unix_nano": START + 1, "severity_number": 17, "severity_text": "Error",
        "body": {"kvlist_value": {"values": every_kind()}}, "attributes": every_kind(), "dropped_attributes_count": 1,
        "flags": 1, "trace_id": TRACE_ID, "span_id": b"child002", "event_name": "payment.refused",
    }  # fmt: skip
    part: Any = {
        "resource": {"attributes": attributes(string_value__service="cart")},
        "scope_logs": [{"scope": {"name": "shop"}, "log_records": [rich, {"body": {"string_value": "bare"}}]}],
    }
    return LogsData(resource_logs=[part])


@contextmanager
def collector(kafka: Kafka, topics: dict[str, str]) -> Iterator[Collector]:
    """OTLP in; to Kafka in every encoding; and Jaeger's encodings from there, back to Kafka as OTLP."""
    brokers = {"brokers": [kafka.bootstrap]}
    direct = {"sending_queue": {"enabled": False}, **brokers}
    exporters: dict[str, Any] = {
        f"kafka/{encoding}": {"traces": {"topic": topics[encoding], "encoding": encoding}, **direct}
        for encoding in ("otlp_json", "jaeger_proto", "jaeger_json")
    }
    exporters["kafka/logs"] = {"logs": {"topic": topics["logs"], "encoding": "otlp_json"}, **direct}
    pipelines: dict[str, Any] = {
        "traces": {"receivers": ["otlp"], "exporters": [name for name in exporters if name != "kafka/logs"]},
        "logs": {"receivers": ["otlp"], "exporters": ["kafka/logs"]},
    }
    receivers: dict[str, Any] = {}
    for encoding in ("jaeger_proto", "jaeger_json"):
        name = f"kafka/{encoding}-back"
        source = {"topic": topics[encoding], "encoding": encoding}
        receivers[name] = {"traces": source, "group_id": topics[encoding], "initial_offset": "earliest", **brokers}
        exporters[name] = {"traces": {"topic": topics[f"{encoding}-back"], "encoding": "otlp_proto"}, **direct}
        pipelines[f"traces/{encoding}"] = {"receivers": [name], "exporters": [name]}
    with Collector({"receivers": receivers, "exporters": exporters, "service": {"pipelines": pipelines}}) as server:
        yield server


def send(url: str, message: bytes) -> None:
    """Export by OTLP/HTTP; the answer means that Kafka has it."""
    headers = {"Content-Type": "application/x-protobuf"}
    with urllib.request.urlopen(urllib.request.Request(url, message, headers, method="POST")) as answer:
        answer.read()


async def record(kafka: Kafka, more: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """The values of each topic after `traces()` and `logs()` went in, and `more` by topic behind them.

    Value i of `jaeger_proto-back` is what the Collector made of value i of `jaeger_proto`; `jaeger_json` likewise.
    """
    names = ("otlp_json", "logs", "jaeger_proto", "jaeger_json", "jaeger_proto-back", "jaeger_json-back")
    topics = {name: fresh(name) for name in names}
    await create(kafka.bootstrap, dict.fromkeys(topics.values(), 1))
    with collector(kafka, topics) as server:
        send(f"{server.otlp_http}/v1/traces", traces().SerializeToString())
        send(f"{server.otlp_http}/v1/logs", logs().SerializeToString())
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        for name, own in more.items():
            for value in own:
                await producer.send(topics[name], value)
        await producer.stop()

        async def everything() -> dict[str, list[bytes]] | None:
            values = {name: [r.value for r in await read_all(kafka.bootstrap, t)] for name, t in topics.items()}
            back = all(len(values[f"{e}-back"]) == len(values[e]) for e in ("jaeger_proto", "jaeger_json"))
            return values if back else None

        values = await eventually(everything, DEADLINE_SECONDS, "the Collector's translations")
    assert values is not None
    return values


def golden() -> dict[str, list[bytes]]:
    """What `record` gave when golden.json was written."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {
        name: [
            value.encode() if name in ("otlp_json", "logs", "jaeger_json") else base64.b64decode(value) for value in v
        ]
        for name, v in stored.items()
    }


async def _write() -> None:
    with Kafka() as kafka:
        values = await record(kafka, {})
    text = {
        name: [value.decode() if value.startswith(b"{") else base64.b64encode(value).decode() for value in v]
        for name, v in values.items()
    }
    GOLDEN.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_write())
