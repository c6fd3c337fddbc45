"""One partition pair: taking over, the two cursors, verdicts, the clock of two topics."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from processors.sampling import window as module
from processors.sampling.decision_log import DECISION_OVERHEAD
from processors.sampling.verdicts import Verdicts
from processors.sampling.window import FULL_CHECKPOINT_MS, IDLE_BURST_MS, Settings
from schemas.decision import DecisionRecord, Enrichment
from schemas.envelope import Envelope, RowVerdict
from schemas.errors import ProtocolError, Unavailable
from schemas.reasons import Reason
from tests.processors.sampling.builders import drop, policy
from tests.processors.sampling.pair import (
    DUE,
    HORIZON,
    LATE,
    LOGS,
    SETTINGS,
    SPANS,
    WAIT,
    Owner,
    Pair,
    key,
    ms,
    quiet,
    raw_batch,
    state,
)

KEPT_BY_ERRORS = RowVerdict(True, "errors")


def decided() -> Pair:
    """A is kept, B dropped; the tails have passed everything."""
    pair = Pair()
    pair.spans(0, "A1!", "B1")
    pair.logs(0, "A1", "B1")
    quiet(pair, DUE)
    pair.own().settle()
    return pair


def test_a_trace_is_kept_for_the_scope_of_its_spans() -> None:
    pair = Pair(more=(policy("grpc", "ottl_condition", span=['instrumentation_scope.name == "io.grpc"']),))
    pair.spans(0, "A1")
    pair.scope = ScopeSpans(scope=InstrumentationScope(name="io.grpc")).SerializeToString()
    pair.spans(0, "B1")
    quiet(pair, DUE)
    owner = pair.own()
    owner.settle()
    assert owner.kept_spans == ["B1"]
    assert pair.verdicts() == {"A": [""], "B": ["grpc"]}


# ---- taking over -----------------------------------------------------------------------------------------


def test_the_very_first_start_begins_with_what_the_topics_hold() -> None:
    owner = Owner(Pair(), SETTINGS)
    assert owner.window.resume({SPANS: None, LOGS: None}, {SPANS: 7, LOGS: 0}) == {SPANS: 7, LOGS: 0}


def test_an_offset_without_a_checkpoint_is_refused() -> None:
    """F2, F23: the decisions topic was emptied; starting from the offset would decide half-passed traces again."""
    with pytest.raises(ProtocolError, match=r"group offset 5 of tailrace.logs/0 but no checkpoint"):
        Owner(Pair(), SETTINGS).window.resume({SPANS: None, LOGS: 5}, {SPANS: 0, LOGS: 0})


@pytest.mark.parametrize("moved", [-1, 1])
@pytest.mark.parametrize("topic", [SPANS, LOGS])
def test_an_offset_that_was_reset_is_refused(topic: str, moved: int) -> None:
    pair = decided()
    pair.offsets[topic] = (pair.offsets[topic] or 0) + moved
    with pytest.raises(ProtocolError, match=rf"{topic}/0 but its checkpoint says {2}: offsets"):
        pair.own()


def test_offsets_that_expired_come_back_from_the_checkpoint() -> None:
    """F23: `offsets.retention.minutes` after the last commit the group has none."""
    pair = decided()
    tails, pair.offsets, pair.pointer = pair.offsets, {}, None
    assert pair.own().window.positions() == tails


def test_rows_that_are_gone_before_they_were_forwarded_stop_the_role() -> None:
    pair = decided()
    owner = Owner(pair, SETTINGS)
    owner.window.load(0, pair.decisions[-1])
    with pytest.raises(ProtocolError, match=r"tailrace.spans/0 starts at 9, 7 records .* retention overtook the tail"):
        owner.window.resume(pair.offsets, {SPANS: 9, LOGS: 0})


def test_with_the_operators_consent_it_goes_on_after_rows_that_are_gone() -> None:
    pair = decided()
    owner = Owner(pair, SETTINGS)
    owner.window.load(0, pair.decisions[-1])
    positions = owner.window.resume(pair.offsets, {SPANS: 9, LOGS: 0}, accept_loss=True)
    assert (positions[SPANS], owner.window.lost) == (9, {SPANS: 7})


def test_a_marker_that_is_gone_is_no_record() -> None:
    """Retention takes all of a silent topic, and with it the marker behind the last record, where the tail stands."""
    pair = decided()
    owner = Owner(pair, SETTINGS)
    owner.window.load(0, pair.decisions[-1])
    positions = owner.window.resume(pair.offsets, {SPANS: 3, LOGS: 0}, emptied=[SPANS])
    assert (positions[SPANS], owner.window.lost) == (3, {})
    owner = Owner(pair, SETTINGS)
    owner.window.load(0, pair.decisions[-1])
    with pytest.raises(ProtocolError, match="starts at 4, 1 records"):
        owner.window.resume(pair.offsets, {SPANS: 4, LOGS: 0}, emptied=[SPANS])


def test_head_and_tail_go_past_markers_once_the_end_is_known() -> None:
    """Aborted records and markers are never given to the head; with them gone there would be no way back to it."""
    pair = decided()
    owner = pair.own()
    owner.window.ended(SPANS, owner.window.newest_append, 7)
    assert owner.window.positions()[SPANS] == 7
    pair.spans(20, mark=21)
    burst = owner.window.burst(always=True)
    assert burst is not None
    assert burst.tails[SPANS] == 7


def test_with_the_operators_consent_it_goes_on_where_the_group_was_without_any_verdicts() -> None:
    window = Owner(Pair(), SETTINGS).window
    with pytest.raises(ProtocolError, match="the decisions topic was emptied or recreated"):
        window.resume({SPANS: 5, LOGS: 4}, {SPANS: 0, LOGS: 6})
    window = Owner(Pair(), SETTINGS).window
    assert window.resume({SPANS: 5, LOGS: 4}, {SPANS: 0, LOGS: 6}, accept_loss=True) == {SPANS: 5, LOGS: 6}
    assert window.lost == {LOGS: 2}


def test_another_n_is_refused_in_records_and_in_decisions() -> None:
    """F21."""
    pair = decided()
    owner = Owner(pair, replace(SETTINGS, partitions=2))
    with pytest.raises(ProtocolError, match="N = 1 partitions, the configuration 2"):
        owner.window.load(0, pair.decisions[0])
    owner.window.resume({}, {SPANS: 0, LOGS: 0})
    with pytest.raises(ProtocolError, match="N = 1 partitions, the configuration 2"):
        owner.read()


def test_foreign_records_stop_the_role() -> None:
    pair = Pair()
    pair.topics[SPANS].append((ms(0), b"hello"))
    with pytest.raises(ProtocolError, match="not an envelope"):
        pair.own().read()
    with pytest.raises(ProtocolError, match="not a decision record"):
        Owner(pair, SETTINGS).window.load(0, b"hello")


# ---- the two cursors -------------------------------------------------------------------------------------


def test_a_record_is_passed_only_when_all_its_traces_are_decided() -> None:
    """I2; the verdicts are in the same transaction or in an earlier one."""
    pair = Pair()
    pair.spans(0, "A1!", "B1")
    pair.spans(5, "C1")
    pair.spans(DUE)
    pair.logs(DUE)
    owner = pair.own().read()
    burst = owner.burst()
    assert burst is not None
    assert burst.tails == {SPANS: 1, LOGS: 1}, "C is undecided: its record and all after it stay"
    assert owner.kept_spans == ["A1!"]
    assert pair.verdicts() == {"A": ["errors"], "B": [""]}


def test_a_trace_that_is_neither_decided_nor_waiting_stops_the_role() -> None:
    pair = decided()
    owner = pair.own()
    pair.spans(DUE + 1, "A2")
    owner.read()
    owner.window._verdicts = Verdicts(HORIZON)
    with pytest.raises(ProtocolError, match=r"no verdict \(I2\)"):
        owner.burst()


def test_spans_are_counted_once_whatever_the_number_of_owners() -> None:
    """Each owner reads ahead of its tail, commits and is gone; the next one's head starts at the tail again."""
    pair = Pair()
    counted, number = 0.0, 0
    for second in range(0, 40, 2):
        pair.spans(second, f"{chr(65 + second)}1", f"{chr(65 + second)}2!")
        pair.logs(second)
        number += 2
        owner = pair.own().read()
        owner.burst()
        counted += owner.counted
    assert counted == number


