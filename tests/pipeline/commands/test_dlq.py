"""tailrace dlq on a real Kafka: letters of a wrong configuration are sent in again once it is mended."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.commands.dlq import _time
from pipeline.config import Config
from pipeline.operating.dead_letters import Queue, Wanted
from pipeline.operating.letter_text import readable
from pipeline.operating.replay import Replay
from pipeline.worker import running
from schemas.dead_letter import KEPT_OF_TOO_LARGE, REPLAYED, DeadLetter, hidden
from schemas.reasons import Reason
from tests.pipeline.kafka import DEADLINE, create, fresh
from tests.pipeline.stages import Stages, log_of, now, traces
from tests.repository import ROOT, python_path
from tests.services import Kafka, eventually

LIMIT = KEPT_OF_TOO_LARGE + 1000


class Faulty(Stages):
    """Its file says that the raw topic holds JSON, until it is mended."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        super().__init__(bootstrap, folder)
        self.settings["limits"] = {"max_dead_letter_bytes": LIMIT}
        self.say("otlp_json")

    def say(self, encoding: str) -> None:
        self.settings["inputs"][0]["encoding"] = encoding
        self.config = Config.model_validate(self.settings)
        self.file.write_text(yaml.safe_dump(self.settings))

    async def dlq(self, command: str, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli, ["dlq", command, str(self.file), *words])

    async def listed(self, *words: str) -> dict[str, dict[str, Any]]:
        """The groups by reason."""
        found = json.loads((await self.dlq("list", "--json", *words)).stdout)
        return {group["reason"]: group for group in found["groups"]}

    async def buried(self, count: int) -> None:
        async def there() -> bool:
            return len([r for r in await self.records(self.topics.dlq) if REPLAYED not in dict(r.headers)]) == count

        await eventually(there, DEADLINE, f"{count} dead letters")


async def faulty(kafka: Kafka, folder: Path) -> Faulty:
    stages = Faulty(kafka.bootstrap, folder)
    await stages.create()
    return stages


async def bury(stages: Stages, producer: AIOKafkaProducer, letter: DeadLetter) -> None:
    await producer.send_and_wait(stages.topics.dlq, letter.value, letter.key(), headers=letter.headers())


async def test_letters_of_a_wrong_encoding_are_replayed_once_it_is_mended(kafka: Kafka, tmp_path: Path) -> None:
    stages = await faulty(kafka, tmp_path)
    names, at = [f"t{number}/1!" for number in range(20)], now() - 5_000
    async with stages.producer() as producer:
        for number, name in enumerate(names):
            await stages.produce(producer, name, partition=number % 2, at=at)
        await producer.send_and_wait(stages.raw, b"", partition=0)
        await producer.send_and_wait(stages.raw, random.Random(1).randbytes(2 * LIMIT), partition=1)
    async with running(stages.config, ["ingest"]):
        await stages.buried(22)
    groups = await stages.listed()
    assert {reason: group["letters"] for reason, group in groups.items()} == {"malformed": 21, "empty_message": 1}
    assert groups["malformed"]["topic"] == stages.raw
    assert (await stages.listed("--reason", "empty_message")).keys() == {"empty_message"}
    assert await stages.listed("--stage", "sample") == {}
    assert "22 letters" in (await stages.dlq("list")).stdout

    # One bad letter costs the others nothing, and what was cut is not passed off as the record.
    again = await stages.dlq("replay", "--reason", "malformed", "--yes")
    assert again.exit_code == 1, again.output
    assert "20 letters sent" in again.stdout
    assert f"1 letter left: only the first {KEPT_OF_TOO_LARGE} bytes were kept" in again.stdout
    again = await stages.dlq("replay", "--reason", "malformed", "--yes")
    assert "20 letters replayed before" in again.stdout, "each letter once"

    # It was too early: the file is still wrong. The same bytes are new letters, and are not sent round for ever.
    async with running(stages.config, ["ingest"]):
        await stages.buried(42)
    assert (await stages.listed())["malformed"]["replayed"] == 20
    stopped = await stages.dlq("replay", "--reason", "malformed", "--most", "1", "--yes")
    assert "20 letters left: its bytes have been replayed 1 times" in stopped.stdout

    stages.say("otlp_proto")
    dry = await stages.dlq("replay", "--reason", "malformed", "--since", "1h", "--dry-run")
    assert "20 letters to be sent" in dry.stdout
    assert "nothing was sent" in dry.stdout
    refused = await stages.dlq("replay", "--reason", "malformed")
    assert refused.exit_code == 1, "nobody said yes"
    async with running(stages.config, ["all"]):
        assert (await stages.dlq("replay", "--reason", "malformed", "--yes")).exit_code == 1, "for the one that was cut"
        await stages.settled()
    raw = await stages.records(stages.raw)
    last = {name: value.decode() for name, value in raw[-1].headers}
    assert last["tailrace.replays"] == "2"
    assert last["tailrace.replay.of"].startswith(f"{stages.raw}/{raw[-1].partition}/")
    assert raw[-1].timestamp == at, "its own time"
    values = [sorted(r.value for r in raw if r.partition == p and r.value) for p in range(2)]
    assert {values[p].count(traces(name)) for p in range(2) for name in names[p::2]} == {3}, "each in its partition"


