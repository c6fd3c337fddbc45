"""Rows found in place are those that msgpack unpacks; what msgpack refuses is refused."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.packed_rows import PackedRows, after, opened
from tests.repository import COMPILED

MUTATIONS = 30_000 if COMPILED else 1_000

integers = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([s * ((1 << bits) + d) for s in (1, -1) for bits in (5, 7, 8, 15, 16, 31, 32) for d in (-1, 0, 1)]),
    st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
)
numbers = st.one_of(integers, st.floats())
texts = st.one_of(st.text(max_size=40), st.sampled_from(["", "a" * 31, "b" * 32, "c" * 255, "ü" * 128]))
objects = st.recursive(
    st.one_of(numbers, texts, st.none(), st.booleans(), st.binary(max_size=70)),
    lambda inner: st.one_of(st.lists(inner, max_size=17), st.dictionaries(texts, inner, max_size=17)),
    max_leaves=20,
)
rows = st.integers(0, 17).flatmap(
    lambda labels: st.tuples(
        st.just(labels),
        st.lists(st.tuples(st.lists(texts, min_size=labels, max_size=labels), numbers, objects), max_size=5),
    )
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type; NaN is itself."""
    return type(one) is type(other) and (one == other or (one != one and other != other))


@given(rows, st.binary(max_size=3))
def test_rows_are_found_where_they_are(drawn: tuple[int, list[tuple[list[str], float, Any]]], before: bytes) -> None:
    labels, given_rows = drawn
    data = before + msgpack.packb(given_rows)
    found = PackedRows(data + b"\xc1", len(before), labels, 3)
    assert (len(found), found.end) == (len(given_rows), len(data))
    assert all(map(same, found.numbers(1), [number for _, number, _ in given_rows]))
    for row, (values, _, anything) in enumerate(given_rows):
        assert found.texts(row) == tuple(values)
        assert found.packed(row) == msgpack.packb(values)
        assert repr(found.part(row, 2)) == repr(msgpack.unpackb(msgpack.packb(anything), use_list=False))


@given(st.lists(st.lists(texts, min_size=2, max_size=2), max_size=20))
def test_rows_of_labels_alone(given_rows: list[list[str]]) -> None:
    data = msgpack.packb(given_rows)
    found = PackedRows(data, 0, 2, 1)
    assert [found.texts(row) for row in range(len(found))] == list(map(tuple, given_rows))
    assert found.end == len(data)


@given(objects)
@example({"k": [msgpack.Timestamp(1, 2), msgpack.ExtType(1, b"x" * 3), msgpack.ExtType(1, b"x" * 300), b"y" * 70_000]})
@example([1.5] * 70_000)
@example({"d" * 70_000: 1})
def test_after_is_where_it_ends(anything: Any) -> None:
    data = msgpack.packb(anything)
    assert after(data + b"\x00", 0) == len(data)
    for size in {*range(min(len(data), 50)), len(data) - 1}:
        with pytest.raises(ValueError, match="ends before"):
            after(data[:size], 0)


def test_a_single_precision_number_is_one() -> None:
    assert PackedRows(msgpack.packb([[[], 0.5]], use_single_float=True), 0, 0, 2).numbers(1) == [0.5]


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        ([[["a"], 1]], "1 elements of an array, not 2"),
        ([[["a", "b"]]], "1 elements of an array, not 2"),
        ([[["a", b"b"], 1]], "no string"),
        ([[["a", 1], 1]], "no string"),
        ([["ab", 1]], "no array"),
        ("ab", "begins no array"),
    ],
)
def test_anything_else_is_refused(packed: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        PackedRows(msgpack.packb(packed), 0, 2, 2)


def test_more_rows_than_bytes_are_refused_before_there_is_room_for_them() -> None:
    assert opened(b"\xdd\xff\xff\xff\xff", 0) == (0xFFFF_FFFF, 5)
    with pytest.raises(ValueError, match="more rows than"):
        PackedRows(b"\xdd\xff\xff\xff\xff" + bytes(100), 0, 10, 2)


def test_a_value_that_is_no_number() -> None:
    with pytest.raises(TypeError, match="no number"):
        PackedRows(msgpack.packb([[["a"], "1"]]), 0, 1, 2).numbers(1)


def test_damaged_rows_are_read_as_msgpack_reads_them_or_refused() -> None:
    random = Random(5)
    whole = [
        [["a" * random.choice([0, 3, 40]), "ü"], random.choice([1, -1, 300, 0.5, 1 << 40]), [1, {"k": None}]]
        for _ in range(3)
    ]
    data = msgpack.packb(whole)
    read = 0
    for _ in range(MUTATIONS):
        damaged = bytearray(data)
        for _ in range(random.randint(1, 3)):
            damaged[random.randrange(len(damaged))] = random.choice([random.randrange(256), 0x91, 0xC4, 0xD9, 0xDD])
        damaged = damaged[: random.choice([len(damaged), random.randrange(len(damaged) + 1)])]
        try:
            found = PackedRows(bytes(damaged), 0, 2, 3)
            texts_found = [found.texts(row) for row in range(len(found))]
            numbers_found = found.numbers(1)
        except (ValueError, TypeError):
            continue
        try:
            known = msgpack.unpackb(bytes(damaged[: found.end]), strict_map_key=False)
        except (ValueError, TypeError, msgpack.UnpackException):
            continue  # something inside the third part, which is passed over
        assert texts_found == [tuple(row[0]) for row in known]
        assert all(one == row[1] or math.isnan(one) for one, row in zip(numbers_found, known, strict=True))
        read += 1
    assert read > MUTATIONS // 100
