"""What each policy says about one trace, part by part, from the trace's own spans and logs: for people to read.

A partition decides by the batch and asks only what it needs (processors.sampling.ballot). Here every policy, and every
policy inside one, is compiled alone and asked alone by the same code, so nothing is known here of any type of policy.

A trace may have so many spans that a worker, which has other things to do, must not answer in one go: what looks at all
of them is in Steps, of one envelope each, and `finished` goes through them at once.
"""

from __future__ import annotations

import functools
import operator
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from processors.sampling.adaptive import KeyState
from processors.sampling.answers import words_of
from processors.sampling.compile import Compat, Plan, compile_policies
from processors.sampling.conditions import AllOf, AnyOf, Condition, NoneOf, WithinBytes
from processors.sampling.decide import Vote, decide
from processors.sampling.evidence import Evidence
from processors.sampling.features import MOST_FEATURES, FeatureSets
from processors.sampling.key_text import KeyText, key_text
from processors.sampling.limits import Limits
from processors.sampling.policies import Ids, Policy
from processors.sampling.shares import Shares, SharesBySecond
from processors.sampling.trace_table import ERROR, TraceTable
from processors.span_labels import SpanLabels
from schemas.envelope import Envelope
from schemas.ids import SPAN_ID_BYTES
from schemas.otlp_scan import (
    LOG_CELLS,
    NAME,
    PARENT_SPAN_ID,
    SEVERITY,
    SPAN_ID,
    STATUS,
    LogColumns,
    SpanColumns,
    resource_attributes,
)
from schemas.settings import Section
from schemas.severity import HIGHEST

SHOWN = 3  # rows that are named as evidence of one vote; the others are counted
DECISION_WAIT = "decision_wait"
AFTER_ROOT = "decision_wait_after_root_received"

T = TypeVar("T")
Steps = Generator[None, None, T]  # returns the answer when the last one is done


class Rows(NamedTuple):
    """Spans (or `logs`) of one trace from one envelope, the stream time of each, and the clock before it was read.

    `came`: when the envelope was appended (ms).
    """

    envelope: Envelope
    times: array[int]
    now: int | None
    logs: bool = False
    came: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """The rows that count as evidence; `first` and `deadline` in ms of stream time, `trigger` set the latter.

    `later` are those that came too late to count.
    """

    rows: tuple[Rows, ...]
    first: int
    deadline: int
    trigger: str
    later: tuple[Rows, ...] = ()


class Row(NamedTuple):
    """A span or log that met what was asked: hex id of the span, and its name, "" of a log."""

    span: str
    name: str


@dataclass(frozen=True, slots=True)
class PolicyVote:
    """One policy's answer, `matched`: it keeps the trace, or drops it, if that is its type.

    `threshold` is the 56-bit one at which it matched (0 = certain). `evidence` names the first rows of `rows` that met
    it by themselves; a policy about the whole trace has none. `by_rate`: it goes by other traces too, and was asked as
    if there were none (buckets full, no key seen). A `shadow` has no effect.

    `too_large`: why a policy with a limit can never keep the trace, "" if it can. `left_out`: its `ids` leave it out.

    Of a policy that goes by keys `key` is the trace's, field by field, and `key_threshold` the one at which it keeps
    such traces, whatever this one's randomness.
    """

    policy: str
    type: str
    rule: dict[str, object]
    matched: bool
    threshold: int
    evidence: tuple[Row, ...]
    rows: int
    by_rate: bool
    shadow: bool
    parts: tuple[PolicyVote, ...]
    key: KeyText = ()
    key_threshold: int | None = None
    too_large: str = ""
    left_out: bool = False


