"""The clock in the log: marks, stalled raw partitions, clocks that step (docs/adr/0003: F7, F11)."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from processors.stream_time import LEFT_OUT, STEP_LIMIT_MS, BrokerClock, RawMark, RawPartition, StreamClock
from tests.processors.plain_clock import PlainClock

NOON = 1_700_000_000_000
SECOND, HOUR = 1_000, 3_600_000
LIMIT, LOG_LIMIT = 300 * SECOND, 60 * SECOND
RAW = {"raw_spans": 2, "raw_logs": 1}
FIRST, OTHER, LOG = ("raw_spans", 0), ("raw_spans", 1), ("raw_logs", 0)


@dataclass
class Reader:
    """A clock, and marks in seconds after noon for it."""

    clock: StreamClock = field(
        default_factory=lambda: StreamClock({"raw_logs": LOG_LIMIT}, LIMIT, feeds=("spans", "logs"))
    )

    def mark(self, raw: RawPartition, mark: float | None, append: float | None = None) -> Reader:
        """A record of `raw` with its mark; it was appended at the same time unless `append` says otherwise."""
        appended = mark if append is None else append
        assert appended is not None
        feed = "spans" if raw[0] == "raw_spans" else "logs"
        self.clock.observe(feed, raw, -1 if mark is None else ms(mark), ms(appended), RAW)
        return self

    def marks(self, second: float, *raws: RawPartition, append: float | None = None) -> Reader:
        for raw in raws or (FIRST, OTHER, LOG):
            self.mark(raw, second, append)
        return self

    @property
    def now(self) -> float | None:
        now = self.clock.now()
        return None if now is None else (now - NOON) / 1000

    def restarted(self) -> Reader:
        """A new owner, from a full checkpoint of this one."""
        raws = {*self.clock.marks, *self.clock.stalled()}
        after = Reader()
        after.clock.restore({raw: self.clock.saved(raw) for raw in raws}, self.clock.raw_topics)
        return after


def ms(seconds: float) -> int:
    return NOON + round(seconds * 1000)


def test_the_clock_is_the_smallest_mark() -> None:
    reader = Reader().marks(10).mark(FIRST, 30).mark(LOG, 20)
    assert reader.now == 10
    assert reader.mark(OTHER, 25).now == 20


def test_a_raw_partition_without_a_mark_holds_the_clock() -> None:
    """Second pass 4: a cold start must not decide without it, not even one whose records carry no mark yet."""
    reader = Reader().marks(10, FIRST, LOG)
    assert reader.now is None
    assert reader.mark(OTHER, None, append=10).now is None
    assert reader.mark(OTHER, 5, append=11).now == 5


def test_a_raw_partition_that_was_added_holds_the_clock_where_it_is() -> None:
    reader = Reader().marks(10)
    assert reader.now == 10
    reader.clock.observe("spans", FIRST, ms(50), ms(50), {**RAW, "raw_spans": 3})
    assert reader.marks(50).now == 10
    reader.clock.observe("spans", ("raw_spans", 2), ms(20), ms(51), {**RAW, "raw_spans": 3})
    assert reader.now == 20


def test_a_count_of_raw_partitions_never_shrinks() -> None:
    """A worker of ingest with older metadata may list fewer."""
    reader = Reader().marks(10, FIRST, LOG)
    reader.clock.observe("logs", LOG, ms(10), ms(10), {"raw_spans": 1, "raw_logs": 1})
    assert reader.now is None


def test_a_silent_raw_partition_is_left_out_after_its_limit_and_is_late_when_it_returns() -> None:
    reader = Reader().marks(0)
    for second in range(10, 301, 10):
        assert reader.marks(second, FIRST, LOG).now == 0
    assert reader.marks(310, FIRST, LOG).now == 310
    assert reader.clock.stalled() == [OTHER]
    assert reader.mark(OTHER, 100, append=311).now == 310, "never back"
    assert reader.clock.stalled() == []
    assert reader.marks(320, FIRST, LOG).now == 310
    assert reader.mark(OTHER, 315, append=321).now == 315


def without(reader: Reader, seconds: Iterable[int], *lists: dict[str, int]) -> Reader:
    """Marks of FIRST and LOG alone, in records that list these, in turn."""
    for number, second in enumerate(seconds):
        for feed, raw in (("spans", FIRST), ("logs", LOG)):
            reader.clock.observe(feed, raw, ms(second), ms(second), lists[number % len(lists)])
            reader.clock.now()
            assert len(lists) > 1 or reader.clock.stalled() == []
    return reader


def test_one_that_was_removed_is_forgotten_and_new_when_it_is_listed_again() -> None:
    """It stayed in every checkpoint, and each takeover counted it as left out, for ever."""
    fewer = {"raw_spans": 1, "raw_logs": 1}
    reader = without(Reader().marks(0), range(10, 301, 10), fewer)
    assert reader.now == 0, "it holds the clock for its limit, as ever"
    without(reader, range(310, 400, 10), fewer)
    assert reader.now == 390
    assert reader.clock.raw_topics == reader.restarted().clock.raw_topics == fewer
    assert OTHER not in reader.clock.marks
    reader.marks(400, FIRST, LOG)
    assert reader.marks(410, FIRST, LOG).now == 390, "without a mark it holds the clock"
    assert reader.mark(OTHER, 405, append=411).now == 405


def test_one_that_a_single_worker_still_lists_is_not_removed() -> None:
    """A rolling change of the inputs; and a worker that knows no count just now, as without metadata."""
    fewer = {"raw_spans": 1, "raw_logs": 1}
    for known in (RAW, {**RAW, "raw_spans": 0}):
        reader = without(Reader().marks(0), range(10, 1000, 10), fewer, fewer, known)
        assert reader.now == 990
        assert reader.clock.stalled() == reader.restarted().clock.stalled() == [OTHER]
        assert reader.restarted().clock.raw_topics == RAW


def test_one_that_was_removed_before_a_takeover_is_forgotten_after_it() -> None:
    reader = Reader().marks(0)
    for second in range(10, 400, 10):
        reader.marks(second, FIRST, LOG)
    after = reader.restarted()
    assert after.clock.stalled() == [OTHER]
    for second in range(400, 600, 10):
        after.clock.observe("spans", FIRST, ms(second), ms(second), {"raw_spans": 1, "raw_logs": 1})
        after.clock.observe("logs", LOG, ms(second), ms(second), {"raw_spans": 1, "raw_logs": 1})
    assert after.clock.stalled() == []


def test_logs_are_waited_for_less_long_than_spans() -> None:
    reader = Reader().marks(0)
    for second in range(10, 61, 10):
        reader.marks(second, FIRST, OTHER)
        reader.clock.ended("logs", ms(second))
        assert reader.now == 0
    reader.marks(70, FIRST, OTHER).clock.ended("logs", ms(70))
    assert reader.now == 70


def test_one_that_is_old_but_moving_is_never_left_out() -> None:
    reader = Reader().marks(0)
    for second in range(10, 4000, 10):
        reader.marks(second, FIRST, LOG)
        assert reader.mark(OTHER, second / 100, append=second).now == second / 100


def test_a_partition_that_never_had_a_mark_is_left_out_as_well() -> None:
    reader = Reader()
    for second in range(0, 320, 10):
        reader.marks(second, FIRST, LOG)
        assert reader.now == (None if second <= 300 else second)


def test_when_all_are_silent_the_clock_stands() -> None:
    """Second pass 4: the newest thing in the log is what silence is measured against."""
    reader = Reader().marks(0)
    for _ in range(100):
        reader.clock.ended("spans", reader.clock.newest_append)
        reader.clock.ended("logs", reader.clock.newest_append)
    assert reader.now == 0
    assert reader.clock.stalled() == []


def test_after_an_outage_of_everything_the_first_to_return_does_not_leave_the_others_out() -> None:
    """F7: ingest was down for an hour; its raw partitions come back one after the other."""
    reader = Reader().marks(0)
    assert reader.mark(FIRST, 500, append=3600).now == 0
    assert reader.mark(LOG, 600, append=3602).now == 0
    assert reader.mark(OTHER, 400, append=3604).now == 400


def test_a_feed_that_is_read_ahead_does_not_make_the_other_look_silent() -> None:
    """F10: spans are read an hour ahead of logs, and the other way round."""
    for ahead, behind in (((FIRST, OTHER), (LOG,)), ((LOG,), (FIRST, OTHER))):
        reader = Reader().marks(0)
        for second in range(10, 3600, 10):
            assert reader.marks(second, *ahead).now == 0
        for second in range(10, 3600, 10):
            assert reader.marks(second, *behind).now == second


def test_a_feed_that_ended_is_silent_and_one_that_is_behind_is_not() -> None:
    reader = Reader().marks(0)
    assert reader.clock.quiet() == []
    for second in range(10, 400, 10):
        reader.marks(second, FIRST, OTHER)
    assert reader.clock.quiet() == ["logs"]
    assert reader.now == 0
    reader.clock.ended("logs", ms(10))
    assert reader.now == 0, "what was appended later may still be unread"


def test_a_step_of_the_brokers_clock_leaves_nobody_out() -> None:
    """F11: append times jump by an hour either way; raw times go on."""
    for step in (3600, -3600):
        reader = Reader().marks(0)
        for second in range(10, 100, 10):
            reader.marks(second)
        for second in range(100, 400, 10):
            for raw in (FIRST, OTHER, LOG):
                reader.mark(raw, second, append=second + step)
                assert reader.clock.stalled() == []
            assert reader.now == second
        for second in range(400, 800, 10):
            reader.marks(second, FIRST, LOG, append=second + step)
        assert reader.clock.stalled() == [OTHER], "silence is noticed after the step as before it"


def test_who_was_left_out_stays_out_after_a_takeover_and_the_others_are_waited_for() -> None:
    reader = Reader().marks(0)
    for second in range(10, 400, 10):
        reader.marks(second, FIRST, LOG)
    after = reader.restarted()
    assert after.now == reader.now == 390
    assert after.clock.stalled() == [OTHER]
    assert after.mark(FIRST, 500, append=3600).now == 390, "logs are waited for"
    assert after.mark(LOG, 510, append=3601).now == 500
    assert after.mark(OTHER, 505, append=3602).clock.stalled() == []


def test_one_that_never_had_a_mark_stays_out_after_a_takeover() -> None:
    reader = Reader()
    for second in range(0, 400, 10):
        reader.marks(second, FIRST, LOG)
    assert reader.clock.saved(OTHER) == (-1, LEFT_OUT)
    after = reader.restarted()
    assert after.now == 390
    assert OTHER not in after.clock.marks


def test_a_takeover_starts_from_the_checkpoint() -> None:
    reader = Reader().marks(10).mark(FIRST, 30)
    after = reader.restarted()
    assert after.now == 10
    assert after.clock.marks == reader.clock.marks


def test_a_rows_time_lies_between_its_partitions_mark_and_the_brokers_now() -> None:
    clock = Reader().marks(100).clock

    def times(own: StreamClock, append: int, *raw: int) -> list[int]:
        return own.row_times(FIRST, array("q", raw), append).tolist()

    assert times(clock, ms(160), ms(150), ms(-HOUR), ms(HOUR)) == [
        ms(150),
        ms(100),  # a slow clock: not before what was read
        ms(160),  # a fast clock: not after the broker's now
    ]
    assert times(clock, ms(90), ms(7), ms(150)) == [ms(100), ms(100)], "not before what was read"
    assert times(Reader().clock, ms(160), ms(7), ms(170)) == [ms(7), ms(160)]


RECORDS = st.lists(
    st.tuples(st.sampled_from((FIRST, OTHER, LOG)), st.one_of(st.none(), st.integers(0, 5_000)), st.integers(0, 90)),
    max_size=40,
)


@given(RECORDS, st.integers(-HOUR, HOUR), st.integers(0, 40))
def test_never_back_never_beyond_a_live_mark(
    records: Sequence[tuple[RawPartition, int | None, int]], step: int, step_at: int
) -> None:
    reader, append, last = Reader(), 0, None
    newest: dict[RawPartition, int] = {}
    for number, (raw, mark, elapsed) in enumerate(records):
        append += elapsed + (step // 1000 if number == step_at else 0)
        reader.mark(raw, mark, append=append)
        if mark is not None:
            newest[raw] = max(mark, newest.get(raw, mark))
        now = reader.now
        assert last is None or (now is not None and now >= last)
        live = [r for r in (FIRST, OTHER, LOG) if r not in reader.clock.stalled()]
        if now != last:
            assert now is not None
            assert all(newest[r] >= now for r in live)
        last = now


LISTS: tuple[dict[str, int], ...] = (
    {},
    {"raw_spans": 1, "raw_logs": 1},
    {"raw_spans": 2},
    {"raw_logs": 2},
    {"raw_spans": 0},
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("mark", "mark", "mark", "read", "end", "end", "takeover")),
        st.sampled_from((FIRST, OTHER, LOG)),
        st.integers(-30, 5),  # its mark, seconds from the append time
        st.sampled_from((0, 1, 10, 10, 10, 10, 15, 100, -3600, 3600)),  # seconds since the last one
        st.sampled_from(LISTS),
    ),
    min_size=30,
    max_size=150,
)


@given(STEPS)
def test_whoever_is_looked_at_the_answers_are_those_of_looking_at_all(
    steps: Sequence[tuple[str, RawPartition, int, int, dict[str, int]]],
) -> None:
    """A record looks at few raw partitions; in any order of marks, silence, lists, ends and takeovers."""
    limits = {"raw_logs": 40 * SECOND}, LOG_LIMIT, ("spans", "logs")
    clock, plain, append = StreamClock(*limits), PlainClock(*limits), NOON
    for what, raw, behind, elapsed, listed in steps:
        append += elapsed * SECOND
        feed = "logs" if raw[0] == "raw_logs" else "spans"
        for each in (clock, plain):
            if what == "end":
                each.ended("logs", append)
                each.ended("spans", append)
            elif what != "takeover":
                each.observe(feed, raw, append + behind * SECOND if what == "mark" else -1, append, listed)
        if what == "takeover":
            raws = sorted({*plain.marks, *plain.stalled()})
            saved = {each: plain.saved(each) for each in raws}
            assert {each: clock.saved(each) for each in raws} == saved
            clock, plain, known = StreamClock(*limits), PlainClock(*limits), plain.raw_topics
            for each in (clock, plain):
                each.restore(saved, known)
        elif behind % 3:
            assert clock.now() == plain.now()
        assert sorted(clock.stalled()) == sorted(plain.stalled())
        assert (clock.marks, clock.raw_topics, clock.changed) == (plain.marks, plain.raw_topics, plain.changed)
    assert clock.now() == plain.now()


def test_a_record_costs_the_same_however_many_raw_partitions_there_are() -> None:
    """Each one went through all of them: 400, of one record a second, took a core for two clocks."""

    def cost(raws: int) -> float:
        clock, best = StreamClock({"raw_logs": LOG_LIMIT}, LIMIT, ("spans", "logs")), float("inf")
        records = ((f"raw_{number % 2}", number // 2 % (raws // 2), NOON + number) for number in count())
        listed = {"raw_0": raws // 2, "raw_1": raws // 2}

        def read(most: int) -> None:
            for (topic, partition, time_ms), _ in zip(records, range(most), strict=False):
                clock.observe("spans", (topic, partition), time_ms, time_ms, listed)
                clock.now()

        read(raws)
        for _ in range(3):
            began = time.process_time()
            read(500)
            best = min(best, time.process_time() - began)
        return best

    assert cost(400) < 8 * cost(10)


def test_a_mark_is_the_newest_timestamp_that_was_read() -> None:
    mark = RawMark()
    assert mark.cut(ms(100)) is None
    mark.read(ms(3))
    mark.read(ms(1))
    assert mark.cut(ms(100)) == ms(3)
    mark.read(ms(2))
    assert mark.cut(ms(100)) == ms(3), "never back"


def test_a_mark_is_never_ahead_of_the_brokers_now() -> None:
    """Second pass 6: a producer whose clock is an hour fast."""
    mark = RawMark(ms(0))
    for second in range(1, 2000):
        mark.read(ms(second + HOUR))
    assert mark.cut(ms(2000)) == ms(2000)


def test_a_mark_waits_until_the_brokers_now_is_known() -> None:
    """The first transaction of a lease: a fast clock would freeze the mark for an hour."""
    mark = RawMark()
    mark.read(ms(HOUR))
    assert mark.cut(None) is None
    assert mark.cut(ms(5)) == ms(5)
    mark = RawMark(ms(1))
    mark.read(ms(HOUR))
    assert mark.cut(None) == ms(1)


def test_one_timestamp_of_a_fast_clock_moves_a_mark_by_a_step_at_most() -> None:
    """In a backlog the broker's now lies hours ahead and cuts nothing."""
    mark = RawMark(ms(0))
    mark.read(ms(HOUR))
    assert mark.cut(ms(3 * HOUR)) == ms(0) + STEP_LIMIT_MS


