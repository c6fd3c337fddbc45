"""What is told of a resource, so small that it goes with its readings: whether one is another with more told of it.

A resource that gets an attribute while its process runs, by a new configuration of a Collector or by one of two
gateways, is what it was. One in which an attribute differs is another: a table, a volume, a fork. So eight bytes say
whose resource it is and what is read of it, and five stand for each of its other attributes: two for the key, three for
the text. Two that pass for one by chance are told apart by what they count (processors/family.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from processors.otlp_series import digest

WHOSE = 8
_KEY, _TEXT = 2, 3
_ENTRY = _KEY + _TEXT
MOST_ATTRIBUTES = 64  # of a resource with more nothing is said: this goes with each record


def attributes_in_short(attributes: Mapping[str, str]) -> bytes | None:
    """What stands for the attributes, None if they are too many."""
    if len(attributes) > MOST_ATTRIBUTES:
        return None
    return b"".join([digest(key)[:_KEY] + digest(text)[:_TEXT] for key, text in sorted(attributes.items())])


def differences(one: bytes, other: bytes) -> int | None:
    """How many attributes only one of two resources of a process has; None if one that both have differs."""
    left, right = _entries(one), _entries(other)
    only, there = left - right, right - left
    if {entry[:_KEY] for entry in only}.isdisjoint([entry[:_KEY] for entry in there]):
        return len(only) + len(there)
    return None


def _entries(resource: bytes) -> set[bytes]:
    return {resource[at : at + _ENTRY] for at in range(WHOSE, len(resource), _ENTRY)}
