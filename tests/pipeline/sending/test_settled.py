"""The metadata of a sink's offsets: what it says, and that whatever else is there says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sending.settled import MOST_CHARACTERS, Ranges, Settled

SECONDS = st.integers(0, 10**12 - 1)
PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


@given(PAIRS)
def test_ranges_are_a_set_of_integers(pairs: list[tuple[int, int]]) -> None:
    ranges, wanted = Ranges(pairs), {n for start, stop in pairs for n in range(start, stop)}
    assert {n for n in range(42) if n in ranges} == wanted
    assert [n for start, stop in ranges for n in range(start, stop)] == sorted(wanted)
    bounds = [bound for pair in ranges for bound in pair]
    assert bounds == sorted(set(bounds)), "ranges touch"
    for start, stop in [(0, 1), (7, 9), (30, 41)]:
        assert ranges.touches(start, stop) == bool(wanted & set(range(start, stop)))
    assert all(ranges.behind(n) == next(m for m in range(n, 42) if m not in wanted) for n in range(41))


@given(PAIRS, st.dictionaries(st.integers(0, 40), PAIRS, max_size=4), st.integers(0, 20), st.none() | SECONDS)
def test_what_is_packed_is_unpacked(
    records: list[tuple[int, int]], rows: dict[int, list[tuple[int, int]]], position: int, since: int | None
) -> None:
    """But for what lies before the position, and rows of records that are settled as a whole."""
    settled = Settled(Ranges(records), {offset: Ranges(pairs) for offset, pairs in rows.items()}, since)
    found = Settled.unpack(settled.pack(position), position)
    assert found.since == since
    assert list(found.records) == [pair for pair in settled.records if pair[0] > position]
    assert found.rows == {
        offset: ranges
        for offset, ranges in settled.rows.items()
        if ranges and offset >= position and offset not in settled.records
    }


def test_what_does_not_fit_is_not_named() -> None:
    settled = Settled(Ranges((n, n + 1) for n in range(10**6, 10**6 + 4000, 2)))
    packed = settled.pack(10)
    assert MOST_CHARACTERS - 20 < len(packed) <= MOST_CHARACTERS
    found = list(Settled.unpack(packed, 10).records)
    assert found == list(settled.records)[: len(found)]


@pytest.mark.parametrize(
    "metadata",
    [None, "", "1", "2 3-4", "1700/4/16/93/1", "1 3-4 x", "1  3-4", "1 4-3", "1 3-3", "1 3-4 -1-4", "1 ١-٣", "1 3-4\n"],
)
def test_anything_else_says_nothing(metadata: str | None) -> None:
    assert Settled.unpack(metadata, 10) == Settled()


@pytest.mark.parametrize("metadata", ["1 @7 x", "1 @x 3-4", "1 3-4 @7", "2 @7"])
def test_a_time_elsewhere_says_nothing_either(metadata: str) -> None:
    assert Settled.unpack(metadata, 10) == Settled()


def test_the_first_version() -> None:
    """A reader reads its own version and the one before."""
    settled = Settled(Ranges([(103, 107), (120, 121)]), {109: Ranges([(0, 400), (450, 451)])})
    assert settled.pack(100) == "1 3-7 9:0-400 9:450-451 20-21"
    assert Settled.unpack("1 @1700000000 3-7", 100) == Settled(Ranges([(103, 107)]), since=1_700_000_000)
    assert Settled.unpack("1 3-7 9:0-400 9:450-451 20-21", 100) == settled
