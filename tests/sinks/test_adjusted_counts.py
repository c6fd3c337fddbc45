"""What is estimated from kept spans is the truth, within the interval that they state."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.decide import decide
from processors.sampling.evidence import Evidence
from processors.sampling.policies import Policy
from schemas.envelope import RowVerdict
from schemas.trace_state import randomness_of_id, randomness_of_state
from sinks.otlp_rows import row_items
from tests.sinks.building import envelope, record

TRACES = 3_000
SEEDS = 25
POLICIES = [
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 900}},
    {
        "name": "half-of-medium",
        "type": "and",
        "and": {
            "and_sub_policy": [
                {"name": "medium", "type": "latency", "latency": {"threshold_ms": 500}},
                {"name": "half", "type": "probabilistic", "probabilistic": {"sampling_percentage": 50}},
            ]
        },
    },
    {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
]
MS = 1_000_000
Z = 1.96  # 95 %


def drawn(seed: int) -> list[tuple[str, int, Span]]:
    """(service, ms, root span) of traces; a head sampler kept half of those of `cart`."""
    source = random.Random(seed)
    found = []
    for _ in range(TRACES):
        service, lasts = source.choice(["cart", "cart", "stock", "pay"]), source.randrange(1_000)
        state = f"ot=rv:{source.getrandbits(56):014x}" if source.random() < 0.3 else ""
        if service == "cart":
            state = "ot=th:8" + state.replace("ot=", ";")
        span = Span(trace_id=source.randbytes(16), span_id=b"1" * 8, name=service, trace_state=state)
        found.append((service, lasts, span))
    return found


def estimates(seed: int, compat: Compat) -> list[tuple[float, float, int]]:
    """Of each service and of the slower ones: (estimate, its variance, truth)."""
    plan = compile_policies([Policy.model_validate(policy) for policy in POLICIES], compat=compat)
    truth: dict[str, int] = defaultdict(int)
    rows, verdicts, lengths = [], [], []
    for service, lasts, span in drawn(seed):
        for group in (service, "slower" if lasts > 500 else "faster"):
            truth[group] += 1
        said = randomness_of_state(span.trace_state.encode())
        chance = randomness_of_id(span.trace_id) if said is None else said
        if service == "cart" and chance < 1 << 55:
            continue  # the head sampler's
        seen = Evidence(span.trace_id, spans=1, min_start=1, max_end=1 + lasts * MS, randomness=said)
        vote = decide(plan, seen)
        if vote.kept:
            rows.append(span)
            verdicts.append(RowVerdict(kept=True, policy=vote.policy, threshold=vote.threshold))
            lengths.append(lasts)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    kept = record(envelope(rows, verdicts).encode(), signal="spans")
    for item, lasts in zip(row_items(kept, consistent=compat == "none"), lengths, strict=True):
        span = Span.FromString(item.wire)
        counts = [a.value.double_value for a in span.attributes if a.key == "tailsampling.adjusted_count"]
        count = counts[0] if counts else 1.0
        for group in (span.name, "slower" if lasts > 500 else "faster"):
            totals[group][0] += count
            totals[group][1] += count * (count - 1)
    return [(totals[group][0], totals[group][1], truth[group]) for group in sorted(truth)]


@pytest.fixture(scope="module", params=["none", "otel"])
def found(request: pytest.FixtureRequest) -> list[tuple[float, float, int]]:
    each = (estimate for seed in range(SEEDS) for estimate in estimates(seed, request.param))
    return [(total, variance**0.5, truth) for total, variance, truth in each]


def test_the_stated_interval_holds_the_truth_as_often_as_it_says(found: list[tuple[float, float, int]]) -> None:
    inside = sum(abs(total - truth) <= Z * deviation for total, deviation, truth in found) / len(found)
    assert 0.88 <= inside <= 1, inside
    assert all(abs(total - truth) <= 4.5 * deviation for total, deviation, truth in found)


def test_estimates_lean_to_no_side_and_say_something(found: list[tuple[float, float, int]]) -> None:
    lean = sum((total - truth) / deviation for total, deviation, truth in found) / len(found)
    assert abs(lean) < 3 / SEEDS**0.5  # groups of one seed share their traces
    assert all(deviation < 0.15 * truth for _, deviation, truth in found)
