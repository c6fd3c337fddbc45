"""What the sample role holds for each trace, and what a span leaves behind: bench/micro/memory.py measures it, at the
least flattering of all sizes."""

from __future__ import annotations

import pytest

from bench.micro.memory import left_behind, remembered, undecided

UNDECIDED_BYTES = 200  # a trace of five spans, beside the cached raw batches
VERDICT_BYTES = 16
BLOCKS = 0.05  # a span


@pytest.mark.compiled
def test_an_undecided_trace_of_five_spans_takes_less_than_200_bytes() -> None:
    assert undecided(250) <= UNDECIDED_BYTES


@pytest.mark.compiled
def test_a_remembered_verdict_takes_less_than_16_bytes() -> None:
    assert remembered(150) <= VERDICT_BYTES


@pytest.mark.compiled
def test_a_span_leaves_less_than_a_twentieth_of_an_object_behind() -> None:
    """A million spans."""
    assert left_behind(5_000) < BLOCKS
