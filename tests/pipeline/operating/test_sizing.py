"""The arithmetic of `tailrace size`: on round constants by hand, and what must hold on the committed ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.operating import sizing
from pipeline.operating.sizing import Load, Measured, measured, size
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.repository import ROOT

ROLES = ("ingest", "sample", "aggregate", "sink.jaeger", "sink.elasticsearch", "sink.prometheus")
VALUES: dict[str, float] = {
    "raw_bytes_per_span": 100,
    "spans_per_trace": 10,
    "spans_per_message": 200,
    "kept_share": 0.1,
    **{f"cpu.{role}": 10 for role in ROLES},
    **{f"second.{role}": 0 for role in ROLES},
    "byte.ingest": 0.1,
    "byte.sample": 0.05,
    "direct_byte.sample": 0.1,
    "most_raw_bytes_per_span": 400,
    **{f"rss.{role}": 1e6 for role in ROLES},
    "kafka.spans": 1,
    "kafka.kept.spans": 0.2,
    "kafka.decisions": 0.1,
    "undecided_bytes_per_trace": 300,
    "verdict_bytes_per_trace": 40,
    "load_seconds_per_million_verdicts": 2,
}
ROUND = Measured({"machine": {}, "constants": [{"name": k, "value": v} for k, v in VALUES.items()]})
# A core and a half of each role: 1e5 spans/s of 10 CPU-s per million is one core, so 1.5e5 are one and a half.
LOAD = Load(150_000, 30, 600, 3600, 3, 100, 10, 0.1)


def test_by_hand() -> None:
    found = size(LOAD, ROUND)
    workers = {role.name: role.workers for role in found.roles}
    assert workers == dict.fromkeys(ROLES, 3)  # half of a core each
    assert found.partitions == 8  # twice the workers, rounded up to fours
    assert found.window_bytes == 150_000 * 100 * 30
    assert found.kafka_bytes_per_raw_byte == pytest.approx(1.3)
    raw_per_second = 150_000 * 100
    # decisions are kept for the late horizon as well
    assert found.kafka_disk_bytes == pytest.approx(3 * raw_per_second * (1.2 * 3600 + 0.1 * 4200))
    sample = next(role for role in found.roles if role.name == "sample")
    traces = 15_000
    # of undecided traces those of one wait, and of four more in a catch-up
    state = 1.5 * found.window_bytes + traces * 5 * 30 * 300 + traces * 600 * 40
    assert sample.memory == pytest.approx(1e6 + state / 3)
    # 10 s of traffic at 1.5 cores is 15 CPU-s of 30 s; verdicts of ten minutes; half of a core is free
    assert found.reread_seconds == pytest.approx((30 * 1.5 / 3 + traces * 600 * 2e-6 / 3) / 0.5)


def test_what_a_worker_takes_beside_its_spans_is_not_shared() -> None:
    values = VALUES | {f"second.{role}": 0.1 for role in ROLES}
    known = Measured({"machine": {}, "constants": [{"name": k, "value": v} for k, v in values.items()]})
    for role in size(LOAD, known).roles:
        assert role.workers == 4
        assert role.busy is not None
        assert role.busy == pytest.approx(1.5 / 4 + 0.1)
    assert size(replace(LOAD, spans_per_second=39_000), known).one_worker
    assert not size(replace(LOAD, spans_per_second=41_000), known).one_worker


def test_cpu_follows_the_bytes_of_a_span() -> None:
    """It did not: a span was the benchmark's whatever --span-bytes said."""
    used = {r.name: r.workers * (r.busy or 0) for r in size(replace(LOAD, raw_bytes_per_span=300), ROUND).roles}
    assert used == pytest.approx(dict.fromkeys(ROLES, 1.5) | {"ingest": 4.5, "sample": 3.0})  # 20 and 10 more a million
    smaller = size(replace(LOAD, raw_bytes_per_span=10), ROUND)
    assert [r.workers for r in smaller.roles] == [r.workers for r in size(LOAD, ROUND).roles]
    direct = size(replace(LOAD, raw_bytes_per_span=300), ROUND, regroup=False)
    assert sum(r.workers * (r.busy or 0) for r in direct.roles if r.name == "sample") == pytest.approx(4.5)
    few = replace(LOAD, spans_per_second=20_000)
    assert size(replace(few, raw_bytes_per_span=250), ROUND).one_worker  # with regroup: never, 25 CPU-s a million
    assert not size(replace(few, raw_bytes_per_span=260), ROUND).one_worker


@pytest.mark.parametrize("known", [ROUND, measured()], ids=["round", "committed"])
def test_more_of_anything_takes_no_less(known: Measured) -> None:
    """Spans, wait, bytes, share: nothing that is asked for gets smaller."""
    base = size(LOAD, known)
    for more in (
        replace(LOAD, spans_per_second=300_000),
        replace(LOAD, decision_wait=60),
        replace(LOAD, raw_bytes_per_span=400),
        replace(LOAD, kept_share=0.5),
        replace(LOAD, retention=7200),
    ):
        found = size(more, known)
        assert found.partitions >= base.partitions
        assert found.kafka_disk_bytes >= base.kafka_disk_bytes
        assert found.window_bytes >= base.window_bytes
        assert [r.workers for r in found.roles] >= [r.workers for r in base.roles]


