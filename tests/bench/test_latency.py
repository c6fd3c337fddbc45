"""The arithmetic of bench.hops, bench.sustained and bench.pairs."""

from __future__ import annotations

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from bench.hops import Waits
from bench.pairs import interval, why_not_whole
from bench.sustained import Look, slope
from bench.untraced import texts


def test_quantiles_are_waits_that_were_measured() -> None:
    waits = Waits()
    for ms in range(1, 101):
        waits.add(ms)
    waits.add(500, times=1)
    assert waits.figures() == {"count": 101, "p50": 51, "p99": 100, "max": 500}
    waits.add(700, times=899)
    assert waits.quantile(0.5) == 700


def test_a_wait_below_the_clocks_tick_is_none() -> None:
    waits = Waits()
    waits.add(-1)
    assert waits.figures()["max"] == 0
    with pytest.raises(ValueError, match="nothing was measured"):
        Waits().quantile(0.5)


def test_a_slope_is_what_was_not_read_of_what_came() -> None:
    falls_behind = [Look(at, unread=5 * at, read=95 * at) for at in range(31)]
    assert slope(falls_behind) == pytest.approx((5, 100))
    keeps_up = [Look(at, unread=at % 2, read=100 * at) for at in range(31)]
    grows, comes = slope(keeps_up)
    assert abs(grows) < 0.01
    assert comes == pytest.approx(100)


def test_traces_are_missing_because_the_load_was_late_or_for_no_such_reason() -> None:
    assert why_not_whole({"missing_traces": 1958, "late_seconds": 4.9}) == "1,958 traces are missing or cut"
    assert why_not_whole({"missing_traces": 1, "late_seconds": None}) == "1 traces are missing or cut"
    assert "the load was up to 21.7 s late" in why_not_whole({"missing_traces": 179, "late_seconds": 21.67})


def test_an_interval_holds_the_ratio_and_shrinks_with_more_pairs() -> None:
    few, many = interval([1.0, 1.1, 1.2]), interval([1.0, 1.1, 1.2] * 5)
    for mean, low, high in (few, many):
        assert low < mean < high
        assert mean == pytest.approx((1.0 * 1.1 * 1.2) ** (1 / 3))
    assert many[2] - many[1] < few[2] - few[1]
    # Student's t for two degrees of freedom, by hand: s = 0.0915, 4.303 · s / √3.
    assert few[2] / few[0] == pytest.approx(1.255, abs=0.002)


def test_only_texts_without_a_trace_are_found() -> None:
    data = LogsData()
    records = data.resource_logs.add().scope_logs.add().log_records
    records.add().body.string_value = "alone"
    traced = records.add(trace_id=bytes(16))
    traced.body.string_value = "traced"
    assert texts(data.SerializeToString()) == ["alone"]
