"""What a compiled policy asks of a trace's evidence.

Each answers `threshold(evidence, limits)`: None when the policy does not keep the trace, else the 56-bit sampling
threshold at which it did (0 = certain). `limits` are the token buckets of the partition, at the trace's deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from processors.sampling.evidence import Evidence
from processors.sampling.limits import Limits
from processors.sampling.probability import ALWAYS, NEVER, fnv1a_64, randomness_of_id

NS_PER_MS = 1_000_000


class Condition(Protocol):
    """A policy, compiled."""

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        """The threshold at which the trace is kept, None when it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """always_sample."""

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        return ALWAYS


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Some span or log met a predicate of `mask`."""

    mask: int

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        return ALWAYS if evidence.bits & self.mask else None


@dataclass(frozen=True, slots=True)
class NoneOf:
    """There are spans, and none of them met a predicate of `mask`."""

    mask: int

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        return ALWAYS if evidence.spans and not evidence.bits & self.mask else None


@dataclass(frozen=True, slots=True)
class LongerThan:
    """`above_ns` < duration ≤ `up_to_ns` (None: no upper bound), to the nanosecond."""

    above_ns: int
    up_to_ns: int | None

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        duration = evidence.duration_ns
        inside = duration > self.above_ns and (self.up_to_ns is None or duration <= self.up_to_ns)
        return ALWAYS if inside and evidence.spans else None


@dataclass(frozen=True, slots=True)
class LongerThanMillis:
    """The Collector 0.155: whole milliseconds, cut towards zero; at least `above` when there is no upper bound."""

    above: int
    up_to: int | None

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        duration = evidence.duration_ns
        millis = duration // NS_PER_MS if duration >= 0 else -(-duration // NS_PER_MS)
        inside = millis >= self.above if self.up_to is None else self.above < millis <= self.up_to
        return ALWAYS if inside and evidence.spans else None


@dataclass(frozen=True, slots=True)
class SpanCount:
    """`fewest` ≤ spans ≤ `most` (None: no upper bound)."""

    fewest: int
    most: int | None

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        spans = evidence.spans
        inside = spans >= self.fewest and (self.most is None or spans <= self.most)
        return ALWAYS if inside and spans else None


@dataclass(frozen=True, slots=True)
class WithinRate:
    """There are spans, and the bucket `index` has enough tokens for them; then they are spent."""

    index: int

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        return ALWAYS if evidence.spans and limits.take(self.index, evidence.spans) else None


@dataclass(frozen=True, slots=True)
class Consistent:
    """Randomness reaches `limit`."""

    limit: int

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        randomness = evidence.randomness
        if randomness is None:
            randomness = randomness_of_id(evidence.trace_id)
        return self.limit if randomness >= self.limit else None


@dataclass(frozen=True, slots=True)
class Hashed:
    """The Collector's hash of the trace id, continued from `state`, is at most `limit` (−1: never).

    `share` is the 56-bit threshold of the same percentage: counts are adjusted as if it had decided.
    """

    state: int
    limit: int
    share: int

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        return min(self.share, NEVER - 1) if fnv1a_64(evidence.trace_id, self.state) <= self.limit else None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part keeps the trace; the rarest says how often. After one that does not, no rate is spent."""

    parts: tuple[Condition, ...]

    def threshold(self, evidence: Evidence, limits: Limits) -> int | None:
        highest = ALWAYS
        for part in self.parts:
            threshold = part.threshold(evidence, limits)
            if threshold is None:
                return None
            highest = max(highest, threshold)
        return highest
