"""A million label values through three workers on a real Kafka: within the limits, memory flat, nothing forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands import cardinality
from pipeline.commands.cardinality import newest_ticks
from pipeline.kafka import topics
from processors.cardinality import OVERFLOW
from schemas.point import Labels, PointBatch, Shape, Value
from schemas.sample import LimitState, SeriesBlock, Tick
from tests.pipeline.aggregating import Pipeline, configuration
from tests.pipeline.kafka import DEADLINE
from tests.services import Kafka, eventually

PARTITIONS = 3
VALUES = 1_000_000
ROWS = 8_000  # of one batch: less than the 1 MiB of a record
LIMIT, BUDGET = 200, 500
SHAPE = Shape("counter", ("service", "tenant"), (), 1)
SEEN: list[Labels] = [("cart", f"early-{number}") for number in range(LIMIT)]


@pytest.fixture
async def pipeline(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Pipeline]:
    raw = configuration(kafka.bootstrap, metric_partitions=PARTITIONS)
    raw["metrics"] |= {"series_per_metric": BUDGET, "limits": [{"label": "tenant", "values": LIMIT}]}
    found = Pipeline(raw, tmp_path)
    assert await topics.ensure(found.config) == []
    yield found
    found.stop()


async def produce(pipeline: Pipeline, producer: AIOKafkaProducer, labels: list[Labels]) -> None:
    """One of each label set, for every partition's metric."""
    rows: list[tuple[Labels, Value]] = [(each, 1) for each in labels]
    for partition in range(PARTITIONS):
        batch = PointBatch(f"requests_{partition}_total", SHAPE, 0, rows)
        await producer.send(pipeline.topics.points, batch.encode(), partition=partition)


async def ticks_with(pipeline: Pipeline, each: int) -> list[Tick]:
    """The newest ticks once every partition has counted `each`."""
    found = await newest_ticks(pipeline.config)
    return found if [counted(tick) for tick in found] == [each] * PARTITIONS else []


def counted(tick: Tick) -> float:
    return sum(value for block in tick.blocks for _, value in block.rows if not isinstance(value, tuple))


def resident(pid: int) -> int:
    """Pages of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


async def test_a_million_values_and_three_workers(pipeline: Pipeline) -> None:
    workers = [pipeline.start() for _ in range(PARTITIONS)]
    each = VALUES // PARTITIONS
    flood: list[Labels] = [("cart", f"tenant-{number}") for number in range(each)]
    async with pipeline.producer() as producer:
        await produce(pipeline, producer, SEEN)
        sent = len(SEEN)
        for start in range(0, 5 * ROWS, ROWS):
            await produce(pipeline, producer, flood[start : start + ROWS])
        sent += 5 * ROWS
        await eventually(lambda: ticks_with(pipeline, sent), DEADLINE, "the first values are counted")
        early = sum(resident(worker.pid) for worker in workers)
        for start in range(5 * ROWS, each, ROWS):
            await produce(pipeline, producer, flood[start : start + ROWS])
        sent += each - 5 * ROWS
        await eventually(lambda: ticks_with(pipeline, sent), DEADLINE, "all values are counted")
        assert sum(resident(worker.pid) for worker in workers) < 1.3 * early
        for worker in workers:
            worker.terminate()  # what kills do is in test_aggregate.py
        for worker in workers:
            await asyncio.to_thread(worker.wait, DEADLINE)
        pipeline.start()
        await produce(pipeline, producer, [*SEEN, ("cart", "new"), ("pay", "new")])
        sent += len(SEEN) + 2
        ticks = await eventually(lambda: ticks_with(pipeline, sent), DEADLINE, "another worker goes on")
    for tick in ticks:
        (block,) = tick.blocks
        check(block, each)
    arguments = ["cardinality", "--config", str(pipeline.file)]
    told = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    fullest = json.loads(told.output)["limits"][0]
    assert fullest["metric"].startswith("requests_")
    assert (fullest["label"], fullest["active"], fullest["limit"]) == ("tenant", LIMIT, LIMIT)
    table = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
    assert table.exit_code == 0
    assert "requests_0_total" in table.output


def check(block: SeriesBlock, flood: int) -> None:
    """Those seen first are counted on, of the flood there is one series."""
    rows = dict(block.rows)
    assert len(rows) <= BUDGET
    assert {labels: rows[labels] for labels in SEEN} == dict.fromkeys(SEEN, 2)
    assert rows.keys() - SEEN == {("cart", OVERFLOW), ("pay", OVERFLOW)}
    tenant = next(limit for limit in block.limits if limit.label == "tenant")
    assert (tenant.active, tenant.limit, tenant.folded) == (LIMIT, LIMIT, flood + 2)
    assert tenant.demand == pytest.approx(flood + LIMIT, rel=0.1)  # four standard errors


def test_names_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """UTF-8 names may hold anything, also what a terminal's markup looks like."""
    limits = [LimitState("[red]label", 5, 1, 1, 0, (("\x1b[2Jvalue", 3),)), LimitState("", 5, 1, 1)]
    block = SeriesBlock("db[/x]", SHAPE, [(("cart", "a"), 1)], limits=limits)
    cardinality._print([Tick(1, 1_700_000_000_000, 1, 1, [block])])
    told = capsys.readouterr().out
    assert "db[/x]" in told
    assert "[red]label" in told
    assert r"\x1b[2Jvalue (3)" in told  # a terminal would obey the character itself


def test_what_a_limit_refused_is_one_line_and_tells_series_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines were padded to the widest, and series were told by labels that all of them have."""
    same = ",".join(f"label_{number}=of-all" for number in range(6))
    series = tuple((f"{same},tenant={name},zone=a", count) for name, count in (("b,x", 7), ("c,x", 5), ("d", 3)))
    limits = [LimitState("", 5, 5, 9, 15, series), LimitState("tenant", 9, 1, 1, 1, (("x,y", 2), ("x,z", 1)))]
    block = SeriesBlock("requests_total", SHAPE, [(("cart", "a"), 1)], limits=limits)
    cardinality._print([Tick(1, 1_700_000_000_000, 1, 1, [block])])
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "metric          label     active  limit  demand  folded",
        "requests_total  (series)       5      5       9      15",
        "    refused most, at least: tenant=b,x (7), tenant=c,x (5)",
        "requests_total  tenant         1      9       1       1",
        "    refused most, at least: x,y (2), x,z (1)",
        "as of 2023-11-14T22:13:20+00:00, 2 limits",
    ]
