"""Undecided traces: when each is due, and which evidence counts by then."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from time import perf_counter_ns, process_time_ns

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.span_bits import NO_RANDOMNESS
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from tests.processors.sampling.builders import Answers, random_keys, span
from tests.schemas.rows import columns_of

WAIT = 10
TRACE_ID = bytes(range(16))
BATCH = 1_000  # rows


def least(run: Callable[[], object]) -> int:
    """Nanoseconds of CPU of the cheapest of three runs: others have the machine as well."""
    spent = []
    for _ in range(3):
        began = process_time_ns()
        run()
        spent.append(process_time_ns() - began)
    return min(spent)


class Table:
    """A table in which every row sets one bit of its trace's evidence."""

    def __init__(self, after_root: int | None = None, wait: int = WAIT) -> None:
        self.table = TraceTable(wait, after_root)
        self.labels = SpanLabels([])
        self.bits = 0

    def row(self, key: int, time: int, now: int | None, root: bool = False) -> int:
        """Fold a row; its bit."""
        bit = 1 << self.bits % 64
        self.bits += 1
        columns = columns_of([span(trace_id=TRACE_ID, parent=b"" if root else b"p" * 8)])
        self.labels.assign(columns, array("I", [0]), [("", ())])
        answers = Answers(array("Q", [bit]), array("Q", [NO_RANDOMNESS]))
        rows = array("Q", [key]), array("q", [time]), array("B", [0])
        self.table.fold_spans(columns, *rows, now, answers, self.labels)
        return bit

    def rows(self, keys: Sequence[int], times: Sequence[int], now: int) -> None:
        """Fold a row of each of many traces, BATCH at a time."""
        columns = columns_of([span(trace_id=TRACE_ID)] * BATCH)
        self.labels.assign(columns, array("I", bytes(4 * BATCH)), [("", ())])
        answers = Answers(array("Q", [1]) * BATCH, array("Q", [NO_RANDOMNESS]) * BATCH)
        for first in range(0, len(keys), BATCH):
            rows = (array(kind, values[first : first + BATCH]) for kind, values in (("Q", keys), ("q", times)))
            self.table.fold_spans(columns, *rows, array("B", bytes(BATCH)), now, answers, self.labels)

    def named(self, key: int, names: Sequence[str]) -> None:
        """Fold a span of each of these names, all of one trace."""
        rows = len(names)
        columns = columns_of(
            [
                span(trace_id=TRACE_ID, name=name.encode(), span_id=f"{number:8}".encode())
                for number, name in enumerate(names)
            ]
        )
        self.labels.assign(columns, array("I", bytes(4 * rows)), [("", ())])
        answers = Answers(array("Q", [1]) * rows, array("Q", [NO_RANDOMNESS]) * rows)
        self.table.fold_spans(
            columns,
            array("Q", [key]) * rows,
            array("q", [100]) * rows,
            array("B", bytes(rows)),
            0,
            answers,
            self.labels,
        )

    def due(self, now: int) -> dict[int, int]:
        """Traces that are due, in order, with the bits that count."""
        count = self.table.list_due(now)
        found = {self.table.due_keys[place]: self.table.evidence(place).bits for place in range(count)}
        self.table.settle(count)
        return found


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


@pytest.mark.parametrize("count", [1, 64, 65, 1_025])
def test_traces_of_one_deadline_are_decided_in_the_order_of_their_keys(count: int) -> None:
    """However many they are; those of an earlier one come before them, and who is not settled waits."""
    table, keys = Table(), Random(count).sample(range(1_000, 1 << 40), count)
    for key in (7, 3):
        table.row(key, 6, now=5)
    for key in keys:
        table.row(key, 8, now=5)
    found = list(table.due(20))
    assert table.table.list_due(20) + len(found) == count + 2
    table.table.settle(0)
    while more := list(table.due(20)):
        found += more
    assert found == [3, 7, *sorted(keys)]


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


