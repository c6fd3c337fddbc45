"""How long a partition remembers its verdicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.verdicts import BUCKETS_PER_HORIZON, Verdicts
from schemas.decision import DROPPED, Verdict

HORIZON = 16_000
BUCKET = HORIZON // BUCKETS_PER_HORIZON
KEPT = Verdict(True, "errors")
NOWHERE = (0, 0)
EVERYWHERE = (1 << 60, 1 << 60)


def test_a_verdict_is_found_until_one_horizon_later() -> None:
    verdicts = Verdicts(HORIZON)
    verdicts.put(1, 500, KEPT, NOWHERE)
    assert verdicts.get(1) is KEPT
    assert verdicts.get(2) is None
    verdicts.expire(500 + HORIZON, EVERYWHERE)
    assert 1 in verdicts
    verdicts.expire(500 + HORIZON + BUCKET, EVERYWHERE)
    assert 1 not in verdicts
    assert len(verdicts) == 0


def test_the_newest_verdict_of_a_trace_wins_and_lives_from_its_own_time() -> None:
    """Beyond the horizon a trace may be decided again; its older bucket must not take the new verdict along."""
    verdicts = Verdicts(HORIZON)
    verdicts.put(1, 0, KEPT, NOWHERE)
    verdicts.put(1, HORIZON, DROPPED, NOWHERE)
    verdicts.expire(HORIZON + BUCKET, EVERYWHERE)
    assert verdicts.get(1) is DROPPED
    verdicts.expire(2 * HORIZON + BUCKET, EVERYWHERE)
    assert 1 not in verdicts


def test_a_row_that_meets_a_verdict_moves_it_on_after_half_a_horizon() -> None:
    """Not at every row: each move is recorded again."""
    verdicts = Verdicts(HORIZON)
    verdicts.put(1, 0, KEPT, NOWHERE)
    assert not verdicts.touch(1, HORIZON // 2, NOWHERE)
    assert verdicts.touch(1, HORIZON // 2 + 1, NOWHERE)
    assert not verdicts.touch(1, HORIZON, NOWHERE)
    verdicts.expire(HORIZON + BUCKET, EVERYWHERE)
    assert verdicts.get(1) is KEPT


def test_what_rows_need_that_the_tails_have_not_passed_stays() -> None:
    for heads in ((10, 0), (0, 10)):
        verdicts = Verdicts(HORIZON)
        verdicts.put(1, 0, KEPT, heads)
        verdicts.expire(100 * HORIZON, (9, 9))
        assert 1 in verdicts
        verdicts.expire(100 * HORIZON, (10, 10))
        assert 1 not in verdicts


def test_a_row_that_meets_a_verdict_pins_it() -> None:
    verdicts = Verdicts(HORIZON)
    verdicts.put(1, 0, KEPT, (5, 5))
    verdicts.touch(1, 1, (20, 7))
    verdicts.expire(100 * HORIZON, (19, 50))
    assert 1 in verdicts


def test_a_pin_is_never_lowered() -> None:
    """A new owner's heads begin at the tails, before those of the owner that made the verdict."""
    verdicts = Verdicts(HORIZON)
    verdicts.put(1, 0, KEPT, (20, 3))
    verdicts.put(2, 1, KEPT, (4, 9))
    for tails in ((19, 9), (20, 8)):
        verdicts.expire(100 * HORIZON, tails)
        assert len(verdicts) == 2
    verdicts.expire(100 * HORIZON, (20, 9))
    assert len(verdicts) == 0


def test_a_horizon_of_milliseconds_is_possible() -> None:
    verdicts = Verdicts(1)
    verdicts.put(1, 100, KEPT, NOWHERE)
    verdicts.expire(101, EVERYWHERE)
    assert 1 in verdicts
    verdicts.expire(102, EVERYWHERE)
    assert 1 not in verdicts


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("put", "touch", "expire")),
        st.integers(0, 5),
        st.integers(0, 4 * HORIZON),
        st.integers(0, 6),
    ),
    max_size=60,
)


@given(EVENTS)
def test_nothing_is_forgotten_early_or_for_ever(events: list[tuple[str, int, int, int]]) -> None:
    """Against a model: for each trace the time it was put at, the head that it was last met at."""
    verdicts, model, head, now = Verdicts(HORIZON), dict[int, tuple[int, int]](), 0, 0
    for kind, key, time, position in events:
        head = max(head, position)
        if kind == "put":
            verdicts.put(key, time, KEPT, (head,))
            model[key] = time, head
        elif kind == "touch" and key in verdicts:
            moved = verdicts.touch(key, time, (head,))
            model[key] = (time if moved else model[key][0]), head
        elif kind == "expire":
            now = max(now, time)
            verdicts.expire(now, (position,))
            for known, (put, met) in list(model.items()):
                if put >= now - HORIZON or met > position:
                    assert known in verdicts
                elif known not in verdicts:
                    del model[known]
    verdicts.expire(10 * HORIZON, (head,))
    assert len(verdicts) == 0
    assert verdicts.items() == []
