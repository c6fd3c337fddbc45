"""The two shapes of protobuf fields that sinks write by hand."""

from __future__ import annotations


def field(tag: int, data: bytes) -> bytes:
    """A length-delimited field; `tag` is one byte."""
    length = len(data)
    return bytes((tag, length)) + data if length < 0x80 else bytes((tag,)) + varint(length) + data


def varint(value: int) -> bytes:
    """A number that is not negative."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def zigzag(value: int) -> bytes:
    """A signed number (sint32, sint64)."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)