def test_rows_beyond_the_deadline_are_one_record_while_the_clock_stands() -> None:
    """A trace id that is used again and again, while a raw partition without a mark holds the clock."""
    costs = []
    for count in (4 * BATCH, 32 * BATCH):
        table = Table()
        began = perf_counter_ns()
        table.rows([1] * count, range(100, 100 + count), now=0)
        costs.append((perf_counter_ns() - began) / count)
        assert table.due(100 + WAIT) == {1: 1}
    assert costs[1] < 4 * costs[0]


ORDERS: dict[str, Callable[[int], list[int]]] = {
    "by their time": lambda count: list(range(count)),
    "every second one beyond the deadline": lambda count: [n if n % 2 else 200 * BATCH for n in range(count)],
    "one raw partition, then another": lambda count: [*range(0, count, 2), *range(1, count, 2)],
    "two raw partitions in turns": lambda count: [n // 2 + n % 2 * (count // 2) for n in range(count)],
    "backwards": lambda count: list(range(count, 0, -1)),
    "from both ends": lambda count: [n // 2 if n % 2 else count - n // 2 for n in range(count)],
    "any": lambda count: Random(count).sample(range(count), count),
}


@pytest.mark.parametrize("order", ORDERS)
def test_rows_that_are_ahead_of_the_clock_each_at_a_time_of_its_own_are_found_soon(order: str) -> None:
    """One large trace while the clock is held. Four times as many rows cost sixteen times as much if each is sought."""

    def rows(count: int) -> None:
        table = Table(wait=100 * BATCH)
        times = ORDERS[order](count)
        table.rows([1] * count, [0, *times[1:]], now=-100 * BATCH)
        assert table.table.list_due(100 * BATCH) == 1
        assert table.table.evidence(0).spans == 1 + sum(time <= 100 * BATCH for time in times[1:])
        table.table.settle(1)

    assert least(lambda: rows(32 * BATCH)) < 6 * least(lambda: rows(8 * BATCH))


@given(
    st.sampled_from(list(ORDERS)),
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60), st.integers(-150, 150)), min_size=1, max_size=4),
    st.sampled_from([None, 40]),
)
def test_what_is_ahead_counts_up_to_the_deadline_whatever_its_order(
    order: str, parts: list[tuple[int, int, int]], after_root: int | None
) -> None:
    """Against a model: the times of all rows. `parts` are read one after another: rows, roots every so many, shift."""
    table, rows = Table(after_root, wait=100), list[tuple[int, bool]]()
    for count, every, shift in parts:
        for number, time in enumerate(ORDERS[order](count)):
            rows.append((time + shift, every > 0 and number % every == 0))
            table.row(1, time + shift, now=None, root=rows[-1][1])
    deadline = min(time for time, _ in rows) + 100
    if after_root is not None:
        deadline = min([deadline, *(time + after_root for time, root in rows if root)])
    assert table.table.list_due(1 << 40) == 1
    assert table.table.due_deadlines[0] == deadline
    assert table.table.evidence(0).spans == sum(time <= deadline for time, _ in rows)
    bits = [1 << number % 64 for number, (time, _) in enumerate(rows) if time <= deadline]
    assert table.due(1 << 40) == {1: sum(set(bits))}


def test_trace_ids_that_are_chosen_cost_what_others_do() -> None:
    """These have all met in one place when every process multiplied by the same number."""
    count = 16 * BATCH
    chosen = [number * pow(0x9E3779B97F4A7C15, -1, 1 << 64) % (1 << 64) for number in range(1, count + 1)]
    usual = random_keys(count)
    assert least(lambda: Table().rows(chosen, [100] * count, now=100)) < 5 * least(
        lambda: Table().rows(usual, [100] * count, now=100)
    )


def test_a_backlog_of_one_deadline_is_sorted_once() -> None:
    """As of records without timestamps: what a trace costs does not grow with how many are due."""

    def decide(count: int) -> None:
        table = Table()
        table.rows(random_keys(count), [100] * count, now=100)
        last = -1
        while listed := table.table.list_due(1_000):
            assert table.table.due_keys[0] > last
            last = table.table.due_keys[listed - 1]
            table.table.settle(listed)

    assert least(lambda: decide(64 * BATCH)) < 3 * 8 * least(lambda: decide(8 * BATCH))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=60), st.integers(0, 1 << 32))