def test_the_first_timestamp_is_not_that_of_all_others() -> None:
    """The first record of a backlog is of a clock that is an hour ahead, or has no time at all."""
    for first in (ms(3_600), -1, 0):
        mark = RawMark()
        mark.read_all([first, *(ms(second / 10) for second in range(50))])
        assert ms(0) <= (mark.cut(ms(14_400)) or 0) <= ms(4.9) + STEP_LIMIT_MS


def test_the_end_of_a_partition_is_the_brokers_time_before_it_was_asked_for() -> None:
    mark = RawMark()
    mark.ended(None)
    assert mark.cut(ms(1)) is None
    mark.ended(ms(10))
    assert mark.cut(ms(11)) == ms(10)
    mark.ended(ms(5))
    assert mark.cut(ms(11)) == ms(10), "never back"
    mark.read(ms(-HOUR))
    assert mark.cut(ms(12)) == ms(10), "a slow clock does not pull it back"


def test_timestamps_that_say_nothing_make_no_negative_mark() -> None:
    """-1: a record without a timestamp (message format 0)."""
    mark = RawMark()
    mark.read(-1)
    assert mark.cut(ms(0)) == 0


@given(st.lists(st.one_of(st.integers(-1, 2 * HOUR), st.none()), max_size=30))
def test_marks_only_grow_and_follow_what_was_read(timestamps: list[int | None]) -> None:
    mark, last, read = RawMark(), 0, 0
    for timestamp in timestamps:
        if timestamp is None:
            found = mark.cut(HOUR)
            assert found is None or last <= found <= min(HOUR, max(read, 0))
            last = found or 0
        else:
            mark.read(timestamp)
            read = max(read, timestamp)


