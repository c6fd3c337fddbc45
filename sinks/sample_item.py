"""Samples on their way to remote write, and the body of a request with them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import cramjam

from sinks.contract import Item
from sinks.protobuf import leading_fields, varint_before
from sinks.remote_write import LABEL_TAG


@dataclass(slots=True, kw_only=True)
class SampleItem(Item):
    """Samples of one lane of a record: `series` are `timeseries` fields of a WriteRequest that holds nothing else.

    Sample i ends at `ends[i]`, and is number `numbers[i]` of its record.
    """

    series: bytes
    ends: array[int]
    numbers: array[int]

    def dead_letter(self, *others: SampleItem) -> bytes:
        """A WriteRequest with these samples, not compressed."""
        return b"".join(item.series for item in (self, *others))

    def singles(self) -> list[SampleItem]:
        """An item for each sample."""
        found, start = [], 0
        for end, number in zip(self.ends, self.numbers, strict=True):
            size = end - start
            alone = replace(
                self,
                origin=replace(self.origin, index=number),
                size=size,
                rows=1,
                series=self.series[start:end],
                ends=array("I", (size,)),
                numbers=array("I", (number,)),
            )
            found.append(alone)
            start = end
        return found

    def times(self) -> list[int]:
        """Milliseconds since the Unix epoch of each sample: with them, as a varint, its series ends."""
        return [varint_before(self.series, end) for end in self.ends]

    def labels(self) -> list[bytes]:
        """What each sample's series is: the `labels` fields, which are the same with every tick."""
        return [leading_fields(self.series, start, LABEL_TAG) for start in (0, *self.ends[:-1])]


def write_request(items: Iterable[SampleItem]) -> bytes:
    """A WriteRequest as a snappy block (not the framed format)."""
    return bytes(cramjam.snappy.compress_raw(b"".join(item.series for item in items)))