def test_what_comes_while_a_long_list_is_taken_apart_is_due_in_order(later: list[tuple[int, int]], seed: int) -> None:
    table, random = Table(), Random(seed)
    waiting = {key: 100 for key in random.sample(range(1_000), 200)}
    for key, time in waiting.items():
        table.row(key, time, now=100)
    for key, before in later:
        table.row(key, 100 - before, now=100)
        waiting[key] = min(waiting.get(key, 100), 100 - before)
        if random.random() < 0.5:
            count = table.table.list_due(200)
            order = sorted((time, key) for key, time in waiting.items())
            assert list(table.table.due_keys[:count]) == [key for _, key in order]
            table.table.settle(settled := random.randrange(5))
            for _, key in order[:settled]:
                del waiting[key]


def test_many_names_of_few_traces_are_not_looked_through_with_every_batch() -> None:
    """More than NAMES of them, all of traces that wait."""
    costs = []
    for traces in (100, 300):
        table = Table()
        for trace in range(traces):
            table.named(trace, [f"{trace}/{number}" for number in range(64)])
        spent = []
        for number in range(20):
            began = perf_counter_ns()
            table.named(traces, [f"new {number}"] * BATCH)
            spent.append(perf_counter_ns() - began)
        costs.append(median(spent))
    assert costs[1] < 4 * costs[0]


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


def test_a_trace_is_due_after_its_root() -> None:
    table = Table(after_root=3)
    bits = table.row(1, 100, now=100) | table.row(1, 102, now=102, root=True) | table.row(1, 105, now=104)
    table.row(1, 106, now=104)  # beyond the deadline
    assert table.due(104) == {}
    assert table.due(105) == {1: bits}
    assert table.due(1_000) == {}


def test_a_late_root_or_a_second_one_postpones_nothing() -> None:
    table = Table(after_root=3)
    for time, root in ((100, False), (101, True), (103, True)):
        table.row(1, time, now=time, root=root)
    table.row(2, 91, now=91)
    table.row(2, 100, now=100, root=True)
    assert list(table.due(101)) == [2]
    assert list(table.due(104)) == [1]


def test_without_a_wait_after_it_a_root_is_a_span_like_others() -> None:
    table = Table()
    table.row(1, 100, now=100, root=True)
    assert table.due(109) == {}
    assert list(table.due(110)) == [1]


def test_an_older_root_of_another_raw_partition_makes_rows_come_too_late() -> None:
    """They were read before: whether they count is known when the root can no longer come."""
    table = Table(after_root=3)
    early = table.row(1, 100, now=90)
    table.row(1, 105, now=90)
    root = table.row(1, 101, now=90, root=True)
    assert table.due(104) == {1: early | root}


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()), min_size=1, max_size=25)


@given(ROWS, st.sampled_from([None, 1, 4, WAIT, 2 * WAIT]), st.randoms(use_true_random=False))
def test_any_order_that_the_clock_allows_decides_the_same(
    rows: list[tuple[int, int, bool]], after_root: int | None, random: object
) -> None:
    """Rows in order of time with a live clock, or shuffled with a clock that stands: the same evidence.

    A trace whose first row would come after its deadline has passed is a new trace; so only gaps below the wait.
    """
    numbered = sorted(enumerate(rows), key=lambda row: row[1][1])
    live, backlog = Table(after_root), Table(after_root)
    decided: dict[int, list[int]] = {}
    for index, (key, time, root) in numbered:
        for due, bits in live.due(time - 1).items():
            decided.setdefault(due, []).append(bits)
        live.bits = index
        if key not in decided:
            live.row(key, time, now=time, root=root)
    for due, bits in live.due(1_000).items():
        decided.setdefault(due, []).append(bits)
    shuffled = list(enumerate(rows))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for index, (key, time, root) in shuffled:
        backlog.bits = index
        backlog.row(key, time, now=None, root=root)
    assert {key: [bits] for key, bits in backlog.due(1_000).items()} == decided


