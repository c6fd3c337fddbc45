"""What keys are made of: values of spans, the same in any order, and bounded."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.sampling.compile import Plan, compile_policies
from processors.sampling.decide import decide
from processors.sampling.evidence import Evidence
from processors.sampling.features import MOST_VALUES, FeatureSets, feature
from processors.sampling.keyed import SHAPE
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.span_bits import NO_RANDOMNESS
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from schemas.ids import trace_key
from schemas.otlp_scan import AttributeValue
from tests.processors.sampling.builders import NOON, TRACE_ID, both, policy, slots, span
from tests.schemas.rows import SpanScan, columns_of

RARE = policy("rare", "rare", traces=1)
ERROR = 2
GOLDEN = 0x9E3779B97F4A7C15


def rare(*fields: str) -> Plan:
    return compile_policies([policy("rare", "rare", field_list=list(fields))])


def gather(plan: Plan, *spans: SpanScan, resource: dict[str, AttributeValue] | None = None) -> Evidence:
    """Evidence of spans of one resource; their attributes are those of the plan's slots."""
    assert plan.features is not None
    table, labels, rows = TraceTable(1_000, None, plan.words, keyed=True), SpanLabels([]), len(spans)
    missing = [None] * len(plan.keys)
    scans = [one._replace(attributes=[*one.attributes, *missing][: len(missing)]) for one in spans]
    columns, of = columns_of(scans, plan.keys), array("I", bytes(4 * rows))
    labels.assign(columns, of, [("", ())])
    plan.span_bits.assign(columns, of, [0])
    plan.features.assign(columns, of, [plan.features.of_resource(slots(plan, resource or {}))])
    keys, times = array("Q", [trace_key(TRACE_ID)] * rows), array("q", bytes(8 * rows))
    table.fold_spans(columns, keys, times, array("B", bytes(rows)), 0, plan.span_bits, labels, plan.features)
    assert table.list_due(1_000) == 1
    return table.evidence(0)


def key(plan: Plan, *spans: SpanScan, **resource: AttributeValue) -> int:
    """The key over all fields of a plan."""
    sets, theirs = FeatureSets(), {name.replace("_", "."): value for name, value in resource.items()}
    sets.put(0, gather(plan, *spans, resource=theirs).features)
    return sets.key(0, (1 << 64) - 1)


def named(name: str, status: int = 0, child: bool = True) -> SpanScan:
    return span(name=name.encode(), status=status, parent=b"\x02" * 8 if child else b"")


def test_a_key_is_that_of_the_set_of_values() -> None:
    plan = rare("name")
    first = key(plan, named("a"), named("b"))
    assert first == key(plan, named("b"), named("a"), named("b"))
    assert first != key(plan, named("a"))
    assert first != key(plan, named("a"), named("c"))


def test_an_attribute_is_the_spans_else_its_resources() -> None:
    plan = rare("service.name")
    mine, none = span()._replace(attributes=["mine"]), span()
    assert key(plan, mine) == key(plan, mine, service_name="theirs") == key(plan, none, service_name="mine")
    assert key(plan, none, service_name="theirs") != key(plan, mine)
    assert key(plan, none) == key(rare("other"), none) == 1  # no value at all: all such traces have one key


@pytest.mark.parametrize(("one", "other"), [("503", 503), (503.0, 503), ("true", True)])
def test_values_are_compared_as_text(one: AttributeValue, other: AttributeValue) -> None:
    plan = rare("k")
    assert key(plan, span()._replace(attributes=[one])) == key(plan, span()._replace(attributes=[other]))


def test_root_is_the_span_without_a_parent() -> None:
    plan = rare("root.name")
    assert key(plan, named("a", child=False), named("b")) == key(plan, named("a", child=False), named("c"))
    assert key(plan, named("a", child=False)) != key(plan, named("b", child=False))


def test_errors_are_who_failed_and_how() -> None:
    plan = rare("errors")
    fine = key(plan, named("a"), named("b"))
    failed = key(plan, named("a", ERROR), named("b"))
    assert fine == key(plan, named("c"))
    assert len({fine, failed, key(plan, named("a"), named("b", ERROR))}) == 3
    kinds = [named("a", ERROR)._replace(attributes=[None, text]) for text in ("timeout", "refused")]
    assert key(plan, kinds[0]) != key(plan, kinds[1])


def test_status_is_that_of_every_span() -> None:
    plan = rare("status")
    assert key(plan, named("a"), named("b", ERROR)) == key(plan, named("c", ERROR), named("d"))
    assert key(plan, named("a")) != key(plan, named("a", ERROR))


def test_the_same_words_under_another_field_are_another_key() -> None:
    assert key(rare("root.name"), named("a", child=False)) != key(rare("name"), named("a", child=False))


