"""Rows of the kept topics as OTLP again: spans and logs as they came, what decided about them appended.

Nothing is encoded anew. What decided is further fields behind a row's own bytes, which protobuf reads as one message:
attributes, and for a span the tracestate that says at which threshold it was sampled. Keys of attributes must be unique
(OpenTelemetry specification, "Attribute Collections"): of a row that passed another Tailrace, what that one said is cut
out first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.envelope import Envelope, RowVerdict
from schemas.otlp_build import (
    LOG_ATTRIBUTE,
    SPAN_ATTRIBUTE,
    log_attribute,
    span_attribute,
    span_trace_state,
    traces_data,
    without_attributes,
)
from schemas.otlp_scan import TRACE_ID, TRACE_STATE, SpanColumns
from schemas.trace_state import (
    adjusted_count,
    randomness_of_id,
    randomness_of_state,
    threshold_of_state,
    threshold_text,
    with_threshold,
)
from sinks.contract import Coordinates, Item, Signal, SourceRecord

POLICY = "tailsampling.policy"  # the attribute of the Collector's processor.tailsamplingprocessor.recordpolicy
THRESHOLD = "tailsampling.threshold"  # `th` as in tracestate: hexadecimal, trailing zeros cut
ADJUSTED_COUNT = "tailsampling.adjusted_count"  # how many traces this one stands for
SAMPLED = "trace.sampled"
SPAN_NAME, SPAN_STATUS = "span.name", "span.status"
SAID: dict[Signal, bytes] = {"spans": b"tailsampling.", "logs": SAMPLED.encode()}  # is in every row that was decided
STATUS_NAMES = ("unset", "ok", "error")


@dataclass(slots=True, kw_only=True)
class RowItem(Item):
    """One span or log record: `row` as it came, `wire` as it goes, under its Resource and Scope headers."""

    key: int
    resource: bytes
    scope: bytes
    row: bytes
    wire: bytes

    def dead_letter(self, *others: RowItem) -> bytes:
        """An export request with these rows as they came."""
        return traces_data((item.resource, item.scope, [item.row]) for item in (self, *others))


def row_items(record: SourceRecord, lane: int = 0, consistent: bool = True) -> Iterator[RowItem]:
    """The rows of an envelope. A header's bytes count for the first row that has it.

    `consistent`: thresholds are those of consistent probability sampling, by the randomness that tracestates are about,
    and may be said in them.
    """
    envelope = Envelope.decode(record.value)
    suffixes: dict[RowVerdict | None, bytes] = {}
    decided_before = bool(envelope.verdicts) and SAID[record.signal] in envelope.body  # perhaps, and rarely
    states = _states(envelope) if record.signal == "spans" and envelope.verdicts else []
    stated: dict[tuple[RowVerdict, bytes, bool], bytes] = {}
    headers: set[tuple[int, int]] = set()
    for index in range(len(envelope)):
        verdict = envelope.verdicts[index] if envelope.verdicts else None
        suffix = suffixes.get(verdict)
        if suffix is None:
            suffix = suffixes[verdict] = b"" if verdict is None else decided(verdict, record.signal)
        row = envelope.row(index)
        more = b""
        if states and verdict is not None and (states[index][0] or verdict.threshold):
            state, random = states[index]
            says = consistent and random >= verdict.threshold
            known = stated.get((verdict, state, says))
            if known is None:
                known = stated[verdict, state, says] = counted(verdict.threshold, state, consistent, says)
            more = known
        own = _without(row, record.signal, verdict, more) if decided_before and verdict is not None else row
        wire = own + suffix + more
        size = len(wire)
        resource, scope = envelope.resource[index], envelope.scope[index]
        if (resource, scope) not in headers:
            headers.add((resource, scope))
            size += len(envelope.resources[resource]) + len(envelope.scopes[scope])
        place = envelope.messages[envelope.message[index]]
        yield RowItem(
            origin=Coordinates(envelope.topic, envelope.partition, *place, envelope.item[index]),
            size=size,
            lane=lane,
            redelivered=record.redelivered,
            key=envelope.keys[index],
            resource=envelope.resources[resource],
            scope=envelope.scopes[scope],
            row=row,
            wire=wire,
        )


def _without(row: bytes, signal: Signal, verdict: RowVerdict, count: bytes) -> bytes:
    """A row without what is said anew; a trace that is kept for certain here still has the count that it had."""
    if signal == "logs":
        keys = [SAMPLED, POLICY, *((SPAN_NAME, SPAN_STATUS) if verdict.span is not None else ())]
    else:
        keys = [POLICY, THRESHOLD, *((ADJUSTED_COUNT,) if count else ())]
    tag = LOG_ATTRIBUTE if signal == "logs" else SPAN_ATTRIBUTE
    return without_attributes(row, tag, [key.encode() for key in keys])


def _states(envelope: Envelope) -> list[tuple[bytes, int]]:
    """The tracestate of each span, and its randomness."""
    columns = SpanColumns({})
    columns.scan(envelope.body, envelope.ends, envelope.starts)
    cells, width, found = columns.cells, columns.width, []
    said: dict[bytes, int | None] = {b"": None}  # the spans of a trace share theirs
    for at in range(0, columns.rows * width, width):
        state = columns.data[cells[at + TRACE_STATE] : cells[at + TRACE_STATE + 1]]
        if state not in said:
            said[state] = randomness_of_state(state)
        random = said[state]
        if random is None:
            random = randomness_of_id(columns.data[cells[at + TRACE_ID] : cells[at + TRACE_ID + 1]])
        found.append((state, random))
    return found


def counted(threshold: int, trace_state: bytes, consistent: bool, says: bool) -> bytes:
    """How many traces a span's one stands for, unless it is 1, as fields to append; if it `says` so the tracestate too.

    Of a head sampler's threshold in the tracestate and a `consistent` one the larger counts: who was kept at both was
    kept at that one. A threshold of another chance, the Collector's hash, chose once more from what the head sampler
    had left: counts multiply. An invalid tracestate is left alone.
    """
    before = threshold_of_state(trace_state)
    here, head = adjusted_count(threshold), adjusted_count(before)
    count = max(here, head) if consistent else here * head
    fields = span_attribute(ADJUSTED_COUNT, count) if threshold or before else b""
    changed = with_threshold(trace_state, threshold) if says and threshold > before else None
    return fields + (span_trace_state(changed) if changed is not None else b"")


def export_request(items: Sequence[RowItem]) -> bytes:
    """An ExportTraceServiceRequest (or that of logs: the same fields) in which equal headers occur once."""
    resources: dict[bytes, dict[bytes, list[bytes]]] = {}
    for item in items:
        resources.setdefault(item.resource, {}).setdefault(item.scope, []).append(item.wire)
    return traces_data((r, s, rows) for r, scopes in resources.items() for s, rows in scopes.items())


def decided(verdict: RowVerdict, signal: Signal) -> bytes:
    """What decided about a row's trace, as fields to append to its bytes.

    A span gets its policy and, unless certain, its threshold: 56 bits, written as the consistent probability sampling
    specification has it in `th`. A log gets whether its trace was kept, the policy, and name and status of its span.
    """
    if signal == "logs":
        fields = log_attribute(SAMPLED, verdict.kept)
        if verdict.policy:
            fields += log_attribute(POLICY, verdict.policy)
        if verdict.span is not None:
            fields += log_attribute(SPAN_NAME, verdict.span.name)
            fields += log_attribute(SPAN_STATUS, status_name(verdict.span.status))
        return fields
    fields = span_attribute(POLICY, verdict.policy) if verdict.policy else b""
    if verdict.threshold:
        fields += span_attribute(THRESHOLD, threshold_text(verdict.threshold))
    return fields


def status_name(status: int) -> str:
    """A span's status code as a word."""
    return STATUS_NAMES[status] if status < len(STATUS_NAMES) else str(status)
