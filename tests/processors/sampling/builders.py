"""Spans and policies for the sampling tests, and how Hypothesis draws them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from processors.sampling.answers import words_of
from processors.sampling.compile import Plan
from processors.sampling.evidence import Evidence
from processors.sampling.policies import Policy
from processors.sampling.span_bits import NO_RANDOMNESS
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from schemas.decision import Enrichment
from schemas.ids import trace_key
from schemas.otlp_scan import AttributeValue, LogColumns
from schemas.trace_state import randomness_of_state
from tests.schemas.rows import SpanScan, columns_of

TRACE_ID = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
MS = 1_000_000
NOON = 1_800_000_000_000 * MS  # ns


def random_keys(count: int) -> list[int]:
    """Keys of traces; the same ones every time."""
    random = Random(1)
    return [random.getrandbits(64) for _ in range(count)]


def policy(name: str, kind: str, /, **block: Any) -> Policy:
    """A validated policy; keyword arguments are the fields of its block."""
    return Policy.model_validate({"name": name, "type": kind, **({kind: block} if block else {})})


def both(name: str, *parts: Policy) -> Policy:
    """An `and` of policies."""
    return policy(name, "and", and_sub_policy=[part.model_dump(by_alias=True, exclude_none=True) for part in parts])


def opposite(name: str, part: Policy) -> Policy:
    """A `not` of a policy."""
    return policy(name, "not", not_sub_policy=part.model_dump(by_alias=True, exclude_none=True))


def drop(name: str, *parts: Policy) -> Policy:
    """A `drop` of policies."""
    return policy(name, "drop", drop_sub_policy=[part.model_dump(by_alias=True, exclude_none=True) for part in parts])


def span(
    start_ns: int = NOON,
    end_ns: int = NOON + MS,
    *,
    status: int = 0,
    trace_id: bytes = TRACE_ID,
    span_id: bytes = b"\x01" * 8,
    parent: bytes = b"",
    state: bytes = b"",
    name: bytes = b"GET /",
    attributes: list[AttributeValue | None] | None = None,
    kind: int = 2,
    flags: int = 0,
) -> SpanScan:
    """A span of one millisecond."""
    return SpanScan(trace_id, span_id, parent, state, name, kind, start_ns, end_ns, status, attributes or [], flags)


def slots(plan: Plan, values: Mapping[str, AttributeValue]) -> list[AttributeValue | None]:
    """Attributes by the slots of a plan."""
    row: list[AttributeValue | None] = [None] * len(plan.keys)
    for key, value in values.items():
        row[plan.keys[key.encode()]] = value
    return row


def span_bits(plan: Plan, scan: SpanScan) -> int:
    """The predicates that a span meets by itself."""
    row = scan._replace(attributes=[*scan.attributes, *[None] * len(plan.keys)])
    columns = columns_of([row], plan.keys)
    plan.span_bits.assign(columns, array("I", [0]), [0])
    return bits_of(plan.span_bits.bits[: plan.words])


def log_bits(plan: Plan, severity: int) -> int:
    """The predicates that a log record of this severity meets."""
    table = Table(plan.words, plan)
    table.add_logs([severity])
    return table.evidence().bits


def bits_of(words: Sequence[int]) -> int:
    """A bit set from its 64-bit words."""
    return sum(word << (64 * place) for place, word in enumerate(words))


@dataclass
class Answers:
    """What spans meet, given instead of worked out."""

    bits: array[int]
    randomness: array[int]


class Table:
    """A trace table with one trace in it."""

    def __init__(
        self, words: int = 1, plan: Plan | None = None, trace_id: bytes = TRACE_ID, *, logged: bool = True
    ) -> None:
        self.trace_id = trace_id
        self._key = trace_key(trace_id)
        self.table = TraceTable(1_000, None, words, logged=logged)
        self.labels = SpanLabels([])
        self._words, self._plan = words, plan

    def add_spans(
        self, scans: Sequence[SpanScan], bits: Sequence[int] | None = None, service: str = "", resource_bits: int = 0
    ) -> None:
        """Fold spans of one service. `bits`: what each of them meets; without, the plan works it out."""
        columns, rows = columns_of(scans, self._plan.keys if self._plan else {}), len(scans)
        resource = array("I", bytes(4 * rows))
        self.labels.assign(columns, resource, [(service, ())])
        answers: Any
        if bits is None:
            assert self._plan is not None
            answers = self._plan.span_bits
            answers.assign(columns, resource, [resource_bits])
        else:
            words = [word for one in bits for word in words_of(one, self._words)]
            found = [randomness_of_state(scan.trace_state) for scan in scans]
            answers = Answers(array("Q", words), array("Q", [NO_RANDOMNESS if r is None else r for r in found]))
        self.table.fold_spans(columns, *self._rows(rows), 0, answers, self.labels)

    def add_logs(
        self, severities: Sequence[int], span_id: bytes = b"", trace_id: bytes = b"", bits: Sequence[int] = ()
    ) -> None:
        """Fold log records. `bits`: what each of them meets; without, the plan says it."""
        columns, ends, body = LogColumns(), array("I"), b""
        for number in range(max(len(severities), len(bits))):
            severity = severities[number] if severities else number
            body += LogRecord(severity_number=severity, span_id=span_id, trace_id=trace_id).SerializeToString()  # type: ignore[arg-type]
            ends.append(len(body))
        columns.scan(body, ends)
        words = array("Q", [word for one in bits for word in words_of(one, self._words)])
        table = words if bits else self._plan.severity_bits if self._plan else array("Q", bytes(8 * self._words))
        self.table.fold_logs(columns, *self._rows(len(ends)), 0, table)

    def _rows(self, rows: int) -> tuple[array[int], array[int], array[int]]:
        return array("Q", [self._key] * rows), array("q", bytes(8 * rows)), array("B", bytes(rows))

    def evidence(self) -> Evidence:
        """What is known of the trace; nothing, if it has no rows."""
        return self._due()[0] if len(self.table) else Evidence(bytes(8) + self.trace_id[8:])

    def enrichments(self) -> tuple[Enrichment | None, dict[bytes, Enrichment]]:
        """What its logs learn."""
        return self._due()[1] if len(self.table) else (None, {})

    def _due(self) -> tuple[Evidence, tuple[Enrichment | None, dict[bytes, Enrichment]]]:
        assert self.table.list_due(1_000) == 1
        assert self.table.due_keys[0] == self._key
        return self.table.evidence(0), self.table.enrichments(0)


def gather(
    plan: Plan,
    *spans: SpanScan,
    resource: Mapping[str, AttributeValue] | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    severities: tuple[int, ...] = (),
) -> Evidence:
    """Evidence of whole spans of one resource and of logs; `attributes` are every span's."""
    table = Table(plan.words, plan)
    if spans:
        scans = [one._replace(attributes=slots(plan, attributes or {})) for one in spans]
        table.add_spans(scans, resource_bits=plan.resource_bits(slots(plan, resource or {})))
    if severities:
        table.add_logs(severities)
    return table.evidence()


states = st.one_of(
    st.just(b""),
    st.integers(0, 2**56 - 1).map(lambda rv: b"ot=th:8;rv:%014x,vendor=1" % rv),
)
times = st.one_of(st.just(0), st.integers(NOON, NOON + 5_000 * MS))
spans = st.builds(
    span,
    times,
    times,
    status=st.integers(0, 3),
    flags=st.sampled_from([0, 0, 0, 1, 2]),
    trace_id=st.sampled_from([TRACE_ID, bytes(8) + TRACE_ID[8:]]),
    state=states,
    attributes=st.lists(st.sampled_from([None, "shop", "a", "", 503, 503.0, True, b"x"]), min_size=2, max_size=2),
)
