"""The decision: semantics of every policy, and that the order of spans never matters."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.compile import Compat, Plan, compile_policies
from processors.sampling.conditions import Hashed
from processors.sampling.decide import Vote, decide
from processors.sampling.evidence import Evidence
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.probability import NEVER, salted, threshold_of
from schemas.otlp_scan import AttributeValue
from tests.processors.sampling.builders import MS, NOON, Table, both, drop, gather, opposite, policy, span, spans
from tests.schemas.rows import SpanScan, encoded

ERRORS = policy("errors", "status_code", status_codes=["ERROR"])
SLOW = policy("slow", "latency", threshold_ms=100)
SHOP = policy("shop", "string_attribute", key="service.name", values=["shop"])
LOGS = policy("error-logs", "log_severity", min_severity="ERROR")
HALF = policy("half", "probabilistic", sampling_percentage=50)
ALL = policy("all", "always_sample")
DROP = Vote(False, "", 0)


def with_randomness(randomness: int) -> SpanScan:
    return span(state=b"ot=rv:%014x" % randomness)


# ---- votes ---------------------------------------------------------------------------------------------------


def test_no_vote_drops() -> None:
    plan = compile_policies([ERRORS, SLOW, SHOP, LOGS])
    assert decide(plan, gather(plan, span())) == DROP


def test_one_error_span_keeps_the_trace() -> None:
    plan = compile_policies([ERRORS])
    assert decide(plan, gather(plan, span(), span(status=2), span())) == Vote(True, "errors", 0)


def test_an_error_log_keeps_the_trace() -> None:
    plan = compile_policies([ERRORS, LOGS])
    assert decide(plan, gather(plan, span(), severities=(9, 17))) == Vote(True, "error-logs", 0)
    assert decide(plan, gather(plan, span(), severities=(9, 13))) == DROP


def test_the_first_keeping_policy_is_named() -> None:
    plan = compile_policies([SLOW, ERRORS, ALL])
    slow = span(NOON, NOON + 200 * MS)
    assert decide(plan, gather(plan, span(status=2))).policy == "errors"
    assert decide(plan, gather(plan, span(status=2), slow)).policy == "slow"
    assert decide(plan, gather(plan, span())).policy == "all"


def test_the_threshold_is_the_lowest_of_the_keeping_policies() -> None:
    tenth = policy("tenth", "probabilistic", sampling_percentage=10)
    plan = compile_policies([tenth, HALF, ERRORS])
    assert decide(plan, gather(plan, with_randomness(NEVER - 1))) == Vote(True, "tenth", threshold_of(50))
    assert decide(plan, gather(plan, with_randomness(NEVER // 2))) == Vote(True, "half", threshold_of(50))
    assert decide(plan, gather(plan, with_randomness(NEVER - 1), span(status=2))) == Vote(True, "tenth", 0)
    assert decide(plan, gather(plan, with_randomness(NEVER // 2 - 1))) == DROP


# ---- latency -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compat", "bounds", "duration_ns", "kept"),
    [
        ("none", (100, 0), 100 * MS, False),
        ("none", (100, 0), 100 * MS + 1, True),
        ("none", (100, 200), 200 * MS, True),
        ("none", (100, 200), 200 * MS + 1, False),
        ("none", (0, 0), 0, False),
        ("none", (0, 0), 1, True),
        ("none", (0, 0), -MS, False),
        ("otel", (100, 0), 100 * MS - 1, False),  # whole milliseconds: 99
        ("otel", (100, 0), 100 * MS, True),  # at least
        ("otel", (100, 200), 101 * MS - 1, False),  # 100 is not above 100
        ("otel", (100, 200), 101 * MS, True),
        ("otel", (100, 200), 201 * MS - 1, True),  # 200
        ("otel", (100, 200), 201 * MS, False),
        ("otel", (0, 0), 0, True),
        ("otel", (0, 0), -1, True),  # cut towards zero
        ("otel", (0, 0), -MS, False),
    ],
)
def test_latency_bounds(compat: Compat, bounds: tuple[int, int], duration_ns: int, kept: bool) -> None:
    lower, upper = bounds
    plan = compile_policies([policy("p", "latency", threshold_ms=lower, upper_threshold_ms=upper)], compat=compat)
    assert decide(plan, gather(plan, span(NOON, NOON + duration_ns))).kept is kept


@pytest.mark.parametrize(
    ("start", "end", "milliseconds"),
    [
        ((1 << 63) + 5, (1 << 63) + 5 + 3 * MS, 3),
        (NOON, (1 << 64) - 1, None),  # -1: before it began
        ((1 << 64) - 2, 3 * MS, 3),
        ((1 << 64) - 2 * MS, MS - 1, 2),
        ((1 << 63) - MS, (1 << 63), None),  # 292 years back
        ((1 << 63), (1 << 63) - MS, ((1 << 63) - 1) // MS),  # saturated
        ((1 << 63), 1, ((1 << 63) - 1) // MS),
    ],
)
def test_times_beyond_63_bits_as_the_collector_subtracts_them(start: int, end: int, milliseconds: int | None) -> None:
    """pcommon.Timestamp.AsTime makes negative numbers of them."""
    for threshold in {0, milliseconds or 0, (milliseconds or 0) + 1}:
        plan = compile_policies([policy("p", "latency", threshold_ms=threshold)], compat="otel")
        kept = milliseconds is not None and milliseconds >= threshold
        assert decide(plan, gather(plan, span(start, end))).kept is kept


def test_latency_is_that_of_the_trace_not_of_a_span() -> None:
    plan = compile_policies([SLOW])
    first, second = span(NOON, NOON + 60 * MS), span(NOON + 50 * MS, NOON + 110 * MS)
    assert decide(plan, gather(plan, first)) == DROP
    assert decide(plan, gather(plan, first, second)).kept


@pytest.mark.parametrize("compat", ["none", "otel"])
def test_an_upper_bound_judges_the_whole_trace(compat: Compat) -> None:
    """The Collector stops at the first span that makes a partial duration fit (issue 43948): no order here does."""
    plan = compile_policies([policy("p", "latency", threshold_ms=100, upper_threshold_ms=200)], compat=compat)
    inside, beyond = span(NOON, NOON + 150 * MS), span(NOON, NOON + 900 * MS)
    assert decide(plan, gather(plan, inside)).kept
    assert decide(plan, gather(plan, inside, beyond)) == decide(plan, gather(plan, beyond, inside)) == DROP


# ---- attributes ----------------------------------------------------------------------------------------------


def test_string_attribute_on_span_or_resource() -> None:
    plan = compile_policies([SHOP])
    assert decide(plan, gather(plan, span(), attributes={"service.name": "shop"})).kept
    assert decide(plan, gather(plan, span(), resource={"service.name": "shop"})).kept
    assert not decide(plan, gather(plan, span(), resource={"service.name": "shops"})).kept


def test_an_inverted_match_needs_that_nothing_matches() -> None:
    plan = compile_policies([policy("p", "string_attribute", key="service.name", values=["shop"], invert_match=True)])
    assert decide(plan, gather(plan, span(), resource={"service.name": "cart"})).kept
    assert decide(plan, gather(plan, span())).kept  # no such attribute
    assert not decide(plan, gather(plan, span(), resource={"service.name": "shop"})).kept
    mixed = Table(plan.words, plan)
    for service in ("cart", "shop"):
        mixed.add_spans([span(attributes=[None])], resource_bits=plan.resource_bits([service]))
    assert not decide(plan, mixed.evidence()).kept


# ---- and -----------------------------------------------------------------------------------------------------


def test_and_needs_every_part_but_not_on_one_span() -> None:
    plan = compile_policies([both("p", ERRORS, SHOP, SLOW)])
    row: list[AttributeValue | None] = [None]
    parts = [
        (span(status=2, attributes=row), None),
        (span(attributes=row), "shop"),
        (span(NOON, NOON + 101 * MS, attributes=row), None),
    ]
    for number in range(4):
        table = Table(plan.words, plan)
        for one, service in parts[:number]:
            table.add_spans([one], resource_bits=plan.resource_bits([service]))
        assert decide(plan, table.evidence()) == (Vote(True, "p", 0) if number == 3 else DROP)


def test_and_of_logs_and_spans() -> None:
    plan = compile_policies([both("p", LOGS, SHOP)])
    assert not decide(plan, gather(plan, severities=(17,))).kept
    assert decide(plan, gather(plan, span(), resource={"service.name": "shop"}, severities=(17,))).kept


def test_and_has_the_highest_threshold_of_its_parts() -> None:
    quarter = policy("quarter", "probabilistic", sampling_percentage=25)
    for parts in ([ERRORS, HALF, quarter], [quarter, HALF, ERRORS]):
        plan = compile_policies([both("p", *parts)])
        assert decide(plan, gather(plan, with_randomness(NEVER - 1), span(status=2))).threshold == threshold_of(25)


# ---- not -----------------------------------------------------------------------------------------------------


def test_not_keeps_what_its_policy_does_not() -> None:
    plan = compile_policies([opposite("fine", ERRORS)])
    assert decide(plan, gather(plan, span(), span(status=1))) == Vote(True, "fine", 0)
    assert decide(plan, gather(plan, span(), span(status=2))) == DROP


def test_not_within_and_and_drop() -> None:
    plan = compile_policies(
        [both("slow-but-fine", SLOW, opposite("fine", ERRORS)), drop("d", opposite("x", SHOP)), ALL]
    )
    slow, shop = span(NOON, NOON + 200 * MS), {"service.name": "shop"}
    assert decide(plan, gather(plan, slow, resource=shop)).policy == "slow-but-fine"
    assert decide(plan, gather(plan, slow, span(status=2), resource=shop)).policy == "all"
    assert decide(plan, gather(plan, slow)) == Vote(False, "d", 0)


def test_a_share_that_is_inverted_is_certain_and_the_rest_of_it() -> None:
    """The kept side of `not` has no threshold that could say its share."""
    plan = compile_policies([opposite("p", HALF)])
    assert decide(plan, gather(plan, with_randomness(NEVER // 2))) == DROP
    assert decide(plan, gather(plan, with_randomness(NEVER // 2 - 1))) == Vote(True, "p", 0)


def test_a_rate_that_is_inverted_keeps_what_is_beyond_it() -> None:
    plan = compile_policies([opposite("beyond", policy("rate", "rate_limiting", spans_per_second=1, burst_capacity=2))])
    limits = Limits(plan.rates, 1).at(0)
    pair = gather(plan, span(), span())
    assert [decide(plan, pair, limits).kept for _ in range(3)] == [False, True, True]


# ---- flags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "kept"), [(0, False), (1, True), (2, False), (3, True), (0x300, False), (0x301, True)]
)
def test_the_sampled_flag_of_any_span(flags: int, kept: bool) -> None:
    plan = compile_policies([policy("p", "trace_flags")])
    assert decide(plan, gather(plan, span(), span(flags=flags), span())).kept is kept


# ---- span count, drop, rates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [((0, 0), {1, 2, 3, 4}), ((2, 0), {2, 3, 4}), ((2, 3), {2, 3}), ((0, 1), {1}), ((3, 3), {3})],
)
def test_span_count(bounds: tuple[int, int], counts: set[int]) -> None:
    plan = compile_policies([policy("p", "span_count", min_spans=bounds[0], max_spans=bounds[1])])
    kept = {count for count in range(5) if decide(plan, gather(plan, *[span()] * count, severities=(17,))).kept}
    assert kept == counts


@pytest.mark.parametrize("first", [True, False])
def test_a_drop_beats_everything_wherever_it_stands(first: bool) -> None:
    health = policy("health", "string_attribute", key="url.path", values=["/healthz"])
    drops = drop("no-health", health, policy("fast", "latency", threshold_ms=0))
    plan = compile_policies([drops, ALL, LOGS] if first else [ALL, LOGS, drops])
    path = {"url.path": "/healthz"}
    assert decide(plan, gather(plan, span(), attributes=path, severities=(17,))) == Vote(False, "no-health", 0)
    assert decide(plan, gather(plan, span(NOON, NOON), attributes=path)) == Vote(True, "all", 0)
    assert decide(plan, gather(plan, span(), attributes={"url.path": "/"})) == Vote(True, "all", 0)


def test_a_rate_keeps_traces_while_it_lasts() -> None:
    plan = compile_policies([ERRORS, policy("some", "rate_limiting", spans_per_second=1, burst_capacity=3)])
    limits = Limits(plan.rates, 1)
    pair = gather(plan, span(), span())
    assert decide(plan, pair, limits.at(0)) == Vote(True, "some", 0)
    assert decide(plan, pair, limits.at(999)) == DROP
    assert decide(plan, gather(plan, span(status=2)), limits.at(999)).policy == "errors"  # it spends all the same
    assert decide(plan, pair, limits.at(1_999)) == DROP
    assert decide(plan, pair, limits.at(2_000)).kept
    assert not decide(plan, gather(plan, *[span()] * 4), limits.at(60_000)).kept
    assert not decide(plan, gather(plan, severities=(17,)), limits).kept  # nothing but logs


def test_a_rate_is_spent_by_those_who_reach_it_alone() -> None:
    rate = policy("rate", "rate_limiting", spans_per_second=1, burst_capacity=1)
    plan = compile_policies([both("errors-within", ERRORS, rate), drop("no-shop", SHOP)])
    limits = Limits(plan.rates, 1).at(0)
    failed = gather(plan, span(status=2))
    assert not decide(plan, gather(plan, span()), limits).kept
    assert decide(plan, gather(plan, span(status=2), resource={"service.name": "shop"}), limits).policy == "no-shop"
    assert decide(plan, failed, limits).kept
    assert not decide(plan, failed, limits).kept


def test_a_rate_of_bytes_counts_the_spans_as_they_came() -> None:
    plan = compile_policies(
        [policy("p", "bytes_limiting", bytes_per_second=1, burst_capacity=len(encoded(span())) * 2)]
    )
    limits = Limits(plan.rates, 1).at(0)
    assert not decide(plan, gather(plan, *[span()] * 3), limits).kept
    assert decide(plan, gather(plan, span(), span()), limits).kept  # exactly the burst
    assert not decide(plan, gather(plan, span()), limits).kept
    assert decide(plan, gather(plan, span()), limits.at(1_000 * len(encoded(span())))).kept
    exactly = policy("p", "bytes_limiting", bytes_per_second=1, burst_capacity=len(encoded(span())) * 2 - 1)
    plan = compile_policies([exactly])
    assert not decide(plan, gather(plan, span(), span()), Limits(plan.rates, 1)).kept


# ---- composite -----------------------------------------------------------------------------------------------


def composite(*parts: Policy, **more: Any) -> Policy:
    """Ten spans a second."""
    dumped = [part.model_dump(by_alias=True, exclude_none=True) for part in parts]
    return policy("c", "composite", max_total_spans_per_second=10, composite_sub_policy=dumped, **more)


def test_a_composite_keeps_what_a_part_keeps_and_has_room_for() -> None:
    plan = compile_policies([composite(ERRORS, SLOW)])
    limits = Limits(plan.rates, 1).at(0)
    failed = gather(plan, *[span(status=2)] * 4)
    assert decide(plan, gather(plan, span()), limits) == DROP
    assert [decide(plan, failed, limits).kept for _ in range(2)] == [True, False]  # 5, the other 5 are not its own
    assert decide(plan, gather(plan, span(NOON, NOON + 200 * MS)), limits) == Vote(True, "c", 0)  # its own share
    assert decide(plan, failed, limits.at(800)).kept
    assert not decide(plan, gather(plan, *[span(status=2)] * 11), limits.at(60_000)).kept


def test_a_part_of_a_composite_states_its_share() -> None:
    plan = compile_policies([composite(both("half-of-errors", ERRORS, HALF), SLOW)])
    kept = gather(plan, with_randomness(NEVER - 1), span(status=2))
    assert decide(plan, kept, Limits(plan.rates, 1)) == Vote(True, "c", threshold_of(50))


@pytest.mark.parametrize(("compat", "kept"), [("none", True), ("otel", False)])
def test_who_finds_its_share_spent_asks_the_next_part(compat: Compat, kept: bool) -> None:
    """The Collector's first part that samples decides, also when it has nothing left (contrib#36959)."""
    allocation = [{"policy": "errors", "percent": 10}, {"policy": "all", "percent": 90}]
    plan = compile_policies([composite(ERRORS, ALL, rate_allocation=allocation)], compat=compat)
    failed, limits = gather(plan, span(status=2), span()), Limits(plan.rates, 1).at(0)
    assert decide(plan, failed, limits).kept is kept
    assert decide(plan, gather(plan, span()), limits).kept


