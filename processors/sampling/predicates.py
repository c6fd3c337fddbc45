"""What an attribute's value meets: one look into a table per key, whatever the number of policies.

A text is looked up in the table of its key; with regular expressions the table remembers what texts met, so a value
that comes again costs the same. A number is found among the sorted bounds of all ranges of its key. Every answer is
a set of bits. `python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

import re2

if TYPE_CHECKING:
    from schemas.otlp_scan import AttributeValue

Number = int | float
Range = tuple[Number | None, Number | None, int]  # lowest and highest value, None for no bound; the bit
LONGEST_REMEMBERED = 1024  # characters of a text: 128 of them are at most 0.5 MiB a key


class Expression(Protocol):
    """A compiled regular expression."""

    def search(self, text: str, /) -> object | None:
        """Something, if it occurs anywhere in the text."""


Test = Callable[["AttributeValue"], bool]
Tests = list[tuple[int, Test]]
"""Bits, and what a value has to be to meet them."""


def expression(pattern: str) -> Expression:
    """A regular expression of RE2, the Collector's engine: linear in the text, whatever the text.

    Raises ValueError that says what is wrong with it.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Expression = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        instead = (
            "; look for what must not be there, with invert_match or `not`" if "(?!" in text or "(?<!" in text else ""
        )
        raise ValueError(f"{pattern!r} is not a regular expression of RE2: {text}{instead}") from None
    return compiled


Lookup = tuple[int, Callable[[str, int], int], int, Callable[[str], int], Callable[["AttributeValue"], int]]
"""How the value of one key is looked up: (slot, get, missing, search, other).

`get(text, missing)` are the bits of a text, or SEARCH: then `search(text)` has them. `other(value)` are those of a
value that is not text. A plain tuple, because one with names takes twice as long to unpack.
"""
SEARCH = -1


def attribute_bits(lookups: tuple[Lookup, ...], values: Sequence[AttributeValue | None]) -> int:
    """The predicates that the attributes of one span, or of one resource, meet; `values` by slot."""
    bits = 0
    for slot, get, missing, search, other in lookups:
        value = values[slot]
        if value is None:
            continue
        if isinstance(value, str):
            found = get(value, missing)
            bits |= found if found >= 0 else search(value)
        else:
            bits |= other(value)
    return bits


def met(tests: Tests, value: AttributeValue) -> int:
    """The bits of the tests that a value meets."""
    bits = 0
    for bit, test in tests:
        if test(value):
            bits |= bit
    return bits


@dataclass(slots=True)
class KeyPredicates:
    """All that policies ask about one attribute key.

    `texts` maps exact texts to bits, `patterns` bits to expressions of which one must occur; `remembered` bounds the
    texts whose answers are kept. `booleans` are the bits that false and true meet. All of these are about spans and
    resources alike; `of_spans` and `of_resources` are tests of the attributes of one of them.
    """

    texts: dict[str, int] = field(default_factory=dict)
    patterns: list[tuple[int, tuple[Expression, ...]]] = field(default_factory=list)
    remembered: int = 0
    ranges: list[Range] = field(default_factory=list)
    booleans: list[int] = field(default_factory=lambda: [0, 0])
    of_spans: Tests = field(default_factory=list)
    of_resources: Tests = field(default_factory=list)

    def lookup(self, slot: int, of_resource: bool = False) -> Lookup:
        """Values by their type; numbers and booleans as text too. Bytes meet tests alone."""
        tests = self.of_resources if of_resource else self.of_spans
        get, missing, search = self._texts(0, tests, empty=True)
        in_ranges, booleans = Ranges(self.ranges).bits if self.ranges else None, tuple(self.booleans)
        as_text = bool(self.texts or self.patterns)

        def other(value: AttributeValue) -> int:
            bits = met(tests, value)
            if isinstance(value, bytes):
                return bits
            if isinstance(value, bool):
                bits |= booleans[value]
            elif in_ranges is not None:
                bits |= in_ranges(value)  # type: ignore[arg-type]  # no text comes here
            if as_text:
                bits |= self._text_bits(str(value) if value.__class__ is int else text_of(value))
            return bits

        return slot, get, missing, search, other

    def lookup_as_collector(self, slot: int, of_resource: bool) -> Lookup:
        """As the Collector 0.155: a value of another type reads as 0, as false and, on a resource, as empty text."""
        ranges, (false, true) = Ranges(self.ranges), self.booleans
        zero = ranges.bits(0)
        tests = self.of_resources if of_resource else self.of_spans
        get, missing, search = self._texts(zero | false, tests, empty=of_resource)
        empty = self._text_bits("") if of_resource else 0

        if not self.ranges and not any(self.booleans) and not tests:
            return slot, get, missing, search, lambda _: empty

        def other(value: AttributeValue) -> int:
            number = ranges.bits(value) if isinstance(value, int) and not isinstance(value, bool) else zero
            return number | (true if value is True else false) | empty | met(tests, value)

        return slot, get, missing, search, other

    def _texts(
        self, present: int, tests: Tests, empty: bool
    ) -> tuple[Callable[[str, int], int], int, Callable[[str], int]]:
        """The part (get, missing, search) of a Lookup; `present` is what every text meets.

        Without `empty` no expression is tried on the empty text.
        """
        searched = bool(self.patterns or tests)
        known = {} if searched else {text: bits | present for text, bits in self.texts.items()}
        limit = self.remembered

        def search(text: str) -> int:
            bits = present | (self._text_bits(text) if text or empty else 0) | met(tests, text)
            if len(text) <= LONGEST_REMEMBERED:
                if len(known) >= limit:
                    known.clear()  # not one by one: that needs an order, and a refill is cheap
                known[text] = bits
            return bits

        return known.get, SEARCH if searched else present, search

    def _text_bits(self, text: str) -> int:
        bits = self.texts.get(text, 0)
        for bit, expressions in self.patterns:
            if any(expression.search(text) is not None for expression in expressions):
                bits |= bit
        return bits


class Ranges:
    """Closed ranges of one key. Between two neighbouring bounds the answer is the same: a table of segments."""

    __slots__ = ("_bounds", "_segments")

    def __init__(self, ranges: list[Range]) -> None:
        self._bounds = sorted({bound for low, high, _ in ranges for bound in (low, high) if bound is not None})
        # below the first bound, on it, up to the next one, on that, …
        self._segments = [0] * (2 * len(self._bounds) + 1)
        for low, high, bit in ranges:
            first = 0 if low is None else 2 * self._bounds.index(low) + 1
            last = 2 * len(self._bounds) if high is None else 2 * self._bounds.index(high) + 1
            for segment in range(first, last + 1):
                self._segments[segment] |= bit

    def bits(self, value: Number) -> int:
        """The ranges that hold `value`; none holds a NaN. Integers and doubles compare exactly."""
        if value != value:
            return 0
        at = bisect_left(self._bounds, value)
        on = at < len(self._bounds) and self._bounds[at] == value
        return self._segments[2 * at + on]


def text_of(value: AttributeValue) -> str:
    """A scalar attribute as text, as the Collector prints it; bytes have none that a policy could name ("").

    >>> text_of(503), text_of(503.0), text_of(0.5), text_of(True), text_of(float("inf"))
    ('503', '503', '0.5', 'true', 'Infinity')
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if value == 0 or 1e-6 <= abs(value) < 1e21:  # Go's JSON: exponents only outside this range
                text = format(Decimal(repr(value)), "f")
                return text.rstrip("0").rstrip(".") if "." in text else text
            text = repr(value).replace("e-0", "e-")
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
        case _:
            return ""