class Known(NamedTuple):
    """What a partition of N knew of keys before it decided: `keyed` of a checkpoint."""

    partitions: int
    keyed: Mapping[str, Sequence[Sequence[KeyState]]]

    def of(self, policy: Policy, compat: Compat) -> list[Known]:
        """The same for each policy inside one: what the checkpoint has is in the order in which they are compiled."""
        states, found = list(self.keyed.get(policy.name, ())), {}
        strict = compat == "otel"
        for part in inside(policy) if strict or policy.composite is None else policy.composite.ordered:
            mine = len(compile_policies([part], compat=compat).samplers)
            found[id(part)] = Known(self.partitions, {part.name: states[:mine]})  # their names may repeat
            del states[:mine]
        return [found[id(part)] for part in inside(policy)]


NOTHING = Known(1, {})


def as_plain(found: PolicyVote, values: bool = True) -> dict[str, Any]:
    """A vote as mappings, lists, texts and numbers; without `values` of attributes its keys are empty."""
    told = {name: getattr(found, name) for name in PolicyVote.__slots__}
    return told | {
        "evidence": [list(row) for row in found.evidence],
        "parts": [as_plain(part, values) for part in found.parts],
        "key": [[name, list(texts)] for name, texts in found.key if values],
    }


def from_plain(data: Mapping[str, Any]) -> PolicyVote:
    """The inverse of `as_plain`, also after JSON, and from a worker that says more or less."""
    known = {name: value for name, value in data.items() if name in PolicyVote.__slots__}
    return PolicyVote(
        **{
            **known,
            "evidence": tuple(Row(*row) for row in data["evidence"]),
            "parts": tuple(map(from_plain, data["parts"])),
            "key": tuple((name, tuple(values)) for name, values in data.get("key", ())),
        }
    )


def finished(steps: Steps[T]) -> T:
    """The answer, with nothing in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer


def counted(rows: Sequence[Rows], decision_wait: int, after_root: int | None) -> Trace:
    """`counting` in one go."""
    return finished(counting(rows, decision_wait, after_root))


def counting(rows: Sequence[Rows], decision_wait: int, after_root: int | None) -> Steps[Trace]:
    """What of a trace's rows, at least one, in the order of the log, came before its deadline. Times in ms."""
    seen: list[Rows] = []
    first: int | None = None
    deadline, trigger = 0, DECISION_WAIT
    for each in rows:
        if first is not None and each.now is not None and each.now > deadline:
            break
        seen.append(each)
        first = min(each.times) if first is None else min(first, *each.times)
        if not seen[:-1] or first + decision_wait < deadline:
            deadline, trigger = first + decision_wait, DECISION_WAIT
        roots = [time for row, time in zip(_roots(each), each.times, strict=True) if row]
        if after_root is not None and roots and min(roots) + after_root < deadline:
            deadline, trigger = min(roots) + after_root, AFTER_ROOT
        yield
    assert first is not None
    within, beyond = ([each for row in seen for each in _rows(row, deadline, late)] for late in (False, True))
    return Trace(tuple(within), first, deadline, trigger, (*beyond, *rows[len(seen) :]))


def _roots(rows: Rows) -> Iterator[bool]:
    if rows.logs:
        yield from (False for _ in rows.times)
        return
    columns = _scanned(rows.envelope, {})
    for row in range(columns.rows):
        at = row * columns.width + PARENT_SPAN_ID
        parent = columns.data[columns.cells[at] : columns.cells[at + 1]]
        yield parent in (b"", bytes(SPAN_ID_BYTES))


def _rows(rows: Rows, deadline: int, late: bool) -> Iterator[Rows]:
    """Those up to a deadline, or those that are `late`."""
    chosen = [row for row, time in enumerate(rows.times) if (time > deadline) == late]
    if len(chosen) == len(rows.times):
        yield rows
    elif chosen:
        kept = rows.envelope.select(chosen, [])
        yield rows._replace(envelope=kept, times=array("q", [rows.times[row] for row in chosen]))


def evidence(plan: Plan, trace: Trace) -> Evidence:
    """`gathering` in one go."""
    return finished(gathering(plan, trace))


