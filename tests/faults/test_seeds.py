"""Three short runs with seeds of this commit's own, so that every commit tries others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import Destinations
from tests.faults.run import run
from tests.faults.schedule import SHORT, schedule
from tests.faults.seeds import seeds
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus


@pytest.fixture(scope="module")
def broker() -> Iterator[Kafka]:
    """One of their own."""
    with Kafka() as server:
        yield server


@pytest.mark.parametrize("seed", seeds())
async def test_nothing_is_lost_split_or_counted_twice(
    seed: int, broker: Kafka, jaeger: Jaeger, elasticsearch: Elasticsearch, prometheus: Prometheus, tmp_path: Path
) -> None:
    """Again: make faults ARGS="--short --seed SEED"."""
    plan = schedule(seed, SHORT)
    print(*plan.lines(), f'again: make faults ARGS="--short --seed {seed}"', sep="\n")
    report = await run(plan, broker, Destinations(jaeger, elasticsearch, prometheus), tmp_path, say=print)
    print(report.figures, dict(report.row.allowed))
    assert report.row.clean, "\n".join([f"seed {seed}:", *report.row.lines()])
