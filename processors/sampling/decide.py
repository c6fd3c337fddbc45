"""The decision about a trace, from its evidence alone: O(policies), no matter how many spans it has.

Every policy votes; one vote to keep is enough. The first keeping policy in the order of the configuration is named.
The threshold is the lowest of all keeping policies, so an error trace that a 1 % policy also chose counts once, not a
hundred times.
"""

from __future__ import annotations

from typing import NamedTuple

from processors.sampling.compile import Plan
from processors.sampling.evidence import Evidence


class Vote(NamedTuple):
    """The outcome. `policy` kept the trace, "" when none did; `threshold` is 56 bits, 0 = certain."""

    kept: bool
    policy: str
    threshold: int


NOT_KEPT = Vote(False, "", 0)


def decide(plan: Plan, evidence: Evidence) -> Vote:
    """Keep or drop the trace. Pure: equal evidence gives an equal vote."""
    policy: str | None = None
    lowest = 0
    for name, condition in plan.conditions:
        threshold = condition.threshold(evidence)
        if threshold is None:
            continue
        if policy is None:
            policy, lowest = name, threshold
        elif threshold < lowest:
            lowest = threshold
    return NOT_KEPT if policy is None else Vote(True, policy, lowest)
