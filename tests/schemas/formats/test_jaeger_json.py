from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.errors import Malformed
from schemas.formats import jaeger_json, jaeger_proto
from schemas.formats.jaeger_json import duration, timestamp
from tests.schemas.formats import collector
from tests.schemas.formats.spans import comparable, jsonpb, spans

MINIMAL = {"traceId": "AAECAwQFBgcICQoLDA0ODw==", "spanId": "AQIDBAUGBwg="}


def test_what_the_collector_wrote_is_read_as_the_collector_reads_it() -> None:
    recorded = collector.golden()
    for written, read in zip(recorded["jaeger_json"], recorded["jaeger_json-back"], strict=True):
        assert comparable(jaeger_json.traces(written)) == comparable(read)
    assert len(recorded["jaeger_json"]) == 3


def test_json_says_what_protobuf_says() -> None:
    for span in spans(50, seed=1):
        assert jaeger_json.traces(jsonpb(span)) == jaeger_proto.traces(span.SerializeToString())


@pytest.mark.parametrize("form", [b"%s", b"[%s]"])
def test_zipkins_spans_are_told_by_name(form: bytes) -> None:
    span = {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "id": "00f067aa0ba902b7", "kind": "SERVER", "duration": 5}
    with pytest.raises(Malformed, match="Zipkin"):
        jaeger_json.traces(form % orjson.dumps(span))


def test_both_cases_of_names_and_both_forms_of_numbers() -> None:
    camel = {**MINIMAL, "operationName": "x", "tags": [{"key": "n", "vType": "INT64", "vInt64": "5"}]}
    snake = {
        "trace_id": MINIMAL["traceId"], "span_id": MINIMAL["spanId"], "operation_name": "x", "unknown": {"a": 1},
        "tags": [{"key": "n", "v_type": 2, "v_int64": 5, "v_str": None}],
    }  # fmt: skip
    assert jaeger_json.traces(orjson.dumps(camel)) == jaeger_json.traces(orjson.dumps(snake))


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000, 0),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000, 500_000_000),
        ("2023-11-14T23:13:20.123456789+01:00", 1_700_000_000, 123_456_789),
        ("1970-01-01T00:00:00Z", 0, 0),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
    ],
)
def test_timestamps(text: str, seconds: int, nanos: int) -> None:
    assert timestamp(text) == {"seconds": seconds, "nanos": nanos}


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [("0s", 0, 0), ("0.1s", 0, 100_000_000), ("90s", 90, 0), ("1.000000001s", 1, 1), ("-0.5s", 0, -500_000_000)],
)
def test_durations(text: str, seconds: int, nanos: int) -> None:
    assert duration(text) == {"seconds": seconds, "nanos": nanos}


@pytest.mark.parametrize("text", ["", "5", "5ms", "1.0000000001s", "s", 5, None])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError):
        duration(text)


@pytest.mark.parametrize(
    "change",
    [
        {"traceId": "not base64!"},
        {"traceId": "AAEC"},
        {"spanId": 5},
        {"startTime": "2023-13-14T22:13:20Z"},
        {"startTime": 1_700_000_000_000_000},
        {"duration": 100},
        {"tags": {}},
        {"tags": [1]},
        {"tags": [{"vType": "ODD"}]},
        {"flags": -1},
        {"traceID": "5b8efff798038103"},
    ],
)
def test_what_is_no_span(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        jaeger_json.traces(orjson.dumps(MINIMAL | change))


@pytest.mark.parametrize("data", [b"[]", b"1", b"{", b"{}{}", b"null"])
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(Malformed):
        jaeger_json.traces(data)


IDS = st.sampled_from(tuple(MINIMAL.values()))
NAMES = st.sampled_from(("traceId", "spanId", "startTime", "duration", "tags", "logs", "process", "references", "key"))
VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | IDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(NAMES, VALUES))
def test_any_object_is_a_span_or_malformed(value: dict[str, Any]) -> None:
    with suppress(Malformed):
        TracesData.FromString(jaeger_json.traces(json.dumps(value).encode()))
