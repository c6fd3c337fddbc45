"""Every encoding through ingest: the same spans and logs come out, whatever they were written in."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from pipeline.config import Input
from processors.metric_points import MetricPoints, Naming
from processors.redaction import Redaction, Redactor
from processors.regroup import ENCODINGS, LETTER_BYTES, Flush, Regroup
from schemas.dead_letter import DeadLetter
from schemas.envelope import Envelope
from schemas.ids import partition_of
from schemas.otlp_build import logs_data
from schemas.reasons import Reason
from tests.schemas.formats import collector
from tests.schemas.otlp_wire import varint

PARTITIONS = 3
RECORDED = collector.golden()
NAMES = {"POST /pay": collector.TRACE_ID, "GET /": collector.TRACE_ID, "": collector.OTHER_TRACE_ID}


def regroup(signal: str, encoding: str, *values: bytes) -> Flush:
    ingest = Regroup("raw", 0, signal, encoding, PARTITIONS, 1 << 20, 1 << 20)
    for offset, value in enumerate(values):
        ingest.add(offset, 1000 + offset, value)
    return ingest.flush(1000, {"raw": 1})


def rows(flush: Flush, kind: Any) -> list[tuple[int, Any]]:
    """(output partition, row); -1 for rows without a trace."""
    packed = [(target, data) for target, envelopes in flush.envelopes.items() for data in envelopes]
    found = []
    for target, data in (*packed, *((-1, data) for _, data in flush.untraced)):
        envelope = Envelope.decode(data)
        ends = list(envelope.ends)
        for start, end in zip([0, *ends], ends, strict=False):
            found.append((target, kind.FromString(envelope.body[start:end])))
    return found


TRACES = {
    "otlp_proto": [collector.traces().SerializeToString()],
    "otlp_json": RECORDED["otlp_json"],
    "jaeger_proto": RECORDED["jaeger_proto"],
    "jaeger_json": RECORDED["jaeger_json"],
}
LOGS = {
    "otlp_proto": [collector.logs().SerializeToString()],
    "otlp_json": RECORDED["logs"],
    "json": [b'{"message":"bare"}\n{"message":"other","trace_id":"%s"}' % collector.TRACE_ID.hex().encode()],
    "text": [b"bare", b"other trace_id=%s" % collector.TRACE_ID.hex().encode()],
}


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("encoding", TRACES)
def test_traces(encoding: str, auto: bool) -> None:
    flush = regroup("traces", "auto" if auto else encoding, *TRACES[encoding])
    assert flush.dead_letters == []
    found = rows(flush, Span)
    assert {span.name: span.trace_id for _, span in found} == NAMES
    assert all(target == partition_of(span.trace_id, PARTITIONS) for target, span in found)
    (rich,) = [span for _, span in found if span.name == "POST /pay"]
    expected = collector.traces().resource_spans[0].scope_spans[0].spans[0]
    for field in (
        "span_id",
        "parent_span_id",
        "kind",
        "start_time_unix_nano",
        "end_time_unix_nano",
        "status",
        "trace_state",
    ):
        assert getattr(rich, field) == getattr(expected, field)


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("encoding", LOGS)
def test_logs(encoding: str, auto: bool) -> None:
    flush = regroup("logs", "auto" if auto else encoding, *LOGS[encoding])
    assert flush.dead_letters == []
    found = rows(flush, LogRecord)
    assert len(found) == 2
    assert [log.body.string_value for target, log in found if target < 0] == ["bare"]
    assert [log.trace_id for target, log in found if target >= 0] == [collector.TRACE_ID]


@pytest.mark.parametrize(
    ("encoding", "value", "seconds"),
    [
        ("json", b'{"msg":"a"}', 0),
        ("json", b'{"msg":"a","ts":"2026-01-01T00:00:00Z"}', 1_767_225_600),
        ("text", b"2026-01-01 00:00:00 ERROR no zone", 0),
        ("text", b"2026-01-01 00:00:00Z ERROR a zone", 1_767_225_600),
        ("otlp_proto", logs_data([(b"", b"", [b""])]), None),
        ("otlp_json", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}', None),
    ],
)
@pytest.mark.parametrize("redactor", [None, Redactor(Redaction(allow_all_keys=True, blocked_values=["zone"]))])
@pytest.mark.parametrize("received_ms", [-1, 7, 1 << 62])
def test_a_log_made_here_without_a_time_was_observed_when_its_raw_record_came(
    encoding: str, value: bytes, seconds: int | None, redactor: Redactor | None, received_ms: int
) -> None:
    """OTLP is nobody's to complete; a raw record's timestamp may be none, and beyond what OTLP can say."""
    ingest = Regroup("raw", 0, "logs", encoding, PARTITIONS, 1 << 20, 1 << 20, redactor)
    ingest.add(0, received_ms, value)
    ((_, log),) = rows(ingest.flush(None, {}), LogRecord)
    assert log.time_unix_nano == (seconds or 0) * 1_000_000_000
    assert log.observed_time_unix_nano == (7_000_000 if seconds == 0 and received_ms == 7 else 0)


def test_mixed_producers_on_one_topic() -> None:
    values = [value for values in TRACES.values() for value in values]
    assert len(rows(regroup("traces", "auto", *values), Span)) == 4 * len(NAMES)
    values = [value for values in LOGS.values() for value in values]
    assert len(rows(regroup("logs", "auto", *values), LogRecord)) == 4 * 2


ALL = [(signal, encoding) for signal, encodings in ENCODINGS.items() for encoding in encodings]


@pytest.mark.parametrize(("signal", "encoding"), ALL)
@pytest.mark.parametrize("value", [b"\x00\xff\x00", b'{"resourceSpans":[{"scopeSpans":7}]}\x00', b'{"traceId":7}\x00'])
def test_what_does_not_decode_is_buried_as_it_came(signal: str, encoding: str, value: bytes) -> None:
    flush = regroup(signal, encoding, value)
    (letter,) = flush.dead_letters
    assert (letter.value, letter.reason, letter.offset, flush.rows) == (value, Reason.MALFORMED, 0, 0)
    assert letter.detail.startswith("taken for ") == (encoding == "auto")


@pytest.mark.parametrize(("signal", "encoding"), ALL)
def test_empty_messages(signal: str, encoding: str) -> None:
    (letter,) = regroup(signal, encoding, b"").dead_letters
    assert (letter.reason, letter.detail) == (Reason.EMPTY_MESSAGE, "")


def test_a_row_that_does_not_fit_is_buried_alone_and_an_only_row_as_it_came() -> None:
    span = '{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"fine"}'
    message = '{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}'
    flush = regroup("traces", "otlp_json", (message % f'{span},{{"name":"no ids"}}').encode())
    (letter,) = flush.dead_letters
    assert (letter.reason, letter.index, flush.rows) == (Reason.NO_TRACE_ID, 1, 1)
    assert b"no ids" in letter.value
    assert b"fine" not in letter.value
    for encoding, value in (("otlp_json", (message % '{"name":"no ids"}').encode()), ("jaeger_json", b'{"flags":1}')):
        (letter,) = regroup("traces", encoding, value).dead_letters
        assert (letter.value, letter.reason) == (value, Reason.NO_TRACE_ID)


@pytest.mark.parametrize(
    ("signal", "value"),
    [("traces", b'{"resourceLogs":[]}'), ("logs", b'{"resourceSpans":[]}'), ("traces", b"{}")],
)
def test_the_other_signal(signal: str, value: bytes) -> None:
    (letter,) = regroup(signal, "otlp_json", value).dead_letters
    assert (letter.value, letter.reason) == (value, Reason.MALFORMED)


def test_the_configuration_knows_every_encoding() -> None:
    known = get_args(Input.model_fields["encoding"].annotation)
    assert set(known) == {encoding for encodings in ENCODINGS.values() for encoding in encodings}


def test_many_bad_lines_of_json_are_one_letter_and_count_as_what_they_take() -> None:
    made = Regroup("raw", 0, "logs", "json", 1, 1 << 24, 1 << 20, None)
    made.add_all([(7, 0, b"{}\n" + b"x\n" * 10_000), (8, 0, b"{}\ny\nz")])
    assert made.size > 3 * LETTER_BYTES
    flushed = made.flush(None, {})
    many, *few = flushed.dead_letters
    assert (many.offset, many.index, many.detail.split(":")[0]) == (7, 1, "10000 lines; the first")
    assert many.value == b"\n".join([b"x"] * 10_000)
    assert [(letter.index, letter.value) for letter in few] == [(1, b"y"), (2, b"z")]


def test_messages_of_which_nothing_fits_are_lost_in_json_as_well() -> None:
    for encoding, value in (("json", b'{"message": "%s"}' % (b"x" * 2_000)), ("text", b"x" * 2_000)):
        made = Regroup("raw", 0, "logs", encoding, 1, 1 << 24, 1_000, None)
        made.add_all([(7, 0, value)])
        assert made.lost == 1


@pytest.mark.parametrize(
    "message",
    [
        {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [{"name": "x"}]}]}]},
        {"resourceSpans": [{"ScopeSpans": [{"Spans": [{"name": "x"}]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"Spans": [{"name": "x"}]}]}]},
    ],
)
def test_spans_under_other_names_are_not_lost_without_a_word(message: Any) -> None:
    """OTLP before 1.0, or a serialiser of its own."""
    made = Regroup("raw", 0, "traces", "otlp_json", 1, 1 << 24, 1 << 20, None)
    made.add_all([(7, 0, json.dumps(message).encode())])
    (letter,) = made.flush(None, {}).dead_letters
    assert "not a name of OTLP 1.0" in letter.detail


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_protobuf_of_before_otlp_1_0_is_not_lost_without_a_word(signal: str) -> None:
    """0.15 to 0.19 moved what was in field 2 to 1000, and wrote one or both."""
    scopes = {
        "traces": ScopeSpans(spans=[Span(trace_id=bytes(15) + b"1", span_id=b"12345678", name="x")]),
        "logs": ScopeLogs(log_records=[LogRecord(trace_id=bytes(15) + b"1", body={"string_value": "x"})]),
        "metrics": ScopeMetrics(metrics=[Metric(name="x", gauge=Gauge(data_points=[NumberDataPoint(as_int=1)]))]),
    }
    scope = scopes[signal].SerializeToString() + b"\x1a\x06secret"  # its schema_url
    old, new = (varint(number << 3 | 2) + varint(len(scope)) + scope for number in (1000, 2))

    def flushed(parts: bytes, redactor: Redactor | None = None) -> tuple[int, list[DeadLetter]]:
        message = b"\x0a" + varint(len(parts)) + parts
        if signal == "metrics":
            points = MetricPoints("raw", 0, "otlp_proto", Naming(), 1 << 24, redactor)
            points.add_all([(7, 0, message)])
            flush = points.flush()
            return flush.rows, flush.dead_letters
        made = Regroup("raw", 0, signal, "otlp_proto", 1, 1 << 24, 1 << 20, redactor)
        made.add_all([(7, 0, message)])
        found = made.flush(None, {})
        return found.rows, found.dead_letters

    rows, (letter,) = flushed(old)
    kind = "spans" if signal == "traces" else signal
    assert (rows, letter.reason) == (0, Reason.MALFORMED)
    assert letter.detail.startswith(f"instrumentation_library_{kind}: not a name of OTLP 1.0")
    assert flushed(old + new) == flushed(new + old) == flushed(new) == (1, [])
    # Redaction leaves out what it cannot look into, not that it was there.
    for rules in (Redaction(allow_all_keys=True, blocked_values=["secret"]), Redaction(allowed_keys=["k"])):
        rows, (hidden,) = flushed(old, Redactor(rules))
        assert (rows, hidden.reason) == (0, Reason.MALFORMED)
        assert hidden.detail.startswith(letter.detail)
        assert scope not in hidden.value
        assert flushed(old + new, Redactor(rules)) == flushed(new, Redactor(rules)) == (1, [])
