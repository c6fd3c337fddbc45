"""`timeseries` fields of a WriteRequest (remote write 1.0), from label values that lie somewhere as UTF-8.

Field numbers: prometheus/prompb remote.proto and types.proto. WriteRequest { timeseries = 1 }, TimeSeries { labels = 1,
samples = 2, histograms = 4 }, Label { name = 1, value = 2 }, Sample { double value = 1, int64 timestamp = 2 }. Labels
are sorted by name, as bytes; empty values are left out, as absent labels are (Prometheus remote write specification
1.0, "Labels").

Memory layout: the label fields of a row are written once, end to end in the order of names, `_ends` says where each one
ends. Each series of the row is a copy of them with its fixed labels (`__name__`, `le`) between, written behind the
series before it in the slice of its lane; no series is an object. Compiled, a series of ten labels costs 0.3 µs
(bench/micro/encoding.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import NamedTuple

import cython

from schemas.columns import grown

_BYTES = 1024
_VARINT = cython.declare(cython.Py_ssize_t, 10)  # the most that a varint takes
_double = Struct("<d").pack
# The hash that deals rows out: as many bytes as fit a word at a time, each mixed in by a multiplication.
_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.libc.string import memcpy


class Slice(NamedTuple):
    """Series of one lane: their `timeseries` fields end to end, where each one ends, and which of the record it is."""

    lane: int
    fields: bytes
    ends: array[int]
    numbers: array[int]


@cython.cclass
class _Lane:
    """The slice of a lane that is being filled."""

    _number: cython.Py_ssize_t
    _most: cython.Py_ssize_t
    _most_bytes: cython.Py_ssize_t
    _full: list[Slice]
    out: cython.uchar[::1]
    used: cython.Py_ssize_t
    ends: cython.uint[::1]
    numbers: cython.uint[::1]
    series: cython.Py_ssize_t

    def __init__(
        self, number: cython.Py_ssize_t, most: cython.Py_ssize_t, most_bytes: cython.Py_ssize_t, full: list[Slice]
    ) -> None:
        self._number, self._most, self._most_bytes, self._full = number, most, most_bytes, full
        self.out = array("B", bytes(_BYTES))
        self.ends, self.numbers = array("I", bytes(4 * most)), array("I", bytes(4 * most))
        self.used = self.series = 0

    @cython.cfunc
    @cython.exceptval(-1)
    def room(self, size: cython.Py_ssize_t) -> cython.int:
        """Have room for one series more, of at most so many bytes."""
        if self.series == self._most or (self.series and self.used + size > self._most_bytes):
            self.close()
        if self.used + size > len(self.out):
            self.out = grown(self.out, 2 * (self.used + size))
        return 0

    @cython.ccall
    def close(self) -> None:
        """Go on with another slice."""
        if self.series:
            fields = memoryview(self.out)[: self.used].tobytes()
            ends = array("I", memoryview(self.ends)[: self.series].tobytes())
            numbers = array("I", memoryview(self.numbers)[: self.series].tobytes())
            self._full.append(Slice(self._number, fields, ends, numbers))
            self.used = self.series = 0


@cython.cclass
class Slices:
    """The series of one record, dealt out to lanes, at most so many and so many bytes to a slice (one alone may have
    more).
    """

    _lanes: list[_Lane]
    _full: list[Slice]
    _series: cython.uint

    def __init__(self, lanes: cython.Py_ssize_t, most: cython.Py_ssize_t, most_bytes: cython.Py_ssize_t) -> None:
        self._full = []
        self._lanes = [_Lane(lane, most, most_bytes, self._full) for lane in range(lanes)]
        self._series = 0

    def cut(self) -> list[Slice]:
        """All of them since the last time; those of a lane in order, and no slice goes on."""
        lane: _Lane
        for lane in self._lanes:
            lane.close()
        found = list(self._full)
        self._full.clear()
        return found


@cython.cclass
class SeriesWriter:
    """The series of one metric. `names` are the labels of its rows; each row has a series for each of `fixed`, which
    are complete labels. No name occurs twice.
    """

    _labels: cython.Py_ssize_t
    _series: cython.Py_ssize_t
    _seed: cython.ulonglong
    _slots: cython.uint[::1]  # of the k-th label by name: where its value stands in a row
    _names: bytes  # `name` fields of the labels, in order
    _name_ends: cython.uint[::1]
    _fixed: bytes  # complete label fields of all series, end to end
    _fixed_ends: cython.uint[::1]
    _fixed_before: cython.uint[::1]  # of each: how many of a row's labels come before it
    _fixed_of: cython.uint[::1]  # of series i: where its own begin, [_series] where the last ones end
    _row: cython.uchar[::1]  # the label fields of the row at hand
    _ends: cython.uint[::1]

    def __init__(self, names: Sequence[str], fixed: Sequence[Mapping[str, str]]) -> None:
        encoded = [name.encode() for name in names]
        order = sorted(range(len(names)), key=encoded.__getitem__)
        in_order = [encoded[slot] for slot in order]
        name_fields = [_field(0x0A, name) for name in in_order]
        own = [sorted((name.encode(), text.encode()) for name, text in labels.items()) for labels in fixed]
        fields = [_field(0x0A, _field(0x0A, name) + _field(0x12, text)) for labels in own for name, text in labels]
        before = [sum(other < name for other in in_order) for labels in own for name, _ in labels]
        self._labels, self._series = len(names), len(fixed)
        self._seed = hash(tuple(sorted(fixed[0].items()))) & 0xFFFFFFFFFFFFFFFF if fixed else 0
        self._slots = array("I", [*order, 0])
        self._names, self._name_ends = b"".join(name_fields), _ends_of(name_fields)
        self._fixed, self._fixed_ends, self._fixed_before = b"".join(fields), _ends_of(fields), array("I", [*before, 0])
        self._fixed_of = _ends_of(own)
        self._row = array("B", bytes(_BYTES))
        self._ends = array("I", bytes(4 * (len(names) + 1)))

    def numbers(
        self,
        data: bytes,
        cells: array[int],
        at: cython.Py_ssize_t,
        width: cython.Py_ssize_t,
        numbers: Sequence[float] | Sequence[list[float | None]],
        time: bytes,
        into: Slices,
    ) -> None:
        """Write each series of rows, in order.

        A row has one number, or a list of one for each series, None for no sample. The text of label k of row i is
        `data[cells[j]:cells[j + 1]]`, j = at + i * width + 2 * k. `time` is the varint of its ms. All series of a row
        have one lane, which does not change with labels that are empty.
        """
        sample = b"\x12" + bytes((10 + len(time), 0x09)) + bytes(8) + b"\x10" + time
        bounds: cython.const[cython.uint][::1] = cells
        lane: _Lane
        row: cython.Py_ssize_t
        part: cython.Py_ssize_t
        number: cython.double
        _check(at + (len(numbers) - 1) * width + 2 * self._labels, len(bounds))
        for row in range(len(numbers)):
            self._load(data, bounds, at + row * width)
            lane = into._lanes[self._lane(len(into._lanes))]
            told = numbers[row]
            if isinstance(told, list):
                _check_samples(len(told), self._series)
                for part in range(self._series):
                    if told[part] is not None:
                        number = told[part]
                        self._one(part, sample, True, number, into, lane)
            else:
                _check_samples(1, self._series)
                number = told
                self._one(0, sample, True, number, into, lane)

    def samples(
        self,
        data: bytes,
        cells: array[int],
        at: cython.Py_ssize_t,
        width: cython.Py_ssize_t,
        samples: list[list[bytes]],
        into: Slices,
    ) -> None:
        """The same for rows with `samples`: a `samples` or `histograms` field for each series, empty for none."""
        bounds: cython.const[cython.uint][::1] = cells
        lane: _Lane
        row: cython.Py_ssize_t
        part: cython.Py_ssize_t
        _check(at + (len(samples) - 1) * width + 2 * self._labels, len(bounds))
        for row in range(len(samples)):
            told = samples[row]
            _check_samples(len(told), self._series)
            self._load(data, bounds, at + row * width)
            lane = into._lanes[self._lane(len(into._lanes))]
            for part in range(self._series):
                if told[part]:
                    self._one(part, told[part], False, 0.0, into, lane)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _load(self, data: bytes, bounds: cython.const[cython.uint][::1], at: cython.Py_ssize_t) -> cython.int:
        """Write the label fields of the row whose first label's bounds are at `at`."""
        size: cython.Py_ssize_t = len(data)
        used: cython.Py_ssize_t = 0
        name: cython.Py_ssize_t = 0
        index: cython.Py_ssize_t
        name_end: cython.Py_ssize_t
        start: cython.Py_ssize_t
        end: cython.Py_ssize_t
        inner: cython.Py_ssize_t
        row: cython.p_uchar = _memory(self._row)
        for index in range(self._labels):
            name_end = self._name_ends[index]
            start = bounds[at + 2 * self._slots[index]]
            end = bounds[at + 2 * self._slots[index] + 1]
            if start > end or end > size:
                raise IndexError("a label beyond the data")
            if start < end:
                inner = name_end - name + 1 + _width(end - start) + end - start
                if used + inner + 1 + _VARINT > len(self._row):
                    self._row = grown(self._row, 2 * (used + inner + 1 + _VARINT))
                    row = _memory(self._row)
                row[used] = 0x0A
                used = _put_varint(row, used + 1, inner)
                used = _put(row, used, self._names, name, name_end)
                row[used] = 0x12
                used = _put_varint(row, used + 1, end - start)
                used = _put(row, used, data, start, end)
            self._ends[index] = used
            name = name_end
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _one(
        self,
        series: cython.Py_ssize_t,
        sample: bytes,
        has_number: cython.bint,
        number: cython.double,
        into: Slices,
        lane: _Lane,
    ) -> cython.int:
        """The `timeseries` field of series `series` of the row at hand; `number` goes over the sample's own."""
        first: cython.Py_ssize_t = self._fixed_of[series - 1] if series else 0
        last: cython.Py_ssize_t = self._fixed_of[series]
        fixed: cython.Py_ssize_t = self._fixed_ends[first - 1] if first else 0
        size: cython.Py_ssize_t = (self._fixed_ends[last - 1] if last else 0) - fixed
        whole: cython.Py_ssize_t = self._ends[self._labels - 1] if self._labels else 0
        done: cython.Py_ssize_t = 0  # bytes of the row
        upto: cython.Py_ssize_t
        at: cython.Py_ssize_t
        index: cython.Py_ssize_t
        row: cython.p_uchar = _memory(self._row)
        out: cython.p_uchar
        size += whole + len(sample)
        lane.room(size + 1 + _VARINT)
        out = _memory(lane.out)
        out[lane.used] = 0x0A
        at = _put_varint(out, lane.used + 1, size)
        for index in range(first, last):
            upto = self._ends[self._fixed_before[index] - 1] if self._fixed_before[index] else 0
            at = _copy(out, at, row, done, upto)
            done = upto
            at = _put(out, at, self._fixed, fixed, self._fixed_ends[index])
            fixed = self._fixed_ends[index]
        at = _copy(out, at, row, done, whole)
        at = _put(out, at, sample, 0, len(sample))
        if has_number:
            _put_double(out, at - len(sample) + 3, number)
        lane.used = at
        lane.ends[lane.series] = at
        lane.numbers[lane.series] = into._series
        lane.series += 1
        into._series += 1
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _lane(self, lanes: cython.ulonglong) -> cython.ulonglong:
        hashed: cython.ulonglong = self._seed
        word: cython.ulonglong = 0
        at: cython.Py_ssize_t = 0
        size: cython.Py_ssize_t = self._ends[self._labels - 1] if self._labels else 0
        if lanes <= 1:
            return 0
        if not cython.compiled:
            return hash((int(self._seed), bytes(self._row[:size]))) % lanes
        while at < size:
            word = 0
            memcpy(cython.address(word), cython.address(self._row[at]), 8 if size - at >= 8 else size - at)
            hashed = (hashed ^ word) * _GOLDEN
            hashed ^= hashed >> 29
            at += 8
        return (hashed >> 20) % lanes


