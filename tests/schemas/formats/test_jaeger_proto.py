from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.errors import Malformed
from schemas.formats import jaeger_json, jaeger_proto
from schemas.formats.jaeger_model import ENUMS, MESSAGES, RAW, TEXT
from tests.schemas.formats import collector
from tests.schemas.formats.spans import comparable, flag, jsonpb, spans, text
from tests.schemas.rows import split_traces
from tests.services import Kafka

TRACE, SPAN = bytes(range(16)), bytes(range(1, 9))


def span(**fields: Any) -> bytes:
    return bytes(TEXT["Span"](**{"trace_id": TRACE, "span_id": SPAN} | fields).SerializeToString())


def only(data: bytes) -> Span:
    ((found,),) = [
        [row for scope in part.scope_spans for row in scope.spans]
        for part in TracesData.FromString(jaeger_proto.traces(data)).resource_spans
    ]
    return found


def test_what_the_collector_wrote_is_read_as_the_collector_reads_it() -> None:
    recorded = collector.golden()
    for written, read in zip(recorded["jaeger_proto"], recorded["jaeger_proto-back"], strict=True):
        assert comparable(jaeger_proto.traces(written)) == comparable(read)
    assert len(recorded["jaeger_proto"]) == 3


async def test_any_span_is_read_as_the_collector_reads_it(kafka: Kafka) -> None:
    """A running Collector's kafkareceiver beside ours, both encodings; takes about six seconds."""
    made = list(spans(300))
    more = {"jaeger_proto": [s.SerializeToString() for s in made], "jaeger_json": [jsonpb(s) for s in made]}
    recorded = await collector.record(kafka, more)
    for encoding, ours in (("jaeger_proto", jaeger_proto.traces), ("jaeger_json", jaeger_json.traces)):
        assert len(recorded[encoding]) == len(made) + 3
        for written, read in zip(recorded[encoding], recorded[f"{encoding}-back"], strict=True):
            assert comparable(ours(written)) == comparable(read), written
    golden = collector.golden()
    for name in ("otlp_json", "logs"):
        assert recorded[name] == golden[name]


def test_a_batch_gives_its_process_to_spans_without_one() -> None:
    made = [RAW["Span"].FromString(span(span_id=bytes([i]) * 8)) for i in range(3)]
    made[1].process.service_name = b"own"
    batch = RAW["Batch"](spans=made)
    batch.process.service_name = b"shared"
    found = [
        (resource["attributes"][0]["value"]["stringValue"], row["spanId"])
        for resource, _scope, row in comparable(jaeger_proto.traces(batch.SerializeToString()))
    ]
    assert [service for service, _ in found] == ["shared", "shared", "own"]
    assert len({row for _, row in found}) == 3


def test_short_trace_ids_fill_the_low_half() -> None:
    data = span(trace_id=TRACE[8:], references=[{"trace_id": bytes(8) + TRACE[8:], "span_id": b"parent01"}])
    assert (only(data).trace_id, only(data).parent_span_id) == (bytes(8) + TRACE[8:], b"parent01")


def test_flags_keep_the_sampled_bit_alone() -> None:
    assert [only(span(flags=flags)).flags for flags in (0, 1, 2, 3, 9)] == [0, 1, 0, 1, 1]


def test_warnings_become_the_attribute_of_jaeger_2() -> None:
    (pair,) = only(span(warnings=["clock skew", "late"])).attributes
    assert pair.key == "@jaeger@warnings"
    assert [entry.string_value for entry in pair.value.array_value.values] == ["clock skew", "late"]


def test_text_that_is_no_utf8_passes() -> None:
    data = RAW["Span"](trace_id=TRACE, span_id=SPAN, operation_name=b"caf\xe9").SerializeToString()
    assert b"caf\xe9" in jaeger_proto.traces(data)


def test_times_stay_in_range() -> None:
    before_epoch = span(start_time={"seconds": -62135596800}, duration={"seconds": 1})  # Go's zero time
    assert (only(before_epoch).start_time_unix_nano, only(before_epoch).end_time_unix_nano) == (0, 0)
    backwards = only(span(start_time={"seconds": 10}, duration={"seconds": -1}))
    assert (backwards.start_time_unix_nano, backwards.end_time_unix_nano) == (10_000_000_000, 9_000_000_000)


def test_an_error_is_a_boolean_tag() -> None:
    assert only(span(tags=[flag("error")])).status.code == 2
    assert only(span(tags=[text("error", "true")])).status.code == 0


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"\x0a\x05short\x12\x08" + SPAN,
        span(span_id=b"four"),
        span(references=[{"trace_id": b"odd"}]),
        span()[:-1],
        b"\x0a\x0a\x12\x08\x12\x06\x2a\x04OTLP",  # a span that has a name alone
    ],
)
def test_what_is_no_span(data: bytes) -> None:
    with pytest.raises(Malformed):
        jaeger_proto.traces(data)


@given(st.binary(max_size=80) | st.binary(max_size=30).map(lambda tail: span() + tail))
def test_any_bytes_are_spans_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        split_traces(jaeger_proto.traces(data))


def test_the_table_declares_the_model() -> None:
    """Field numbers that are not 1, 2, 3, … in model.proto would be wrong here; it has none."""
    assert {name: len(fields) for name, fields in MESSAGES.items()} == {
        "Timestamp": 2, "Duration": 2, "KeyValue": 7, "Log": 2, "SpanRef": 3, "Process": 2, "Span": 12, "Batch": 2,
    }  # fmt: skip
    assert ENUMS["ValueType"].index("BINARY") == 4
