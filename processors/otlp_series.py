"""The series of OTLP metric points: attributes as texts, as labels, and what tells one source from another.

Producers send the same series again and again. What attributes make of one costs ten times as much as to find it again
by their bytes, so it is remembered: `KnownSeries`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from processors.span_metrics import label_text

KNOWN_BYTES = 16 << 20  # of each half of what is remembered
LARGEST_SHARE = 64  # what takes more than one so-many-th of a half is not worth it
EXACT = 1 << 53  # a float holds every whole number below it
_SERIES_BYTES = 600  # of objects around the texts of a series
_NUMBER_BYTES = 32

Stream = tuple[bytes, bytes, bytes, bytes, bytes, str]
"""Resource, scope, its schema URL, name, unit and kind of a metric: what all of its points have in common."""
Key = tuple[Stream, tuple[float, ...], tuple[bytes, ...]]
"""Stream, bounds, and the attributes as KeyValue messages, in their order."""


class Series(NamedTuple):
    """A label set, names in order; `source`, `target` and `producer` are those of its readings.

    `resource` is what is told of the producer's in short.

    Sizes are about those in UTF-8.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    source: int
    target: int
    size_of_names: int
    size: int  # of the values alone: names are told once for many points
    producer: int = 0
    resource: bytes = b""

    @classmethod
    def of(
        cls, labels: Mapping[str, str], source: int, target: int = 0, producer: int = 0, resource: bytes = b""
    ) -> Series:
        """That of labels in any order."""
        names = tuple(sorted(labels))
        values = tuple([labels[name] for name in names])
        return cls(names, values, source, target, text_bytes(names), text_bytes(values), producer, resource)


class KnownSeries:
    """What the points of a worker were taken for, in about twice `most` bytes: keys are producers' own, and any size.

    A half that is full is kept until the next one is, and what is asked for meanwhile goes over.
    """

    def __init__(self, most: int = KNOWN_BYTES) -> None:
        self._most = most
        self._bytes = 0  # of the new half
        self._new: dict[Key, Series] = {}
        self._old: dict[Key, Series] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._streams: dict[Stream, Stream] = {}
        self._resources: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def get(self, key: Key) -> Series | None:
        """That of a point, if it is known."""
        found = self._new.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            return self.remember(key, found)
        return found

    def remember(self, key: Key, series: Series) -> Series:
        """The series that a point is of; the same, with names that it shares with others if it is remembered."""
        stream, bounds, attributes = key
        shared = sum(map(len, stream))
        size = (
            series.size + series.size_of_names + sum(map(len, attributes)) + _NUMBER_BYTES * len(bounds) + _SERIES_BYTES
        )
        if size + shared > self._most // LARGEST_SHARE:
            return series
        if self._bytes + size + shared > self._most:
            self._old, self._new, self._bytes = self._new, {}, 0
            self._names, self._streams, self._resources = {}, {}, {}
        if stream not in self._streams:
            self._streams[stream] = stream
            self._bytes += shared
        if series.resource not in self._resources:
            self._resources[series.resource] = series.resource
            self._bytes += len(series.resource)
        names, resource = self._names.setdefault(series.names, series.names), self._resources[series.resource]
        series = series._replace(names=names, resource=resource)
        self._new[self._streams[stream], bounds, attributes] = series
        self._bytes += size
        return series


def text_bytes(texts: Iterable[str]) -> int:
    """About the bytes of texts: one that is not ASCII may take four a character."""
    return sum([len(text) if text.isascii() else 4 * len(text) for text in texts])


def text_of(data: bytes) -> str:
    """A text, whatever its bytes."""
    return str(data, "utf-8", "replace")


def texts_of(attributes: Iterable[Any]) -> dict[str, str]:
    """Attributes as text, in the order of their keys."""
    return dict(sorted([(text_of(entry.key), _any_text(entry.value)) for entry in attributes]))


def digest(*parts: bytes | str | tuple[str, str]) -> bytes:
    """What tells one list of texts from another."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        for text in part if isinstance(part, tuple) else (part,):
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            hashed.update(len(data).to_bytes(4, "big") + data)
    return hashed.digest()


def number(digested: bytes) -> int:
    """A number that msgpack takes."""
    return int.from_bytes(digested, "big") >> 1


def _any_text(value: Any) -> str:
    """A value as the specification writes it where only text may be: arrays and maps are JSON."""
    which = value.WhichOneof("value")
    if which == "string_value":
        return text_of(value.string_value)
    if which in ("array_value", "kvlist_value"):
        return orjson.dumps(_json(value), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS).decode()
    return label_text(getattr(value, which)) if which else ""


def _json(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_json(entry) for entry in value.array_value.values]
    if which == "kvlist_value":
        return {text_of(entry.key): _json(entry.value) for entry in value.kvlist_value.values}
    if which in ("bool_value", "int_value", "double_value"):
        told = getattr(value, which)
        whole = which == "double_value" and told.is_integer() and abs(told) < EXACT
        return int(told) if whole else told  # Prometheus' receiver writes no `.0`
    return _any_text(value) if which else None
