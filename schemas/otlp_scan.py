"""OTLP protobuf without objects: where rows lie, and what they say.

A *row* is the bytes of one Span or LogRecord. Nothing here decodes a row as a whole or encodes one again: rows are
slices of the message they came in, so unknown fields, order and odd encodings survive. schemas/otlp_build.py puts
them together again.

Memory layout: `RawRows` checks whole messages to their last nested field, and says in columns, one entry per row, where
the rows lie. `SpanColumns` and `LogColumns` read the fields that a policy, the metrics or the clock need into one flat
array of unsigned 64-bit *cells*, `width` of them a row, and skip the rest by length: texts and ids are bounds in the
data, never objects. The arrays are used again for the next batch.

The file is Cython's pure-Python mode: compiled, the names with a `cython.` type are C variables and a row costs
about 0.1 µs; uncompiled it is plain Python and says the same (tests run both). Every read is preceded by a comparison
with the end of its row, so neither can look beyond it. `python -m bench.micro.otlp_scan` measures it.

What is accepted is what protobuf accepts (docs: protobuf.dev/programming-guides/encoding), invalid UTF-8 included,
with one stricter rule: a known field of TracesData, ResourceSpans or ScopeSpans (and the like of logs) with the wrong
wire type is malformed, where protobuf calls it unknown: bytes of another format are likelier than such a producer.
Inside rows and headers such a field counts as absent, as for protobuf.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct

import cython

from schemas import otlp_check
from schemas.columns import grown
from schemas.errors import Malformed
from schemas.reasons import Reason

if cython.compiled:
    from cython.cimports.libc.string import memcmp

AttributeValue = str | bool | int | float | bytes

_double = Struct("<d").unpack_from

# The cells of a span: where in the data a field lies [from, to), or what it says. Attribute slots follow, two a slot.
TRACE_ID = 0
SPAN_ID = 2
TRACE_STATE = 4
PARENT_SPAN_ID = 6
NAME = 8
KIND = 10
STATUS = 11
START_NS = 12
END_NS = 13
FLAGS = 14
SIZE = 15
ATTRIBUTES = 16
# The cells of a span's event: which span it is of, and its name. Attribute slots follow.
EVENT_SPAN = 0
EVENT_NAME = 1
EVENT_ATTRIBUTES = 3
# The cells of a log record; its ids are where a span's are.
SEVERITY = 4
TIME_NS = 5
OBSERVED_NS = 6
LOG_CELLS = 7

# The same as C constants, for the loops below.
_ATTRIBUTES = cython.declare(cython.Py_ssize_t, ATTRIBUTES)
_KIND = cython.declare(cython.Py_ssize_t, KIND)
_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_START_NS = cython.declare(cython.Py_ssize_t, START_NS)
_END_NS = cython.declare(cython.Py_ssize_t, END_NS)
_FLAGS = cython.declare(cython.Py_ssize_t, FLAGS)
_SIZE = cython.declare(cython.Py_ssize_t, SIZE)
_EVENT_SPAN = cython.declare(cython.Py_ssize_t, EVENT_SPAN)
_EVENT_NAME = cython.declare(cython.Py_ssize_t, EVENT_NAME)
_EVENT_ATTRIBUTES = cython.declare(cython.Py_ssize_t, EVENT_ATTRIBUTES)
_SEVERITY = cython.declare(cython.Py_ssize_t, SEVERITY)
_TIME_NS = cython.declare(cython.Py_ssize_t, TIME_NS)
_OBSERVED_NS = cython.declare(cython.Py_ssize_t, OBSERVED_NS)
_LOG_CELLS = cython.declare(cython.Py_ssize_t, LOG_CELLS)

_ROWS = 256  # for which a new array of cells has room
# Literals of more than 31 bits are Python's in compiled code; these are C's.
_LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_LOW_56 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFF)
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
_MAX_LENGTH = cython.declare(cython.ulonglong, 0x7FFFFFFF)  # upb's and the specification's: 2 GiB
_MAX_TAG = cython.declare(cython.ulonglong, 0xFFFFFFFF)
MAX_DEPTH = 100  # of messages and groups in one another: upb's recursion limit
_MAX_DEPTH = cython.declare(cython.int, MAX_DEPTH)
_LIBRARY_TAG = cython.declare(cython.ulonglong, otlp_check.LIBRARY_FIELD << 3 | 2)
_FLAGS_TAG = cython.declare(cython.int, 0x85)  # first byte of the two-byte tag of Span.flags
_KEY_LISTS = cython.declare(cython.int, 256)
_FIELDS = cython.declare(cython.int, 32)  # above the highest field number of a message in a message
_COLUMNS = cython.declare(cython.Py_ssize_t, 6)  # of a row of `RawRows`
_HEADER = cython.declare(cython.Py_ssize_t, 5)  # numbers of each header that came by
_SETS = cython.declare(cython.Py_ssize_t, 32)  # of headers of a level that are looked for, by some of their bytes
_WAYS = cython.declare(cython.Py_ssize_t, 4)  # headers in each: those of a service's pods differ by some bytes
_NAMELESS = cython.declare(cython.uchar, 1)  # what a row of `RawRows` is; 0: in no way apart
_SPANLESS = cython.declare(cython.uchar, 2)
# Rows without an id that a message may have; a large one more, if they are rows and not the two bytes of an empty one:
# each takes about 100 bytes on its way to a dead letter.
MOST_APART = 1 << 16
BYTES_APART = 16


def _u32() -> array[int]:
    return array("I")


@dataclass(slots=True)
class Rows:
    """Rows of some bytes, as columns.

    Row i is `data[starts[i]:ends[i]]`; `resource[i]` and `scope[i]` index into `resources` and `scopes`, `message[i]`
    is its message, `item[i]` its index there and `keys[i]` its `schemas.ids.trace_key`, 0 if it has none.
    """

    resources: list[bytes] = field(default_factory=list)
    scopes: list[bytes] = field(default_factory=list)
    starts: array[int] = field(default_factory=_u32)
    ends: array[int] = field(default_factory=_u32)
    resource: array[int] = field(default_factory=_u32)
    scope: array[int] = field(default_factory=_u32)
    message: array[int] = field(default_factory=_u32)
    item: array[int] = field(default_factory=_u32)
    keys: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.starts)


@cython.cclass
class Wire:
    """Reads protobuf's wire format between a position and an end. Every method returns the position after it."""

    _value: cython.ulonglong  # of the varint that was read last
    _room: cython.int  # levels of groups that may follow

    def __init__(self) -> None:
        self._value = 0
        self._room = MAX_DEPTH

    @cython.cfunc
    @cython.exceptval(-1)
    def _varint(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A varint of at most 10 bytes, cut to 64 bits."""
        value: cython.ulonglong = 0
        byte: cython.ulonglong
        shift: cython.int = 0
        while shift < 70:
            if pos >= end:
                raise _truncated()
            byte = p[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._value = value & _LOW_64
                return pos
            shift += 7
        raise Malformed(Reason.MALFORMED, "varint longer than 10 bytes")

    @cython.cfunc
    @cython.exceptval(-1)
    def _tag(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, lowest: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """A tag of at most 5 bytes and 32 bits, not below `lowest`."""
        after: cython.Py_ssize_t = self._varint(p, pos, end)
        if after - pos > 5 or self._value > _MAX_TAG:
            raise Malformed(Reason.MALFORMED, "tag out of range")
        if self._value < lowest:
            raise _field_zero()
        return after

    @cython.cfunc
    @cython.exceptval(-1)
    def _length(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A length of at most 5 bytes and 31 bits, of a value that ends before `end`."""
        after: cython.Py_ssize_t = self._varint(p, pos, end)
        if after - pos > 5 or self._value > _MAX_LENGTH:
            raise Malformed(Reason.MALFORMED, "length out of range")
        if cython.cast(cython.Py_ssize_t, self._value) > end - after:
            raise _truncated()
        return after

    @cython.cfunc
    @cython.exceptval(-1)
    def _fixed64(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Eight bytes, little-endian."""
        value: cython.ulonglong = 0
        byte: cython.ulonglong
        index: cython.int
        if end - pos < 8:
            raise _truncated()
        for index in range(8):
            byte = p[pos + index]
            value |= byte << (8 * index)
        self._value = value
        return pos + 8

    @cython.cfunc
    @cython.exceptval(-1)
    def _skip(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, tag: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """The end of the value at `pos` of a field with this tag."""
        if tag < 8:
            raise _field_zero()
        return self._skip_value(p, pos, end, tag)

    @cython.cfunc
    @cython.exceptval(-1)
    def _skip_value(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, tag: cython.ulonglong
    ) -> cython.Py_ssize_t:
        kind: cython.int = tag & 7
        if kind == 0:
            pos = self._varint(p, pos, end)
        elif kind == 1:
            pos += 8
        elif kind == 2:
            pos = self._length(p, pos, end)
            pos += self._value
        elif kind == 5:
            pos += 4
        elif kind == 3:
            pos = self._skip_group(p, pos, end, tag >> 3)
        else:
            raise Malformed(Reason.MALFORMED, f"field {tag >> 3} has wire type {kind}")
        if pos > end:
            raise _truncated()
        return pos

    @cython.cfunc
    @cython.exceptval(-1)
    def _skip_group(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, number: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """The end of a group (wire types 3 and 4): OTLP has none, an unknown field may be one.

        Field number 0 passes in here, as it does in upb: a row that upb let into the pipeline must never stop it.
        """
        open_groups = [number]
        while open_groups:
            if pos >= end:
                raise _truncated()
            pos = self._tag(p, pos, end, 0)
            tag = self._value
            if tag & 7 == 4:
                if open_groups.pop() != tag >> 3:
                    raise Malformed(Reason.MALFORMED, "a group ends that did not start")
            elif tag & 7 == 3:
                open_groups.append(tag >> 3)
                if len(open_groups) > self._room:
                    raise Malformed(Reason.MALFORMED, "groups nest too deeply")
            else:
                pos = self._skip_value(p, pos, end, tag)
        return pos


@cython.cclass
class Columns(Wire):
    """Cells of the rows of one batch after another: row i has `cells[i * width:(i + 1) * width]`."""

    cells = cython.declare(object, visibility="readonly")
    width = cython.declare(cython.Py_ssize_t, visibility="readonly")
    rows = cython.declare(cython.Py_ssize_t, visibility="readonly")
    data = cython.declare(bytes, visibility="readonly")
    _view: cython.ulonglong[::1]

    def __init__(self, width: int) -> None:
        self._value = 0
        self._room = MAX_DEPTH
        self.width = width
        self.rows = 0
        self.data = b""
        self._reserve(_ROWS)

    def _reserve(self, rows: int) -> None:
        self.cells = array("Q", bytes(8 * rows * self.width))
        self._view = self.cells

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _walk(self, data: bytes, ends: array[int], starts: array[int] | None, count: cython.Py_ssize_t) -> cython.int:
        """Read the first `count` of the messages data[starts[i]:ends[i]]; without `starts` they lie end to end."""
        p: cython.p_const_uchar = data
        size: cython.Py_ssize_t = len(data)
        row: cython.Py_ssize_t
        start: cython.Py_ssize_t = 0
        stop: cython.Py_ssize_t
        gaps: cython.bint = starts is not None
        to: cython.const[cython.uint][::1] = ends
        begins: cython.const[cython.uint][::1] = starts if gaps else ends
        if count > min(len(to), len(begins)):
            raise IndexError("fewer bounds than rows")
        self.data = data
        for row in range(count):
            stop = to[row]
            if gaps:
                start = begins[row]
            if start > stop or stop > size:
                raise _truncated()
            self._row(p, start, stop, row)
            start = stop
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _row(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        """Read one message."""
        raise NotImplementedError

    @cython.cfunc
    @cython.exceptval(-1)
    def _rows(self, data: bytes, ends: array[int], starts: array[int] | None) -> cython.int:
        """Read all of the messages data[starts[i]:ends[i]], a row each."""
        count: cython.Py_ssize_t = len(ends)
        if count * self.width > len(self.cells):
            self._reserve(2 * count)
        self.rows = count
        return self._walk(data, ends, starts, count)


@cython.cclass
class KeyedColumns(Columns):
    """Cells of messages that have attributes: `first` cells each, then a slot for each of `keys`.

    `keys` maps an attribute's key to its slot, 0 ≤ slot < len(keys). Slot s has the bounds of its AnyValue at
    first + 2 s, (0, 0) when absent.

    A key that occurs twice: the first wins, as in the Collector (pdata's Map.Get).
    """

    _merged: bytearray  # values that came in several parts, put together: they count as lying behind the data
    _keys: dict
    _keyed: cython.bint
    _lists: cython.int[::1]
    _key_bounds: cython.int[::1]
    _key_bytes: bytes

    def __init__(self, first: int, keys: Mapping[bytes, int]) -> None:
        super().__init__(first + 2 * len(keys))
        self._keys = dict(keys)
        self._keyed = bool(keys)
        self._merged = bytearray()
        self._index_keys()

    @cython.cfunc
    @cython.exceptval(-1)
    def _walk(self, data: bytes, ends: array[int], starts: array[int] | None, count: cython.Py_ssize_t) -> cython.int:
        """The same, with what had to be merged behind the data."""
        self._merged = bytearray()
        Columns._walk(self, data, ends, starts, count)
        if self._merged:
            self.data = b"".join((data, self._merged))
        return 0

    def _index_keys(self) -> None:
        """Keys by a hash of length, first and last byte, in linked lists: (begin, end, slot, next) each."""
        lists = array("i", [-1]) * _KEY_LISTS
        bounds = array("i")
        text = b""
        for key, slot in self._keys.items():
            chosen = _key_list(key, 0, len(key))
            bounds.extend((len(text), len(text) + len(key), slot, lists[chosen]))
            lists[chosen] = len(bounds) - 4
            text += key
        self._lists, self._key_bounds, self._key_bytes = lists, bounds or array("i", [0]), text

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _attribute(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, slots: cython.Py_ssize_t
    ) -> cython.int:
        """Put a KeyValue into its slot unless an earlier one filled it."""
        key: cython.Py_ssize_t = pos + 2
        value: cython.Py_ssize_t
        # As every SDK writes it: the key, shorter than 128 bytes, then the value. Most keys are not asked for.
        if end - pos > 3 and p[pos] == 0x0A and p[pos + 1] < 0x80:
            value = key + p[pos + 1]
            if end - value >= 2 and p[value] == 0x12:
                if p[value + 1] < 0x80:
                    if value + 2 + p[value + 1] == end:
                        self._fill(slots, self._slot(p, key, value), value + 2, end)
                        return 0
                else:
                    pos_of_value: cython.Py_ssize_t = self._length(p, value + 1, end)
                    if pos_of_value + cython.cast(cython.Py_ssize_t, self._value) == end:
                        self._fill(slots, self._slot(p, key, value), pos_of_value, end)
                        return 0
        return self._any_attribute(p, pos, end, slots)

    @cython.cfunc
    @cython.exceptval(-1)
    def _any_attribute(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, slots: cython.Py_ssize_t
    ) -> cython.int:
        """The same for a KeyValue of any shape: the last key counts, and several values are parts of one."""
        tag: cython.ulonglong
        key: cython.Py_ssize_t = 0
        key_end: cython.Py_ssize_t = 0
        value: cython.Py_ssize_t = end
        value_end: cython.Py_ssize_t = end
        slot: cython.Py_ssize_t
        begin: cython.Py_ssize_t = pos
        parts: cython.Py_ssize_t = 0
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag & 7 == 2:
                pos = self._length(p, pos, end)
                if tag == 0x0A:
                    key, key_end = pos, pos + self._value
                elif tag == 0x12:
                    value, value_end = pos, pos + self._value
                    parts += 1
                pos += self._value
            else:
                pos = self._skip(p, pos, end, tag)
        slot = self._slot(p, key, key_end)
        if parts > 1 and slot >= 0 and self._view[slots + 2 * slot + 1] == 0:
            value = len(self.data) + len(self._merged)
            self._merge(p, begin, end)
            value_end = len(self.data) + len(self._merged)
        self._fill(slots, slot, value, value_end)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _merge(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
        """Put together the values of a KeyValue that was read before."""
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag == 0x12:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                self._merged += self.data[pos:stop]
                pos = stop
            else:
                pos = self._skip(p, pos, end, tag)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _fill(
        self, slots: cython.Py_ssize_t, slot: cython.Py_ssize_t, pos: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.void:
        if slot >= 0 and self._view[slots + 2 * slot + 1] == 0:
            self._view[slots + 2 * slot] = pos
            self._view[slots + 2 * slot + 1] = end

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _slot(self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The slot of a key, -1 when nobody asks for it."""
        if not cython.compiled:
            return self._keys.get(p[pos:end], -1)
        known: cython.p_const_uchar = self._key_bytes
        at: cython.Py_ssize_t = self._lists[_key_list(p, pos, end)]
        index: cython.Py_ssize_t
        while at >= 0:
            if self._key_bounds[at + 1] - self._key_bounds[at] == end - pos:
                for index in range(end - pos):
                    if known[self._key_bounds[at] + index] != p[pos + index]:
                        break
                else:
                    return self._key_bounds[at + 2]
            at = self._key_bounds[at + 3]
        return -1


@cython.cclass
class SpanColumns(KeyedColumns):
    """The cells of the spans of one batch.

    Row i has `cells[i * width:(i + 1) * width]`: see TRACE_ID … ATTRIBUTES. Ids and texts are bounds in the data that
    was scanned, equal when absent; KIND and STATUS the low 32 bits of theirs, FLAGS the low 8 (the W3C trace flags);
    times ns since the epoch; SIZE bytes. Slots are read with `value`. `starts` and `ends` are those of the last scan.
    """

    starts = cython.declare(object, visibility="readonly")
    ends = cython.declare(object, visibility="readonly")

    def __init__(self, keys: Mapping[bytes, int]) -> None:
        super().__init__(ATTRIBUTES, keys)
        self.starts, self.ends = None, array("I")

    def scan(self, data: bytes, ends: array[int], starts: array[int] | None = None) -> None:
        """Read the spans data[starts[i]:ends[i]]; without `starts` they lie end to end.

        Raises Malformed; never on rows that `RawRows` found.
        """
        self.starts, self.ends = starts, ends
        self._rows(data, ends, starts)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _row(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        base: cython.Py_ssize_t = row * self.width
        cell: cython.Py_ssize_t
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        for cell in range(base, base + self.width):
            self._view[cell] = 0
        self._view[base + _SIZE] = end - pos
        while pos < end:
            tag = p[pos]
            pos += 1
            if tag >= 0x80:
                if tag == _FLAGS_TAG and end - pos >= 5 and p[pos] == 1:  # every SDK writes them
                    self._view[base + _FLAGS] = p[pos + 1]
                    pos += 5
                    continue
                pos = self._tag(p, pos - 1, end, 8)
                tag = self._value
            if tag & 7 == 2:
                if pos < end and p[pos] < 0x80:
                    stop = pos + 1 + p[pos]
                    pos += 1
                    if stop > end:
                        raise _truncated()
                else:
                    pos = self._length(p, pos, end)
                    stop = pos + self._value
                if tag == 0x4A:  # 9 attributes
                    if self._keyed:
                        self._attribute(p, pos, stop, base + _ATTRIBUTES)
                elif tag <= 0x2A:
                    if tag < 8:
                        raise _field_zero()
                    # 1 trace_id, 2 span_id, 3 trace_state, 4 parent_span_id, 5 name: in the order of the cells
                    cell = base + 2 * ((tag >> 3) - 1)
                    self._view[cell] = pos
                    self._view[cell + 1] = stop
                elif tag == 0x7A:  # 15 status
                    self._status(p, pos, stop, base + _STATUS)
                pos = stop
            elif tag == 0x39:
                pos = self._fixed64(p, pos, end)
                self._view[base + _START_NS] = self._value
            elif tag == 0x41:
                pos = self._fixed64(p, pos, end)
                self._view[base + _END_NS] = self._value
            elif tag == 0x30:
                pos = self._varint(p, pos, end)
                self._view[base + _KIND] = self._value & _LOW_32
            else:
                if tag == 0x85 and pos < end:  # 16 flags, the tag in some longer encoding
                    self._view[base + _FLAGS] = p[pos]
                pos = self._skip(p, pos, end, tag)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _status(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, cell: cython.Py_ssize_t
    ) -> cython.int:
        """The code of a Status; without one an earlier part of it holds (protobuf merges)."""
        tag: cython.ulonglong
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag == 0x18:
                pos = self._varint(p, pos, end)
                self._view[cell] = self._value & _LOW_32
            else:
                pos = self._skip(p, pos, end, tag)
        return 0

    def value(self, row: int, slot: int) -> AttributeValue | None:
        """What a slot says: None when absent or not a scalar. U+FFFD stands for bytes of a text that are not UTF-8."""
        at = row * self.width + ATTRIBUTES + 2 * slot
        start, end = self.cells[at], self.cells[at + 1]
        return attribute_value(self.data, start, end) if end else None


@cython.cclass
class EventColumns(KeyedColumns):
    """The cells of the events of the spans of one batch, in their order: see EVENT_SPAN … EVENT_ATTRIBUTES.

    EVENT_SPAN is the row of the span; the name is bounds in the data, (0, 0) when absent.
    """

    def __init__(self, keys: Mapping[bytes, int]) -> None:
        super().__init__(EVENT_ATTRIBUTES, keys)

    def scan(self, spans: SpanColumns) -> None:
        """Read the events of the spans that were scanned last. Raises Malformed; never on rows of `RawRows`."""
        self.rows = 0
        self._walk(spans.data, spans.ends, spans.starts, spans.rows)

    @cython.cfunc
    @cython.exceptval(-1)
    def _row(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        """The events of a span, each a row of its own."""
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag & 7 == 2:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                if tag == 0x5A:  # 11 events
                    self._event(p, pos, stop, row)
                pos = stop
            else:
                pos = self._skip(p, pos, end, tag)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _event(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        base: cython.Py_ssize_t = self.rows * self.width
        cell: cython.Py_ssize_t
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        if base + self.width > len(self.cells):
            self.cells = grown(self.cells, 2 * len(self.cells))
            self._view = self.cells
        for cell in range(base, base + self.width):
            self._view[cell] = 0
        self._view[base + _EVENT_SPAN] = row
        self.rows += 1
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag & 7 == 2:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                if tag == 0x12:  # 2 name
                    self._view[base + _EVENT_NAME] = pos
                    self._view[base + _EVENT_NAME + 1] = stop
                elif tag == 0x1A and self._keyed:  # 3 attributes
                    self._attribute(p, pos, stop, base + _EVENT_ATTRIBUTES)
                pos = stop
            else:
                pos = self._skip(p, pos, end, tag)
        return 0


@cython.cclass
class StatusMessages(Columns):
    """The messages of the statuses of the spans of one batch: bounds in the data, (0, 0) when absent."""

    def __init__(self) -> None:
        super().__init__(2)

    def scan(self, spans: SpanColumns) -> None:
        """Read those of the spans that were scanned last. Raises Malformed; never on rows of `RawRows`."""
        if spans.rows * self.width > len(self.cells):
            self._reserve(2 * spans.rows)
        self.rows = spans.rows
        self._walk(spans.data, spans.ends, spans.starts, spans.rows)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _row(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        stop: cython.Py_ssize_t
        self._view[2 * row] = self._view[2 * row + 1] = 0
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            if self._value == 0x7A:  # 15 status
                pos = self._length(p, pos, end)
                stop = pos + self._value
                self._message(p, pos, stop, 2 * row)
                pos = stop
            else:
                pos = self._skip(p, pos, end, self._value)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _message(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, cell: cython.Py_ssize_t
    ) -> cython.int:
        """That of a Status; without one an earlier part of it holds (protobuf merges)."""
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            if self._value == 0x12:  # 2 message
                pos = self._length(p, pos, end)
                self._view[cell] = pos
                pos += self._value
                self._view[cell + 1] = pos
            else:
                pos = self._skip(p, pos, end, self._value)
        return 0


def attribute_value(data: bytes, start: int, end: int) -> AttributeValue | None:
    """The scalar of an AnyValue (`SpanColumns.value`)."""
    return _any_value(data, start, end, None)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _key_list(p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
    """In which list a key is, by its length, first and last byte."""
    if pos == end:
        return 0
    return (7 * (end - pos) + 31 * p[pos] + p[end - 1]) & (_KEY_LISTS - 1)


@cython.cclass
class LogColumns(Columns):
    """The cells of the log records of one batch, LOG_CELLS each.

    TRACE_ID and SPAN_ID are bounds as in `SpanColumns`; SEVERITY is the low 32 bits of the number; times ns, 0 when
    absent.
    """

    def __init__(self) -> None:
        super().__init__(LOG_CELLS)

    def scan(self, data: bytes, ends: array[int], starts: array[int] | None = None) -> None:
        """Read the log records data[starts[i]:ends[i]], as `SpanColumns.scan`.

        Raises Malformed; never on rows that `RawRows` found.
        """
        self._rows(data, ends, starts)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _row(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, row: cython.Py_ssize_t
    ) -> cython.int:
        base: cython.Py_ssize_t = row * _LOG_CELLS
        cell: cython.Py_ssize_t
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        for cell in range(base, base + _LOG_CELLS):
            self._view[cell] = 0
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag & 7 == 2:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                if tag == 0x4A:
                    self._view[base], self._view[base + 1] = pos, stop
                elif tag == 0x52:
                    self._view[base + 2], self._view[base + 3] = pos, stop
                pos = stop
            elif tag == 0x09:
                pos = self._fixed64(p, pos, end)
                self._view[base + _TIME_NS] = self._value
            elif tag == 0x59:
                pos = self._fixed64(p, pos, end)
                self._view[base + _OBSERVED_NS] = self._value
            elif tag == 0x10:
                pos = self._varint(p, pos, end)
                self._view[base + _SEVERITY] = self._value & _LOW_32
            else:
                pos = self._skip(p, pos, end, tag)
        return 0


def signed(number: int) -> int:
    """An int32 or enum from the low 32 bits of its varint.

    >>> signed(2), signed(0xFFFFFFFF)
    (2, -1)
    """
    return number - (1 << 32) if number >> 31 else number


def _message_kinds() -> tuple[dict[str, int], array[int]]:
    """A number for every message type of traces and logs, from 1; and which type each of their fields has, 0 if none.

    Field f of type t is at t * _FIELDS + f.
    """
    kinds: dict[str, int] = {}
    found = [otlp_check.TracesData.DESCRIPTOR, otlp_check.LogsData.DESCRIPTOR]
    for kind in found:  # grows while it is read
        kinds[kind.full_name] = len(kinds) + 1
        inner = [f.message_type for f in kind.fields if f.message_type is not None]
        found += [one for one in dict.fromkeys(inner) if one not in found]
    table = array("i", bytes(4 * _FIELDS * (len(kinds) + 1)))
    for kind in found:
        for one in kind.fields:
            if one.message_type is not None:
                table[kinds[kind.full_name] * _FIELDS + one.number] = kinds[one.message_type.full_name]
    return kinds, table


_KINDS, _KIND_TABLE = _message_kinds()


@cython.cclass
class RawRows(Wire):
    """The rows of many raw messages that lie end to end, found and checked in one walk.

    Strings may be any bytes: upb refuses a message for one that is not UTF-8, while the Collector and Jaeger take it,
    and one bad log line must not send its whole message to the dead-letter queue. After `scan` row i is
    data[starts[i]:ends[i]], the others of its columns are as in schemas/envelope.py, `resources` and `scopes` the
    distinct headers of all messages. Rows with an id that is none are apart, as `Rows` with keys of 0: in `nameless`
    those without a trace id, in `spanless` spans without a span id. `bad` has the messages that are malformed, with the
    reason; no row of theirs is anywhere.
    """

    starts = cython.declare(object, visibility="readonly")
    ends = cython.declare(object, visibility="readonly")
    resource = cython.declare(object, visibility="readonly")
    scope = cython.declare(object, visibility="readonly")
    message = cython.declare(object, visibility="readonly")
    item = cython.declare(object, visibility="readonly")
    keys = cython.declare(object, visibility="readonly")
    resources = cython.declare(list, visibility="readonly")
    scopes = cython.declare(list, visibility="readonly")
    nameless = cython.declare(object, visibility="readonly")
    spanless = cython.declare(object, visibility="readonly")
    bad = cython.declare(list, visibility="readonly")
    _traces: cython.bint
    _root: cython.int
    _row_kind: cython.int
    _pair_kind: cython.int
    _table: cython.int[::1]
    # Headers that came by, _HEADER numbers each: where the run of bytes before the rows lies and how long it is, the
    # run behind them likewise, and its number, -1: none. Most messages have one that came before.
    _seen: cython.longlong[::1]
    _next_way: cython.Py_ssize_t
    _columns: cython.uint[::1]  # _COLUMNS numbers a row
    _row_keys: cython.ulonglong[::1]
    _row_is: cython.uchar[::1]
    _count: cython.Py_ssize_t
    _apart: cython.Py_ssize_t  # rows that the message may still have without an id
    _items: cython.Py_ssize_t  # rows of the message so far
    _ids: cython.Py_ssize_t  # where the ids of the row lie: trace id from, to, span id from, to
    _ids_end: cython.Py_ssize_t
    _span: cython.Py_ssize_t
    _span_end: cython.Py_ssize_t
    _resource_numbers: dict
    _scope_numbers: dict

    def __init__(self, signal: str) -> None:
        self._value = 0
        self._room = MAX_DEPTH
        self._traces = signal == "traces"
        self._root = _KINDS[
            f"opentelemetry.proto.{'trace.v1.ResourceSpans' if self._traces else 'logs.v1.ResourceLogs'}"
        ]
        self._row_kind = _KINDS[f"opentelemetry.proto.{'trace.v1.Span' if self._traces else 'logs.v1.LogRecord'}"]
        self._pair_kind = _KINDS["opentelemetry.proto.common.v1.KeyValue"]
        self._table = _KIND_TABLE
        self._seen = array("q", bytes(8 * _HEADER * 3 * _SETS * _WAYS))
        self._columns = array("I", bytes(4 * _COLUMNS * _ROWS))
        self._row_keys = array("Q", bytes(8 * _ROWS))
        self._row_is = array("B", bytes(_ROWS))
        self._count = self._apart = self._next_way = 0

    def scan(self, data: bytes, ends: array[int], starts: array[int] | None = None) -> None:
        """Take the messages apart: message m is data[starts[m]:ends[m]]. Without `starts` they lie end to end."""
        p: cython.p_const_uchar = data
        size: cython.Py_ssize_t = len(data)
        start: cython.Py_ssize_t = 0
        stop: cython.Py_ssize_t
        number: cython.Py_ssize_t
        count: cython.Py_ssize_t
        self._count = 0
        self._resource_numbers, self._scope_numbers = {}, {}
        for number in range(4, len(self._seen), _HEADER):
            self._seen[number] = -1  # they lay in other data
        self.bad = []
        for number in range(len(ends)):
            stop = ends[number]
            if starts is not None:
                start = starts[number]
            if start > stop or stop > size:
                raise _truncated()
            count = self._count
            try:
                self._message(data, p, start, stop, number)
            except Malformed as error:
                self._count = count
                self.bad.append((number, error.detail))
            start = stop
        self.resources, self.scopes = list(self._resource_numbers), list(self._scope_numbers)
        named = self._rows_that_are(0)
        self.starts, self.ends, self.resource, self.scope = named.starts, named.ends, named.resource, named.scope
        self.message, self.item, self.keys = named.message, named.item, named.keys
        self.nameless, self.spanless = self._rows_that_are(_NAMELESS), self._rows_that_are(_SPANLESS)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _rows_that_are(self, kind: cython.int) -> Rows:
        count: cython.Py_ssize_t = 0
        at: cython.Py_ssize_t
        row: cython.Py_ssize_t
        column: cython.Py_ssize_t
        for row in range(self._count):
            count += self._row_is[row] == kind
        if count == 0:
            return Rows(self.resources, self.scopes)
        columns = []
        for column in range(_COLUMNS):
            one = array("I", bytes(4 * count))
            view: cython.uint[::1] = one
            at = 0
            for row in range(self._count):
                if self._row_is[row] == kind:
                    view[at] = self._columns[row * _COLUMNS + column]
                    at += 1
            columns.append(one)
        keys = array("Q", bytes(8 * count))
        numbers: cython.ulonglong[::1] = keys
        at = 0
        for row in range(self._count):
            if self._row_is[row] == kind:
                numbers[at] = self._row_keys[row]
                at += 1
        starts, ends, resource, scope, message, item = columns
        return Rows(self.resources, self.scopes, starts, ends, resource, scope, message, item, keys)

    @cython.cfunc
    @cython.exceptval(-1)
    def _message(
        self,
        data: bytes,
        p: cython.p_const_uchar,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        message: cython.Py_ssize_t,
    ) -> cython.int:
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        parts: cython.Py_ssize_t = 0
        self._items = 0
        self._apart = max(MOST_APART, (end - pos) // BYTES_APART)
        while pos < end:
            pos = self._outer_tag(p, pos, end, 1)
            tag = self._value
            if tag == 0x0A:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                self._part(data, p, pos, stop, message, 1)
                parts += 1
                pos = stop
            else:
                self._room = _MAX_DEPTH
                pos = self._skip(p, pos, end, tag)
        if parts == 0:
            raise Malformed(Reason.MALFORMED, f"no Resource{'Spans' if self._traces else 'Logs'} in the message")
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _outer_tag(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, known: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """A tag of OTLP's outer levels, whose fields 1 to `known` are all length-delimited."""
        pos = self._tag(p, pos, end, 8)
        if self._value >> 3 <= known and self._value & 7 != 2:
            raise Malformed(Reason.MALFORMED, f"field {self._value >> 3} has wire type {self._value & 7}, OTLP has 2")
        return pos

    @cython.cfunc
    @cython.exceptval(-1)
    def _part(
        self,
        data: bytes,
        p: cython.p_const_uchar,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        message: cython.Py_ssize_t,
        level: cython.int,
    ) -> cython.int:
        """A ResourceSpans or ResourceLogs (level 1) or one of its scopes (2): its rows, then which header they have."""
        begin: cython.Py_ssize_t = pos
        lead: cython.Py_ssize_t = -1  # bytes before the first of its children; -1: none came yet
        other: cython.Py_ssize_t = pos  # where the current run of other fields starts
        between: list[bytes] = []  # such runs, but for the first and the last
        at: cython.Py_ssize_t
        stop: cython.Py_ssize_t
        tag: cython.ulonglong
        row: cython.Py_ssize_t
        number: cython.Py_ssize_t = -1
        seen: cython.Py_ssize_t = -1
        first: cython.Py_ssize_t = self._count
        kind: cython.int = self._root if level == 1 else self._table[self._root * _FIELDS + 2]
        old: cython.bint = False
        if pos < end and p[pos] == 0x0A:
            at = self._length(p, pos + 1, end)
            stop = at + self._value
            seen = self._place(p, pos, stop, level)
            if seen < 0:
                seen = -seen
            else:
                pos = stop  # it was checked where it came before
        while pos < end:
            at = pos
            pos = self._outer_tag(p, pos, end, 3)
            tag = self._value
            if tag == 0x12:
                pos = self._length(p, pos, end)
                stop = pos + self._value
                if lead < 0:
                    lead = at - begin
                elif other < at:
                    between.append(data[other:at])
                if level == 1:
                    self._part(data, p, pos, stop, message, 2)
                else:
                    self._add(p, pos, stop, message)
                pos = other = stop
            else:
                old |= tag == _LIBRARY_TAG
                pos = self._known(p, pos, end, tag, kind, level)
        if old and level == 1 and first == self._count:
            raise Malformed(Reason.MALFORMED, otlp_check.library_of("spans" if self._traces else "logs"))
        if lead < 0:
            lead, other = end - begin, end
        if seen >= 0 and not between and self._is_seen(p, seen, begin, lead, other, end - other):
            number = self._seen[seen + 4]
        if number < 0:
            numbers: dict[bytes, int] = self._resource_numbers if level == 1 else self._scope_numbers
            header = data[begin : begin + lead] + b"".join(between) + data[other:end]
            number = numbers.setdefault(header, len(numbers))
            if seen >= 0 and not between:
                self._seen[seen], self._seen[seen + 1] = begin, lead
                self._seen[seen + 2], self._seen[seen + 3] = other, end - other
                self._seen[seen + 4] = number
        for row in range(first, self._count):
            self._columns[row * _COLUMNS + 1 + level] = number
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _place(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, level: cython.int
    ) -> cython.Py_ssize_t:
        """Where in `_seen` a header is that begins with these bytes; if there is none the place for it, below 0."""
        size: cython.Py_ssize_t = end - pos
        mixed: cython.ulonglong = size
        step: cython.Py_ssize_t = size // 16 + 1
        at: cython.Py_ssize_t = pos
        place: cython.Py_ssize_t
        way: cython.Py_ssize_t
        while at < end:
            mixed = (mixed * 31 + p[at]) & _LOW_32
            at += step
        place = (level * _SETS + cython.cast(cython.Py_ssize_t, mixed % _SETS)) * _WAYS * _HEADER
        for way in range(_WAYS):
            at = place + _HEADER * way
            if self._seen[at + 4] < 0:
                return -at
            if size <= self._seen[at + 1] and _same(p, pos, self._seen[at], size):
                return at
        self._next_way = (self._next_way + 1) % _WAYS
        return -(place + _HEADER * self._next_way)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _is_seen(
        self,
        p: cython.p_const_uchar,
        at: cython.Py_ssize_t,
        lead: cython.Py_ssize_t,
        lead_size: cython.Py_ssize_t,
        last: cython.Py_ssize_t,
        last_size: cython.Py_ssize_t,
    ) -> cython.int:
        """Whether the header there is this one, of two runs of bytes."""
        if self._seen[at + 4] < 0 or self._seen[at + 1] != lead_size or self._seen[at + 3] != last_size:
            return 0
        return _same(p, lead, self._seen[at], lead_size) and _same(p, last, self._seen[at + 2], last_size)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _add(
        self, p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, message: cython.Py_ssize_t
    ) -> cython.int:
        at: cython.Py_ssize_t = self._count
        key: cython.ulonglong = 0
        index: cython.Py_ssize_t
        item: cython.Py_ssize_t = self._items
        kind: cython.uchar = 0
        self._ids = self._ids_end = self._span = self._span_end = 0
        self._nested(p, pos, end, self._row_kind, 3)
        self._items += 1
        if not _is_id(p, self._ids, self._ids_end, 16):
            kind = _NAMELESS
        elif self._traces and not _is_id(p, self._span, self._span_end, 8):
            kind = _SPANLESS
        else:
            for index in range(self._ids + 8, self._ids_end):
                key = ((key & _LOW_56) << 8) | p[index]
        if kind:
            self._apart -= 1
            if self._apart < 0:
                raise Malformed(Reason.MALFORMED, "too many rows without an id for its size")
        if at >= len(self._row_keys):
            self._grow()
        self._row_keys[at] = key
        self._row_is[at] = kind
        at *= _COLUMNS
        self._columns[at] = pos
        self._columns[at + 1] = end
        self._columns[at + 4] = message
        self._columns[at + 5] = item
        self._count += 1
        return 0

    def _grow(self) -> None:
        rows = 2 * len(self._row_keys)
        self._columns = grown(self._columns, _COLUMNS * rows)
        self._row_keys, self._row_is = grown(self._row_keys, rows), grown(self._row_is, rows)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _known(
        self,
        p: cython.p_const_uchar,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        tag: cython.ulonglong,
        kind: cython.int,
        depth: cython.int,
    ) -> cython.Py_ssize_t:
        """The end of a field of a message of this kind; what is in it is checked too."""
        self._room = _MAX_DEPTH - depth
        stop: cython.Py_ssize_t = self._skip(p, pos, end, tag)
        child: cython.int
        if tag & 7 == 2 and tag >> 3 < _FIELDS:
            child = self._table[kind * _FIELDS + (tag >> 3)]
            if child != 0:
                pos = self._length(p, pos, end)
                self._nested(p, pos, stop, child, depth + 1)
        return stop

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _nested(
        self,
        p: cython.p_const_uchar,
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        kind: cython.int,
        depth: cython.int,
    ) -> cython.int:
        """Check a message down to its last nested field."""
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        child: cython.int
        if depth > _MAX_DEPTH:
            raise Malformed(Reason.MALFORMED, "messages nest too deeply")
        while pos < end:
            tag = p[pos]
            if tag >= 0x80:
                pos = self._tag(p, pos, end, 8)
                tag = self._value
            elif tag < 8:
                raise _field_zero()
            else:
                pos += 1
            if tag & 7 == 2:
                if pos < end and p[pos] < 0x80:
                    stop = pos + 1 + p[pos]
                    pos += 1
                    if stop > end:
                        raise _truncated()
                else:
                    pos = self._length(p, pos, end)
                    stop = pos + self._value
                child = self._table[kind * _FIELDS + (tag >> 3)] if tag >> 3 < _FIELDS else 0
                if child == self._pair_kind and _is_plain_pair(p, pos, stop):
                    pass
                elif child != 0:
                    self._nested(p, pos, stop, child, depth + 1)
                elif kind == self._row_kind:
                    if tag == (0x0A if self._traces else 0x4A):
                        self._ids, self._ids_end = pos, stop
                    elif tag == (0x12 if self._traces else 0x52):
                        self._span, self._span_end = pos, stop
                pos = stop
            else:
                self._room = _MAX_DEPTH - depth
                pos = self._skip(p, pos, end, tag)
        return 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _same(
    p: cython.p_const_uchar, one: cython.Py_ssize_t, other: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.bint:
    """Whether so many bytes are the same in two places."""
    if cython.compiled:
        return memcmp(p + one, p + other, size) == 0
    return p[one : one + size] == p[other : other + size]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_plain_pair(p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    """Whether data[pos:end] is a KeyValue as most are: a short key, then a short text or a truth value."""
    value: cython.Py_ssize_t
    if end - pos < 6 or p[pos] != 0x0A or p[pos + 1] >= 0x80:
        return False
    value = pos + 2 + p[pos + 1]
    if end - value < 4 or p[value] != 0x12 or value + 2 + p[value + 1] != end or p[value + 1] >= 0x80:
        return False
    if p[value + 2] == 0x0A:
        return value + 4 + p[value + 3] == end and p[value + 3] < 0x80
    return p[value + 2] == 0x10 and value + 4 == end and p[value + 3] < 0x80


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _is_id(
    p: cython.p_const_uchar, pos: cython.Py_ssize_t, end: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.bint:
    """Whether data[pos:end] is an id: so many bytes, not all zero."""
    index: cython.Py_ssize_t
    if end - pos == size:
        for index in range(pos, end):
            if p[index] != 0:
                return True
    return False


def resource_attributes(header: bytes, keys: Mapping[bytes, int]) -> list[AttributeValue | None]:
    """Read a resource's attributes from a header of `Rows.resources`, by slot as `SpanColumns`. Raises Malformed."""
    attributes: list[AttributeValue | None] = [None] * len(keys)
    seen: set[int] = set()
    for tag, start, end in _fields(header, 0, len(header)):
        if tag == 0x0A:
            for inner, pos, stop in _fields(header, start, end):
                if inner == 0x0A:
                    _resource_attribute(header, pos, stop, keys, attributes, seen)
    return attributes


def scope_texts(header: bytes) -> tuple[str, str]:
    """Name and version of an instrumentation scope, from a header of `Rows.scopes`. Raises Malformed."""
    texts = {0x0A: "", 0x12: ""}
    for tag, start, end in _fields(header, 0, len(header)):
        if tag == 0x0A:
            for inner, pos, stop in _fields(header, start, end):
                if inner in texts:
                    texts[inner] = header[pos:stop].decode("utf-8", "replace")
    return texts[0x0A], texts[0x12]


def _resource_attribute(
    data: bytes, pos: int, end: int, keys: Mapping[bytes, int], attributes: list[AttributeValue | None], seen: set[int]
) -> None:
    key = b""
    value: AttributeValue | None = None
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x0A:
            key = data[start:stop]
        elif tag == 0x12:
            value = _any_value(data, start, stop, value)
    slot = keys.get(key)
    if slot is not None and slot not in seen:
        seen.add(slot)
        attributes[slot] = value


def _any_value(data: bytes, pos: int, end: int, value: AttributeValue | None) -> AttributeValue | None:
    """The scalar of an AnyValue; `value` is what an earlier part of the same message said (protobuf merges)."""
    for tag, start, stop in _fields(data, pos, end):
        if tag == 0x0A:
            value = data[start:stop].decode("utf-8", "replace")
        elif tag == 0x10:
            value = varint(data, start) != 0
        elif tag == 0x18:
            number = varint(data, start)
            value = number - (1 << 64) if number >> 63 else number
        elif tag == 0x21:
            value = float(_double(data, start)[0])
        elif tag == 0x3A:
            value = data[start:stop]
        elif tag in (0x2A, 0x32, 0x40):  # array, kvlist, index into a table that only profiles have
            value = None
    return value


@cython.cclass
class Fields(Wire):
    """Walks any message. For what is read rarely."""

    def list(self, data: bytes, pos: cython.Py_ssize_t, end: cython.Py_ssize_t) -> list[tuple[int, int, int]]:
        """(tag, start, end) of the value of every field in data[pos:end]; `end` lies in the data."""
        p: cython.p_const_uchar = data
        found: list[tuple[int, int, int]] = []
        tag: cython.ulonglong
        stop: cython.Py_ssize_t
        while pos < end:
            pos = self._tag(p, pos, end, 8)
            tag = self._value
            if tag & 7 == 2:
                pos = self._length(p, pos, end)
                stop = pos + self._value
            else:
                stop = self._skip(p, pos, end, tag)
            found.append((tag, pos, stop))
            pos = stop
        return found

    def varint(self, data: bytes, pos: cython.Py_ssize_t) -> int:
        """The varint at `pos`."""
        p: cython.p_const_uchar = data
        self._varint(p, pos, len(data))
        return self._value


_WALK = Fields()


def _fields(data: bytes, pos: int, end: int) -> list[tuple[int, int, int]]:
    return _WALK.list(data, pos, end)


def varint(data: bytes, pos: int) -> int:
    """The varint at `pos`, cut to 64 bits. Raises Malformed."""
    return _WALK.varint(data, pos)


def _truncated() -> Malformed:
    return Malformed(Reason.MALFORMED, "a field ends after its message")


def _field_zero() -> Malformed:
    return Malformed(Reason.MALFORMED, "field number 0")
