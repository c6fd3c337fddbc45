"""Exponential histograms as Prometheus' native histograms: the same buckets, told as spans and differences.

Field numbers: prometheus/prompb types.proto. Histogram { uint64 count_int = 1, double sum = 3, sint32 schema = 4,
double zero_threshold = 5, uint64 zero_count_int = 6, negative_spans = 8, sint64 negative_deltas = 9, positive_spans =
11, sint64 positive_deltas = 12, int64 timestamp = 15 }, BucketSpan { sint32 offset = 1, uint32 length = 2 }. The reset
hint stays unknown, which is always right. OTLP numbers a bucket by its lower bound, Prometheus by its upper one.
"""

from __future__ import annotations

import struct

from schemas.otlp_build import field, varint
from schemas.point import ExponentialValue
from sinks.protobuf import zigzag

# Where a producer tells none (OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility").
ZERO_THRESHOLD = 1e-128
# Empty buckets that cost less inside a span than a span of their own.
LONGEST_GAP = 2
_double = struct.Struct("<d").pack


def native_histogram(value: ExponentialValue, time: bytes) -> bytes:
    """A Histogram message; `time` is the varint of its ms."""
    return b"".join(
        [
            b"\x08" + varint(value.observations),
            b"\x19" + _double(value.sum),
            b"\x20" + zigzag(value.scale),
            b"\x29" + _double(value.zero_threshold or ZERO_THRESHOLD),
            b"\x30" + varint(value.zero),
            *_buckets(0x42, 0x4A, value.negative_offset, value.negative),
            *_buckets(0x5A, 0x62, value.positive_offset, value.positive),
            b"\x78" + time,
        ]
    )


def stale_histogram(stale: bytes, time: bytes) -> bytes:
    """The Histogram message that ends a series: `stale` is its sum."""
    return b"\x19" + stale + b"\x78" + time


def _buckets(spans_tag: int, deltas_tag: int, offset: int, counts: tuple[int, ...]) -> list[bytes]:
    """The fields of one side; none if it is empty."""
    spans: list[tuple[int, int]] = []  # gap to the span before, length
    deltas: list[bytes] = []
    end, before, index = 0, 0, 0
    while index < len(counts):
        if not counts[index]:
            index += 1
            continue
        last = index  # of a stretch in which no gap is long
        for ahead in range(index + 1, len(counts)):
            if counts[ahead]:
                if ahead - last - 1 > LONGEST_GAP:
                    break
                last = ahead
        spans.append((offset + index + 1 - end, last - index + 1))
        end = offset + last + 2
        for count in counts[index : last + 1]:
            deltas.append(zigzag(count - before))
            before = count
        index = last + 1
    if not spans:
        return []
    return [
        *(field(spans_tag, b"\x08" + zigzag(gap) + b"\x10" + varint(length)) for gap, length in spans),
        field(deltas_tag, b"".join(deltas)),
    ]