def gathering(plan: Plan, trace: Trace, asked: int = 0, met: list[Row] | None = None) -> Steps[Evidence]:
    """What a plan would have gathered of the trace; the rows that have one of the bits `asked` are put into `met`."""
    mask = words_of(asked, plan.words)
    table, labels = TraceTable(1, None, plan.words, plan.features is not None), SpanLabels([])
    for rows in trace.rows:
        size = len(rows.envelope)
        folded = rows.envelope.keys, array("q", bytes(8 * size)), array("B", bytes(size)), 0
        if rows.logs:
            columns = LogColumns()
            columns.scan(rows.envelope.body, rows.envelope.ends, rows.envelope.starts)
            table.fold_logs(columns, *folded, plan.severity_bits)
            if met is not None:
                met += _logs_meeting(plan, mask, columns)
        else:
            spans = _met(plan, rows.envelope)
            labels.assign(spans, rows.envelope.resource, [("", ())] * len(rows.envelope.resources))
            table.fold_spans(spans, *folded, plan.span_bits, labels, plan.features)
            if met is not None:
                met += _spans_meeting(plan, mask, spans)
        yield
    table.list_due(1)
    return table.evidence(0)


def failed(rows: Rows) -> int:
    """How many of its spans have an error."""
    columns = _scanned(rows.envelope, {})
    return sum(columns.cells[row * columns.width + STATUS] == ERROR for row in range(columns.rows))


def verdict(plan: Plan, seen: Evidence, trace: Trace, known: Known = NOTHING) -> Vote:
    """The outcome by what was `seen` of a trace, as if there were no others but those `known` by their keys."""
    return decide(plan, seen, _limits(plan, trace, known))


def _limits(plan: Plan, trace: Trace, known: Known) -> Limits:
    limits = Limits(plan.rates, known.partitions, plan.samplers)
    limits.restore_keys(known.keyed)
    return limits.at(trace.deadline)


def vote(policy: Policy, compat: Compat, trace: Trace, known: Known = NOTHING) -> PolicyVote:
    """`voting` in one go."""
    return finished(voting(policy, compat, trace, known))


def voting(policy: Policy, compat: Compat, trace: Trace, known: Known = NOTHING) -> Steps[PolicyVote]:
    """One policy's answer, with those of the policies inside it."""
    plan = compile_policies([policy.model_copy(update={"shadow": False})], compat=compat)
    ((_, condition),) = (*plan.conditions, *plan.drops)
    others = list(zip(inside(policy), known.of(policy, compat), strict=True))
    met: list[Row] = []
    asked = 0 if others else _asked(condition)
    seen = yield from gathering(plan, trace, asked, met if asked else None)
    outcome = decide(plan, seen, _limits(plan, trace, known))
    answers = []
    for part, theirs in others:
        answers.append((yield from voting(part, compat, trace, theirs)))
    parts = tuple(answers)
    names = [] if parts else [name for block in _blocks(policy) for name in getattr(block, "field_list", ())]
    key = yield from key_text(names, plan.keys, [rows.envelope for rows in trace.rows if not rows.logs])
    return PolicyVote(
        policy.name,
        policy.type,
        rule(policy.ids, *([] if parts else _blocks(policy))),
        bool(outcome.kept or outcome.policy),
        outcome.threshold,
        tuple(met[:SHOWN]),
        len(met),
        bool(plan.rates or (plan.samplers and not known.keyed.get(policy.name))),
        policy.shadow,
        parts,
        key,
        _key_threshold(seen, _limits(plan, trace, known)) if names else None,
        _too_large(plan, seen, in_parts=bool(parts)),
        policy.ids is not None and not _is_among(policy.ids, seen),
    )


def _is_among(ids: Ids, seen: Evidence) -> bool:
    everything = Policy(name="ids", type="always_sample", ids=ids)
    return decide(compile_policies([everything]), Evidence(seen.trace_id)).kept