def test_nobody_is_alone_and_no_worker_is_busier_than_was_chosen() -> None:
    for rate in (1, 1e3, 1e5, 1e6):
        for role in size(replace(LOAD, spans_per_second=rate), measured()).roles:
            assert role.workers >= sizing.LEAST_WORKERS
            assert role.busy is not None
            assert role.busy <= sizing.BUSY


def test_every_constant_says_where_it_comes_from() -> None:
    for constant in measured().constants:
        assert constant.keys() == {"name", "value", "unit", "source"}
        assert (ROOT / constant["source"]).is_file()


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["size", *words])


def answer(*words: str) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    times = ("decision_wait", "late_horizon", "retention", "replication")
    plain = answer("--spans-per-second", "1000")["load"]
    assert [plain[key] for key in times] == [30, 600, 86400, 3]
    file = tmp_path / "tailrace.yaml"
    kafka = {"bootstrap_servers": "localhost:9092", "replication_factor": 2, "retention": "2d"}
    file.write_text(as_yaml(MINIMAL | {"kafka": kafka}), encoding="utf-8")
    said = answer("--spans-per-second", "1000", "--config", str(file), "--decision-wait", "1m", "--span-bytes", "200")
    assert [said["load"][key] for key in times] == [60, 600, 2 * 86400, 2]
    assert said["load"]["raw_bytes_per_span"] == 200


SINKS = {
    "jaeger": {"endpoint": "http://a:4318"},
    "jaeger/eu": {"endpoint": "http://b:4318"},
    "otlp": {"endpoint": "http://c:4318"},
}


def test_the_roles_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tailrace.yaml"
    words = ("--spans-per-second", "1000", "--config", str(file))
    file.write_text(as_yaml(MINIMAL | {"sinks": SINKS}), encoding="utf-8")
    found = answer(*words)["size"]
    roles = {role["name"]: role for role in found["roles"]}
    assert [*roles] == ["ingest", "sample", "aggregate", "sink.jaeger", "sink.jaeger/eu", "sink.otlp"]
    assert roles["sink.jaeger/eu"] == roles["sink.jaeger"] | {"name": "sink.jaeger/eu"}
    assert (roles["sink.otlp"]["workers"], roles["sink.otlp"]["busy"], roles["sink.otlp"]["memory"]) == (2, None, None)
    assert "?: not measured" in run(*words).output


@pytest.mark.parametrize("metrics", [False, True])
def test_without_regrouping_ingest_reads_metrics_alone(tmp_path: Path, metrics: bool) -> None:
    """It was counted, and topics with it that are not there."""
    file = tmp_path / "tailrace.yaml"
    words = ("--spans-per-second", "1000", "--config", str(file))
    inputs = [{"topic": "a", "signal": "traces"}, *([{"topic": "b", "signal": "metrics"}] if metrics else [])]
    settings = MINIMAL | {"inputs": inputs, "sinks": {"jaeger": SINKS["jaeger"]}}
    file.write_text(as_yaml(settings), encoding="utf-8")
    regrouped = answer(*words)["size"]
    file.write_text(as_yaml(settings | {"regroup": "never"}), encoding="utf-8")
    found = answer(*words)["size"]
    ingest = {"name": "ingest", "workers": 2, "busy": None, "memory": None}
    assert found["roles"] == [*([ingest] if metrics else []), *regrouped["roles"][1:]]
    gone = measured()["kafka.spans"] + measured()["kafka.logs"]
    assert regrouped["kafka_bytes_per_raw_byte"] - found["kafka_bytes_per_raw_byte"] == pytest.approx(gone)
    assert "there is no ingest" not in run(*words).output


@pytest.mark.parametrize(("rate", "told"), [("20000", "the other stands by"), ("2000000", "too few for this load")])
def test_one_worker_is_sized_as_one(tmp_path: Path, rate: str, told: str) -> None:
    """More partitions than one would split traces of producers without keys."""
    file = tmp_path / "tailrace.yaml"
    settings = {"inputs": [{"topic": "a", "signal": "traces"}], "regroup": "never"}
    kafka = {"bootstrap_servers": "localhost:9092", "partitions": 1}
    file.write_text(as_yaml(MINIMAL | settings | {"kafka": kafka}), encoding="utf-8")
    words = ("--spans-per-second", rate, "--config", str(file))
    found = answer(*words)["size"]
    sample = next(role for role in found["roles"] if role["name"] == "sample")
    alone = answer("--spans-per-second", rate)["size"]
    assert (found["partitions"], sample["workers"]) == (1, 2)
    used = sum(role["workers"] * role["busy"] for role in alone["roles"] if role["name"] == "sample")
    assert sample["busy"] > used / 2
    assert found["cache_bytes"] == pytest.approx(1.5 * found["window_bytes"])
    assert told in run(*words).output


