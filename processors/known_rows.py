"""Label sets that were met before, by the bytes that they are packed as: what a point of a known series costs.

Two points of one spelling (the same label names in the same order) with equal bytes are of one row, so no label of
theirs becomes an object: one look-up of about 200 bytes, 0.2 µs compiled (bench/micro/series.py).
"""

from __future__ import annotations

from typing import Any

import cython

from processors.values import plus
from schemas.packed_rows import PackedRows


@cython.cclass
class KnownRows:
    """The rows of one spelling. A row that has ended (`ended`) is not known any more."""

    _rows: dict

    def __init__(self) -> None:
        self._rows = {}

    def __len__(self) -> int:
        return len(self._rows)

    def remember(self, packed: bytes, row: Any) -> None:
        """Points with these label values are counted in `row` from now on."""
        self._rows[packed] = row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def count(self, rows: PackedRows, values: list[Any], first: cython.Py_ssize_t, counted: Any) -> int:
        """Add the deltas of rows from `first` on up to one that is not known, whose number it returns.

        `counted` is written down in each row that it adds to.
        """
        cells: cython.const[cython.uint][::1]
        data: bytes = rows.data
        width: cython.Py_ssize_t = rows.width
        count: cython.Py_ssize_t = len(rows)
        index: cython.Py_ssize_t
        if first >= count or len(values) != count:
            return count
        cells = rows.cells
        for index in range(first, count):
            row = self._rows.get(data[cells[index * width] : cells[index * width + 1]])
            if row is None:
                return index
            if row.ended:
                return index
            value = values[index]
            row.value = plus(row.value, value) if isinstance(value, tuple) else row.value + value
            row.counted = counted
        return count
