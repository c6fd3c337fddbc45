"""Regrouping: every row of a raw message ends in one place, with its coordinates and its very bytes."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from processors import regroup as module
from processors.regroup import LETTER_BYTES, Flush, Regroup
from schemas.dead_letter import DeadLetter
from schemas.envelope import ENVELOPE_BYTES, NO_MARK, Envelope
from schemas.ids import partition_of, trace_key
from schemas.otlp_build import logs_data, traces_data
from schemas.otlp_scan import BYTES_APART, MOST_APART
from schemas.raw_batch import RawReader
from schemas.reasons import Reason
from tests.schemas import otlp_wire
from tests.schemas.rows import split_logs, split_traces

N = 3
RAW = {"raw": 2, "logs": 1}
Row = tuple[bytes, bytes, bytes]  # resource header, scope header, row


def regroup(
    signal: str = "traces", encoding: str = "otlp_proto", message: int = 1 << 24, row: int = 1 << 20
) -> Regroup:
    return Regroup("raw", 1, signal, encoding, N, message, row)


def traces(*spans: Span, service: str = "shop") -> bytes:
    data = TracesData()
    part = data.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = service
    part.scope_spans.add(schema_url="https://a.schema").spans.extend(spans)
    return data.SerializeToString()


def logs(*records: LogRecord) -> bytes:
    data = LogsData()
    data.resource_logs.add().scope_logs.add().log_records.extend(records)
    return data.SerializeToString()


def span(number: int, **fields: object) -> Span:
    ids = {"trace_id": number.to_bytes(16, "big"), "span_id": (number + 1).to_bytes(8, "big"), "name": f"op {number}"}
    return Span(**ids | fields)  # type: ignore[arg-type]


def envelopes(flush: Flush) -> dict[int, list[Envelope]]:
    return {target: [Envelope.decode(value) for value in values] for target, values in flush.envelopes.items()}


def untraced(flush: Flush) -> list[Envelope]:
    return [Envelope.decode(value) for _, value in flush.untraced]


def rows_of(flush: Flush) -> dict[tuple[int, int], Row]:
    """(offset, item) → row with its headers; no coordinates occur twice."""
    found: dict[tuple[int, int], Row] = {}
    for envelope in [e for own in envelopes(flush).values() for e in own] + untraced(flush):
        for i in range(len(envelope)):
            place = envelope.messages[envelope.message[i]][0], envelope.item[i]
            assert place not in found
            resource, scope = envelope.resources[envelope.resource[i]], envelope.scopes[envelope.scope[i]]
            found[place] = resource, scope, envelope.row(i)
    return found


# ---- dead letters ----------------------------------------------------------------------------------------

GOOD = span(7)
BURIED: dict[str, tuple[Regroup, bytes, Reason, int, Callable[[bytes], bytes]]] = {
    "not protobuf": (regroup(), b"\xff\xff\xff", Reason.MALFORMED, 0, lambda value: value),
    "no ResourceSpans": (regroup(), b"\x98\x06\x01", Reason.MALFORMED, 0, lambda value: value),
    "empty": (regroup(), b"", Reason.EMPTY_MESSAGE, 0, lambda value: value),
    "too large": (regroup(message=10), traces(GOOD), Reason.MESSAGE_TOO_LARGE, 0, lambda value: value),
    "white space": (regroup("logs", "json"), b" \n ", Reason.EMPTY_MESSAGE, 0, lambda value: value),
    "not JSON at all": (regroup("logs", "json"), b"\xff{\n}", Reason.MALFORMED, 0, lambda value: value),
    "a bad line": (regroup("logs", "json"), b'{"msg": 1}\n{oops\n{}', Reason.MALFORMED, 1, lambda _: b"{oops"),
}
UNFIT = {
    "no trace id": (span(7, trace_id=b""), Reason.NO_TRACE_ID),
    "a zero trace id": (span(7, trace_id=bytes(16)), Reason.NO_TRACE_ID),
    "a short trace id": (span(7, trace_id=b"x" * 8), Reason.NO_TRACE_ID),
    "no span id": (span(7, span_id=b""), Reason.NO_SPAN_ID),
    "a zero span id": (span(7, span_id=bytes(8)), Reason.NO_SPAN_ID),
    "a long span id": (span(7, span_id=b"x" * 9), Reason.NO_SPAN_ID),
    "too large": (span(7, name="x" * 2_000), Reason.SPAN_TOO_LARGE),
}


@pytest.mark.parametrize("case", BURIED)
def test_a_message_or_line_that_does_not_decode(case: str) -> None:
    own, value, reason, index, kept = BURIED[case]
    own.add(40, 41, value)
    flush = own.flush(None, RAW)
    detail = flush.dead_letters[0].detail
    assert flush.dead_letters == [DeadLetter(kept(value), "raw", 1, 40, 41, index, "ingest", reason, detail)]
    assert flush.rows == (2 if case == "a bad line" else 0)


def test_a_null_message_is_empty() -> None:
    """Kafka values may be null."""
    own = regroup()
    own.add(1, 2, None)
    (letter,) = own.flush(None, RAW).dead_letters
    assert (letter.reason, letter.value) == (Reason.EMPTY_MESSAGE, b"")


@pytest.mark.parametrize("case", UNFIT)
def test_one_unfit_span_leaves_its_message_and_the_others_go_on(case: str) -> None:
    """The letter is a whole message of one span, so it can be sent again as it is."""
    unfit, reason = UNFIT[case]
    own = regroup(row=1_000)
    own.add(5, 6, traces(GOOD, unfit, span(8)))
    flush = own.flush(None, RAW)
    (letter,) = flush.dead_letters
    assert (letter.offset, letter.index, letter.reason) == (5, 1, reason)
    assert TracesData.FromString(letter.value) == TracesData.FromString(traces(unfit))
    assert set(rows_of(flush)) == {(5, 0), (5, 2)}
    assert flush.rows == 2


def test_many_unfit_spans_of_a_message_are_one_letter_no_larger_than_it_was() -> None:
    """A producer without trace ids: ten thousand copies of its resource would be a hundred MB."""
    data = TracesData()
    part = data.resource_spans.add()
    part.resource.attributes.add(key="x" * 10_000)
    unfit = [span(7, trace_id=b"")] * 10_000
    part.scope_spans.add().spans.extend([GOOD, *unfit])
    own = regroup()
    own.add(5, 6, data.SerializeToString())
    assert own.size < 1.1 * len(data.SerializeToString())
    flush = own.flush(None, RAW)
    (letter,) = flush.dead_letters
    assert (letter.index, letter.reason, letter.detail) == (1, Reason.NO_TRACE_ID, "10000 rows")
    del part.scope_spans[0].spans[0]
    assert letter.value == data.SerializeToString()
    assert set(rows_of(flush)) == {(5, 0)}


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_rows_of_nothing_cost_no_hundred_times_their_bytes(signal: str, direct: bool) -> None:
    """Two bytes make a row without an id. One message of very many is malformed, its neighbours are not."""
    value = traces_data([(b"", b"", [b""] * (2 * MOST_APART))])
    good = traces(GOOD) if signal == "traces" else logs(LogRecord(trace_id=GOOD.trace_id))
    records = [(5, 6, good), (6, 6, value), (7, 6, good)]
    tracemalloc.start()
    try:
        if direct:
            batch = RawReader("raw", 1, N, signal, 1 << 24, 1 << 20).read(records)
            letters, rows = batch.dead_letters, len(batch.rows)
        else:
            own = regroup(signal)
            own.add_all(records)
            flush = own.flush(None, RAW)
            letters, rows = flush.dead_letters, flush.rows
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(each.offset, each.reason, each.value) for each in letters] == [(6, Reason.MALFORMED, value)]
    assert rows == 2
    assert most < 50 * len(value)


@pytest.mark.parametrize("more", [0, 1])
def test_many_logs_without_a_trace_are_no_reason_to_refuse_them(more: int) -> None:
    """Those of a large message have as many bytes as a log has."""
    row = LogRecord(body={"string_value": "x" * (BYTES_APART - 6)})
    count = MOST_APART + 1 if more else MOST_APART
    value = logs_data([(b"", b"", [row.SerializeToString() if more else b""] * count)])
    own = regroup("logs")
    own.add(5, 6, value)
    flush = own.flush(None, RAW)
    assert (flush.rows, flush.dead_letters) == (count, [])


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_a_row_is_measured_with_its_headers(signal: str) -> None:
    """A resource of megabytes on a tiny span would make an envelope that no topic takes, again and again."""
    own = regroup(signal, row=1_000)
    data = TracesData() if signal == "traces" else LogsData()
    for size in (10, 990):
        if isinstance(data, TracesData):
            part = data.resource_spans.add()
            part.scope_spans.add().spans.append(GOOD)
            part.resource.attributes.add(key="x" * size)
        else:
            logs_part = data.resource_logs.add()
            logs_part.scope_logs.add().log_records.add(trace_id=GOOD.trace_id)
            logs_part.resource.attributes.add(key="x" * size)
    own.add(5, 6, data.SerializeToString())
    flush = own.flush(None, RAW)
    assert [(letter.index, letter.reason) for letter in flush.dead_letters] == [(1, Reason.SPAN_TOO_LARGE)]
    assert set(rows_of(flush)) == {(5, 0)}


def test_a_large_json_line_is_buried_as_otlp() -> None:
    own = regroup("logs", "json", row=1_000)
    own.add(5, 6, b'{"msg": "' + b"x" * 2_000 + b'", "service": "shop"}\n{"msg": "small"}')
    flush = own.flush(None, RAW)
    (letter,) = flush.dead_letters
    assert (letter.index, letter.reason) == (0, Reason.SPAN_TOO_LARGE)
    assert len(LogsData.FromString(letter.value).resource_logs[0].scope_logs[0].log_records) == 1
    assert set(rows_of(flush)) == {(5, 1)}


@given(st.binary(max_size=200), st.sampled_from(["traces", "logs"]), st.sampled_from(["otlp_proto", "json"]))
def test_nothing_raises(value: bytes, signal: str, encoding: str) -> None:
    own = regroup(signal, encoding if signal == "logs" else "otlp_proto")
    own.add(1, 2, value)
    flush = own.flush(None, RAW)
    assert flush.rows == len(rows_of(flush))


# ---- envelopes and marks ---------------------------------------------------------------------------------


def test_every_output_partition_gets_the_mark_and_the_raw_topics() -> None:
    own = regroup()
    own.add(5, 6, traces(span(3)))
    found = envelopes(own.flush(77, RAW))
    assert sorted(found) == list(range(N))
    for target, (envelope,) in found.items():
        assert (envelope.mark, envelope.raw_topics) == (77, RAW)
        assert (envelope.topic, envelope.partition, envelope.partitions) == ("raw", 1, N)
        assert len(envelope) == (target == 3 % N)


def test_without_a_mark_envelopes_say_so() -> None:
    assert {e.mark for (e,) in envelopes(regroup().flush(None, RAW)).values()} == {NO_MARK}


def test_a_flush_leaves_nothing_behind() -> None:
    own = regroup("logs", "json")
    own.add(5, 6, b'{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}\n{"msg": 1}\noops')
    assert own.size > 0
    first = own.flush(1, RAW)
    assert (first.rows, len(first.dead_letters), len(first.untraced)) == (2, 1, 1)
    assert own.size == 0
    again = own.flush(2, RAW)
    assert (again.rows, again.dead_letters, again.untraced) == (0, [], [])
    assert all(len(envelope) == 0 for (envelope,) in envelopes(again).values())


def test_a_large_message_becomes_several_envelopes_and_only_the_last_carries_the_mark() -> None:
    """Second pass 2: 10,000 spans of one raw message, with other messages before and behind."""
    spans = [span(number * N, name="x" * 150) for number in range(1, 10_001)]
    own = regroup()
    own.add(9, 100, traces(span(N)))
    own.add(10, 101, traces(*spans))
    own.add(11, 102, traces(span(N)))
    flush = own.flush(77, RAW)
    found = envelopes(flush)
    assert len(found[0]) > 3
    assert [envelope.mark for envelope in found[0]] == [NO_MARK] * (len(found[0]) - 1) + [77]
    assert all(len(envelope.body) <= ENVELOPE_BYTES for envelope in found[0])
    assert [len(own) for target, own in found.items() if target] == [1] * (N - 1)
    places = [(e.messages[e.message[i]], e.item[i]) for e in found[0] for i in range(len(e))]
    assert places == [((9, 100), 0), *(((10, 101), item) for item in range(10_000)), ((11, 102), 0)]
    rows = [e.row(i) for e in found[0] for i in range(len(e))]
    assert rows[1:-1] == [s.SerializeToString() for s in spans]
    for envelope in found[0]:
        assert len(envelope.messages) == len({offset for offset, _ in envelope.messages}) <= 3


def test_headers_and_columns_count_towards_the_size_of_an_envelope() -> None:
    """Many small rows with large resources, and many empty ones: what is split is what goes over the wire."""
    data = TracesData()
    for number in range(40):
        part = data.resource_spans.add()
        part.resource.attributes.add(key=f"{number}" + "x" * 100_000)
        part.scope_spans.add().spans.append(span(N))
    own = regroup()
    own.add(1, 2, data.SerializeToString())
    own.add(2, 2, traces(*[span(N, name="")] * 40_000))
    found = envelopes(own.flush(None, RAW))[0]
    for envelope in found:
        columns = sum(len(c) * c.itemsize for c in (*envelope._columns(), envelope.keys))
        assert sum(map(len, envelope.resources)) + len(envelope.body) + columns < 1.1 * ENVELOPE_BYTES
    assert sum(map(len, found)) == 40_040
    assert own.size == 0


def test_the_size_covers_rows_and_dead_letters() -> None:
    """It decides when a transaction is due."""
    own = regroup()
    own.add(1, 2, b"\xff" * 1000)
    assert own.size == 1000 + LETTER_BYTES
    own.add(2, 2, traces(span(1, name="x" * 1000)))
    assert 2000 < own.size - LETTER_BYTES < 2300


# ---- untraced logs ---------------------------------------------------------------------------------------


def test_logs_without_a_trace_wait_for_nothing() -> None:
    """No id, a zero one, one of the wrong length: all untraced. They carry no mark: nobody's clock reads them."""
    traced = LogRecord(trace_id=(4).to_bytes(16, "big"), severity_text="INFO")
    others = [LogRecord(), LogRecord(trace_id=bytes(16)), LogRecord(trace_id=b"x" * 8)]
    own = regroup("logs")
    own.add(5, 6, logs(others[0], traced, *others[1:]))
    flush = own.flush(77, RAW)
    (envelope,) = untraced(flush)
    assert [(envelope.item[i], envelope.row(i)) for i in range(3)] == [
        (item, other.SerializeToString()) for item, other in zip((0, 2, 3), others, strict=True)
    ]
    assert list(envelope.keys) == [0, 0, 0]
    assert envelope.mark == NO_MARK
    assert envelope.messages == [(5, 6)]
    (own_trace,) = [e for (e,) in envelopes(flush).values() if len(e)]
    assert list(own_trace.keys) == [4]
    assert flush.rows == 4
    assert flush.dead_letters == []