def test_the_brokers_time_is_unknown_before_it_has_acknowledged_anything() -> None:
    clock = BrokerClock()
    assert clock.now(0.0) is None
    clock.observe(ms(0), 100.0)
    assert clock.now(101.5) == ms(1.5)


def test_the_brokers_clock_never_goes_back_and_steps_are_capped() -> None:
    """An hour either way: a step forward is followed slowly, one back not at all."""
    clock = BrokerClock()
    clock.observe(ms(0), 0.0)
    clock.observe(ms(1) + HOUR, 1.0)
    assert clock.now(1.0) == ms(1) + STEP_LIMIT_MS
    clock = BrokerClock()
    clock.observe(ms(0), 0.0)
    clock.observe(ms(1) - HOUR, 1.0)
    assert clock.now(1.0) == ms(1)


def test_the_brokers_clock_is_behind_until_a_step_was_followed() -> None:
    clock = BrokerClock()
    behind = []
    for step in (0, 25, 25, 25, 25, -25):
        clock.observe(ms(step), 0.0)
        behind.append(clock.behind)
    assert behind == [False, True, True, False, False, False]
    assert clock.now(0.0) == ms(25)


@given(st.lists(st.tuples(st.integers(-HOUR, HOUR), st.integers(0, 5_000)), min_size=1, max_size=30))
def test_the_brokers_time_is_monotone_whatever_it_answers(answers: list[tuple[int, int]]) -> None:
    clock, monotonic, last = BrokerClock(), 0.0, None
    for offset, elapsed in answers:
        monotonic += elapsed / 1000
        before = clock.now(monotonic)
        clock.observe(NOON + offset, monotonic)
        after = clock.now(monotonic)
        assert after is not None
        assert before is None or before <= after <= before + STEP_LIMIT_MS
        assert last is None or after >= last
        last = after
