"""Every role as a user of its own, with exactly the ACLs that are printed: enough, and none too many."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.config import Config
from pipeline.kafka import granted
from pipeline.kafka.acls import Acl, Resource
from pipeline.kafka.admin import connected, partition_counts
from pipeline.kafka.topics import ensure
from pipeline.rights import CREATOR, RESIZER, needed
from tests.end_to_end import holdings, truth
from tests.end_to_end.harness import ALL_ROLES, RAW_PARTITIONS, Destinations, Pipeline, running
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.pipeline.authorized import ADMINISTRATOR, SECRET, Authorized, Right, rights_of_commands
from tests.pipeline.kafka import create
from tests.services import eventually, wait_for
from tests.services.recipes import ensure as installed

RATE = 20.0  # requests per second
DECIDED = 40
HEARD_SECONDS = 20.0  # that a change of ACLs takes from the controller to the broker's authorizer
KEPT_SECONDS = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[Authorized]:
    """Nobody but the administrator may do anything at first."""
    with Authorized() as server:
        server.add_users([ADMINISTRATOR])
        yield server


async def missing(config: Config, wanted: Sequence[Acl]) -> list[Acl]:
    async with connected(config) as admin:
        return await granted.missing(admin, wanted)


def run(*words: str | Path, **environ: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], env=environ)


async def test_every_role_works_with_exactly_what_is_printed(
    broker: Authorized, destinations: Destinations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the user who creates the topics; nobody's log speaks of a right."""
    login = broker.security("${KAFKA_USER}", "${KAFKA_PASSWORD}")
    settings = {"kafka": {"bootstrap_servers": broker.address, "security": login}}
    pipeline = Pipeline(broker, tmp_path, "acls", settings, destinations)
    monkeypatch.setenv("KAFKA_USER", f"run-{CREATOR}")
    monkeypatch.setenv("KAFKA_PASSWORD", SECRET)
    pipeline.write()
    words = ("--role", f"all,{CREATOR}", "--user", "run-{role}", "--print", "kafka-cli")
    rights = rights_of_commands(run("acls", pipeline.file, *words).output)
    users = {user for user, _ in rights}
    assert users == {f"run-{role}" for role in (*ALL_ROLES, CREATOR)}
    before = broker.granted()
    broker.add_users(users)
    broker.grant(rights)
    wait_for(lambda: broker.granted() - before == len(rights), HEARD_SECONDS, "the broker has heard of exactly these")

    async with running(pipeline):
        await asyncio.gather(*(pipeline.start(role, KAFKA_USER=f"run-{role}") for role in ALL_ROLES))
        batches = Batches(pipeline.spans_topic, pipeline.logs_topic, RAW_PARTITIONS, random.Random(3))
        feed = Feed(broker.bootstrap, batches, Shop(3), RATE)
        feed.start()

        async def enough() -> bool:
            return len(feed.truth.traces) >= DECIDED

        await eventually(enough, KEPT_SECONDS, "requests are made")
        sent = await feed.finish()
        await pipeline.settled()
        truth.assert_true(sent, await holdings.of_servers(pipeline, sent))
        for worker in pipeline.workers:
            assert "uthoriz" not in worker.log.read_text()


@dataclass(frozen=True)
class Asked:
    """Topics, and a configuration that any user may have."""

    broker: Authorized
    settings: dict[str, Any]

    def config(self, user: str, **changed: str) -> Config:
        kafka = {**self.settings["kafka"], "security": self.broker.security(user)}
        return Config.model_validate({**self.settings, "kafka": kafka, **changed})

    def grant(self, user: str, rights: list[Acl]) -> None:
        """A user with these rights, of which the broker has heard."""
        self.broker.add_users([user])
        self.broker.grant((user, acl) for acl in rights)
        config = self.config(user)
        wait_for(lambda: not asyncio.run(missing(config, rights)), HEARD_SECONDS, f"{user} has its rights")

    async def heard(self, config: Config, wanted: list[Acl], lacking: list[Acl]) -> None:
        """Wait until exactly these are missing."""

        async def told() -> bool:
            return await missing(config, wanted) == lacking

        await eventually(told, HEARD_SECONDS, f"missing: {', '.join(map(str, lacking)) or 'nothing'}")


