"""The command line as an operator meets it: what is printed, and the exit code."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from click.testing import CliRunner, Result

from pipeline import cli as commands
from pipeline import worker
from pipeline.cli import main
from pipeline.config import Config
from pipeline.configuration.reload import File
from pipeline.kafka import topics as internal
from pipeline.kafka.overheard import Overheard
from pipeline.kafka.topics import Topics
from schemas.envelope import ENVELOPE_BYTES
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.pipeline.kafka import create, fresh
from tests.pipeline.stages import traces
from tests.repository import ROOT, python_path
from tests.services.process import HOST, free_port
from tests.services.servers import Elasticsearch, Jaeger, Kafka, Prometheus


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`worker` changes what these do to its process, which is this one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, MINIMAL)


def written(folder: Path, data: Any) -> Path:
    path = folder / "tailrace.yaml"
    path.write_text(as_yaml(data), "utf-8")
    return path


def run(*words: str | Path, **environ: str) -> Result:
    return CliRunner().invoke(commands.cli, [str(word) for word in words], env=environ)


@pytest.mark.parametrize(
    "words",
    [[], ["check"], ["topics"], ["acls"], ["worker"], ["top"], ["config"], ["config", "print"], ["convert", "otelcol"]],
)
def test_help_has_an_example(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert f"tailrace {' '.join(words)}".strip() in result.output.replace("Usage: ", "", 1)


@pytest.mark.parametrize("words", [("--help",), ("worker", "--help")])
def test_a_process_that_is_no_worker_keeps_its_signals(words: tuple[str, ...]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    result = CliRunner().invoke(commands.cli, words)
    assert "worker" in result.output
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_version() -> None:
    assert run("--version").output.startswith("tailrace ")


def test_the_file_may_be_an_option_where_it_is_an_argument(file: Path) -> None:
    """Half of the commands take the one, half the other."""
    for words in (["check"], ["config", "print"], ["topics", "--print", "kafka-cli"], ["acls", "--print", "kafka-cli"]):
        usual, otherwise = run(*words, file), run(*words, "--config", file)
        assert (otherwise.exit_code, otherwise.output) == (usual.exit_code, usual.output)
        assert usual.exit_code == 0
        assert "there twice" in run(*words, file, "--config", file).output
        assert "Missing argument 'FILE'" in run(*words).output
    wrong = file.with_name("none.yaml")
    for words in (["dlq", "show", "0:17"], ["dlq", "replay", "0:17"], ["dlq", "replay"], ["dlq", "list"]):
        told = run(*words, "--config", wrong)
        assert (told.exit_code, f"{wrong}:1:1: cannot be read" in told.output) == (78, True), told.output


def test_check_of_a_right_file(file: Path) -> None:
    result = run("check", file)
    assert result.exit_code == 0
    assert result.output.startswith(f"✓ {file}: 1 input, 1 policy, sinks: none\n")
    assert "! kafka.start is not set" in result.output


def test_what_connects_to_nothing_needs_no_secrets(tmp_path: Path) -> None:
    """Files of a pod are not where its rights are printed and its policies tested."""
    login = {"username": "me", "password": "${file:/run/not/here}", "sasl_mechanism": "PLAIN", "protocol": "SASL_SSL"}
    path = written(tmp_path, MINIMAL | {"kafka": MINIMAL["kafka"] | {"security": login}})
    cases = tmp_path / "cases.yaml"
    cases.write_text("cases: [{name: nothing, spans: {resourceSpans: []}, expect: {verdict: dropped}}]")
    for command, form in (("acls", "kafka-cli"), ("topics", "strimzi")):
        assert run(command, path, "--print", form).exit_code == 0
        refused = run(command, path)
        assert refused.exit_code == 78
        assert "file /run/not/here cannot be read" in refused.stderr
    nowhere = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": ["${NO_BROKERS}"], "security": login}})
    assert run("size", "--config", nowhere, "--spans-per-second", "1000").exit_code == 0
    assert "tailrace.yaml" not in run("test", "--config", nowhere, cases).output
    refused = run("topics", nowhere, "--print", "kafka-cli")
    assert refused.exit_code == 78
    assert "NO_BROKERS is not set" in refused.stderr


def test_check_tells_of_variables_in_the_spelling_of_a_shell(tmp_path: Path) -> None:
    """They were passwords, and the brokers refused them."""
    path = tmp_path / "tailrace.yaml"
    login = {
        "protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "username": "%KAFKA_USER%",
        "password": "$KAFKA_PASSWORD",
    }
    kafka = MINIMAL["kafka"] | {"security": login}
    asked = {"key": "k", "enabled_regex_matching": True, "values": ["a$", "$", "%", "$${X}"]}
    policies = [{"name": "a", "type": "string_attribute", "string_attribute": asked}]
    path.write_text(as_yaml(MINIMAL | {"kafka": kafka, "sampling": {"policies": policies}}))
    told = run("check", str(path))
    assert told.exit_code == 0, told.output
    lines = [line.partition("tailrace.yaml:")[2] for line in told.output.splitlines() if "${NAME}" in line]
    rule = "is taken as it stands; the value of a variable is written ${NAME}"
    assert lines == [f"7:5: kafka.security.username: {rule}", f"8:5: kafka.security.password: {rule}"]
    path.write_text(path.read_text().replace("$KAFKA_PASSWORD", "'${HOME}'").replace("%KAFKA_USER%", "me"))
    assert "${NAME}" not in run("check", str(path)).output


def test_check_tells_of_endpoints_and_a_canary_that_cannot_work(tmp_path: Path) -> None:
    sinks = {
        "jaeger": {"endpoint": "http://jaeger:4318/v1/traces/"},
        "otlp/a": {"endpoint": "http://tempo:99999"},
        "otlp/b": {"endpoint": "http://tempo:x"},
        "otlp/c": {"endpoint": "http://tempo..svc:4318"},
        "elasticsearch": {"endpoint": f"http://{'a' * 64}.svc:9200"},
    }
    said = run("check", written(tmp_path, MINIMAL | {"sinks": sinks})).stderr
    for text in (
        "sinks.jaeger.endpoint: is a base URL",
        "sinks.otlp/a.endpoint: has no port between 0 and 65535",
        "sinks.otlp/b.endpoint: has no port between 0 and 65535",
        "sinks.otlp/c.endpoint: has a host that is no name: between its dots are 1 to 63 characters",
        "sinks.elasticsearch.endpoint: has a host that is no name",
    ):
        assert text in said
    canary = {"jaeger": {"endpoint": "http://jaeger:16686"}}
    told = run("check", written(tmp_path, MINIMAL | {"canary": canary})).output
    assert "! `tailrace canary` will not run: inputs: the canary needs an input of logs as otlp_proto" in told


def test_check_tells_what_may_surprise(tmp_path: Path) -> None:
    salted = {"sampling_percentage": 1, "hash_salt": "a"}
    inside = {"name": "s", "type": "probabilistic", "probabilistic": salted}
    policies = [
        {"name": "a", "type": "and", "and": {"and_sub_policy": [inside]}},
        *(
            {"name": f"{share}", "type": "probabilistic", "probabilistic": {"sampling_percentage": share}}
            for share in (1, 0, 100, -5, 500)
        ),
    ]
    sinks = {
        "otlp/a": {"endpoint": "http://tempo:4317"},
        "otlp/b": {"endpoint": "http://tempo:4318", "protocol": "grpc"},
        "jaeger": {"endpoint": "http://jaeger:4317", "protocol": "grpc"},
    }
    for compat in ("none", "otel"):
        sampling = {"compat": compat, "policies": policies}
        result = run("check", written(tmp_path, MINIMAL | {"sampling": sampling, "sinks": sinks}))
        notes = [line for line in result.output.splitlines() if re.search("port 431|hash_salt of|_percentage", line)]
        expected = [
            "! sinks.otlp/a: port 4317 is usually that of protocol: grpc, this is http/protobuf",
            "! sinks.otlp/b: port 4318 is usually that of protocol: http/protobuf, this is grpc",
            "! sampling.policies: hash_salt of 'a' has no effect without compat: otel",
            "! sampling.policies: sampling_percentage of '-5' is -5: it keeps nothing, as 0 does",
            "! sampling.policies: sampling_percentage of '500' is 500: it keeps everything, as 100 does",
        ]
        assert notes == [line for line in expected if compat == "none" or "hash_salt" not in line]


@pytest.mark.parametrize(
    ("kinds", "lost"),
    [
        ([], []),
        (["jaeger"], ["logs", "metrics"]),
        (["kafka", "prometheus"], ["logs"]),
        (["elasticsearch"], ["traces", "metrics"]),
        (["otlp", "prometheus"], []),
    ],
)
def test_check_tells_of_what_no_sink_takes(tmp_path: Path, kinds: list[str], lost: list[str]) -> None:
    inputs = [{"topic": signal, "signal": signal} for signal in ("traces", "logs", "metrics")]
    own: dict[str, Any] = {"kafka": {"bootstrap_servers": ["b:1"]}}
    own["otlp"] = {"endpoint": "http://a:1", "signals": ["traces", "logs"]}
    sinks = {
        kind: own.get(kind, {"endpoint": "http://a:1/x" if kind == "prometheus" else "http://a:1"}) for kind in kinds
    }
    result = run("check", written(tmp_path, MINIMAL | {"inputs": inputs, "sinks": sinks}))
    assert result.exit_code == 0, result.output
    assert re.findall("^! inputs has ([a-z]+) but no sink takes them: ", result.output, re.MULTILINE) == lost
    only = run("check", written(tmp_path, MINIMAL | {"inputs": inputs[:1], "sinks": sinks}))
    assert ("no sink takes them" in only.output) == ("traces" in lost)


TENTH = {"name": "tenth", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}}
ALL = {"name": "all", "type": "always_sample"}


@pytest.mark.parametrize(
    ("policies", "notes"),
    [
        ([{"name": "no", "type": "drop", "drop": {"drop_sub_policy": [TENTH]}}, ALL], ["'no' drops a share"]),
        ([{"name": "no", "type": "drop", "shadow": True, "drop": {"drop_sub_policy": [TENTH]}}, ALL], []),
        (
            [{"name": "no", "type": "drop", "ids": {"to_percentage": 50}, "drop": {"drop_sub_policy": [ALL]}}, TENTH],
            ["'no' drops a share"],
        ),
        ([{"name": "no", "type": "drop", "drop": {"drop_sub_policy": [ALL]}}, TENTH], []),
        ([ALL | {"ids": {"to_percentage": 10}}], ["ids leaves out those from 10 to 100 %"]),
        (
            [ALL | {"ids": {"from_percentage": 10}}, TENTH | {"ids": {"to_percentage": 9}}],
            ["ids leaves out those from 9 to 10 %"],
        ),
        ([ALL | {"ids": {"from_percentage": 10}}, TENTH | {"ids": {"to_percentage": 10}}], []),
        ([ALL | {"ids": {"to_percentage": 10}}, TENTH], []),
    ],
)
def test_check_notes_what_adjusted_counts_do_not_say(
    tmp_path: Path, policies: list[dict[str, Any]], notes: list[str]
) -> None:
    result = run("check", written(tmp_path, MINIMAL | {"sampling": {"policies": policies}}))
    told = [line.split(": ")[1] for line in result.output.splitlines() if "adjusted counts of what is kept" in line]
    assert told == notes


def share(name: str, salt: str = "", percentage: float = 10) -> dict[str, Any]:
    block = {"sampling_percentage": percentage, "hash_salt": salt}
    return {"name": name, "type": "probabilistic", "probabilistic": block}


def of_all(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": "and", "and": {"and_sub_policy": list(parts)}}


def unless(part: dict[str, Any]) -> dict[str, Any]:
    return {"name": "not", "type": "not", "not": {"not_sub_policy": part}}


DYNAMIC = {"name": "dyn", "type": "dynamic", "dynamic": {"field_list": ["name"], "goal_sample_rate": 10}}
X_AND_Y = "shares go by hash_salt 'x' and hash_salt 'y', apart from each other"


@pytest.mark.parametrize(
    ("compat", "policies", "notes"),
    [
        ("otel", [share("a"), share("b", "default-hash-seed", 50), ALL], []),
        ("otel", [share("a", "x"), share("b", "y")], [X_AND_Y]),
        ("none", [share("a", "x"), share("b", "y"), DYNAMIC], []),
        ("otel", [of_all("both", share("a", "x"), share("b", "y"))], [X_AND_Y]),
        ("otel", [share("a", "x"), share("b", "y", 100), share("c", "z", 0), unless(share("d", "w"))], []),
        ("otel", [share("a", "x"), share("b", "y") | {"shadow": True}], []),
        ("otel", [DYNAMIC, ALL], []),
        ("otel", [share("a", "x"), DYNAMIC], [X_AND_Y.replace("hash_salt 'y'", "randomness (dynamic, throughput)")]),
    ],
)
def test_check_notes_shares_that_choose_apart_from_each_other(
    tmp_path: Path, compat: str, policies: list[dict[str, Any]], notes: list[str]
) -> None:
    sampling = {"compat": compat, "policies": policies}
    result = run("check", written(tmp_path, MINIMAL | {"sampling": sampling}))
    told = [line.split(": ")[1] for line in result.output.splitlines() if "adjusted counts of what is kept" in line]
    assert told == notes


@pytest.mark.parametrize(("rate", "is_told"), [(15, True), (16, False)])
def test_check_tells_of_a_rate_below_one_span_a_partition(tmp_path: Path, rate: int, is_told: bool) -> None:
    policies = [{"name": "rest", "type": "rate_limiting", "rate_limiting": {"spans_per_second": rate}}]
    data = MINIMAL | {"kafka": MINIMAL["kafka"] | {"partitions": 16}, "sampling": {"policies": policies}}
    result = run("check", written(tmp_path, data))
    told = "! sampling.policies: spans_per_second of 'rest' is less than one for each of the 16 partitions"
    assert (told in result.output.splitlines()) == is_told


REST = {"name": "rest", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 15}}


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("and", {"and_sub_policy": [REST]}),
        ("not", {"not_sub_policy": REST}),
        ("drop", {"drop_sub_policy": [REST]}),
        ("composite", {"max_total_spans_per_second": 100, "composite_sub_policy": [REST]}),
    ],
)
def test_check_tells_of_such_a_rate_inside_a_policy(tmp_path: Path, kind: str, block: dict[str, Any]) -> None:
    policies = [{"name": "out", "type": kind, kind: block}, {"name": "all", "type": "always_sample"}]
    data = MINIMAL | {"kafka": MINIMAL["kafka"] | {"partitions": 16}, "sampling": {"policies": policies}}
    result = run("check", written(tmp_path, data))
    told = "! sampling.policies: spans_per_second of 'rest' in 'out' is less than one for each of the 16 partitions"
    assert told in result.output.splitlines()


def test_check_of_a_wrong_file(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_server": "a:1"}})
    result = run("check", path)
    assert result.exit_code == 78
    assert f"✗ {path}:2:3: kafka.bootstrap_server: unknown key (did you mean bootstrap_servers?)" in result.stderr
    assert "2 problems" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("words", [["topics"], ["acls"], ["config", "print"], ["worker", "--role", "all", "--config"]])
def test_every_command_refuses_a_wrong_file(tmp_path: Path, words: list[str]) -> None:
    result = run(*words, written(tmp_path, {}))
    assert result.exit_code == 78
    assert "is required" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["worker", "--role", "all", "--config"],
        ["size", "--spans-per-second", "1", "--config"],
        ["test", "cases.yaml", "--config"],
        ["simulate", "--since", "1h", "--policies", "new.yaml", "--config"],
    ],
    ids=" ".join,
)
def test_a_folder_is_a_wrong_file(tmp_path: Path, words: list[str]) -> None:
    """It was a usage error, with another exit code than that of every other wrong file."""
    result = run(*words, tmp_path)
    assert (result.exit_code, f"✗ {tmp_path}:1:1: cannot be read: Is a directory" in result.stderr) == (78, True)


def test_a_folder_is_no_collectors_file_either(tmp_path: Path) -> None:
    result = run("convert", "otelcol", tmp_path)
    assert (result.exit_code, result.stderr) == (78, f"{tmp_path}: cannot be read: Is a directory\n")


def test_canary_without_its_section_names_file_and_page(file: Path) -> None:
    result = run("canary", "--config", file, "--once")
    assert result.exit_code == 78
    assert result.stderr.startswith(f"✗ {file}: canary: is required by `tailrace canary`")
    assert "docs/how-to/watch-it-with-a-canary.md" in result.stderr


def test_policies_of_a_collectors_file_are_told_how_to_convert(file: Path, tmp_path: Path) -> None:
    collector = tmp_path / "collector.yaml"
    collector.write_text("receivers: {}\nprocessors: {tail_sampling: {policies: []}}\nservice: {}\n")
    result = run("simulate", "--config", file, "--policies", collector, "--since", "1h")
    assert result.exit_code == 78
    assert result.stderr == (
        f"✗ {collector}: is a Collector's file: `tailrace convert otelcol {collector}` makes a configuration of it\n"
    )


def test_the_environment_is_the_processes(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": "${BROKERS}"}})
    assert run("check", path).exit_code == 78
    assert run("check", path, BROKERS="a:1").exit_code == 0


def test_config_print_is_effective_valid_and_without_secrets(tmp_path: Path) -> None:
    security = {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "etl", "password": "${P}"}
    sink = {
        "endpoint": "https://a",
        "headers": {"X-Scope-OrgID": "7", "X-Api-Key": "${P}"},
        "auth": {"bearer_token": "${P}"},
    }
    data = MINIMAL | {"kafka": {"bootstrap_servers": ["a:1"], "security": security}, "sinks": {"jaeger": sink}}
    result = run("config", "print", written(tmp_path, data), P="hunter2")
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    shown = yaml.safe_load(result.output)
    assert shown["sampling"]["decision_wait"] == "30s"
    assert shown["sinks"]["jaeger"]["headers"]["X-Scope-OrgID"] == "7"
    assert "shards" not in shown["sinks"]["jaeger"]
    assert Config.model_validate(shown).kafka.security.username == "etl"


def test_two_hashes_tell_files_apart(tmp_path: Path) -> None:
    """That of the policies, and that of the whole file."""

    def printed(option: str, **sampling: Any) -> str:
        data = MINIMAL | {"sampling": MINIMAL["sampling"] | sampling}
        return run("config", "print", written(tmp_path, data), option).stdout

    both = "--policies-version", "--hash"
    before, longer, other = (
        [printed(option, **sampling) for option in both]
        for sampling in ({}, {"decision_wait": "7s"}, {"policies": [{"name": "any", "type": "always_sample"}]})
    )
    assert all(len(text) == 13 for text in before)  # and the end of the line
    assert [old == new for old, new in zip(before, longer, strict=True)] == [True, False]
    assert [old == new for old, new in zip(before, other, strict=True)] == [False, False]


def test_topics_print(file: Path) -> None:
    result = run("topics", file, "--print", "kafka-cli")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == ["kafka-topics.sh"] * 9
    assert run("topics", file, "--print", "terraform").output.startswith('resource "kafka_topic" "tailrace_spans" {')
    assert run("topics", file, "--print", "kafka-cli", "--create").exit_code == 2


def test_acls_print(file: Path) -> None:
    result = run("acls", file, "--print", "kafka-cli")
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.output.splitlines()} == {"kafka-acls.sh"}
    assert {line.split("User:")[1].split()[0] for line in result.output.splitlines()} == {"tailrace"}
    result = run("acls", file, "--role", "sample", "--user", "me-{role}", "--print", "strimzi")
    assert "name: me-sample" in result.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--user", "somebody"], 2, "--user goes with --print"),
        (["--role", "sampel"], 78, "no such role"),
        (["--user", "User:me", "--print", "kafka-cli"], 2, "without its User:"),
        (["--user", "Somebody_Else", "--print", "strimzi"], 78, "cannot be a KafkaUser"),
    ],
)
def test_acls_refuses(file: Path, words: list[str], code: int, said: str) -> None:
    result = run("acls", file, *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_acls_of_brokers_without_any(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": "a:1", "transactions": False}})
    assert "nothing to check" in run("acls", path).output


def test_acls_of_brokers_that_check_none(tmp_path: Path, kafka: Kafka) -> None:
    """They looked as if somebody had granted all of them."""
    result = run("acls", written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": kafka.bootstrap}}))
    assert result.exit_code == 0
    assert "rights, 0 missing\n! these brokers check no rights" in result.output


def test_topics_check_and_create(tmp_path: Path, kafka: Kafka) -> None:
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": kafka.bootstrap, "prefix": "cli-topics"}})
    result = run("topics", path)
    assert result.exit_code == 1
    assert "✗ cli-topics.spans: does not exist" in result.output
    result = run("topics", path, "--create")
    assert (result.exit_code, result.output.count("✓")) == (0, 9)
    assert run("topics", path).exit_code == 0


async def test_topics_that_an_earlier_release_made_for_large_spans(tmp_path: Path, kafka: Kafka) -> None:
    """Workers run on them, which lack room for the rest of an envelope: that is a hint, and no failure."""
    prefix, span = fresh("cli-earlier"), 12 << 20
    await create(kafka.bootstrap, {f"{prefix}-raw": 1})

    async def told(most: int, *words: str) -> tuple[int, list[str]]:
        data = {"inputs": [{"topic": f"{prefix}-raw", "signal": "traces"}], "limits": {"max_span_bytes": most}}
        data["kafka"] = {"bootstrap_servers": kafka.bootstrap, "prefix": prefix}
        command, *options = words
        result = await asyncio.to_thread(run, command, written(tmp_path, MINIMAL | data), *options)
        return result.exit_code, [line for line in result.output.splitlines() if "max.message.bytes" in line]

    assert await told(span - ENVELOPE_BYTES, "topics", "--create") == (0, [])
    for asked, failing in ((["topics"], 1), (["check", "--connect"], 78)):
        status, lines = await told(span, *asked)
        assert (status, len(lines)) == (0, 8), lines
        assert all(line.startswith("! ") and line.endswith(" sets it") for line in lines)
        status, lines = await told(span + 1, *asked)
        assert (status, len(lines)) == (failing, 8), lines
        assert all(line.startswith("✗ ") for line in lines)


ASKING = pytest.mark.parametrize(
    "words",
    [
        ["topics"],
        ["topics", "resize", "--partitions", "8", "--dry-run"],
        ["acls"],
        ["cardinality", "--json", "--config"],
        ["dlq", "list", "--json"],
        ["explain", "1", "--json", "--config"],
    ],
    ids=" ".join,
)


@ASKING
def test_without_a_broker_one_line_says_why(tmp_path: Path, words: list[str], caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": (broker := f"{HOST}:{free_port()}")}})
    result = run(*words, path)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'✗ kafka {broker}: no broker can be reached; Unable connect to "{broker}": ')
    del result  # and the frames of its exit
    gc.collect()
    assert "Unclosed" not in caplog.text


@ASKING
def test_what_is_wrong_with_the_file_is_78_where_brokers_are_asked_too(tmp_path: Path, words: list[str]) -> None:
    security = {"protocol": "SSL", "cert_file": str(tmp_path / "absent.pem"), "key_file": str(tmp_path / "absent.key")}
    path = written(tmp_path, MINIMAL | {"kafka": {"bootstrap_servers": f"{HOST}:1", "security": security}})
    result = run(*words, path)
    assert (result.exit_code, result.stdout) == (78, ""), result.output
    assert result.stderr.startswith("✗ kafka.security.cert_file: ")


def test_check_connect_where_nothing_is(tmp_path: Path) -> None:
    nothing = {"endpoint": f"http://{HOST}:{free_port()}"}
    kafka = {"bootstrap_servers": f"{HOST}:{free_port()}"}
    sinks = {"jaeger": nothing, "elasticsearch": nothing, "prometheus": nothing, "kafka": kafka}
    sinks |= {"otlp": {**nothing, "protocol": "grpc"}}
    result = run("check", written(tmp_path, MINIMAL | {"kafka": kafka, "sinks": sinks}), "--connect")
    assert result.exit_code == 78
    wrong = [line for line in result.output.splitlines() if line.startswith("✗")]
    assert [line.split()[1] for line in wrong] == ["kafka", *["sink"] * len(sinks)]


def test_check_connect_where_everything_is(
    tmp_path: Path,
    kafka: Kafka,
    jaeger: Jaeger,
    elasticsearch: Elasticsearch,
    prometheus: Prometheus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = MINIMAL | {
        "kafka": {"bootstrap_servers": [kafka.bootstrap, dead := f"{HOST}:{free_port()}"], "prefix": "cli-connect"},
        "inputs": [{"topic": "cli-raw.spans", "signal": "traces"}],
        "sinks": {
            "jaeger": {"endpoint": jaeger.otlp_http},
            "otlp": {"endpoint": f"http://{jaeger.otlp_grpc}", "protocol": "grpc"},
            "kafka": {"bootstrap_servers": kafka.bootstrap, "topic": "cli-raw.kept.spans"},
            "elasticsearch": {"endpoint": elasticsearch.url},
            "prometheus": {"endpoint": prometheus.remote_write_url},
        },
    }
    path = written(tmp_path, data)
    result = run("check", path, "--connect")
    assert result.exit_code == 78
    assert "✗ raw topic cli-raw.spans: does not exist" in result.output
    assert "✗ internal topic cli-connect.samples: does not exist" in result.output
    assert "cli-raw.kept.spans does not exist" in result.output

    # The raw topic is made the way the internal ones are: those of the prefix cli-raw hold one of that name.
    (tmp_path / "raw").mkdir()
    raw = written(tmp_path / "raw", MINIMAL | {"kafka": {"bootstrap_servers": kafka.bootstrap, "prefix": "cli-raw"}})
    assert run("topics", raw, "--create").exit_code == 0
    assert run("topics", path, "--create").exit_code == 0
    result = run("check", path, "--connect")
    assert result.exit_code == 0, result.output
    assert "✗" not in result.output
    assert f"! kafka {dead}: " in result.output
    assert f"! kafka {kafka.bootstrap}" not in result.output
    assert "! ACLs: these brokers have no authorizer" in result.output
    assert "min.insync.replicas" not in result.output + run("topics", path).output
    monkeypatch.setattr(internal, "REPLICATED", 1)  # as on three brokers
    for hinted in (run("check", path, "--connect"), run("topics", path)):
        assert hinted.exit_code == 0, hinted.output
        (hint,) = [line for line in hinted.output.splitlines() if line.startswith("!") and "replicas" in line]
        assert "min.insync.replicas is below 2" in hint
        assert "cli-raw.spans, cli-connect.spans" in hint
    assert (
        "✓ raw topic cli-raw.spans: 4 partitions of traces (otlp_proto), as the file says; no record to look at yet"
        in result.output
    )
    for name in data["sinks"]:
        (line,) = [line for line in result.output.splitlines() if f"✓ sink {name} " in line]
        assert line.endswith(" ms)")


async def test_check_connect_looks_at_the_newest_record_of_each_raw_topic(tmp_path: Path, kafka: Kafka) -> None:
    """There was a tick on a topic of spans that the file says holds logs as JSON."""
    spans, logs, mixed, absent = (fresh(name) for name in ("look-spans", "look-logs", "look-mixed", "look-absent"))
    await create(kafka.bootstrap, {spans: 2, logs: 1, mixed: 2, absent: 1})
    span, log = traces("a/1"), b'{"message": "who are you?"}'
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for topic, partition, value in (
        (spans, 1, b"\xff"),
        (spans, 1, span),
        (logs, 0, log),
        (mixed, 0, span),
        (mixed, 1, b"\xff"),
    ):
        await producer.send_and_wait(topic, value, partition=partition)
    await producer.stop()

    async def told(inputs: list[dict[str, str]]) -> list[str]:
        settings = MINIMAL | {
            "kafka": {"bootstrap_servers": kafka.bootstrap, "prefix": fresh("look")},
            "inputs": inputs,
        }
        result = await asyncio.to_thread(run, "check", written(tmp_path, settings), "--connect")
        found = [line for line in result.output.splitlines() if "raw topic" in line or "CreateTime" in line]
        return [re.sub(r" \(\d+ ms\)$", "", line) for line in found]

    right = [
        {"topic": spans, "signal": "traces"},
        {"topic": logs, "signal": "logs", "encoding": "auto"},
        {"topic": mixed, "signal": "traces"},
        {"topic": absent, "signal": "logs"},
    ]
    *topics, created = await told(right)
    assert topics[:2] == [
        f"✓ raw topic {spans}: 2 partitions; newest record decodes as traces (otlp_proto)",
        f"✓ raw topic {logs}: 1 partitions; newest record decodes as logs (json)",
    ]
    assert topics[2].startswith(
        f"! raw topic {mixed}: 2 partitions; newest record decodes as traces (otlp_proto), "
        f"but {mixed}/1/0 does not look like traces (otlp_proto): malformed"
    )
    assert (
        topics[3]
        == f"✓ raw topic {absent}: 1 partitions of logs (otlp_proto), as the file says; no record to look at yet"
    )
    names = ", ".join(sorted(item["topic"] for item in right))
    assert created.startswith(f"! topics: message.timestamp.type is CreateTime on {names}: ")
    (wrong, *_) = await told([{"topic": spans, "signal": "logs", "encoding": "json"}])
    assert wrong.startswith(f"✗ raw topic {spans}: 2 partitions; {spans}/1/1 does not look like logs (json): malformed")
    assert wrong.endswith("; it decodes as traces (otlp_proto)")
    (wrong, *_) = await told([{"topic": logs, "signal": "traces"}])
    assert wrong.endswith("; it decodes as logs (json)")


def test_check_connect_to_something_else(tmp_path: Path, prometheus: Prometheus) -> None:
    data = MINIMAL | {
        "kafka": {"bootstrap_servers": f"{HOST}:{free_port()}"},
        "sinks": {"prometheus": {"endpoint": f"{prometheus.url}/api/v1/rite"}},
    }
    result = run("check", written(tmp_path, data), "--connect")
    assert "answers 404; nothing is served at this path" in result.output


async def test_check_connect_says_what_a_sink_that_was_added_begins_with(tmp_path: Path, kafka: Kafka) -> None:
    """It delivers all that Kafka keeps, a day, unless its group is given offsets first."""
    prefix = fresh("added")
    topics = Topics(prefix)
    server = {"endpoint": f"http://{HOST}:{free_port()}"}
    data = MINIMAL | {
        "kafka": {"bootstrap_servers": kafka.bootstrap, "prefix": prefix, "partitions": 2},
        "sinks": {"otlp/old": server, "otlp/new": server, "prometheus": server},
    }
    await create(kafka.bootstrap, {topics.kept_spans: 2, topics.samples: 1})
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for partition in (0, 1, 1):
            await producer.send_and_wait(topics.kept_spans, b"kept", partition=partition)

    async def told() -> list[str]:
        result = await asyncio.to_thread(run, "check", written(tmp_path, data), "--connect")
        return [line for line in result.output.splitlines() if line.startswith("! sink.")]

    async def commit(name: str, *numbers: int) -> None:
        """What `kafka-consumer-groups --reset-offsets --to-latest --execute` does for a group without members."""
        group = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, group_id=topics.group(name), enable_auto_commit=False
        )
        async with group:
            partitions = [TopicPartition(topics.kept_spans, number) for number in numbers]
            group.assign(partitions)
            await group.commit(await group.end_offsets(partitions))

    await commit("sink.otlp/old", 0, 1)
    said = (
        f"! sink.otlp/new: its group {prefix}.sink.otlp/new has no offsets in {topics.kept_spans}, so it begins there "
        "with the oldest of up to {} records that Kafka keeps; how to begin at the end: docs/how-to/sinks.md"
    )
    assert await told() == [said.format(3)]
    await commit("sink.otlp/new", 0)
    assert await told() == [said.format(2)]
    await commit("sink.otlp/new", 0, 1)
    assert await told() == []


def test_check_connect_to_a_backend_without_logs(tmp_path: Path, jaeger: Jaeger) -> None:
    sink = {"endpoint": f"http://{jaeger.otlp_grpc}", "protocol": "grpc", "signals": ["traces", "logs"]}
    data = MINIMAL | {"kafka": {"bootstrap_servers": f"{HOST}:{free_port()}"}, "sinks": {"otlp": sink}}
    result = run("check", written(tmp_path, data), "--connect")
    assert "it does not take this signal: signals" in result.output


def test_worker_gets_its_roles(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], str | None, list[str], bool]] = []

    async def run_worker(
        config: Config, names: list[str], since: str | None, signals: list[str], _: File, accept: bool
    ) -> int:
        calls.append((names, since, signals, accept))
        return 3

    monkeypatch.setattr(worker, "run", run_worker)
    monkeypatch.setattr("pipeline.commands.worker.configure", lambda level: None)
    words = ("worker", "--config", file, "--role", "ingest,sample", "--role", "aggregate", "--since", "15m")
    assert run(*words).exit_code == 3
    assert run("worker", "--config", file, "--role", "ingest", "--signals", "traces").exit_code == 3
    assert run("worker", "--config", file, "--role", "sample", "--accept-loss").exit_code == 3
    assert calls == [
        (["ingest", "sample", "aggregate"], "15m", [], False),
        (["ingest"], None, ["traces"], False),
        (["sample"], None, [], True),
    ]


def test_worker_says_loudly_where_it_begins(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run_worker(
        config: Config, names: list[str], since: str | None, signals: list[str], _: File, accept: bool
    ) -> int:
        return 0

    monkeypatch.setattr(worker, "run", run_worker)
    monkeypatch.setattr("pipeline.commands.worker.configure", lambda level: None)
    for words, loud in ((["ingest"], True), (["ingest", "--since", "latest"], False), (["sample"], False)):
        caplog.clear()
        assert run("worker", "--config", file, "--role", *words).exit_code == 0
        assert ("kafka.start is not set" in caplog.text) is loud


@pytest.mark.parametrize("command", ["acls", "check"])
def test_a_role_that_is_empty_is_none(file: Path, command: str) -> None:
    result = run(command, file, "--role", "")
    assert result.exit_code == 2
    assert "is empty: was a variable not set?" in result.output


def test_sinks_without_any_is_no_role(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL | {"sinks": {}})
    result = run("worker", "--config", path, "--role", "sinks")
    assert result.exit_code == 78
    assert "--role sinks: this configuration has none" in result.output


def test_check_without_secrets(tmp_path: Path) -> None:
    sinks = {"elasticsearch": {"endpoint": "https://es:9200", "auth": {"api_key": "${ES_API_KEY}"}}}
    path = written(tmp_path, MINIMAL | {"sinks": sinks})
    assert run("check", path).exit_code == 78
    assert run("check", path, "--without-secrets").exit_code == 0
    assert run("check", path, "--without-secrets", "--connect").exit_code == 2


@pytest.mark.parametrize("option", ["--reason", "--stage", "--topic"])
def test_a_filter_that_is_empty_is_not_everything(file: Path, option: str) -> None:
    result = run("dlq", "replay", file, option, "", "--yes")
    assert result.exit_code == 2
    assert "is empty" in result.output


def test_a_reason_that_there_is_not_is_refused(file: Path) -> None:
    result = run("dlq", "replay", file, "--reason", "malfromed", "--dry-run")
    assert result.exit_code == 2
    assert "malfromed" in result.output
    assert "malformed" in result.output


def test_a_broker_that_does_not_answer_is_not_one_that_hangs_up() -> None:
    """Both errors have no text."""
    with Overheard() as overheard:
        logging.getLogger("aiokafka.client").error('Unable connect to "%s:%s": %s', "a", 1, TimeoutError())
    told = overheard.after("no broker can be reached")
    assert told.startswith('no broker can be reached; Unable connect to "a:1": no answer in time: ')
    assert "firewall" in told
    assert "security.protocol" not in told
    with Overheard() as overheard:
        logging.getLogger("aiokafka.client").error('Unable connect to "%s:%s": %s', "a", 1, ConnectionResetError())
    assert "security.protocol" in overheard.after("no broker can be reached")


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color(file: Path, monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", shown)
    with pytest.raises(SystemExit):
        main(["check", str(file)], prog_name="tailrace")
    assert ("\x1b[" in shown.getvalue()) is coloured


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (["--role", "sampel"], 78),
        (["--role", ""], 2),
        (["--role", " , "], 2),
        (["--role", "ingest", "--signals", ""], 2),
        (["--role", "all", "--since", "x"], 2),
        (["--role", "ingest", "--signals", "metrics"], 78),
        (["--role", "sample", "--signals", "traces"], 78),
    ],
)
def test_worker_refuses(file: Path, option: list[str], code: int) -> None:
    assert run("worker", "--config", file, *option).exit_code == code


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.option("--seconds", type=int)
    @click.option("--json", "as_json", is_flag=True)
    def command(seconds: int, as_json: bool) -> None:
        click.echo(f"{seconds} {as_json}")
        sys.exit(1)

    monkeypatch.setitem(sys.modules, "pipeline.demo", types.SimpleNamespace(command=command))
    result = run("demo", "--seconds", "20", "--json")
    assert (result.exit_code, result.output) == (1, "20 True\n")
    assert "--seconds" in run("demo", "--help").output


def test_demo_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'confluent_kafka'", name="confluent_kafka")

    monkeypatch.setattr("importlib.import_module", missing)
    result = run("demo")
    assert result.exit_code == 1
    assert "pip install 'tailrace[demo]'" in result.output


def test_as_a_process_without_the_demo_extra(file: Path) -> None:
    """`check` must not need what only the demo needs, nor a terminal."""
    code = "import sys; sys.modules['confluent_kafka'] = None; from pipeline.cli import main; main()"
    words = [sys.executable, "-c", code, "check", str(file)]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": python_path()}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_a_check_mark_gets_all_else(file: Path) -> None:
    environ = os.environ | {"PYTHONPATH": python_path(), "PYTHONIOENCODING": "latin-1"}
    words = [sys.executable, "-m", "pipeline.cli", "check", str(file)]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"? ")


OTHERS = {
    "datasketches",
    "numpy",
    "rich",
    "pipeline.aggregate",
    "pipeline.deliver",
    "pipeline.ingest",
    "pipeline.live.page",
}


def test_a_worker_imports_what_its_roles_need(file: Path) -> None:
    """It stays, and so does what it imported."""
    code = f"""
import sys
from pipeline.cli import cli
cli.get_command(None, "worker")
from pipeline import roles
from pipeline.configuration.config_file import load
from pipeline.started import Started
from pipeline.worker import application
roles.build(application("imports"), load({str(file)!r}, {{}}), ["sample"], Started())
print(*sorted({OTHERS!r} & set(sys.modules)))
"""
    environ = os.environ | {"PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr
