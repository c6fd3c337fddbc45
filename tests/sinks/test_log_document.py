"""Log records as documents."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from schemas.decision import Enrichment
from schemas.envelope import RowVerdict
from schemas.errors import Malformed
from sinks.log_document import (
    LATEST_NS,
    MAX_DEPTH,
    attributes,
    log_document,
    log_record,
    plain,
    resource_fields,
    scope_fields,
)
from tests.sinks.building import VALUES, any_value, key_values, log, resource, scope

SECOND = 1_000_000_000
TRACE = bytes(range(16))


def document(row: LogRecord, verdict: RowVerdict | None = None, header: bytes | None = None) -> dict[str, Any]:
    fields = resource_fields(resource() if header is None else header)
    return log_document(row, fields, scope_fields(scope()), verdict, received_ms=9_000)


def test_the_whole_document() -> None:
    row = LogRecord(
        time_unix_nano=1_500_000_000 * SECOND + 1,
        observed_time_unix_nano=1_500_000_001 * SECOND,
        severity_number=17,  # type: ignore[arg-type]
        severity_text="ERR",
        body=any_value("no stock"),
        attributes=key_values({"http.route": "/x", "retry": 2}),
        dropped_attributes_count=1,
        trace_id=TRACE,
        span_id=TRACE[:8],
        flags=1,
        event_name="out_of_stock",
    )
    verdict = RowVerdict(kept=True, policy="errors", span=Enrichment("stock", "reserve", 2))
    assert document(row, verdict, resource("cart", **{"host.name": "h1"})) == {
        "@timestamp": "2017-07-14T02:40:00.000000001Z",
        "observed_timestamp": "2017-07-14T02:40:01.000000000Z",
        "severity_number": 17,
        "severity_text": "ERR",
        "event_name": "out_of_stock",
        "body": {"text": "no stock"},
        "attributes": {"http.route": "/x", "retry": 2},
        "dropped_attributes_count": 1,
        "trace_id": "000102030405060708090a0b0c0d0e0f",
        "span_id": "0001020304050607",
        "trace_flags": 1,
        "resource": {"attributes": {"service.name": "cart", "host.name": "h1"}},
        "scope": {"name": "tests", "version": "1"},
        "trace": {"sampled": True},
        "sampling": {"policy": "errors"},
        "span": {"name": "reserve", "status": "error"},
        "service": {"name": "cart"},
    }


def test_an_empty_record_has_the_time_it_was_received() -> None:
    assert document(LogRecord(), header=b"") == {
        "@timestamp": "1970-01-01T00:00:09.000000000Z",
        "resource": {"attributes": {}},
        "scope": {"name": "tests", "version": "1"},
    }


@pytest.mark.parametrize(
    ("time", "observed", "second"), [(5, 7, 5), (0, 7, 7), (LATEST_NS // SECOND + 1, 7, 7), (0, 0, 9)]
)
def test_the_first_time_that_can_be_stored_wins(time: int, observed: int, second: int) -> None:
    row = LogRecord(time_unix_nano=time * SECOND, observed_time_unix_nano=observed * SECOND)
    assert document(row)["@timestamp"] == f"1970-01-01T00:00:0{second}.000000000Z"


def test_a_log_of_a_dropped_trace_says_so() -> None:
    fields = document(log(trace_id=TRACE), RowVerdict(kept=False))
    assert fields["trace"] == {"sampled": False}
    assert "sampling" not in fields
    assert "span" not in fields


def test_a_log_without_a_service_gets_that_of_its_span() -> None:
    verdict = RowVerdict(kept=True, policy="p", span=Enrichment("stock", "reserve", 0))
    fields = document(log(trace_id=TRACE), verdict, header=b"")
    assert fields["service"] == {"name": "stock"}
    assert fields["span"] == {"name": "reserve", "status": "unset"}


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("text", {"text": "text"}),
        ("", {"text": ""}),
        (7, {"text": "7"}),
        (True, {"text": "True"}),
        (b"\x00\xff", {"text": "AP8="}),
        ({"a": {"b": 1}}, {"structured": {"a": {"b": 1}}}),
        ([1, "x"], {"structured": {"value": [1, "x"]}}),
    ],
)
def test_bodies(body: Any, shown: dict[str, Any]) -> None:
    assert document(log(body))["body"] == shown


def test_the_severity_number_gives_the_text_that_is_missing() -> None:
    assert document(LogRecord(severity_number=14))["severity_text"] == "WARN2"  # type: ignore[arg-type]
    assert "severity_number" not in document(LogRecord(severity_number=99))  # type: ignore[arg-type]


def test_the_first_of_two_equal_keys_wins() -> None:
    pairs = [KeyValue(key="a", value=any_value(1)), KeyValue(key="a", value=any_value(2))]
    assert attributes(pairs) == {"a": 1}


def test_numbers_that_json_lacks_become_text() -> None:
    assert [plain(any_value(x)) for x in (math.nan, math.inf, -math.inf)] == ["nan", "inf", "-inf"]


def test_what_is_too_deep_becomes_text() -> None:
    value: Any = "x"
    for _ in range(30):
        value = {"k": value}
    depth, found = 0, plain(any_value(value))
    while isinstance(found, dict):
        depth, found = depth + 1, found["k"]
    assert depth == MAX_DEPTH - 1
    assert "x" in found


def test_a_large_value_that_is_too_deep_becomes_no_hundred_times_as_large() -> None:
    value = AnyValue()
    inner = value
    for _ in range(40):
        inner = inner.array_value.values.add()
    for _ in range(50_000):
        inner.array_value.values.add()
    assert len(orjson.dumps(plain(value))) < 2 * value.ByteSize()


def test_a_string_that_is_not_utf8_is_shown_with_what_can_be_read_of_it() -> None:
    """OTLP senders do not all check. Bytes that are no text stay, and so does a repeated string."""
    row = log("b\0dy", TRACE, name="b\0d", n=7, raw=b"\0\xff", nested={"b\0d": [{"k": "b\0d"}]})
    found = log_record(row.SerializeToString().replace(b"b\0d", b"b\xe9d"))
    repaired = {"name": "b\ufffdd", "n": 7, "raw": b"\0\xff", "nested": {"b\ufffdd": [{"k": "b\ufffdd"}]}}
    row.ClearField("attributes")
    row.attributes.extend(key_values(repaired))
    row.body.string_value = "b\ufffddy"
    assert found == row
    header = ResourceLogs.FromString(resource("b\0d"))
    header.resource.entity_refs.add(type="host", id_keys=["b\0d", "id"])
    damaged = header.SerializeToString().replace(b"b\0d", b"b\xe9d")
    assert resource_fields(damaged) == {"attributes": {"service.name": "b\ufffdd"}}
    assert scope_fields(scope("b\0d").replace(b"b\0d", b"\xed\xa0\x80")) == {"name": "\ufffd" * 3, "version": "1"}


@given(st.binary(max_size=60))
def test_a_string_of_any_bytes_is_read(text: bytes) -> None:
    row = log("x" * len(text), TRACE).SerializeToString().replace(b"x" * len(text), text)
    assert log_record(row).body.string_value == text.decode("utf-8", "replace")


def test_what_is_no_otlp_is_malformed() -> None:
    with pytest.raises(Malformed, match="LogRecord"):
        log_record(b"\xff")
    with pytest.raises(Malformed, match="ResourceLogs"):
        resource_fields(b"\xff")


@given(VALUES)
def test_every_value_is_json(value: Any) -> None:
    made: AnyValue = any_value(value)
    orjson.dumps(plain(made))
