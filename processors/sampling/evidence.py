"""What is remembered about an undecided trace: a bit set, extremes and counts, never spans."""

from __future__ import annotations

from dataclasses import dataclass

NO_TIME = 0  # OTLP: a timestamp of 0 means unknown
NO_START = (1 << 64) - 1  # no span says when it began


@dataclass(slots=True)
class Evidence:
    """The evidence of one trace, as decisions see it (processors.sampling.trace_table gathers it).

    `bits` are the predicates that some span or log met (`Plan`). `min_start` and `max_end` are in ns since the
    epoch over spans that say one, NO_START and NO_TIME while there is none. `bytes` is the size of its spans as
    OTLP. `randomness` is the 56-bit `rv` of the tracestate, None when no span carries one; of several (a producer's
    defect) the smallest counts. `trace_id` is the greatest one seen: of a full id and its zero-padded low half,
    which are the same trace (schemas.ids), the full one. `features` are what its keys are made of, where a policy goes
    by keys (processors.sampling.features).
    """

    trace_id: bytes
    bits: int = 0
    spans: int = 0
    logs: int = 0
    min_start: int = NO_START
    max_end: int = NO_TIME
    bytes: int = 0
    randomness: int | None = None
    features: tuple[int, ...] = ()

    @property
    def duration_ns(self) -> int:
        """Latest end minus earliest start; 0 while one of them is unknown, negative when clocks disagree."""
        if self.min_start == NO_START or self.max_end == NO_TIME:
            return 0
        return self.max_end - self.min_start
