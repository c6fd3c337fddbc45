"""Once in so many seconds, each thing by itself."""

from __future__ import annotations

from pipeline.watching.seldom import Seldom


def test_each_thing_is_due_at_once_and_then_when_the_seconds_are_over() -> None:
    seldom = Seldom(10)
    assert [seldom.due(now) for now in (5, 5, 14.9, 15, 24.9, 25)] == [True, False, False, True, False, True]
    assert [seldom.due(26, "other"), seldom.due(26)] == [True, False]
