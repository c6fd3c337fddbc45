"""Conditions about span events: what they mean, against an evaluator that walks condition, spans and events."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from processors.sampling.compile import Compat, compile_policies
from processors.sampling.conditions import AnyOf
from processors.sampling.ottl import alternatives
from schemas.otlp_scan import AttributeValue, SpanColumns
from tests.processors.sampling.builders import bits_of, policy, slots
from tests.processors.sampling.ottl_trees import MAYBE, TEXTS, Tree, text_of, trees, true_of
from tests.schemas.rows import attribute

Attributes = Mapping[str, AttributeValue | None]


def event(name: str = "", attributes: Attributes | None = None) -> Span.Event:
    found = [attribute(key, value) for key, value in (attributes or {}).items() if value is not None]
    return Span.Event(name=name, attributes=found)


def span(*events: Span.Event, attributes: Attributes | None = None, **fields: Any) -> Span:
    found = [attribute(key, value) for key, value in (attributes or {}).items() if value is not None]
    return Span(span_id=bytes(8), attributes=found, events=events, **fields)


def meeting(
    conditions: Sequence[str], spans: Sequence[Span], resource: Attributes | None = None, compat: Compat = "none"
) -> list[bool]:
    """Which spans have an event that meets one of the conditions, beside policies about much else."""
    others = [
        policy(f"other-{number}", "string_attribute", key="k", values=[f"never-{number}"]) for number in range(70)
    ]
    mine = policy("p", "ottl_condition", spanevent=list(conditions))
    plan = compile_policies([*others, mine], compat=compat, extra_keys=["k", "r"])
    body, ends = b"", array("I")
    for one in spans:
        body += one.SerializeToString()
        ends.append(len(body))
    columns = SpanColumns(plan.keys)
    columns.scan(body, ends)
    theirs = slots(plan, {key: value for key, value in (resource or {}).items() if value is not None})
    for _ in range(2):  # what is remembered of values answers as it did at first
        plan.span_bits.assign(columns, array("I", bytes(4 * len(spans))), [plan.resource_bits(theirs)])
    condition = plan.conditions[-1][1]
    assert isinstance(condition, AnyOf)
    assert plan.words > 1
    bits, words = plan.span_bits.bits, plan.words
    return [bool(bits_of(bits[at : at + words]) & condition.mask) for at in range(0, words * len(spans), words)]


@pytest.mark.parametrize("compat", ["none", "otel"])
@pytest.mark.parametrize(
    ("condition", "events", "others"),
    [
        ('name == "exception"', [event("exception")], [event("Exception"), event()]),
        ('spanevent.name != "exception"', [event("e"), event()], [event("exception")]),
        ('name == ""', [event()], [event("e")]),
        ('IsMatch(name, "^ex")', [event("exception")], [event("complex")]),
        ('attributes["k"] == "v"', [event("", {"k": "v"})], [event("", {"k": "w"}), event("v", {"l": "v"}), event()]),
        ('spanevent.attributes["k"] >= 500', [event("", {"k": 500}), event("", {"k": 5e2})], [event("", {"k": "500"})]),
        ('attributes["k"] == nil', [event("", {"l": 1})], [event("", {"k": ""}), event("", {"k": False})]),
        ('attributes["k"] != "v"', [event("", {"k": 1}), event()], [event("", {"k": "v"})]),
        ('IsMatch(attributes["exception.type"], "Timeout")', [event("", {"exception.type": "java.TimeoutException"})],
         [event("", {"exception.type": "IOException"}), event("Timeout")]),
        ('name == "e" and not (attributes["k"] == true or attributes["l"] > 1)', [event("e", {"k": 1, "l": 1})],
         [event("e", {"k": True}), event("e", {"l": 2}), event("f")]),
        ("true", [event()], []),
    ],
)  # fmt: skip
def test_conditions_about_an_event(
    condition: str, events: list[Span.Event], others: list[Span.Event], compat: Compat
) -> None:
    found = meeting([condition], [span(one) for one in (*events, *others)], compat=compat)
    assert found == [True] * len(events) + [False] * len(others)


def test_without_an_event_nothing_is_met() -> None:
    assert meeting(["true", 'name != "x"', 'attributes["k"] == nil'], [span(name="x"), span(event())]) == [False, True]


def test_one_event_must_meet_the_whole_condition() -> None:
    condition = 'name == "exception" and attributes["k"] == "v"'
    apart, together = [event("exception"), event("", {"k": "v"})], [event(), event("exception", {"k": "v"}), event()]
    assert meeting([condition], [span(*apart), span(*together), span(*apart)]) == [False, True, False]
    assert meeting(['name == "a"', 'name == "b"'], [span(event("b")), span(event("c"))]) == [True, False]


def test_a_condition_may_ask_the_span_and_the_resource_too() -> None:
    spans = [
        span(event("a"), name="b", kind=Span.SPAN_KIND_SERVER),
        span(event("b"), name="a", kind=Span.SPAN_KIND_SERVER),
        span(event("a"), name="a", attributes={"k": "v"}),
        span(event("a", {"k": "v"}), name="a"),
    ]
    assert meeting(['span.name == "a"'], spans) == [False, True, True, True]
    assert meeting(['name == "a" and span.kind == SPAN_KIND_SERVER'], spans) == [True, False, False, False]
    assert meeting(['span.attributes["k"] == "v" and attributes["k"] == nil'], spans) == [False, False, True, False]
    assert meeting(['resource.attributes["r"] == 1 and name == "a"'], spans, {"r": 1}) == [True, False, True, True]
    lasting = [span(event(), end_time_unix_nano=end) for end in (4, 5)]
    assert meeting(["span.end_time_unix_nano - span.start_time_unix_nano >= 5"], lasting) == [False, True]


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        ("kind == 2", "kind is not known here; a condition about events compares"),
        ("IsRootSpan()", "IsRootSpan is not known here"),
        ("dropped_attributes_count > 0", "dropped_attributes_count is not known here"),
        ("spanevent.time_unix_nano > 0", "spanevent.time_unix_nano is not known here"),
        ('span.end_time - start_time > Duration("1s")', "start_time expected"),
        ("name == 1", "it is compared with a string"),
        ('span.resource.attributes["r"] == 1', "span.resource.attributes is not known here"),
    ],
)
def test_what_is_not_known_of_events_is_an_error(condition: str, rule: str) -> None:
    with pytest.raises(ValueError, match="column") as refused:
        alternatives(condition, "spanevent")
    assert rule in str(refused.value)


# ---- any condition ------------------------------------------------------------------------------------------

FIELDS = {
    "e": 'attributes["k"]',
    "k": 'span.attributes["k"]',
    "r": 'resource.attributes["r"]',
    "name": "name",
    "of": "span.name",
}
TREES = trees(["e", "k", "r"], ["e", "k"], ["name", "of"])
EVENTS = st.lists(st.tuples(TEXTS, MAYBE), max_size=3)


@given(
    st.lists(TREES, min_size=1, max_size=2), st.lists(st.tuples(TEXTS, MAYBE, EVENTS), min_size=1, max_size=4), MAYBE
)
def test_any_condition_is_met_by_the_events_of_which_it_says_so(
    conditions: list[Tree],
    rows: list[tuple[str, AttributeValue | None, list[tuple[str, AttributeValue | None]]]],
    r: AttributeValue | None,
) -> None:
    spans = [span(*(event(n, {"k": e}) for n, e in events), name=of, attributes={"k": k}) for of, k, events in rows]
    expected = [
        any(true_of(tree, {"e": e, "name": n, "k": k, "of": of, "r": r}) for n, e in events for tree in conditions)
        for of, k, events in rows
    ]
    assert meeting([text_of(tree, FIELDS) for tree in conditions], spans, {"r": r}) == expected
