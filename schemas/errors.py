"""Every error of Tailrace.

TailraceError
├── Retryable          try again later; nothing was accepted
│   └── Unavailable    a server did not answer or asked to wait (`retry_after` seconds, may be None)
├── Permanent          will never succeed as it is; belongs in the dead-letter queue
│   └── Malformed      bytes that do not decode (`reason`: a schemas.reasons.Reason's value)
├── ConfigError        the configuration is wrong; quotes key, rule and line (exit 78)
├── TooManyDeadLetters of an input or of what a sink reads (limits.dead_letters): the role stops and says of which
└── ProtocolError      an invariant of the delivery protocol does not hold: the role stops, nothing is committed

Anything else that is raised is a bug and stops the worker loudly.
"""

from __future__ import annotations


class TailraceError(Exception):
    """Base of all errors that Tailrace raises on purpose."""


class Retryable(TailraceError):
    """Nothing was accepted; the same request may succeed later."""


class Unavailable(Retryable):
    """A server did not answer, or said when to come back.

    `retry_after` is in seconds, None when the server named no time. `asked`: it may have done what it was asked for all
    the same; not if nothing was sent to it.
    """

    def __init__(self, message: str, retry_after: float | None = None, asked: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.asked = asked


class Permanent(TailraceError):
    """The same bytes will be refused for ever."""


class Malformed(Permanent):
    """Bytes that do not decode. `reason` is one of `schemas.reasons.Reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ConfigError(TailraceError):
    """A configuration that cannot be run. The text names key, rule and line."""


class TooManyDeadLetters(TailraceError):
    """More of what a role reads cannot be handled than `limits.dead_letters` allows. Nothing of it is acknowledged."""


class ProtocolError(TailraceError):
    """An invariant (I1–I3 of docs/adr/0003) does not hold. Never acknowledge anything after it."""
