"""Equal strings get equal numbers, in the order of their first occurrence."""

from __future__ import annotations

from array import array
from random import Random

import pytest

from processors.interner import ABSENT, Interner


def test_numbers_are_those_of_a_dict() -> None:
    """Of strings of 0 to 40 bytes, many of them equal up to their last byte, and of none at all."""
    random, interner, known = Random(1), Interner(), dict[bytes, int]()
    for _ in range(20):
        texts = [bytes(random.randrange(41)) + bytes([random.randrange(3)]) * random.randrange(2) for _ in range(200)]
        texts += [random.randbytes(random.randrange(41)) for _ in range(100)]
        data, cells, numbers = b".", array("Q"), array("I", bytes(4 * len(texts) + 4))
        for text in texts:
            cells.extend((len(data), len(data) + len(text)))
            data += text
        interner.assign(data, cells + array("Q", [0, 0]), 2, 0, len(texts) + 1, numbers)
        assert list(numbers) == [*(known.setdefault(text, len(known)) for text in texts), ABSENT]
    assert (len(interner), interner.texts()) == (len(known), list(known))


def test_strings_beyond_the_data_are_refused() -> None:
    for start, end in ((0, 4), (2, 1), (1 << 63, 1), (0, (1 << 64) - 1)):
        with pytest.raises(IndexError):
            Interner().assign(b"abc", array("Q", [start, end]), 2, 0, 1, array("I", [0]))


def test_a_large_table_finds_all_again() -> None:
    interner, texts = Interner(), [b"GET /orders/%d" % number for number in range(5_000)]
    data, ends, numbers = b"".join(texts), array("Q", [0]), array("I", bytes(4 * len(texts)))
    for text in texts:
        ends.append(ends[-1] + len(text))
    for _ in range(2):
        interner.assign(data, ends, 1, 0, len(texts), numbers)
        assert numbers == array("I", range(5_000))
    assert interner.texts() == texts