async def test_one_letter_is_shown_and_replayed(kafka: Kafka, tmp_path: Path) -> None:
    stages = await faulty(kafka, tmp_path)
    value = traces("t1/secret")
    letter = DeadLetter(value, stages.raw, 1, 5, now(), 0, "sink.jaeger", Reason.REFUSED_BY_SINK, "no\x1b[2J", "")
    row = DeadLetter(value, stages.raw, 1, 6, now(), 2, "ingest", Reason.NO_SPAN_ID, "", "otlp_proto", 20)
    async with stages.producer() as producer:
        for one in (letter, row):
            await bury(stages, producer, one)
        await producer.send_and_wait(stages.topics.dlq, b"not ours")
    told: list[tuple[int, int]] = []
    async with Queue(stages.config, lambda *read: told.append(read)) as queue:
        await queue.summary(Wanted())
    assert told == sorted(told)
    assert told[-1] == (3, 3)
    shown = await stages.dlq("show", "0:0")
    assert shown.exit_code == 0, shown.output
    assert "refused_by_sink" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "secret" not in shown.stdout
    for name in (f"{stages.raw}/1/6/2+20", f"{stages.raw}/1/6/2"):
        by_name = await stages.dlq("show", name, "--payload")
        assert by_name.exit_code == 0
    assert '"name": "t1/secret"' in by_name.stdout
    for where in ("0:7", "0:2", "x", "other/0/0/0"):
        assert (await stages.dlq("show", where)).exit_code == 1
    assert "1 record in the topic that Tailrace did not write" in (await stages.dlq("list")).stdout

    # What a sink refused has been counted, what was wrapped is in another form than the topic's.
    assert "--stage sink.jaeger sends it again" in (await stages.dlq("replay", "0:0", "--yes")).stdout
    assert "--to another topic" in (await stages.dlq("replay", "0:1", "--yes")).stdout
    assert (await stages.dlq("replay", "0:1", "--to", "elsewhere", "--yes")).exit_code == 78
    stages.say("otlp_proto")
    for words in (["0:1"], ["--stage", "sink.jaeger"]):
        assert (await stages.dlq("replay", *words, "--yes")).exit_code == 0
    assert [r.value for r in await stages.records(stages.raw)] == [value, value]


async def test_ctrl_c_at_the_question_is_no(kafka: Kafka, tmp_path: Path) -> None:
    stages = await faulty(kafka, tmp_path)
    letter = DeadLetter(b"{}", stages.raw, 1, 5, now(), 0, "ingest", Reason.MALFORMED, "", "")
    async with stages.producer() as producer:
        await bury(stages, producer, letter)
    # Whoever runs the tests in the background has Ctrl-C ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pipeline.cli import main; main()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "dlq", "replay", str(stages.file)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": python_path()},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readuntil(b"[y/N]"), DEADLINE)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), DEADLINE) == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert await stages.records(stages.raw) == []


async def test_what_another_replay_has_sent_meanwhile_is_not_sent_again(kafka: Kafka, tmp_path: Path) -> None:
    """One waits for its yes while another one runs."""
    stages = await faulty(kafka, tmp_path)
    letter = DeadLetter(b"{}", stages.raw, 1, 5, now(), 0, "ingest", Reason.MALFORMED, "", "")
    async with stages.producer() as producer:
        await bury(stages, producer, letter)
    async with Queue(stages.config) as queue, Replay(stages.config, queue, Wanted()) as waiting:
        assert (await waiting.look()).sent == 1
        assert (await stages.dlq("replay", "--yes")).exit_code == 0
        late = await waiting.run(None, lambda sent: None)
    assert (late.sent, late.already) == (0, 1)
    assert len(await stages.records(stages.raw)) == 1


@pytest.mark.parametrize("time_ms", [1 << 55, -(1 << 62)])
def test_a_time_that_no_calendar_has_is_told_as_it_is(time_ms: int) -> None:
    """Of a letter that is damaged, or that somebody else wrote: the others are listed."""
    assert _time(time_ms) == f"{time_ms} ms"


