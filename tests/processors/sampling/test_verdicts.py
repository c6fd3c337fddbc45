"""How long a partition remembers its verdicts."""

from __future__ import annotations

from array import array
from time import process_time_ns

from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.verdicts import BUCKETS_PER_HORIZON, Verdicts
from schemas.decision import DROPPED, Enrichment, Verdict
from schemas.ids import HASH_FACTOR
from tests.processors.sampling.builders import random_keys

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


def named(number: int) -> dict[bytes, Enrichment]:
    """Spans that logs of a trace named, another number of them for each remainder."""
    return {
        bytes([number % 251, place] * 4): Enrichment("shop", f"GET /{number % 7}", 0) for place in range(number % 4)
    }


def test_what_a_kept_verdict_says_is_found_after_others_came_and_went() -> None:
    """Outcomes and names are numbered anew when verdicts are forgotten."""
    verdicts, model = Verdicts(HORIZON), dict[int, tuple[int, Verdict]]()
    for number in range(3_000):
        key, time = number * 0x9E3779B97F4A7C15 % (1 << 64), number * 20
        root = Enrichment("shop", f"GET /{number % 50 + number // 100}", 0)
        verdict = Verdict(True, f"policy {number % 3}", number % 2, root, named(number)) if number % 4 else DROPPED
        verdicts.put(key, time, verdict, NOWHERE)
        model[key] = time, verdict
        if number % 500 == 499:
            verdicts.expire(time, EVERYWHERE)
            model = {known: (put, said) for known, (put, said) in model.items() if known in verdicts}
            assert all(put >= time - HORIZON - BUCKET for put, _ in model.values())
            assert dict(verdicts.items()) == {known: said for known, (_, said) in model.items()}
            rows, which, kept = verdicts.kept(array("Q", model))
            assert [list(model)[row] for row in rows] == [known for known, (_, said) in model.items() if said.kept]
            assert [(kept[number].policy, kept[number].threshold) for number in which] == [
                (s.policy, s.threshold) for _, s in model.values() if s.kept
            ]
            assert len({(said.policy, said.threshold, said.root) for said in kept}) == len(kept)


def test_another_verdict_of_a_trace_forgets_the_spans_of_the_first() -> None:
    verdicts = Verdicts(HORIZON)
    for verdict in (Verdict(True, "a", spans=named(3)), Verdict(True, "b", spans=named(6)), KEPT, DROPPED):
        verdicts.put(1, 0, verdict, NOWHERE)
        assert verdicts.get(1) == verdict
        assert verdicts.touch(1, HORIZON, NOWHERE)
        assert verdicts.get(1) == verdict


def test_there_may_be_more_outcomes_than_numbers() -> None:
    """As when span names hold ids and every root is another one."""
    verdicts, count = Verdicts(HORIZON), 66_000
    for key in range(count):
        verdicts.put(key, key % 2 * 4 * HORIZON, Verdict(True, f"policy {key}", spans=named(key)), NOWHERE)
    verdicts.put(count - 1, 4 * HORIZON, DROPPED, NOWHERE)
    for late in (False, True):
        for key in (*range(late, 100, 1 + late), *range(count - 100 - late, count - 1 - late, 1 + late)):
            assert verdicts.get(key) == Verdict(True, f"policy {key}", spans=named(key))
        verdicts.expire(3 * HORIZON, EVERYWHERE)
    assert len(verdicts) == count // 2
    assert verdicts.get(count - 1) is DROPPED


def test_a_clock_that_leaps_by_years_keeps_the_verdicts() -> None:
    verdicts = Verdicts(HORIZON)
    for key, time in ((1, 1_800_000_000_000), (2, 1_900_000_000_000), (3, 1_600_000_000_000)):
        verdicts.put(key, time, KEPT, NOWHERE)
    assert dict(verdicts.items()) == {1: KEPT, 2: KEPT, 3: KEPT}
    verdicts.expire(1_900_000_000_000 + 2 * HORIZON, EVERYWHERE)
    assert len(verdicts) == 0


def test_trace_ids_that_are_chosen_cost_what_others_do() -> None:
    """These have all met in one place when every process multiplied by the same number."""
    count = 20_000
    chosen = [number * pow(0x9E3779B97F4A7C15, -1, 1 << 64) % (1 << 64) for number in range(1, count + 1)]
    usual = random_keys(count)

    def put(keys: list[int]) -> int:
        verdicts, began = Verdicts(HORIZON), process_time_ns()
        for key in reversed(keys):
            verdicts.put(key, 0, KEPT, NOWHERE)
        return process_time_ns() - began

    assert min(put(chosen) for _ in range(3)) < 5 * min(put(usual) for _ in range(3))


@given(st.lists(st.integers((1 << 64) - 400, (1 << 64) - 1), unique=True, max_size=300))
def test_keys_whose_hashes_are_the_greatest_are_found(hashes: list[int]) -> None:
    """They lie behind the last home of the table, and the greatest of all is what free slots have."""
    verdicts = Verdicts(HORIZON)
    keys = [hashed * pow(HASH_FACTOR, -1, 1 << 64) % (1 << 64) for hashed in hashes]
    for key in keys:
        assert key not in verdicts
        verdicts.put(key, 0, KEPT, NOWHERE)
    assert verdicts.missing(array("Q", keys)) == -1
    assert sorted(key for key, _ in verdicts.items()) == sorted(keys)
