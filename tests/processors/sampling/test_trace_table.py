"""Undecided traces: when each is due, and which evidence counts by then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.trace_table import TraceTable

WAIT = 10
TRACE_ID = bytes(range(16))


class Table:
    """A table in which every row sets one bit of its trace's evidence."""

    def __init__(self) -> None:
        self.table = TraceTable(WAIT)
        self.bits = 0

    def row(self, key: int, time: int, now: int | None) -> int:
        """Fold a row; its bit."""
        bit = 1 << self.bits
        self.bits += 1
        trace = self.table.trace(key, time, TRACE_ID)
        self.table.evidence(trace, time, now).add_log(bit)
        return bit

    def due(self, now: int) -> dict[int, int]:
        """Traces that are due, in order, with the bits that count."""
        return {key: trace.evidence.bits for key, trace in self.table.due(now)}


def test_a_trace_is_due_one_wait_after_its_first_row() -> None:
    table = Table()
    bits = table.row(1, 100, now=100) | table.row(1, 105, now=105)
    assert table.due(109) == {}
    assert 1 in table.table
    assert table.due(110) == {1: bits}
    assert len(table.table) == 0
    assert table.due(1_000) == {}


def test_traces_are_decided_in_the_order_of_their_deadlines() -> None:
    table = Table()
    for key, time in ((1, 30), (2, 10), (3, 20)):
        table.row(key, time, now=5)
    assert list(table.due(100)) == [2, 3, 1]


def test_an_older_row_makes_its_trace_due_earlier() -> None:
    """Another raw partition was read less far; the later deadline of the same trace is skipped."""
    table = Table()
    table.row(1, 100, now=50)
    table.row(1, 60, now=50)
    assert list(table.due(69)) == []
    assert list(table.due(70)) == [1]
    table.row(1, 95, now=90)
    assert list(table.due(104)) == []
    assert list(table.due(105)) == [1]


def test_a_row_beyond_the_deadline_does_not_count() -> None:
    table = Table()
    early = table.row(1, 100, now=90)
    table.row(1, 111, now=90)
    at_deadline = table.row(1, 110, now=90)
    assert table.due(110) == {1: early | at_deadline}


def test_rows_that_came_before_an_older_first_one_may_lie_beyond_the_deadline() -> None:
    """While the clock stands (None: a raw partition has no mark) nobody knows the deadline yet."""
    table = Table()
    table.row(1, 100, now=None)
    middle = table.row(1, 50, now=None)
    early = table.row(1, 45, now=None)
    assert table.due(55) == {1: middle | early}


def test_a_row_of_a_raw_partition_that_was_left_out_and_returns_is_due_at_once() -> None:
    table = Table()
    bit = table.row(1, 20, now=100)
    assert table.due(100) == {1: bit}


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=25)


@given(ROWS, st.randoms(use_true_random=False))
def test_any_order_that_the_clock_allows_decides_the_same(rows: list[tuple[int, int]], random: object) -> None:
    """Rows in order of time with a live clock, or shuffled with a clock that stands: the same evidence.

    A trace whose first row would come after its deadline has passed is a new trace; so only gaps below the wait.
    """
    numbered = sorted(enumerate(rows), key=lambda row: row[1][1])
    live, backlog = Table(), Table()
    decided: dict[int, list[int]] = {}
    for index, (key, time) in numbered:
        for due, bits in live.due(time - 1).items():
            decided.setdefault(due, []).append(bits)
        live.bits = index
        if key not in decided:
            live.row(key, time, now=time)
    for due, bits in live.due(1_000).items():
        decided.setdefault(due, []).append(bits)
    shuffled = list(enumerate(rows))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for index, (key, time) in shuffled:
        backlog.bits = index
        backlog.row(key, time, now=None)
    assert {key: [bits] for key, bits in backlog.due(1_000).items()} == decided