@pytest.fixture(scope="module")
async def asked(broker: Authorized, destinations: Destinations) -> Asked:
    """Raw and internal topics, made by the administrator."""
    settings: dict[str, Any] = {
        "kafka": {"bootstrap_servers": [broker.bootstrap], "prefix": "asked"},
        "inputs": [
            {"topic": f"asked-{name}", "signal": signal}
            for name, signal in (("spans", "traces"), ("logs", "logs"), ("points", "metrics"))
        ],
        "sampling": {"policies": [{"name": "all", "type": "always_sample"}]},
        "sinks": {
            "jaeger": {"endpoint": destinations.jaeger.otlp_http},
            "elasticsearch": {"endpoint": destinations.elasticsearch.url},
            "prometheus": {"endpoint": destinations.prometheus.remote_write_url},
        },
    }
    await create(broker.bootstrap, {item["topic"]: 4 for item in settings["inputs"]})
    assert await ensure(Config.model_validate(settings)) == []
    settings["kafka"]["bootstrap_servers"] = [broker.address]
    return Asked(broker, settings)


@pytest.mark.parametrize(
    ("role", "regroup"),
    [*((role, "always") for role in (*ALL_ROLES, CREATOR, RESIZER)), ("sample", "never"), (CREATOR, "never")],
)
async def test_each_right_is_missed_by_name(asked: Asked, role: str, regroup: str) -> None:
    """None is printed that another one implies: taken away alone, the brokers refuse it alone."""
    user = f"each-{role}-{regroup}"
    config = asked.config(user, regroup=regroup)
    wanted = needed(config, [role])
    await asyncio.to_thread(asked.grant, user, wanted)
    for acl in wanted:
        right: Right = (user, acl)
        await asyncio.to_thread(asked.broker.revoke, right)
        await asked.heard(config, wanted, [acl])
        await asyncio.to_thread(asked.broker.grant, [right])


async def test_a_user_without_rights_lacks_all(asked: Asked) -> None:
    """Also that of creating topics which are not there, without making one."""
    asked.broker.add_users(["stranger"])
    config = asked.config("stranger")
    for names in (["all"], [CREATOR]):
        assert await missing(config, needed(config, names)) == needed(config, names)
    absent = Acl(Resource("topic", "asked.absent"), "Create")
    assert await missing(config, [absent]) == [absent]
    await asyncio.to_thread(asked.broker.grant, [("stranger", absent)])
    await asked.heard(config, [absent], [])


def written(folder: Path, settings: Mapping[str, Any]) -> Path:
    path = folder / "tailrace.yaml"
    path.write_text(json.dumps(settings))
    return path


def failures(result: Result) -> list[str]:
    """What `check` marks as wrong."""
    return [line.removeprefix("✗ ") for line in result.output.splitlines() if line.startswith("✗")]


def test_check_says_how_to_grant_what_is_missing(asked: Asked, tmp_path: Path) -> None:
    """And Kafka's own tool takes what it says: one command of each kind of pattern, a JVM each."""
    config = asked.config("counter")
    wanted = needed(config, ["aggregate"])
    fewer = [acl for acl in wanted if acl.operation != "Delete" and not acl.resource.prefixed]
    asked.grant("counter", fewer)
    kafka = {**asked.settings["kafka"], "security": asked.broker.security("counter")}
    path = written(tmp_path, {**asked.settings, "kafka": kafka})
    check = ("check", path, "--connect", "--role", "aggregate")
    result = run(*check)
    assert result.exit_code == 78
    lines = failures(result)
    assert [line.split(": ")[0] for line in lines] == [
        "ACL Delete on topic asked.samples",
        "ACL Write on transactional-id asked.aggregate.*",
    ]
    (tmp_path / "client.properties").write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config="
        f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMINISTRATOR}" '
        f'password="{SECRET}";\n'
    )
    for line in lines:
        tool, *arguments = shlex.split(line.split("grant it: ")[1])
        assert tool == "kafka-acls.sh"
        java = ["java", "-cp", f"{installed('kafka-3.9')}/libs/*", "kafka.admin.AclCommand"]
        subprocess.run([*java, *arguments], cwd=tmp_path, check=True, capture_output=True)
    wait_for(lambda: run(*check).exit_code == 0, HEARD_SECONDS, "nothing is missing")
    result = run(*check)
    assert f"✓ ACLs: all {len(wanted)} rights" in result.output
    assert "raw topic" not in result.output, "aggregate reads none"
    assert "sink" not in result.output.splitlines()[-1], "aggregate needs none"


