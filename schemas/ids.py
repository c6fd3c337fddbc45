"""Identity and placement of traces; placement of metrics.

Inside the pipeline a trace *is* the low 64 bits of its trace id, big-endian unsigned (Datadog and B3 carry no
more). Its partition is that number modulo N. The raw 16 bytes stay untouched in the spans.
"""

from __future__ import annotations

from aiokafka.partitioner import murmur2

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

HASH_FACTOR = hash("trace keys") & 0xFFFFFFFFFFFFFFFF | 1
"""What tables multiply trace keys and span ids by, modulo 2^64: odd, and another one in each process.

Producers choose their ids. Knowing the factor they could choose ones that all meet in one place of a table.
"""


def trace_key(trace_id: bytes) -> int:
    """The low 64 bits of a 16-byte trace id.

    >>> trace_key(bytes(8) + b"\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x02")
    258
    """
    return int.from_bytes(trace_id[8:], "big")


def partition_of(trace_id: bytes, partitions: int) -> int:
    """The partition (0 ≤ p < `partitions`) of a 16-byte trace id on every topic keyed by trace."""
    return int.from_bytes(trace_id[8:], "big") % partitions


def partition_of_metric(metric: str, partitions: int) -> int:
    """The partition (0 ≤ p < `partitions`) of a metric's points and samples: as Kafka's own clients place that key."""
    placed: int = (murmur2(metric.encode()) & 0x7FFFFFFF) % partitions
    return placed
