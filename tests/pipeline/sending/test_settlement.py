"""Accounts, lanes and waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sending import settlement
from pipeline.sending.settled import Settled
from pipeline.sending.settlement import FEW_TICKETS, Account, Backoff, Entry, Lane, entries_of
from sinks.contract import Coordinates, Item, SourceRecord
from sinks.endpoints import LONGEST_RETRY_AFTER
from sinks.settings import Batch, Retry


class Sized(Item):
    """An item of a size."""

    def dead_letter(self, *others: Sized) -> bytes:
        return b""


def at(offset: int) -> SourceRecord:
    return SourceRecord("t", 0, offset, 1000 + offset, b"", "spans")


def sized(size: int = 1) -> Sized:
    return Sized(origin=Coordinates("t", 0, 0, 0, 0), size=size)


def entry(size: int, since: float = 0.0, account: Account | None = None) -> Entry:
    ticket = (account or Account(0)).open(at(0), 1)
    return Entry(ticket, sized(size), since)


@given(st.lists(st.integers(0, 3), max_size=20), st.randoms(use_true_random=False))
def test_the_position_moves_past_what_is_settled_and_no_further(counts: list[int], order: object) -> None:
    account = Account(100)
    tickets = [account.open(at(100 + n), items) for n, items in enumerate(counts)]
    pending = [n for n, items in enumerate(counts) for _ in range(items)]
    order.shuffle(pending)  # type: ignore[attr-defined]
    left = list(counts)
    while True:
        first_open = next((n for n, items in enumerate(left) if items), len(counts))
        assert account.position == 100 + first_open
        assert account.unsettled == sum(left)
        if not pending:
            break
        n = pending.pop()
        left[n] -= 1
        tickets[n].settle(left[n])
    assert account.position == 100 + len(counts)


@pytest.mark.parametrize("few", [1, 3, FEW_TICKETS])
@given(counts=st.lists(st.integers(0, 3), max_size=20), order=st.randoms(use_true_random=False))
def test_however_few_tickets_are_kept_the_same_is_settled(few: int, counts: list[int], order: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlement, "FEW_TICKETS", few)
        account = Account(0)
        tickets = [account.open(at(n), items) for n, items in enumerate(counts)]
    pending = [n for n, items in enumerate(counts) for _ in range(items)]
    order.shuffle(pending)  # type: ignore[attr-defined]
    left = list(counts)
    for n in pending:
        left[n] -= 1
        tickets[n].settle(left[n])
        done = account.settled().records
        assert account.unsettled == sum(left)
        for offset, items in enumerate(left):
            assert (offset < account.position or offset in done) == (not items)
    assert account.position == len(counts)


def test_a_record_that_is_never_accepted_costs_no_memory_for_those_behind_it() -> None:
    account = Account(0)
    first = account.open(at(0), 1)
    for offset in range(1, 20 * FEW_TICKETS):
        account.open(at(offset), 1).settle(0)
    assert len(account._tickets) <= FEW_TICKETS + 1
    assert account.position == 0
    first.settle(0)
    assert account.position == 20 * FEW_TICKETS


def test_a_position_stands_only_while_something_waits_there() -> None:
    account = Account(0)
    assert account.stood(0) == 0
    first, second = account.open(at(0), 1), account.open(at(1), 1)
    assert [account.stood(now) for now in (10, 11, 15)] == [0, 1, 5]
    second.settle(0)  # behind what waits
    assert account.stood(20) == 10
    first.settle(0)
    assert account.stood(30) == 0
    third = account.open(at(2), 1)
    assert [account.stood(now) for now in (40, 45)] == [0, 5]
    account.open(at(3), 1)
    third.settle(0)
    assert account.stood(50) == 0


def test_how_long_a_position_stands_goes_on_with_the_next_owner() -> None:
    """Once it stands here as well: at first it may be about to go on. A short wait is nothing to be told."""

    def next_owner() -> Account:
        return Account(5, Settled.unpack(account.settled().pack(5), 5))

    account = Account(5)
    account.open(at(5), 1)
    assert [account.stood(now) for now in (100, 109)] == [0, 9]
    assert account.settled().since is None
    assert account.stood(110) == 10
    account = next_owner()
    account = next_owner()  # the one before had no time to look
    first, _ = account.open(at(5), 1), account.open(at(6), 1)
    assert [account.stood(now) for now in (200, 209, 210)] == [0, 9, 110]
    first.settle(0)
    assert account.settled().since is None
    assert account.stood(220) == 0


@given(st.data())
def test_owner_after_owner_sends_each_row_that_was_not_settled_and_no_other(data: st.DataObject) -> None:
    """Offsets have gaps: markers of transactions. A third is told by a second one that has not read everything."""
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=8))
    rows = data.draw(st.lists(st.integers(0, 4), min_size=len(gaps), max_size=len(gaps)))
    records = {100 + sum(gaps[:n]): rows[n] for n in range(len(gaps))}
    offset, metadata, settled = 100, "", set[tuple[int, int]]()
    for _ in range(3):
        account = Account(offset, Settled.unpack(metadata, offset))
        sent: list[Entry] = []
        read = data.draw(st.integers(0, len(records)))
        for place, count in [*records.items()][:read]:
            if place < account.position or account.has(place):
                assert all((place, row) in settled for row in range(count))
                continue
            ticket = account.open(at(place), count)
            entries = entries_of(ticket, [sized() for _ in range(count)], 0.0)
            assert {(place, e.row) for e in entries} == {(place, row) for row in range(count)} - settled
            sent += entries
        for one in data.draw(st.lists(st.sampled_from(sent), unique_by=id)) if sent else ():
            one.ticket.settle(one.row)
            settled.add((one.ticket.upto - 1, one.row))
        offset, metadata = account.position, account.settled().pack(account.position)


def test_rows_in_an_order_of_their_own_are_not_named() -> None:
    account = Account(0, by_row=False)
    account.open(at(0), 2)
    account.open(at(1), 2).settle(0)
    account.open(at(2), 1).settle(0)
    assert account.settled().pack(0) == "1 2-3"


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.integers(1, 10),
    st.integers(1, 100),
)
def test_batches_keep_every_item_in_order_and_their_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    lane = Lane(Batch(max_items=most, max_bytes=most_bytes))
    entries = [entry(size) for size in sizes]
    for one in entries:
        lane.put(one)
    seen: list[Entry] = []
    while len(lane):
        batch = lane.cut()
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(one.item.size for one in batch) <= most_bytes
        seen += batch
    assert all(one is other for one, other in zip(seen, entries, strict=True))
    assert lane.due_in(0) is None


def test_a_batch_is_due_by_count_bytes_or_age() -> None:
    lane = Lane(Batch(max_items=3, max_bytes=100, max_age=2.0))
    assert lane.due_in(10.0) is None
    lane.put(entry(10, since=10.0))
    lane.put(entry(10, since=11.0))
    assert lane.due_in(11.5) == 0.5
    assert lane.due_in(12.0) == 0.0
    assert lane.due_in(99.0) == 0.0
    lane.put(entry(1, since=11.0))
    assert lane.due_in(11.0) == 0.0
    lane.cut()
    lane.put(entry(100, since=11.0))
    assert lane.due_in(11.0) == 0.0


def test_what_belongs_to_others_by_now_is_taken_out() -> None:
    ours, theirs = Account(0), Account(0)
    lane = Lane(Batch(max_items=10, max_bytes=30))
    mine = [entry(10, account=ours), entry(10, account=ours)]
    for one in (mine[0], entry(25, account=theirs), mine[1]):
        lane.put(one)
    assert lane.purge() == []
    theirs.closed = True
    assert [one.item.size for one in lane.purge()] == [25]
    assert lane.due_in(0.0) == 1.0
    assert lane.cut() == mine


@given(st.integers(1, 100_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_anywhere_up_to_its_growing_bound(failures: int, chance: float) -> None:
    retry = Retry(initial_interval=0.5, max_interval=30.0, multiplier=2.0)
    wait = Backoff(retry, lambda: chance).wait(failures)
    assert wait == chance * min(30.0, 0.5 * 2 ** min(failures - 1, 64))


def test_the_destinations_own_time_wins() -> None:
    backoff = Backoff(Retry(initial_interval=0.5), lambda: 0.5)
    assert backoff.wait(1, 120.0) == 120.25
    assert backoff.wait(9, 0.0) == 0.25
    assert backoff.wait(1, 1e9) == LONGEST_RETRY_AFTER + 0.25
