"""Which kept traces are held: whole ones, some of every policy, never more than there is room for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.live import recent as keeping
from pipeline.live.recent import EVERY, MOST_ROWS, Recent
from schemas.ids import trace_key
from tests.pipeline.live.building import kept, log, span, trace_id


def held(recent: Recent) -> set[int]:
    return {key for key, _ in recent.items()}


def test_a_trace_is_followed_with_its_logs_whatever_comes_first() -> None:
    recent = Recent()
    recent.add("logs", kept(log(1, 11)), 0.0)
    recent.add("spans", kept(span(1, 11), span(1, 12, 11)), 0.5)
    recent.add("spans", kept(span(1, 13, 11)), 90.0)
    trace = recent.get(trace_key(trace_id(1)))
    assert trace is not None
    assert (len(trace.spans), len(trace.logs), trace.policy) == (3, 1, "errors")


def test_a_trace_of_which_rows_were_passed_over_is_never_begun() -> None:
    recent = Recent()
    recent.add("spans", kept(span(1, 11), span(2, 21)), 0.0)
    recent.add("spans", kept(span(2, 22, 21), span(3, 31)), EVERY)
    assert held(recent) == {1, 3}


def test_a_busy_policy_does_not_push_out_a_rare_one() -> None:
    recent = Recent(most_traces=10)
    recent.add("spans", kept(span(1, 1), policy="errors"), 0.0)
    for number in range(100):
        recent.add("spans", kept(span(100 + number, 1), policy="rest"), number * EVERY)
    assert held(recent) == {1, *range(191, 200)}


def test_logs_of_dropped_traces_and_rows_without_a_verdict_are_not_held() -> None:
    recent = Recent()
    recent.add("logs", kept(log(1, 1), sampled=False), 0.0)
    envelope = kept(log(2, 1))
    envelope.verdicts = []
    recent.add("logs", envelope, 0.0)
    assert held(recent) == set()


def test_one_trace_has_an_end() -> None:
    recent = Recent()
    recent.add("spans", kept(*(span(1, number + 1) for number in range(MOST_ROWS + 5))), 0.0)
    trace = recent.get(1)
    assert trace is not None
    assert (len(trace.spans), trace.more) == (MOST_ROWS, 5)


def test_what_made_room_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "REMEMBERED", 10)
    recent = Recent(most_traces=1)
    for number in range(100):
        recent.add("spans", kept(span(1 + number, 1)), number * EVERY)
    assert len(recent._passed_over) == 10


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["a", "b"]), st.integers(1, 20)), max_size=80))
def test_bytes_and_traces_are_bounded(rows: list[tuple[int, str, int]]) -> None:
    most_bytes = 3000
    recent = Recent(most_traces=5, most_bytes=most_bytes)
    for at, (trace, policy, spans) in enumerate(rows):
        recent.add("spans", kept(*(span(trace, n + 1) for n in range(spans)), policy=policy), at * EVERY)
        assert len(held(recent)) <= 5
        assert sum(trace.size for _, trace in recent.items()) <= most_bytes