def _field(tag: int, data: bytes) -> bytes:
    """A length-delimited field."""
    head, length = [tag], len(data)
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((*head, length)) + data


def _ends_of(parts: Sequence[Sequence[object]]) -> array[int]:
    """Where each part ends if they lie end to end; one entry more, so that there is at least one."""
    ends, end = array("I"), 0
    for part in parts:
        end += len(part)
        ends.append(end)
    ends.append(end)
    return ends


@cython.cfunc
@cython.exceptval(-1)
def _check_samples(found: cython.Py_ssize_t, series: cython.Py_ssize_t) -> cython.int:
    if found != series:
        raise ValueError(f"{found} samples for {series} series")
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _memory(column: cython.uchar[::1]) -> cython.p_uchar:
    """Where a column lies; uncompiled, itself."""
    if not cython.compiled:
        return column
    return cython.address(column[0])


@cython.cfunc
@cython.exceptval(-1)
def _check(last: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.int:
    if last > size:
        raise IndexError("fewer cells than labels")
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _width(value: cython.ulonglong) -> cython.Py_ssize_t:
    """Bytes of a varint."""
    width: cython.Py_ssize_t = 1
    while value >= 0x80:
        value >>= 7
        width += 1
    return width


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.exceptval(-1)
def _put_varint(out: cython.p_uchar, at: cython.Py_ssize_t, value: cython.ulonglong) -> cython.Py_ssize_t:
    """The caller has seen to it that there is room; so in those below."""
    while value >= 0x80:
        out[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.exceptval(-1)
def _put_double(out: cython.p_uchar, at: cython.Py_ssize_t, number: cython.double) -> cython.int:
    bits: cython.ulonglong = 0
    index: cython.Py_ssize_t
    if not cython.compiled:
        out[at : at + 8] = array("B", _double(number))
        return 0
    memcpy(cython.address(bits), cython.address(number), 8)
    for index in range(8):
        out[at + index] = bits & 0xFF
        bits >>= 8
    return 0


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.exceptval(-1)
def _put(
    out: cython.p_uchar, at: cython.Py_ssize_t, data: bytes, start: cython.Py_ssize_t, end: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    if not cython.compiled:
        out[at : at + end - start] = array("B", data[start:end])
    elif end > start:
        memcpy(out + at, PyBytes_AS_STRING(data) + start, end - start)
    return at + end - start


@cython.cfunc
@cython.boundscheck(False)
@cython.wraparound(False)
@cython.exceptval(-1)
def _copy(
    out: cython.p_uchar,
    at: cython.Py_ssize_t,
    data: cython.p_uchar,
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    if not cython.compiled:
        out[at : at + end - start] = data[start:end]
    elif end > start:
        memcpy(out + at, data + start, end - start)
    return at + end - start