@pytest.mark.parametrize("compat", ["none", "otel"])
def test_the_order_of_a_composite(compat: Compat) -> None:
    """The Collector asks in the order of definition, whatever policy_order says (contrib#36955)."""
    half = both("half-of-errors", ERRORS, HALF)
    allocation = [{"policy": "errors", "percent": 50}, {"policy": "half-of-errors", "percent": 50}]
    block = composite(ERRORS, half, policy_order=["half-of-errors", "errors"], rate_allocation=allocation)
    plan = compile_policies([block], compat=compat)
    evidence = gather(plan, with_randomness(NEVER - 1), span(status=2))
    evidence.trace_id = b"\xff" * 16  # which the Collector's hash chooses too
    vote = decide(plan, evidence, Limits(plan.rates, 1))
    assert vote == Vote(True, "c", threshold_of(50) if compat == "none" else 0)


def test_a_composite_needs_spans() -> None:
    plan = compile_policies([composite(ALL)])
    assert decide(plan, gather(plan, severities=(24,)), Limits(plan.rates, 1)) == DROP


# ---- traces without spans ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compat", ["none", "otel"])
def test_a_trace_known_by_logs_alone_meets_no_policy_about_spans(compat: Compat) -> None:
    inverted = policy("inverted", "string_attribute", key="k", values=["v"], invert_match=True)
    unset = policy("unset", "status_code", status_codes=["UNSET", "OK", "ERROR"])
    every = policy("every", "latency", threshold_ms=0)
    number = policy("number", "numeric_attribute", key="k", min_value=1, invert_match=True)
    boolean = policy("boolean", "boolean_attribute", key="k", value=True, invert_match=True)
    few = policy("few", "span_count", max_spans=9)
    rate = policy("rate", "rate_limiting", spans_per_second=9)
    size = policy("size", "bytes_limiting", bytes_per_second=9)
    flags, other = policy("flags", "trace_flags"), opposite("other", ERRORS)
    plan = compile_policies([inverted, unset, every, number, boolean, few, rate, size, flags, other], compat=compat)
    assert decide(plan, gather(plan, severities=(24,)), Limits(plan.rates, 1)) == DROP
    plan = compile_policies([ALL], compat=compat)
    assert decide(plan, gather(plan, severities=(1,))).kept


