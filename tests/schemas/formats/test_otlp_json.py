from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from hypothesis import given, reject
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from schemas.errors import Malformed
from schemas.formats import otlp_json
from tests.schemas.formats import collector
from tests.schemas.formats.hexed import hexed
from tests.schemas.otlp_wire import LOG_RECORDS, SPANS, data_of
from tests.schemas.rows import split_logs, split_traces

TRACE_HEX, SPAN_HEX = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def one_span(**fields: Any) -> Span:
    data = {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}
    return TracesData.FromString(otlp_json.traces(orjson.dumps(data))).resource_spans[0].scope_spans[0].spans[0]


def one_log(**fields: Any) -> LogRecord:
    data = {"resourceLogs": [{"scopeLogs": [{"logRecords": [fields]}]}]}
    return LogsData.FromString(otlp_json.logs(orjson.dumps(data))).resource_logs[0].scope_logs[0].log_records[0]


def test_what_the_collector_wrote() -> None:
    recorded = collector.golden()
    (written,) = recorded["otlp_json"]
    expected = collector.traces()
    bare = expected.resource_spans[1].scope_spans[0]
    # The Collector writes an empty resource, scope and status where there was none.
    expected.resource_spans[1].resource.SetInParent()
    bare.scope.SetInParent()
    bare.spans[0].status.SetInParent()
    assert TracesData.FromString(otlp_json.traces(written)) == expected
    (written,) = recorded["logs"]
    assert LogsData.FromString(otlp_json.logs(written)) == collector.logs()


def test_what_the_sdk_writes() -> None:
    """Spans of the official SDK, by its own encoder, in JSON."""
    provider = TracerProvider(resource=Resource.create({"service.name": "cart"}))
    tracer = provider.get_tracer("shop")
    with tracer.start_as_current_span("parent") as parent, tracer.start_as_current_span("child") as child:
        child.set_attribute("items", ["a", "b"])
        child.add_event("retry", {"attempt": 2})
    message = encode_spans([parent, child])
    written = json.dumps(hexed(MessageToDict(message))).encode()
    assert otlp_json.traces(written) == message.SerializeToString()


MESSAGES = [(TracesData, data_of(SPANS), otlp_json.traces), (LogsData, data_of(LOG_RECORDS), otlp_json.logs)]


@pytest.mark.parametrize("snake", [False, True])
@pytest.mark.parametrize(("kind", "messages", "decode"), MESSAGES, ids=["traces", "logs"])
def test_round_trip(kind: Any, messages: st.SearchStrategy[bytes], decode: Any, snake: bool) -> None:
    @given(messages)
    def check(data: bytes) -> None:
        try:
            message = kind.FromString(data)
            written = MessageToDict(message, preserving_proto_field_name=snake)
        except DecodeError:  # a text that is not UTF-8
            reject()
        read = kind.FromString(decode(json.dumps(hexed(written)).encode()))
        assert MessageToDict(read, preserving_proto_field_name=snake) == written  # as JSON one NaN equals another

    check()


def test_numbers_as_text_and_as_numbers() -> None:
    for time in ("1700000000123456789", 1700000000123456789):
        assert one_span(startTimeUnixNano=time).start_time_unix_nano == 1700000000123456789
    assert one_span(startTimeUnixNano=1.5e18).start_time_unix_nano == 1_500_000_000_000_000_000
    assert one_span(startTimeUnixNano=(1 << 64) - 1).start_time_unix_nano == (1 << 64) - 1
    assert one_span(flags="769").flags == 769
    values = {"doubleValue": ("NaN", "Infinity", "-Infinity", "0.5", 5, 0.5), "intValue": ("-5", 5)}
    for name, forms in values.items():
        for form in forms:
            (pair,) = one_span(attributes=[{"key": "k", "value": {name: form}}]).attributes
            assert pair.value.WhichOneof("value") == {"doubleValue": "double_value", "intValue": "int_value"}[name]


def test_enums_as_number_and_as_name() -> None:
    assert one_span(kind=2).kind == one_span(kind="SPAN_KIND_SERVER").kind == 2
    assert one_span(kind=99).kind == 99
    assert one_span(status={"code": "STATUS_CODE_ERROR"}).status.code == 2
    assert one_log(severityNumber="SEVERITY_NUMBER_WARN").severity_number == one_log(severityNumber=13).severity_number