@given(ROWS, st.sampled_from([None, 1, 4, WAIT]), st.lists(st.integers(0, 60), max_size=25), st.data())
def test_a_clock_that_moves_while_partitions_drain_unevenly_decides_the_same(
    rows: list[tuple[int, int, bool]], after_root: int | None, clocks: list[int], data: st.DataObject
) -> None:
    """Rows come in any order in which none is as old as the clock at that time; deadlines are those of all rows."""
    table, waiting, now = Table(after_root), list(enumerate(rows)), 0
    decided: dict[int, int] = {}
    for clock in [*sorted(clocks), 1_000]:
        older = [row for row in waiting if row[1][1] <= clock]
        ahead = data.draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
        batch = data.draw(st.permutations([*older, *(row for row in ahead if row not in older)]))
        for index, (key, time, root) in batch:
            waiting.remove((index, (key, time, root)))
            if key not in decided:
                table.bits = index
                table.row(key, time, now=now, root=root)
        now = clock
        decided |= table.due(now)
    expected = {}
    for key in {key for key, _, _ in rows}:
        mine = [(time, root, 1 << index) for index, (k, time, root) in enumerate(rows) if k == key]
        due = min(time for time, _, _ in mine) + WAIT
        if after_root is not None:
            due = min([due, *(time + after_root for time, root, _ in mine if root)])
        expected[key] = sum(bit for time, _, bit in mine if time <= due)
    assert decided == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([1, 70, 5_000, 300_000, 1 << 33]), st.integers(0, 99)),
        max_size=60,
    )
)
def test_each_trace_is_due_once_in_order_whatever_the_clock_does(steps: list[tuple[int, int, int]]) -> None:
    """Against a model: the first time of each trace. Rows lie up to 50 steps before the clock and 49 ahead of it."""
    table, first, now = Table(), dict[int, int](), 0
    for key, scale, place in steps:
        time = max(0, now + (place - 50) * scale)
        table.row(key, time, now)
        first[key] = min(time, first.get(key, time))
        now += place % 7 * scale
        due = sorted((time + WAIT, key) for key, time in first.items() if time + WAIT <= now)
        assert list(table.due(now)) == [key for _, key in due]
        for _, key in due:
            del first[key]
    assert sorted(table.due(1 << 62)) == sorted(first)


def test_more_traces_than_one_list_holds_are_due_in_order() -> None:
    """Those that were listed and not settled are listed again."""
    table = Table()
    for key in range(2_500):
        table.row(key, 100 + key * 7919 % 2_500 // 500, now=100)
    order = sorted(range(2_500), key=lambda key: (key * 7919 % 2_500 // 500, key))
    found: list[int] = []
    while count := table.table.list_due(1_000):
        settled = count - count // 3
        found += table.table.due_keys[:settled]
        table.table.settle(settled)
    assert found == order
    assert len(table.table) == 0


def test_asking_what_is_due_does_not_look_at_what_is_not() -> None:
    """One trace is due at each of many moments, while 1,000 or 100,000 others wait: a scan would cost far more."""
    tables, spent = [Table(), Table()], [list[int](), list[int]()]
    for table, waiting in zip(tables, (BATCH, 100 * BATCH), strict=True):
        table.rows(range(BATCH), range(BATCH), now=0)
        table.rows(range(BATCH, BATCH + waiting), [30_000 + number % 30_000 for number in range(waiting)], now=0)
    for moment in range(WAIT, WAIT + BATCH):
        for table, ns in zip(tables, spent, strict=True):
            began = perf_counter_ns()
            count = table.table.list_due(moment)
            ns.append(perf_counter_ns() - began)
            assert (count, table.table.due_keys[0]) == (1, moment - WAIT)
            table.table.settle(count)
    assert [len(table.table) for table in tables] == [BATCH, 100 * BATCH]
    few, many = (median(each) for each in spent)
    assert many < 20 * few, "a look at all of them would be a hundred times as dear"