def test_a_file_that_needs_ingest_is_not_told_to_do_without(tmp_path: Path) -> None:
    file = tmp_path / "tailrace.yaml"
    words = ("--spans-per-second", "1000", "--config", str(file))
    kafka = {"bootstrap_servers": "localhost:9092", "partitions": 6}
    inputs = [
        {"topic": "a", "signal": "traces"},
        {"topic": "b", "signal": "traces"},
        {"topic": "c", "signal": "logs", "encoding": "json"},
    ]
    file.write_text(as_yaml(MINIMAL | {"kafka": kafka, "inputs": inputs}), encoding="utf-8")
    said = run(*words).output
    assert "kafka.partitions                     4   (the file has 6)" in said
    assert "there is no ingest" not in said
    assert "inputs[1].signal: regroup: never reads one topic of traces, and that is inputs[0]" in said
    assert "inputs[2].encoding: regroup: never reads otlp_proto alone; json needs ingest" in said
    told = answer(*words)["file"]
    assert told["partitions"] == 6
    assert [reason.partition(":")[0] for reason in told["needs_ingest"]] == ["inputs[1].signal", "inputs[2].encoding"]
    for also, left in ([], "there is no ingest"), ([{"topic": "m", "signal": "metrics"}], "ingest reads metrics alone"):
        file.write_text(as_yaml(MINIMAL | {"inputs": [*inputs[:1], *also]}), encoding="utf-8")
        assert (
            f"One worker of sample is enough: with kafka.partitions: 1 and regroup: never {left}" in run(*words).output
        )


def test_what_a_file_has_that_no_number_counts_is_said(tmp_path: Path) -> None:
    """Redaction can take more than all that was counted, and nothing said that it was not."""
    file = tmp_path / "tailrace.yaml"
    words = ("--spans-per-second", "1000", "--replication", "1", "--config", str(file))
    inputs = [
        {"topic": "a", "signal": "traces"},
        {"topic": "j", "signal": "logs", "encoding": "json"},
        {"topic": "m", "signal": "metrics"},
    ]
    redaction = {"allow_all_keys": True, "presets": ["card_number"]}
    file.write_text(as_yaml(MINIMAL | {"inputs": inputs, "redaction": redaction}), encoding="utf-8")
    said = run(*words).output
    assert "! not in these numbers: redaction: it takes ingest 0.6 us" in said
    assert "! not in these numbers: m: what its OTLP metrics take of ingest and aggregate" in said
    assert "! not in these numbers: j: json takes ingest more than otlp_proto" in said
    assert "1 replica)" in said
    assert len(answer(*words)["file"]["not_counted"]) == 3
    by_key = redaction | {"blocked_key_patterns": [".*token.*"]}
    file.write_text(as_yaml(MINIMAL | {"redaction": by_key, "regroup": "never"}), encoding="utf-8")
    assert answer(*words)["file"]["not_counted"] == [
        "redaction: it takes sample 3.5 us of CPU a span of ten attributes, or more (docs/how-to/redact.md)"
    ]
    file.write_text(as_yaml(MINIMAL), encoding="utf-8")
    assert "! " not in run(*words).output


def test_the_output_says_where_it_was_measured_and_what_to_measure() -> None:
    said = run("--spans-per-second", "50000", "--decision-wait", "30s").output
    assert measured().where() in said
    for option in ("--span-bytes", "--spans-per-trace", "--kept-share", "make bench"):
        assert option in said
    assert "bench/results/throughput.json" in run("--constants").output


def test_large_spans_are_not_those_of_the_benchmark() -> None:
    usual = run("--spans-per-second", "50000").output
    assert "One worker of sample is enough" in usual
    assert "were not measured" not in usual
    large = run("--spans-per-second", "50000", "--span-bytes", "3000").output
    assert "One worker of sample is enough" not in large
    assert "Spans of 3000 bytes were not measured: the line is continued." in large
    for said in (usual, large):
        assert "CPU of ingest and sample follows --span-bytes" in said
        assert "CPU is that of messages of 200 spans" in said


@pytest.mark.parametrize(
    "words",
    [
        [],
        *(["--spans-per-second", amount] for amount in ("0", "inf", "nan")),
        *(
            ["--spans-per-second", "1", option, "nan"]
            for option in ("--span-bytes", "--spans-per-trace", "--kept-share")
        ),
        ["--spans-per-second", "1", "--decision-wait", "x"],
        *(["--spans-per-second", "1", option, "0s"] for option in ("--decision-wait", "--late-horizon", "--retention")),
    ],
)
def test_usage_errors(words: list[str]) -> None:
    """Zero was answered for the default."""
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_wait_beyond_the_horizon_is_refused() -> None:
    result = run("--spans-per-second", "1", "--decision-wait", "1h")
    assert result.exit_code == 2
    assert "--late-horizon must be longer than decision_wait (3600s)" in result.output
