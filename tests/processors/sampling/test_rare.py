"""Rare traces: the first ones of a shape in each interval, whatever was configured before."""

from __future__ import annotations

import pytest

from processors.sampling.probability import ALWAYS, NEVER
from processors.sampling.rare import Rarity, Shapes

NOON = 1_800_000_000_000
HOUR = 3_600_000


def shapes(interval: int) -> Shapes:
    return Shapes(Rarity("rare", 1, interval, 100))


def test_who_continues_goes_on_in_the_interval() -> None:
    before, after = shapes(HOUR), shapes(HOUR)
    assert before.threshold(NOON, 7, 1) == ALWAYS
    after.restore(before.state())
    assert after.threshold(NOON + 1, 7, 1) == NEVER
    assert after.threshold(NOON + HOUR, 7, 1) == ALWAYS


@pytest.mark.parametrize("interval", [24 * HOUR, HOUR // 2])
def test_intervals_of_another_length_begin_anew(interval: int) -> None:
    """Their numbers are others: an old one may be centuries ahead."""
    before, after = shapes(HOUR), shapes(interval)
    assert before.threshold(NOON, 7, 1) == ALWAYS
    after.restore(before.state())
    assert after.threshold(NOON, 7, 1) == ALWAYS
    assert after.threshold(NOON + interval, 7, 1) == ALWAYS


def test_the_state_of_another_sampler_of_that_name_is_none() -> None:
    after = shapes(HOUR)
    after.restore([(NOON, 3), (7, 1)])
    assert after.threshold(NOON, 7, 1) == ALWAYS
