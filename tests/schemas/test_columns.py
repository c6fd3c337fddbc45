"""What is done with some rows of a column is what a loop in Python does."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import cut, gathered, grown, keys_of, lengths_of, numbers_of, renumbered, totals

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
PLACES = st.lists(st.integers(0, 9), max_size=20)


@given(st.lists(U32, min_size=10, max_size=10), st.lists(U64, min_size=10, max_size=10), PLACES)
def test_entries_of_some_rows(numbers: list[int], keys: list[int], places: list[int]) -> None:
    rows = array("I", places)
    assert list(numbers_of(array("I", numbers), rows)) == [numbers[row] for row in places]
    assert list(keys_of(array("Q", keys), rows)) == [keys[row] for row in places]
    times = [key - (1 << 63) for key in keys]
    assert list(gathered(array("q", times), rows)) == [times[row] for row in places]


@given(st.lists(st.integers(0, 4), min_size=10, max_size=10), PLACES)
def test_numbered_anew_in_order(column: list[int], places: list[int]) -> None:
    found, old = renumbered(array("I", column), array("I", places), 5)
    assert [old[number] for number in found] == [column[row] for row in places]
    assert old == list(dict.fromkeys(column[row] for row in places))


@given(st.lists(st.binary(max_size=5), min_size=10, max_size=10), PLACES, st.binary(max_size=3))
def test_rows_are_cut_out(rows: list[bytes], places: list[int], gap: bytes) -> None:
    ends, starts, data = array("I"), array("I"), b""
    for row in rows:
        data += gap
        starts.append(len(data))
        data += row
        ends.append(len(data))
    body, found = cut(data, starts, ends, array("I", places))
    assert body == b"".join(rows[place] for place in places)
    assert [body[a:z] for a, z in zip([0, *found], found, strict=False)] == [rows[place] for place in places]
    assert list(lengths_of(starts, ends, array("I", places))) == [len(rows[place]) for place in places]
    if not gap:
        assert cut(data, None, ends, array("I", places)) == (body, found)
        assert lengths_of(None, ends, array("I", places)) == lengths_of(starts, ends, array("I", places))


@given(st.lists(st.tuples(st.integers(0, 4), U32), max_size=20))
def test_totals_by_index(rows: list[tuple[int, int]]) -> None:
    index, values = (array("I", [row[part] for row in rows]) for part in (0, 1))
    numbers, sums = totals(index, values, 5)
    assert list(numbers) == [sum(which == one for which, _ in rows) for one in range(5)]
    assert list(sums) == [sum(value for which, value in rows if which == one) for one in range(5)]


def test_nothing_beyond_its_end_is_read() -> None:
    two, beyond = array("I", [0, 1]), array("I", [2])
    attempts: tuple[Callable[[], object], ...] = (
        lambda: numbers_of(two, beyond),
        lambda: keys_of(array("Q", [0, 1]), beyond),
        lambda: gathered(array("q", [0, 1]), beyond),
        lambda: renumbered(two, beyond, 2),
        lambda: renumbered(array("I", [7]), array("I", [0]), 7),
        lambda: cut(b"ab", None, array("I", [1, 2]), beyond),
        lambda: lengths_of(None, two, beyond),
        lambda: lengths_of(array("I"), two, two),
        lambda: totals(two, two, 1),
        lambda: cut(b"ab", None, array("I", [1, 3]), two),
        lambda: cut(b"ab", array("I", [2]), array("I", [1]), array("I", [0])),
    )
    for attempt in attempts:
        with pytest.raises(IndexError):
            attempt()


def test_a_column_grows_with_zeros() -> None:
    assert grown(array("I", [7]), 3) == array("I", [7, 0, 0])
