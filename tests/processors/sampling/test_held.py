"""What is held between head and tail, and what is read again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.envelope import Envelope
from schemas.raw_batch import RawBatch
from tests.processors.sampling.pair import DUE, LOGS, SETTINGS, SPANS, WAIT, Owner, Pair, ms, quiet, raw_batch
from tests.schemas.rows import scan_span


def live(owner: Owner, seconds: range, records: int) -> int:
    """Head and tail in live traffic of so many records a second, all kept: how many the tail reads again meanwhile."""
    before = owner.stats["tail_reads", "0"]
    for second in seconds:
        for place in range(records):
            owner.pair.spans(second, f"{chr(1000 + 100 * second + place)}1!")
        owner.pair.logs(second)
        owner.read()
        while owner.burst() is not None:
            pass
    return owner.stats["tail_reads", "0"] - before


def in_order(owner: Owner) -> bool:
    """Whether what was kept is what came, from the first record on."""
    values = [Envelope.decode(value) for _, value in owner.pair.topics[SPANS]]
    names = [scan_span(row, 0, len(row), {}).name.decode() for e in values for row in map(e.row, range(len(e)))]
    return owner.kept_spans == names[: len(owner.kept_spans)]


def paced(owner: Owner, seconds: range, names: int) -> int:
    """Head and tail on raw spans, a message a second, all kept: how many raw batches wait compressed at the end."""
    for second in seconds:
        message = raw_batch(second, second, *(f"{chr(1000 + names * second + place)}1!" for place in range(names)))
        owner.window.head(SPANS, second, ms(second), message)
        for topic in (SPANS, LOGS):
            owner.window.ended(topic, ms(second))
        while owner.burst() is not None:
            pass
    return sum(value.is_shrunk for value in waiting(owner))


def waiting(owner: Owner) -> list[RawBatch]:
    """The raw batches between tail and head."""
    cursors = owner.window.held.cursors.values()
    return [value for cursor in cursors for _, _, value in cursor.cached if isinstance(value, RawBatch)]


@pytest.mark.parametrize("cache_bytes", [0, 1, 700, 1 << 20])
def test_the_cache_is_bounded_and_what_does_not_fit_is_read_again(cache_bytes: int) -> None:
    """F29: what fitted when it came stays, the rest is read again; 0 caches nothing at all."""
    pair = Pair(replace(SETTINGS, cache_bytes=cache_bytes))
    for second in range(9):
        pair.spans(second, f"{chr(65 + second)}1!")
    quiet(pair, 8 + DUE)
    owner = pair.own().read()
    largest = max(len(value) for _, value in pair.topics[SPANS])
    assert owner.window.held.bytes < cache_bytes + largest
    while owner.burst() is not None:
        pass
    assert owner.kept_spans == [f"{chr(65 + second)}1!" for second in range(9)]
    assert owner.window.held.bytes == 0
    assert owner.window.held.wanted() == {}
    again = owner.stats["tail_reads", "0"]
    assert (again > 0) == (cache_bytes < 1 << 20)


def test_a_window_that_does_not_fit_is_read_again_as_far_as_it_does_not() -> None:
    """A cache of half of it saves half of the reading; what is left out are stretches, not a record here and there."""
    whole = Pair().own()
    assert live(whole, range(100), 10) == 0
    size = whole.window.held.bytes
    owner = Pair(replace(SETTINGS, cache_bytes=size // 2)).own()
    owner.most_again = 5
    share = live(owner, range(100), 10) / len(owner.kept_spans)
    assert 0.4 < share < 0.65
    assert in_order(owner)
    assert max(len(cursor.gaps) for cursor in owner.window.held.cursors.values()) <= 4


def test_after_a_spike_the_cache_is_what_it_was() -> None:
    """What did not fit is read again, once; what comes later is kept in memory as before."""
    usual = Pair().own()
    live(usual, range(100), 1)
    owner = Pair(replace(SETTINGS, cache_bytes=2 * usual.window.held.bytes)).own()
    owner.most_again = 5
    assert live(owner, range(50), 1) == 0
    assert live(owner, range(50, 55), 30) <= 5, "marks of logs, whose tail waits for nothing"
    again = live(owner, range(55, 90), 1)
    assert 75 < again < 150, "of 150 in the spike"
    assert live(owner, range(90, 150), 1) == 0
    assert in_order(owner)


def test_the_head_goes_on_while_the_tail_reads_again() -> None:
    """Between what is wanted and what is read a gap grows, a burst makes room, and the head fills the cache again."""
    pair = Pair(replace(SETTINGS, cache_bytes=1))
    owner = pair.own()
    pair.spans(0, "A1!")
    pair.spans(1, "B1!")
    owner.read()
    assert owner.window.held.wanted() == {}, "A is in memory"
    quiet(pair, DUE)
    owner.read().burst()
    assert owner.window.held.wanted() == {SPANS: (1, 3)}
    assert not owner.window.held.reads_on(), "it ends where the head is"
    pair.spans(DUE + 1, "C1!")
    owner.read(SPANS)
    assert owner.window.held.reads_on(), "C is in memory behind it"
    owner.window.reread(SPANS, [(o, *record) for o, record in enumerate(pair.topics[SPANS])][1:], 3)
    assert owner.window.held.wanted() == {}
    quiet(pair, 2 * DUE)
    owner.settle()
    quiet(pair, 3 * DUE)
    owner.settle()
    assert owner.kept_spans == ["A1!", "B1!", "C1!"]


def test_a_stretch_that_was_not_read_to_its_end_is_gone_on_with() -> None:
    """At one piece an interval a tail would not catch up: the next burst need not wait."""
    pair = Pair(replace(SETTINGS, cache_bytes=0))
    for second in range(4):
        pair.spans(second, f"{chr(65 + second)}1!")
    quiet(pair, DUE + 4)
    owner = pair.own().read()
    owner.most_again = 1
    assert owner.burst() is not None
    assert owner.window.held.reads_on()
    assert owner.window.can_pass()
    owner.most_again = 9
    while owner.burst() is not None:
        pass
    assert not owner.window.held.reads_on()
    assert owner.kept_spans == ["A1!", "B1!", "C1!", "D1!"]


def test_the_head_never_stops_for_the_cache() -> None:
    """Second pass 3: the mark of the slowest raw partition may lie behind any amount of data."""
    pair = Pair(replace(SETTINGS, cache_bytes=0), raw={"raw_spans": 2, "raw_logs": 1})
    for second in range(300):
        pair.spans(second, f"{chr(65 + second % 26)}1", raw=0, append=400)
    pair.logs(300, append=400)
    owner = pair.own().read()
    assert owner.window.now is None
    assert pair.decisions == []
    pair.spans(300, raw=1, append=400)
    owner.settle()
    assert owner.window.now == ms(299)


def test_a_reread_ends_where_the_head_is() -> None:
    """The reader may have gone further: what lies beyond was not seen by the head."""
    pair = Pair(replace(SETTINGS, cache_bytes=0))
    pair.spans(0, "A1!")
    pair.spans(1, "A2!")
    owner = pair.own().read(SPANS, count=1)
    assert owner.window.held.wanted() == {SPANS: (0, 1)}
    owner.window.reread(SPANS, [(o, *r) for o, r in enumerate(pair.topics[SPANS])], 2)
    assert owner.window.held.wanted() == {}
    owner.read(SPANS)
    assert owner.window.held.wanted() == {}, "offset 0 is in memory; 1 will be wanted after it"
    quiet(pair, DUE + 1)
    owner.settle()
    assert owner.kept_spans == ["A1!", "A2!"]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_what_the_tail_stands_before(cache_bytes: int) -> None:
    """Its append time; nothing is known of a topic that was passed to its end."""
    pair = Pair(replace(SETTINGS, cache_bytes=cache_bytes))
    pair.spans(0, "A1")
    pair.spans(3, "B1")
    pair.logs(0)
    owner = pair.own()
    assert owner.window.oldest() == {SPANS: None, LOGS: None}
    owner.settle()
    assert owner.window.oldest() == {SPANS: ms(0), LOGS: None}
    quiet(pair, DUE)
    owner.settle()
    assert owner.window.oldest()[SPANS] == ms(3)


def test_of_a_long_window_a_quarter_of_the_cache_waits_as_it_is_and_the_rest_compressed() -> None:
    usual = Owner(Pair(), replace(SETTINGS, direct=True))
    usual.window.resume({}, {SPANS: 0, LOGS: 0})
    assert paced(usual, range(60), 40) == 0
    whole = usual.window.held.bytes
    owner = Owner(Pair(), replace(SETTINGS, direct=True, cache_bytes=2 * whole))
    owner.window.resume({}, {SPANS: 0, LOGS: 0})
    small = paced(owner, range(60), 40)
    found = waiting(owner)
    assert 0 < small < len(found)
    assert 0 < sum(value.size for value in found if not value.is_shrunk) == owner.window.held._whole <= whole / 2
    assert owner.window.held.bytes == sum(value.size for value in found) < 0.9 * whole
    assert owner.kept_spans == usual.kept_spans
    for topic in (SPANS, LOGS):
        owner.window.ended(topic, ms(60 + DUE))
    while owner.burst() is not None:
        pass
    assert owner.kept_spans == [f"{chr(1000 + number)}1!" for number in range(60 * 40)]
    assert (owner.window.held.bytes, owner.window.held._whole) == (0, 0)
    assert owner.stats["tail_reads", "0"] == 0


def test_what_a_tail_in_a_backlog_comes_to_soon_is_not_compressed() -> None:
    """Its verdicts are there: it is passed as fast as transactions go."""
    owner = Owner(Pair(), replace(SETTINGS, direct=True, cache_bytes=1 << 14))
    owner.window.resume({}, {SPANS: 0, LOGS: 0})
    assert paced(owner, range(20), 1) == 0
    for second in range(20, 140):
        names = (f"{chr(1000 + second * 9 + place)}1" for place in range(9))
        owner.window.head(SPANS, second, ms(second), raw_batch(second, second, *names))
        for topic in (SPANS, LOGS):
            owner.window.ended(topic, ms(second))
    small = [value.is_shrunk for value in waiting(owner)]
    behind = 2 * WAIT // 1000
    assert True in small[:behind], "while the tail may wait for verdicts"
    assert True not in small[behind + 2 :]
    assert owner.window.held._whole > (1 << 14) // 4
