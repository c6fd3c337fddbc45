"""tailrace topics resize, step by step; under traffic: tests/end_to_end/test_resize.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import Config
from pipeline.operating.resize import Resize
from pipeline.worker import running
from schemas.errors import ConfigError
from tests.pipeline.configs import MINIMAL
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, holds
from tests.services import Kafka, eventually

DECISION_WAIT = 10.0  # seconds: longer than a worker takes to stop


def resized(stages: Stages, *options: str) -> tuple[int, str]:
    """The command's exit code, and what it said."""
    result = CliRunner().invoke(cli, ["topics", "resize", str(stages.file), *options])
    return result.exit_code, result.output


async def test_a_trace_whose_spans_lie_on_both_sides_is_one(stages: Stages) -> None:
    """Undecided before, with its error only afterwards: nobody decides on the half that there is."""
    sampling = stages.config.sampling.model_copy(update={"decision_wait": DECISION_WAIT})
    config = stages.config.model_copy(update={"sampling": sampling})
    async with stages.producer() as producer:
        async with running(config, ["ingest", "sample"]) as worker:
            await holds(worker, "ingest", "sample")
            await stages.produce(producer, "a/1", "b/1!", "c/1")

            async def counted() -> bool:
                return await stages.counted() == 3

            await eventually(counted, DEADLINE, "the spans are counted")
            code, said = await asyncio.to_thread(resized, stages, "--partitions", "3")
            assert code == 1
            assert "ingest has 1 worker and sample has 1 worker: stop them first" in said
        await stages.produce(producer, "a/2!", "c/2")
        code, said = await asyncio.to_thread(resized, stages, "--partitions", "3", "--dry-run")
        assert (code, "nothing was changed" in said) == (0, True), said
        told: list[tuple[int, int]] = []
        async with Resize(stages.config, 3) as work:
            plan = await work.plan(lambda *read: told.append(read))
        read = sum(end - start for left in plan.left for start, end in [left.decisions])
        assert told == sorted(told)
        assert told[-1] == (read, read)
        code, said = await asyncio.to_thread(resized, stages, "--partitions", "3")
        assert code == 0, said
        assert "now set kafka.partitions: 3 and start ingest and sample" in said
        kafka = config.kafka.model_copy(update={"partitions": 3})
        async with running(config.model_copy(update={"kafka": kafka}), ["ingest", "sample"]):
            await stages.settled()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kafka": {**MINIMAL["kafka"], "transactions": False}}, "kafka.transactions is false"),
        ({"regroup": "never"}, "the producers place traces"),
    ],
)
def test_a_pipeline_that_cannot_be_resized_says_why(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Resize(Config.model_validate(MINIMAL | change), 8)


async def test_topics_that_are_not_there_are_named(kafka: Kafka, tmp_path: Path) -> None:
    stages = Stages(kafka.bootstrap, tmp_path)
    code, said = await asyncio.to_thread(resized, stages, "--partitions", "8")
    assert code == 78
    assert f"{stages.topics.decisions}" in said
    assert "do not exist" in said
