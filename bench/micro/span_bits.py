"""What policies cost: ns per span and per decision, the best of several rounds in one process.

python -m bench.micro.span_bits
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from timeit import repeat
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from processors.sampling.compile import compile_policies
from processors.sampling.decide import decide
from processors.sampling.evidence import Evidence
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from schemas.otlp_scan import SpanColumns

CALLS = 50_000
ROUNDS = 9
ROWS = 200
STATE = "ot=th:8;rv:00000000000001,vendor=1"


def policy(name: str, kind: str, **block: Any) -> Policy:
    """A policy with one block."""
    return Policy.model_validate({"name": name, "type": kind, kind: block})


def regex(name: str, *values: str) -> Policy:
    """Expressions about http.route."""
    return policy(name, "string_attribute", key="http.route", values=values, enabled_regex_matching=True)


BASE = [
    policy("errors", "status_code", status_codes=["ERROR"]),
    policy("slow", "latency", threshold_ms=500),
    policy("tenant", "string_attribute", key="tenant", values=["t-1", "t-2"]),
    policy("route", "string_attribute", key="http.route", values=["/pay"]),
    policy("rest", "probabilistic", sampling_percentage=5),
]
PLANS = {
    "no attributes": BASE[:2],
    "two keys": BASE,
    "one range": [*BASE, policy("n", "numeric_attribute", key="status", min_value=500)],
    "twenty ranges of a key": [
        *BASE,
        *(policy(f"n{i}", "numeric_attribute", key="status", min_value=i, max_value=i * 30) for i in range(1, 21)),
    ],
    "one expression": [*BASE, regex("r", "^/api/")],
    "twenty expressions of a key": [*BASE, *(regex(f"r{i}", f"^/v{i}/", f"x{i}$") for i in range(10))],
    "a boolean": [*BASE, policy("b", "boolean_attribute", key="cached", value=True)],
    "a tracestate": [*BASE, policy("t", "trace_state", key="vendor", values=["2"])],
    "a condition": [*BASE, policy("c", "ottl_condition", span=['name == "x" and attributes["tenant"] == "t-1"'])],
    "a condition about events": [
        *BASE,
        policy("e", "ottl_condition", spanevent=['name == "exception" and attributes["exception.type"] == "E"']),
    ],
    "a rate": [*BASE, policy("rate", "rate_limiting", spans_per_second=100)],
}


def best(work: Callable[[], object], units: int = 1, calls: int = CALLS) -> float:
    """ns per unit of the fastest round."""
    return min(repeat(work, number=calls, repeat=ROUNDS)) / calls / units * 1e9


def batch(keys: dict[bytes, int]) -> SpanColumns:
    """Spans of one service, each with every value and an event."""
    attributes = [
        KeyValue(key="http.route", value=AnyValue(string_value="/api/users/{id}")),
        KeyValue(key="status", value=AnyValue(int_value=503)),
        KeyValue(key="cached", value=AnyValue(bool_value=False)),
        KeyValue(key="tenant", value=AnyValue(string_value="t-17")),
    ]
    ok = Status(code=Status.STATUS_CODE_OK)
    event = Span.Event(name="exception", attributes=attributes)
    body = Span(trace_state=STATE, attributes=attributes, status=ok, events=[event]).SerializeToString()
    columns = SpanColumns(keys)
    columns.scan(body * ROWS, array("I", [len(body) * (number + 1) for number in range(ROWS)]))
    return columns


def main() -> None:
    print(f"{'policies':30} {'span':>8} {'resource':>9} {'decision':>9}   ns")
    for name, policies in PLANS.items():
        plan = compile_policies(policies, extra_keys=["service.name"])
        columns, of = batch(plan.keys), array("I", bytes(4 * ROWS))
        resource = ["users" if key == b"service.name" else None for key in plan.keys]
        plan.span_bits.assign(columns, of, [0])
        bits = sum(word << 64 * place for place, word in enumerate(plan.span_bits.bits[: plan.words]))
        evidence, limits = Evidence(bytes(16), bits=bits, spans=1, max_end=5), Limits(plan.rates, 1)
        costs = (
            best(lambda p=plan, c=columns, of=of: p.span_bits.assign(c, of, [0]), ROWS, CALLS // ROWS),  # type: ignore[misc]
            best(lambda plan=plan, resource=resource: plan.resource_bits(resource)),  # type: ignore[misc]
            best(lambda plan=plan, e=evidence, limits=limits: decide(plan, e, limits.at(0))),  # type: ignore[misc]
        )
        print(f"{name:30} {costs[0]:8.0f} {costs[1]:9.0f} {costs[2]:9.0f}")


if __name__ == "__main__":
    main()
