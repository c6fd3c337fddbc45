"""Native histograms on the wire, read back with protobuf and Prometheus' own declaration of the message."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from processors.values import fitted
from schemas.otlp_build import varint
from schemas.point import ExponentialValue
from sinks.native_histograms import LONGEST_GAP, ZERO_THRESHOLD, native_histogram

# prometheus/prompb/types.proto
FIELDS = (
    ("count_int", 1, "uint64"), ("sum", 3, "double"), ("schema", 4, "sint32"), ("zero_threshold", 5, "double"),
    ("zero_count_int", 6, "uint64"), ("negative_spans", 8, "BucketSpan"), ("negative_deltas", 9, "sint64"),
    ("positive_spans", 11, "BucketSpan"), ("positive_deltas", 12, "sint64"), ("timestamp", 15, "int64"),
)  # fmt: skip


def message() -> Any:
    file = FileDescriptorProto(name="types.proto", package="prometheus", syntax="proto3")
    histogram, span = file.message_type.add(name="Histogram"), file.message_type.add(name="BucketSpan")
    for name, number, kind in FIELDS:
        repeated = name.endswith(("spans", "deltas"))
        field = histogram.field.add(name=name, number=number, label=3 if repeated else 1)
        if kind == "BucketSpan":
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, ".prometheus.BucketSpan"
        else:
            field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")
    span.field.add(name="offset", number=1, label=1, type=FieldDescriptorProto.TYPE_SINT32)
    span.field.add(name="length", number=2, label=1, type=FieldDescriptorProto.TYPE_UINT32)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("prometheus.Histogram"))


HISTOGRAM = message()


def buckets(spans: Any, deltas: Any) -> dict[int, int]:
    """Counts by OTLP's index: Prometheus' bucket i ends where OTLP's i - 1 does."""
    found, index, count, left = {}, 0, 0, list(deltas)
    for span in spans:
        index += span.offset
        for _ in range(span.length):
            count += left.pop(0)
            found[index - 1] = count
            index += 1
    assert not left
    return {index: count for index, count in found.items() if count}


counts = st.lists(st.one_of(st.just(0), st.integers(0, 1 << 40)), max_size=40).map(tuple)
offsets = st.integers(-1000, 1000)


@given(offsets, counts, offsets, counts, st.integers(0, 9), st.integers(-4, 8), st.sampled_from([0.0, 0.5]))
def test_what_prometheus_reads_is_the_histogram(
    positive_offset: int,
    positive: tuple[int, ...],
    negative_offset: int,
    negative: tuple[int, ...],
    zero: int,
    scale: int,
    threshold: float,
) -> None:
    number = sum(positive) + sum(negative) + zero
    value = ExponentialValue(number, 1.5, scale, zero, threshold, positive_offset, positive, negative_offset, negative)
    read = HISTOGRAM.FromString(native_histogram(fitted(value), varint(1_700_000_000_000)))
    assert (read.count_int, read.sum, read.schema, read.zero_count_int) == (number, 1.5, scale, zero)
    assert (read.zero_threshold, read.timestamp) == (threshold or ZERO_THRESHOLD, 1_700_000_000_000)
    for sign, offset, told in (("positive", positive_offset, positive), ("negative", negative_offset, negative)):
        spans = getattr(read, f"{sign}_spans")
        found = buckets(spans, getattr(read, f"{sign}_deltas"))
        assert found == {offset + index: count for index, count in enumerate(told) if count}
        assert all(span.offset > LONGEST_GAP for span in spans[1:])


def test_a_small_gap_is_bridged_and_a_large_one_is_not() -> None:
    value = ExponentialValue(3, 0.0, 0, 0, 0.0, 4, (1, 0, 0, 1, 0, 0, 0, 1), 0, ())
    read = HISTOGRAM.FromString(native_histogram(value, varint(1)))
    assert [(span.offset, span.length) for span in read.positive_spans] == [(5, 4), (3, 1)]
    assert list(read.positive_deltas) == [1, -1, 0, 1, 0]
