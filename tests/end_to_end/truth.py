"""What was really sent, what must come of it, and whether it did.

A `Truth` is written down by the producers, never asked of the pipeline. `expected` says which policy must keep a
trace, written from the meaning of the policies and not with the pipeline's code, so every trace has one right
outcome: a kept one is complete, of a dropped one nothing is there but its logs from WARN on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

UID = "log.record.uid"
"""The attribute by which a log record is known again."""

SLOW_MS = 1000
SHARE_PERCENT = 5
SHARE_THRESHOLD = round((1 << 56) * (1 - SHARE_PERCENT / 100))
"""Of the last 56 bits of the trace id: at or above it the trace belongs to the share."""

SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17}
UNSAMPLED = "warn"

POLICIES: list[dict[str, Any]] = [
    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": SLOW_MS}},
    {
        "name": "gold",
        "type": "string_attribute",
        "string_attribute": {"key": "customer.tier", "values": ["gold"]},
    },
    {
        "name": "canary",
        "type": "and",
        "and": {
            "and_sub_policy": [
                {
                    "name": "released",
                    "type": "string_attribute",
                    "string_attribute": {"key": "release", "values": ["canary"]},
                },
                {
                    "name": "not-a-probe",
                    "type": "string_attribute",
                    "string_attribute": {"key": "probe", "values": ["yes"], "invert_match": True},
                },
            ]
        },
    },
    {"name": "share", "type": "probabilistic", "probabilistic": {"sampling_percentage": SHARE_PERCENT}},
]


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it was made; ids in hex, times in ns since the epoch."""

    trace_id: str
    span_id: str
    parent: str
    service: str
    name: str
    start_ns: int
    end_ns: int
    error: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Log:
    """One log record as it was written; ids in hex, "" for a log without a trace."""

    uid: str
    service: str
    severity: str
    body: str
    time_ns: int
    trace_id: str = ""
    span_id: str = ""


@dataclass(slots=True)
class Trace:
    """The spans of one trace by id, and its logs by uid."""

    spans: dict[str, Span] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)

    @property
    def error(self) -> bool:
        """Whether it must be kept whatever else: a span failed, or a log says ERROR."""
        return any(s.error for s in self.spans.values()) or any(log.severity == "ERROR" for log in self.logs.values())

    def expected(self, trace_id: str) -> str:
        """The first policy that keeps it, "" if none does."""
        spans = self.spans.values()
        if any(span.error for span in spans):
            return "errors"
        if any(log.severity == "ERROR" for log in self.logs.values()):
            return "error-logs"
        if max(s.end_ns for s in spans) - min(s.start_ns for s in spans) > SLOW_MS * 1_000_000:
            return "slow"
        if any(span.attributes.get("customer.tier") == "gold" for span in spans):
            return "gold"
        released = any(span.attributes.get("release") == "canary" for span in spans)
        if released and not any(span.attributes.get("probe") == "yes" for span in spans):
            return "canary"
        return "share" if int(trace_id[-14:], 16) >= SHARE_THRESHOLD else ""


class Document(NamedTuple):
    """A log record as its destination holds it; `sampled` is None without a verdict."""

    trace_id: str
    span_id: str
    severity_number: int
    body: str
    sampled: bool | None
    policy: str
    service: str
    span_name: str


@dataclass(slots=True)
class Holdings:
    """What the destinations hold.

    `spans`: times that each span id was found, by trace id. `policies`: what the spans of a trace say kept them.
    `logs`: every document by uid, `places`: the index and the id of each, where a destination has such. `calls` and
    `durations`: spans counted, by service.
    """

    spans: dict[str, Counter[str]] = field(default_factory=dict)
    policies: dict[str, set[str]] = field(default_factory=dict)
    logs: dict[str, list[Document]] = field(default_factory=dict)
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    durations: Counter[str] = field(default_factory=Counter)

    def add_span(self, trace_id: str, span_id: str, policy: str) -> None:
        """A destination holds this span."""
        self.spans.setdefault(trace_id, Counter())[span_id] += 1
        self.policies.setdefault(trace_id, set()).add(policy)


