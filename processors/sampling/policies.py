"""The sampling policies, with the names and fields of the Collector's tail_sampling processor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.settings import Section


class StatusCode(Section):
    status_codes: list[Literal["OK", "ERROR", "UNSET"]] = Field(min_length=1)


class Latency(Section):
    threshold_ms: int = Field(ge=0)
    upper_threshold_ms: int = Field(0, ge=0, description="0: no upper bound.")


class Probabilistic(Section):
    sampling_percentage: float
    hash_salt: str = Field("", description="Only with `compat: otel`.")


class StringAttribute(Section):
    key: str = Field(min_length=1)
    values: list[str] = Field(min_length=1)


class LogSeverity(Section):
    min_severity: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] = "ERROR"


class Policy(Section):
    """One policy of the Collector's tail_sampling processor, with the Collector's field names.

    Exactly the block named like `type` must be present (`and` → `and`; always_sample needs none).
    """

    name: str = Field(min_length=1)
    type: Literal["always_sample", "status_code", "latency", "probabilistic", "string_attribute", "and", "log_severity"]
    status_code: StatusCode | None = None
    latency: Latency | None = None
    probabilistic: Probabilistic | None = None
    string_attribute: StringAttribute | None = None
    log_severity: LogSeverity | None = None
    and_: And | None = Field(None, alias="and")


class And(Section):
    and_sub_policy: list[Policy] = Field(min_length=1)


Policy.model_rebuild()
