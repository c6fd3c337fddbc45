"""Log records as documents of the Elastic Common Schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.decision import Enrichment
from schemas.envelope import RowVerdict
from schemas.formats.json_logs import LogRow, parse
from sinks.ecs_document import ATTRIBUTES, FIELDS, ecs_document
from sinks.log_document import log_record, resource_fields, scope_fields
from tests.sinks.building import any_value, key_values, log, resource, scope

SECOND = 1_000_000_000
TRACE = bytes(range(16))


def document(row: LogRecord, verdict: RowVerdict | None = None, header: bytes | None = None) -> dict[str, Any]:
    fields = resource_fields(resource() if header is None else header)
    return ecs_document(row, fields, scope_fields(scope()), verdict, received_ms=9_000)


def test_the_whole_document() -> None:
    row = LogRecord(
        time_unix_nano=1_500_000_000 * SECOND + 1,
        observed_time_unix_nano=1_500_000_001 * SECOND,
        severity_number=17,  # type: ignore[arg-type]
        severity_text="ERR",
        body=any_value("no stock"),
        attributes=key_values({"http.route": "/x", "exception.type": "E", "exception.stacktrace": "at"}),
        trace_id=TRACE,
        span_id=TRACE[:8],
        event_name="out_of_stock",
    )
    verdict = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    header = resource("cart", **{"host.name": "h1", "k8s.pod.name": "p", "team": "shop"})
    assert document(row, verdict, header) == {
        "@timestamp": "2017-07-14T02:40:00.000000001Z",
        "ecs": {"version": "8.11.0"},
        "message": "no stock",
        "event": {"severity": 17, "action": "out_of_stock", "created": "2017-07-14T02:40:01.000000000Z"},
        "log": {"level": "ERR", "logger": "tests"},
        "trace": {"id": "000102030405060708090a0b0c0d0e0f", "sampled": True},
        "span": {"id": "0001020304050607", "name": "reserve", "status": "error"},
        "sampling": {"policy": "errors"},
        "service": {"name": "cart"},
        "host": {"hostname": "h1", "name": "h1"},
        "kubernetes": {"pod": {"name": "p"}},
        "error": {"type": "E", "stack_trace": "at"},
        "labels": {"team": "shop", "http.route": "/x"},
    }


def test_the_records_own_attribute_wins_over_the_resources() -> None:
    made = document(log("a", b"", **{"host.name": "container"}), header=resource("cart", **{"host.name": "node"}))
    assert made["host"]["name"] == "container"


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}], [["a"]]])
def test_an_object_never_takes_the_place_of_a_keyword(value: Any) -> None:
    made = document(log("a", b"", **{"host.name": value}))
    assert "host" not in made
    assert made["labels"]["host.name"] == value


def test_a_body_that_is_no_text_is_its_json() -> None:
    assert document(log({"order": [1, 2]}))["message"] == '{"order":[1,2]}'
    assert "message" not in document(LogRecord())


def test_the_mapping_has_every_field_that_attributes_become() -> None:
    assert {place for places in ATTRIBUTES.values() for place in places} <= FIELDS


def written(line: dict[str, Any]) -> dict[str, Any]:
    """The document of a JSON log."""
    (row,) = parse(json.dumps(line).encode())
    assert isinstance(row, LogRow)
    return ecs_document(log_record(row.record), resource_fields(row.resource), scope_fields(row.scope), None, 9_000)


def test_fields_of_an_ecs_logger_keep_their_place() -> None:
    """What Log4j2's EcsLayout writes."""
    line = {"@timestamp": "2017-07-14T02:40:00.000Z", "ecs.version": "1.2.0", "log.level": "ERROR",
            "message": "no stock", "process.thread.name": "main", "log.logger": "a.B", "service.name": "cart",
            "service.node.name": "n1", "event.dataset": "cart", "trace.id": TRACE.hex(),
            "transaction.id": TRACE[:8].hex(), "error.type": "E", "error.message": "boom", "error.stack_trace": "at",
            "labels.team": "shop", "tags": ["a"]}  # fmt: skip
    assert written(line) == {
        "@timestamp": "2017-07-14T02:40:00.000000000Z",
        "ecs": {"version": "8.11.0"},
        "message": "no stock",
        "log": {"level": "ERROR", "logger": "a.B"},
        "event": {"severity": 17, "dataset": "cart"},
        "process": {"thread": {"name": "main"}},
        "service": {"name": "cart", "node": {"name": "n1"}},
        "trace": {"id": TRACE.hex()},
        "span": {"id": TRACE[:8].hex()},
        "error": {"type": "E", "message": "boom", "stack_trace": "at"},
        "labels": {"ecs.version": "1.2.0", "team": "shop", "tags": ["a"]},
    }


def test_nested_fields_keep_their_place_and_what_is_no_field_is_a_label() -> None:
    """What Filebeat writes."""
    line = {"@timestamp": "2017-07-14T02:40:00.000Z", "message": "no stock",
            "log": {"level": "ERROR", "file": {"path": "/x"}}, "container": {"id": "c"},
            "host": {"name": "h", "ip": ["10.0.0.1"], "os": {"name": "Debian", "kernel": "6"}},
            "kubernetes": {"pod": {"name": "p"}, "namespace": "ns", "node": "n"}, "error": "boom",
            "data_stream": {"dataset": "x"}, "sampling": {"policy": "x"}, "trace": {"sampled": True},
            "event": {"dataset": "nginx", "severity": 3}, "labels": {"team": "shop"}}  # fmt: skip
    assert written(line) == {
        "@timestamp": "2017-07-14T02:40:00.000000000Z",
        "ecs": {"version": "8.11.0"},
        "message": "no stock",
        "log": {"level": "ERROR"},
        "event": {"severity": 17, "dataset": "nginx"},
        "host": {"name": "h", "os": {"name": "Debian"}},
        "container": {"id": "c"},
        "kubernetes": {"pod": {"name": "p"}, "namespace": "ns"},
        "labels": {
            "log": {"file": {"path": "/x"}},
            "host": {"ip": ["10.0.0.1"], "os": {"kernel": "6"}},
            "kubernetes": {"node": "n"},
            "error": "boom",
            "data_stream": {"dataset": "x"},
            "sampling": {"policy": "x"},
            "trace": {"sampled": True},
            "event": {"severity": 3},
            "team": "shop",
        },
    }


def test_of_two_values_for_a_field_the_other_is_a_label() -> None:
    row = log(
        "a", b"", **{"host.name": "container", "host": {"name": "h"}, "host.hostname": "c1", "exception.type": "E"}
    )
    row.attributes.extend(key_values({"error.type": "F", "message": "b", "log.level": "x", "service.name": "other"}))
    row.attributes.extend(key_values({"labels": {"team": "a"}, "team": "b", "labels.team": "c", "labels.x": 1}))
    row.severity_text = "INFO"
    made = document(row, header=resource("cart", **{"host.name": "node"}))
    assert (made["host"], made["error"]) == ({"name": "container", "hostname": "c1"}, {"type": "F"})
    assert (made["message"], made["log"]["level"], made["service"]) == ("a", "INFO", {"name": "cart"})
    assert made["labels"] == {
        "host": {"name": "h"},
        "exception.type": "E",
        "message": "b",
        "log.level": "x",
        "service.name": "other",
        "labels": {"team": "a"},
        "team": "b",
        "labels.team": "c",
        "x": 1,
    }
