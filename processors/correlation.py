"""Logs and their traces: which logs go on, and what a kept log learns from its trace.

A log may arrive before or after the span it names, and spans are not kept in memory. So an undecided trace remembers
a few of its spans as (service, name, status), and its verdict carries those that a log has named by then.
"""

from __future__ import annotations

from functools import lru_cache

from schemas.decision import Enrichment, Verdict
from schemas.envelope import RowVerdict
from schemas.reasons import Reason
from schemas.severity import NUMBERS

# The first SPANS_PER_TRACE spans are remembered; after that a span that failed or that a log has named takes the place
# of the newest ordinary one, and the rest is forgotten (its logs then show the root). So past the bound the order of
# arrival matters: for names, never for verdicts. So it does for rows beyond the deadline: a span is remembered, and a
# log names one, if it is read before the decision, as where one topic is read ahead of the other. The root is held
# apart: the earliest span without a parent. When ids repeat (Zipkin's shared spans, re-sent ones) a failed span wins,
# then the first.
SPANS_PER_TRACE = 64  # remembered: 12 bytes each, so at most 768 a trace beside its evidence
NAMED_PER_TRACE = 64  # span ids that logs named, as many as could be answered
NAME_CHARACTERS = 256  # of a service or span name; longer ones are cut, a decision record must stay small
NAME_BYTES = 4 * NAME_CHARACTERS  # enough for that many characters of UTF-8
NAMES_SHARED = 1 << 14  # distinct (service, name, status) held once for all traces, about 4 MiB

_LOWEST = {name: NUMBERS[name.upper()] for name in ("trace", "debug", "info", "warn", "error", "fatal")}
_DROP = 1 << 31  # above every int32 severity number
_OF_DROPPED = RowVerdict(kept=False)


@lru_cache(maxsize=16)
def lowest_severity(unsampled: str) -> int:
    """The lowest severity number of a dropped trace's log that `logs.unsampled` lets pass.

    `all` passes every log, one without severity (0) too; `drop` none. Raises ValueError for an unknown setting.
    """
    if unsampled in ("all", "drop"):
        return 0 if unsampled == "all" else _DROP
    try:
        return _LOWEST[unsampled.lower()]
    except KeyError:
        raise ValueError(f"unsampled: {unsampled!r} is none of drop, all, {', '.join(_LOWEST)}") from None


def correlate(
    verdict: Verdict | None, severity_number: int, span_id: bytes, unsampled: str
) -> RowVerdict | Reason | None:
    """What becomes of one log record: forwarded with a verdict (None: its trace has none), or the reason it is not.

    Logs of a kept trace go on with the span that they name, else with the trace's root. Logs of a dropped trace
    follow `unsampled` (`lowest_severity`); those that go on say that their trace was dropped.
    """
    if verdict is None:
        return None
    if verdict.kept:
        span = verdict.spans.get(span_id, verdict.root)
        return RowVerdict(True, verdict.policy, verdict.threshold, span)
    if severity_number >= lowest_severity(unsampled):
        return _OF_DROPPED
    return Reason.LOG_OF_DROPPED_TRACE


def enrichment(service: str, name: bytes, status: int) -> Enrichment:
    """The one shared Enrichment of these values; `name` is UTF-8 (repaired if not). Both names are cut."""
    return _shared(service[:NAME_CHARACTERS], name[:NAME_BYTES], status)


@lru_cache(maxsize=NAMES_SHARED)
def _shared(service: str, name: bytes, status: int) -> Enrichment:
    return Enrichment(service, name.decode(errors="replace")[:NAME_CHARACTERS], status)
