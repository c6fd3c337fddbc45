"""`tailrace simulate` on a real Kafka: it decides as the workers did, says what others change, and moves nothing."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData, SeverityNumber

from bench.load import Load
from bench.write import write
from pipeline.cli import cli
from pipeline.config import Sampling
from pipeline.operating.explain import explain
from pipeline.operating.simulate import simulate
from pipeline.worker import running
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.pipeline.kafka import DEADLINE, forget
from tests.pipeline.keyed import Keyed
from tests.pipeline.operating.played import ERRORS, HALF, POLICIES, RATE, TRACES, Played
from tests.pipeline.stages import Stages, administration, busy, log_of, now, partition, trace_id
from tests.services import Kafka, eventually

ALL = {"name": "all", "type": "always_sample"}
SLOW = {"name": "slow", "type": "latency", "latency": {"threshold_ms": 3_600_000}}  # of which there are none


@pytest.fixture
async def played(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Played]:
    found = Played(kafka.bootstrap, tmp_path)
    await found.create()
    yield await found.play()
    found.stop()


async def test_simulate(played: Played) -> None:
    await eventually(played.nothing_is_open, DEADLINE, "the brokers have ended what workers left open")
    before = await played.state()
    await replayed_with_the_same_policies(played)
    await replayed_with_others(played)
    assert await played.state() == before
    await the_same_records_count_for_both(played)
    await there_is_nothing_to_decide(played)
    await spans_are_gone_and_logs_are_not(played)


async def replayed_with_the_same_policies(played: Played) -> None:
    """Verdict by verdict what the workers decided, also from the middle on; what they had not decided yet is more."""
    recorded = await played.recorded()
    report = await played.report(POLICIES)
    assert report["live"] == {"same": len(recorded), "different": 0, "of_other_versions": 0, "examples": []}
    assert report["lost"]["traces"] == report["gained"]["traces"] == 0
    assert set(filter(None, recorded.values())) == {"errors", "rate"}  # every id of this traffic is in the lower half
    report = await played.report(POLICIES, since=iso(played.middle))
    assert report["live"]["different"] == 0
    assert report["live"]["same"] == len(await played.recorded(played.middle))
    assert TRACES <= report["live"]["same"] < len(recorded)
    await what_traces_had_begun_with_is_read_as_well(played)


async def what_traces_had_begun_with_is_read_as_well(played: Played) -> None:
    """More spans were decided than read, and the oldest of the period was older than the period."""
    report = await played.report(POLICIES, since=iso(played.middle))
    assert 0 < report["new"]["spans"] <= report["spans_read"]
    assert report["records_since"] < report["since"]
    told = await asyncio.to_thread(played.simulate, POLICIES, since=iso(played.middle))
    assert f"read from {report['records_since']} on, for traces that had begun before" in told.output
    assert "the oldest record" not in told.output


async def replayed_with_others(played: Played) -> None:
    """What changes, trace by trace."""
    report = await played.report([ERRORS, ALL])
    new, old = report["new"], report["old"]
    assert report["gained"]["traces"] == old["traces"] - old["kept_traces"] > TRACES / 3
    assert (report["lost"]["traces"], report["gained"]["by_policy"]) == (0, {"all": report["gained"]["traces"]})
    errors = new["policies"]["errors"]
    assert new["overlap"]["errors"] == {"all": errors["votes"]}
    assert errors["only"] == 0 < errors["votes"] == errors["named"] == new["errors"]
    assert errors["spans"] == old["policies"]["errors"]["spans"] == 3 * errors["named"]
    assert sum(each["bytes"] for each in new["policies"].values()) == new["kept_bytes"] > old["kept_bytes"]

    report = await played.report([SLOW, RATE])
    assert [*report["new"]["policies"]] == ["slow", "rate"], "one without votes has a row"
    assert [*report["old"]["policies"]] == [policy["name"] for policy in POLICIES]
    assert set(report["new"]["policies"]["slow"].values()) == {0}
    assert 0 < report["new"]["errors_missed"] == report["lost"]["with_errors"]
    assert report["old"]["errors_missed"] == 0
    assert report["lost"]["by_policy"]["errors"] == report["lost"]["with_errors"]
    assert len(report["lost"]["examples"]) == 5
    told = await asyncio.to_thread(played.simulate, [RATE])
    assert f"newly lost: {report['lost']['traces']} traces" in told.output
    assert "replaying" in told.stderr

    other = played.file.parent / "old.yaml"
    other.write_text(yaml.safe_dump({"sampling": {"decision_wait": "2s", "policies": [ALL]}}))
    report = await played.report([RATE], "--against", str(other))
    assert report["live"] is None
    assert report["gained"]["traces"] == 0 < report["lost"]["by_policy"]["all"]


async def the_same_records_count_for_both(played: Played) -> None:
    """One waits so long that half of it is undecided when the history ends; and it is told what differs."""
    records = await played.envelopes(played.topics.spans)
    times = [record.timestamp for record, envelope in records if len(envelope)]
    wait = (max(record.timestamp for record, _ in records) - (min(times) + max(times)) // 2) / 1000
    longer = played.file.parent / "longer.yaml"
    longer.write_text(yaml.safe_dump({"sampling": {"decision_wait": f"{wait}s", "policies": [ALL]}}))
    report = await played.report([ALL], "--against", str(longer))
    new, old = report["new"], report["old"]
    assert (new["kept_spans"], new["kept_bytes"]) == (old["kept_spans"], old["kept_bytes"])
    assert 0 < new["kept_spans"] == new["spans"] < report["spans_read"]
    assert [each["policies"]["all"]["named"] for each in (new, old)] == [new["traces"]] * 2
    assert report["differs"] == {"decision_wait": {"new": "1s", "old": f"{wait}s"}}
    told = await asyncio.to_thread(played.simulate, [ALL], "--against", str(longer))
    (line,) = [line.split() for line in told.output.splitlines() if line.startswith("decision_wait")]
    assert line == ["decision_wait", "1s", f"{wait}s"]
    assert f"is of {report['records_since']}" in told.output
    assert report["since"] < report["records_since"] <= iso(min(times))


async def spans_are_gone_and_logs_are_not(played: Played) -> None:
    """Of older traces only logs would be decided; in one partition, while others are whole."""
    assert (await played.report(POLICIES))["incomplete"] == {}
    there = [(record.partition, record.offset) for record in await played.records(played.topics.spans)]
    offsets_of = {number: [at for n, at in there if n == number] for number, _ in there}
    number, offsets = offsets_of.popitem()
    assert offsets_of
    async with administration(played.bootstrap) as admin:
        place = partition(played.topics.spans, number)
        await admin.delete_records({place: RecordsToDelete(before_offset=offsets[len(offsets) // 2])})
    report = await played.report(POLICIES)
    assert list(report["incomplete"]) == [played.topics.spans]
    told = await asyncio.to_thread(played.simulate, POLICIES)
    assert (
        f"! of {played.topics.spans} Kafka has nothing before {report['incomplete'][played.topics.spans]}"
        in told.output
    )


async def there_is_nothing_to_decide(played: Played) -> None:
    result = await asyncio.to_thread(played.simulate, POLICIES, since=iso(now() + 3_600_000))
    assert (result.exit_code, "is of this period" in result.stderr) == (1, True), result.output


class PlayedKeyed(Keyed):
    """The same without ingest. No limiters: where a topic fell silent, their time is not in any log."""

    POLICIES: ClassVar[list[dict[str, Any]]] = [ERRORS, HALF]
    SECTIONS: ClassVar[dict[str, Any]] = {
        "regroup": "never",
        "sampling": {"decision_wait": "1s", "policies": POLICIES},
    }


async def test_keyed_topics_can_be_replayed_and_explained(kafka: Kafka, tmp_path: Path) -> None:
    """`regroup: never`: the producers alone know the partition of a trace."""
    stages = PlayedKeyed(kafka.bootstrap, tmp_path)
    await stages.create()
    async with stages.producer() as producer, running(stages.config, ["sample"]), busy(stages, whole=True):
        await stages.log(producer, "", "of no trace")
        await eventually(lambda: decided(stages, TRACES), DEADLINE, "the log is done with")
        middle = now()
        await eventually(lambda: decided(stages, 2 * TRACES), DEADLINE, "traces are decided")
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({"policies": stages.POLICIES}))
    words = ["simulate", "--config", str(stages.file), "--policies", str(new), "--since", "earliest", "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert result.exit_code == 0, result.output
    live = json.loads(result.stdout)["live"]
    assert (live["different"], live["same"] >= TRACES) == (0, True)
    states = {}
    for name in ("t1", "t2", "t3", "t4"):
        found = await explain(stages.config, trace_id(name))
        states[name] = found.state, found.agrees, found.partition
    assert states["t3"] == ("kept", True, stages.placed("t3"))
    assert {partition for _, _, partition in states.values()} == {0, 1}
    assert all(state in ("kept", "dropped") for state, _, _ in states.values())

    await forget(kafka.bootstrap, partition(f"{stages.raw}.logs", 0))
    result = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert json.loads(result.stdout)["incomplete"] == {f"{stages.raw}.logs": None}
    result = await asyncio.to_thread(CliRunner().invoke, cli, words[:-1])
    assert f"! of {stages.raw}.logs Kafka has nothing of this period" in result.output
    words[words.index("earliest")] = iso(middle)
    result = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert json.loads(result.stdout)["incomplete"] == {}, "a checkpoint says that the log was done with before"


class Budgeted(Keyed):
    """Nothing but a history: a minute of 200 spans/s, most of them in one partition, that no worker has read."""

    SECTIONS: ClassVar[dict[str, Any]] = {"regroup": "never", "sampling": {"decision_wait": "1s", "policies": [ALL]}}
    SKEW = (70, 20, 10, 0)

    async def write(self) -> None:
        begin, count = now() // 60_000 * 60_000 - 600_000, len(self.SKEW)
        load = Load(12_000, begin, 10, spans_per_second=200, logs_per_span=0.0, keyed=count, skew=self.SKEW)
        await asyncio.to_thread(write, self.bootstrap, {"traces": (self.raw, count)}, load)


async def test_partitions_share_a_budget_in_a_replay(kafka: Kafka, tmp_path: Path) -> None:
    stages = Budgeted(kafka.bootstrap, tmp_path, partitions=len(Budgeted.SKEW))
    await stages.create(len(Budgeted.SKEW))
    await stages.write()
    new, old = (
        Sampling.model_validate({"decision_wait": "2s", "policies": [{"name": "fleet", "type": kind, kind: block}]})
        for kind, block in (("budget", {"spans_per_second": 100}), ("rate_limiting", {"spans_per_second": 100}))
    )
    outcome = (await simulate(stages.config, new, old, 0, None)).comparison
    # What begins in the last two seconds is not decided; what comes later than two seconds costs no budget.
    assert outcome.new.spans == pytest.approx(58 * 100, rel=0.05)
    assert outcome.old.spans < 0.85 * 58 * 100


class Logged(Keyed):
    """Nothing but a history: four traces, of which one has a failed span, one a log of ERROR, and one of WARN."""

    SECTIONS: ClassVar[dict[str, Any]] = {
        "regroup": "never",
        "sampling": {
            "decision_wait": "1s",
            "policies": [ERRORS, {"name": "logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}}],
        },
    }

    async def write(self) -> None:
        begin = now() - 600_000
        async with self.producer() as producer:
            for number, name in enumerate(["failed/1!", "logged/1", "warned/1", "calm/1", "last/1"]):
                await self.produce(producer, name, at=begin + 5000 * (number == 4))
            for name, severity in (
                ("logged", SeverityNumber.SEVERITY_NUMBER_ERROR2),
                ("warned", SeverityNumber.SEVERITY_NUMBER_WARN4),
                ("last", SeverityNumber.SEVERITY_NUMBER_INFO),
            ):
                data = LogsData.FromString(log_of(name, "said"))
                data.resource_logs[0].scope_logs[0].log_records[0].severity_number = severity
                at = begin + 5000 * (name == "last")
                value = data.SerializeToString()
                await producer.send_and_wait(f"{self.raw}.logs", value, partition=0, timestamp_ms=at)


async def test_error_logs_that_would_be_missed_are_told(kafka: Kafka, tmp_path: Path) -> None:
    stages = Logged(kafka.bootstrap, tmp_path, partitions=1)
    await stages.create(1)
    await stages.write()
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({"policies": [ERRORS]}))
    words = ["simulate", "--config", str(stages.file), "--policies", str(new), "--since", "earliest"]
    told = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert told.exit_code == 0, told.output
    rows = [line.rsplit(maxsplit=2) for line in told.output.splitlines()]
    assert ["errors missed", "0", "0"] in rows
    assert ["error logs missed", "1", "0"] in rows
    assert "1 of them have a log of ERROR or above" in told.output
    assert f"error logs missed by new: {trace_id('logged').hex()}" in told.output
    report = json.loads((await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--json"])).stdout)
    assert (report["new"]["error_logs"], report["new"]["error_logs_missed"], report["lost"]["with_error_logs"]) == (
        1,
        1,
        1,
    )

    stages.file.write_text(yaml.safe_dump(stages.settings | {"inputs": stages.settings["inputs"][:1]}))
    told = await asyncio.to_thread(CliRunner().invoke, cli, words)
    assert (told.exit_code, "error logs" in told.output) == (0, False), "where no logs are read nothing is said of them"


MANY_FIELDS = [
    {"name": f"{name}", "type": "dynamic", "dynamic": {"field_list": [f"{name}.{key}" for key in range(13)]}}
    for name in "abcde"
]


async def decided(stages: Stages, count: int) -> bool:
    return len(await stages.verdicts()) >= count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policies:\n- {name: a, type: latensy}\n", "drop (found 'latensy'; did you mean latency?)"),
        ("policies:\n- {name: a, typ: latency}\n", "2:13: policies[0].typ: unknown key (did you mean type?)"),
        ("sampling:\n  policys: []\n", "sampling.policys: unknown key"),
        (as_yaml({"policies": MANY_FIELDS}), "1:1: policies: field_list: more than 64 different fields in all"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    config, new = tmp_path / "tailrace.yaml", tmp_path / "new.yaml"
    config.write_text(as_yaml(MINIMAL))
    new.write_text(text)
    words = ["simulate", "--config", str(config), "--policies", str(new), "--since"]
    result = CliRunner().invoke(cli, [*words, "2h"])
    assert (result.exit_code, f"{new}:{said}" in result.output or said in result.output) == (78, True), result.output
    assert CliRunner().invoke(cli, [*words, "yesterday"]).exit_code == 2


def iso(time_ms: int) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat()
