"""Prometheus remote write 1.0 on the receiving side: WriteRequest bytes as labels and samples.

Field numbers: prometheus/prompb remote.proto and types.proto. Unknown fields (metadata, exemplars) are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import cramjam

from pipeline.demo.ledger import Labels
from schemas.errors import Malformed
from schemas.reasons import Reason

STALE = 0x7FF0000000000002
"""The bits of the NaN that ends a series."""


class Sample(NamedTuple):
    """One value of a series. `value` is None where the series ends; `time_ms` since the Unix epoch."""

    labels: Labels
    time_ms: int
    value: float | None


def decode(body: bytes) -> list[Sample]:
    """The samples of a snappy-compressed WriteRequest, in order. Raises Malformed."""
    try:
        data = bytes(cramjam.snappy.decompress_raw(body))
        return [
            sample for number, part in _fields(data) if number == 1 and isinstance(part, bytes)
            for sample in _series(part)
        ]  # fmt: skip
    except (cramjam.DecompressionError, IndexError, UnicodeDecodeError, struct.error) as error:
        raise Malformed(Reason.MALFORMED, f"not a WriteRequest: {error}") from error


def _series(data: bytes) -> Iterator[Sample]:
    labels: dict[str, str] = {}
    samples: list[tuple[int, float | None]] = []
    for number, part in _fields(data):
        if not isinstance(part, bytes):
            continue
        if number == 1:
            label = {n: v.decode() for n, v in _fields(part) if isinstance(v, bytes)}
            labels[label.get(1, "")] = label.get(2, "")
        elif number == 2:
            samples.append(_sample(part))
    known = frozenset(labels.items())
    for time_ms, value in samples:
        yield Sample(known, time_ms, value)


def _sample(data: bytes) -> tuple[int, float | None]:
    bits, time_ms = 0, 0
    for number, part in _fields(data):
        if number == 1 and isinstance(part, bytes):
            bits = struct.unpack("<Q", part)[0]
        elif number == 2 and isinstance(part, int):
            time_ms = part - (1 << 64) if part >> 63 else part
    return time_ms, None if bits == STALE else struct.unpack("<d", struct.pack("<Q", bits))[0]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with values: varints as int, everything else as its bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise IndexError(f"wire type {wire}")
        if at + size > len(data):
            raise IndexError("a field ends behind the message")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise IndexError("a varint of more than ten bytes")