def test_json_lines_join_their_trace_in_any_form() -> None:
    own = regroup("logs", "json")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    own.add(5, 6, f'{{"traceId": "{trace}"}}\n{{"dd.trace_id": "{int(trace[16:], 16)}"}}'.encode())
    flush = own.flush(None, RAW)
    found = [key for (e,) in envelopes(flush).values() for key in e.keys]
    assert found == [trace_key(bytes.fromhex(trace))] * 2


# ---- nothing lost, nothing doubled -----------------------------------------------------------------------

MESSAGES = st.lists(
    st.one_of(
        otlp_wire.data_of(otlp_wire.SPANS),
        st.lists(st.builds(span, st.integers(1, 9)), min_size=1, max_size=6).map(lambda found: traces(*found)),
        otlp_wire.mutated(otlp_wire.data_of(otlp_wire.SPANS)),
        st.binary(max_size=20),
    ),
    max_size=6,
)
LOG_MESSAGES = st.lists(
    st.one_of(otlp_wire.data_of(otlp_wire.LOG_RECORDS), otlp_wire.mutated(otlp_wire.data_of(otlp_wire.LOG_RECORDS))),
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(["traces", "logs"]), st.sampled_from(["otlp_proto", "auto"]), st.integers(1, 2_000))
def test_messages_that_come_together_are_taken_apart_as_if_alone(
    data: st.DataObject, signal: str, encoding: str, batch_bytes: int
) -> None:
    """The same envelopes, dead letters and losses: a bad message harms none beside it."""
    messages = data.draw(MESSAGES if signal == "traces" else LOG_MESSAGES)
    records = [(offset, offset * 10, value) for offset, value in enumerate(messages)]
    alone, together = (regroup(signal, encoding, message=300, row=120) for _ in range(2))
    for record in records:
        alone.add(*record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES", batch_bytes)
        together.add_all(records)
    assert (together.lost, together.size) == (alone.lost, alone.size)
    assert together.flush(5, RAW) == alone.flush(5, RAW)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(["traces", "logs"]), st.sampled_from([1, 60, 1 << 19]))
