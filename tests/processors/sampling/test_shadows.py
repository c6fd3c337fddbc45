"""Who voted, who alone, and what shadows would have changed: counted beside the outcome, which never depends on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.sampling.ballot import Ballot
from processors.sampling.compile import Plan, compile_policies
from processors.sampling.decide import decide
from processors.sampling.limits import NO_LIMITS, Limits
from processors.sampling.policies import Policies, Policy
from processors.sampling.stats import Stats
from schemas.settings import Section
from tests.processors.sampling.builders import MS, NOON, Table, both, drop, policy, span, spans
from tests.processors.sampling.pair import Pair
from tests.schemas.rows import SpanScan

ERRORS = policy("errors", "status_code", status_codes=["ERROR"])
SLOW = policy("slow", "latency", threshold_ms=100)
HALF = policy("half", "probabilistic", sampling_percentage=50)
POOL = [drop("no-slow-errors", ERRORS, SLOW), ERRORS, SLOW, HALF]


def shadow(original: Policy) -> Policy:
    return original.model_copy(update={"shadow": True, "name": f"shadow of {original.name}"})


def counted(plan: Plan, *scans: SpanScan) -> Ballot:
    """A ballot that was asked about one trace."""
    table = Table(plan.words, plan)
    table.add_spans(scans)
    assert table.table.list_due(1_000) == 1
    ballot = Ballot(plan.conditions, plan.drops, plan.words, plan.shadows, plan.shadow_drops, plan.shadow_limits)
    ballot.next_kept(table.table, 0, 1, NO_LIMITS)
    return ballot


SLOW_ERROR = span(NOON, NOON + 200 * MS, status=2, state=b"ot=rv:00000000000000")


def test_every_pair_that_votes_is_counted_and_who_is_alone() -> None:
    ballot = counted(compile_policies([ERRORS, SLOW, HALF]), SLOW_ERROR)
    assert list(ballot.together) == [1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert list(ballot.only) == [0, 0, 0]
    ballot = counted(compile_policies([ERRORS, SLOW, HALF]), span(status=2, state=b"ot=rv:00000000000000"))
    assert list(ballot.only) == [1, 0, 0]
    ballot.clear()
    assert [sum(ballot.together), sum(ballot.only)] == [0, 0]


def test_a_shadow_says_what_it_would_change() -> None:
    quiet = span(state=b"ot=rv:00000000000000")
    plan = compile_policies([ERRORS, shadow(SLOW), shadow(drop("no-errors", ERRORS))])
    assert (plan.drops, [name for name, _ in plan.conditions]) == ((), ["errors"])
    for scans, shadowed, turned in (
        ((quiet,), [0, 0], [0, 0]),
        ((span(NOON, NOON + 200 * MS),), [1, 0], [1, 0]),  # it would keep what is dropped
        ((span(status=2),), [0, 1], [0, 1]),  # it would drop what is kept
        ((SLOW_ERROR,), [1, 1], [0, 1]),  # it would keep what is kept already
    ):
        ballot = counted(plan, *scans)
        assert (list(ballot.shadowed), list(ballot.turned)) == (shadowed, turned)


def test_a_shadow_cannot_save_what_a_drop_policy_drops() -> None:
    ballot = counted(compile_policies([drop("no-errors", ERRORS), HALF, shadow(SLOW)]), SLOW_ERROR)
    assert (list(ballot.shadowed), list(ballot.turned), list(ballot.only)) == ([1], [0], [0])


def test_a_dropped_trace_spends_nothing_of_a_shadow() -> None:
    """As it would not if the policy were live: the one span a second is for what follows."""
    limit = shadow(policy("some", "rate_limiting", spans_per_second=1))
    plan = compile_policies([drop("no-errors", ERRORS), HALF, limit, shadow(SLOW)])
    assert plan.shadow_limits == {limit.name}
    ballot = Ballot(plan.conditions, plan.drops, plan.words, plan.shadows, plan.shadow_drops, plan.shadow_limits)
    limits = Limits(plan.rates, 1)
    for scan in (SLOW_ERROR, span(NOON, NOON + 200 * MS, state=b"ot=rv:00000000000000")):
        table = Table(plan.words, plan)
        table.add_spans([scan])
        assert table.table.list_due(1_000) == 1
        ballot.next_kept(table.table, 0, 1, limits)
    assert (list(ballot.shadowed), list(ballot.turned)) == ([1, 2], [1, 1])


@given(st.lists(spans, min_size=1, max_size=3), st.lists(st.sampled_from(POOL), unique_by=lambda p: p.name, min_size=1))
def test_shadows_change_nothing_and_vote_as_if_they_were_real(scans: list[SpanScan], policies: list[Policy]) -> None:
    alone, with_shadows = compile_policies(policies), compile_policies([*policies, *map(shadow, POOL)])
    outcome = []
    for plan in (alone, with_shadows):
        table = Table(plan.words, plan)
        table.add_spans([one._replace(attributes=[]) for one in scans])
        outcome.append(decide(plan, table.evidence()))
    assert outcome[0] == outcome[1]
    ballot = counted(with_shadows, *(one._replace(attributes=[]) for one in scans))
    for number, original in enumerate(POOL):
        real = compile_policies([original])
        table = Table(real.words, real)
        table.add_spans([one._replace(attributes=[]) for one in scans])
        vote = decide(real, table.evidence())
        assert ballot.shadowed[number] == bool(vote.kept or vote.policy)


INSIDE = both("c", ERRORS)
assert INSIDE.and_ is not None
INSIDE.and_.and_sub_policy[0] = shadow(ERRORS)


class Holder(Section):
    policies: Policies


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ([shadow(ERRORS)], "every policy is of type: drop or a shadow"),
        ([both("b", ERRORS), INSIDE], "cannot be a shadow; only a whole policy"),
    ],
    ids=["none is left", "inside"],
)
def test_where_a_shadow_may_not_stand(wrong: list[Policy], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Holder.model_validate({"policies": [one.model_dump(by_alias=True, exclude_none=True) for one in wrong]})


def test_a_window_tells_votes_and_what_each_policy_forwards() -> None:
    pair = Pair(more=(shadow(policy("all", "always_sample")),))
    pair.spans(0, "A1!", "B1", "A2")
    pair.logs(0)
    for at in (30, 31):
        pair.spans(at)
        pair.logs(at)
    stats: Stats = pair.own().settle().stats
    assert stats["matched", "errors"] == stats["only", "errors"] == 1
    assert stats["policy_spans", "errors"] == stats["spans_kept", ""] == 2
    assert stats["policy_bytes", "errors"] > 0
    assert (stats["matched", "shadow of all"], stats["shadow_turned", "shadow of all"]) == (2, 1)
    assert stats["decided", "kept"] == 1
