"""The arithmetic of bench.split and bench.timed."""

from __future__ import annotations

from typing import Any

import pytest

from bench.split import REST, cost_rows, grown, step_rows, verdict
from bench.timed import STEPS, Steps

HEAD = "head: spans read, folded, decided"


def one_run(spans: int, timed: bool = False, **steps: tuple[int, float]) -> dict[str, Any]:
    """0.25 CPU-s and 1 µs a span."""
    used = {"user": 0.2 + spans / 1e6, "system": 0.05, "beside": 0.0, "faults": 1_000 + spans // 100}
    return {"spans": spans, "timed": timed, "seconds": 2.0, "idle": 0.011, "steps": steps, **used}


FIGURES = {
    "options": {"role": "sample", "spans": [2_000, 1_000_000, 3_000_000], "runs": 1},
    "runs": [
        *(one_run(spans) for spans in (2_000, 1_000_000, 3_000_000)),
        one_run(3_000_000, timed=True, **{HEAD: (1_500, 1.2)}),
    ],
}


def test_a_step_is_counted_without_the_steps_within_it_even_if_it_fails() -> None:
    now = iter(range(0, 100, 10))  # ns: each look at the clock is 10 later
    steps = Steps(lambda: next(now))

    def fail() -> None:
        raise ValueError

    inner = steps.timed("inner", fail)

    def twice() -> None:
        for _ in range(2):
            with pytest.raises(ValueError):
                inner()

    steps.timed("outer", twice)()
    assert steps.spent == {"inner": (2, 20), "outer": (1, 50 - 20)}


@pytest.mark.parametrize("role", STEPS)
def test_every_step_is_there_to_be_wrapped(role: str) -> None:
    """And the pipeline has no other one in its place; tests have some of their own."""
    for owner, name in (place for places in STEPS[role].values() for place in places):
        assert callable(getattr(owner, name))
        below: list[type] = type.__subclasses__(owner) if isinstance(owner, type) else []
        assert not any(name in vars(each) for each in below if each.__module__.startswith("pipeline."))


def test_what_all_runs_cost_alike_is_told_from_what_a_span_costs() -> None:
    assert grown(FIGURES) == pytest.approx((0.25, 1.0))
    assert "0.25 CPU-s for a run of any size, 1.00 µs for each span" in verdict(FIGURES)
    assert cost_rows(FIGURES)[1] == ["1,000,000", "1.25", "1.20", "0.05", "0.00", "11,000", "2.0"]


def test_what_no_step_has_is_the_rest() -> None:
    rows = {row[0]: row[1:] for row in step_rows(FIGURES)}
    assert rows[HEAD] == ["0.400", "500"]
    assert "answers decoded" not in rows, "there was none"
    assert float(rows[REST][0]) == pytest.approx((3.25 - 1.2) / 3, abs=0.001)
