"""Which traces count as seen on two partitions."""

from __future__ import annotations

from array import array

from processors.keying import ONE_IN, Sightings, is_sampled

SAMPLED = [key for key in range(1, 20 * ONE_IN) if is_sampled(key)]


def keys(*found: int) -> array[int]:
    return array("Q", found)


def test_about_one_in_so_many_is_looked_at() -> None:
    assert 10 < len(SAMPLED) < 40


def test_a_trace_on_two_partitions_is_told_once() -> None:
    seen = Sightings()
    assert seen.see(0, keys(SAMPLED[0], SAMPLED[1])) == []
    assert seen.see(0, keys(SAMPLED[0])) == []
    assert seen.see(3, keys(SAMPLED[0], SAMPLED[2])) == [(SAMPLED[0], 0)]
    assert seen.see(2, keys(SAMPLED[0])) == []


def test_others_are_not_looked_at() -> None:
    seen = Sightings()
    other = next(key for key in range(1, ONE_IN) if not is_sampled(key))
    assert seen.see(0, keys(other)) == seen.see(1, keys(other)) == []


def test_the_oldest_are_forgotten_first() -> None:
    seen = Sightings(most=2)
    seen.see(0, keys(*SAMPLED[:3]))
    assert seen.see(1, keys(*SAMPLED[:3])) == [(SAMPLED[1], 0), (SAMPLED[2], 0)]