def _too_large(plan: Plan, seen: Evidence, *, in_parts: bool) -> str:
    """Of a policy that is its plan's only one: a trace above the capacity of its own limit never passes."""
    conditions = [condition for _, condition in (*plan.conditions, *plan.drops)]
    by_bytes = any(isinstance(each, WithinBytes) for found in conditions for each in _with_parts(found))
    size, unit = (seen.bytes, "bytes") if by_bytes else (seen.spans, "spans")
    own = [rate for rate in plan.rates if isinstance(rate, Shares | SharesBySecond) == in_parts]
    most = [rate.burst for rate in own if size > rate.burst]
    return f"{size} {unit} > capacity {min(most)}" if most else ""


def _with_parts(condition: Condition) -> Iterator[Condition]:
    yield condition
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from _with_parts(part)


def _key_threshold(seen: Evidence, limits: Limits) -> int:
    """Of a policy that is its plan's only one, so all features are of its key."""
    sets = FeatureSets()
    sets.put(0, seen.features)
    return limits.threshold(0, sets.key(0, (1 << MOST_FEATURES) - 1), seen.spans)


def inside(policy: Policy) -> list[Policy]:
    """The policies inside a policy, in order."""
    found: list[Policy] = []
    for block in _blocks(policy):
        for value in (getattr(block, name) for name in type(block).model_fields):
            found += [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, Policy)]
    return found


def rule(*blocks: Section | None) -> dict[str, object]:
    """The fields of a policy's blocks that were set."""
    return {
        key: value
        for block in blocks
        if block is not None
        for key, value in block.model_dump(mode="json", by_alias=True, exclude_unset=True).items()
    }


def _blocks(policy: Policy) -> list[Section]:
    values = (getattr(policy, name) for name in type(policy).model_fields if name != "ids")
    return [value for value in values if isinstance(value, Section)]


def _spans_meeting(plan: Plan, mask: Sequence[int], columns: SpanColumns) -> Iterator[Row]:
    """Those that have one of the bits of `mask`, by the plan's `span_bits`."""
    bits, words = plan.span_bits.bits, plan.words
    for row in sorted(
        {
            row
            for word, asked in enumerate(mask)
            if asked
            for row, mine in enumerate(bits[word : columns.rows * words : words])
            if mine & asked
        }
    ):
        yield Row(_cell(columns, row, SPAN_ID).hex(), _cell(columns, row, NAME).decode(errors="replace"))


def _asked(condition: Condition) -> int:
    """The bits of which a row must have one; a span also has bits for parts of what is asked."""
    match condition:
        case AnyOf(mask) | NoneOf(mask):
            return mask
        case AllOf(parts):
            return functools.reduce(operator.or_, map(_asked, parts))
    return 0


def _logs_meeting(plan: Plan, mask: Sequence[int], columns: LogColumns) -> Iterator[Row]:
    for row in range(columns.rows):
        at = row * LOG_CELLS
        severity = columns.cells[at + SEVERITY]
        if severity > HIGHEST:
            continue
        bits = plan.severity_bits[severity * plan.words : (severity + 1) * plan.words]
        if any(mine & asked for mine, asked in zip(bits, mask, strict=True)):
            yield Row(columns.data[columns.cells[at + SPAN_ID] : columns.cells[at + SPAN_ID + 1]].hex(), "")


def _met(plan: Plan, envelope: Envelope) -> SpanColumns:
    """The columns of an envelope; the plan's `span_bits` have their answers."""
    columns = _scanned(envelope, plan.keys)
    bits = [plan.resource_bits(resource_attributes(header, plan.keys)) for header in envelope.resources]
    plan.answer(columns, envelope, bits)
    if plan.features is not None:
        parts = [plan.features.of_resource(resource_attributes(header, plan.keys)) for header in envelope.resources]
        plan.features.assign(columns, envelope.resource, parts)
    return columns


def _scanned(envelope: Envelope, keys: dict[bytes, int]) -> SpanColumns:
    columns = SpanColumns(keys)
    columns.scan(envelope.body, envelope.ends, envelope.starts)
    return columns


def _cell(columns: SpanColumns, row: int, field: int) -> bytes:
    at = row * columns.width + field
    found: bytes = columns.data[columns.cells[at] : columns.cells[at + 1]]
    return found
