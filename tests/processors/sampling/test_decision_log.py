"""How much of the decisions one record takes, and from where they are loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from processors.sampling import decision_log
from schemas.decision import DecisionRecord
from tests.processors.sampling.pair import DUE, HORIZON, LATE, WAIT, Pair, ms, quiet, state


def test_old_decisions_need_not_be_loaded() -> None:
    """The pointer moves on: one horizon of verdicts and one full checkpoint."""
    pair = Pair()
    owner = pair.own()
    for second in range(0, 20 * LATE, 5):
        pair.spans(second, f"{chr(second % 1000)}1")
        pair.logs(second)
        owner.read().burst()
    assert pair.pointer is not None
    behind = pair.records()[pair.pointer].times
    assert len(pair.decisions) - pair.pointer < 2 * LATE / 5
    assert max(behind) >= ms(20 * LATE - 5) - HORIZON - 3 * WAIT


def test_a_burst_does_not_look_at_all_decisions_that_are_remembered() -> None:
    """There may be hundreds of thousands, with a horizon of days."""

    class NotSeen(deque[Any]):
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("it looks at all of them")

    pair = Pair()
    for owner in (pair.own(), pair.own()):
        owner.window._log._segments = NotSeen(owner.window._log._segments)
        for second in range(0, 20 * LATE, 5):
            pair.spans(second, f"{chr(second % 1000)}1")
            owner.read().burst()
    assert pair.pointer


def test_a_clock_that_was_held_up_does_not_make_one_huge_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw partition returns and everything is due at once: the decisions come in records of bounded size."""
    monkeypatch.setattr(decision_log, "DECISION_BYTES", 1_000)
    pair = Pair()
    names = [chr(number) for number in range(1000, 1000 + 400)]
    for name in names:
        pair.spans(0, f"{name}1!", mark=None)
    quiet(pair, DUE)
    owner = pair.own().read()
    sizes = []
    while (burst := owner.burst()) is not None:
        record = DecisionRecord.decode(burst.decisions)
        sizes.append(len(record.keys))
        assert burst.more or owner.window.undecided == 0
        assert state(pair.own())[0].keys() >= set(record.keys)
    assert max(sizes) <= 1_000 // 24 + 1
    assert sum(sizes) == len(names)
    assert len(owner.kept_spans) == len(names)
    assert owner.window.undecided == 0
