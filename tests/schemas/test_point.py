from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ProtocolError
from schemas.packing import pack, unpack
from schemas.point import PackedBatch, PointBatch, Shape
from tests.processors.metric_strategies import batches
from tests.repository import ROOT
from tests.schemas.examples import POINTS

GOLDEN = ROOT / "schemas/versions/v1/point.bin"


@given(batches())
def test_decode_is_the_inverse_of_encode(batch: PointBatch) -> None:
    assert PointBatch.decode(batch.encode()) == batch
    found = PackedBatch.decode(batch.encode())
    rows = [(found.rows.texts(row), value) for row, value in enumerate(found.values)]
    assert (found.metric, found.shape, found.start_ms, rows, found.readings) == (
        batch.metric, batch.shape, batch.start_ms, batch.rows, batch.readings
    )  # fmt: skip


def test_records_of_version_1_are_read_for_ever() -> None:
    assert PointBatch.decode(GOLDEN.read_bytes()) == POINTS


def test_a_label_set_of_a_histogram_costs_its_buckets_and_three_more() -> None:
    assert POINTS.shape.series == 5
    assert Shape("counter", ("a",)).series == 1


@given(st.binary(max_size=64))
def test_foreign_bytes_are_refused(value: bytes) -> None:
    for batch in (PointBatch, PackedBatch):
        with pytest.raises(ProtocolError):
            batch.decode(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v", 3),
        ("shape", ["gauge", ["a"], [], 0]),
        ("shape", ["counter", ["a"], [], 0]),
        ("rows", [[["a"], [1, 1.0, [1, 0, 0]]]]),
        ("rows", [[["a"] * 5, [1, 1.0, [1, 0]]]]),
        ("rows", [[["a"] * 5, 1.0]]),
    ],
)
def test_what_does_not_fit_together_is_refused(key: str, value: object) -> None:
    raw = unpack(POINTS.encode())
    raw[key] = value
    for batch in (PointBatch, PackedBatch):
        with pytest.raises(ProtocolError):
            batch.decode(pack(raw))
