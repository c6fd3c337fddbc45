"""Tables of one attribute key: what a text, a number, a boolean meets."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.sampling.predicates import (
    LONGEST_REMEMBERED,
    KeyPredicates,
    Lookup,
    Ranges,
    attribute_bits,
    expression,
    text_of,
)
from schemas.otlp_scan import AttributeValue

TEXT, PATTERN, RANGE, FALSE, TRUE = 1, 2, 4, 8, 16


def key(remembered: int = 2, *patterns: str) -> KeyPredicates:
    """The text `a`, expressions, 1 to 5, false and true, each with its bit."""
    compiled = [(PATTERN, tuple(map(expression, patterns)))] if patterns else []
    return KeyPredicates({"a": TEXT}, compiled, remembered, [(1, 5, RANGE)], [FALSE, TRUE])


def bits(lookup: Lookup, value: AttributeValue | None) -> int:
    return attribute_bits((lookup,), [value])


@pytest.mark.parametrize(
    ("value", "met"),
    [
        ("a", TEXT),
        ("b", PATTERN),
        ("", PATTERN),
        ("xbx", 0),
        (3, RANGE),
        (5.0, RANGE | PATTERN),  # 5 as text
        (5.5, 0),
        (True, TRUE),
        (False, FALSE),
        (b"b", 0),
        (None, 0),
        (math.nan, 0),
    ],
)
def test_values_by_their_type_and_scalars_as_text(value: AttributeValue | None, met: int) -> None:
    lookup = key(9, "^b$", "^$", "^5$").lookup(0)
    for _ in range(2):  # the second time it is remembered
        assert bits(lookup, value) == met


@pytest.mark.parametrize(
    ("value", "on_span", "on_resource"),
    [
        ("a", TEXT | FALSE, TEXT | FALSE),
        ("b", PATTERN | FALSE, PATTERN | FALSE),
        ("", FALSE, PATTERN | FALSE),
        (3, RANGE | FALSE, RANGE | FALSE | PATTERN),
        (3.0, FALSE, FALSE | PATTERN),
        (True, TRUE, TRUE | PATTERN),
        (False, FALSE, FALSE | PATTERN),
        (b"b", FALSE, FALSE | PATTERN),
        (None, 0, 0),
    ],
)
def test_the_collector_reads_what_it_does_not_expect_as_zero(
    value: AttributeValue | None, on_span: int, on_resource: int
) -> None:
    for of_resource, met in ((False, on_span), (True, on_resource)):
        lookup = key(9, "^b$", "^$").lookup_as_collector(0, of_resource)
        for _ in range(2):
            assert bits(lookup, value) == met


@pytest.mark.parametrize("of_resource", [False, True])
def test_zero_within_a_range_is_what_the_collector_reads_from_text(of_resource: bool) -> None:
    lookup = KeyPredicates({}, [], 0, [(-1, 1, RANGE)]).lookup_as_collector(0, of_resource)
    assert [bits(lookup, value) for value in ("x", 503.0, True, 503, None)] == [RANGE, RANGE, RANGE, 0, 0]


class Counting:
    """An expression that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def search(self, text: str, /) -> object | None:
        self.asked += 1
        return text if "x" in text else None


def test_expressions_are_asked_once_for_each_text() -> None:
    counting = Counting()
    lookup = KeyPredicates({"x": TEXT}, [(PATTERN, (counting,))], remembered=2).lookup(0)
    assert [bits(lookup, text) for text in ("x", "y", "x", "y", "x")] == [TEXT | PATTERN, 0] * 2 + [TEXT | PATTERN]
    assert counting.asked == 2
    bits(lookup, "z")  # one too many: begin anew
    bits(lookup, "x")
    assert counting.asked == 4


def test_what_is_remembered_is_bounded() -> None:
    counting = Counting()
    lookup = KeyPredicates({}, [(PATTERN, (counting,))], remembered=9).lookup(0)
    long = "x" * (LONGEST_REMEMBERED + 1)
    assert bits(lookup, long) == bits(lookup, long) == PATTERN
    assert counting.asked == 2


BOUNDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.floats(allow_nan=False))


@given(st.lists(st.tuples(st.none() | BOUNDS, st.none() | BOUNDS), max_size=6), BOUNDS)
@example([(2**53, 2**53)], float(2**53))
@example([(2**53 + 1, None)], float(2**53))
@example([(None, None)], math.inf)
def test_a_number_is_in_the_ranges_that_hold_it(
    ranges: list[tuple[int | float | None, int | float | None]], value: int | float
) -> None:
    ordered = [(a, b) if a is None or b is None or a <= b else (b, a) for a, b in ranges]
    expected = sum(
        1 << i for i, (a, b) in enumerate(ordered) if (a is None or a <= value) and (b is None or value <= b)
    )
    assert Ranges([(a, b, 1 << i) for i, (a, b) in enumerate(ordered)]).bits(value) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (True, "true"),
        (False, "false"),
        (-7, "-7"),
        (100.0, "100"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),  # pcommon.Value.AsString
        (-1.25e-9, "-1.25e-9"),
        (1e-10, "1e-10"),
        (-0.5, "-0.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (b"raw", ""),
    ],
)
def test_text_of_scalars(value: AttributeValue, text: str) -> None:
    assert text_of(value) == text