def test_a_record_that_was_seen_is_ignored() -> None:
    pair = Pair()
    pair.spans(0, "A1!")
    owner = pair.own().read()
    append, value = pair.topics[SPANS][0]
    owner.window.head(SPANS, 0, append, value)
    quiet(pair, DUE)
    owner.settle()
    assert owner.counted == 1
    assert owner.kept_spans == ["A1!"]


def test_the_limit_of_a_burst_is_followed_by_another_one() -> None:
    pair = Pair(replace(SETTINGS, burst_bytes=1))
    for second in range(4):
        pair.spans(second, "A1!")
    quiet(pair, DUE + 4)
    owner = pair.own().read()
    more = []
    while (burst := owner.burst()) is not None:
        more.append(burst.more)
        assert len(burst.kept_spans) <= 1
    assert more[:4] == [True] * 4
    assert owner.kept_spans == ["A1!"] * 4


def test_a_burst_that_has_become_long_ends_and_neither_topic_waits_for_ever() -> None:
    pair = Pair()
    for second in range(4):
        pair.spans(second, "A1!")
        pair.logs(second, "A1")
    quiet(pair, DUE + 4)
    owner = pair.own().read()
    passed = []
    while (burst := owner.window.burst(is_long=lambda: True)) is not None and burst.more:
        passed.append((burst.tails[SPANS], burst.tails[LOGS]))
    assert passed == [(1, 1), (2, 2), (3, 3), (4, 4)]
    asked = iter([False, False, True, True, False, False, True, True])
    owner = Owner(pair, pair.settings)
    owner.window.resume({}, {SPANS: 0, LOGS: 0})
    owner.read()
    one, two = (owner.window.burst(is_long=lambda: next(asked)) for _ in range(2))
    assert one is not None
    assert two is not None
    assert (one.tails[SPANS], one.tails[LOGS]) == (3, 1)
    assert two.tails[LOGS] == 4, "it came first"


