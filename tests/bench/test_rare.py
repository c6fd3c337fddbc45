"""At the same budget `rare` keeps the shapes that a share of 1 % loses."""

from __future__ import annotations

from bench.rare import BUDGET, SIDES, measured


def test_rare_shapes_are_kept_at_the_budget_of_a_share() -> None:
    share, rare = (measured(7, policies, seconds=120) for policies in SIDES.values())
    assert share["rare"] < 0.15
    assert rare["rare"] == rare["all"] == 1.0
    assert rare["rare"] > 6 * share["rare"]
    assert rare["spans"] < 2.2 * BUDGET / 100  # of a fifth of the interval: what shapes cost weighs five times as much
