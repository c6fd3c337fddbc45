"""Invariants I1–I3 over simulated histories, and proof that the simulation would notice their loss."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.kafka import pace
from processors.sampling import decision_log
from schemas.decision import DecisionRecord
from tests.simulation.guards import GUARDS, SEEDS_TO_NOTICE, Guard
from tests.simulation.history import KINDS, PARTITIONS, STEPS, Kind, Part, Simulation, kind_of
from tests.simulation.minimise import FAILURES, failure, minimised
from tests.simulation.owners import DECISIONS, LOGS, SPANS, Sample

SEEDS = 1_000
CHUNK = 100
NARROW_SEEDS = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_trace_is_lost_split_or_counted_twice(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1, I2 and I3 hold whatever crashes, stands still, comes back as a zombie, drains unevenly; with groups whose
    members come and go, another N, releases side by side, silent partitions left out after seconds while the broker's
    clock is set by minutes and a decision record holds two verdicts, without ingest, and with restores."""
    record, seen = decision_log.DECISION_BYTES, Counter[str]()
    for seed in range(first, first + CHUNK):
        kind = kind_of(seed)
        monkeypatch.setattr(decision_log, "DECISION_BYTES", 40 if kind.hasty else record)
        try:
            seen += Simulation(seed, kind).run().verify()
        except Exception as error:
            raise AssertionError(told(seed, kind)) from error
    assert seen["delivered"] > 10 * CHUNK
    assert seen["delivered again"] > CHUNK, "else no answer was ever lost"
    assert seen["kept"] > CHUNK
    assert seen["traces"] - seen["kept"] > 4 * CHUNK
    assert min(seen[policy] for policy in ("errors", "error-logs", "some", "large")) > CHUNK // 10
    assert seen["early"] > CHUNK
    assert seen["misjudged"] > 0, "else nothing was ever left out"
    assert seen["resized"] > CHUNK // 10
    assert seen["restored"] > 0
    assert seen["moved"] > CHUNK


def told(seed: int, kind: Kind) -> str:
    """The smallest history in which the same check fails."""
    found = failure(seed, kind)
    return f"seed {seed}: Simulation({seed}, {kind}).run().verify()" if found is None else str(minimised(found))


def test_late_errors_bring_dropped_traces_back() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        seen += Simulation(seed, Kind(restores=True)).run().verify()
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
        history = Simulation(seed, Kind(narrow=True)).run()
        timed_out += history.timed_out
        try:
            history.verify()
        except AssertionError:
            stuck.append(seed)
    assert bool(stuck) != shrinks, f"seeds {stuck}"
    assert timed_out > NARROW_SEEDS


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_seed_replays_exactly(kind: Kind) -> None:
    first, second = Simulation(7, kind).run(), Simulation(7, kind).run()
    assert first.story == second.story
    assert {p: log.entries for p, log in first.broker.logs.items()} == {
        p: log.entries for p, log in second.broker.logs.items()
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_recorded_topic_is_decided_alike_when_it_is_replayed(seed: int) -> None:
    """From the same offsets on: all of it, and from any checkpoint on, with the rates as they stood there."""
    recorded = Simulation(seed).run()
    verdicts = recorded.verdicts()
    for share in (0.0, 0.3, 0.7):
        again = Simulation(seed, part=Part(traces=()))
        for index in range(PARTITIONS):
            for topic in (SPANS, LOGS):
                log = again.broker.logs[topic, index] = recorded.broker.logs[topic, index]
                log.start = 0
            decided = recorded.broker.logs[DECISIONS, index].values()
            for value in decided[: int(share * len(decided))]:
                again.broker.append((DECISIONS, index), value)
                for topic, tail in DecisionRecord.decode(value).checkpoint.tails.items():
                    again.broker.offsets[topic, index] = tail, "0"
            again.catch_up(Sample(again, index))
        assert again.verdicts() == verdicts


MINIMISED = {"pass undecided", "offsets before the epoch", "kept over a failure", "resize without fencing"}


@pytest.mark.parametrize("guard", [guard for guard in GUARDS if guard.name in MINIMISED], ids=lambda guard: guard.name)
def test_a_history_that_fails_is_made_smaller_and_replays(guard: Guard) -> None:
    """With a guard taken away: a short history, in which the same check fails each time, and which passes with it."""
    with pytest.MonkeyPatch.context() as patch:
        guard.remove(patch)
        found = next(found for seed in range(SEEDS_TO_NOTICE) if (found := failure(seed, guard.kind)) is not None)
        small = minimised(found)
        part = small.part
        assert small.same == found.same
        assert part.steps is not None
        assert len(part.steps) <= STEPS // 20
        again = failure(small.seed, small.kind, part)
        assert again == small, "what is told is what happens again"
        assert small.literal in str(small)
        with pytest.raises(FAILURES) as told_again:
            eval(small.literal)
        assert str(told_again.value).startswith(small.check)
    assert failure(small.seed, small.kind, part) is None, "it is the guard's absence that fails"


@pytest.mark.uncompiled
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_simulation_notices_a_missing_guard(guard: Guard) -> None:
    assert guard.noticed(), f"{SEEDS_TO_NOTICE} histories passed without: {guard.without}"