def test_check_tells_a_hidden_topic_from_one_that_is_missing_or_wrong(asked: Asked, tmp_path: Path) -> None:
    wanted = needed(asked.config("sampler"), ["sample"])
    asked.grant("sampler", [acl for acl in wanted if acl.resource.name != "asked.spans"])
    kafka = {**asked.settings["kafka"], "security": asked.broker.security("sampler"), "partitions": 5}
    result = run("check", written(tmp_path, {**asked.settings, "kafka": kafka}), "--connect", "--role", "sample")
    lines = failures(result)
    assert [line.split(": ")[0] for line in lines if line.startswith("ACL")] == [
        "ACL Read on topic asked.spans",
        "ACL DescribeConfigs on topic asked.spans",
    ]
    assert [line.split(",")[0] for line in lines if not line.startswith("ACL")] == [
        f"internal topic asked.{name}: has 4 partitions" for name in ("logs", "decisions", "kept.spans", "kept.logs")
    ]


def test_check_reads_no_raw_topic_that_may_not_be_read(asked: Asked, tmp_path: Path) -> None:
    wanted, unread = needed(asked.config("reader"), ["ingest"]), Resource("topic", "asked-logs")
    asked.grant("reader", [*(acl for acl in wanted if acl.resource != unread), Acl(unread, "Describe")])
    kafka = {**asked.settings["kafka"], "security": asked.broker.security("reader")}
    result = run("check", written(tmp_path, {**asked.settings, "kafka": kafka}), "--connect", "--role", "ingest")
    (line,) = failures(result)
    assert line.startswith("ACL Read on topic asked-logs: reader has no such right")
    assert "! raw topic asked-logs: 4 partitions; what is in it was not read: the right is missing" in result.output
    assert (
        "✓ raw topic asked-spans: 4 partitions of traces (otlp_proto), as the file says; no record to look at yet"
        in result.output
    )


def test_check_names_the_right_that_a_kafka_sink_lacks(asked: Asked, tmp_path: Path) -> None:
    """On the sink's brokers, as the sink's user."""
    asked.broker.add_users(["outlet"])
    security = asked.broker.security("outlet")
    sink = {"bootstrap_servers": [asked.broker.address], "security": security, "topic": "jaeger-spans"}
    path = written(tmp_path, {**asked.settings, "sinks": {"kafka": sink}})
    result = run("check", path, "--connect", "--role", "sink.kafka")
    (line,) = [line for line in failures(result) if line.startswith("sink kafka")]
    assert "ACL Write on topic jaeger-spans: outlet has no such right" in line
    assert rights_of_commands(line.split("grant it: ")[1]) == {
        ("outlet", Acl(Resource("topic", "jaeger-spans"), "Write"))
    }


async def test_a_resize_works_with_exactly_what_is_printed(broker: Authorized, tmp_path: Path) -> None:
    """Dry, and then in earnest: that opens a transaction, ends those of workers and adds partitions."""
    settings: dict[str, Any] = {
        "kafka": {"bootstrap_servers": [broker.bootstrap], "prefix": "resized"},
        "inputs": [{"topic": "resized-raw", "signal": "traces"}],
        "sampling": {"policies": [{"name": "all", "type": "always_sample"}]},
    }
    await create(broker.bootstrap, {"resized-raw": 1})
    assert await ensure(Config.model_validate(settings)) == []
    kafka = {"bootstrap_servers": [broker.address], "prefix": "resized", "security": broker.security("resizer")}
    path = written(tmp_path, {**settings, "kafka": kafka})
    rights = rights_of_commands(run("acls", path, "--role", RESIZER, "--print", "kafka-cli").output)
    broker.add_users(["resizer"])
    before = broker.granted()
    broker.grant(rights)
    wait_for(lambda: broker.granted() - before == len(rights), HEARD_SECONDS, "the broker has heard of exactly these")
    assert await asyncio.to_thread(lambda: run("acls", path, "--role", RESIZER).exit_code) == 0
    for words in (("--dry-run",), ()):
        result = await asyncio.to_thread(run, "topics", "resize", path, "--partitions", "6", *words)
        assert result.exit_code == 0, result.output
    counts = await partition_counts(Config.model_validate(settings), ["resized.spans", "resized.kept.spans"])
    assert counts == {"resized.spans": 6, "resized.kept.spans": 6}


def test_acls_without_print_asks_the_brokers(asked: Asked, tmp_path: Path) -> None:
    asked.grant("exporter", needed(asked.config("exporter"), ["sink.jaeger"]))
    kafka = {**asked.settings["kafka"], "security": asked.broker.security("exporter")}
    path = written(tmp_path, {**asked.settings, "kafka": kafka})
    assert run("acls", path, "--role", "sink.jaeger").output.endswith("6 rights, 0 missing\n")
    result = run("acls", path, "--role", "sinks")
    assert result.exit_code == 1
    assert failures(result)[0].startswith("Read on topic asked.kept.logs: exporter has no such right; grant")
