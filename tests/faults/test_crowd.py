"""Copies of requests are requests: what a message holds is what its facts say, and no id comes twice."""

from __future__ import annotations

from itertools import islice, takewhile

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.end_to_end.truth import UID, Log, Span, Truth
from tests.faults import crowd

BEGIN = 1_700_000_000.0
TOPICS = ("spans", "logs")


def test_a_message_holds_what_its_facts_say() -> None:
    for message in islice(crowd.messages(TOPICS, 3, 10_000.0, BEGIN), 150, 220):
        if message.topic == "spans":
            spans = [s for r in TracesData.FromString(message.value).resource_spans for s in r.scope_spans[0].spans]
            found = {(s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex()) for s in spans}
            assert found == {(f.trace_id, f.span_id, f.parent) for f in message.facts if isinstance(f, Span)}
        else:
            logs = [r.scope_logs[0].log_records[0] for r in LogsData.FromString(message.value).resource_logs]
            uids = {next(a.value.string_value for a in log.attributes if a.key == UID): log for log in logs}
            ids = {uid: (log.trace_id.hex(), log.span_id.hex()) for uid, log in uids.items()}
            assert ids == {f.uid: (f.trace_id, f.span_id) for f in message.facts if isinstance(f, Log)}


def test_requests_come_at_their_rate_and_once() -> None:
    rate, seconds, truth = 20_000.0, 3.0, Truth()
    end = BEGIN + seconds
    times = []
    for message in takewhile(lambda message: message.at < end, crowd.messages(TOPICS, 1, rate, BEGIN)):
        truth.add(*message.facts)
        times.append(message.at)
    assert times == sorted(times)
    assert 0.7 * rate * seconds < truth.made.total() < rate * seconds
    whole = sum(len(trace.spans) == crowd.SPANS_PER_REQUEST for trace in truth.traces.values())
    assert whole > 0.7 * len(truth.traces)
    assert truth.made.total() == sum(len(trace.spans) for trace in truth.traces.values())
    assert {"errors", "error-logs", "slow", "gold", "canary", "share"} <= set(truth.kept.values())