def test_a_key_does_not_depend_on_other_policies() -> None:
    """Their fields take other numbers; what a checkpoint knows of a key goes on."""
    alone, second = compile_policies([RARE]), compile_policies([policy("d", "dynamic", field_list=["k", "path"]), RARE])
    sets = FeatureSets(), FeatureSets()
    for plan, mine in zip((alone, second), sets, strict=True):
        mine.put(0, gather(plan, named("a", child=False), named("b", ERROR), resource={"service.name": "s"}).features)
    assert second.features is not None
    assert second.features.features[1] == feature("path")
    assert sets[0].key(0, 0b1111) == sets[1].key(0, 0b11110)


@settings(max_examples=20)
@given(st.permutations(range(3 * MOST_VALUES)), st.integers(0, 3 * MOST_VALUES))
def test_of_many_values_the_same_are_remembered_in_any_order(order: list[int], cut: int) -> None:
    whole, first, second = FeatureSets(), FeatureSets(), FeatureSets()
    hashes = [(n * GOLDEN % 2**64) & ~63 for n in order]
    whole.put(0, sorted(hashes))
    first.put(0, hashes[:cut])
    first.put(1, hashes[cut:])
    first.merge(0, 1)
    second.put(0, hashes)
    assert whole.of(0) == first.of(0) == second.of(0)
    assert len(whole.of(0)) == MOST_VALUES
    first.free(0)
    assert first.of(0) == ()


def test_the_first_traces_of_a_shape_are_kept() -> None:
    plan = compile_policies([policy("rare", "rare", traces=2, interval="1h")])
    limits = Limits([], 1, plan.samplers)
    common, other = gather(plan, named("a", child=False)), gather(plan, named("a", child=False), named("b", ERROR))
    told = [decide(plan, each, limits.at(NOON // 1_000_000)).kept for each in (common, common, common, other, common)]
    assert told == [True, True, False, True, False]
    assert decide(plan, common, limits.at(NOON // 1_000_000 + 3_600_000)).kept
    assert tuple(SHAPE) == ("root.service.name", "root.name", "errors", "path")


def test_a_trace_that_is_not_kept_after_all_does_not_count() -> None:
    """Its shape's turn is not over when a composite's rate has no room for it, or another part of an `and` says no."""
    name = {"name": "rare", "type": "rare", "rare": {"field_list": ["name"]}}
    plan = compile_policies([policy("c", "composite", max_total_spans_per_second=1, composite_sub_policy=[name])])
    limits = Limits(plan.rates, 1, plan.samplers)
    came = (("a", 0), ("b", 0), ("b", 1_000), ("b", 2_000))  # there is room for one a second
    told = [decide(plan, gather(plan, named(letter)), limits.at(time)).kept for letter, time in came]
    assert told == [True, False, True, False]
    errors = policy("errors", "status_code", status_codes=["ERROR"])
    plan = compile_policies([both("b", policy("rare", "rare", field_list=["name"]), errors)])
    limits = Limits(plan.rates, 1, plan.samplers)
    told = [decide(plan, gather(plan, named("a", status)), limits.at(0)).kept for status in (0, ERROR, ERROR)]
    assert told == [False, True, False]


def test_what_a_checkpoint_knows_goes_on() -> None:
    plan = compile_policies([both("b", RARE, policy("d", "dynamic", field_list=["name"]))])
    first, second, other = (Limits([], 1, plan.samplers) for _ in range(3))
    seen = gather(plan, named("a", child=False))
    assert decide(plan, seen, first.at(1_000)).policy in ("b", "")
    second.restore_keys(first.keys())
    assert second.keys() == first.keys()
    other.restore_keys({"b": [first.keys()["b"][0]], "gone": [[]]})
    assert other.keys() == {}


def test_shapes_beyond_the_bound_are_counted_and_not_kept() -> None:
    plan = compile_policies([policy("rare", "rare", max_shapes=3, field_list=["name"])])
    limits = Limits([], 1, plan.samplers)
    told = [decide(plan, gather(plan, named(str(n))), limits.at(1_000)).kept for n in range(5)]
    assert told == [True, True, True, False, False]
    assert limits.shared() == {"rare": 2}
    assert limits.shared() == {}


def test_a_rate_by_key_is_a_threshold_for_the_traces_randomness() -> None:
    plan = compile_policies([policy("half", "dynamic", field_list=["name"], goal_sample_rate=2)])
    seen = gather(plan, named("a"))
    low, high = (replace(seen, randomness=number) for number in ((1 << 55) - 1, 1 << 55))
    assert not decide(plan, low, Limits([], 1, plan.samplers)).kept
    assert decide(plan, high, Limits([], 1, plan.samplers)).threshold == 1 << 55
    assert seen.randomness in (None, NO_RANDOMNESS)


def test_a_trace_of_logs_alone_has_no_key() -> None:
    plan = compile_policies([RARE])
    assert not decide(plan, Evidence(TRACE_ID, logs=3), Limits([], 1, plan.samplers)).kept


def test_too_many_fields_are_refused() -> None:
    policies = [policy(str(n), "rare", field_list=[f"{n}.{field}" for field in range(16)]) for n in range(5)]
    with pytest.raises(ValueError, match="more than 64 different fields"):
        compile_policies(policies)
    assert isinstance(policies[0], Policy)