def test_verdicts_of_a_burst_are_bounded_by_its_limit() -> None:
    pair = Pair()
    pair.spans(0, *(f"{chr(65 + trace)}1" for trace in range(8)))
    quiet(pair, DUE)
    owner = pair.own()
    owner.window.limit = 3 * DECISION_OVERHEAD
    owner.read()
    numbers = []
    while (burst := owner.window.burst()) is not None:
        numbers.append(len(DecisionRecord.decode(burst.decisions).keys))
    assert numbers == [4, 4], "as far as the last one that begins within it"


def test_idle_marks_move_the_tail_rarely() -> None:
    """Second pass 8: a transaction for marks alone every IDLE_BURST_MS of stream time, not more."""
    pair = decided()
    owner = pair.own()
    written = len(pair.decisions)
    times = []
    for tenth in range(1, 601):
        second = DUE + tenth / 10
        quiet(pair, second)
        owner.read()
        if owner.burst() is not None:
            times.append(second)
    gaps = [round((b - a) * 1000) for a, b in pairwise(times)]
    assert len(pair.decisions) - written == len(times)
    assert times
    assert all(gap == IDLE_BURST_MS for gap in gaps)
    assert owner.burst() is None, "nothing new"


def test_the_last_burst_of_a_leaving_worker_takes_idle_marks_along() -> None:
    pair = decided()
    owner = pair.own()
    quiet(pair, DUE + 1)
    assert owner.read().burst() is not None, "the first of an owner says that it is there"
    quiet(pair, DUE + 2)
    assert owner.read().burst() is None
    assert owner.burst(final=True) is not None
    assert pair.offsets == {SPANS: 4, LOGS: 4}
    assert owner.burst(final=True) is None


# ---- checkpoints and where loading begins ----------------------------------------------------------------


def test_a_checkpoint_is_full_at_first_and_then_every_ten_seconds() -> None:
    """Second pass 8: between two full ones only marks that moved are written."""
    pair = Pair(raw={"raw_spans": 2, "raw_logs": 1})
    pair.spans(0, raw=1)
    for second in range(0, 60, 2):
        pair.spans(second, f"{chr(65 + second)}1!", raw=0)
        pair.logs(second)
        if second % 20 == 10:
            pair.spans(second, raw=1)
    owner = pair.own()
    for _ in range(len(pair.topics[SPANS])):
        owner.read(count=1).burst()
    points = [record.checkpoint for record in pair.records()]
    assert points[0].full
    full = [max(mark for mark, _ in point.marks.values()) for point in points if point.full]
    assert all(b - a >= FULL_CHECKPOINT_MS for a, b in pairwise(full[1:]))
    assert len(full) < len(points)
    assert any(("raw_spans", 1) not in point.marks for point in points if not point.full)
    assert all(len(point.marks) == 3 for point in points[5:] if point.full)


NAMES = st.sampled_from([f"{letter}{n}{failed}" for letter in "ABCDEF" for n in "12" for failed in ("", "!")])
STEPS = st.lists(
    st.tuples(
        st.sampled_from((SPANS, LOGS)),
        st.integers(0, 1),  # the raw partition of spans
        st.integers(0, 25),  # seconds since the last record
        st.lists(NAMES, max_size=3),
        st.sampled_from(("read", "read", "burst", "take over", "nothing")),
    ),
    max_size=60,
)


def assert_same_from_the_pointer(pair: Pair) -> None:
    """Checkpoint and positions are the same as from 0, and so are the verdicts but for some that nothing can meet.

    Verdicts are forgotten in buckets of time, so that who reads more of them may know one that is over for longer.
    """
    owner, everything = pair.own(), pair.own(from_start=True)
    (found, *rest), (known, *same) = state(owner), state(everything)
    assert rest == same
    assert found.items() <= known.items()
    now, tails = everything.window._tail_clock.now(), everything.window.positions()
    for record in pair.records():
        for trace, time in zip(record.keys, record.times, strict=True):
            if trace in known.keys() - found.keys():
                assert now is not None
                assert time < now - HORIZON, "a late row can still meet it"
                assert all(tails[topic] >= head for topic, head in record.checkpoint.counted.items())


FORGOTTEN = [(SPANS, 0, 0, ["A1"], "read"), (SPANS, 0, 10, [], "read"), (SPANS, 0, 0, ["B1"], "read")]
"""A's verdict is a second older than B's, in the same bucket, and B's is the one that can still be met."""


