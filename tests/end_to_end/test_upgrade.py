"""A rolling upgrade and a downgrade by one: workers of two releases share the groups, and nobody can tell.

With the wheel of the release before this one, and with builds of this one whose internal records have the next version:
read by the first, written by the second.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.packing import unpack
from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import RAW_PARTITIONS, Pipeline, Worker, running
from tests.end_to_end.observed import decided
from tests.end_to_end.releases import FORMATS, NEXT_READS, PREVIOUS, installed, of_the_next_version
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.repository import ROOT
from tests.services import Kafka, eventually

RATE = 40.0  # requests per second, five spans each
DECIDED = 25  # traces by one set of workers
SHARED_SECONDS = 60.0
ROLES = ("ingest", "sample", "aggregate")

THIS = None
"""This checkout, as any worker of a test."""


READ_GOLDEN = """
import pathlib, sys
from schemas import decision, envelope, point, sample
readers = {
    "decision": decision.DecisionRecord.decode, "envelope": envelope.Envelope.decode,
    "point": point.PointBatch.decode, "sample": sample.decode_record,
}
for file in map(pathlib.Path, sys.argv[1:]):
    print(type(readers[file.stem.split("_")[0]](file.read_bytes())).__module__, file.stem)
"""


def test_the_release_before_reads_what_this_one_writes() -> None:
    files = sorted((ROOT / "schemas/versions").glob("v*/*.bin"))
    assert len(files) >= len(FORMATS)
    run = subprocess.run(
        [sys.executable, "-c", READ_GOLDEN, *files], cwd=installed(PREVIOUS), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == len(files)


async def test_beside_the_release_before(kafka: Kafka, tmp_path: Path) -> None:
    """On topics that it made: where spans may be large they lack room for what else is in an envelope."""
    before = await asyncio.to_thread(installed, PREVIOUS)
    settings = {"limits": {"max_span_bytes": 12 << 20}}
    async with running(Pipeline(kafka, tmp_path, "upgrade", settings, made_by=before)) as pipeline:
        await roll(pipeline, [before, THIS, before])
        for command, *options in (["topics"], ["check", "--connect"]):
            status, printed = await pipeline.run(command, str(pipeline.file), *options)
            assert status == 0, printed
            assert "! " in printed
            assert "max.message.bytes is " in printed


async def test_a_version_is_read_one_release_before_it_is_written(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = (of_the_next_version(tmp_path / f"written-{written}", written) for written in (False, True))
    async with running(Pipeline(kafka, tmp_path, "bumped")) as pipeline:
        for name in FORMATS:  # for what the test itself reads
            monkeypatch.setattr(f"schemas.{name}.READS", NEXT_READS)
        await roll(pipeline, [THIS, reads, writes, reads])
        written = await pipeline.records([pipeline.topics.spans, pipeline.topics.decisions, pipeline.topics.points])
        assert {unpack(record.value)["v"] for record in written} == {1, NEXT_READS[-1]}


async def roll(pipeline: Pipeline, releases: Sequence[Path | None]) -> None:
    """One release after the other, each sharing the groups with the one before, under traffic."""
    workers = await started(pipeline, releases[0])
    batches = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(13))
    feed = Feed(pipeline.kafka.bootstrap, batches, Shop(13), RATE)
    feed.start()
    known = await decided(pipeline, DECIDED, set())
    for release in releases[1:]:
        following = await started(pipeline, release)
        both = [*workers, *following]
        await eventually(lambda both=both: share(pipeline, both), SHARED_SECONDS, "both releases share every group")  # type: ignore[misc]
        known = await decided(pipeline, DECIDED, known)
        assert feed.flows
        gone, *rest = workers
        gone.kill()
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in rest))
        await eventually(lambda own=following: share(pipeline, own), SHARED_SECONDS, "the others have gone")  # type: ignore[misc]
        known = await decided(pipeline, DECIDED, known)
        workers = following
    sent = await feed.finish()
    await pipeline.settled()
    truth.assert_true(sent, await holdings.of_topics(pipeline, sent))
    assert not await pipeline.records([pipeline.topics.dlq])


async def started(pipeline: Pipeline, release: Path | None) -> list[Worker]:
    """Two workers of a release with every role but sinks."""
    environment = {} if release is None else {"PYTHONPATH": str(release)}
    return list(await asyncio.gather(*(pipeline.start(*ROLES, **environment) for _ in range(2))))


async def share(pipeline: Pipeline, workers: Sequence[Worker]) -> bool:
    """Whether these are the members of every group, and each has partitions of its own."""
    for role in ROLES:
        owned = [worker.assigned(role) for worker in workers]
        if await pipeline.members(role) != len(workers) or not all(owned) or set.intersection(*owned):
            return False
    return True
