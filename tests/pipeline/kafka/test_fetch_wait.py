"""How long a fetch waits: until shortly before the next commit, and never so that there are more of them."""

from __future__ import annotations

import operator
from math import inf

import pytest
from aiokafka.protocol.types import Int32
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.fetch_wait import FetchWait

INTERVALS = st.floats(0.01, 60)


def wait(interval: float, *due: float) -> int:
    """At second 100; `due` from there on."""
    return operator.index(FetchWait(interval, lambda: [100 + at for at in due], lambda: 100.0))


@pytest.mark.parametrize(("interval", "expected"), [(inf, 100), (1.0, 100), (0.1, 10), (0.01, 5)])
def test_without_a_time_of_commits_it_is_a_share_of_the_interval(interval: float, expected: int) -> None:
    assert wait(interval) == wait(interval, inf) == expected


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        ((0.2,), 170),
        ((0.2, 0.15), 120),
        ((0.05, 0.2), 170),  # too near: the fetch before has served it
        ((0.9,), 250),  # a partition that is resumed would wait too long
        ((-3.0, 0.0, 0.12), 250),  # late, and too near
    ],
)
def test_it_ends_shortly_before_a_commit(due: tuple[float, ...], expected: int) -> None:
    assert wait(1.0, *due) == pytest.approx(expected, abs=1)


@given(INTERVALS, st.lists(st.floats(-100, 100), min_size=1))
def test_never_more_fetches_than_with_the_least_wait_nor_older_records(interval: float, due: list[float]) -> None:
    """Either nobody commits while it waits, or whoever does comes so soon that the least wait would be as late."""
    seconds, least = wait(interval, *due) / 1000, wait(interval) / 1000
    lead = min(0.03, 0.2 * interval)
    assert seconds >= least
    assert all(at < least + lead + 0.001 or at >= seconds + lead - 0.002 for at in due if at >= 0)


def test_a_request_is_written_with_it() -> None:
    """aiokafka encodes it with struct, which asks for an index."""
    assert Int32.encode(FetchWait(1.0)) == (100).to_bytes(4, "big")