async def test_since_a_time_behind_its_receipt_a_letter_goes_round_no_more(kafka: Kafka, tmp_path: Path) -> None:
    stages = await faulty(kafka, tmp_path)
    first = DeadLetter(b"{}", stages.raw, 1, 5, now(), 0, "ingest", Reason.MALFORMED, "", "")
    async with stages.producer() as producer:
        await bury(stages, producer, first)
        assert (await stages.dlq("replay", "--yes")).exit_code == 0
        (sent,) = await stages.records(stages.raw)
        await asyncio.sleep(0.01)
        since = now()
        await asyncio.sleep(0.01)
        back = replace(first, partition=sent.partition, offset=sent.offset)
        await bury(stages, producer, back)
    wanted = Wanted(since_ms=since)
    async with Queue(stages.config) as queue, Replay(stages.config, queue, wanted, most=1) as replaying:
        found = await replaying.look()
    assert (found.sent, sum(found.left.values())) == (0, 1)


async def test_a_letter_that_is_too_large_for_the_topic_costs_its_neighbours_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    stages = await faulty(kafka, tmp_path)
    small = fresh("small")
    stages.settings["inputs"].append({"topic": small, "signal": "logs", "encoding": "json"})
    stages.say("otlp_proto")
    await create(kafka.bootstrap, {small: 1}, **{"max.message.bytes": "10000"})
    await stages.create_seen(small, 1)
    values = [b"a", b"b", random.Random(2).randbytes(20_000), b"c"]
    async with stages.producer() as producer:
        for offset, value in enumerate(values):
            letter = DeadLetter(value, small, 3, offset, now(), 0, "ingest", Reason.MALFORMED)
            await bury(stages, producer, letter)
    result = await stages.dlq("replay", "--topic", small, "--yes")
    assert result.exit_code == 1
    assert "3 letters sent" in result.stdout
    assert "max.message.bytes" in result.stdout
    assert sorted(r.value for r in await stages.records(small)) == [b"a", b"b", b"c"]
    assert (await stages.listed())["malformed"]["replayed"] == 3


async def test_what_nothing_is_called_is_said_and_not_taken_for_an_empty_queue(kafka: Kafka, tmp_path: Path) -> None:
    stages = await faulty(kafka, tmp_path)
    async with stages.producer() as producer:
        await bury(stages, producer, DeadLetter(b"x", stages.raw, 0, 1, now(), 0, "ingest", Reason.MALFORMED))
    for words in (["list"], ["replay", "--dry-run"]):
        refused = await stages.dlq(*words, "--stage", "sink.jeager,ingest,jaeger")
        assert refused.exit_code == 2
        assert "jaeger, sink.jeager: no role that has dead letters; they are ingest, sample" in " ".join(
            refused.output.split()
        )
        for stage in ("sink.jaeger/gone", "ingest"):
            assert (await stages.dlq(*words, "--stage", stage)).exit_code == 0
        for topic in ("otlp_spns", stages.raw, f"{stages.raw}.logs"):
            told = (await stages.dlq(*words, "--topic", topic)).stderr
            strange = f"! --topic {topic}: no input, and no letter is of it; letters are of {stages.raw}\n"
            assert told == (strange if topic == "otlp_spns" else "")


async def test_letters_that_differ_in_size_alone_are_left_in_one_line(kafka: Kafka, tmp_path: Path) -> None:
    """There was a line for each: its size was part of why it was left."""
    stages = await faulty(kafka, tmp_path)
    place = stages.raw, 0
    async with stages.producer() as producer:
        for offset in range(3):
            value, detail = hidden(bytes(10 + offset), "truncated")
            await bury(
                stages, producer, DeadLetter(value, *place, offset, now(), 0, "ingest", Reason.MALFORMED, detail)
            )
            large = DeadLetter(bytes(LIMIT + 1 + offset), *place, 10 + offset, now(), 0, "ingest", Reason.MALFORMED)
            await bury(stages, producer, large.fitted(LIMIT))
    result = await stages.dlq("replay", "--yes")
    assert result.exit_code == 1
    left = [line for line in result.stdout.splitlines() if " left: " in line]
    assert len(left) == 2, left
    assert "3 letters left: what cannot be decoded cannot be redacted" in left[0]
    assert f"3 letters left: only the first {KEPT_OF_TOO_LARGE} bytes were kept" in left[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"GET /\nok", "GET /\nok"),
        ("grüße".encode(), "grüße"),
        (b"\x1b[2J", "00000000  1b 5b 32 4a                                      .[2J"),
        (log_of("", "hello"), '"stringValue": "hello"'),
        (bytes(5000), "... 904 bytes more"),
    ],
)
def test_payloads_are_readable_and_harm_no_terminal(value: bytes, text: str) -> None:
    found = readable(value, "logs")
    assert text in found
    assert all(c.isprintable() or c in "\n\t" for c in found)
