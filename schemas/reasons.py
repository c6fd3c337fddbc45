"""Why a record was not delivered: one closed list, used by counters, the dead-letter queue and the docs.

Intentional drops are decisions of a policy or a limit that the operator configured. Unintentional ones are
defects of the input or a refusal of a destination: their bytes are in the dead-letter queue.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The value is the `reason` label of counters and the `reason` header of dead letters."""

    # intentional: counted, bytes not kept
    NOT_SAMPLED = "not_sampled"
    LOG_OF_DROPPED_TRACE = "log_of_dropped_trace"
    # unintentional: counted, bytes in the dead-letter queue
    MALFORMED = "malformed"
    EMPTY_MESSAGE = "empty_message"
    MESSAGE_TOO_LARGE = "message_too_large"
    NO_TRACE_ID = "no_trace_id"
    NO_SPAN_ID = "no_span_id"
    SPAN_TOO_LARGE = "span_too_large"
    REFUSED_BY_SINK = "refused_by_sink"

    @property
    def intentional(self) -> bool:
        """True for a decision that was asked for; such records are not dead letters."""
        return self in (Reason.NOT_SAMPLED, Reason.LOG_OF_DROPPED_TRACE)
