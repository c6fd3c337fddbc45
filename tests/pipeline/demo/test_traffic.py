"""The generator: what it promises about order, lateness, errors and bytes, over many seeds."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.demo import shop
from pipeline.demo.facts import CONSUMER, ERROR, LogFact, Message, SpanFact
from pipeline.demo.journey import LONGEST_SECONDS
from pipeline.demo.traffic import EVIDENCE_SECONDS, RawTopics, Traffic

EPOCH_NS = 1_700_000_000_000_000_000
WAIT = 3.0
SECONDS = 20.0
RATE = 400.0

seeds = st.integers(min_value=0, max_value=2**32)


def messages(seed: int = 7, rate: float = RATE, seconds: float = SECONDS) -> list[Message]:
    return list(Traffic(seed, rate, seconds, EPOCH_NS, WAIT).messages())


def arrivals(sent: list[Message]) -> dict[bytes, list[tuple[float, SpanFact | LogFact]]]:
    """What arrived of each trace, with the time."""
    found: dict[bytes, list[tuple[float, SpanFact | LogFact]]] = defaultdict(list)
    for message in sent:
        facts: list[SpanFact | LogFact] = [*message.spans, *message.logs]
        for fact in facts:
            if fact.trace_id:
                found[fact.trace_id].append((message.at, fact))
    return found


def is_error(fact: SpanFact | LogFact) -> bool:
    return fact.error if isinstance(fact, LogFact) else fact.status == ERROR


def test_same_seed_same_bytes_and_other_seed_other_traces() -> None:
    assert messages(1) == messages(1)
    assert not set(arrivals(messages(1))) & set(arrivals(messages(2)))


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_arrives_in_order_at_about_the_rate(seed: int) -> None:
    sent = messages(seed)
    assert [m.at for m in sent] == sorted(m.at for m in sent)
    spans = sum(len(m.spans) for m in sent)
    assert 0.8 < spans / (RATE * SECONDS) < 1.2
    assert sent[-1].at < SECONDS + EVIDENCE_SECONDS + 1


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_every_error_comes_before_the_decision(seed: int) -> None:
    for arrived in arrivals(messages(seed)).values():
        start = min(f.start_ns for _, f in arrived if isinstance(f, SpanFact))
        for at, fact in arrived:
            if is_error(fact):
                assert at - (start - EPOCH_NS) / 1e9 <= EVIDENCE_SECONDS


def test_has_everything_that_makes_traffic_realistic() -> None:
    sent = messages()
    spans = [span for m in sent for span in m.spans]
    logs = [log for m in sent for log in m.logs]
    traces = arrivals(sent)
    assert {span.service for span in spans} == set(shop.SERVICES)
    by_span = {s.trace_id for s in spans if s.status == ERROR}
    by_log = {log.trace_id for log in logs if log.error and log.trace_id}
    assert by_span
    assert by_log - by_span, "errors only in logs"
    assert any(not log.trace_id for log in logs)
    assert any(span.kind == CONSUMER for span in spans), "asynchronous calls"
    late = [
        at
        for arrived in traces.values()
        for at, fact in arrived
        if at > arrived[0][0] + WAIT and isinstance(fact, SpanFact)
    ]
    assert late, "spans that come after the decision"
    customers = {s.attributes[shop.CUSTOMER] for s in spans if shop.CUSTOMER in s.attributes}
    assert len(customers) > 500, "exploding values"
    lengths = [
        max(s.end_ns for _, s in t if isinstance(s, SpanFact))
        - min(s.start_ns for _, s in t if isinstance(s, SpanFact))
        for t in traces.values()
    ]
    assert any(length > 0.8e9 for length in lengths), "slow requests"
    assert max(lengths) <= LONGEST_SECONDS * 1e9
    assert sum(m.dead_letters for m in sent) >= 2


def test_a_trace_is_spread_over_messages_and_partitions_and_comes_out_of_order() -> None:
    partitions: dict[bytes, set[int]] = defaultdict(set)
    disordered = 0
    for message in messages():
        for span in message.spans:
            partitions[span.trace_id].add(message.partition)
    for arrived in arrivals(messages()).values():
        starts = [fact.start_ns for _, fact in arrived if isinstance(fact, SpanFact)]
        disordered += starts != sorted(starts)
    assert max(map(len, partitions.values())) == RawTopics().partitions
    assert disordered > len(partitions) / 2


def test_parents_belong_to_the_same_trace() -> None:
    spans = {s.span_id: s for m in messages() for s in m.spans}
    for span in spans.values():
        if span.parent:
            assert spans[span.parent].trace_id == span.trace_id
            assert span.start_ns >= spans[span.parent].start_ns


def test_bytes_say_what_the_facts_say() -> None:
    topics = RawTopics()
    for message in messages(seconds=4.0):
        if message.dead_letters:
            continue
        if message.topic == topics.spans:
            data = TracesData.FromString(message.value)
            assert sorted(_spans(data)) == sorted(
                (s.trace_id, s.span_id, s.parent, s.name, s.kind, s.status, s.start_ns, s.end_ns, s.service)
                for s in message.spans
            )
        elif message.topic == topics.logs:
            records = [
                record
                for resource in LogsData.FromString(message.value).resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            ]
            assert [(r.trace_id, r.body.string_value, r.severity_text) for r in records] == [
                (log.trace_id, log.body, log.severity) for log in message.logs
            ]
        else:
            lines = message.value.split(b"\n")
            assert len(lines) == len(message.logs)
            for line, log in zip(lines, message.logs, strict=True):
                assert log.trace_id.hex().encode() in line
                assert log.uid.encode() in line


def test_a_decision_that_comes_before_the_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="decision_wait"):
        Traffic(1, RATE, SECONDS, EPOCH_NS, EVIDENCE_SECONDS)


def _spans(data: TracesData) -> list[tuple[bytes, bytes, bytes, str, int, int, int, int, str]]:
    return [
        (
            s.trace_id, s.span_id, s.parent_span_id, s.name, int(s.kind), int(s.status.code),
            s.start_time_unix_nano, s.end_time_unix_nano,
            next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name"),
        )
        for resource in data.resource_spans for scope in resource.scope_spans for s in scope.spans
        if isinstance(s, Span)
    ]  # fmt: skip
