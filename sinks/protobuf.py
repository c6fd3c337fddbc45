"""Numbers and fields of protobuf that sinks find in what they wrote (schemas/otlp_build.py), and zigzag numbers."""

from __future__ import annotations

from schemas.otlp_build import varint


def varint_before(data: bytes, end: int) -> int:
    """The signed number (int64) that ends there; a byte below 0x80, as a tag is one, comes before it."""
    value = at = 0
    for at in range(end - 1, -1, -1):
        if at < end - 1 and data[at] < 0x80:
            break
        value = value << 7 | data[at] & 0x7F
    return value - (1 << 64) if value >> 63 else value


def leading_fields(data: bytes, start: int, tag: int) -> bytes:
    """The length-delimited fields of this tag that the message of the field at `start` begins with."""
    at = start + 1
    while data[at] >= 0x80:
        at += 1
    first = at = at + 1
    while data[at] == tag:
        size, shift, at = data[at + 1] & 0x7F, 7, at + 1
        while data[at] >= 0x80:
            at += 1
            size |= (data[at] & 0x7F) << shift
            shift += 7
        at += 1 + size
    return data[first:at]


def zigzag(value: int) -> bytes:
    """A signed number (sint32, sint64)."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)
