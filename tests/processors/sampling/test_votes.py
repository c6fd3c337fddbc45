"""Votes for people: each part of a policy with its evidence, from the rows that counted, and never another outcome."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from pipeline.operating.told_votes import lines, percentage
from processors.sampling.compile import Compat, compile_policies
from processors.sampling.decide import Vote
from processors.sampling.features import MOST_FEATURES, FeatureSets
from processors.sampling.limits import Limits
from processors.sampling.policies import Ids, Policy
from processors.sampling.probability import NEVER
from processors.sampling.votes import (
    AFTER_ROOT,
    DECISION_WAIT,
    Known,
    Row,
    Trace,
    as_plain,
    counted,
    evidence,
    failed,
    from_plain,
    inside,
    verdict,
    vote,
)
from tests.processors.sampling.builders import TRACE_ID, both, drop, policy
from tests.processors.sampling.evidence import rows, span

ERRORS = policy("errors", "status_code", status_codes=["ERROR"])
SLOW = policy("slow", "latency", threshold_ms=100)
SHOP = policy("shop", "string_attribute", key="shop", values=["a"])
LOGS = policy("error-logs", "log_severity", min_severity="ERROR")
RATE = policy("rate", "rate_limiting", spans_per_second=1)
HALF = policy("half", "probabilistic", sampling_percentage=50)
FAILED = Status(code=Status.STATUS_CODE_ERROR)
WAIT = 1_000


def outcome(policies: list[Policy], trace: Trace) -> Vote:
    plan = compile_policies(policies)
    return verdict(plan, evidence(plan, trace), trace)


def test_a_vote_names_the_rows_that_it_rests_on() -> None:
    trace = counted([rows(span(1), span(2, "POST /pay", status=FAILED))], WAIT, None)
    found = vote(ERRORS, "none", trace)
    assert (found.matched, found.evidence, found.rows) == (True, (Row("0000000000000002", "POST /pay"),), 1)
    assert found.rule == {"status_codes": ["ERROR"]}
    assert not vote(SHOP, "none", trace).matched


def test_a_span_that_meets_half_of_a_condition_is_no_evidence() -> None:
    trace = counted(
        [rows(span(1, status=FAILED), span(2, "POST /pay"), span(3, "POST /pay", status=FAILED))], WAIT, None
    )
    found = vote(policy("p", "ottl_condition", span=['status.code == 2 and name == "POST /pay"']), "none", trace)
    assert (found.matched, found.evidence, found.rows) == (True, (Row("0000000000000003", "POST /pay"),), 1)
    rolled = policy("p", "status_code", status_codes=["ERROR"]).model_copy(update={"ids": Ids()})
    assert vote(rolled, "none", trace).rows == 2


def test_the_span_of_an_event_is_evidence() -> None:
    spans = span(1), span(2)
    spans[1].events.add(name="exception")
    trace = counted([rows(*spans)], WAIT, None)
    found = vote(policy("p", "ottl_condition", spanevent=['name == "exception"']), "none", trace)
    assert (found.matched, found.evidence, found.rows) == (True, (Row("0000000000000002", "GET /"),), 1)


def test_the_spans_of_a_scope_are_evidence() -> None:
    one = rows(span(1), span(2), span(3))
    one.envelope.scopes.append(ScopeSpans(scope=InstrumentationScope(name="io.grpc")).SerializeToString())
    one.envelope.scope[1] = 1
    trace = counted([one], WAIT, None)
    found = vote(policy("p", "ottl_condition", span=['instrumentation_scope.name == "io.grpc"']), "none", trace)
    assert (found.matched, found.evidence, found.rows) == (True, (Row("0000000000000002", "GET /"),), 1)


def test_of_many_rows_a_few_are_named() -> None:
    found = vote(ERRORS, "none", counted([rows(*(span(n, status=FAILED) for n in range(1, 9)))], WAIT, None))
    assert (len(found.evidence), found.rows) == (3, 8)


def test_a_log_is_evidence() -> None:
    log = LogRecord(trace_id=TRACE_ID, span_id=(7).to_bytes(8, "big"), severity_number=17)  # type: ignore[arg-type]
    assert vote(LOGS, "none", counted([rows(log)], WAIT, None)).evidence == (Row("0000000000000007", ""),)


def test_parts_vote_for_themselves() -> None:
    trace = counted([rows(span(1, millis=200))], WAIT, None)
    found = vote(both("slow-errors", SLOW, ERRORS), "none", trace)
    assert not found.matched
    assert [(part.policy, part.matched) for part in found.parts] == [("slow", True), ("errors", False)]
    dropped = vote(drop("no-slow", SLOW), "none", trace)
    assert dropped.matched
    assert dropped.parts[0].matched
    assert [part.name for part in inside(both("b", SLOW, LOGS))] == ["slow", "error-logs"]


def test_a_rate_is_asked_as_if_its_bucket_were_full() -> None:
    found = vote(RATE, "none", counted([rows(span(1))], WAIT, None))
    assert (found.matched, found.by_rate, found.too_large) == (True, True, "")


def test_a_trace_above_the_capacity_can_never_pass() -> None:
    trace = counted([rows(span(1), span(2), span(3))], WAIT, None)
    limited = RATE.model_copy(update={"ids": Ids(to_percentage=100)})
    (line,) = lines([from_plain(as_plain(vote(limited, "none", trace)))])
    assert line.endswith(": no, 3 spans > capacity 2: can never pass")
    size = evidence(compile_policies([RATE]), trace).bytes
    by_bytes = policy("bytes", "bytes_limiting", bytes_per_second=1, burst_capacity=size - 1)
    small = policy("small", "budget", spans_per_second=1)
    found = vote(both("b", by_bytes, small), "none", trace)
    told = [f"{size} bytes > capacity {size - 1}", f"3 spans > capacity {small.budget.burst if small.budget else 0}"]
    assert [found.too_large, *(part.too_large for part in found.parts)] == ["", *told]


@pytest.mark.parametrize(("compat", "capacity"), [("none", 2), ("otel", 1)])
def test_a_trace_above_all_that_a_composite_allows_can_never_pass(compat: Compat, capacity: int) -> None:
    parts = [ERRORS.model_dump(by_alias=True, exclude_unset=True), RATE.model_dump(by_alias=True, exclude_unset=True)]
    shares = [{"policy": part["name"], "percent": 50} for part in parts]
    limit = {"max_total_spans_per_second": 2, "composite_sub_policy": parts, "rate_allocation": shares}
    trace = counted([rows(span(1), span(2), span(3, status=FAILED))], WAIT, None)
    first, *others = lines([vote(policy("c", "composite", **limit), compat, trace)])
    assert first.endswith(f": no, 3 spans > capacity {capacity}: can never pass")
    assert [line.endswith("can never pass") for line in others] == [False, True]
    assert not vote(policy("c", "composite", **limit | {"max_total_spans_per_second": 6}), compat, trace).too_large


def test_a_trace_that_ids_leave_out_is_told_so() -> None:
    trace = counted([rows(span(1, status=FAILED))], WAIT, None)
    shares = [Ids(to_percentage=50), Ids(from_percentage=50)]
    found = [vote(ERRORS.model_copy(update={"ids": ids}), "none", trace) for ids in shares]
    told = {vote.matched: line for vote, line in zip(found, lines(found), strict=True)}
    assert ": no, its id is not among ids; met by span" in told[False]
    assert "among" not in told[True]
    assert [vote.left_out for vote in found] == [not vote.matched for vote in found]


def test_what_came_too_late_is_apart() -> None:
    """Rows behind the deadline, of an envelope that has others too, and envelopes that came when it had passed."""
    early, mixed, late = rows(span(1)), rows(span(2), span(3)), rows(span(4, status=FAILED), now=WAIT + 1)
    mixed.times[1] = WAIT + 1
    on_time = rows(span(5), at=WAIT, now=WAIT)
    trace = counted([early, mixed, on_time, late], WAIT, None)
    assert [len(each.envelope) for each in trace.rows] == [1, 1, 1]
    assert [(len(each.envelope), failed(each)) for each in trace.later] == [(1, 0), (1, 1)]


def test_policies_that_go_by_keys_are_asked_as_if_there_were_no_other_traces() -> None:
    trace = counted([rows(span(1), span(2, "POST /pay", status=FAILED))], WAIT, None)
    rare = vote(policy("rare", "rare", traces=1), "none", trace)
    assert (rare.matched, rare.by_rate, rare.threshold, rare.rule) == (True, True, 0, {"traces": 1})
    tenth = policy("tenth", "dynamic", field_list=["name"], goal_sample_rate=1)
    (line,) = lines([vote(tenth, "none", trace)])
    assert line == (
        "● tenth [dynamic] field_list: [name], goal_sample_rate: 1.0: keeps, as if there were no other traces; "
        "key name: GET / | POST /pay, kept at 100 %"
    )
    assert outcome([policy("rare", "rare", traces=1)], trace) == Vote(True, "rare", 0)


def test_a_key_is_told_in_words_with_its_rate_among_the_keys_that_were_known() -> None:
    """As the checkpoint has them, of a policy within another one too, in whichever order they are compiled."""
    calm = policy("calm", "dynamic", field_list=["root.name", "errors"], goal_sample_rate=10)
    rare = policy("rare", "rare", field_list=["root.shop"])
    inner = {"max_total_spans_per_second": 100, "policy_order": ["rare", "calm"]}
    parts = [part.model_dump(exclude_unset=True) for part in (calm, rare)]
    whole = policy("all", "composite", **inner, composite_sub_policy=parts)
    trace = counted([rows(span(1, parent=0), span(2, "POST /pay", status=FAILED, parent=1))], WAIT, None)
    plan = compile_policies([calm, whole])
    limits = Limits(plan.rates, 1, plan.samplers)
    sets, keys = FeatureSets(), []
    for place, each in enumerate((calm, rare, calm)):
        sets.put(place, evidence(compile_policies([each]), trace).features)
        keys.append(sets.key(place, (1 << MOST_FEATURES) - 1))
    for time in range(0, 40_000, 10):  # two intervals in which everything has this trace's keys
        for index, key in enumerate(keys):
            limits.at(time).threshold(index, key, 2)
    known = Known(1, limits.keys())
    single, inside_all = (vote(each, "none", trace, known) for each in (calm, whole))
    assert single.key == (("root.name", ("GET /",)), ("errors", ("POST /pay",)))
    assert single.key_threshold is not None
    assert percentage(single.key_threshold) == pytest.approx(10, rel=0.01)
    assert not single.by_rate
    assert [part.key_threshold for part in inside_all.parts] == [single.key_threshold, NEVER]
    assert inside_all.parts[1].key == (("root.shop", ()),)
    assert next(lines([single])).endswith(": no; key root.name: GET /, errors: POST /pay, kept at 10 %")
    assert from_plain(json.loads(json.dumps(as_plain(inside_all)))) == inside_all
    withheld = from_plain(as_plain(inside_all, values=False))
    assert [part.key for part in withheld.parts] == [(), ()]


def test_parts_of_one_name_vote_by_what_each_knows() -> None:
    dynamic = policy("part", "dynamic", field_list=["root.name"], goal_sample_rate=10)
    whole = both("all", dynamic, policy("part", "rare", field_list=["root.name"]))
    trace = counted([rows(span(1, parent=0))], WAIT, None)
    plan = compile_policies([whole])
    limits, sets = Limits(plan.rates, 1, plan.samplers), FeatureSets()
    sets.put(0, evidence(compile_policies([dynamic]), trace).features)
    key = sets.key(0, (1 << MOST_FEATURES) - 1)
    for time in range(0, 40_000, 10):
        limits.at(time).threshold(0, key if time % 1000 == 0 else key ^ 1, 2)
    keyed = limits.keys()
    found = vote(whole, "none", trace, Known(1, keyed))
    alone = vote(dynamic, "none", trace, Known(1, {"part": keyed["all"][:1]}))
    assert found.parts[0].key_threshold == alone.key_threshold
    assert alone.key_threshold != vote(dynamic, "none", trace).key_threshold


def test_what_came_after_the_deadline_is_no_evidence() -> None:
    late = rows(span(2, status=FAILED), at=5, now=WAIT + 6)  # it says an early time, but the trace was decided
    ahead = rows(span(3, status=FAILED), at=WAIT + 6, now=0)  # it was read early, but belongs behind the deadline
    trace = counted([rows(span(1), at=5), ahead, late], WAIT, None)
    assert (trace.first, trace.deadline, trace.trigger) == (5, WAIT + 5, DECISION_WAIT)
    assert outcome([ERRORS], trace) == Vote(False, "", 0)
    assert outcome([ERRORS], counted([rows(span(1), at=5), ahead], WAIT + 1, None)).kept


def test_the_root_brings_the_deadline_forward() -> None:
    trace = counted([rows(span(1), at=5), rows(span(2, parent=0), at=50)], WAIT, 100)
    assert (trace.deadline, trace.trigger) == (150, AFTER_ROOT)
    assert counted([rows(span(1, parent=0), at=5)], 50, 100).trigger == DECISION_WAIT


@given(st.lists(st.sampled_from([span(1), span(2, status=FAILED), span(3, millis=300)]), min_size=1, max_size=5))
def test_the_votes_and_the_verdict_agree(spans: list[Span]) -> None:
    policies = [drop("no", both("x", SLOW, ERRORS).and_.and_sub_policy[0], ERRORS), ERRORS, HALF, SLOW]  # type: ignore[union-attr]
    trace = counted([rows(*spans)], WAIT, None)
    votes = [vote(each, "none", trace) for each in policies]
    found = outcome(policies, trace)
    keeps = [each.policy for each in votes if each.matched and each.type != "drop"]
    drops = [each.policy for each in votes if each.matched and each.type == "drop"]
    assert found.kept == (bool(keeps) and not drops)
    assert found.policy == (drops or keeps or [""])[0]


@pytest.mark.parametrize("compat", ["none", "otel"])
def test_a_bound_beyond_64_bits_is_none(compat: Compat) -> None:
    """Go's largest number is how many write it, and in nanoseconds it is more than 64 bits."""
    trace = counted([rows(span(1, millis=800))], WAIT, None)
    slow = policy("slow", "latency", threshold_ms=500, upper_threshold_ms=(1 << 63) - 1)
    few = policy("few", "span_count", min_spans=1, max_spans=10**20)
    assert [vote(each, compat, trace).matched for each in (slow, few)] == [True, True]