@settings(max_examples=150, deadline=None)
@example(
    [
        *FORGOTTEN,
        (SPANS, 1, 0, [], "read"),
        (LOGS, 0, 0, [], "burst"),
        (SPANS, 0, 15, [], "read"),
        (SPANS, 0, 24, [], "read"),
    ],
    0,
)
@given(STEPS, st.sampled_from((0, 500, 1 << 20)))
def test_loading_from_the_pointer_is_loading_everything(
    steps: list[tuple[str, int, int, list[str], str]], cache_bytes: int
) -> None:
    """At every burst: verdicts that can still be met, checkpoint and positions are the same from `load_from` as from 0.

    And every history forwards the spans of kept traces exactly once (within the horizon, one verdict a trace).
    """
    pair = Pair(replace(SETTINGS, cache_bytes=cache_bytes), raw={"raw_spans": 2, "raw_logs": 1})
    owner, kept, counted, produced, now = pair.own(), [], 0.0, 0, 0
    for topic, raw, elapsed, names, action in steps:
        now += elapsed
        if topic == SPANS:
            pair.spans(now, *names, raw=raw)
            produced += len(names)
        else:
            pair.logs(now, *names)
        if action == "take over":
            kept += owner.kept_spans
            counted += owner.counted
            owner = pair.own()
        elif action != "nothing":
            owner.read()
            if action == "burst":
                owner.burst()
                assert_same_from_the_pointer(pair)
    for second in (now + DUE, now + 2 * DUE):
        pair.spans(second, raw=0)
        pair.spans(second, raw=1)
        pair.logs(second)
    owner.settle()
    assert_same_from_the_pointer(pair)
    assert counted + owner.counted == produced
    kept += owner.kept_spans
    forwarded = sorted(kept)
    expected = []
    first_met = _lives(pair)
    for offset, (_, value) in enumerate(pair.topics[SPANS]):
        envelope = Envelope.decode(value)
        for row, trace in enumerate(envelope.keys):
            if any(policy for policy in first_met[trace]):
                expected.append((offset, row))
    if all(len(policies) == 1 for policies in first_met.values()):
        assert len(forwarded) == len(expected)


def _lives(pair: Pair) -> dict[int, set[str]]:
    """Trace key → what its verdicts said."""
    found: dict[int, set[str]] = {}
    for record in pair.records():
        for trace, verdict in zip(record.keys, record.verdicts, strict=True):
            found.setdefault(trace, set()).add(verdict.policy)
    return found


# ---- verdicts --------------------------------------------------------------------------------------------


