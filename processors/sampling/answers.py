"""What the values of one field meet, and what several answers together bring: for spans and for their events alike.

Memory layout: an answer is `words` 64-bit words, the bit set of what a value meets. It is worked out once, when the
value is first met: an `Interner` numbers the values of a field, and a table beside it holds their answers. What has to
hold at the same time is put together from these at the end, by comparing bit sets. `python -m bench.micro.span_bits`
measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import cython

from processors.interner import Interner
from processors.sampling.predicates import Lookup, Tests, attribute_bits, met
from schemas.otlp_scan import EVENT_SPAN, AttributeValue, Columns, EventColumns, SpanColumns, attribute_value

# Remembered of one key; then they are forgotten all at once: that needs no order, a refill is cheap.
VALUES = 1 << 14
VALUE_BYTES = 4 << 20
WORD = 64
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)
_EVENT_SPAN = cython.declare(cython.Py_ssize_t, EVENT_SPAN)

Term = tuple[int, int, int]
"""The bits that a span gets, those that it must have, and those that it must not have."""


def words_of(bits: int, words: int) -> list[int]:
    """A bit set as 64-bit words, lowest first."""
    return [bits >> (WORD * word) & 0xFFFFFFFFFFFFFFFF for word in range(words)]


def flat(sets: Sequence[int], words: int) -> array[int]:
    """Bit sets end to end; never empty."""
    return array("Q", [word for bits in sets for word in words_of(bits, words)] or [0])


@cython.cclass
class Answers:
    """What the values of one field meet, by the number that an Interner gives them.

    `answer` says it from the bytes of a value: `words` words, and with `beside` one more above them.
    """

    _values: object
    _table = cython.declare(object)
    _answer = cython.declare(object)
    _words: cython.Py_ssize_t
    _stride: cython.Py_ssize_t

    def __init__(self, words: int, answer: Callable[[bytes], int], beside: bool = False) -> None:
        self._values = Interner()
        self._table = array("Q")
        self._answer = answer
        self._words, self._stride = words, words + beside

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(
        self,
        columns: Columns,
        at: int,
        numbers: array[int],
        bits: array[int],
        beside: array[int] | None = None,
    ) -> None:
        """Add to the bits of each row what its value, whose bounds are in the cells from `at` on, meets.

        The word above them goes into `beside`. `numbers` is for this call alone. All have room for so many rows.
        """
        rows: cython.Py_ssize_t = columns.rows
        words: cython.Py_ssize_t = self._words
        stride: cython.Py_ssize_t = self._stride
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        number: cython.Py_ssize_t
        if rows * words > len(bits) or (beside is not None and (rows > len(beside) or stride == words)):
            raise IndexError("fewer places than rows")
        answers = self.number(columns, at, numbers)
        if not len(answers):
            return
        known: cython.const[cython.uint][::1] = numbers
        table: cython.const[cython.ulonglong][::1] = answers
        into: cython.ulonglong[::1] = bits
        above: cython.ulonglong[::1] = bits if beside is None else beside
        has_above: cython.bint = beside is not None
        for row in range(rows):
            if known[row] != _ABSENT:
                number = known[row]
                for word in range(words):
                    into[row * words + word] |= table[number * stride + word]
                if has_above:
                    above[row] = table[number * stride + words]

    def number(self, columns: Columns, at: int, numbers: array[int]) -> array[int]:
        """Number the values of a batch, 0xFFFFFFFF where there is none; the answers by number, empty without any."""
        if len(self._values) > VALUES or self._values.size > VALUE_BYTES:
            self._values.clear()
            self._table = array("Q")
        self._values.assign(columns.data, columns.cells, columns.width, at, columns.rows, numbers)
        for number in range(len(self._table) // self._stride, len(self._values)):
            self._table.extend(words_of(self._answer(self._values.text(number)), self._stride))
        return self._table


@cython.cclass
class Terms:
    """What a span gets for answers that hold at the same time."""

    _words: cython.Py_ssize_t
    _count: cython.Py_ssize_t
    _bits: cython.ulonglong[::1]  # (gets, must have, must not have) each

    def __init__(self, words: int, terms: Sequence[Term]) -> None:
        self._words = words
        self._count = len(terms)
        self._bits = flat([bits for term in terms for bits in term], words)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self, bits: array[int], columns: SpanColumns | EventColumns, own: array[int] | None = None) -> None:
        """Add to the bits of each span what they bring; for events, with what is their `own`, to those of their span.

        `bits` has room for every span, `own` for every event.
        """
        words: cython.Py_ssize_t = self._words
        width: cython.Py_ssize_t = columns.width
        of_events: cython.bint = own is not None
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        spans: cython.ulonglong[::1] = bits
        rows: cython.const[cython.ulonglong][::1] = own if of_events else bits
        row: cython.Py_ssize_t
        span: cython.Py_ssize_t
        word: cython.Py_ssize_t
        term: cython.Py_ssize_t
        at: cython.Py_ssize_t
        mine: cython.ulonglong
        if columns.rows * words > len(rows):
            raise IndexError("fewer bits than rows")
        for row in range(columns.rows):
            span = cells[row * width + _EVENT_SPAN] if of_events else row
            if (span + 1) * words > len(spans):
                raise IndexError("an event of no span")
            for term in range(self._count):
                at = 3 * term * words
                for word in range(words):
                    mine = rows[row * words + word] | spans[span * words + word]
                    if mine & self._bits[at + words + word] != self._bits[at + words + word]:
                        break
                    if mine & self._bits[at + 2 * words + word] != 0:
                        break
                else:
                    for word in range(words):
                        spans[span * words + word] |= self._bits[at + word]


def text_answer(tests: Tests) -> Callable[[bytes], int]:
    """The bits of a text, from its bytes."""
    return lambda text: met(tests, text.decode("utf-8", "replace"))


def attribute_answer(lookup: Lookup) -> Callable[[bytes], int]:
    """The bits of an attribute, from the bytes of its AnyValue."""
    slot = lookup[0]

    def answer(text: bytes) -> int:
        values: list[AttributeValue | None] = [None] * (slot + 1)
        values[slot] = attribute_value(text, 0, len(text))
        return attribute_bits((lookup,), values)

    return answer
