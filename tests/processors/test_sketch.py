from __future__ import annotations

import pytest

from processors.sketch import LONGEST_VALUE, STANDARD_ERROR, Refused


@pytest.mark.parametrize("distinct", [1, 100, 10_000, 100_000])
def test_distinct_values_within_four_standard_errors_whatever_comes_twice(distinct: int) -> None:
    refused = Refused()
    for number in [*range(distinct), *range(distinct // 2)]:
        refused.add(f"tenant-{number}", 1)
    assert refused.together_with(()) == pytest.approx(distinct, rel=4 * STANDARD_ERROR)
    assert sum(map(len, refused.state())) < 15 * 1024


def test_heavy_values_are_found_in_a_flood_and_after_a_restart() -> None:
    refused = Refused()
    for number in range(10_000):
        refused.add(f"once-{number}", 1)
        if number % 5 == 0:
            refused = Refused(refused.state()) if number % 1_000 == 0 else refused
            refused.add("heavy", 3)
    ((value, least), *_) = refused.offenders(3)
    assert value == "heavy"
    assert 0 < least <= 6_000


def test_what_was_refused_is_forgotten_after_two_generations() -> None:
    refused = Refused()
    refused.add("x" * 10_000, 2)
    refused.rotate()
    assert refused.offenders(1) == (("x" * LONGEST_VALUE, 2),)
    refused.rotate()
    assert refused.empty
    assert refused.state() == ()


@pytest.mark.parametrize("weight", [0.0, 2.0**64, 1e300])
def test_any_weight_is_taken(weight: float) -> None:
    """A counter's sum is a float: one beyond 64 bits must not stop whoever reads it."""
    refused = Refused()
    refused.add("x", weight)
    assert [value for value, _ in refused.offenders(1)] == ["x"]


def test_a_restart_changes_nothing_however_many_values_come() -> None:
    """Beyond what it follows a sketch forgets, and which values these are must not depend on who holds it."""
    owner, restarted = Refused(), Refused()
    for tick in range(20):
        for number in range(100):
            for refused in (owner, restarted):
                refused.add(f"{tick * 61 + number}", number % 7)
        assert owner.offenders(10) == restarted.offenders(10)
        assert owner.together_with(()) == restarted.together_with(())
        state = restarted.state()
        assert owner.state() == state
        restarted = Refused(state)
