"""The canary's account of a counter that carries no ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.canary.backends import Progress

SPANS = 2


def begun(value: float) -> Progress:
    progress = Progress()
    progress.observe(value)
    return progress


@given(st.integers(0, 10**9), st.lists(st.sampled_from(["send", "count", "look", "reset"]), max_size=60))
def test_nothing_is_missing_once_all_is_counted_whatever_the_resets(start: int, steps: list[str]) -> None:
    """And something is missing before; a reset happens between two looks only once all before it was seen."""
    progress = begun(start)
    value, sent, counted, needed = start, 0, 0, [0]
    for step in steps:
        if step == "send":
            sent += SPANS
            needed.append(progress.send(SPANS))
        elif step == "count" and counted < sent:
            counted += 1
            value += 1
        elif step == "reset":
            progress.observe(value)
            value = 0
            progress.observe(value)
        progress.observe(value)
        assert [progress.missing(each) for each in needed] == [max(0, each - counted) for each in needed]


def test_what_was_given_up_is_not_missing_from_what_follows() -> None:
    progress = begun(100)
    first, second = progress.send(SPANS), progress.send(SPANS)
    progress.observe(101)  # one of the first two spans is lost
    assert progress.missing(first) == 1
    progress.give_up(1)
    assert (progress.missing(first), progress.missing(second)) == (0, SPANS)
    progress.observe(103)
    assert progress.missing(second) == 0
