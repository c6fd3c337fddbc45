"""The worked example of docs/explanation/two-cursors.md, "A crash, step by step", as it is told there."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Burst, Settings, Window
from processors.span_metrics import SpanMetrics
from schemas.decision import DecisionRecord
from schemas.envelope import Envelope
from schemas.ids import trace_key
from tests.schemas.rows import scan_span

START_MS = 1_700_000_000_000
SETTINGS = Settings(1, "tailrace.spans", "tailrace.logs", decision_wait=10_000, late_horizon=600_000)
PLAN = compile_policies(
    [Policy.model_validate({"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}})],
    compat="none",
    extra_keys=["service.name"],
)
LOG = {
    100: (0, ["A1", "B1"]),
    101: (2, ["A2"]),
    102: (5, ["C1"]),
    103: (8, ["B2!"]),
    104: (9, ["D1"]),
    105: (12, ["A3", "C2"]),
    106: (16, ["E1"]),
}
"""Offset → (seconds, spans); a letter is a trace, `!` an error."""


def test_a_crash_after_the_transaction() -> None:
    first = window()
    assert first.resume({}, {"tailrace.spans": 100, "tailrace.logs": 0})["tailrace.spans"] == 100
    read(first, 100, 106)
    burst = first.burst()
    assert burst is not None
    assert forwarded(burst) == ["B1"]
    assert verdicts(burst) == {"A": "", "B": "errors"}
    assert burst.tails["tailrace.spans"] == 102
    assert counted(burst) == 8

    second = window()
    second.load(0, burst.decisions)
    assert second.resume(dict(burst.tails), {"tailrace.spans": 0, "tailrace.logs": 0})["tailrace.spans"] == 102
    read(second, 102, 107)
    burst = second.burst()
    assert burst is not None
    assert forwarded(burst) == ["B2!"]
    assert verdicts(burst) == {"C": ""}
    assert burst.tails["tailrace.spans"] == 104, "D is due at 19 s"
    assert counted(burst) == 1, "only E1: the first process counted up to 106"


def test_a_crash_before_the_transaction() -> None:
    """Nothing of the first attempt is visible, so the second does the same."""
    for attempt in range(2):
        owner = window()
        owner.resume({}, {"tailrace.spans": 100, "tailrace.logs": 0})
        read(owner, 100, 106)
        burst = owner.burst()
        assert burst is not None, attempt
        assert (forwarded(burst), verdicts(burst), counted(burst)) == (["B1"], {"A": "", "B": "errors"}, 8), attempt


def window() -> Window:
    return Window(0, SETTINGS, PLAN, SpanMetrics("spans", [], [100.0], PLAN.keys))


def read(owner: Window, start: int, end: int) -> None:
    """The head reads the offsets from `start` to before `end`; each record's mark is its own time."""
    for offset in range(start, end):
        seconds, names = LOG[offset]
        time = START_MS + seconds * 1000
        envelope = Envelope(1, "otlp_spans", 0, mark=time, raw_topics={"otlp_spans": 1})
        envelope.resources, envelope.scopes, envelope.messages = [b""], [b""], [(offset, time)]
        for item, name in enumerate(names):
            envelope.body += span(name)
            envelope.ends.append(len(envelope.body))
            envelope.keys.append(trace_key(trace_id(name)))
            for column, value in ((envelope.resource, 0), (envelope.scope, 0), (envelope.message, 0)):
                column.append(value)
            envelope.item.append(item)
        owner.head("tailrace.spans", offset, time, envelope.encode())


def trace_id(name: str) -> bytes:
    return name[0].encode() * 16


def span(name: str) -> bytes:
    status = Status.STATUS_CODE_ERROR if name.endswith("!") else Status.STATUS_CODE_UNSET
    row = Span(trace_id=trace_id(name), span_id=name[:2].encode() * 4, name=name, status=Status(code=status))
    return bytes(row.SerializeToString())


def forwarded(burst: Burst) -> list[str]:
    envelopes = [Envelope.decode(value) for value in burst.kept_spans]
    rows = [envelope.row(row) for envelope in envelopes for row in range(len(envelope))]
    return [scan_span(row, 0, len(row), {}).name.decode() for row in rows]


def verdicts(burst: Burst) -> dict[str, str]:
    """Trace → the policy that kept it, "" if it was dropped."""
    record = DecisionRecord.decode(burst.decisions)
    letters = {trace_key(trace_id(letter)): letter for letter in "ABCDE"}
    return {letters[key]: verdict.policy for key, verdict in zip(record.keys, record.verdicts, strict=True)}


def counted(burst: Burst) -> float:
    """Spans in the metrics of the transaction."""
    calls = [point for point in burst.points if point.shape.kind == "counter"]
    return sum(value for point in calls for _, value in point.rows if isinstance(value, int | float))
