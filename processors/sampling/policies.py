"""The sampling policies, with the names and fields of the Collector's tail_sampling processor.

A policy is one block (processors.sampling.blocks) with a name and a type; `and`, `not` and `drop` hold policies again.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from processors.sampling.blocks import (
    MOST_SPANS,
    BooleanAttribute,
    BytesLimiting,
    FleetBudget,
    Latency,
    LogSeverity,
    NumericAttribute,
    OttlCondition,
    Probabilistic,
    RateAllocation,
    RateLimiting,
    SpanCount,
    StatusCode,
    StringAttribute,
    TraceState,
)
from processors.sampling.keyed import Dynamic, Rare, Throughput
from schemas.settings import Broken, Section, refuse, repeated

PolicyType = Literal[
    "always_sample",
    "status_code",
    "latency",
    "probabilistic",
    "string_attribute",
    "numeric_attribute",
    "boolean_attribute",
    "trace_state",
    "trace_flags",
    "ottl_condition",
    "span_count",
    "rate_limiting",
    "bytes_limiting",
    "log_severity",
    "dynamic",
    "throughput",
    "rare",
    "budget",
    "and",
    "not",
    "composite",
    "drop",
]
WITHOUT_BLOCK = ("always_sample", "trace_flags")


class Policy(Section):
    """One policy of the Collector's tail_sampling processor, with the Collector's field names.

    Exactly the block named like `type` must be present (always_sample and trace_flags have none).
    """

    name: str = Field(min_length=1, description="Unique; kept spans and counters carry it.")
    type: PolicyType = Field(description="What it looks at.")
    shadow: bool = Field(
        False, description="True: it votes, and its votes are counted, without effect on any trace. To try one first."
    )
    ids: Ids | None = Field(None, description="Asked about these trace ids only; default: about all.")
    status_code: StatusCode | None = Field(None, description="For type: status_code.")
    latency: Latency | None = Field(None, description="For type: latency.")
    probabilistic: Probabilistic | None = Field(None, description="For type: probabilistic.")
    string_attribute: StringAttribute | None = Field(None, description="For type: string_attribute.")
    numeric_attribute: NumericAttribute | None = Field(None, description="For type: numeric_attribute.")
    boolean_attribute: BooleanAttribute | None = Field(None, description="For type: boolean_attribute.")
    trace_state: TraceState | None = Field(None, description="For type: trace_state.")
    ottl_condition: OttlCondition | None = Field(None, description="For type: ottl_condition.")
    span_count: SpanCount | None = Field(None, description="For type: span_count.")
    rate_limiting: RateLimiting | None = Field(None, description="For type: rate_limiting.")
    bytes_limiting: BytesLimiting | None = Field(None, description="For type: bytes_limiting.")
    log_severity: LogSeverity | None = Field(None, description="For type: log_severity.")
    dynamic: Dynamic | None = Field(None, description="For type: dynamic.")
    throughput: Throughput | None = Field(None, description="For type: throughput.")
    rare: Rare | None = Field(None, description="For type: rare.")
    budget: FleetBudget | None = Field(None, description="For type: budget.")
    and_: And | None = Field(None, alias="and", description="For type: and.")
    not_: Not | None = Field(None, alias="not", description="For type: not.")
    composite: Composite | None = Field(None, description="For type: composite.")
    drop: Drop | None = Field(None, description="For type: drop.")

    @model_validator(mode="after")
    def _one_block_named_like_type(self) -> Self:
        wanted = None if self.type in WITHOUT_BLOCK else self.type
        for block in _BLOCKS:
            present = getattr(self, f"{block}_" if keyword.iskeyword(block) else block) is not None
            if present and block != wanted:
                raise ValueError(f"{block}: not allowed in policy {self.name!r} of type: {self.type}")
            if not present and block == wanted:
                raise ValueError(f"{block}: missing; policy {self.name!r} of type: {self.type} needs this block")
        return self


class Ids(Section):
    """A share of all trace ids, to roll a policy out step by step: the new one up to here, the old one from here on.

    Which ids belong to it has nothing to do with `probabilistic`, and the same ids stay when the share grows.
    """

    from_percentage: float = Field(0.0, ge=0, le=100, description="Where the share begins.")
    to_percentage: float = Field(100.0, ge=0, le=100, description="Where it ends.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.from_percentage >= self.to_percentage:
            raise ValueError(f"from_percentage: must be below to_percentage ({self.to_percentage:g})")
        return self


class And(Section):
    """Keeps a trace that all of its sub-policies keep."""

    and_sub_policy: list[Policy] = Field(min_length=1, description="Policies of the other types, and `not`.")

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        _refuse_nested("and_sub_policy", self.and_sub_policy, "and", "composite", "drop")
        return self


class Not(Section):
    """Keeps a trace with spans that its sub-policy does not keep."""

    not_sub_policy: Policy = Field(description="A policy of a type that holds no others.")

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        _refuse_nested("not_sub_policy", [self.not_sub_policy], "and", "not", "composite", "drop")
        return self


class Composite(Section):
    """Keeps traces up to a number of spans per second, of which every sub-policy has a share."""

    max_total_spans_per_second: int = Field(
        ge=1, le=MOST_SPANS, description="Spans that pass in the long run, of all sub-policies; and the largest trace."
    )
    policy_order: list[str] = Field([], description="Who is asked first; those left out come after. Names.")
    composite_sub_policy: list[Policy] = Field(min_length=1, description="Policies of the other types, and `and`.")
    rate_allocation: list[RateAllocation] = Field([], description="Shares; sub-policies left out share the rest.")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        _refuse_nested("composite_sub_policy", self.composite_sub_policy, "not", "composite", "drop")
        parts = self.composite_sub_policy
        names = [part.name for part in parts]
        same = same_names("composite_sub_policy", enumerate(names))
        refuse((("composite_sub_policy", *place), rule) for place, rule in same)
        allocated = [allocation.policy for allocation in self.rate_allocation]
        broken: list[Broken] = []
        for key, listed, below in (
            ("policy_order", self.policy_order, ()),
            ("rate_allocation", allocated, ("policy",)),
        ):
            for number, name in enumerate(listed):
                if name not in names:
                    rule = f"{name!r} is none of the sub-policies ({', '.join(names)})"
                    broken.append(((key, number, *below), rule))
                elif name in listed[:number]:
                    broken.append(((key, number, *below), f"{name!r} must be there once"))
        refuse(broken)
        return self

    @property
    def ordered(self) -> list[Policy]:
        """The sub-policies as they are asked."""
        place = {name: number for number, name in enumerate(self.policy_order)}
        return sorted(self.composite_sub_policy, key=lambda part: place.get(part.name, len(place)))


class Drop(Section):
    """Drops a trace that all of its sub-policies keep, whatever other policies say."""

    drop_sub_policy: list[Policy] = Field(min_length=1, description="Policies of the other types, and `not`.")

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        _refuse_nested("drop_sub_policy", self.drop_sub_policy, "and", "composite", "drop")
        return self


def _refuse_nested(key: str, parts: Sequence[Policy], *refused: str) -> None:
    broken: list[Broken] = []
    for number, part in enumerate(parts):
        place = (key,) if key == "not_sub_policy" else (key, number)
        if part.shadow:
            rule = f"{part.name!r} cannot be a shadow; only a whole policy of `policies` can"
            broken.append(((*place, "shadow"), rule))
        if part.ids is not None:
            broken.append(((*place, "ids"), f"{part.name!r} cannot have ids; only a whole policy of `policies` can"))
        if part.type in refused:
            rule = f"{part.type} must not stand here ({part.name!r}); every type but {', '.join(refused)} may"
            broken.append(((*place, "type"), rule))
    refuse(broken)


_BLOCKS = tuple(kind for kind in get_args(PolicyType) if kind not in WITHOUT_BLOCK)
Policy.model_rebuild()


def unique_names(policies: Sequence[Policy]) -> Sequence[Policy]:
    """The same policies; raises ValueError when two of them share a name.

    Sub-policies of an `and` may repeat names, as in the Collector: votes are counted by the outer name.
    """
    refuse(same_names("policies", ((number, policy.name) for number, policy in enumerate(policies))))
    return policies


def same_names(key: str, names: Iterable[tuple[int, str]]) -> Iterator[Broken]:
    """Which names of a list, by their places in it, are those of others."""
    for number, name, other in repeated(names):
        yield (number, "name"), f"{name!r} is that of {key}[{other}] already; names must be unique"


def some_keep(policies: Sequence[Policy]) -> Sequence[Policy]:
    """The same policies; raises ValueError when all of them only drop."""
    if all(policy.type == "drop" or policy.shadow for policy in policies):
        raise ValueError(
            "every policy is of type: drop or a shadow, so no trace is ever kept; add one that keeps (always_sample)"
        )
    return policies


Policies = Annotated[list[Policy], Field(min_length=1), AfterValidator(unique_names), AfterValidator(some_keep)]
