"""`compat: otel` against the Collector itself.

collector_0_155.json holds 700 traces drawn at random and what the evaluators of tailsamplingprocessor v0.155.0 (Go, run
over the same policies and spans) answered: the policy that kept the trace, `dropped` by a drop policy, or `not`. A span
is [start, end (ns after NOON), status, attribute k, resource attribute k, tracestate], each in a ResourceSpans of its
own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processors.sampling.compile import compile_policies
from processors.sampling.decide import decide
from processors.sampling.policies import Policy
from tests.processors.sampling.builders import NOON, Table, span

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "collector_0_155.json").read_text(encoding="utf-8"))


def bounded_above(policy: Policy) -> bool:
    """Whether a latency upper bound decides: there the Collector's answer depends on the order of spans."""
    parts = policy.and_.and_sub_policy if policy.and_ else [policy]
    return any(part.latency and part.latency.upper_threshold_ms for part in parts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["trace_id"][:8]))
def test_decides_as_the_collector(case: dict[str, Any]) -> None:
    policies = [Policy.model_validate(policy) for policy in case["policies"]]
    plan = compile_policies(policies, compat="otel", extra_keys=["k"])
    table = Table(plan.words, plan, bytes.fromhex(case["trace_id"]))
    for start, end, status, attribute, resource, *state in case["spans"]:
        one = span(
            NOON + start,
            NOON + end,
            status=status,
            trace_id=table.trace_id,
            attributes=[attribute],
            state="".join(state).encode(),
        )
        table.add_spans([one], resource_bits=plan.resource_bits([resource]))
    vote = decide(plan, table.evidence())
    if any(map(bounded_above, policies)):
        # It may have stopped at a partial duration; what the whole trace says it accepts too.
        assert case["outcome"] != "not" or not vote.kept
    else:
        assert case["outcome"] == (vote.policy if vote.kept else "dropped" if vote.policy else "not")
