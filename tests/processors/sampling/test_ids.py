"""A policy for a share of the trace ids: every id is on one side of a border, and stays when the share grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.sampling.compile import compile_policies
from processors.sampling.decide import Vote, decide
from processors.sampling.evidence import Evidence
from processors.sampling.policies import Ids, Policy
from tests.processors.sampling.builders import both, drop, policy

ALL = policy("all", "always_sample")
QUARTER = policy("quarter", "probabilistic", sampling_percentage=25)
ids = st.integers(1, 2**64 - 1).map(lambda low: Evidence(bytes(8) + low.to_bytes(8, "big"), spans=1))
borders = st.floats(0.001, 99.999)
MANY = [Evidence(bytes(8) + (n * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big"), spans=1) for n in range(1, 4001)]


def only(original: Policy, start: float = 0.0, end: float = 100.0, name: str = "") -> Policy:
    share = Ids(from_percentage=start, to_percentage=end)
    return original.model_copy(update={"ids": share, "name": name or original.name})


@given(ids, borders)
def test_every_id_is_on_one_side_of_a_border(evidence: Evidence, border: float) -> None:
    plan = compile_policies([only(ALL, 0, border, "new"), only(ALL, border, 100, "old")])
    new, old = (decide(compile_policies([only(ALL, *ends)]), evidence).kept for ends in ((0, border), (border, 100)))
    assert new != old
    assert decide(plan, evidence) == Vote(True, "new" if new else "old", 0)


@given(ids, borders, borders)
def test_an_id_stays_in_a_share_that_grows(evidence: Evidence, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if decide(compile_policies([only(ALL, 0, small)]), evidence).kept:
        assert decide(compile_policies([only(ALL, 0, large)]), evidence).kept


@given(ids)
def test_an_upper_half_of_the_id_changes_nothing(evidence: Evidence) -> None:
    plan = compile_policies([only(ALL, 0, 50)])
    full = Evidence(bytes(range(8)) + evidence.trace_id[8:], spans=1)
    assert decide(plan, full) == decide(plan, evidence)


def test_a_share_is_as_large_as_it_says_and_apart_from_chance() -> None:
    share, chance = compile_policies([only(ALL, 0, 25)]), compile_policies([QUARTER])
    inside = [evidence for evidence in MANY if decide(share, evidence).kept]
    assert 0.22 < len(inside) / len(MANY) < 0.28
    assert 0.20 < sum(decide(chance, evidence).kept for evidence in inside) / len(inside) < 0.30


def test_it_is_part_of_the_version_and_does_not_weigh() -> None:
    assert compile_policies([only(QUARTER, 0, 50)]).version != compile_policies([QUARTER]).version
    plan = compile_policies([only(QUARTER, 0, 50)])
    thresholds = {vote.threshold for evidence in MANY if (vote := decide(plan, evidence)).kept}
    assert thresholds == {3 << 54}
    dropping = compile_policies([only(drop("no", ALL), 0, 50), ALL])
    assert 0.4 < sum(decide(dropping, evidence).kept for evidence in MANY) / len(MANY) < 0.6


def test_what_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be below to_percentage"):
        Ids(from_percentage=10, to_percentage=10)
    with pytest.raises(ValidationError, match="cannot have ids"):
        Policy.model_validate(both("b", only(ALL, 0, 5)).model_dump(by_alias=True, exclude_none=True))
