"""Evidence is a set of joins and sums: the order of what arrives does not matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.evidence import NO_START, Evidence
from tests.processors.sampling.builders import MS, NOON, TRACE_ID, Table, span, spans
from tests.schemas.rows import SpanScan

PADDED_ID = bytes(8) + TRACE_ID[8:]  # what a producer of 64-bit ids makes of the same trace
Item = tuple[SpanScan, int] | int  # a span and its bits, or a log's bits
masks = st.integers(0, 2**9)
items = st.lists(st.one_of(st.tuples(spans, masks), masks), max_size=12)


def of(arrived: list[Item]) -> Evidence:
    table = Table(trace_id=PADDED_ID)
    for item in arrived:
        if isinstance(item, int):
            table.add_logs([], trace_id=PADDED_ID, bits=[item])
        else:
            table.add_spans([item[0]], [item[1]])
    return table.evidence()


@given(items, st.randoms(use_true_random=False))
def test_order_does_not_matter(arrived: list[Item], random: object) -> None:
    shuffled = list(arrived)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert of(shuffled) == of(arrived)


def test_duration_spans_the_whole_trace() -> None:
    evidence = of([(span(NOON + MS, NOON + 3 * MS), 0), (span(NOON, NOON + 2 * MS), 0)])
    assert evidence.duration_ns == 3 * MS


def test_unknown_times_do_not_count() -> None:
    evidence = of([(span(0, NOON + MS), 0), (span(NOON, 0), 0)])
    assert evidence.duration_ns == MS
    assert of([(span(0, NOON), 0)]).duration_ns == 0
    assert of([(span(NOON, 0), 0)]).duration_ns == 0
    assert of([]).min_start == NO_START
    assert of([]).duration_ns == 0


def test_counts() -> None:
    evidence = of([(span(status=2), 1), (span(status=1), 4), 8, 8])
    assert (evidence.spans, evidence.logs, evidence.bits) == (2, 2, 13)


def test_the_full_trace_id_wins_over_its_padded_half() -> None:
    assert of([0, (span(), 0), (span(trace_id=PADDED_ID), 0)]).trace_id == TRACE_ID
    assert of([(span(trace_id=PADDED_ID), 0), 0]).trace_id == PADDED_ID


def test_the_explicit_randomness_counts_and_the_smallest_of_several() -> None:
    assert of([(span(), 0)]).randomness is None
    first = (span(state=b"ot=rv:00000000000005"), 0)
    second = (span(state=b"a=b, ot=th:c;rv:00000000000003"), 0)
    assert of([first, (span(), 0)]).randomness == 5
    assert of([first, second]).randomness == of([second, first]).randomness == 3
