"""Policies that go by the key of a trace: what they are told. None of them is in the Collector.

The words are those of Honeycomb's Refinery (its EMADynamicSampler and EMAThroughputSampler), as snake case.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from processors.sampling.blocks import MOST_SPANS
from processors.sampling.features import ROOT
from schemas.settings import Duration, Section

MOST_FIELDS = 16
SHAPE = ("root.service.name", "root.name", "errors", "path")


def _fields(names: list[str]) -> list[str]:
    for name in names:
        if not name.removeprefix(ROOT):
            raise ValueError(f"{name!r} names nothing; write an attribute key, name, status, errors or path")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} must be there once")
    return names


Fields = Annotated[list[str], Field(min_length=1, max_length=MOST_FIELDS), AfterValidator(_fields)]


class Adapting(Section):
    """How rates follow the traffic."""

    field_list: Fields = Field(
        description="What the key of a trace is made of: attribute keys (of its spans, else of their resources), "
        "`name`, `status`, `errors`, `path`; `root.` before it: of the root span alone."
    )
    adjustment_interval: Duration = Field(15.0, description="How often rates are worked out, in stream time.")
    weight: float = Field(
        0.5, gt=0, lt=1, description="Of the newest interval in the moving average of what each key brings."
    )
    age_out_value: FiniteFloat = Field(0.0, ge=0, description="A key whose average is below is forgotten. 0: `weight`.")
    burst_multiple: FiniteFloat = Field(
        2.0, description="Rates are worked out at once when an interval brings so many averages. Below 0: never."
    )
    burst_detection_delay: int = Field(3, ge=0, description="Adjustments before bursts are looked for.")
    max_keys: int = Field(500, ge=1, le=10_000, description="Keys of a partition; the others share one rate.")

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.adjustment_interval < 1:
            raise ValueError("adjustment_interval: must be at least 1s")
        return self


class Dynamic(Adapting):
    """Keeps one span in `goal_sample_rate`, of rare keys more and of frequent ones less."""

    goal_sample_rate: float = Field(
        10.0, ge=1, le=MOST_SPANS, description="Spans for one that is kept, over all keys together."
    )


class Throughput(Adapting):
    """Keeps about so many spans or traces per second over all partitions, of rare keys a larger share."""

    goal_spans_per_second: float = Field(0.0, ge=0, le=MOST_SPANS, description="Spans that are kept. Or:")
    goal_traces_per_second: float = Field(0.0, ge=0, le=MOST_SPANS, description="Traces that are kept.")
    initial_sampling_percentage: float = Field(
        10.0, ge=0, le=100, description="Kept of all keys alike until the first interval is over."
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.goal_spans_per_second > 0) == (self.goal_traces_per_second > 0):
            raise ValueError("goal_spans_per_second: one of it and goal_traces_per_second is required, above 0")
        return self


class Rare(Section):
    """Keeps the first traces of every shape in each interval, however rare it is."""

    traces: int = Field(1, ge=1, le=1000, description="Of each shape and interval that are kept at least.")
    interval: Duration = Field(3600.0, description="Counting begins anew this often, in stream time.")
    field_list: Fields = Field(
        list(SHAPE), description="What the shape of a trace is made of; the same words as in `dynamic`."
    )
    max_shapes: int = Field(
        1000, ge=1, le=10_000, description="Of a partition and interval; of those beyond it keeps none."
    )

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.interval < 1:
            raise ValueError("interval: must be at least 1s")
        return self
