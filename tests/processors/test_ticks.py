"""The aggregate protocol against a broker of a few lines: a log, a clock, commits that may be lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.cardinality import Limits
from processors.ticks import DueTick, Ticks
from processors.values import MOST_OBSERVATIONS, observations
from schemas.errors import ProtocolError
from schemas.point import ExponentialValue, HistogramValue, PointBatch, Reading, Shape, SummaryValue, Value
from schemas.sample import Tick, read_tick
from tests.processors.metric_strategies import COUNTER, HISTOGRAM, batches, total
from tests.processors.points import message, read, timed

OUTSIDE, OPEN = "outside_total", Shape("counter", ("job", "instance"), (), 1, open=True)
INTERVAL = 15_000
BUDGET = 60
START = 1_700_000_000_000


def machine(budget: int = BUDGET, partitions: int = 4) -> Ticks:
    return Ticks(partitions, INTERVAL, Limits(budget, 1000), {"calls_total": COUNTER, "duration": HISTOGRAM})


def one(number: float = 1) -> bytes:
    return PointBatch("calls_total", COUNTER, 0, [(("a", "b", "", ""), number)]).encode()


@dataclass
class World:
    """A points partition, the committed ticks, the broker's clock (ms) and the worker's monotonic clock (s)."""

    now: int = START
    monotonic: float = 100.0
    log: list[tuple[int, PointBatch]] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    observed: Counter[int] = field(default_factory=Counter)
    aggregate: Ticks = field(default_factory=machine)

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.monotonic += ms / 1000

    def commit(self, due: DueTick | None, lost: bool) -> bool:
        """False when the worker died before the transaction was committed."""
        if due is None:
            return True
        if lost:
            self.take_over()
            return False
        self.ticks.append(read_tick(due.tick.encode()))
        at_end = self.aggregate.idle and self.aggregate.next_offset == len(self.log)
        self.aggregate.acknowledged(self.now, self.monotonic, at_end)
        return True

    def read(self, records: int, lost: bool = False) -> None:
        for offset in range(self.aggregate.next_offset, len(self.log))[:records]:
            append, batch = self.log[offset]
            if not self.commit(self.aggregate.before(append), lost):
                return
            self.aggregate.point(offset, append, batch.encode(), self.monotonic)

    def observe(self, source: int, number: int) -> None:
        """A source from outside counts and tells its total."""
        self.observed[source] += number
        reading = Reading((f"job-{source % 2}", ""), self.observed[source], source, START - 1, START + len(self.log))
        self.log.append((self.now, PointBatch(OUTSIDE, OPEN, readings=[reading])))

    def take_over(self) -> None:
        self.monotonic += 1000  # another machine's clock
        self.aggregate = machine()
        if self.ticks:
            self.aggregate.load(self.ticks[-1], self.ticks[-1].points, self.monotonic)
        else:
            self.aggregate.begin(0)


actions = st.one_of(
    st.tuples(st.just("append"), batches()),
    st.tuples(st.just("observe"), st.tuples(st.integers(0, 5), st.integers(0, 100))),
    st.tuples(st.just("pass"), st.integers(0, 40_000)),
    st.tuples(st.just("read"), st.integers(1, 5)),
    st.tuples(st.just("due"), st.booleans()),
    st.tuples(st.just("read, die"), st.integers(1, 5)),
    st.tuples(st.just("die"), st.none()),
    st.tuples(st.just("leave"), st.none()),
)


@settings(max_examples=300)
@given(st.lists(actions, max_size=60))
def test_any_schedule_of_points_ticks_and_deaths(schedule: list[tuple[str, object]]) -> None:
    world = World()
    for what, argument in schedule:
        match what, argument:
            case "append", PointBatch() as batch:
                world.log.append((world.now, batch))
            case "observe", (int(source), int(number)):
                world.observe(source, number)
            case "pass", int(ms):
                world.pass_time(ms)
            case "read", int(records):
                world.read(records)
            case "read, die", int(records):
                world.read(records, lost=True)
            case "due", bool(lost):
                world.commit(world.aggregate.due(world.monotonic), lost)
            case "die", None:
                world.take_over()
            case "leave", None:
                world.commit(world.aggregate.last(world.monotonic), lost=False)
                world.take_over()
    world.read(len(world.log))
    world.commit(world.aggregate.last(world.monotonic), lost=False)

    assert [tick.number for tick in world.ticks] == list(range(1, len(world.ticks) + 1))
    assert all(
        a.time_ms < b.time_ms and a.points <= b.points for a, b in zip(world.ticks, world.ticks[1:], strict=False)
    )
    for tick in world.ticks:
        assert tick.time_ms <= world.now + 2 * len(world.ticks)  # a tick at leaving may be 2 ms after another
        totals = {r.source: r.value for _, b in world.log[: tick.points] for r in b.readings}
        told = [value for block in tick.blocks if block.metric == OUTSIDE for _, value in block.rows]
        assert sum(told) == sum(totals.values())  # type: ignore[arg-type]
        for block in tick.blocks:
            if block.metric == OUTSIDE:
                continue
            counted = [row for _, b in world.log[: tick.points] if b.metric == block.metric for row in b.rows]
            assert total(block.rows) == total(counted)
            assert len(block.rows) * block.shape.series <= BUDGET
    assert (world.ticks[-1].points if world.ticks else 0) == len(world.log)


def test_what_begins_after_hours_of_silence_began_an_interval_ago() -> None:
    """A nightly job: its zero must not be so old that Prometheus refuses it, nor before the last tick."""
    world, hour = World(aggregate=Ticks(4, INTERVAL, Limits(BUDGET, 1000, idle_ms=60_000), {})), 3_600_000
    since = []
    for silence in (0, 23 * hour, INTERVAL // 2):
        world.pass_time(silence)
        world.log.append((world.now, PointBatch("calls_total", COUNTER, 0, [(("a", "b", "", ""), 1)])))
        world.read(1)
        assert world.commit(world.aggregate.last(world.monotonic), lost=False)
        since.append(world.ticks[-1].time_ms - world.ticks[-1].since_ms)
        for _ in range(9 if silence == 0 else 0):
            world.pass_time(INTERVAL)
            world.commit(world.aggregate.due(world.monotonic), lost=False)
    assert not world.ticks[-3].blocks[0].rows  # it had ended before the silence
    assert since == [2, INTERVAL, INTERVAL // 2]


def test_nothing_counted_no_ticks() -> None:
    world = World()
    world.aggregate.begin(0)
    world.pass_time(10 * INTERVAL)
    assert world.aggregate.due(world.monotonic) is None
    assert world.aggregate.last(world.monotonic) is None


def test_what_was_refused_is_told_though_nothing_else_was_counted() -> None:
    """Else its dead letter and its offset would wait for the next point, however long that takes."""
    world = World()
    taken = PointBatch("calls_total", Shape("gauge", ("job",), (), 1, open=True), rows=[(("a",), 1)])
    world.log.append((world.now, taken))
    world.read(1)
    world.pass_time(INTERVAL)
    due = world.aggregate.due(world.monotonic)
    assert due is not None
    assert (due.tick.points, due.tick.blocks, [refused.offset for refused in due.refused]) == (1, [], [0])
    assert world.commit(due, lost=False)
    world.pass_time(INTERVAL)
    assert world.aggregate.due(world.monotonic) is None


def test_ticks_go_on_while_no_points_come() -> None:
    world = World()
    world.log.append((world.now, PointBatch.decode(one())))
    world.read(1)
    assert world.aggregate.due(world.monotonic) is None
    for _ in range(5):
        world.pass_time(INTERVAL)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
    assert [tick.time_ms - START for tick in world.ticks] == [INTERVAL * i for i in range(1, 6)]
    assert {tick.points for tick in world.ticks} == {1}


def test_a_pause_in_a_backlog_is_not_its_end() -> None:
    """Fetches stand for longer than an interval, as in a rebalance: time is still that of the points."""
    world = World()
    for _ in range(60):
        world.log.append((world.now, PointBatch.decode(one())))
        world.pass_time(1000)
    world.pass_time(3 * 3_600_000)
    world.read(20)
    for _ in range(2):
        world.pass_time(INTERVAL)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
    world.read(60)
    assert max(tick.time_ms - START for tick in world.ticks) < 60_000 + 2 * INTERVAL


def test_a_backlog_makes_the_ticks_that_it_would_have_made_live() -> None:
    world = World()
    for _ in range(100):
        world.log.append((world.now, PointBatch.decode(one())))
        world.pass_time(1000)
    world.read(100)  # in no time
    times = [tick.time_ms - START for tick in world.ticks]
    assert times == [14_000, 28_000, 42_000, 56_000, 70_000, 84_000, 98_000]
    assert [tick.blocks[0].rows[0][1] for tick in world.ticks] == [15, 29, 43, 57, 71, 85, 99]


def test_a_gap_in_the_backlog_makes_no_ticks_of_its_own() -> None:
    world = World()
    for append in (0, 1000, 3_600_000, 3_601_000):
        world.log.append((START + append, PointBatch.decode(one())))
    world.read(4)
    assert [(tick.time_ms - START, tick.points) for tick in world.ticks] == [(1000, 2), (3_600_000, 3)]


def test_after_a_long_outage_without_points_the_first_acknowledgement_tells_the_time() -> None:
    world = World()
    world.log.append((world.now, PointBatch.decode(one())))
    world.read(1)
    world.commit(world.aggregate.last(world.monotonic), lost=False)
    world.now += 3_600_000
    world.take_over()
    assert world.aggregate.due(world.monotonic) is None
    for _ in range(2):
        world.pass_time(INTERVAL)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
    assert world.ticks[1].time_ms == world.ticks[0].time_ms + INTERVAL
    assert world.ticks[2].time_ms == world.now


def test_a_clock_that_is_set_back_does_not_hold_the_ticks_up() -> None:
    world = World()
    for _ in range(4):
        world.log.append((world.now, PointBatch.decode(one())))
        world.read(1)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
        world.now -= 3_600_000
        world.pass_time(INTERVAL)
    assert len(world.ticks) == 3
    assert all(a.time_ms < b.time_ms for a, b in zip(world.ticks, world.ticks[1:], strict=False))


@pytest.mark.parametrize("busy", [True, False])
def test_a_clock_that_was_ahead_once_does_not_take_the_ticks_with_it_for_good(busy: bool) -> None:
    """Else Prometheus would refuse every sample, or show each so much too late, until all partitions are made anew."""
    world, ahead = World(), 20 * 60_000
    for number in range(100):
        if busy or not number:
            append = world.now + (ahead if number == 2 else 0)
            world.log.append((append, PointBatch.decode(one())))
            world.read(1)
        if not busy and number == 2:
            world.aggregate.acknowledged(world.now + ahead, world.monotonic, at_end=True)
        if number == 50:
            world.take_over()
        world.pass_time(INTERVAL)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
    times = [tick.time_ms for tick in world.ticks]
    surplus = ahead // INTERVAL
    assert len(times) >= 99, "an interval, a tick"
    assert times == sorted(set(times))
    assert max(times[:surplus]) <= START + ahead + 6 * INTERVAL, "no more than the clock was, and a takeover"
    assert times[-1] == world.now, "and right again as soon as that is over"


@pytest.mark.parametrize("skew", [0, 59_000, 61_000, 600_000])
def test_two_brokers_whose_clocks_differ_make_no_more_ticks(skew: int) -> None:
    """Points are stamped by one, ticks by the other: a tick holds every series."""
    world = World()
    for _ in range(600):
        world.log.append((world.now + skew, PointBatch.decode(one())))
        world.read(1)
        world.pass_time(100)
        world.commit(world.aggregate.due(world.monotonic), lost=False)
    assert len(world.ticks) <= 60_000 // INTERVAL + 1


def test_a_point_that_is_delivered_again_counts_once() -> None:
    aggregate = machine()
    aggregate.begin(0)
    for _ in range(3):
        aggregate.point(0, START, one(5), 0.0)
    due = aggregate.last(1.0)
    assert due is not None
    assert due.tick.blocks[0].rows[0][1] == 5


def test_a_tick_tells_overflow_and_active_series() -> None:
    aggregate = machine(budget=6)
    aggregate.begin(0)
    rows = [((str(i), "", "", ""), i) for i in range(10)]
    aggregate.point(0, START, PointBatch("calls_total", COUNTER, 0, list(rows)).encode(), 0.0)
    due = aggregate.last(1.0)
    assert due is not None
    assert [(limit.active, limit.limit) for limit in due.tick.blocks[0].limits if not limit.label] == [(6, 6)]
    assert due.overflow == {"calls_total": 5 + 6 + 7 + 8 + 9}
    assert aggregate.last(1.0) is None


def test_ticks_of_another_number_of_partitions_or_another_offset_are_refused() -> None:
    tick = Tick(1, START, 9, 4, [])
    with pytest.raises(ProtocolError, match="metric_partitions 4"):
        machine(partitions=8).load(tick, 9, 0.0)
    with pytest.raises(ProtocolError, match="offset in points is 8"):
        machine().load(tick, 8, 0.0)


FULL = MOST_OBSERVATIONS - 1
ENORMOUS: dict[str, tuple[Shape, Value, Value]] = {
    "histogram": (HISTOGRAM, HistogramValue(FULL, 1.0, (FULL, 0, 0, 0)), HistogramValue(2, 1.0, (0, 1, 1, 0))),
    "exponential": (
        Shape("exponential", ("job", "instance"), (), 1, open=True),
        ExponentialValue(FULL, 1.0, 3, FULL, 0.0, 0, (), 0, ()),
        ExponentialValue(2, 1.0, 3, 0, 0.0, 5, (1, 1), 0, ()),
    ),
    "summary": (
        Shape("summary", ("job", "instance"), (0.5,), 1, open=True),
        SummaryValue(FULL, 1.0, (1.0,)),
        SummaryValue(2, 1.0, (1.0,)),
    ),
}


@pytest.mark.parametrize("kind", ENORMOUS)
def test_a_count_that_would_leave_64_bits_begins_anew(kind: str) -> None:
    """Whoever may send points can send counts of 2^53 again and again: that must not stop the role for ever."""
    shape, full, more = ENORMOUS[kind]
    labels = ("a",) * len(shape.label_names)
    found, own = [], machine()
    own.begin(0)
    for offset, value in enumerate((full, more, more)):
        own.point(offset, START + offset * INTERVAL, PointBatch("big", shape, 0, [(labels, value)]).encode(), 0.0)
        due = own.last(0.0)
        assert due is not None
        (block,) = read_tick(due.tick.encode()).blocks
        found.append(observations(block.rows[0][1]))
    assert found == [FULL, 2, 4]


def test_a_number_that_would_leave_64_bits_is_a_float_already() -> None:
    data, metrics = message()
    total = metrics.add(name="a").sum
    total.is_monotonic, total.aggregation_temporality = True, 1
    timed(total.data_points.add(as_int=(1 << 63) - 1))
    own = machine()
    own.begin(0)
    for offset in range(3):
        (batch,) = (batch for batch in read(data)[0].values() if batch.metric == "a_total")
        own.point(offset, START, batch.encode(), 0.0)
    due = own.last(0.0)
    assert due is not None
    (block,) = read_tick(due.tick.encode()).blocks
    assert block.rows[0][1] == 3.0 * (1 << 63)
