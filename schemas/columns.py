"""Columns: typed arrays that hot modules look into as C memory, and what several of them do with some of their rows.

Rows and indices are unsigned 32-bit ("I"), keys and times 64-bit ("Q", "q"). Compiled, a row costs about 1 ns.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy


def grown(column: Any, size: int) -> array[int]:
    """A copy of a column with room for `size` entries, the new ones 0. (An array that is looked into cannot grow.)"""
    old = memoryview(column)
    larger = array(old.format, [0]) * size
    memoryview(larger)[: len(old)] = old
    return larger


@cython.boundscheck(False)
@cython.wraparound(False)
def gathered(values: array[int], index: array[int]) -> array[int]:
    """`values[index[i]]` for each i: signed 64-bit values by place."""
    found = array("q", bytes(8 * len(index)))
    into: cython.longlong[::1] = found
    theirs: cython.const[cython.longlong][::1] = values
    places: cython.const[cython.uint][::1] = index
    row: cython.Py_ssize_t
    _check(places, len(theirs))
    for row in range(len(places)):
        into[row] = theirs[places[row]]
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def clamped(values: array[int], least: int, most: int) -> array[int]:
    """Signed 64-bit values, those below `least` and above `most` replaced by these."""
    found = array("q", bytes(8 * len(values)))
    into: cython.longlong[::1] = found
    theirs: cython.const[cython.longlong][::1] = values
    low: cython.longlong = least
    high: cython.longlong = most
    row: cython.Py_ssize_t
    for row in range(len(theirs)):
        into[row] = min(max(theirs[row], low), high)
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def moved(column: array[int], by: int) -> array[int]:
    """A column of positions, each `by` bytes further on, or back if that is negative."""
    found = array("I", bytes(4 * len(column)))
    into: cython.uint[::1] = found
    theirs: cython.const[cython.uint][::1] = column
    distance: cython.Py_ssize_t = by
    row: cython.Py_ssize_t
    for row in range(len(theirs)):
        into[row] = theirs[row] + distance
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def numbers_of(column: array[int], rows: array[int]) -> array[int]:
    """The 32-bit entries of these rows."""
    found = array("I", bytes(4 * len(rows)))
    into: cython.uint[::1] = found
    theirs: cython.const[cython.uint][::1] = column
    places: cython.const[cython.uint][::1] = rows
    row: cython.Py_ssize_t
    _check(places, len(theirs))
    for row in range(len(places)):
        into[row] = theirs[places[row]]
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def keys_of(column: array[int], rows: array[int]) -> array[int]:
    """The unsigned 64-bit entries of these rows."""
    found = array("Q", bytes(8 * len(rows)))
    into: cython.ulonglong[::1] = found
    theirs: cython.const[cython.ulonglong][::1] = column
    places: cython.const[cython.uint][::1] = rows
    row: cython.Py_ssize_t
    _check(places, len(theirs))
    for row in range(len(places)):
        into[row] = theirs[places[row]]
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def lengths_of(starts: array[int] | None, ends: array[int], rows: array[int]) -> array[int]:
    """How long these rows are; as `cut`."""
    gaps: cython.bint = starts is not None
    begins: cython.const[cython.uint][::1] = ends if starts is None else starts
    stops: cython.const[cython.uint][::1] = ends
    places: cython.const[cython.uint][::1] = rows
    found = array("I", bytes(4 * len(rows)))
    into: cython.uint[::1] = found
    row: cython.Py_ssize_t
    place: cython.Py_ssize_t
    _check(places, min(len(begins), len(stops)))
    for row in range(len(places)):
        place = places[row]
        into[row] = stops[place] - (begins[place] if gaps else stops[place - 1] if place else 0)
    return found


@cython.boundscheck(False)
@cython.wraparound(False)
def totals(index: array[int], values: array[int], count: int) -> tuple[array[int], array[int]]:
    """How many rows have `index[row]` = i, and the sum of their values, for each i below `count`."""
    of: cython.const[cython.uint][::1] = index
    theirs: cython.const[cython.uint][::1] = values
    numbers, sums = array("Q", bytes(8 * count)), array("Q", bytes(8 * count))
    rows: cython.Py_ssize_t = min(len(of), len(theirs))
    row: cython.Py_ssize_t
    _check(of, count)
    if rows == 0:
        return numbers, sums
    many: cython.ulonglong[::1] = numbers
    much: cython.ulonglong[::1] = sums
    for row in range(rows):
        many[of[row]] += 1
        much[of[row]] += theirs[row]
    return numbers, sums


@cython.boundscheck(False)
@cython.wraparound(False)
def renumbered(column: array[int], rows: array[int], count: int) -> tuple[array[int], list[int]]:
    """What these rows index, numbered anew in the order of their rows, and the old numbers by the new ones.

    The column's entries are below `count`.
    """
    found = array("I", bytes(4 * len(rows)))
    into: cython.uint[::1] = found
    theirs: cython.const[cython.uint][::1] = column
    places: cython.const[cython.uint][::1] = rows
    known: cython.uint[::1] = array("I", bytes(4 * (count + 1)))  # 1 + the new number, 0: none yet
    most: cython.Py_ssize_t = count
    old: list[int] = []
    row: cython.Py_ssize_t
    number: cython.uint
    _check(places, len(theirs))
    for row in range(len(places)):
        number = theirs[places[row]]
        if number >= most:
            raise IndexError("an entry beyond what it indexes")
        if known[number] == 0:
            old.append(number)
            known[number] = len(old)
        into[row] = known[number] - 1
    return found, old


@cython.boundscheck(False)
@cython.wraparound(False)
def cut(data: bytes, starts: array[int] | None, ends: array[int], rows: array[int]) -> tuple[bytes, array[int]]:
    """These rows end to end, and where each one ends there. Row i is data[starts[i]:ends[i]]; without `starts` they
    lie end to end already.
    """
    p: cython.p_const_uchar = data
    gaps: cython.bint = starts is not None
    begins: cython.const[cython.uint][::1] = ends if starts is None else starts
    stops: cython.const[cython.uint][::1] = ends
    places: cython.const[cython.uint][::1] = rows
    found = array("I", bytes(4 * len(rows)))
    into: cython.uint[::1] = found
    size: cython.Py_ssize_t = len(data)
    row: cython.Py_ssize_t
    start: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    end: cython.Py_ssize_t = 0
    _check(places, len(stops))
    for row in range(len(places)):
        start = begins[places[row]] if gaps else stops[places[row] - 1] if places[row] else 0
        stop = stops[places[row]]
        if start > stop or stop > size:
            raise IndexError("a row beyond the data")
        end += stop - start
        into[row] = end
    body = bytearray(end)
    if end == 0:
        return b"", found
    view: cython.uchar[::1] = body
    end = 0
    for row in range(len(places)):
        start = begins[places[row]] if gaps else stops[places[row] - 1] if places[row] else 0
        stop = stops[places[row]]
        if cython.compiled:
            memcpy(cython.address(view[0]) + end, p + start, stop - start)
        else:
            body[end : end + stop - start] = data[start:stop]
        end += stop - start
    return bytes(body), found


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.exceptval(-1)
def _check(places: cython.const[cython.uint][::1], count: cython.Py_ssize_t) -> cython.int:
    row: cython.Py_ssize_t
    for row in range(len(places)):
        if places[row] >= count:
            raise IndexError("a row beyond the column")
    return 0
