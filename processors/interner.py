"""Byte strings → small numbers, a batch at a time: equal strings get equal numbers, and nobody makes an object of them.

Memory layout: the distinct strings lie end to end in one array; an open-addressed table, at most half full, holds
their numbers. Compiled a known string costs about 2 ns for 8 bytes; uncompiled a dict does the same. The hash chains
products of 32-bit halves, as NH does (Black et al., "UMAC", CRYPTO 1999); its keys come from Python's seed, so nobody
can choose strings that collide.
"""

from __future__ import annotations

from array import array

import cython

from schemas.columns import grown

if cython.compiled:
    from cython.cimports.libc.string import memcmp, memcpy

ABSENT = 0xFFFFFFFF
"""The number of a string that is not there."""

_ABSENT = cython.declare(cython.uint, ABSENT)
_SLOTS = 64  # of a new table
_BYTES = 1024
_SEED = hash(b"Interner") & 0xFFFFFFFFFFFFFFFF
_KEYS = hash(b"Interner's keys") & 0xFFFFFFFFFFFFFFFF
_LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)


@cython.cclass
class Interner:
    """Numbers strings from 0 in the order of their first occurrence."""

    _known: dict  # uncompiled: string → number
    _count: cython.uint
    _used: cython.Py_ssize_t
    _mask: cython.ulonglong
    _seed: cython.ulonglong
    _low_key: cython.ulonglong
    _high_key: cython.ulonglong
    _table: cython.uint[::1]
    _hashes: cython.ulonglong[::1]
    _ends: cython.Py_ssize_t[::1]
    _bytes: cython.uchar[::1]

    def __init__(self) -> None:
        self._known = {}
        self._seed = _SEED
        self._low_key = _KEYS & 0xFFFFFFFF
        self._high_key = _KEYS >> 32
        self.clear()

    def __len__(self) -> int:
        return len(self._known) if not cython.compiled else self._count

    @property
    def size(self) -> int:
        """Bytes of all strings."""
        return sum(map(len, self._known)) if not cython.compiled else self._used

    def clear(self) -> None:
        """Forget all strings."""
        self._known.clear()
        self._count = 0
        self._used = 0
        self._mask = _SLOTS - 1
        self._table = array("I", [_ABSENT]) * _SLOTS
        self._hashes = array("Q", bytes(8 * (_SLOTS // 2)))
        self._ends = array("q", bytes(8 * (_SLOTS // 2)))
        self._bytes = array("B", bytes(_BYTES))

    def text(self, number: cython.uint) -> bytes:
        """The string with this number."""
        if not cython.compiled:
            return list(self._known)[number]
        start: cython.Py_ssize_t = self._ends[number - 1] if number else 0
        return bytes(self._bytes[start : self._ends[number]])

    def texts(self) -> list[bytes]:
        """All strings, by number."""
        if not cython.compiled:
            return list(self._known)
        return [self.text(number) for number in range(self._count)]

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(
        self,
        data: bytes,
        cells: array[int],
        width: cython.Py_ssize_t,
        at: cython.Py_ssize_t,
        rows: cython.Py_ssize_t,
        numbers: array[int],
    ) -> None:
        """numbers[row] = the number of data[cells[row * width + at] : cells[row * width + at + 1]].

        Bounds (0, 0) are no string: ABSENT. Raises IndexError for bounds that do not lie in the data.
        """
        p: cython.p_const_uchar = data
        size: cython.Py_ssize_t = len(data)
        bounds: cython.const[cython.ulonglong][::1] = cells
        out: cython.uint[::1] = numbers
        row: cython.Py_ssize_t
        start: cython.Py_ssize_t
        end: cython.Py_ssize_t
        cell: cython.Py_ssize_t = at
        if rows * width > len(cells) or rows > len(numbers):
            raise IndexError("fewer cells or numbers than rows")
        for row in range(rows):
            start = bounds[cell]
            end = bounds[cell + 1]
            cell += width
            if start < 0 or start > end or end > size:
                raise IndexError("a string beyond the data")
            if end == 0:
                out[row] = _ABSENT
            elif not cython.compiled:
                out[row] = self._known.setdefault(data[start:end], len(self._known))
            else:
                out[row] = self._number(p, start, end)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(0xFFFFFFFF, check=True)
    def _number(self, p: cython.p_const_uchar, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.uint:
        hashed: cython.ulonglong = self._hash(p + start, end - start)
        size: cython.Py_ssize_t = end - start
        slot: cython.ulonglong = (hashed >> 20) & self._mask
        number: cython.uint
        begin: cython.Py_ssize_t
        while True:
            number = self._table[slot]
            if number == _ABSENT:
                break
            if self._hashes[number] == hashed:
                begin = self._ends[number - 1] if number else 0
                if self._ends[number] - begin == size and (
                    size == 0 or memcmp(cython.address(self._bytes[begin]), p + start, size) == 0
                ):
                    return number
            slot = (slot + 1) & self._mask
        return self._add(p, start, size, hashed, slot)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _hash(self, p: cython.p_const_uchar, size: cython.Py_ssize_t) -> cython.ulonglong:
        hashed: cython.ulonglong = self._seed ^ size
        word: cython.ulonglong = 0
        at: cython.Py_ssize_t
        for at in range(0, size - 8, 8):
            memcpy(cython.address(word), p + at, 8)
            hashed = self._mixed(hashed, word)
        if size >= 8:
            memcpy(cython.address(word), p + size - 8, 8)  # the last 8, of which some may have been in the word before
        else:
            memcpy(cython.address(word), p, size)
        hashed = self._mixed(hashed, word)
        return hashed ^ (hashed >> 32)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _mixed(self, hashed: cython.ulonglong, word: cython.ulonglong) -> cython.ulonglong:
        hashed += ((word + self._low_key) & _LOW_32) * (((word >> 32) + self._high_key) & _LOW_32)
        return (hashed ^ (hashed >> 29)) * _GOLDEN

    @cython.cfunc
    @cython.exceptval(0xFFFFFFFF, check=True)
    def _add(
        self,
        p: cython.p_const_uchar,
        start: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
        hashed: cython.ulonglong,
        slot: cython.ulonglong,
    ) -> cython.uint:
        number: cython.uint = self._count
        if self._used + size > len(self._bytes):
            self._bytes = grown(self._bytes, 2 * (self._used + size))
        if size:
            memcpy(cython.address(self._bytes[self._used]), p + start, size)
        self._used += size
        self._ends[number] = self._used
        self._hashes[number] = hashed
        self._table[slot] = number
        self._count += 1
        if 2 * self._count > self._mask:
            self._rehash()
        return number

    @cython.cfunc
    @cython.exceptval(-1)
    def _rehash(self) -> cython.int:
        slots: cython.Py_ssize_t = 2 * (self._mask + 1)
        number: cython.uint
        slot: cython.ulonglong
        self._hashes = grown(self._hashes, slots // 2 + 1)
        self._ends = grown(self._ends, slots // 2 + 1)
        self._table = array("I", [_ABSENT]) * slots
        self._mask = slots - 1
        for number in range(self._count):
            slot = (self._hashes[number] >> 20) & self._mask
            while self._table[slot] != _ABSENT:
                slot = (slot + 1) & self._mask
            self._table[slot] = number
        return 0
