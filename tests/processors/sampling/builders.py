"""Spans and policies for the sampling tests, and how Hypothesis draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from processors.sampling.compile import Plan
from processors.sampling.evidence import Evidence
from processors.sampling.policies import Policy
from schemas.otlp_scan import AttributeValue, SpanScan

TRACE_ID = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
MS = 1_000_000
NOON = 1_800_000_000_000 * MS  # ns


def policy(name: str, kind: str, /, **block: Any) -> Policy:
    """A validated policy; keyword arguments are the fields of its block."""
    return Policy.model_validate({"name": name, "type": kind, **({kind: block} if block else {})})


def both(name: str, *parts: Policy) -> Policy:
    """An `and` of policies."""
    return policy(name, "and", and_sub_policy=[part.model_dump(by_alias=True, exclude_none=True) for part in parts])


def drop(name: str, *parts: Policy) -> Policy:
    """A `drop` of policies."""
    return policy(name, "drop", drop_sub_policy=[part.model_dump(by_alias=True, exclude_none=True) for part in parts])


def span(
    start_ns: int = NOON,
    end_ns: int = NOON + MS,
    *,
    status: int = 0,
    trace_id: bytes = TRACE_ID,
    span_id: bytes = b"\x01" * 8,
    parent: bytes = b"",
    state: bytes = b"",
    name: bytes = b"GET /",
    attributes: list[AttributeValue | None] | None = None,
) -> SpanScan:
    """A span of one millisecond."""
    return SpanScan(trace_id, span_id, parent, state, name, 2, start_ns, end_ns, status, attributes or [])


def slots(plan: Plan, values: Mapping[str, AttributeValue]) -> list[AttributeValue | None]:
    """Attributes by the slots of a plan."""
    row: list[AttributeValue | None] = [None] * len(plan.keys)
    for key, value in values.items():
        row[plan.keys[key.encode()]] = value
    return row


def gather(
    plan: Plan,
    *spans: SpanScan,
    resource: Mapping[str, AttributeValue] | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    severities: tuple[int, ...] = (),
) -> Evidence:
    """Evidence of whole spans of one resource and of logs; `attributes` are every span's."""
    evidence = Evidence(TRACE_ID)
    for one in spans:
        scan = one._replace(attributes=slots(plan, attributes or {}))
        evidence.add_span(scan, plan.span_bits(scan) | plan.resource_bits(slots(plan, resource or {})))
    for severity in severities:
        evidence.add_log(plan.log_bits(severity))
    return evidence


states = st.one_of(
    st.just(b""),
    st.integers(0, 2**56 - 1).map(lambda rv: b"ot=th:8;rv:%014x,vendor=1" % rv),
)
times = st.one_of(st.just(0), st.integers(NOON, NOON + 5_000 * MS))
spans = st.builds(
    span,
    times,
    times,
    status=st.integers(0, 3),
    trace_id=st.sampled_from([TRACE_ID, bytes(8) + TRACE_ID[8:]]),
    state=states,
    attributes=st.lists(st.sampled_from([None, "shop", "a", "", 503, 503.0, True, b"x"]), min_size=2, max_size=2),
)
