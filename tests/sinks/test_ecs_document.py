"""Log records as documents of the Elastic Common Schema."""

from __future__ import annotations

import importlib.resources
from typing import Any

import orjson
import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from schemas.decision import Enrichment
from schemas.envelope import RowVerdict
from sinks.ecs_document import ATTRIBUTES, ecs_document
from sinks.log_document import resource_fields, scope_fields
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
    template = orjson.loads(importlib.resources.files("sinks").joinpath("ecs_template.json").read_bytes())
    for place in {place for places in ATTRIBUTES.values() for place in places}:
        fields = template["template"]["mappings"]
        for part in place.split("."):
            fields = fields["properties"][part]
        assert fields["type"] in ("keyword", "text"), place
