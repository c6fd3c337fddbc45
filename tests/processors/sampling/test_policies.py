"""What is accepted, and what a refused policy says about key and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from processors.sampling import blocks
from processors.sampling.policies import And, Composite, Drop, Not, Policies, Policy, PolicyType
from schemas.settings import Section

# the examples of the Collector's README
COLLECTOR_BLOCK: list[dict[str, Any]] = [
    {"name": "test-policy-1", "type": "always_sample"},
    {"name": "test-policy-2", "type": "latency", "latency": {"threshold_ms": 5000}},
    {"name": "test-policy-4", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
    {"name": "test-policy-5", "type": "status_code", "status_code": {"status_codes": ["ERROR", "UNSET"]}},
    {"name": "test-policy-6", "type": "string_attribute", "string_attribute": {"key": "k", "values": ["v", ""]}},
    {
        "name": "test-policy-3",
        "type": "numeric_attribute",
        "numeric_attribute": {"key": "key1", "min_value": 50, "max_value": 100},
    },
    {
        "name": "test-policy-7",
        "type": "string_attribute",
        "string_attribute": {
            "key": "key2",
            "values": ["value1", "val*"],
            "enabled_regex_matching": True,
            "cache_max_size": 10,
        },
    },
    {"name": "test-policy-8", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 35}},
    {"name": "test-policy-12", "type": "bytes_limiting", "bytes_limiting": {"bytes_per_second": 1024000}},
    {"name": "test-policy-13", "type": "trace_flags"},
    {
        "name": "test-policy-14",
        "type": "ottl_condition",
        "ottl_condition": {
            "error_mode": "ignore",
            "span": [
                'attributes["test_attr_key_1"] == "test_attr_val_1"',
                'attributes["test_attr_key_2"] != "test_attr_val_1"',
            ],
        },
    },
    {
        "name": "composite-policy-1",
        "type": "composite",
        "composite": {
            "max_total_spans_per_second": 1000,
            "policy_order": ["test-composite-policy-1", "test-composite-policy-2", "test-composite-policy-3"],
            "composite_sub_policy": [
                {
                    "name": "test-composite-policy-1",
                    "type": "numeric_attribute",
                    "numeric_attribute": {"key": "key1", "min_value": 50, "max_value": 100},
                },
                {
                    "name": "test-composite-policy-2",
                    "type": "string_attribute",
                    "string_attribute": {"key": "key2", "values": ["value1", "value2"]},
                },
                {"name": "test-composite-policy-3", "type": "always_sample"},
            ],
            "rate_allocation": [
                {"policy": "test-composite-policy-1", "percent": 50},
                {"policy": "test-composite-policy-2", "percent": 25},
            ],
        },
    },
    {
        "name": "not-policy-1",
        "type": "not",
        "not": {
            "not_sub_policy": {
                "name": "test-not-policy-1",
                "type": "string_attribute",
                "string_attribute": {"key": "k", "values": ["v"]},
            }
        },
    },
    {"name": "test-policy-9", "type": "span_count", "span_count": {"min_spans": 2, "max_spans": 20}},
    {"name": "test-policy-10", "type": "trace_state", "trace_state": {"key": "key3", "values": ["value1", "value2"]}},
    {"name": "test-policy-11", "type": "boolean_attribute", "boolean_attribute": {"key": "key4", "value": True}},
    {
        "name": "drop-policy-1",
        "type": "drop",
        "drop": {
            "drop_sub_policy": [
                {
                    "name": "test-drop-policy-1",
                    "type": "string_attribute",
                    "string_attribute": {
                        "key": "url.path",
                        "values": [r"\/health", r"\/metrics"],
                        "enabled_regex_matching": True,
                    },
                }
            ]
        },
    },
    {
        "name": "and-policy-1",
        "type": "and",
        "and": {
            "and_sub_policy": [
                {"name": "p", "type": "latency", "latency": {"threshold_ms": 0, "upper_threshold_ms": 9}},
                {
                    "name": "p",
                    "type": "string_attribute",
                    "string_attribute": {"key": "k", "values": ["v"], "invert_match": True},
                },
            ]
        },
    },
]


def test_the_collectors_block_can_be_pasted() -> None:
    policies = TypeAdapter(list[Policy]).validate_python(COLLECTOR_BLOCK)
    assert [p.type for p in policies] == [block["type"] for block in COLLECTOR_BLOCK]
    assert policies[-1].and_ is not None
    assert [part.name for part in policies[-1].and_.and_sub_policy] == ["p", "p"]


def regex(pattern: str) -> dict[str, Any]:
    return {"key": "k", "values": [pattern], "enabled_regex_matching": True}


ALWAYS_NOT = {"name": "b", "type": "not", "not": {"not_sub_policy": {"name": "c", "type": "always_sample"}}}


def composite(**changes: Any) -> dict[str, Any]:
    parts = [{"name": name, "type": "always_sample"} for name in ("x", "y")]
    return {
        "name": "a",
        "type": "composite",
        "composite": {"max_total_spans_per_second": 10, "composite_sub_policy": parts, **changes},
    }


def nested(kind: str) -> dict[str, Any]:
    inner = {"name": "inner", "type": "and", "and": {"and_sub_policy": [{"name": "x", "type": "always_sample"}]}}
    return {"name": "outer", "type": kind, kind: {f"{kind}_sub_policy": [inner]}}


@pytest.mark.parametrize(
    ("block", "quoted", "rule"),
    [
        ({"name": "", "type": "always_sample"}, "name", "at least 1 character"),
        ({"name": "a", "type": "sometimes"}, "type", "'always_sample'"),
        ({"name": "a", "type": "latency"}, "latency", "missing"),
        ({"name": "a", "type": "always_sample", "latency": {"threshold_ms": 1}}, "latency", "not allowed"),
        (
            {"name": "a", "type": "latency", "latency": {"threshold_ms": 1}, "status_code": {"status_codes": ["OK"]}},
            "status_code",
            "not allowed in policy 'a' of type: latency",
        ),
        ({"name": "a", "type": "log_severity"}, "log_severity", "needs this block"),
        ({"name": "a", "type": "and"}, "and", "missing"),
        ({"name": "a", "type": "and", "and": {"and_sub_policy": []}}, "and_sub_policy", "at least 1 item"),
        (nested("and"), "and_sub_policy", "and must not stand here ('inner')"),
        (nested("drop"), "drop_sub_policy", "and must not stand here ('inner')"),
        ({"name": "a", "type": "status_code", "status_code": {"status_codes": []}}, "status_codes", "at least 1 item"),
        ({"name": "a", "type": "status_code", "status_code": {"status_codes": ["error"]}}, "status_codes", "'ERROR'"),
        ({"name": "a", "type": "latency", "latency": {"threshold_ms": -1}}, "threshold_ms", "greater than or equal"),
        (
            {"name": "a", "type": "latency", "latency": {"threshold_ms": 10, "upper_threshold_ms": 10}},
            "upper_threshold_ms",
            "must be greater than threshold_ms (10)",
        ),
        (
            {"name": "a", "type": "probabilistic", "probabilistic": {"sampling_percentage": float("nan")}},
            "sampling_percentage",
            "finite",
        ),
        (
            {"name": "a", "type": "string_attribute", "string_attribute": {"key": "", "values": ["v"]}},
            "key",
            "at least 1 character",
        ),
        (
            {"name": "a", "type": "string_attribute", "string_attribute": {"key": "k", "values": [""]}},
            "values",
            "at least one must be non-empty",
        ),
        (
            {"name": "a", "type": "log_severity", "log_severity": {"min_severity": "LOUD"}},
            "min_severity",
            "'FATAL'",
        ),
        ({"name": "a", "type": "always_sample", "sampled": True}, "sampled", "not permitted"),
        (
            {"name": "a", "type": "ottl_condition", "ottl_condition": {}},
            "span",
            "at least one condition is required",
        ),
        (
            {"name": "a", "type": "ottl_condition", "ottl_condition": {"spanevent": ["kind == SPAN_KIND_SERVER"]}},
            "spanevent.0: 'kind == SPAN_KIND_SERVER', column 1",
            "kind is not known here; a condition about events compares",
        ),
        (
            {"name": "a", "type": "ottl_condition", "ottl_condition": {"span": ["Len(name) > 3"]}},
            "span.0: 'Len(name) > 3', column 1",
            'Len is not known here; a condition compares (==, !=, <, <=, >, >=) attributes["key"],',
        ),
        (composite(policy_order=["x", "z"]), "policy_order", "'z' is none of the sub-policies (x, y)"),
        (composite(policy_order=["x", "x"]), "policy_order", "'x' must be there once"),
        (composite(rate_allocation=[{"policy": "z"}]), "rate_allocation", "'z' is none of the sub-policies (x, y)"),
        (composite(rate_allocation=[{"policy": "x", "percent": 101}]), "percent", "less than or equal to 100"),
        (composite(max_total_spans_per_second=0), "max_total_spans_per_second", "greater than or equal to 1"),
        (
            composite(composite_sub_policy=[{"name": "x", "type": "always_sample"}] * 2),
            "composite_sub_policy.1.name",
            "'x' is that of composite_sub_policy[0] already; names must be unique",
        ),
        (
            composite(composite_sub_policy=[ALWAYS_NOT]),
            "composite_sub_policy",
            "not must not stand here ('b')",
        ),
        (
            {"name": "a", "type": "drop", "drop": {"drop_sub_policy": [{"name": "b", "type": "not", "not": {}}]}},
            "not_sub_policy",
            "Field required",
        ),
        (
            {"name": "a", "type": "not", "not": {"not_sub_policy": nested("and")}},
            "and_sub_policy",
            "and must not stand here ('inner'); every type but and, composite, drop may",
        ),
        (
            {"name": "a", "type": "not", "not": {"not_sub_policy": ALWAYS_NOT}},
            "not_sub_policy",
            "not must not stand here ('b'); every type but and, not, composite, drop may",
        ),
        (
            {"name": "a", "type": "bytes_limiting", "bytes_limiting": {"bytes_per_second": 0}},
            "bytes_per_second",
            "greater than or equal to 1",
        ),
        ({"name": "a", "type": "trace_flags", "trace_flags": {}}, "trace_flags", "not permitted"),
        ({"name": "a", "type": "drop", "drop": {"drop_sub_policy": []}}, "drop_sub_policy", "at least 1 item"),
        (
            {"name": "a", "type": "string_attribute", "string_attribute": regex("(a")},
            "values",
            "'(a' is not a regular expression of RE2: missing ): (a",
        ),
        (
            {"name": "a", "type": "string_attribute", "string_attribute": regex("(?<=a)b")},
            "values",
            "invalid perl operator",
        ),
        (
            {"name": "a", "type": "numeric_attribute", "numeric_attribute": {"key": "k"}},
            "min_value",
            "one of min_value and max_value is required",
        ),
        (
            {
                "name": "a",
                "type": "numeric_attribute",
                "numeric_attribute": {"key": "k", "min_value": 5, "max_value": 0},
            },
            "min_value",
            "leave out max_value for no upper bound",
        ),
        (
            {"name": "a", "type": "numeric_attribute", "numeric_attribute": {"key": "k", "min_value": float("inf")}},
            "min_value",
            "finite",
        ),
        *(
            ({"name": "a", "type": kind, kind: own | {"field_list": ["name"], key: value}}, key, "finite")
            for kind, own in (("dynamic", {}), ("throughput", {"goal_spans_per_second": 1}))
            for key in ("age_out_value", "burst_multiple")
            for value in (float("inf"), float("nan"))
        ),
        (
            {"name": "a", "type": "trace_state", "trace_state": {"key": "Vendor", "values": ["a"]}},
            "key",
            "cannot be a key of a W3C tracestate",
        ),
        (
            {"name": "a", "type": "trace_state", "trace_state": {"key": "k", "values": ["a,b"]}},
            "values",
            "cannot be a value of a W3C tracestate",
        ),
        ({"name": "a", "type": "trace_state", "trace_state": {"key": "k", "values": [""]}}, "values", "non-empty"),
        (
            {"name": "a", "type": "span_count", "span_count": {"min_spans": 3, "max_spans": 2}},
            "max_spans",
            "must not be less than min_spans (3)",
        ),
        (
            {"name": "a", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 0}},
            "spans_per_second",
            "greater than or equal to 1",
        ),
    ],
)
def test_a_refused_policy_quotes_key_and_rule(block: dict[str, Any], quoted: str, rule: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Policy.model_validate(block)
    text = str(refused.value)
    assert quoted in text
    assert rule in text


def test_names_are_unique() -> None:
    with pytest.raises(ValidationError, match=r"1.name: 'a' is that of policies\[0\] already"):
        TypeAdapter(Policies).validate_python([{"name": "a", "type": "always_sample"}] * 2)


def test_something_must_be_kept() -> None:
    drops = {"name": "a", "type": "drop", "drop": {"drop_sub_policy": [{"name": "b", "type": "always_sample"}]}}
    with pytest.raises(ValidationError, match="no trace is ever kept"):
        TypeAdapter(Policies).validate_python([drops])
    assert TypeAdapter(Policies).validate_python([drops, {"name": "c", "type": "always_sample"}])


@pytest.mark.parametrize(
    ("given", "remembered"), [({}, 128), ({"cache_max_size": -1}, 128), ({"cache_max_size": 7}, 7)]
)
def test_the_size_of_the_cache(given: dict[str, int], remembered: int) -> None:
    assert blocks.StringAttribute.model_validate({**regex("a"), **given}).remembered == remembered


@pytest.mark.parametrize(("given", "burst"), [({}, 70), ({"burst_capacity": 0}, 70), ({"burst_capacity": 1}, 1)])
def test_the_burst(given: dict[str, int], burst: int) -> None:
    assert blocks.RateLimiting.model_validate({"spans_per_second": 35, **given}).burst == burst
    assert blocks.BytesLimiting.model_validate({"bytes_per_second": 35, **given}).burst == burst


def test_an_empty_list_of_policies_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        TypeAdapter(Policies).validate_python([])


def test_the_example_of_the_reference_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "policies.md").read_text()
    example = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    names = [p.name for p in TypeAdapter(Policies).validate_python(example["sampling"]["policies"])]
    assert names == ["errors", "error-logs", "slow", "server-errors", "health-checks", "checkout-at-half", "the-rest"]


def test_the_reference_describes_every_type_and_field() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "policies.md").read_text()
    sections = [b for b in vars(blocks).values() if isinstance(b, type) and issubclass(b, Section) and b is not Section]
    every: list[type[Section]] = [*sections, And, Composite, Drop, Not]
    words = [*get_args(PolicyType), *(name for block in every for name in block.model_fields)]
    assert [word for word in words if f"`{word}`" not in page] == []
