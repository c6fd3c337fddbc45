from __future__ import annotations

import re

import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.formats import detect
from schemas.formats.detect import detect_logs, detect_traces
from schemas.formats.jaeger_model import TEXT
from tests.schemas.formats import collector
from tests.schemas.formats.spans import jsonpb, spans
from tests.schemas.otlp_wire import LOG_RECORDS, SPANS, data_of

TRACE, SPAN = bytes(range(16)), bytes(range(8))


def batch(**fields: object) -> bytes:
    return bytes(TEXT["Batch"](spans=[{"trace_id": TRACE, "span_id": SPAN} | fields]).SerializeToString())


def test_what_the_collector_writes() -> None:
    recorded = collector.golden()
    for encoding in ("otlp_json", "jaeger_proto", "jaeger_json"):
        assert {detect_traces(value) for value in recorded[encoding]} == {encoding}
    assert {detect_traces(value) for value in recorded["jaeger_proto-back"]} == {"otlp_proto"}
    assert detect_traces(collector.traces().SerializeToString()) == "otlp_proto"
    assert {detect_logs(value) for value in recorded["logs"]} == {"otlp_json"}
    assert detect_logs(collector.logs().SerializeToString()) == "otlp_proto"


def test_any_jaeger_span() -> None:
    for span in spans(100, seed=2):
        assert detect_traces(span.SerializeToString()) == "jaeger_proto"
        assert detect_traces(jsonpb(span)) == "jaeger_json"
        assert detect_traces(batch(operation_name="x" * 300)) == detect_traces(batch()) == "jaeger_proto"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b'\xef\xbb\xbf \n{ "resource_spans": []}', "otlp_json"),
        (b'{"b":1,"resourceSpans" :[]}', "otlp_json"),
        (b'{"operationName":"\\"resourceSpans\\":"}', "jaeger_json"),  # in a text
        (b'{"operationName":"resourceSpans"}', "jaeger_json"),
        (b"{}", "jaeger_json"),
        (b'{"resourceLogs":[]}', "jaeger_json"),  # and then Malformed: no ids
        (b"[]", "otlp_proto"),  # and then Malformed
        (b'[{"traceId":"a","id":"b"}]', "jaeger_json"),  # Zipkin's, which jaeger_json tells by name
        (b"\x0a\x10" + TRACE + b"\x12\x08" + SPAN, "jaeger_proto"),
        (b"\x0a\x08" + SPAN + b"\x12\x08" + SPAN, "jaeger_proto"),
        (b"\x0a\x10" + TRACE, "otlp_proto"),
        # A resource of 16 bytes and a scope of 8, which look like a Batch's ids: no span is in it.
        (b"\x0a\x1c\x0a\x10\x0a\x0e\x0a\x01a\x12\x09\x0a\x07service\x12\x08\x0a\x06\x0a\x04shop", "otlp_proto"),
        (b"\xff", "otlp_proto"),
    ],
)
def test_traces(data: bytes, encoding: str) -> None:
    assert detect_traces(data) == encoding


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b'{"message":"x"}', "json"),
        (b'{"message":"x"}\n{"message":"y"}', "json"),
        (b"{\n}", "json"),
        (b'[{"message":"x"}]', "json"),
        (b"[]", "json"),
        (b'{"message":"\\"resourceLogs\\":"}', "json"),
        (b'{"message":"resourceLogs"}', "json"),
        (b'{"resource_logs":[]}', "otlp_json"),
        (b"[main] INFO up", "text"),
        (b"[2024-05-01T00:00:00Z INFO crate] up", "text"),
        (b"{main} up", "text"),
        (b"plain", "text"),
        (b"\n", "text"),
        (b"\nplain text on the second line", "text"),
        (b"\n\x05hello", "otlp_proto"),  # a text can be that, by chance
        (b"\n\x80", "text"),
        # Known to be wrong:
        (b'{"quoted"} is how this text begins', "json"),
    ],
)
def test_logs(data: bytes, encoding: str) -> None:
    assert detect_logs(data) == encoding


class Counted:
    """A pattern that counts its matches."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern, self.count = pattern, 0

    def match(self, data: bytes, pos: int) -> re.Match[bytes] | None:
        self.count += 1
        return self.pattern.match(data, pos)


@pytest.mark.parametrize("rest", [b"", b"\n\xff", b"text"])
def test_no_more_fields_are_looked_at_than_say_what_it_is(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB of empty resources took seconds, in which the worker did nothing else."""
    counted = Counted(detect._LENGTH)
    monkeypatch.setattr(detect, "_LENGTH", counted)
    assert detect_logs(b"\n\0" * (1 << 18) + rest) == "otlp_proto"
    assert counted.count == 1 << 16


@given(st.dictionaries(st.text(), st.text() | st.integers(0, 9) | st.lists(st.text())))
def test_any_json_log_is_json(fields: dict[str, object]) -> None:
    expected = "otlp_json" if {"resourceLogs", "resource_logs"} & set(fields) else "json"
    assert detect_logs(orjson.dumps(fields)) == expected


@given(data_of(LOG_RECORDS))
def test_any_otlp_logs(data: bytes) -> None:
    message = LogsData.FromString(data) if _is_utf8(LogsData, data) else None
    if message is not None and message.resource_logs:
        message.DiscardUnknownFields()
        assert detect_logs(message.SerializeToString()) == "otlp_proto"


@given(data_of(SPANS))
def test_any_otlp_traces(data: bytes) -> None:
    if _is_utf8(TracesData, data):
        message = TracesData.FromString(data)
        message.DiscardUnknownFields()
        assert detect_traces(message.SerializeToString()) == "otlp_proto"


def _is_utf8(kind: type, data: bytes) -> bool:
    try:
        kind.FromString(data)  # type: ignore[attr-defined]
    except DecodeError:
        return False
    return True
