"""What a span, a resource and a log record contribute to the bit set."""

from __future__ import annotations

import pytest

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.conditions import AnyOf
from processors.sampling.decide import decide
from schemas.otlp_scan import AttributeValue
from tests.processors.sampling.builders import both, gather, policy, slots, span

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
    assert {status for status in range(-1, 5) if plan.span_bits(span(status=status))} == matching


def test_any_listed_value_on_span_or_resource_matches() -> None:
    plan = compile_policies([SHOP])
    nothing = slots(plan, {})
    for value in ("shop", "cart"):
        row = slots(plan, {"service.name": value})
        assert plan.span_bits(span(attributes=row)) == plan.resource_bits(row) == 1
    for miss in ("", "SHOP", "shop "):
        assert plan.span_bits(span(attributes=slots(plan, {"service.name": miss}))) == 0
    assert plan.span_bits(span(attributes=nothing)) == plan.resource_bits(nothing) == 0


def test_one_look_answers_every_policy_about_a_key() -> None:
    other = policy("other", "string_attribute", key="service.name", values=["shop"])
    plan = compile_policies([SHOP, other])
    assert len(plan.span_lookups) == len(plan.resource_lookups) == 1
    assert plan.span_bits(span(attributes=["shop"])) == 3
    assert plan.resource_bits(["cart"]) == 1


@pytest.mark.parametrize(("value", "text"), [(503, "503"), (503.0, "503"), (True, "true"), (0.25, "0.25")])
@pytest.mark.parametrize(("compat", "matches"), [("none", True), ("otel", False)])
def test_numbers_match_as_text_unless_like_the_collector(
    value: AttributeValue, text: str, compat: Compat, matches: bool
) -> None:
    plan = compile_policies([policy("p", "string_attribute", key="k", values=[text])], compat=compat)
    assert bool(plan.span_bits(span(attributes=[value]))) is matches


@pytest.mark.parametrize(
    ("lowest", "first"), [("TRACE", 1), ("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21)]
)
def test_log_severity_from_its_range_up(lowest: str, first: int) -> None:
    plan = compile_policies([policy("p", "log_severity", min_severity=lowest)])
    matching = {number for number in range(-1, 30) if plan.log_bits(number)}
    assert matching == set(range(first, 30))


def test_logs_and_spans_do_not_meet_each_others_predicates() -> None:
    plan = compile_policies([ERRORS, policy("logs", "log_severity", min_severity="ERROR")])
    assert plan.span_bits(span(status=2)) == 1
    assert plan.log_bits(17) == 2
    assert decide(plan, gather(plan, severities=(17,))).policy == "logs"


def test_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match="'errors' is used by more than one policy"):
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
