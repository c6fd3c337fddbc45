"""`compat: otel` against the Collector itself.

collector_0_155.json holds 400 traces drawn at random and what the evaluators of tailsamplingprocessor v0.155.0 (Go, run
over the same policies and spans) answered. A span is [start, end (ns after NOON), status, attribute k, resource
attribute k], each in a ResourceSpans of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processors.sampling.compile import compile_policies
from processors.sampling.decide import decide
from processors.sampling.evidence import Evidence
from processors.sampling.policies import Policy
from tests.processors.sampling.builders import NOON, span

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "collector_0_155.json").read_text())


def bounded_above(policy: Policy) -> bool:
    """Whether a latency upper bound decides: there the Collector's answer depends on the order of spans."""
    parts = policy.and_.and_sub_policy if policy.and_ else [policy]
    return any(part.latency and part.latency.upper_threshold_ms for part in parts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["trace_id"][:8]))
def test_decides_as_the_collector(case: dict[str, Any]) -> None:
    policy = Policy.model_validate(case["policy"])
    plan = compile_policies([policy], compat="otel", extra_keys=["k"])
    evidence = Evidence(bytes.fromhex(case["trace_id"]))
    for start, end, status, attribute, resource in case["spans"]:
        one = span(NOON + start, NOON + end, status=status, trace_id=evidence.trace_id, attributes=[attribute])
        evidence.add_span(one, plan.span_bits(one) | plan.resource_bits([resource]))
    kept = decide(plan, evidence).kept
    if bounded_above(policy):
        assert case["kept"] or not kept  # it may have stopped at a partial duration; the whole trace it would accept
    else:
        assert kept == case["kept"]