def test_ids_are_hex_whatever_their_case_and_base64_where_it_shows() -> None:
    for text in (TRACE_HEX, TRACE_HEX.upper(), base64.b64encode(bytes.fromhex(TRACE_HEX)).decode()):
        assert one_span(traceId=text).trace_id.hex() == one_log(traceId=text).trace_id.hex() == TRACE_HEX
    assert one_span(parentSpanId=base64.b64encode(bytes.fromhex(SPAN_HEX)).decode()).parent_span_id.hex() == SPAN_HEX
    assert one_span(links=[{"traceId": TRACE_HEX, "span_id": SPAN_HEX}]).links[0].span_id.hex() == SPAN_HEX
    assert one_span(traceId="", parentSpanId="").trace_id == b""
    assert one_span(traceId="abcd").trace_id == b"\xab\xcd"  # ingest buries this row alone


def test_unknown_names_and_null_are_absent() -> None:
    assert one_span(traceId=TRACE_HEX, name=None, kind=None, future={"a": [1]}) == one_span(traceId=TRACE_HEX)


def test_bad_text_does_not_cost_the_message() -> None:
    head, tail = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"', b'"}}]}]}]}'
    bodies = {
        b"caf\xe9": "caf\ufffd",
        b"\\ud83d\\ude00 \\ud83d!": "\U0001f600 \ufffd!",
        b"\\ude00\\\\ud800": "\ufffd\\ud800",
    }
    for body, expected in bodies.items():
        (row,) = LogsData.FromString(otlp_json.logs(head + body + tail)).resource_logs[0].scope_logs[0].log_records
        assert row.body.string_value == expected
    assert otlp_json.logs(b"\xef\xbb\xbf " + head + tail) == otlp_json.logs(head + tail)


@pytest.mark.parametrize(
    "fields",
    [
        {"traceId": "xyz"},
        {"traceId": 5},
        {"name": 5},
        {"kind": "SERVER"},
        {"kind": 2.5},
        {"kind": True},
        {"startTimeUnixNano": "-1"},
        {"startTimeUnixNano": "soon"},
        {"startTimeUnixNano": 1e300},
        {"flags": 1 << 32},
        {"attributes": {"key": "value"}},
        {"attributes": [{"key": "k", "value": "plain"}]},
        {"attributes": [{"key": "k", "value": {"boolValue": "true"}}]},
        {"attributes": [{"key": "k", "value": {"bytesValue": "!"}}]},
        {"attributes": [{"key": "k", "value": {"doubleValue": "much"}}]},
        {"status": 2},
    ],
)
def test_what_has_the_wrong_type(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="not OTLP TracesData in JSON"):
        one_span(**fields)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"null", b'{"resourceSpans":1}', b'{"a":1}{"a":2}', b"\xff"])
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(Malformed):
        otlp_json.traces(data)


@pytest.mark.parametrize("levels", [20, 90, 200, 10_000])
def test_depth(levels: int) -> None:
    """As deep as protobuf's parsers go, and Malformed beyond: never another error."""
    body = b'{"arrayValue":{"values":[' * levels + b'{"intValue":1}' + b"]}}" * levels
    data = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + body + b"}]}]}]}"
    try:
        assert len(split_logs(otlp_json.logs(data))) == 1
        assert levels < 50
    except Malformed:
        assert levels > 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(TRACE_HEX),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(("resourceSpans", "scopeSpans", "spans", "traceId", "attributes", "key", "value", "kind",
                         "resource", "stringValue", "kvlistValue", "values", "status", "startTimeUnixNano")),
        inner,
        max_size=3,
    ),
)  # fmt: skip


@given(JSON)
def test_any_json_is_traces_or_malformed(value: Any) -> None:
    for whole in (value, {"resourceSpans": [{"scopeSpans": [{"spans": [value]}]}]}):
        with suppress(Malformed):
            split_traces(otlp_json.traces(json.dumps(whole).encode()))
