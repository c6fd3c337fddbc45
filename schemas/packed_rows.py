"""Rows of `points` and `samples` where they lie in msgpack: found in place, none of their texts made an object.

A row is an array that begins with its label values, `[[text, ...], value, ...]`, or is that array alone. One packer
writes them all, so label values are equal if their bytes are.

Memory layout: `cells` has `width` entries for each row: where each of its `parts` begins (the label values are the
first one), where the last part ends, then where the text of each label begins and ends. Every read is bounds-checked.
Compiled, a row of ten labels costs 0.1 µs (bench/micro/encoding.py).
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Any

import cython
import msgpack

_float32 = Struct(">f").unpack_from
_float64 = Struct(">d").unpack_from

if cython.compiled:
    from cython.cimports.libc.string import memcpy


@cython.cclass
class PackedRows:
    """Rows of `parts` parts each, with so many `labels`; `data[at]` is where their array begins.

    `parts` 1: a row is its label values alone. Raises ValueError on anything else.
    """

    data = cython.declare(bytes, visibility="readonly")
    cells = cython.declare(object, visibility="readonly")
    parts = cython.declare(cython.Py_ssize_t, visibility="readonly")
    labels = cython.declare(cython.Py_ssize_t, visibility="readonly")
    width = cython.declare(cython.Py_ssize_t, visibility="readonly")
    end = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _rows: cython.Py_ssize_t

    def __init__(self, data: bytes, at: cython.Py_ssize_t, labels: cython.Py_ssize_t, parts: cython.Py_ssize_t) -> None:
        self.data, self.labels, self.parts = data, labels, parts
        self.width = parts + 1 + 2 * labels
        self._rows, at = opened(data, at)
        if self._rows * (1 + labels) > len(data):
            raise ValueError("more rows than there are bytes")
        self.cells = array("I", bytes(4 * self._rows * self.width))
        self.end = self._scan(at) if self._rows else at

    def __len__(self) -> int:
        return self._rows

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _scan(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        p: cython.p_const_uchar = self.data
        size: cython.Py_ssize_t = len(self.data)
        cells: cython.uint[::1] = self.cells
        cell: cython.Py_ssize_t = 0
        _row: cython.Py_ssize_t
        index: cython.Py_ssize_t
        _label: cython.Py_ssize_t
        length: cython.Py_ssize_t
        for _row in range(self._rows):
            if self.parts > 1:
                at = _array_of(p, at, size, self.parts)
            cells[cell] = at
            cell += self.parts + 1
            at = _array_of(p, at, size, self.labels)
            for _label in range(self.labels):
                length = _text(p, at, size)
                at += 1 if p[at] < 0xC0 else 2 if p[at] == 0xD9 else 3 if p[at] == 0xDA else 5
                cells[cell] = at
                at += length
                cells[cell + 1] = at
                cell += 2
            for index in range(1, self.parts):
                cells[cell - 2 * self.labels - self.parts - 1 + index] = at
                at = _after(p, at, size)
            cells[cell - 2 * self.labels - 1] = at
        return at

    def texts(self, row: cython.Py_ssize_t) -> tuple[str, ...]:
        """The label values of a row. Raises ValueError if they are no UTF-8."""
        first: cython.Py_ssize_t = row * self.width + self.parts + 1
        cells = self.cells
        bounds = range(first, first + 2 * self.labels, 2)
        return tuple([self.data[cells[cell] : cells[cell + 1]].decode() for cell in bounds])

    def packed(self, row: cython.Py_ssize_t) -> bytes:
        """The label values of a row as they lie there: what rows with equal ones have in common."""
        cell: cython.Py_ssize_t = row * self.width
        return self.data[self.cells[cell] : self.cells[cell + 1]]

    def part(self, row: cython.Py_ssize_t, index: cython.Py_ssize_t) -> Any:
        """Part `index` of a row, unpacked; arrays are tuples."""
        cell: cython.Py_ssize_t = row * self.width + index
        return msgpack.unpackb(self.data[self.cells[cell] : self.cells[cell + 1]], use_list=False)

    def numbers(self, index: cython.Py_ssize_t) -> list[float]:
        """Part `index` of every row. Raises TypeError where it is no number."""
        cells: cython.const[cython.uint][::1]
        cell: cython.Py_ssize_t = index
        found: list[float] = []
        _row: cython.Py_ssize_t
        if self._rows:
            cells = self.cells
            for _row in range(self._rows):
                found.append(_number(self.data, cells[cell], cells[cell + 1]))
                cell += self.width
        return found


def opened(data: bytes, at: cython.Py_ssize_t) -> tuple[int, int]:
    """How many elements the array, or entries the map, at `at` has, and where they begin. Raises ValueError."""
    p: cython.p_const_uchar = data
    size: cython.Py_ssize_t = len(data)
    byte: cython.int
    if at >= size:
        raise _truncated()
    byte = p[at]
    if 0x80 <= byte < 0xA0:
        return byte & 0x0F, at + 1
    if byte == 0xDC or byte == 0xDE:
        return _big_endian(p, at + 1, size, 2), at + 3
    if byte == 0xDD or byte == 0xDF:
        return _big_endian(p, at + 1, size, 4), at + 5
    raise ValueError(f"byte {byte:#04x} begins no array and no map")


def after(data: bytes, at: cython.Py_ssize_t) -> int:
    """Where what begins at `at` ends. Raises ValueError."""
    return _after(data, at, len(data))


@cython.cfunc
@cython.exceptval(-1)
def _array_of(
    p: cython.p_const_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t, count: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Behind the head of an array that must have so many elements."""
    found: cython.Py_ssize_t = -1
    if at >= size:
        raise _truncated()
    if 0x90 <= p[at] < 0xA0:
        found = p[at] & 0x0F
        at += 1
    elif p[at] == 0xDC:
        found = _big_endian(p, at + 1, size, 2)
        at += 3
    elif p[at] == 0xDD:
        found = _big_endian(p, at + 1, size, 4)
        at += 5
    if found != count:
        raise ValueError(f"{found} elements of an array, not {count}" if found >= 0 else "no array")
    return at


