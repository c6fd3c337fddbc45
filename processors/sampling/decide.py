"""One trace's vote, from evidence that is at hand; what a partition decides goes by the batch (trace_table, ballot)."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import NamedTuple

from processors.sampling.answers import words_of
from processors.sampling.ballot import Ballot
from processors.sampling.compile import Plan
from processors.sampling.evidence import Evidence
from processors.sampling.features import FeatureSets
from processors.sampling.limits import NO_LIMITS, Limits
from processors.sampling.trace_table import BITS, BYTES, HIGH, KEY, MAX_END, MIN_START, RANDOM, SMALL, SPANS, U64_MAX


class Vote(NamedTuple):
    """The outcome. `policy` kept or dropped the trace, "" when none did; `threshold` is 56 bits, 0 = certain."""

    kept: bool
    policy: str
    threshold: int


@dataclass(slots=True)
class _Record:
    """Evidence as the only record of a table."""

    wide: array[int]
    small: array[int]
    due_records: array[int]
    due_deadlines: array[int]
    sets: FeatureSets


def decide(plan: Plan, evidence: Evidence, limits: Limits = NO_LIMITS) -> Vote:
    """Keep or drop the trace. Equal evidence gives an equal vote.

    `limits` are needed by a plan with `rates` or `samplers`; they go by the stream time that they are `at`.
    """
    wide = array("Q", bytes(8 * BITS)) + array("Q", words_of(evidence.bits, plan.words))
    wide[HIGH], wide[KEY] = (int.from_bytes(evidence.trace_id[at : at + 8], "big") for at in (0, 8))
    wide[MIN_START], wide[MAX_END] = evidence.min_start, evidence.max_end
    wide[BYTES] = evidence.bytes
    wide[RANDOM] = U64_MAX if evidence.randomness is None else evidence.randomness
    small = array("i", bytes(4 * SMALL))
    small[SPANS] = evidence.spans
    ballot = Ballot(plan.conditions, plan.drops, plan.words)
    record = _Record(wide, small, array("i", [0]), array("q", [limits.now]), FeatureSets())
    record.sets.put(0, evidence.features)
    if ballot.next_kept(record, 0, 1, limits) == 0:
        return Vote(True, ballot.names[ballot.policy], ballot.threshold)
    dropped = [name for name, number in zip(ballot.drop_names, ballot.dropped_by, strict=True) if number]
    return Vote(False, dropped[0] if dropped else "", 0)
