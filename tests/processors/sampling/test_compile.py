"""What a span, a resource and a log record contribute to the bit set."""

from __future__ import annotations

import pytest

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.conditions import AnyOf
from processors.sampling.decide import decide
from processors.sampling.limits import Rate
from processors.sampling.shares import Shares, SharesBySecond
from schemas.otlp_scan import AttributeValue
from tests.processors.sampling.builders import both, gather, log_bits, policy, slots, span, span_bits

ERRORS = policy("errors", "status_code", status_codes=["ERROR"])
SHOP = policy("shop", "string_attribute", key="service.name", values=["shop", "cart", ""])


def test_equal_predicates_share_a_bit() -> None:
    again = policy("again", "status_code", status_codes=["ERROR", "ERROR"])
    reordered = policy("cart", "string_attribute", key="service.name", values=["cart", "shop"])
    plan = compile_policies([ERRORS, again, SHOP, reordered, both("both", ERRORS, SHOP)])
    masks = [condition.mask for _, condition in plan.conditions if isinstance(condition, AnyOf)]
    assert masks == [1, 1, 2, 2]


def test_keys_have_slots_for_policies_and_for_others() -> None:
    plan = compile_policies([SHOP], extra_keys=["http.route", "service.name"])
    assert plan.keys == {b"service.name": 0, b"http.route": 1}


@pytest.mark.parametrize(
    ("codes", "matching"),
    [(["ERROR"], {2}), (["OK", "UNSET"], {0, 1}), (["OK"], {1})],
)
def test_status_codes(codes: list[str], matching: set[int]) -> None:
    plan = compile_policies([policy("p", "status_code", status_codes=codes)])
    assert {status for status in range(-1, 5) if span_bits(plan, span(status=status))} == matching


def test_any_listed_value_on_span_or_resource_matches() -> None:
    plan = compile_policies([SHOP])
    nothing = slots(plan, {})
    for value in ("shop", "cart"):
        row = slots(plan, {"service.name": value})
        assert span_bits(plan, span(attributes=row)) == plan.resource_bits(row) == 1
    for miss in ("", "SHOP", "shop "):
        assert span_bits(plan, span(attributes=slots(plan, {"service.name": miss}))) == 0
    assert span_bits(plan, span(attributes=nothing)) == plan.resource_bits(nothing) == 0


def test_one_look_answers_every_policy_about_a_key() -> None:
    other = policy("other", "string_attribute", key="service.name", values=["shop"])
    plan = compile_policies([SHOP, other])
    assert len(plan.span_bits.lookups) == len(plan.resource_lookups) == 1
    assert span_bits(plan, span(attributes=["shop"])) == 3
    assert plan.resource_bits(["cart"]) == 1


@pytest.mark.parametrize(("value", "text"), [(503, "503"), (503.0, "503"), (True, "true"), (0.25, "0.25")])
@pytest.mark.parametrize(("compat", "matches"), [("none", True), ("otel", False)])
def test_numbers_match_as_text_unless_like_the_collector(
    value: AttributeValue, text: str, compat: Compat, matches: bool
) -> None:
    plan = compile_policies([policy("p", "string_attribute", key="k", values=[text])], compat=compat)
    assert bool(span_bits(plan, span(attributes=[value]))) is matches


def test_every_policy_about_a_key_is_answered_by_one_look() -> None:
    plan = compile_policies(
        [
            policy("text", "string_attribute", key="k", values=["503"]),
            policy("pattern", "string_attribute", key="k", values=["^5", "x"], enabled_regex_matching=True),
            policy("range", "numeric_attribute", key="k", min_value=500),
            policy("other", "numeric_attribute", key="k", max_value=502.5, invert_match=True),
            policy("boolean", "boolean_attribute", key="k", value=True),
            policy("again", "string_attribute", key="k", values=["x", "^5"], enabled_regex_matching=True),
        ]
    )
    assert len(plan.span_bits.lookups) == 1
    found = {value: span_bits(plan, span(attributes=[value])) for value in ("503", 503, 500, True, "x")}
    assert found == {"503": 0b11, 503: 0b111, 500: 0b1110, True: 0b10000, "x": 0b10}


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("v[0-9]+.HealthCheck$", "grpc.health.v1.HealthCheck", True),  # not anchored
        ("^v[0-9]", "grpc.health.v1.HealthCheck", False),
        ("(?i)CHECK", "HealthCheck", True),
        ("[[:alpha:]]", "7", False),
        (r"\pL", "é", True),
        (r"\d", "٣", False),  # ASCII digits, as in Go; Python's own engine has all
        ("a$", "a\n", False),  # the end is the end
        (r"a\z", "a", True),
        ("", "x", False),
    ],
)
def test_expressions_mean_what_they_mean_to_the_collector(pattern: str, text: str, found: bool) -> None:
    block = {"key": "k", "values": [pattern, "never"], "enabled_regex_matching": True}
    plan = compile_policies([policy("p", "string_attribute", **block)])
    assert bool(span_bits(plan, span(attributes=[text]))) is found


def test_no_text_makes_an_expression_slow() -> None:
    """(a|aa)+$ has exponentially many ways to fail on this text: a backtracking engine would take for ever."""
    plan = compile_policies(
        [policy("p", "string_attribute", key="k", values=["^(a|aa)+$"], enabled_regex_matching=True)]
    )
    assert span_bits(plan, span(attributes=["a" * 100_000 + "b"])) == 0


