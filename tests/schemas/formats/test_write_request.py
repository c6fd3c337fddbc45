"""Series as protobuf's own classes read them, and as they would write them."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import msgpack
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from schemas.formats.write_request import SeriesWriter, Slices
from schemas.otlp_build import field, varint
from schemas.packed_rows import PackedRows
from tests.sinks.building import series_in

UNSIGNED = (1 << 64) - 1  # of a time that may be negative
FIELDS = {  # prometheus/prompb types.proto and remote.proto: name, number, type, message
    "WriteRequest": [("timeseries", 1, 11, "TimeSeries")],
    "TimeSeries": [("labels", 1, 11, "Label"), ("samples", 2, 11, "Sample")],
    "Label": [("name", 1, 9, ""), ("value", 2, 9, "")],
    "Sample": [("value", 1, 1, ""), ("timestamp", 2, 3, "")],
}
REPEATED = {"timeseries", "labels", "samples"}
NAMES = ["A", "Z", "_x", "__address__", "aa", "job", "le2", "service_name", "z", "ä"]


def _write_request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="prompb.proto", package="prometheus", syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for member, number, kind, of in fields:
            label = 3 if member in REPEATED else 1
            type_name = f".prometheus.{of}" if of else None
            message.field.add(name=member, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


WriteRequest = _write_request()

values = st.one_of(st.text(max_size=30), st.sampled_from(["", "a" * 127, "b" * 128, "ü" * 900]))
label_sets = st.lists(st.sampled_from(NAMES), unique=True, max_size=10).flatmap(
    lambda names: st.tuples(
        st.just(names), st.lists(st.lists(values, min_size=len(names), max_size=len(names)), max_size=4)
    )
)


def of_protobuf(series: list[tuple[dict[str, str], float, int]]) -> bytes:
    request = WriteRequest()
    for labels, value, time in series:
        one = request.timeseries.add()
        for name, text in sorted(labels.items(), key=lambda label: label[0].encode()):
            if text:
                one.labels.add(name=name, value=text)
        one.samples.add(value=value, timestamp=time)
    return bytes(request.SerializeToString())


# Zeros would be left out by protobuf, and are the same to a reader.
times = st.integers(-(1 << 63), (1 << 63) - 1).filter(bool)
samples = st.one_of(st.floats(allow_nan=False), st.integers(-(1 << 53), 1 << 53)).filter(bool)


@given(label_sets, samples, times, st.sampled_from([1, 4, 50]))
def test_numbers_are_what_protobuf_writes(
    drawn: tuple[list[str], list[list[str]]], number: float, time: int, lanes: int
) -> None:
    names, rows = drawn
    packed = PackedRows(msgpack.packb([[row, number + index] for index, row in enumerate(rows)]), 0, len(names), 2)
    writer = SeriesWriter(names, [{"__name__": "m_total"}])
    into = Slices(lanes, 3, 1000)
    writer.numbers(packed.data, packed.cells, 3, packed.width, packed.numbers(1), varint(time & UNSIGNED), into)
    found = series_in(into)
    series = [
        ({"__name__": "m_total"} | dict(zip(names, row, strict=True)), number + index, time)
        for index, row in enumerate(rows)
    ]
    read = WriteRequest.FromString(b"".join(one for _, one in found))
    assert read == WriteRequest.FromString(of_protobuf(series))
    if all(number for _, number, _ in series):
        assert read.SerializeToString() == b"".join(one for _, one in found)
    assert all(0 <= lane < lanes for lane, _ in found)


@given(label_sets, st.lists(st.tuples(st.booleans(), samples), min_size=3, max_size=3), times)
def test_every_series_of_a_row_has_its_own_labels(
    drawn: tuple[list[str], list[list[str]]], told: list[tuple[bool, float]], time: int
) -> None:
    names, rows = drawn
    fixed = [{"__name__": "m_bucket", "le": "5"}, {"__name__": "m_bucket", "le": "+Inf"}, {"__name__": "m_sum"}]
    at = b"\x10" + varint(time & UNSIGNED)
    encoded = [field(0x12, b"\x09" + struct.pack("<d", value) + at) if there else b"" for there, value in told]
    packed = PackedRows(msgpack.packb([[row, 1] for row in rows]), 0, len(names), 2)
    writer = SeriesWriter(names, fixed)
    into = Slices(4, 3, 1000)
    writer.samples(packed.data, packed.cells, 3, packed.width, [encoded] * len(rows), into)
    found = series_in(into)
    assert b"".join(one for _, one in found) == of_protobuf(
        [
            (labels | dict(zip(names, row, strict=True)), value, time)
            for row in rows
            for labels, (there, value) in zip(fixed, told, strict=True)
            if there
        ]
    )


def test_a_lane_depends_on_the_labels_that_are_there_alone() -> None:
    """A label that a metric gets later must not make a series overtake itself."""
    rows = [[f"s-{number}", "x"] for number in range(300)]

    def lanes(names: list[str], rows: list[list[str]]) -> list[int]:
        packed = PackedRows(msgpack.packb([[row, 1] for row in rows]), 0, len(names), 2)
        writer = SeriesWriter(names, [{"__name__": "m"}])
        into = Slices(4, 100, 10_000)
        writer.numbers(packed.data, packed.cells, 3, packed.width, [1.0] * len(rows), b"\x01", into)
        return [lane for lane, _ in series_in(into)]

    before = lanes(["service", "route"], rows)
    assert lanes(["service", "added", "route"], [[service, "", route] for service, route in rows]) == before
    assert {before.count(lane) > 40 for lane in range(4)} == {True}


def test_what_lies_elsewhere_is_not_read() -> None:
    packed = PackedRows(msgpack.packb([[["a", "b"], 1]]), 0, 2, 2)
    writer, into = SeriesWriter(["x", "y"], [{"__name__": "m"}]), Slices(1, 10, 1000)
    with pytest.raises(IndexError, match="fewer cells"):
        writer.numbers(packed.data, packed.cells, 3, packed.width, [1.0, 2.0], b"\x01", into)
    with pytest.raises(IndexError, match="beyond the data"):
        writer.numbers(packed.data[:3], packed.cells, 3, packed.width, [1.0], b"\x01", into)
    with pytest.raises(ValueError, match="2 samples for 1 series"):
        writer.samples(packed.data, packed.cells, 3, packed.width, [[b"", b""]], into)
    assert into.cut() == []


def test_long_and_many_labels() -> None:
    random = Random(3)
    names = [f"n{index}" * 20 for index in range(64)]
    rows = [["x" * random.randrange(2000) for _ in names] for _ in range(5)]
    packed = PackedRows(msgpack.packb([[row, 1] for row in rows]), 0, len(names), 2)
    into = Slices(4, 3, 1000)
    writer = SeriesWriter(names, [{"__name__": "m"}])
    writer.numbers(packed.data, packed.cells, 3, packed.width, packed.numbers(1), b"\x07", into)
    assert b"".join(one for _, one in series_in(into)) == of_protobuf(
        [({"__name__": "m"} | dict(zip(names, row, strict=True)), 1, 7) for row in rows]
    )


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 2000))
def test_slices_are_bounded(sizes: list[int], most: int, most_bytes: int) -> None:
    packed = PackedRows(msgpack.packb([[["x" * size], 1] for size in sizes]), 0, 1, 2)
    into = Slices(2, most, most_bytes)
    SeriesWriter(["n"], [{"__name__": "m"}]).numbers(
        packed.data, packed.cells, 3, packed.width, packed.numbers(1), b"\x07", into
    )
    slices = into.cut()
    assert sum(len(one.ends) for one in slices) == len(sizes)
    for one in slices:
        assert len(one.ends) == len(one.numbers) <= most
        assert len(one.ends) == 1 or len(one.fields) <= most_bytes
    assert into.cut() == []
