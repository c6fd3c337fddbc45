"""What each type of policy is told: one section per block of the Collector's tail_sampling processor.

Names and fields are the Collector's. A block that the Collector would start with and then never match is refused
here: it is a mistake of the operator. Every message names the key and the rule; exact semantics are in
docs/reference/policies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from processors.sampling.ottl import alternatives
from processors.sampling.predicates import expression
from schemas.settings import Broken, Section, refuse
from schemas.trace_state import is_key, is_value

REMEMBERED = 128  # texts whose answers are kept, when cache_max_size says none; the Collector's number
MOST_BUDGET = 10**9  # spans or bytes per second of a budget: shares of them take 64 bits as well
MOST_SPANS = 10**12  # or bytes, per second; no more fits into 64 bits of a bucket's units


class StatusCode(Section):
    """Keeps a trace with a span whose status code is listed."""

    status_codes: list[Literal["OK", "ERROR", "UNSET"]] = Field(min_length=1, description="Upper case.")


class Latency(Section):
    """Keeps a trace by its duration: latest end minus earliest start over all its spans."""

    threshold_ms: int = Field(ge=0, description="Keeps what takes longer than this.")
    upper_threshold_ms: int = Field(0, ge=0, description="And not longer than this. 0: no upper bound.")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if 0 < self.upper_threshold_ms <= self.threshold_ms:
            raise ValueError(
                f"upper_threshold_ms: {self.upper_threshold_ms} must be greater than threshold_ms "
                f"({self.threshold_ms}), or 0 for no upper bound"
            )
        return self


class Probabilistic(Section):
    """Keeps a share of all traces, chosen by trace id alone."""

    sampling_percentage: float = Field(
        allow_inf_nan=False, description="0 and below keeps none, 100 and above keeps all."
    )
    hash_salt: str = Field("", description="Only with `compat: otel`; empty: the Collector's default.")


class StringAttribute(Section):
    """Keeps a trace with a span or a resource that has one of the values."""

    key: str = Field(min_length=1, description="Attribute name, looked up on the span and on its resource.")
    values: list[str] = Field(min_length=1, description="Exact values, or expressions; empty ones are ignored.")
    enabled_regex_matching: bool = Field(
        False, description="The values are RE2 expressions, to be found anywhere in the text."
    )
    cache_max_size: int = Field(REMEMBERED, description="Texts whose matches are remembered; 0 and below: 128.")
    invert_match: bool = Field(False, description="Keeps a trace on which nothing matches instead.")

    @property
    def remembered(self) -> int:
        """`cache_max_size`, or what holds in its place."""
        return self.cache_max_size if self.cache_max_size > 0 else REMEMBERED

    @model_validator(mode="after")
    def _some_value(self) -> Self:
        if not any(self.values):
            raise ValueError("values: at least one must be non-empty, or the policy never matches")
        if self.enabled_regex_matching:
            refuse(_wrong("values", self.values, expression))
        return self


class NumericAttribute(Section):
    """Keeps a trace with a span or a resource whose attribute is a number from `min_value` to `max_value`."""

    key: str = Field(min_length=1, description="Attribute name, looked up on the span and on its resource.")
    min_value: int | FiniteFloat | None = Field(None, description="Lowest value; unset: no lower bound.")
    max_value: int | FiniteFloat | None = Field(None, description="Highest value; unset: no upper bound.")
    invert_match: bool = Field(False, description="Keeps a trace on which nothing matches instead.")

    @model_validator(mode="after")
    def _some_range(self) -> Self:
        low, high = self.min_value, self.max_value
        if low is None and high is None:
            raise ValueError("min_value: one of min_value and max_value is required")
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"min_value: {low} must not be greater than max_value ({high}); leave out max_value for no upper bound"
            )
        return self


class BooleanAttribute(Section):
    """Keeps a trace with a span or a resource whose attribute is this boolean."""

    key: str = Field(min_length=1, description="Attribute name, looked up on the span and on its resource.")
    value: bool = Field(False, description="The value that matches.")
    invert_match: bool = Field(False, description="Keeps a trace on which nothing matches instead.")


class TraceState(Section):
    """Keeps a trace with a span whose W3C tracestate has one of the values."""

    key: str = Field(description="Key of the tracestate's list.")
    values: list[str] = Field(min_length=1, description="Exact values; empty ones are ignored.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not is_key(self.key):
            raise ValueError(f"key: {self.key!r} cannot be a key of a W3C tracestate, so the policy never matches")
        refuse(
            (("values", n), f"{value!r} cannot be a value of a W3C tracestate, so it never matches")
            for n, value in enumerate(self.values)
            if value and not is_value(value)
        )
        if not any(self.values):
            raise ValueError("values: at least one must be non-empty, or the policy never matches")
        return self


class SpanCount(Section):
    """Keeps a trace by its number of spans, both bounds included."""

    min_spans: int = Field(0, ge=0, description="Fewest spans.")
    max_spans: int = Field(0, ge=0, description="Most spans. 0: no upper bound.")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if 0 < self.max_spans < self.min_spans:
            raise ValueError(
                f"max_spans: {self.max_spans} must not be less than min_spans ({self.min_spans}), "
                "or 0 for no upper bound"
            )
        return self


class RateLimiting(Section):
    """Keeps traces up to a number of spans per second of stream time, over all partitions together."""

    spans_per_second: int = Field(ge=1, le=MOST_SPANS, description="Spans that pass in the long run.")
    burst_capacity: int = Field(
        0, ge=0, le=2 * MOST_SPANS, description="Spans that pass at once, and the largest trace. 0: twice the rate."
    )

    @property
    def burst(self) -> int:
        """`burst_capacity`, or what holds in its place."""
        return self.burst_capacity or 2 * self.spans_per_second


class BytesLimiting(Section):
    """Keeps traces up to a number of bytes per second of stream time, over all partitions together."""

    bytes_per_second: int = Field(ge=1, le=MOST_SPANS, description="Bytes that pass in the long run.")
    burst_capacity: int = Field(
        0, ge=0, le=2 * MOST_SPANS, description="Bytes that pass at once, and the largest trace. 0: twice the rate."
    )

    @property
    def burst(self) -> int:
        """`burst_capacity`, or what holds in its place."""
        return self.burst_capacity or 2 * self.bytes_per_second


class FleetBudget(Section):
    """Keeps traces up to a number of spans or bytes per second of stream time, of all partitions and workers."""

    spans_per_second: int = Field(0, ge=0, le=MOST_BUDGET, description="Spans that pass in the long run. Or:")
    bytes_per_second: int = Field(0, ge=0, le=MOST_BUDGET, description="Bytes that pass in the long run.")
    burst_capacity: int = Field(
        0, ge=0, le=MOST_BUDGET, description="What passes at once, and the largest trace. 0: one second's worth."
    )

    @property
    def burst(self) -> int:
        """`burst_capacity`, or what holds in its place."""
        return self.burst_capacity or self.spans_per_second or self.bytes_per_second

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.spans_per_second > 0) == (self.bytes_per_second > 0):
            raise ValueError("spans_per_second: one of it and bytes_per_second is required, above 0")
        return self


class OttlCondition(Section):
    """Keeps a trace with a span, or with an event of a span, that meets one of the conditions."""

    error_mode: Literal["ignore", "silent", "propagate"] = Field(
        "ignore", description="Without effect: a condition that fails on a span is not met by it, as with ignore."
    )
    span: list[str] = Field([], description="Conditions in OTTL about a span; one is enough.")
    spanevent: list[str] = Field([], description="Conditions about an event of a span; one is enough.")

    @model_validator(mode="after")
    def _known_conditions(self) -> Self:
        if not self.span and not self.spanevent:
            raise ValueError("span: at least one condition is required, here or in spanevent")
        refuse(
            [
                *_wrong("span", self.span, alternatives),
                *_wrong("spanevent", self.spanevent, lambda condition: alternatives(condition, "spanevent")),
            ]
        )
        return self


def _wrong(key: str, values: Sequence[str], compiled: Callable[[str], object]) -> Iterator[Broken]:
    """The values of a list that cannot be compiled."""
    for number, value in enumerate(values):
        try:
            compiled(value)
        except ValueError as error:
            yield (key, number), str(error)


class RateAllocation(Section):
    """The share of one sub-policy of a composite."""

    policy: str = Field(description="Name of the sub-policy.")
    percent: int = Field(0, ge=0, le=100, description="Of max_total_spans_per_second; 0: an equal part of the rest.")


class LogSeverity(Section):
    """Keeps a trace that a log record of at least this severity belongs to."""

    min_severity: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] = Field(
        "ERROR", description="Lowest severity that keeps the trace."
    )
