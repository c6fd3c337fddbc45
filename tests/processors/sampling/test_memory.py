"""What the sample role holds for each trace, and what a span leaves behind: bench/micro/memory.py measures it, at the
least flattering of all sizes."""

from __future__ import annotations

import tracemalloc

import pytest
from pydantic import TypeAdapter

from bench.micro.memory import left_behind, remembered, undecided
from processors.sampling.answers import VALUE_BYTES
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from tests.processors.sampling.builders import span, span_bits

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


def test_long_values_of_an_attribute_are_forgotten_before_there_are_many() -> None:
    """A value may be as long as a message, and each another one."""
    asked = {"key": "db.statement", "values": ["no"]}
    policy = TypeAdapter(Policy).validate_python({"name": "p", "type": "string_attribute", "string_attribute": asked})
    plan, size = compile_policies([policy]), VALUE_BYTES // 8
    tracemalloc.start()
    try:
        for number in range(64):
            assert span_bits(plan, span(attributes=[f"{number:{size}}"])) == 0
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * VALUE_BYTES, "not 64 of them"
