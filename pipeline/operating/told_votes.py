"""Votes in words: a line for each policy, and below it those inside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from processors.sampling.evidence import Evidence
from processors.sampling.probability import NEVER
from processors.sampling.votes import PolicyVote
from schemas.trace_state import randomness_of_id

INDENT = "  "
NS_PER_MS = 1e6
YES, NO = "●", "○"
MOST_VALUES = 8  # of one field of a key that are shown


def lines(votes: Sequence[PolicyVote], depth: int = 0) -> Iterator[str]:
    """Every vote, what was asked, the answer, and the rows that it rests on."""
    for vote in votes:
        asked = ", ".join(f"{key}: {_value(value)}" for key, value in vote.rule.items())
        yield f"{INDENT * depth}{YES if vote.matched else NO} {vote.policy} [{vote.type}] {asked}".rstrip() + _told(
            vote
        )
        yield from lines(vote.parts, depth + 1)


def facts(evidence: Evidence) -> str:
    """What the votes about the whole trace go by."""
    random = evidence.randomness
    random = randomness_of_id(evidence.trace_id) if random is None else random
    counts = f"{evidence.spans} spans, {evidence.logs} logs"
    return f"{counts}, {evidence.duration_ns / NS_PER_MS:g} ms, randomness {random:014x}"


def _told(vote: PolicyVote) -> str:
    answer = ("drops" if vote.type == "drop" else "keeps") if vote.matched else "no"
    if vote.matched and vote.threshold:
        answer += f" at {percentage(vote.threshold):.4g} % (threshold {vote.threshold:014x})"
    if vote.shadow:
        answer += ", without effect (shadow)"
    if vote.left_out:
        answer += ", its id is not among ids"
    elif vote.too_large:
        answer += f", {vote.too_large}: can never pass"
    elif vote.by_rate:
        answer += ", as if there were no other traces"
    if vote.key_threshold is not None:
        key = ", ".join(f"{name}: {_values(values)}" for name, values in vote.key)
        answer += f"; key {key or 'withheld'}, kept at {percentage(vote.key_threshold):.4g} %"
    found = [f"span {row.span} {row.name}".rstrip() if row.name else _log(row.span) for row in vote.evidence]
    if vote.rows > len(found):
        found.append(f"{vote.rows - len(found)} more")
    return f": {answer}" + (f"; met by {', '.join(found)}" if found else "")


def _log(span: str) -> str:
    return f"a log of span {span}" if span else "a log"


def _value(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _values(values: Sequence[str]) -> str:
    """The first of them.

    >>> _values(["GET /", "POST /pay"]), _values([])
    ('GET / | POST /pay', 'none')
    """
    more = [f"{len(values) - MOST_VALUES} more"] if len(values) > MOST_VALUES else []
    return " | ".join([*values[:MOST_VALUES], *more]) or "none"


def percentage(threshold: int) -> float:
    """The share of all randomness that reaches a 56-bit threshold, in percent."""
    return 100 * (NEVER - threshold) / NEVER
