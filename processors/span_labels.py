"""Who a span is for the metrics and for its trace's logs: service, name, kind, status and dimensions, as one number.

Memory layout: the parts of a span's label set are written end to end into one scratch string, which an `Interner`
numbers. A label set becomes Python objects once, when it is first met or when it is sent, never per span.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import byteorder
from typing import NamedTuple

import cython

from processors.interner import Interner
from schemas.columns import grown
from schemas.otlp_scan import (
    ATTRIBUTES,
    KIND,
    NAME,
    STATUS,
    AttributeValue,
    SpanColumns,
    attribute_value,
    signed,
)

if cython.compiled:
    from cython.cimports.libc.string import memcpy

_NAME = cython.declare(cython.Py_ssize_t, NAME)
_KIND = cython.declare(cython.Py_ssize_t, KIND)
_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_ATTRIBUTES = cython.declare(cython.Py_ssize_t, ATTRIBUTES)

_FIXED = cython.declare(cython.Py_ssize_t, 12)  # bytes: number of the resource's labels, kind, status
_LENGTH = cython.declare(cython.Py_ssize_t, 4)  # bytes before each dimension
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)  # length of a dimension that the span does not have
_SCRATCH = 1 << 14  # bytes at first
ROWS = 256  # for which there is room at first


class LabelSet(NamedTuple):
    """`name` is UTF-8 as found; `dimensions` are those of the span, where absent those of its resource."""

    service: str
    name: bytes
    kind: int
    status: int
    dimensions: tuple[AttributeValue | None, ...]


Resource = tuple[str, tuple[AttributeValue | None, ...]]
"""The service of a resource, and its values of the dimensions."""


@cython.cclass
class SpanLabels:
    """Numbers the label sets of spans, from 0, until `clear`.

    `slots` are those of the dimensions in the columns. `numbers[row]` is the label set of a row of the last batch.
    """

    numbers = cython.declare(object, visibility="readonly")
    generation = cython.declare(cython.Py_ssize_t, visibility="readonly")  # counts calls of `clear`
    slots = cython.declare(list, visibility="readonly")
    _sets: object
    _resources: dict
    _scratch: cython.uchar[::1]
    _bounds: object

    def __init__(self, slots: Sequence[int]) -> None:
        self.slots = list(slots)
        self._sets = Interner()
        self._resources = {}
        self.generation = 0
        self._scratch = array("B", bytes(_SCRATCH))
        self._reserve(ROWS)

    def _reserve(self, rows: int) -> None:
        self.numbers = array("I", bytes(4 * rows))
        self._bounds = array("Q", bytes(16 * rows))

    def __len__(self) -> int:
        return len(self._sets)

    def clear(self) -> None:
        """Forget all label sets."""
        self._sets.clear()
        self._resources.clear()
        self.generation += 1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(self, columns: SpanColumns, resource: array[int], resources: Sequence[Resource]) -> None:
        """Number the spans of a batch; `resource[row]` is a row's place in `resources`."""
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        data: bytes = columns.data
        p: cython.p_const_uchar = data
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        of: cython.const[cython.uint][::1] = resource
        row: cython.Py_ssize_t
        base: cython.Py_ssize_t
        used: cython.Py_ssize_t = 0
        start: cython.Py_ssize_t
        end: cython.Py_ssize_t
        cell: cython.Py_ssize_t
        index: cython.Py_ssize_t
        dimensions: cython.Py_ssize_t = len(self.slots)
        if rows > len(self.numbers):
            self._reserve(2 * rows)
        bounds: cython.ulonglong[::1] = self._bounds
        slots: cython.longlong[::1] = array("q", self.slots or [0])
        known: cython.uint[::1] = array("I", [self._resource(one) for one in resources] or [0])
        if rows > len(resource):
            raise IndexError("fewer resources than rows")
        for row in range(rows):
            base = row * width
            start = cells[base + _NAME]
            end = cells[base + _NAME + 1]
            index = _FIXED + dimensions * _LENGTH + end - start
            for cell in range(dimensions):
                index += cells[base + _ATTRIBUTES + 2 * slots[cell] + 1] - cells[base + _ATTRIBUTES + 2 * slots[cell]]
            if used + index > len(self._scratch):
                self._scratch = grown(self._scratch, 2 * (used + index))
            bounds[2 * row] = used
            if of[row] >= len(known):
                raise IndexError("a row of no resource")
            used = self._number(used, known[of[row]])
            used = self._number(used, cells[base + _KIND])
            used = self._number(used, cells[base + _STATUS])
            for cell in range(dimensions):
                index = base + _ATTRIBUTES + 2 * slots[cell]
                if cells[index + 1] == 0:
                    used = self._number(used, _ABSENT)
                else:
                    used = self._number(used, cells[index + 1] - cells[index])
                    used = self._copy(used, p, cells[index], cells[index + 1])
            used = self._copy(used, p, start, end)
            bounds[2 * row + 1] = used
        self._sets.assign(bytes(self._scratch[:used]), self._bounds, 2, 0, rows, self.numbers)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _number(self, at: cython.Py_ssize_t, number: cython.ulonglong) -> cython.Py_ssize_t:
        low: cython.uint = number & _ABSENT
        if not cython.compiled:
            self._scratch[at : at + 4] = array("B", low.to_bytes(4, byteorder))
        else:
            memcpy(cython.address(self._scratch[at]), cython.address(low), 4)
        return at + 4

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _copy(
        self, at: cython.Py_ssize_t, p: cython.p_const_uchar, start: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        if not cython.compiled:
            self._scratch[at : at + end - start] = array("B", p[start:end])
        elif end > start:
            memcpy(cython.address(self._scratch[at]), p + start, end - start)
        return at + end - start

    def _resource(self, resource: Resource) -> int:
        key = (resource[0], *[(type(value), value) for value in resource[1]])  # 1, 1.0 and True are equal, not the same
        known: tuple[int, Resource] | None = self._resources.get(key)
        if known is None:
            known = self._resources[key] = len(self._resources), resource
        return known[0]

    def sets(self, first: int = 0) -> list[LabelSet]:
        """All label sets by number, from `first` on."""
        resources = [resource for _, resource in self._resources.values()]
        return [self._decoded(self._sets.text(number), resources) for number in range(first, len(self._sets))]

    def _decoded(self, text: bytes, resources: list[Resource]) -> LabelSet:
        service, values = resources[_int(text, 0)]
        dimensions = []
        at = 12
        for value in values:
            length = _int(text, at)
            at += 4
            if length != 0xFFFFFFFF:
                value = attribute_value(text, at, at + length)
                at += length
            dimensions.append(value)
        return LabelSet(service, text[at:], signed(_int(text, 4)), signed(_int(text, 8)), tuple(dimensions))


def _int(text: bytes, at: int) -> int:
    return int.from_bytes(text[at : at + 4], byteorder)
