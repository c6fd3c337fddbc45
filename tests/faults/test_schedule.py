"""A seed is a schedule: always the same, and all faults come up."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from tests.faults.__main__ import parsed
from tests.faults.actions import ACTIONS
from tests.faults.measure import MEASUREMENTS
from tests.faults.scenarios import SCENARIOS
from tests.faults.schedule import DESTINATIONS, KINDS, LONG, SHORT, SINKS, Shape, schedule
from tests.faults.seeds import SEEDS, seeds

SINK_ROLES = {f"sink.{name}" for name in DESTINATIONS}
ROLES = {"ingest", "sample", "aggregate"} | SINK_ROLES


def roles_of(words: str) -> set[str]:
    """What a worker of a layout does."""
    wide = {"all": ROLES, "sinks": SINK_ROLES}
    return {role for word in words.split(",") for role in wide.get(word, {word})}


@pytest.mark.parametrize("shape", [LONG, SHORT])
def test_a_seed_is_always_the_same_schedule(shape: Shape) -> None:
    assert schedule(7, shape) == schedule(7, shape) != schedule(8, shape)


def test_fifty_seeds_have_every_fault_against_everybody() -> None:
    faults = [fault for seed in range(1, 51) for fault in schedule(seed, LONG).faults]
    assert Counter(fault.kind for fault in faults).keys() == KINDS.keys() == ACTIONS.keys()
    assert {fault.target for fault in faults if fault.kind in SINKS} == set(range(len(DESTINATIONS)))
    assert {schedule(seed, LONG).layout for seed in range(1, 51)} == set(LONG.layouts)
    kinds = ("kill", "freeze", "zombie", "join")
    done = {
        (fault.kind, role)
        for plan in (schedule(seed, LONG) for seed in range(1, 51))
        for fault in plan.faults
        if fault.kind in kinds
        for role in roles_of(plan.layout[fault.target])
    }
    assert done == set(product(kinds, ROLES))


@pytest.mark.parametrize("seed", range(50))
def test_faults_begin_and_end_with_the_input(seed: int) -> None:
    for shape in (LONG, SHORT):
        for fault in schedule(seed, shape).faults:
            least, most = KINDS[fault.kind].lasts
            assert least - 0.01 <= fault.lasts <= most + 0.01
            assert 0 < fault.at <= max(0.5, shape.seconds - fault.lasts) + 0.01


def test_a_commit_has_seeds_of_its_own() -> None:
    assert len(seeds()) == SEEDS
    assert all(0 <= seed < 1 << 16 for seed in seeds())


def test_commands() -> None:
    assert parsed(["--seed", "7"]).seeds == [7]
    assert parsed(["--seeds", "1..3", "--short"]).seeds == [1, 2, 3]
    assert parsed(["--measure"]).measure == list(MEASUREMENTS)
    assert parsed(["--measure", "killed"]).measure == ["killed"]
    assert parsed(["--scenario"]).scenario == list(SCENARIOS)
    assert parsed(["--scenario", "outage"]).scenario == ["outage"]
    assert parsed(["--mutate"]).mutate
    everything = parsed([])
    assert everything.mutate
    assert everything.scenario == list(SCENARIOS)
    assert (len(everything.seeds), everything.simulate, everything.measure) == (50, 10_000, list(MEASUREMENTS))
