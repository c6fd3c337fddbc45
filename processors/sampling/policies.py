"""The sampling policies, with the names and fields of the Collector's tail_sampling processor.

A block that the Collector would start with and then never match is refused here: it is a mistake of the operator.
Every message names the key and the rule; exact semantics are in docs/reference/policies.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.settings import Section

PolicyType = Literal[
    "always_sample", "status_code", "latency", "probabilistic", "string_attribute", "and", "log_severity"
]


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
    values: list[str] = Field(min_length=1, description="Exact values; empty ones are ignored.")
    invert_match: bool = Field(False, description="Keeps a trace on which nothing matches instead.")

    @model_validator(mode="after")
    def _some_value(self) -> Self:
        if not any(self.values):
            raise ValueError("values: at least one must be non-empty, or the policy never matches")
        return self


class LogSeverity(Section):
    """Keeps a trace that a log record of at least this severity belongs to."""

    min_severity: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] = Field(
        "ERROR", description="Lowest severity that keeps the trace."
    )


class Policy(Section):
    """One policy of the Collector's tail_sampling processor, with the Collector's field names.

    Exactly the block named like `type` must be present (`and` → `and`; always_sample needs none).
    """

    name: str = Field(min_length=1, description="Unique; kept spans and counters carry it.")
    type: PolicyType = Field(description="What it looks at.")
    status_code: StatusCode | None = Field(None, description="For type: status_code.")
    latency: Latency | None = Field(None, description="For type: latency.")
    probabilistic: Probabilistic | None = Field(None, description="For type: probabilistic.")
    string_attribute: StringAttribute | None = Field(None, description="For type: string_attribute.")
    log_severity: LogSeverity | None = Field(None, description="For type: log_severity.")
    and_: And | None = Field(None, alias="and", description="For type: and.")

    @model_validator(mode="after")
    def _one_block_named_like_type(self) -> Self:
        wanted = None if self.type == "always_sample" else self.type
        for block in _BLOCKS:
            present = getattr(self, "and_" if block == "and" else block) is not None
            if present and block != wanted:
                raise ValueError(f"{block}: not allowed in policy {self.name!r} of type: {self.type}")
            if not present and block == wanted:
                raise ValueError(f"{block}: missing; policy {self.name!r} of type: {self.type} needs this block")
        return self


class And(Section):
    """Keeps a trace that all of its sub-policies keep."""

    and_sub_policy: list[Policy] = Field(min_length=1, description="Policies of the other types.")

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        for policy in self.and_sub_policy:
            if policy.type == "and":
                raise ValueError(
                    f"and_sub_policy: {policy.name!r} is of type: and; and must not contain another and: "
                    "list its sub-policies here"
                )
        return self


_BLOCKS = ("status_code", "latency", "probabilistic", "string_attribute", "log_severity", "and")
Policy.model_rebuild()


def unique_names(policies: Sequence[Policy]) -> Sequence[Policy]:
    """The same policies; raises ValueError when two of them share a name.

    Sub-policies of an `and` may repeat names, as in the Collector: votes are counted by the outer name.
    """
    seen: set[str] = set()
    for policy in policies:
        if policy.name in seen:
            raise ValueError(f"name: {policy.name!r} is used by more than one policy; names must be unique")
        seen.add(policy.name)
    return policies


Policies = Annotated[list[Policy], Field(min_length=1), AfterValidator(unique_names)]