# ---- probability ---------------------------------------------------------------------------------------------


def test_a_plan_keeps_the_share_and_a_greater_one_keeps_them_too() -> None:
    source = random.Random(7)
    plans = [compile_policies([policy("p", "probabilistic", sampling_percentage=p)]) for p in (1, 10, 33.3, 90, 100)]
    for _ in range(5_000):
        evidence = Evidence(source.randbytes(16))
        kept = [decide(plan, evidence).kept for plan in plans]
        assert kept == sorted(kept)
        assert kept[-1]


@pytest.mark.parametrize("compat", ["none", "otel"])
@pytest.mark.parametrize(("percentage", "kept"), [(0, 0), (-50, 0), (100, 500), (150, 500)])
def test_no_share_and_the_whole_share_are_exact(compat: Compat, percentage: float, kept: int) -> None:
    source = random.Random(7)
    plan = compile_policies([policy("p", "probabilistic", sampling_percentage=percentage)], compat=compat)
    votes = [decide(plan, Evidence(source.randbytes(16))) for _ in range(500)]
    assert sum(vote.kept for vote in votes) == kept
    assert {vote.threshold for vote in votes} == {0}


def test_compat_chooses_by_the_collectors_hash_and_states_the_share() -> None:
    """Hashes of test_probability's vectors: 0xa545… of 2^64 is 64.6 %, 0x17be… is 9.3 %."""
    plan = compile_policies([HALF], compat="otel")
    assert decide(plan, Evidence(bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"))) == DROP
    assert decide(plan, Evidence(b"\xff" * 16)) == Vote(True, "half", threshold_of(50))
    digest = 0x17BEC3739634FE2D
    for limit, kept in ((digest, True), (digest - 1, False)):  # a hash equal to the limit is kept
        exact = replace(plan, conditions=(("half", Hashed(salted(""), limit, 0)),))
        assert decide(exact, Evidence(b"\xff" * 16)).kept is kept
    ignored = gather(plan, with_randomness(NEVER - 1))
    assert not decide(plan, ignored).kept


# ---- order ---------------------------------------------------------------------------------------------------

EVERY_KIND = [
    ERRORS,
    policy("window", "latency", threshold_ms=100, upper_threshold_ms=3_000),
    SHOP,
    both("and", LOGS, policy("ok", "status_code", status_codes=["OK"]), HALF),
    policy("not-a", "string_attribute", key="k", values=["a"], invert_match=True),
    policy("not-b", "string_attribute", key="k", values=["^[b-x]*$"], enabled_regex_matching=True, invert_match=True),
    policy("number", "numeric_attribute", key="k", min_value=503, max_value=503.5),
    policy("true", "boolean_attribute", key="k", value=True),
    policy("state", "trace_state", key="vendor", values=["1"]),
    policy("count", "span_count", min_spans=3, max_spans=5),
    policy("rate", "rate_limiting", spans_per_second=2),
    policy("bytes", "bytes_limiting", bytes_per_second=150),
    policy("flags", "trace_flags"),
    opposite("other", policy("slow", "latency", threshold_ms=2_000)),
    drop(
        "drop",
        policy("unset", "status_code", status_codes=["UNSET"]),
        policy("k", "string_attribute", key="k", values=["a"]),
    ),
    HALF,
]
PLANS = [compile_policies(EVERY_KIND, compat="none"), compile_policies(EVERY_KIND, compat="otel")]


@given(st.sampled_from(PLANS), st.lists(spans, max_size=8), st.lists(st.integers(0, 24), max_size=4), st.data())
def test_the_order_of_spans_and_logs_never_matters(
    plan: Plan, found: list[SpanScan], severities: list[int], data: st.DataObject
) -> None:
    arrivals: list[SpanScan | int] = [*found, *severities]

    def outcome(order: list[SpanScan | int]) -> Vote:
        table = Table(plan.words, plan)
        for item in order:
            if isinstance(item, int):
                table.add_logs([item])
            else:
                table.add_spans([item], resource_bits=plan.resource_bits(["shop", None]))
        return decide(plan, table.evidence(), Limits(plan.rates, 1))

    assert outcome(data.draw(st.permutations(arrivals))) == outcome(arrivals)
