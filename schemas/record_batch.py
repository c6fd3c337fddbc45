"""The records of a Kafka record batch as columns: what they say of themselves, and where their values lie.

Of a record's key and headers nothing is read. The format (magic 2): https://kafka.apache.org/documentation/#record
"""

from __future__ import annotations

from array import array

import cython

_LEAST_BYTES = cython.declare(cython.Py_ssize_t, 7)  # of a record: one of each of its fields
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)


class OutOfOrder(ValueError):
    """The offsets of a batch's records are not ascending, or not within those of the batch.

    Brokers look into compressed batches alone: one that is not may say anything.
    """


@cython.final
@cython.cclass
class RecordColumns:
    """What `scan` finds; record i has the value data[starts[i]:ends[i]], empty if it has none.

    Offsets are signed 64-bit, as are timestamps in ms. `shortest` and `longest` are bytes of a value.
    """

    offsets = cython.declare(object, visibility="readonly")
    timestamps = cython.declare(object, visibility="readonly")
    starts = cython.declare(object, visibility="readonly")
    ends = cython.declare(object, visibility="readonly")
    shortest = cython.declare(cython.Py_ssize_t, visibility="readonly")
    longest = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _value: cython.ulonglong  # of the varint that was read last

    def __init__(self) -> None:
        self._value = 0
        self.shortest = self.longest = 0
        self.offsets, self.timestamps, self.starts, self.ends = array("q"), array("q"), array("I"), array("I")

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def scan(self, data: bytes, count: int, base_offset: int, first_timestamp: int, last: int) -> None:
        """The `count` records of a batch's decompressed bytes. Raises ValueError unless they are just that, OutOfOrder.

        Their offsets and timestamps are relative to those of the batch, no offset is larger than `last`; sums are cut
        to 64 bits.
        """
        p: cython.p_const_uchar = data
        size: cython.Py_ssize_t = len(data)
        records: cython.Py_ssize_t = count
        if records < 0 or records > size // _LEAST_BYTES:
            raise ValueError(f"{count} records in {size} bytes")
        if records and last < 0:
            raise OutOfOrder(f"{count} records up to offset {base_offset + last}, from {base_offset}")
        offsets, timestamps = array("Q", bytes(8 * records)), array("Q", bytes(8 * records))
        starts, ends = array("I", bytes(4 * records)), array("I", bytes(4 * records))
        if records:
            first = first_timestamp & _LOW_64
            self._walk(p, size, base_offset & _LOW_64, first, last, offsets, timestamps, starts, ends)
        elif size:
            raise ValueError(f"{size} bytes behind the last record")
        self.offsets, self.timestamps = array("q", offsets.tobytes()), array("q", timestamps.tobytes())
        self.starts, self.ends = starts, ends

    @cython.cfunc
    @cython.exceptval(-1)
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _walk(
        self,
        p: cython.p_const_uchar,
        size: cython.Py_ssize_t,
        base: cython.ulonglong,
        first: cython.ulonglong,
        last: cython.ulonglong,
        offsets: cython.ulonglong[::1],
        timestamps: cython.ulonglong[::1],
        starts: cython.uint[::1],
        ends: cython.uint[::1],
    ) -> cython.int:
        pos: cython.Py_ssize_t = 0
        end: cython.Py_ssize_t
        length: cython.Py_ssize_t
        shortest: cython.Py_ssize_t = size
        longest: cython.Py_ssize_t = 0
        number: cython.Py_ssize_t
        least: cython.ulonglong = 0
        for number in range(len(offsets)):
            pos = self._length(p, pos, size)
            end = pos + cython.cast(cython.Py_ssize_t, self._value)
            pos = self._signed(p, pos + 1, end)  # behind the attributes, of which none is in use
            timestamps[number] = (first + self._value) & _LOW_64
            pos = self._signed(p, pos, end)
            if self._value < least or self._value > last:  # what is negative is larger than any
                raise OutOfOrder(f"record {number} of its batch has not the offset of one between its neighbours")
            least = self._value + 1
            offsets[number] = (base + self._value) & _LOW_64
            pos = self._length(p, pos, end)
            pos = self._length(p, pos + cython.cast(cython.Py_ssize_t, self._value), end)
            length = cython.cast(cython.Py_ssize_t, self._value)
            starts[number] = pos
            ends[number] = pos + length
            shortest = min(shortest, length)
            longest = max(longest, length)
            if pos + length >= end:
                raise ValueError("a record without a count of headers")
            pos = end
        if pos != size:
            raise ValueError(f"{size - pos} bytes behind the last record")
        self.shortest, self.longest = shortest, longest
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _varint(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A varint of at most 10 bytes, cut to 64 bits. This and what follows return the position after it."""
        value: cython.ulonglong = 0
        byte: cython.ulonglong
        shift: cython.int = 0
        while shift < 70:
            if pos >= end:
                raise ValueError("a record ends too early")
            byte = p[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._value = value & _LOW_64
                return pos
            shift += 7
        raise ValueError("a varint longer than 10 bytes")

    @cython.cfunc
    @cython.exceptval(-1)
    def _signed(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A number in zigzag, as one without a sign that adds up to the same in 64 bits."""
        pos = self._varint(p, pos, end)
        self._value = (self._value >> 1) ^ (_LOW_64 if self._value & 1 else 0)
        return pos

    @cython.cfunc
    @cython.exceptval(-1)
    def _length(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A length, in zigzag, of what ends at `end` or before; 0 of what is null, which is less than 0."""
        pos = self._varint(p, pos, end)
        self._value = 0 if self._value & 1 else self._value >> 1
        if self._value > cython.cast(cython.ulonglong, end - pos):
            raise ValueError("a record ends too early")
        return pos
