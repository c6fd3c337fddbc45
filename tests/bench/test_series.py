"""The load of bench.series is what its truth says, and a wrong answer is told."""

from __future__ import annotations

from bench.series import LABELS, Options, counted, verdict
from processors.values import observations
from schemas.point import PointBatch


def test_every_series_is_another_one_and_counted_once_a_second() -> None:
    load = counted(Options(2_000, 2, 60))
    batches = [PointBatch.decode(value) for _, value in load.records]
    rows = [(name, *row) for (name, _), batch in zip(load.records, batches, strict=True) for row in batch.rows]
    assert len({(name, labels) for name, labels, _ in rows}) == len(rows) == 2_000
    assert {len(labels) for _, labels, _ in rows} == {LABELS}
    assert sum(observations(value) for _, _, value in rows) == load.total


def test_an_answer_that_is_not_the_truth_is_told() -> None:
    figures = {
        "options": {"series": 10, "seconds": 6},
        "truth": {"count": 10, "sum": 60},
        "found": {"count": 10.0, "sum": 60.0},
        "samples": 60.0,
        "elapsed_seconds": 7.0,
        "cpu_seconds": {"aggregate": 1.0, "sink.prometheus": 2.0},
    }
    assert "60 of 60: exact" in verdict(figures)
    assert "3.0 CPU-s" in verdict(figures)
    assert "NOT EXACT" in verdict(figures | {"found": {"count": 10.0, "sum": 59.0}})
