"""Which predicates the spans of a batch meet: every question of every policy at once.

Memory layout: a span's answers are `words` 64-bit words of `bits`. What a value of an attribute (or a tracestate)
meets is worked out once, when it is first met: an `Interner` for each key numbers values, and a table beside it holds
their answers. So a span costs one look for its status and one for each key that any policy names, whatever the
number of policies. `python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import cython

from processors.interner import Interner
from processors.sampling.predicates import Lookup, attribute_bits
from processors.sampling.probability import randomness_of_state
from processors.sampling.trace_state import States
from schemas.otlp_scan import ATTRIBUTES, STATUS, TRACE_STATE, AttributeValue, SpanColumns, attribute_value, signed

NO_RANDOMNESS = (1 << 64) - 1
VALUES = 1 << 14  # remembered of one key; then they are forgotten all at once: that needs no order, a refill is cheap
_STATUSES = cython.declare(cython.Py_ssize_t, 4)  # codes looked up in a table: 0 unset, 1 ok, 2 error
WORD = 64
_ROWS = 256  # for which there is room at first
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)
_NO_RANDOMNESS = cython.declare(cython.ulonglong, NO_RANDOMNESS)
_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_TRACE_STATE = cython.declare(cython.Py_ssize_t, TRACE_STATE)


def words_of(bits: int, words: int) -> list[int]:
    """A bit set as 64-bit words, lowest first."""
    return [bits >> (WORD * word) & 0xFFFFFFFFFFFFFFFF for word in range(words)]


class Answers:
    """What the values of one field meet, by the number that an Interner gives them."""

    def __init__(self, words: int, answer: Callable[[bytes], int]) -> None:
        self.values = Interner()
        self.table = array("Q")
        self._words = words
        self._answer = answer

    def prepare(self) -> None:
        """Before a batch: forget what has become too much."""
        if len(self.values) > VALUES:
            self.values.clear()
            self.table = array("Q")

    def extend(self) -> None:
        """After a batch was numbered: answer for the values that are new."""
        known = len(self.table) // self._words
        if len(self.values) > known:
            for number in range(known, len(self.values)):
                self.table.extend(words_of(self._answer(self.values.text(number)), self._words))


@cython.cclass
class SpanBits:
    """The answers for one batch after another.

    `status_bits` are those of a status code, `lookups` those of the attributes in their slots, `states` those of
    tracestates; `words` is the width of an answer. After `assign`, row i has `bits[i * words : (i + 1) * words]` and
    `randomness[i]`: the 56-bit `rv` of its tracestate or NO_RANDOMNESS.
    """

    bits = cython.declare(object, visibility="readonly")
    randomness = cython.declare(object, visibility="readonly")
    _words: cython.Py_ssize_t
    _status: cython.ulonglong[::1]
    _status_bits: dict
    lookups = cython.declare(list, visibility="readonly")
    _states: object
    _numbers: object

    def __init__(
        self, words: int, status_bits: dict[int, int], lookups: Sequence[Lookup], states: States | None
    ) -> None:
        self._words = words
        self._status_bits = status_bits
        self._status = array("Q", [w for code in range(4) for w in words_of(status_bits.get(code, 0), words)])
        self.lookups = [(lookup[0], Answers(words, _answer(lookup))) for lookup in lookups]
        self._states = Answers(words + 1, _state_answer(words, states))
        self._reserve(_ROWS)

    def _reserve(self, rows: int) -> None:
        self.bits = array("Q", bytes(8 * rows * self._words))
        self.randomness = array("Q", bytes(8 * rows))
        self._numbers = array("I", bytes(4 * rows))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(self, columns: SpanColumns, resource: array[int], resource_bits: Sequence[int]) -> None:
        """Answer for the spans of a batch; `resource_bits` is what their resources meet, by `resource[row]`."""
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        words: cython.Py_ssize_t = self._words
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        status: cython.ulonglong
        stateful: cython.bint = False
        if rows > len(self.randomness):
            self._reserve(2 * rows)
        bits: cython.ulonglong[::1] = self.bits
        randomness: cython.ulonglong[::1] = self.randomness
        of: cython.const[cython.uint][::1] = resource
        theirs: cython.ulonglong[::1] = array("Q", [w for b in resource_bits for w in words_of(b, words)] or [0])
        if rows > len(resource):
            raise IndexError("fewer resources than rows")
        for row in range(rows):
            if (of[row] + 1) * words > len(theirs):
                raise IndexError("a row of no resource")
            status = cells[row * width + _STATUS]
            for word in range(words):
                bits[row * words + word] = theirs[of[row] * words + word]
                if status < _STATUSES:
                    bits[row * words + word] |= self._status[status * words + word]
            if status >= _STATUSES:
                self._odd_status(row, status)
            randomness[row] = _NO_RANDOMNESS
            stateful |= cells[row * width + _TRACE_STATE + 1] > cells[row * width + _TRACE_STATE]
        for slot, answers in self.lookups:
            self._look_up(columns, ATTRIBUTES + 2 * slot, answers)
        if stateful:
            self._look_up(columns, TRACE_STATE, self._states)

    def _odd_status(self, row: int, status: int) -> None:
        for word, value in enumerate(words_of(self._status_bits.get(signed(status), 0), self._words)):
            self.bits[row * self._words + word] |= value

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _look_up(self, columns: SpanColumns, at: cython.Py_ssize_t, answers: Answers) -> cython.int:
        rows: cython.Py_ssize_t = columns.rows
        words: cython.Py_ssize_t = self._words
        bits: cython.ulonglong[::1] = self.bits
        randomness: cython.ulonglong[::1] = self.randomness
        of_states: cython.bint = answers is self._states
        stride: cython.Py_ssize_t = words + of_states
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        number: cython.Py_ssize_t
        answers.prepare()
        answers.values.assign(columns.data, columns.cells, columns.width, at, rows, self._numbers)
        answers.extend()
        if not len(answers.table):
            return 0
        numbers: cython.const[cython.uint][::1] = self._numbers
        table: cython.const[cython.ulonglong][::1] = answers.table
        for row in range(rows):
            if numbers[row] != _ABSENT:
                number = numbers[row]
                for word in range(words):
                    bits[row * words + word] |= table[number * stride + word]
                if of_states:
                    randomness[row] = table[number * stride + words]
        return 0


def _answer(lookup: Lookup) -> Callable[[bytes], int]:
    slot = lookup[0]

    def answer(text: bytes) -> int:
        values: list[AttributeValue | None] = [None] * (slot + 1)
        values[slot] = attribute_value(text, 0, len(text))
        return attribute_bits((lookup,), values)

    return answer


def _state_answer(words: int, states: States | None) -> Callable[[bytes], int]:
    """The bits of a tracestate, and above them its randomness."""

    def answer(text: bytes) -> int:
        randomness = randomness_of_state(text)
        bits = states.bits(text) if states is not None and text else 0
        return bits | (NO_RANDOMNESS if randomness is None else randomness) << (WORD * words)

    return answer