def test_late_rows_follow_the_verdict_and_keep_it_alive() -> None:
    """Rows every half horizon or so: one verdict, recorded again, for ever."""
    pair = decided()
    owner = pair.own()
    for second in range(DUE, 10 * LATE, LATE * 2 // 3):
        pair.spans(second, "A2", "B2!")
        pair.logs(second, "A2")
        owner.settle()
        if second % 2:
            owner = pair.own()
    assert set(pair.verdicts()["A"]) == {"errors"}
    assert set(pair.verdicts()["B"]) == {""}, "late evidence is no evidence"
    assert len(pair.verdicts()["A"]) > 5
    first, *later = [record for record in pair.records() if key("A") in record.keys]
    assert key("A") not in first.repeated
    assert all(key("A") in record.repeated for record in later)
    assert pair.own().window._verdicts.get(key("A1")) is not None


def test_late_rows_of_many_traces_ask_for_a_burst_before_more_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that were held up repeat a verdict each: a record that is too large is refused for ever."""
    names = [chr(1000 + number) for number in range(100)]
    pair = Pair()
    pair.spans(0, *(f"{name}1!" for name in names))
    quiet(pair, DUE)
    owner = pair.own()
    owner.settle()
    monkeypatch.setattr(module, "MOST_DECISIONS", 1_000)
    pair.logs(DUE + LATE // 2, *(f"{name}1" for name in names))
    assert not owner.window.must_record
    owner.read()
    assert owner.window.must_record
    owner.burst()
    assert not owner.window.must_record


def test_a_verdict_ends_one_horizon_after_it_was_last_needed_by_the_tails_clock() -> None:
    pair = decided()
    owner = pair.own()
    quiet(pair, DUE + LATE)
    owner.read()
    owner.burst(final=True)
    assert key("A") in owner.window._verdicts
    quiet(pair, DUE + LATE + LATE // 8)
    owner.read()
    owner.burst(final=True)
    assert key("A") not in owner.window._verdicts
    pair.spans(DUE + 2 * LATE, "A3")
    quiet(pair, DUE + 2 * LATE + DUE)
    owner.settle()
    assert pair.verdicts()["A"] == ["errors", ""], "a trace of its own"


def test_a_verdict_is_not_forgotten_while_the_tail_has_not_passed_its_rows() -> None:
    """Second pass 7: the head is ten horizons ahead, nothing has been forwarded yet."""
    pair = Pair(replace(SETTINGS, cache_bytes=0))
    pair.spans(0, "A1!", "B1")
    pair.logs(0, "A1", "B1")
    quiet(pair, *range(DUE, 10 * LATE, 5))
    owner = pair.own().read()
    owner.settle()
    assert owner.kept_spans == ["A1!"]
    assert [name for name, _ in owner.kept_logs] == ["A1"]


def test_one_tail_ahead_of_the_other_forgets_nothing() -> None:
    """Logs are not read again for ten horizons of spans: their verdicts stay, here and with the next owner."""
    pair = Pair(replace(SETTINGS, cache_bytes=0))
    pair.logs(0, "A1", "B1?")
    pair.spans(0, "A1!", "B1")
    for second in range(DUE, 10 * LATE, 5):
        pair.logs(second)
        pair.spans(second, f"{chr(1000 + second)}1")
    owner = pair.own().read()
    for _ in range(100):
        stretch = owner.window.held.wanted().get(SPANS)
        if stretch is not None:
            position = stretch[0]
            records = [(o, *record) for o, record in enumerate(pair.topics[SPANS])][position : position + 5]
            owner.window.reread(SPANS, records, position + 5)
        burst = owner.window.burst()
        if burst is not None:
            pair.decisions.append(burst.decisions)
            pair.offsets, pair.pointer = dict(burst.tails), burst.load_from
            owner.window.committed(len(pair.decisions) - 1)
    assert pair.offsets[LOGS] == 0
    assert (pair.offsets[SPANS] or 0) > 90
    owner = pair.own().settle()
    assert [name for name, _ in owner.kept_logs] == ["A1", "B1?"]
    assert len(pair.verdicts()["A"]) == 1


def test_evidence_after_the_deadline_is_no_evidence() -> None:
    pair = Pair()
    pair.spans(0, "A1", "B1")
    pair.spans(WAIT / 1000, "A2!")
    pair.spans(WAIT / 1000 + 0.001, "B2!")
    quiet(pair, DUE)
    pair.own().settle()
    assert pair.verdicts() == {"A": ["errors"], "B": [""]}


def test_raw_partitions_that_drain_one_after_the_other_are_decided_as_live_traffic() -> None:
    """F7: an hour of one raw partition before the first record of the other; evidence in time counts, late does not."""
    pair = Pair(raw={"raw_spans": 2, "raw_logs": 1})
    for second in range(0, 3600, 60):
        pair.spans(second, *(["A1", "B1", "C1"] if second == 0 else []), raw=0, append=4000)
    pair.logs(3600, append=4000)
    for second in range(0, 3600, 60):
        names = {0: ["A2!"], 60: ["B2!"]}.get(second, [])
        pair.spans(second, *names, raw=1, append=4001)
    owner = pair.own().settle()
    assert pair.verdicts() == {"A": ["errors"], "B": [""], "C": [""]}
    assert owner.kept_spans == ["A1", "A2!"]


def test_a_topic_that_is_read_ahead_does_not_make_the_other_look_silent() -> None:
    """F7, F10: a worker that was down reads spans first; the logs it has not read yet are no stalled partition."""
    pair = Pair()
    for second in range(0, 200, 2):
        pair.spans(second, *(["A1", "A2"] if second == 0 else []))
        pair.logs(second, *(["A1!"] if second == 4 else []))
    owner = pair.own().read(SPANS)
    assert owner.window.quiet() == [LOGS]
    assert owner.window.undecided == 1, "the log's verdict is still to come"
    owner.settle()
    assert pair.verdicts() == {"A": ["error-logs"]}


def test_a_topic_that_is_silent_is_left_out_once_its_end_is_known() -> None:
    """Ingest of logs is gone: after `logs.max_skew` decisions are made without, by the next owner at once."""
    pair = Pair()
    pair.logs(0)
    owner = pair.own()
    for second in range(0, 200, 10):
        pair.spans(second, *(["A1!"] if second == 0 else []))
        owner.read()
        owner.window.ended(LOGS, owner.window.newest_append)
        owner.burst()
    assert pair.verdicts() == {"A": ["errors"]}
    assert owner.window.stalled() == [("raw_logs", 0)]
    assert owner.kept_spans == ["A1!"]
    after = pair.own()
    assert after.window.stalled() == [("raw_logs", 0)]
    assert after.window.now == owner.window._tail_clock.now()


# ---- logs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unsampled", "kept"),
    [("drop", []), ("all", ["B1", "B2?", "B3!"]), ("warn", ["B2?", "B3!"]), ("error", ["B3!"])],
)
def test_logs_of_dropped_traces(unsampled: str, kept: list[str]) -> None:
    """With the verdict that their trace was dropped; those of the kept one all go on."""
    pair = Pair(replace(SETTINGS, unsampled=unsampled))
    pair.spans(0, "A1!", "B1")
    pair.spans(1, mark=DUE)
    pair.logs(0, "A1", "B1", mark=DUE)
    owner = pair.own().read()
    pair.logs(DUE + 1, "B2?", "B3!")
    pair.spans(DUE + 1)
    owner.settle()
    assert pair.verdicts()["B"][0] == "", "the ERROR log came too late to be evidence"
    assert owner.kept_logs[0] == ("A1", replace(KEPT_BY_ERRORS, span=Enrichment("", "A1!", 2)))
    assert [(name, verdict) for name, verdict in owner.kept_logs[1:]] == [(name, RowVerdict(False)) for name in kept]
    assert owner.stats["logs_dropped", Reason.LOG_OF_DROPPED_TRACE] == 3 - len(kept)
    assert owner.stats["logs_kept", ""] == 1 + len(kept)


def test_a_trace_of_logs_alone_has_a_verdict_too() -> None:
    """F35."""
    pair = Pair()
    pair.logs(0, "L1", "M1!")
    quiet(pair, DUE)
    owner = pair.own().settle()
    assert pair.verdicts() == {"L": [""], "M": ["error-logs"]}
    assert [name for name, _ in owner.kept_logs] == ["M1!"]


def test_logs_are_enriched_from_the_decision_record_after_a_restart() -> None:
    """F24: the spans were passed before the crash and are not in memory."""
    pair = Pair()
    pair.spans(0, "A1!")
    pair.logs(0, "A1", "A7")
    quiet(pair, DUE)
    first = pair.own().settle()
    assert pair.offsets == {SPANS: 2, LOGS: 2}
    pair.logs(DUE + 5, "A1", "A7")
    quiet(pair, DUE + 6)
    second = pair.own().settle()
    assert second.kept_spans == []
    assert second.kept_logs == first.kept_logs
    enriched = {name: verdict.span for name, verdict in second.kept_logs if verdict is not None}
    assert enriched == {"A1": Enrichment("", "A1!", 2), "A7": Enrichment("", "A1!", 2)}


def test_settings_of_a_partition_have_the_documented_defaults() -> None:
    found = Settings(1, SPANS, LOGS, WAIT, HORIZON)
    assert (found.unsampled, found.cache_bytes, found.burst_bytes) == ("warn", 256 << 20, 8 << 20)


# ---- rates, drops, roots ---------------------------------------------------------------------------------

PER_MINUTE = policy("some", "rate_limiting", spans_per_second=1, burst_capacity=60)


def spent(pair: Pair, at: float = 0) -> Pair:
    """Trace A has spent all 60 tokens."""
    pair.spans(at, *["A1"] * 60)
    pair.logs(at)
    quiet(pair, at + DUE)
    pair.own().settle()
    return pair


def test_a_new_owner_goes_on_with_the_rates() -> None:
    pair = spent(Pair(more=(PER_MINUTE,)))
    assert pair.records()[-1].checkpoint.limiters == {"some": [(0, ms(0) + WAIT)]}
    pair.spans(20, *["B1"] * 30)
    pair.spans(21, *["C1"] * 10)
    quiet(pair, 21 + DUE)
    pair.own().settle()
    assert pair.verdicts() == {"A": ["some"], "B": [""], "C": ["some"]}
    assert pair.records()[-1].checkpoint.limiters == {"some": [(11_000, ms(21) + WAIT)]}


RARE = policy("rare", "rare", traces=2, interval="1h", field_list=["root.name"])
BY_NAME = policy("by-name", "dynamic", field_list=["root.name"], goal_sample_rate=4, adjustment_interval="5s")


def keyed_traffic(pair: Pair, takeover: bool) -> list[tuple[str, list[str]]]:
    """A trace a second, each of a name of its own. With `takeover` another owner comes for each."""
    owner = pair.own()
    for second in range(60):
        trace = chr(ord("a") + second)
        pair.spans(second, f"{trace}x{second % 5 == 0:d}")
        quiet(pair, second)
        owner = pair.own() if takeover else owner
        owner.settle()
    quiet(pair, 60 + DUE)
    owner.settle()
    return sorted(pair.verdicts().items())


def test_a_new_owner_knows_the_keys() -> None:
    """Sixty owners decide as one does."""
    pairs = [Pair(more=(RARE, BY_NAME)) for _ in range(2)]
    assert keyed_traffic(pairs[0], takeover=True) == keyed_traffic(pairs[1], takeover=False)
    points = [pair.records()[-1].checkpoint.keyed for pair in pairs]
    assert points[0] == points[1]
    assert len(points[0]["rare"][0]) == 61
    assert len(points[0]["by-name"][0]) > 2


TWO = [{"name": name, "type": "always_sample"} for name in "ab"]
FIRST: dict[str, tuple[str, dict[str, object]]] = {
    "fields": ("dynamic", {"field_list": ["name"]}),
    "interval": ("throughput", {"field_list": ["name"], "goal_spans_per_second": 5}),
    "unit": ("throughput", {"field_list": ["name"], "goal_spans_per_second": 5}),
    "rare": ("rare", {"field_list": ["name"]}),
    "type": ("rare", {"field_list": ["name"]}),
    "bytes": ("budget", {"spans_per_second": 5}),
    "parts": ("composite", {"max_total_spans_per_second": 5, "composite_sub_policy": TWO}),
}
THEN: dict[str, tuple[str, dict[str, object]]] = {
    "fields": ("dynamic", {"field_list": ["name", "status"]}),
    "interval": ("throughput", {"field_list": ["name"], "goal_spans_per_second": 5, "adjustment_interval": "30s"}),
    "unit": ("throughput", {"field_list": ["name"], "goal_traces_per_second": 5}),
    "rare": ("rare", {"field_list": ["status"]}),
    "type": ("dynamic", {"field_list": ["name"]}),
    "bytes": ("budget", {"bytes_per_second": 5}),
    "parts": ("budget", {"spans_per_second": 5}),
}
SAME: dict[str, tuple[str, dict[str, object]]] = {
    "fields": ("throughput", {"field_list": ["name"], "goal_spans_per_second": 9, "max_keys": 7}),
    "rare": ("rare", {"field_list": ["name"], "traces": 5}),
    "bytes": ("budget", {"spans_per_second": 9}),
}


def state_after(first: tuple[str, dict[str, object]], then: tuple[str, dict[str, object]], told: bool) -> bool:
    """Whether a policy under the same name goes on with the state that it had; `told`: a record says of what it is."""
    pair = Pair(more=(policy("edited", first[0], **first[1]),))
    pair.spans(0, "A1", "B1", "C1")
    quiet(pair, DUE)
    pair.own().settle()
    record = pair.records()[-1]
    assert set(record.checkpoint.meant) == {"edited"}
    if not told:
        record.checkpoint.meant = {}
        pair.decisions[-1] = record.encode()
    pair.more = (policy("edited", then[0], **then[1]),)
    goes_on, new = pair.own().window._limits, Pair(more=pair.more).own().window._limits
    return (goes_on.state(), goes_on.keys()) != (new.state(), new.keys())


@pytest.mark.parametrize("name", THEN)
def test_a_policy_that_came_to_mean_something_else_begins_anew(name: str) -> None:
    assert not state_after(FIRST[name], THEN[name], told=True)


@pytest.mark.parametrize("name", SAME)
def test_a_policy_with_another_goal_goes_on(name: str) -> None:
    assert state_after(FIRST[name], SAME[name], told=True)


def test_what_the_release_before_wrote_is_taken_as_it_is() -> None:
    assert state_after(FIRST["fields"], THEN["fields"], told=False)


def test_keys_that_no_record_tells_of_are_learnt_anew() -> None:
    pair = Pair(more=(RARE,))
    keyed_traffic(pair, takeover=False)
    pair.more = (policy("other", "rare", traces=1), BY_NAME)
    pair.spans(100, "A1")
    quiet(pair, 100 + DUE)
    pair.own().settle()
    assert pair.verdicts()["A"] == ["other"]
    assert set(pair.records()[-1].checkpoint.keyed) == {"other", "by-name"}


def test_rates_follow_the_deadlines_however_much_is_decided_at_once() -> None:
    pair = Pair(more=(PER_MINUTE,))
    pair.spans(0, *["A1"] * 60)
    pair.spans(20, *["B1"] * 20)
    pair.spans(30, *["C1"] * 11)
    quiet(pair, 1_000)
    pair.own().settle()
    assert pair.verdicts() == {"A": ["some"], "B": ["some"], "C": [""]}


def test_rates_that_no_record_tells_of_are_full() -> None:
    """The policy is new, or the records are those of a version without rates."""
    pair = spent(Pair())
    assert pair.records()[-1].checkpoint.limiters == {}
    pair.more = (PER_MINUTE,)
    pair.spans(20, *["B1"] * 60)
    quiet(pair, 20 + DUE)
    pair.own().settle()
    assert pair.verdicts() == {"A": [""], "B": ["some"]}


def test_a_dropped_trace_is_counted_by_its_policy_and_its_logs_are_those_of_a_dropped_trace() -> None:
    pair = Pair(more=(drop("no-errors", policy("e", "status_code", status_codes=["ERROR"])),))
    pair.spans(0, "A1!", "B1")
    pair.logs(0, "A1!", "A2", "B1!")
    quiet(pair, DUE)
    owner = pair.own().settle()
    assert pair.verdicts() == {"A": [""], "B": ["error-logs"]}
    assert owner.stats["drop_policy", "no-errors"] == 1
    assert owner.kept_spans == ["B1"]
    assert [(name, verdict.kept) for name, verdict in owner.kept_logs if verdict] == [("A1!", False), ("B1!", True)]


def test_a_trace_is_decided_after_its_root() -> None:
    pair = Pair(settings=replace(SETTINGS, wait_after_root=3_000))
    pair.spans(0, "A1")
    pair.logs(0)
    quiet(pair, 3)
    owner = pair.own().read()
    assert owner.window.undecided == 1
    quiet(pair, 3.001)
    owner.settle()
    assert pair.verdicts() == {"A": [""]}
    pair.spans(4, "A2!")
    quiet(pair, DUE)
    assert owner.settle().kept_spans == []


@pytest.mark.parametrize("order", [[SPANS, LOGS] * 4, [SPANS] * 4 + [LOGS] * 4], ids=["in-turn", "spans-first"])
def test_a_row_at_its_deadline_is_evidence_whichever_topic_is_read_first(order: list[str]) -> None:
    """A row that is behind its partition's mark has the mark's time, which may be the deadline to the millisecond."""
    pair = Pair()
    pair.spans(0, "A1")
    pair.logs(0)
    quiet(pair, WAIT / 1000)
    pair.spans(WAIT / 1000 - 0.1, "A2!", mark=WAIT / 1000, append=WAIT / 1000)
    quiet(pair, 100)
    owner = pair.own()
    for topic in order:
        owner.read(topic, count=1)
    owner.settle()
    assert pair.verdicts() == {"A": ["errors"]}


# ---- raw records -----------------------------------------------------------------------------------------


def test_the_tails_clock_keeps_up_where_a_record_is_always_on_its_way() -> None:
    """A partition with one record in two decision waits, each of which moves a mark by ten seconds at most."""
    window = Owner(Pair(), replace(SETTINGS, direct=True, decision_wait=3 * WAIT)).window
    window.resume({}, {SPANS: 0, LOGS: 0})
    for second in range(600):
        if second % 20 == 0:
            window.head(SPANS, second // 20, ms(second), raw_batch(second // 20, second, f"{chr(65 + second // 20)}1"))
        for topic in (SPANS, LOGS):
            window.ended(topic, ms(second))
        window.burst()
    assert window.positions() == {SPANS: 30, LOGS: 0}
    assert window.now == ms(599)
    assert window.tail_now is not None
    assert window.tail_now >= ms(599 - 3 * WAIT / 1000 - 20)


def test_what_can_be_passed_is_known_before_it_is() -> None:
    window = Owner(Pair(), replace(SETTINGS, direct=True)).window
    window.resume({}, {SPANS: 0, LOGS: 0})
    window.ended(LOGS, ms(0))
    assert not window.can_pass()
    window.head(SPANS, 0, ms(0), raw_batch(0, 0, "A1"))
    assert not window.can_pass(), "undecided: only the head can change that"
    for topic in (SPANS, LOGS):
        window.ended(topic, ms(DUE))
    assert window.can_pass()
    window.burst()
    assert not window.can_pass(), "nothing is there"


# ---- one window for all raw partitions -------------------------------------------------------------------


def whole(count: int, burst_bytes: int = 1 << 20) -> Owner:
    """The owner of a raw topic of spans with so many partitions, and of one partition of logs."""
    raw_partitions = {SPANS: count, LOGS: 1}
    return Owner(Pair(), replace(SETTINGS, direct=True, raw_partitions=raw_partitions, burst_bytes=burst_bytes))


def test_feeds_share_a_burst_and_each_has_its_turn() -> None:
    owner = whole(3, burst_bytes=1)
    feeds = owner.window._feeds
    assert feeds == (SPANS, f"{SPANS}/1", f"{SPANS}/2", LOGS)
    owner.window.resume({}, dict.fromkeys(feeds, 0))
    for second in range(12):
        for number, feed in enumerate(feeds[:-1]):
            owner.window.head(
                feed, second, ms(second), raw_batch(second, second, f"{chr(1000 + 3 * second + number)}1!")
            )
    for feed in feeds:
        owner.window.ended(feed, ms(12 + DUE))
    passed = []
    while owner.burst() is not None:
        tails = owner.window.tails()
        passed.append(sum(tails[feed] for feed in feeds[:-1]))
        assert max(tails[feed] for feed in feeds[:-1]) - min(tails[feed] for feed in feeds[:-1]) <= 2
    assert passed[:3] == [1, 2, 3], "one record is more than a burst may have"
    assert len(owner.kept_spans) == len(set(owner.kept_spans)) == 36


def test_who_has_fewer_partitions_than_the_last_owner_waits_for_them() -> None:
    """The member that gave out the partitions did not know all of them yet."""
    last = whole(2)
    last.window.resume({}, dict.fromkeys(last.window._feeds, 0))
    last.window.head(f"{SPANS}/1", 0, ms(0), raw_batch(0, 0, "A1!"))
    for feed in last.window._feeds:
        last.window.ended(feed, ms(DUE))
    assert last.burst() is not None
    owner = whole(1)
    with pytest.raises(Unavailable, match=f"{SPANS}/1: not among what the group reads now"):
        owner.window.load(0, last.pair.decisions[0])
    again = whole(3)
    again.window.load(0, last.pair.decisions[0])
    assert again.window.starting() == [f"{SPANS}/2"]


@pytest.mark.parametrize("taken_over", [False, True], ids=["on", "taken over"])
def test_an_input_that_was_left_out_may_be_removed(taken_over: bool) -> None:
    """It is forgotten between two full checkpoints, which the one after it must not ask for."""
    pair = Pair(raw={"raw_spans": 1, "raw_logs": 1, "old": 1})
    limit = SETTINGS.ingest_stall_limit // 1000
    for second in range(10):
        pair.spans(second)
        pair.logs(second)
        pair._append(SPANS, "old", second, (), -1, 0, None)
    owner = pair.own()
    for second in range(10, limit + 60):
        if second == limit + 30:
            assert owner.window.stalled() == [("old", 0)]
            pair.raw = {"raw_spans": 1, "raw_logs": 1}
            owner = pair.own() if taken_over else owner
        pair.spans(second, f"{chr(second + 1_000)}1")
        pair.logs(second)
        owner.read()
        owner.burst()
    for step in range(1, limit):
        later = limit + 60 + 0.7 * step
        pair.spans(later, f"{chr(step + 2_000)}1")
        pair.logs(later)
        owner.read()
        owner.burst()
    assert not owner.window.stalled()
    assert ("old", 0) not in pair.records()[-1].checkpoint.marks