@cython.cfunc
@cython.exceptval(-1)
def _text(p: cython.p_const_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The length of the string at `at`, which is whole."""
    length: cython.Py_ssize_t
    head: cython.Py_ssize_t = 1
    if at >= size:
        raise _truncated()
    if 0xA0 <= p[at] < 0xC0:
        length = p[at] & 0x1F
    elif 0xD9 <= p[at] <= 0xDB:
        head = 2 if p[at] == 0xD9 else 3 if p[at] == 0xDA else 5
        length = _big_endian(p, at + 1, size, head - 1)
    else:
        raise TypeError("a label value is no string")
    if length > size - at - head:
        raise _truncated()
    return length


@cython.cfunc
@cython.exceptval(-1)
def _after(p: cython.p_const_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Walks without recursion: `left` are the objects that have begun or must follow."""
    left: cython.Py_ssize_t = 1
    byte: cython.int
    length: cython.Py_ssize_t
    while left:
        left -= 1
        if at >= size:
            raise _truncated()
        byte = p[at]
        at += 1
        length = 0
        if byte < 0x80 or byte >= 0xE0 or byte == 0xC0 or byte == 0xC2 or byte == 0xC3:
            continue
        if byte < 0x90:
            left += 2 * (byte & 0x0F)
        elif byte < 0xA0:
            left += byte & 0x0F
        elif byte < 0xC0:
            length = byte & 0x1F
        elif byte == 0xC1:
            raise ValueError("byte 0xc1 begins nothing")
        elif byte <= 0xC9:  # bin 8, 16, 32, then ext 8, 16, 32, which have a type as well
            length = 1 << (byte - 0xC4) % 3
            length += _big_endian(p, at, size, length) + (byte >= 0xC7)
        elif byte <= 0xCB:
            length = 4 if byte == 0xCA else 8
        elif byte <= 0xD3:
            length = 1 << (byte & 3)
        elif byte <= 0xD8:
            length = 1 + (1 << byte - 0xD4)
        elif byte <= 0xDB:
            length = 1 << byte - 0xD9
            length += _big_endian(p, at, size, length)
        elif byte <= 0xDD:
            length = 2 if byte == 0xDC else 4
            left += _big_endian(p, at, size, length)
        else:
            length = 2 if byte == 0xDE else 4
            left += 2 * _big_endian(p, at, size, length)
        if length > size - at or left > size - at:
            raise _truncated()
        at += length
    return at


@cython.cfunc
@cython.exceptval(-1)
def _big_endian(
    p: cython.p_const_uchar, at: cython.Py_ssize_t, size: cython.Py_ssize_t, width: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    value: cython.Py_ssize_t = 0
    index: cython.Py_ssize_t
    if width > size - at:
        raise _truncated()
    for index in range(width):
        value = value << 8 | p[at + index]
    return value


@cython.cfunc
def _number(data: bytes, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> Any:
    """The number that takes up data[at:end]; that it lies there is checked."""
    p: cython.p_const_uchar = data
    byte: cython.int = p[at]
    bits: cython.ulonglong = 0
    index: cython.Py_ssize_t
    real: cython.double = 0.0
    if byte < 0x80:
        return byte
    if byte >= 0xE0:
        return byte - 0x100
    if not 0xCA <= byte <= 0xD3:
        raise TypeError("a value is no number")
    for index in range(at + 1, end):
        bits = bits << 8 | p[index]
    if byte == 0xCB:
        if not cython.compiled:
            real = _float64(data, at + 1)[0]
        else:
            memcpy(cython.address(real), cython.address(bits), 8)
        return real
    if byte == 0xCA:
        return float(_float32(data, at + 1)[0])
    if byte >= 0xD0 and p[at + 1] >= 0x80:
        return int.from_bytes(data[at + 1 : end], "big", signed=True)
    return bits


def _truncated() -> ValueError:
    return ValueError("msgpack ends before what it announces")
