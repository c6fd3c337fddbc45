"""Invariants I1–I3 over simulated histories, and proof that the simulation would notice their loss."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline import pace
from processors.sampling import window
from tests.processors.sampling.guards import GUARDS, SEEDS_TO_NOTICE, Guard
from tests.processors.sampling.simulation import Simulation

SEEDS = 1_000
CHUNK = 100
HASTY_SEEDS = 150
DIRECT_SEEDS = 200
RESTORE_SEEDS = 40
NARROW_SEEDS = 10
NARROW = 2_000  # bytes: little more than the largest record with what has to go with it


def is_whole(seed: int) -> bool:
    """Every second pair of seeds, an even and an odd one, has aggregate and sinks too."""
    return seed % 4 < 2


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_trace_is_lost_split_or_counted_twice(first: int) -> None:
    """I1, I2 and I3 hold whatever crashes, stands still, comes back as a zombie or drains unevenly."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        try:
            seen += Simulation(seed, whole=is_whole(seed)).run().verify()
        except Exception as error:
            again = f"Simulation({seed}, whole={is_whole(seed)}).run().verify()"
            raise AssertionError(f"seed {seed}: {again}") from error
    assert seen["delivered"] > 10 * CHUNK
    assert seen["delivered again"] > CHUNK, "else no answer was ever lost"
    assert seen["kept"] > CHUNK
    assert seen["traces"] - seen["kept"] > 4 * CHUNK
    assert min(seen[policy] for policy in ("errors", "error-logs", "some", "large")) > CHUNK // 10
    assert seen["early"] > CHUNK


def test_hasty_decisions_and_small_records_break_no_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw partitions are left out after seconds, the broker's clock is set back and forth by a minute, and a decision
    record holds two verdicts: traces may be misjudged, but none is lost, split, decided twice or counted twice."""
    monkeypatch.setattr(window, "DECISION_BYTES", 40)
    seen: Counter[str] = Counter()
    for seed in range(HASTY_SEEDS):
        try:
            seen += Simulation(seed, hasty=True).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}, hasty=True).run().verify()") from error
    assert seen["misjudged"] > 0, "else nothing was ever left out"


@pytest.mark.parametrize("first", range(0, DIRECT_SEEDS, CHUNK))
def test_without_ingest_no_trace_is_lost_split_or_counted_twice(first: int) -> None:
    """The same on raw topics that are keyed by trace (`regroup: never`)."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        try:
            seen += Simulation(seed, direct=True).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}, direct=True).run().verify()") from error
    assert seen["kept"] > CHUNK
    assert seen["traces"] - seen["kept"] > 4 * CHUNK
    assert min(seen[policy] for policy in ("errors", "error-logs", "some", "large")) > CHUNK // 10


@pytest.mark.parametrize("direct", [False, True], ids=["regrouped", "keyed"])
def test_a_dropped_trace_comes_back_whole_and_once(direct: bool) -> None:
    """Restores among everything that can go wrong: all spans once, logs that were not forwarded before, one verdict
    that supersedes the drop, and none after it."""
    seen: Counter[str] = Counter()
    for seed in range(RESTORE_SEEDS):
        try:
            seen += Simulation(seed, direct=direct, restores=True).run().verify()
        except Exception as error:
            raise AssertionError(f"seed {seed}: Simulation({seed}, {direct=}, restores=True).run().verify()") from error
    assert seen["restored"] > RESTORE_SEEDS // 4
    assert seen["evidence"] > 0


@pytest.mark.parametrize("shrinks", [True, False], ids=["smaller", "the same"])
def test_what_is_too_large_for_a_transaction_gets_through_in_parts(
    shrinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that holds too much fails, whoever tries it; and the next try is smaller, or nothing ever gets on."""
    monkeypatch.setattr(pace, "LEAST_BYTES", 64)
    if not shrinks:
        monkeypatch.setattr(pace.BurstSize, "failed", lambda self: None)
    timed_out, stuck = 0, []
    for seed in range(NARROW_SEEDS):
        history = Simulation(seed, traces=70, narrow=NARROW).run()
        timed_out += history.timed_out
        try:
            history.verify()
        except AssertionError:
            stuck.append(seed)
    assert bool(stuck) != shrinks, f"seeds {stuck}"
    assert timed_out > NARROW_SEEDS


def test_a_seed_replays_exactly() -> None:
    first, second = Simulation(7, whole=True).run(), Simulation(7, whole=True).run()
    assert {p: log.entries for p, log in first.broker.logs.items()} == {
        p: log.entries for p, log in second.broker.logs.items()
    }


@pytest.mark.uncompiled
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_simulation_notices_a_missing_guard(guard: Guard) -> None:
    assert guard.noticed(), f"{SEEDS_TO_NOTICE} histories passed without: {guard.without}"
