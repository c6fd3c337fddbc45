"""Policies are compiled into one look per key: their number hardly matters."""

from __future__ import annotations

from bench.micro.policies import measure


def test_thirty_policies_cost_less_than_half_more_than_three() -> None:
    few, many = measure()
    assert many < 1.5 * few
