"""Why a record was not delivered: one closed list, used by counters, the dead-letter queue and the docs.

Intentional drops are decisions of a policy or a limit that the operator configured. Unintentional ones are
defects of the input or a refusal of a destination: their bytes are in the dead-letter queue, but for those that
Kafka had deleted before they were read.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The value is the `reason` label of counters and the `reason` header of dead letters."""

    # intentional: counted, bytes not kept
    NOT_SAMPLED = "not_sampled"
    LOG_OF_DROPPED_TRACE = "log_of_dropped_trace"
    OVER_LIMIT = "over_limit"  # a gauge, which has no overflow series, or a source, where no more are compared
    TOO_MANY_METRICS = "too_many_metrics"  # points of a new one, where no more names are taken in
    SUPERSEDED = "superseded"  # an older reading than the newest of its source: that one says all that it says
    START_UNKNOWN = "start_unknown"  # a reading that says so, and not whose it is: what was counted before is lost
    # unintentional: counted, bytes in the dead-letter queue
    MALFORMED = "malformed"
    EMPTY_MESSAGE = "empty_message"
    MESSAGE_TOO_LARGE = "message_too_large"
    BATCH_TOO_LARGE = "batch_too_large"  # one of Kafka's
    BATCH_CORRUPT = "batch_corrupt"  # the same, where losses are accepted
    NO_TRACE_ID = "no_trace_id"
    NO_SPAN_ID = "no_span_id"
    SPAN_TOO_LARGE = "span_too_large"
    NO_NAME = "no_name"
    NO_VALUE = "no_value"
    NOT_FINITE = "not_finite"
    NEGATIVE = "negative"
    UNKNOWN_TYPE = "unknown_type"
    BUCKETS_DO_NOT_FIT = "buckets_do_not_fit"
    NAME_TAKEN = "name_taken"
    REFUSED_BY_SINK = "refused_by_sink"
    # unintentional: counted, bytes gone
    RETENTION = "retention"

    @property
    def intentional(self) -> bool:
        """True for a decision that was asked for; such records are not dead letters."""
        return self in _INTENTIONAL


_INTENTIONAL = frozenset(
    (
        Reason.NOT_SAMPLED,
        Reason.LOG_OF_DROPPED_TRACE,
        Reason.OVER_LIMIT,
        Reason.TOO_MANY_METRICS,
        Reason.SUPERSEDED,
        Reason.START_UNKNOWN,
    )
)