def test_no_row_is_lost_or_doubled(data: st.DataObject, signal: str, envelope_bytes: int) -> None:
    """Every row of every message is in one envelope or one dead letter, byte for byte, with its headers.

    The letter of a message's only row is the message itself.
    """
    messages = data.draw(MESSAGES if signal == "traces" else LOG_MESSAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENVELOPE_BYTES", envelope_bytes)
        own = regroup(signal)
        own.add_all([(offset, offset * 10, value) for offset, value in enumerate(messages)])
        flush = own.flush(5, RAW)
    found = rows_of(flush)
    buried = {(letter.offset, letter.index): letter for letter in flush.dead_letters}
    assert len(buried) == len(flush.dead_letters)
    assert flush.rows == len(found)
    split, join = (split_traces, traces_data) if signal == "traces" else (split_logs, logs_data)
    places: Counter[tuple[int, int]] = Counter()
    for offset, value in enumerate(messages):
        letter = buried.get((offset, 0))
        if letter is not None and letter.reason in (Reason.MALFORMED, Reason.EMPTY_MESSAGE):
            assert letter.value == value
            places[offset, 0] += 1
            continue
        rows = split(value)
        for item in range(len(rows)):
            places[offset, item] += 1
            row = (
                rows.resources[rows.resource[item]],
                rows.scopes[rows.scope[item]],
                value[rows.starts[item] : rows.ends[item]],
            )
            if (offset, item) in buried:
                alone = join([(row[0], row[1], [row[2]])])
                assert buried[offset, item].value == (value if len(rows) == 1 else alone)
            else:
                assert found[offset, item] == row
    assert places == Counter([*found, *buried])
    for target, own_envelopes in envelopes(flush).items():
        for envelope in own_envelopes:
            assert all(key % N == target for key in envelope.keys)
            assert all(timestamp == offset * 10 for offset, timestamp in envelope.messages)


@given(st.lists(st.integers(1, 1 << 127), min_size=1, max_size=20))
def test_envelopes_concatenate_to_the_same_message(numbers: list[int]) -> None:
    """Rows with their headers are valid OTLP again: the same spans, resources and scopes, in the order they came."""
    spans = [span(0, trace_id=number.to_bytes(16, "big")) for number in numbers]
    spans = [Span(trace_id=s.trace_id, span_id=b"\x01" * 8, name=f"op {i}") for i, s in enumerate(spans)]
    spans = [s for s in spans if any(s.trace_id)]
    own = regroup()
    own.add(1, 2, traces(*spans))
    for target, (envelope,) in envelopes(own.flush(None, RAW)).items():
        rows = [envelope.row(i) for i in range(len(envelope))]
        mine = [s for s in spans if partition_of(s.trace_id, N) == target]
        if rows:
            joined = traces_data([(envelope.resources[0], envelope.scopes[0], rows)])
            assert TracesData.FromString(joined) == TracesData.FromString(traces(*mine))
        else:
            assert mine == []