@pytest.mark.parametrize(
    ("compat", "bounds", "matching"),
    [
        ("none", {"min_value": 500, "max_value": 599}, [500, 599, 503.5, 599.0]),
        ("none", {"min_value": 0}, [0, 500, 599, 600, 503.5, 599.0]),
        ("none", {"max_value": -1}, [-1]),
        ("none", {"min_value": 503.25, "max_value": 503.75}, [503.5]),
        ("otel", {"min_value": 500, "max_value": 599}, [500, 599]),
        ("otel", {"min_value": 0, "max_value": 1}, [0, -1, 503.5, 599.0, True, "503", b"503"]),
    ],
)
def test_numbers_in_a_range(compat: Compat, bounds: dict[str, float], matching: list[AttributeValue]) -> None:
    plan = compile_policies([policy("p", "numeric_attribute", key="k", **bounds)], compat=compat)
    values: list[AttributeValue] = [0, -1, 500, 599, 600, 503.5, 599.0, True, "503", b"503"]
    found = [value for value in values if span_bits(plan, span(attributes=[value]))]
    assert repr(found) == repr(matching)  # 599 is not 599.0 here


@pytest.mark.parametrize(
    ("compat", "wanted", "matching"),
    [
        ("none", True, [True]),
        ("none", False, [False]),
        ("otel", True, [True]),
        ("otel", False, [False, "false", "true", 0, 1, 0.0, b""]),
    ],
)
def test_booleans(compat: Compat, wanted: bool, matching: list[AttributeValue]) -> None:
    plan = compile_policies([policy("p", "boolean_attribute", key="k", value=wanted)], compat=compat)
    values: list[AttributeValue] = [True, False, "false", "true", 0, 1, 0.0, b""]
    assert [v for v in values if span_bits(plan, span(attributes=[v]))] == matching
    assert span_bits(plan, span(attributes=[None])) == 0


def test_tracestates() -> None:
    plan = compile_policies(
        [
            policy("a", "trace_state", key="k", values=["a", ""]),
            policy("b", "trace_state", key="k", values=["b", "a"]),
            policy("t", "trace_state", key="t@s", values=["x"]),
        ]
    )
    states = {b"": 0, b"k=a": 0b11, b"k=b,t@s=x": 0b110, b"k=c": 0, b"k=a,k=a": 0, b"K=a": 0}
    assert {state: span_bits(plan, span(state=state)) for state in states} == states


@pytest.mark.parametrize(("compat", "found"), [("none", True), ("otel", False)])
def test_the_collector_ignores_long_members_of_a_tracestate(compat: Compat, found: bool) -> None:
    plan = compile_policies([policy("p", "trace_state", key="k", values=["x" * 255])], compat=compat)
    assert bool(span_bits(plan, span(state=b"k=" + b"x" * 255))) is found


def test_rates_are_listed_by_the_policy_of_the_configuration() -> None:
    inner = policy("inner", "rate_limiting", spans_per_second=5, burst_capacity=7)
    plan = compile_policies([both("both", ERRORS, inner, inner), policy("rate", "rate_limiting", spans_per_second=3)])
    assert plan.rates == (Rate("both", 5, 7), Rate("both", 5, 7), Rate("rate", 3, 6))


@pytest.mark.parametrize(
    ("percents", "shares", "as_collector"),
    [
        ({"a": 50, "b": 25, "c": 25}, (50, 25, 25), (50, 25, 25)),
        ({"a": 50}, (50, 25, 25), (50, 0, 0)),  # v0.155: who is not listed has none
        ({"a": 50, "b": 0}, (50, 25, 25), (50, 33, 0)),
        ({}, (33, 33, 33), (0, 0, 0)),
        ({"a": 100, "b": 100}, (50, 50, 0), (101, 101, 0)),
        ({"a": 100}, (101, 0, 0), (101, 0, 0)),
    ],
)
def test_shares_of_a_composite(
    percents: dict[str, int], shares: tuple[int, ...], as_collector: tuple[int, ...]
) -> None:
    block = {
        "max_total_spans_per_second": 101,
        "policy_order": ["c", "a"],
        "composite_sub_policy": [{"name": name, "type": "always_sample"} for name in "abc"],
        "rate_allocation": [{"policy": name, "percent": percent} for name, percent in percents.items()],
    }
    composite = policy("p", "composite", **block)
    a, b, c = shares
    assert [plan.rates for plan in (compile_policies([composite]), compile_policies([composite], compat="otel"))] == [
        (Shares("p", 101, (c, a, b)),),  # in the order in which they are asked
        (SharesBySecond("p", 101, as_collector),),
    ]


@pytest.mark.parametrize(
    ("lowest", "first"), [("TRACE", 1), ("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21)]
)
def test_log_severity_from_its_range_up(lowest: str, first: int) -> None:
    plan = compile_policies([policy("p", "log_severity", min_severity=lowest)])
    matching = {number for number in range(-1, 30) if log_bits(plan, number)}
    assert matching == set(range(first, 30))


def test_logs_and_spans_do_not_meet_each_others_predicates() -> None:
    plan = compile_policies([ERRORS, policy("logs", "log_severity", min_severity="ERROR")])
    assert span_bits(plan, span(status=2)) == 1
    assert log_bits(plan, 17) == 2
    assert decide(plan, gather(plan, severities=(17,))).policy == "logs"


def test_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match="'errors' is that of policies"):
        compile_policies([ERRORS, ERRORS])


def test_the_version_names_what_the_policies_mean() -> None:
    version = compile_policies([ERRORS, SHOP]).version
    assert version == compile_policies([ERRORS, SHOP], extra_keys=["http.route"]).version
    spelled_out = policy(
        "shop", "string_attribute", key="service.name", values=["shop", "cart", ""], invert_match=False
    )
    assert version == compile_policies([ERRORS, spelled_out]).version
    others = [
        compile_policies([SHOP, ERRORS]),
        compile_policies([ERRORS]),
        compile_policies([ERRORS, SHOP], compat="otel"),
    ]
    assert len({version, *(plan.version for plan in others)}) == 4
    assert len(version) == 12
