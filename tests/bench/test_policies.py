"""Policies are compiled into one look per key: their number hardly matters."""

from __future__ import annotations

from bench.micro.policies import FEW, MANY, measure, sets


def test_thirty_policies_cost_less_than_half_more_than_three() -> None:
    few, many = str(FEW), str(MANY)
    costs = measure({name: policies for name, policies in sets().items() if name in (few, many)})
    assert costs[many] < 1.5 * costs[few]
