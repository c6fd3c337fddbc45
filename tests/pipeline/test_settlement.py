"""Accounts, lanes and waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.settlement import LONGEST_RETRY_AFTER, Account, Backoff, Entry, Lane
from sinks.contract import Coordinates, Item
from sinks.settings import Batch, Retry


class Sized(Item):
    """An item of a size."""

    def dead_letter(self) -> bytes:
        return b""


def entry(size: int, since: float = 0.0, account: Account | None = None) -> Entry:
    ticket = (account or Account(0)).open(1, 1)
    return Entry(ticket, Sized(origin=Coordinates("t", 0, 0, 0, 0), size=size), since)


@given(st.lists(st.integers(0, 3), max_size=20), st.randoms(use_true_random=False))
def test_the_position_moves_past_what_is_settled_and_no_further(counts: list[int], order: object) -> None:
    account = Account(100)
    tickets = [account.open(101 + n, items) for n, items in enumerate(counts)]
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
        tickets[n].settle()
    assert account.position == 100 + len(counts)


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
