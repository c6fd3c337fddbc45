"""The decision about a trace, from its evidence alone: O(policies), no matter how many spans it has.

A policy of type drop beats everything, wherever it stands. Else every policy votes; one vote to keep is enough. The
first keeping policy in the order of the configuration is named.
The threshold is the lowest of all keeping policies, so an error trace that a 1 % policy also chose counts once, not a
hundred times.

Only `rate_limiting` looks beyond the evidence: at the token buckets of the partition (processors.sampling.limits).
"""

from __future__ import annotations

from typing import NamedTuple

from processors.sampling.compile import Plan
from processors.sampling.evidence import Evidence
from processors.sampling.limits import NO_LIMITS, Limits


class Vote(NamedTuple):
    """The outcome. `policy` kept or dropped the trace, "" when none did; `threshold` is 56 bits, 0 = certain."""

    kept: bool
    policy: str
    threshold: int


NOT_KEPT = Vote(False, "", 0)


def decide(plan: Plan, evidence: Evidence, limits: Limits = NO_LIMITS) -> Vote:
    """Keep or drop the trace. Equal evidence gives an equal vote; `limits` are needed by a plan with `rates`."""
    for name, condition in plan.drops:
        if condition.threshold(evidence, limits) is not None:
            return Vote(False, name, 0)
    policy: str | None = None
    lowest = 0
    for name, condition in plan.conditions:
        threshold = condition.threshold(evidence, limits)
        if threshold is None:
            continue
        if policy is None:
            policy, lowest = name, threshold
        elif threshold < lowest:
            lowest = threshold
    return NOT_KEPT if policy is None else Vote(True, policy, lowest)
