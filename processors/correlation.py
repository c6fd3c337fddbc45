"""Logs and their traces: which logs go on, and what a kept log learns from its trace.

A log may arrive before or after the span it names, and spans are not kept in memory. So an undecided trace remembers
a few of its spans as (service, name, status), and its verdict carries those that a log has named by then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from schemas.decision import Enrichment, Verdict
from schemas.envelope import RowVerdict
from schemas.ids import SPAN_ID_BYTES
from schemas.reasons import Reason
from schemas.severity import NUMBERS

if TYPE_CHECKING:
    from schemas.otlp_scan import SpanScan

SPANS_PER_TRACE = 64  # remembered: 16 bytes each, so at most about 1 KiB a trace beside its evidence
NAMED_PER_TRACE = 64  # span ids that logs named, as many as could be answered
NAME_CHARACTERS = 256  # of a service or span name; longer ones are cut, a decision record must stay small
NAME_BYTES = 4 * NAME_CHARACTERS  # enough for that many characters of UTF-8
NAMES_SHARED = 1 << 14  # distinct (service, name, status) held once for all traces, about 4 MiB
ERROR = 2  # Span.Status.StatusCode

_LOWEST = {name: NUMBERS[name.upper()] for name in ("trace", "debug", "info", "warn", "error", "fatal")}
_DROP = 1 << 31  # above every int32 severity number
NO_PARENT = (b"", bytes(SPAN_ID_BYTES))  # of a root span
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


class SpanNames:
    """What an undecided trace remembers of its spans, for its logs.

    Memory layout: ids end to end in one bytearray, beside a list of shared Enrichments; a dict per trace would cost
    three times as much. The first SPANS_PER_TRACE spans are remembered; after that a span that failed or that a log
    has named takes the place of the newest ordinary one, and the rest is forgotten (its logs then show the root).
    So past the bound the order of arrival matters: for names, never for verdicts. The root is held apart: the
    earliest span without a parent. When ids repeat (Zipkin's shared spans, re-sent ones) a failed span wins, then
    the first.
    """

    __slots__ = ("_ids", "_named", "_ordinary", "_root", "_root_order", "_spans")

    def __init__(self) -> None:
        self._ids = bytearray()
        self._spans: list[Enrichment] = []
        self._named: set[bytes] | None = None
        self._ordinary = 0
        self._root: Enrichment | None = None
        self._root_order: tuple[int, bytes] | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def add_span(self, scan: SpanScan, service: str) -> None:
        """See one span; `service` is its resource's service.name."""
        span_id, status, spans = scan.span_id, scan.status, self._spans
        if len(span_id) != SPAN_ID_BYTES:
            return
        is_root = scan.parent_span_id in NO_PARENT
        wanted = status == ERROR or (self._named is not None and span_id in self._named)
        full = len(spans) >= SPANS_PER_TRACE
        if full and not is_root and not (wanted and self._ordinary):
            return
        span = enrichment(service[:NAME_CHARACTERS], scan.name[:NAME_BYTES], status)
        if is_root:
            order = (scan.start_ns, span_id)
            if self._root_order is None or order < self._root_order:
                self._root, self._root_order = span, order
        if not full:
            self._ids += span_id
            spans.append(span)
            self._ordinary += not wanted
        elif wanted and self._ordinary:
            self._replace_ordinary(span_id, span)

    def _replace_ordinary(self, span_id: bytes, span: Enrichment) -> None:
        for index in range(len(self._spans) - 1, -1, -1):
            if self._spans[index].status != ERROR and not (self._named and self._id(index) in self._named):
                self._ids[index * SPAN_ID_BYTES : (index + 1) * SPAN_ID_BYTES] = span_id
                self._spans[index] = span
                break
        self._ordinary -= 1  # also when a log has named the last of them since it came

    def add_log(self, span_id: bytes) -> None:
        """See the span id that a log record names; anything but 8 bytes names none."""
        if len(span_id) != SPAN_ID_BYTES:
            return
        if self._named is None:
            self._named = {span_id}
        elif len(self._named) < NAMED_PER_TRACE:
            self._named.add(span_id)

    def _id(self, index: int) -> bytes:
        return bytes(self._ids[index * SPAN_ID_BYTES : (index + 1) * SPAN_ID_BYTES])

    def enrichments(self) -> tuple[Enrichment | None, dict[bytes, Enrichment]]:
        """The root (None when no span without a parent was seen), and the remembered spans that logs have named."""
        named: dict[bytes, Enrichment] = {}
        if self._named is not None:
            for index, span in enumerate(self._spans):
                span_id = self._id(index)
                if span_id in self._named and (
                    span_id not in named or (span.status == ERROR and named[span_id].status != ERROR)
                ):
                    named[span_id] = span
        return self._root, named


@lru_cache(maxsize=NAMES_SHARED)
def enrichment(service: str, name: bytes, status: int) -> Enrichment:
    """The one shared Enrichment of these values; `name` is UTF-8 (repaired if not), cut to NAME_CHARACTERS."""
    return Enrichment(service, name.decode(errors="replace")[:NAME_CHARACTERS], status)