@dataclass(slots=True)
class Truth:
    """Everything that was made."""

    traces: dict[str, Trace] = field(default_factory=dict)
    untraced: dict[str, Log] = field(default_factory=dict)
    made: Counter[str] = field(default_factory=Counter)

    def add(self, *facts: Span | Log) -> None:
        """Write facts down."""
        for fact in facts:
            if isinstance(fact, Span):
                self._trace(fact.trace_id).spans[fact.span_id] = fact
                self.made[fact.service] += 1
            elif fact.trace_id:
                self._trace(fact.trace_id).logs[fact.uid] = fact
            else:
                self.untraced[fact.uid] = fact

    def _trace(self, trace_id: str) -> Trace:
        if trace_id not in self.traces:
            self.traces[trace_id] = Trace()
        return self.traces[trace_id]

    @property
    def kept(self) -> dict[str, str]:
        """The policy of each trace that must be kept."""
        return {i: policy for i, trace in self.traces.items() if (policy := trace.expected(i))}

    def logs(self) -> Iterator[Log]:
        """Every log record."""
        yield from self.untraced.values()
        for trace in self.traces.values():
            yield from trace.logs.values()

    def expected_logs(self) -> set[str]:
        """The uids that must be delivered."""
        kept = self.kept
        lowest = SEVERITIES[UNSAMPLED.upper()]
        return {
            log.uid
            for log in self.logs()
            if not log.trace_id or log.trace_id in kept or SEVERITIES[log.severity] >= lowest
        }

    # ---- the checks --------------------------------------------------------------------------------------

    def violations(self, holdings: Holdings, spans_twice: bool = False) -> list[str]:
        """Everything that is not as it must be, in words; `spans_twice`: a request may have been sent again."""
        return [
            *self._self_evident(),
            *self._spans_wrong(holdings, spans_twice),
            *self._logs_wrong(holdings),
            *self._counts_wrong(holdings),
        ]

    def _self_evident(self) -> Iterator[str]:
        """A test that sent nothing of a kind has shown nothing about it."""
        named = Counter(self.kept.values())
        for policy in ("errors", "error-logs", "slow"):
            if not named[policy]:
                yield f"no trace was made that only {policy} keeps"
        if len(self.kept) == len(self.traces):
            yield "no trace was made that must be dropped"

    def _spans_wrong(self, holdings: Holdings, spans_twice: bool) -> Iterator[str]:
        kept = self.kept
        for trace_id, policy in kept.items():
            got = holdings.spans.get(trace_id, Counter())
            sent = self.traces[trace_id].spans.keys()
            if not got:
                yield f"trace {trace_id} must be kept by {policy} and is not there"
            elif got.keys() != sent:
                lacks, more = len(sent - got.keys()), len(got.keys() - sent)
                yield f"trace {trace_id} ({policy}) lacks {lacks} of its {len(sent)} spans and has {more} more"
            elif not spans_twice and got.total() != len(sent):
                yield f"trace {trace_id} ({policy}) has {got.total() - len(sent)} spans twice"
            elif holdings.policies[trace_id] != {policy}:
                yield f"trace {trace_id} names {holdings.policies[trace_id]}, not {policy}"
        for trace_id in holdings.spans.keys() - kept.keys():
            known = "must be dropped" if trace_id in self.traces else "was never made"
            yield f"trace {trace_id} {known} and has {len(holdings.spans[trace_id])} spans there"

    def _logs_wrong(self, holdings: Holdings) -> Iterator[str]:
        kept, expected = self.kept, self.expected_logs()
        for log in self.logs():
            documents = holdings.logs.get(log.uid, [])
            if log.uid not in expected:
                if documents:
                    yield f"log {log.uid} of dropped trace {log.trace_id} ({log.severity}) is there"
            elif len(documents) != 1:
                yield f"log {log.uid} of trace {log.trace_id or '-'} is there {len(documents)} times"
            elif documents[0] != (wanted := self.document(log, kept.get(log.trace_id, ""))):
                yield f"log {log.uid} is {documents[0]}, not {wanted}"
        if invented := holdings.logs.keys() - {log.uid for log in self.logs()}:
            yield f"{len(invented)} logs were never written, such as {min(invented)}"

    def document(self, log: Log, policy: str) -> Document:
        """A log with its verdict; one of a kept trace also says which span it belongs to."""
        span = self.traces[log.trace_id].spans.get(log.span_id) if policy else None
        return Document(
            log.trace_id,
            log.span_id,
            SEVERITIES[log.severity],
            log.body,
            bool(policy) if log.trace_id else None,
            policy,
            span.service if span else log.service,
            span.name if span else "",
        )

    def _counts_wrong(self, holdings: Holdings) -> Iterator[str]:
        for name, counted in (("calls", holdings.calls), ("durations", holdings.durations)):
            if +counted != +self.made:
                yield f"{name} counted are {dict(counted)}, spans made {dict(self.made)}"


def assert_true(truth: Truth, holdings: Holdings, spans_twice: bool = False) -> None:
    """Fail with the first violations and how many there are."""
    found = truth.violations(holdings, spans_twice)
    assert not found, "\n".join([f"{len(found)} violations:", *found[:20]])


# ---- the truth of other processes, as JSON lines ---------------------------------------------------------


def line(fact: Span | Log) -> str:
    """One fact as a line."""
    return json.dumps({"kind": type(fact).__name__, **asdict(fact)})


def read(files: Iterable[Path]) -> Truth:
    """The truth that programs wrote down."""
    kinds: Mapping[str, type[Span] | type[Log]] = {"Span": Span, "Log": Log}
    truth = Truth()
    for file in files:
        for text in file.read_text().splitlines():
            fact = json.loads(text)
            truth.add(kinds[fact.pop("kind")](**fact))
    return truth
