"""What is remembered about an undecided trace: a bit set, extremes and counts, never spans.

About 250 bytes a trace, whatever its number of spans. Everything here is a join (or, min, max) or a sum, so evidence
does not depend on the order in which spans and logs arrive, and evidence gathered apart merges to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.sampling.probability import randomness_of_state

if TYPE_CHECKING:
    from schemas.otlp_scan import SpanScan

ERROR = 2  # Span.Status.StatusCode
NO_TIME = 0  # OTLP: a timestamp of 0 means unknown
NO_START = 1 << 64  # above every fixed64


class Evidence:
    """The evidence of one trace so far.

    `bits` are the predicates that some span or log met (`Plan.span_bits`, `Plan.log_bits`). `min_start` and
    `max_end` are in ns since the epoch over spans that say one, NO_START and NO_TIME while there is none.
    `randomness` is the 56-bit `rv` of the tracestate, None when no span carries one; of several (a producer's
    defect) the smallest counts. `trace_id` is the greatest one seen: of a full id and its zero-padded low half,
    which are the same trace (schemas.ids), the full one.
    """

    __slots__ = ("bits", "errors", "logs", "max_end", "min_start", "randomness", "spans", "trace_id")

    def __init__(self, trace_id: bytes) -> None:
        self.trace_id = trace_id
        self.bits = 0
        self.min_start = NO_START
        self.max_end = NO_TIME
        self.spans = 0
        self.logs = 0
        self.errors = 0
        self.randomness: int | None = None

    def add_span(self, scan: SpanScan, bits: int) -> None:
        """Count one span; `bits` is what `Plan.span_bits` says about it."""
        self.spans += 1
        self.bits |= bits
        start, end = scan.start_ns, scan.end_ns
        if start != NO_TIME and start < self.min_start:
            self.min_start = start
        if end > self.max_end:
            self.max_end = end
        if scan.status == ERROR:
            self.errors += 1
        if scan.trace_id > self.trace_id:
            self.trace_id = scan.trace_id
        if scan.trace_state:
            self._see_randomness(randomness_of_state(scan.trace_state))

    def add_log(self, bits: int) -> None:
        """Count one log record; `bits` is what `Plan.log_bits` says about it."""
        self.logs += 1
        self.bits |= bits

    def merge(self, other: Evidence) -> None:
        """Take over everything that `other` knows about the same trace."""
        self.bits |= other.bits
        self.min_start = min(self.min_start, other.min_start)
        self.max_end = max(self.max_end, other.max_end)
        self.spans += other.spans
        self.logs += other.logs
        self.errors += other.errors
        self.trace_id = max(self.trace_id, other.trace_id)
        self._see_randomness(other.randomness)

    def _see_randomness(self, randomness: int | None) -> None:
        if randomness is not None and (self.randomness is None or randomness < self.randomness):
            self.randomness = randomness

    @property
    def duration_ns(self) -> int:
        """Latest end minus earliest start; 0 while one of them is unknown, negative when clocks disagree."""
        if self.min_start == NO_START or self.max_end == NO_TIME:
            return 0
        return self.max_end - self.min_start

    def __repr__(self) -> str:
        return (
            f"Evidence({self.trace_id.hex()}, spans={self.spans}, errors={self.errors}, logs={self.logs}, "
            f"bits={self.bits:#x}, duration_ns={self.duration_ns})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Evidence):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable
