"""The rules of the configuration: what each refuses, and under which key it says so."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.commands.config import effective
from pipeline.config import MOST_RECORD_BYTES, Config, with_live
from pipeline.configuration.config_file import InvalidConfig, parse
from pipeline.kafka.commit import MAX_REQUEST_BYTES
from processors.regroup import ENCODINGS
from schemas.errors import ConfigError
from sinks.settings import KEYS_OF, KINDS, Sink
from tests.pipeline.configs import MINIMAL, as_yaml


def refusals(**sections: Any) -> dict[str, str]:
    """Key to rule of everything that is wrong with the minimal configuration when these sections replace its own.

    A section given as a mapping is merged into the minimal one.
    """
    data = copy.deepcopy(MINIMAL)
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section} if isinstance(section, dict) else section
    try:
        parse(as_yaml(data), "x.yaml", {})
    except InvalidConfig as error:
        return {problem.key: problem.rule for problem in error.problems}
    return {}


def test_the_minimal_configuration_and_its_defaults() -> None:
    config = Config.model_validate(MINIMAL)
    assert config.kafka.prefix == "tailrace"
    assert config.kafka.start == "latest"
    assert config.sampling.decision_wait == 30.0
    assert config.logs.unsampled == "warn"
    assert config.sinks == {}


@pytest.mark.parametrize("start", ["latest", "earliest", "15m", "1h30m"])
def test_start(start: str) -> None:
    assert refusals(kafka={"start": start}) == {}


@pytest.mark.parametrize("start", ["", "now", "15", "-15m", "2026-01-01"])
def test_start_refused(start: str) -> None:
    assert list(refusals(kafka={"start": start})) == ["kafka.start"]


@pytest.mark.parametrize("servers", ["a:9092", "a:9092, b:9093", ["[::1]:9092", "10.0.0.1:1"]])
def test_bootstrap_servers(servers: Any) -> None:
    assert refusals(kafka={"bootstrap_servers": servers}) == {}


@pytest.mark.parametrize(
    ("servers", "key"),
    [
        ("kafka://a:9092", "kafka.bootstrap_servers"),
        (["a:9092", "b"], "kafka.bootstrap_servers[1]"),
        ([], "kafka.bootstrap_servers"),
    ],
)
def test_bootstrap_servers_refused(servers: Any, key: str) -> None:
    assert list(refusals(kafka={"bootstrap_servers": servers})) == [key]


@pytest.mark.parametrize("prefix", ["", "a/b", "a b", ".", ".a", "a" * 201])
def test_prefix_refused(prefix: str) -> None:
    assert list(refusals(kafka={"prefix": prefix})) == ["kafka.prefix"]


@pytest.mark.parametrize("key", ["commit_interval", "session_timeout", "heartbeat_interval", "retention"])
def test_durations_of_nothing_refused(key: str) -> None:
    assert refusals(kafka={key: "0s"})[f"kafka.{key}"] == "must be greater than 0"


def test_what_no_role_can_run_with_is_refused() -> None:
    refused = refusals(
        metrics={"interval": "0.1ms", "otlp": {"stale_after": "0.1ms"}, "span_metrics": {"dimensions": ["le", "__x"]}},
        limits={"max_span_bytes": 50_000_000, "max_dead_letter_bytes": 100_000_000},
    )
    assert set(refused) == {
        "metrics.interval",
        "metrics.otlp.stale_after",
        "metrics.span_metrics.dimensions[0]",
        "metrics.span_metrics.dimensions[1]",
        "limits.max_span_bytes",
        "limits.max_dead_letter_bytes",
    }
    assert "late_horizon" in str(refusals(sampling={"late_horizon": float("inf")}))
    assert MOST_RECORD_BYTES + (1 << 20) <= MAX_REQUEST_BYTES


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_factor_that_is_no_number_is_refused(value: float) -> None:
    sink = {"endpoint": "http://a:4318", "retry": {"multiplier": value}}
    refused = refusals(limits={"max_batch_ratio": value}, sinks={"jaeger": sink})
    assert {key: "finite" in rule for key, rule in refused.items()} == {
        "limits.max_batch_ratio": True,
        "sinks.jaeger.retry.multiplier": True,
    }


def test_heartbeats_fit_into_the_session() -> None:
    found = refusals(kafka={"session_timeout": "8s", "heartbeat_interval": "3s"})
    assert found == {"kafka.heartbeat_interval": "must be at most a third of session_timeout (8s)"}


def test_replication_factor_refused() -> None:
    assert list(refusals(kafka={"replication_factor": 0})) == ["kafka.replication_factor"]


@pytest.mark.parametrize(
    ("security", "keys"),
    [
        ({"protocol": "SASL_SSL"}, {"sasl_mechanism"}),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, {"username", "password"}),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "username": "a"}, {"password"}),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, {"token_file"}),
        ({"sasl_mechanism": "PLAIN", "username": "a", "password": "b"}, {"sasl_mechanism"}),
        ({"ca_file": "a"}, {"ca_file"}),
        ({"protocol": "SASL_PLAINTEXT", "ca_file": "a"}, {"ca_file", "sasl_mechanism"}),
        ({"protocol": "SSL", "key_file": "a"}, {"cert_file"}),
    ],
)
def test_security_is_complete(security: dict[str, str], keys: set[str]) -> None:
    assert set(refusals(kafka={"security": security})) == {f"kafka.security.{key}" for key in keys}


def test_inputs_name_each_topic_once() -> None:
    one = {"topic": "a", "signal": "logs"}
    assert refusals(inputs=[one, {**one, "topic": "b"}, one]) == {
        "inputs[2].topic": "a is listed already, as inputs[0]"
    }


def test_an_internal_topic_is_no_input() -> None:
    assert list(refusals(inputs=[{"topic": "tailrace.kept.spans", "signal": "traces"}])) == ["inputs[0].topic"]
    assert refusals(inputs=[{"topic": "tailrace_spans", "signal": "traces"}]) == {}


def test_a_signal_has_its_encodings() -> None:
    for signal, encodings in ENCODINGS.items():
        for encoding in encodings:
            assert refusals(inputs=[{"topic": "a", "signal": signal, "encoding": encoding}]) == {}
    assert refusals(inputs=[{"topic": "a", "signal": "traces", "encoding": "json"}]) == {
        "inputs[0].encoding": "must be one of otlp_proto, otlp_json, jaeger_proto, jaeger_json, auto for signal: traces"
    }
    for encoding in ("jaeger_proto", "jaeger_json", "zipkin"):
        found = refusals(inputs=[{"topic": "a", "signal": "logs", "encoding": encoding}])
        assert list(found) == ["inputs[0].encoding"]


MEANWHILE = "or decisions do not wait for what is read meanwhile"
LOGS = {"topic": "logs", "signal": "logs"}
SPANS = {"topic": "spans", "signal": "traces"}
METRICS = {"topic": "points", "signal": "metrics"}


def test_a_busy_raw_partition_is_marked_well_within_its_stall_limit() -> None:
    """It was left out of the clock between any two commits: traces were decided without a healthy input."""
    assert refusals(inputs=[SPANS, {**LOGS, "commit_interval": "15s"}]) == {}
    assert refusals(inputs=[SPANS, {**LOGS, "commit_interval": "2m"}]) == {
        "inputs[1].commit_interval": f"must be at most a quarter of logs.max_skew (60s), {MEANWHILE}"
    }
    assert refusals(inputs=[{**SPANS, "commit_interval": "75s"}, LOGS]) == {}
    assert refusals(inputs=[{**SPANS, "commit_interval": "76s"}, LOGS]) == {
        "inputs[0].commit_interval": f"must be at most a quarter of sampling.ingest_stall_limit (300s), {MEANWHILE}"
    }
    assert refusals(kafka={"commit_interval": "20s"}, inputs=[SPANS, LOGS, {**LOGS, "topic": "others"}]) == {
        "kafka.commit_interval": f"must be at most a quarter of logs.max_skew (60s), {MEANWHILE}"
    }
    assert refusals(kafka={"commit_interval": "20s"}, inputs=[SPANS, {**LOGS, "commit_interval": "1s"}]) == {}
    assert refusals(inputs=[SPANS, LOGS], logs={"max_skew": "500ms"}, sampling={"ingest_stall_limit": "3s"}) == {
        "logs.max_skew": f"must be at least four times kafka.commit_interval (1s), {MEANWHILE}",
        "sampling.ingest_stall_limit": f"must be at least four times kafka.commit_interval (1s), {MEANWHILE}",
    }


def test_what_has_no_marks_may_be_committed_rarely() -> None:
    slow = {"commit_interval": "1h"}
    assert refusals(inputs=[SPANS, {**METRICS, **slow}]) == {}
    assert refusals(regroup="never", inputs=[SPANS, LOGS, METRICS], kafka=slow) == {}


def test_the_horizon_is_beyond_the_wait() -> None:
    found = refusals(sampling={"decision_wait": "10m", "late_horizon": "10m"})
    assert found == {"sampling.late_horizon": "must be longer than decision_wait (600s)"}


def test_the_wait_after_the_root_is_the_shorter_one() -> None:
    assert refusals(sampling={"decision_wait": "10s", "decision_wait_after_root_received": "9s"}) == {}
    assert refusals(sampling={"decision_wait": "10s", "decision_wait_after_root_received": "0s"}) == {}
    found = refusals(sampling={"decision_wait": "10s", "decision_wait_after_root_received": "10s"})
    rule = "must be shorter than decision_wait (10s), or it never decides anything earlier"
    assert found == {"sampling.decision_wait_after_root_received": rule}


def test_the_window_is_retained() -> None:
    found = refusals(kafka={"retention": "30s"}, sampling={"decision_wait": "20s"})
    assert list(found) == ["sampling.decision_wait"]


def test_policy_rules_name_their_key() -> None:
    policies = [
        {"name": "a", "type": "latency"},
        {"name": "b", "type": "latency", "latency": {"threshold_ms": 9, "upper_threshold_ms": 3}},
    ]
    assert set(refusals(sampling={"policies": policies})) == {
        "sampling.policies[0].latency",
        "sampling.policies[1].latency.upper_threshold_ms",
    }


def test_policy_names_are_unique() -> None:
    found = refusals(sampling={"policies": [{"name": "a", "type": "always_sample"}] * 2})
    assert "unique" in found["sampling.policies[1].name"]


@pytest.mark.parametrize("word", ["drop", "all", "trace", "debug", "info", "warn", "error", "fatal"])
def test_unsampled(word: str) -> None:
    assert refusals(logs={"unsampled": word}) == {}


def test_a_budget_has_room_for_overflow() -> None:
    buckets = {"span_metrics": {"buckets_ms": [1, 2]}}
    assert refusals(metrics={"series_per_metric": 5, **buckets}) == {}
    assert list(refusals(metrics={"series_per_metric": 4, **buckets})) == ["metrics.series_per_metric"]


def test_dimensions_give_distinct_labels() -> None:
    found = refusals(metrics={"span_metrics": {"dimensions": ["http.route", "span.name", "http_route", "net.peer"]}})
    assert set(found) == {"metrics.span_metrics.dimensions[1]", "metrics.span_metrics.dimensions[2]"}
    found = refusals(metrics={"span_metrics": {"dimensions": ["2xx", "_2xx"]}})
    assert set(found) == {"metrics.span_metrics.dimensions[1]"}


@pytest.mark.parametrize("bounds", [[], [1, 1], [2, 1], [0, 1], [-1], [".inf"]])
def test_bounds_ascend(bounds: list[Any]) -> None:
    found = refusals(metrics={"span_metrics": {"buckets_ms": bounds}})
    assert len(found) == 1
    assert next(iter(found)).startswith("metrics.span_metrics.buckets_ms")


@pytest.mark.parametrize("name", ["jaeger", "jaeger/eu", "otlp/tempo", "elasticsearch/audit-1", "prometheus"])
def test_sink_names(name: str) -> None:
    assert refusals(sinks={name: {"endpoint": "http://a"}}) == {}


@pytest.mark.parametrize("name", ["loki", "jaeger/", "jaeger/a/b", "Jaeger", "jaeger eu"])
def test_sink_names_refused(name: str) -> None:
    assert list(refusals(sinks={name: {"endpoint": "http://a"}})) == [f"sinks.{name}"]


@pytest.mark.parametrize(
    ("sink", "key"),
    [
        ({"endpoint": "localhost:4318"}, "endpoint"),
        ({"endpoint": "http://"}, "endpoint"),
        ({"endpoint": "http://user:pass@a"}, "endpoint"),
        ({"endpoint": "http://.a"}, "endpoint"),
        ({"endpoints": ["http://a.", "http://\u00fc..b"]}, "endpoints[1]"),
        ({"endpoint": "https://a", "auth": {"username": "u"}}, "auth"),
        ({"endpoint": "https://a", "auth": {"api_key": "k", "bearer_token": "t"}}, "auth"),
        ({"endpoint": "https://a", "auth": {"bearer_token_file": "/t", "bearer_token": "t"}}, "auth"),
        ({"endpoint": "http://a", "auth": {"username": "u", "password": "p"}}, "endpoint"),
        ({"endpoint": "http://a", "auth": {"bearer_token_file": "/t"}}, "endpoint"),
        ({"endpoint": "http://a", "headers": {"X-Api-Key": "k"}}, "endpoint"),
        ({"endpoints": ["https://a", "http://b"], "auth": {"api_key": "k"}}, "endpoints[1]"),
        ({"endpoint": "http://a", "timeout": "0s"}, "timeout"),
        ({"endpoint": "http://a", "dataset": "with-dash"}, "dataset"),
        ({"endpoint": "http://a", "dataset": "audit"}, "dataset"),
        ({"endpoint": "http://a", "signals": ["logs"]}, "signals"),
        ({"endpoint": "http://a", "key_file": "k.pem"}, "cert_file"),
        ({"endpoint": "http://a", "protocol": "http/json"}, "protocol"),
        ({}, "endpoint"),
        ({"endpoints": []}, "endpoint"),
        ({"endpoint": "http://a", "endpoints": ["http://b"]}, "endpoints"),
        ({"endpoints": ["http://a", "http://u:p@b"]}, "endpoints[1]"),
        ({"endpoints": ["http://a", "http://b", "http://a/"]}, "endpoints"),
    ],
)
def test_sinks_refused(sink: dict[str, Any], key: str) -> None:
    assert list(refusals(sinks={"jaeger": sink})) == [f"sinks.jaeger.{key}"]


@pytest.mark.parametrize(("kind", "rule"), [("jaeger", "is required, or endpoints"), ("prometheus", "is required")])
def test_where_a_sink_sends_is_required(kind: str, rule: str) -> None:
    """Prometheus was offered endpoints, which it has not."""
    assert refusals(sinks={kind: {}}) == {f"sinks.{kind}.endpoint": rule}


@pytest.mark.parametrize(
    ("name", "key", "value", "rule"),
    [
        ("prometheus", "compression", "none", "is for jaeger, otlp, elasticsearch and kafka only"),
        ("elasticsearch", "protocol", "grpc", "is for jaeger and otlp only"),
        ("otlp", "shards", 2, "is for prometheus only"),
        ("otlp", "signals", ["logs", "logs"], "each signal once"),
        ("otlp", "compression", "zstd", "must be gzip or none for otlp"),
        ("otlp", "topic", "kept", "is for kafka only"),
        ("jaeger", "mapping", "ecs", "is for elasticsearch only"),
        (
            "elasticsearch",
            "lifecycle",
            {"data_retention": "7d", "policy": "logs"},
            "one of data_retention and policy is enough",
        ),
    ],
)
def test_a_key_that_the_kind_lacks_is_refused(name: str, key: str, value: Any, rule: str) -> None:
    found = refusals(sinks={name: {"endpoint": "http://a", key: value}})
    assert found[f"sinks.{name}.{key}"] == rule


@pytest.mark.parametrize(
    "sink",
    [
        {"endpoint": "http://127.0.0.1:9200", "auth": {"api_key": "k"}},
        {"endpoint": "http://localhost:9200", "headers": {"Authorization": "Bearer t"}},
        {"endpoint": "http://a", "headers": {"X-Scope-OrgID": "shop"}},
        {"endpoint": "http://a", "auth": {"api_key": "k", "allow_http": True}},
    ],
)
def test_credentials_go_in_the_clear_where_that_is_safe_or_asked_for(sink: dict[str, Any]) -> None:
    assert refusals(sinks={"elasticsearch": sink}) == {}


LOCAL, OPEN = ["127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9"], ["0.0.0.0", "::", "10.0.0.7", "tailrace.example"]


@pytest.mark.parametrize("host", LOCAL)
def test_the_live_page_is_a_word_on_loopback(host: str) -> None:
    assert refusals(telemetry={"host": host, "live": True}) == {}
    assert Config.model_validate({**MINIMAL, "telemetry": {"live": True}}).telemetry.live.enabled
    assert not Config.model_validate(MINIMAL).telemetry.live.enabled


def test_unless_it_is_asked_for_nothing_is_shown_to_others_and_no_payload_to_anybody() -> None:
    telemetry = Config.model_validate(MINIMAL).telemetry
    assert telemetry.host in LOCAL
    assert not telemetry.live.enabled
    assert not Config.model_validate({**MINIMAL, "telemetry": {"live": True}}).telemetry.live.payloads


@pytest.mark.parametrize("host", OPEN)
def test_pages_need_a_token_beyond_loopback(host: str) -> None:
    reached = f": host {host} can be reached from other machines"
    metrics = f"is required for /metrics (or public_metrics: true){reached}"
    live = f"is required for the live page{reached}"
    token = {"host": host, "token": "x" * 16}
    assert refusals(telemetry={"host": host}) == {"telemetry.token": metrics}
    assert refusals(telemetry={"host": host, "live": True}) == {"telemetry.token": live}
    assert refusals(telemetry={"host": host, "live": True, "public_metrics": True}) == {"telemetry.token": live}
    assert refusals(telemetry={"host": host, "public_metrics": True}) == {}
    assert refusals(telemetry=token) == refusals(telemetry={**token, "live": True}) == {}


@pytest.mark.parametrize("host", OPEN)
def test_so_do_those_of_the_canary(host: str) -> None:
    canary = {"host": host, "jaeger": {"endpoint": "http://jaeger:16686"}}
    rule = refusals(canary=canary)["canary.host"]
    assert rule.startswith("needs telemetry.token, which is required for /metrics")
    assert f"host {host} can be reached" in rule
    assert refusals(canary=canary, telemetry={"token": "x" * 16}) == {}
    assert refusals(canary=canary, telemetry={"public_metrics": True}) == {}
    assert refusals(canary={**canary, "host": "127.0.0.1"}) == {}


def test_a_short_token_is_refused_and_none_is_printed() -> None:
    assert list(refusals(telemetry={"token": "short"})) == ["telemetry.token"]
    config = Config.model_validate({**MINIMAL, "telemetry": {"live": True, "token": "x" * 16}})
    assert "x" * 16 not in repr(config) + str(effective(config))


@pytest.mark.parametrize(
    "peer", ["10.0.0.7:9464", "ftp://a", "http://", "http://a/live", "http://u:p@a", "http://a?token=b"]
)
def test_peers_are_addresses_without_credentials(peer: str) -> None:
    assert list(refusals(telemetry={"live": {"peers": ["http://a:9464/", peer]}})) == ["telemetry.live.peers[1]"]


def test_worker_live_turns_it_on_where_that_is_safe() -> None:
    assert with_live(Config.model_validate(MINIMAL)).telemetry.live.enabled
    with pytest.raises(ConfigError, match=r"--live: telemetry\.token is required .* 0\.0\.0\.0"):
        with_live(Config.model_validate({**MINIMAL, "telemetry": {"host": "0.0.0.0", "public_metrics": True}}))


def test_kinds_have_keys_that_exist() -> None:
    assert KEYS_OF.keys() <= Sink.model_fields.keys()
    assert {kind for kinds in KEYS_OF.values() for kind in kinds} == set(KINDS)


@pytest.mark.parametrize(
    ("sink", "broken"),
    [
        ({"bootstrap_servers": "other:9092", "topic": "otlp_spans"}, {}),
        ({"bootstrap_servers": "other:9092", "security": {"protocol": "SSL"}, "compression": "lz4"}, {}),
        ({}, {"bootstrap_servers": "is required"}),
        ({"bootstrap_servers": "a"}, {"bootstrap_servers": "'a' must be host:port"}),
        (
            {"bootstrap_servers": "b:1", "endpoint": "http://a"},
            {"endpoint": "is for jaeger, otlp, elasticsearch and prometheus only"},
        ),
        (
            {"bootstrap_servers": "localhost:9092", "topic": "otlp_spans"},
            {"topic": "otlp_spans is one of the inputs: kept spans would come back as new ones"},
        ),
        (
            {"bootstrap_servers": "localhost:9092", "topic": "tailrace.spans"},
            {"topic": "names with tailrace. in front belong to the internal topics (kafka.prefix)"},
        ),
        (
            {"bootstrap_servers": "b:1", "security": {"protocol": "SASL_SSL"}},
            {"security.sasl_mechanism": "is required by protocol: SASL_SSL"},
        ),
    ],
)
def test_a_topic_as_a_sink(sink: dict[str, Any], broken: dict[str, str]) -> None:
    found = refusals(sinks={"kafka/jaeger": sink})
    assert found == {f"sinks.kafka/jaeger.{key}": rule for key, rule in broken.items()}


def test_every_key_has_a_description() -> None:
    from pipeline.configuration.reference import configuration

    assert "|  |" not in configuration()


def test_two_sinks_do_not_install_one_template_by_turns() -> None:
    """Streams that are made meanwhile would have the other one's retention."""
    one = {"endpoint": "http://es:9200", "lifecycle": {"data_retention": "7d"}}
    audit = {**one, "namespace": "audit", "lifecycle": {"data_retention": "365d"}}
    assert refusals(sinks={"elasticsearch": one, "elasticsearch/audit": {**audit, "dataset": "audit"}}) == {}
    assert (
        refusals(sinks={"elasticsearch": one, "elasticsearch/audit": {**audit, "endpoint": "http://other:9200"}}) == {}
    )
    found = refusals(sinks={"elasticsearch": one, "elasticsearch/audit": audit})
    assert list(found) == ["sinks.elasticsearch/audit.lifecycle"]


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"auth": {"bearer_token": "s3cret\n", "allow_http": True}}, "auth.bearer_token"),
        ({"auth": {"username": "a", "password": "b\n", "allow_http": True}}, "auth.password"),
        ({"headers": {"X Y": "a"}}, "headers.X Y"),
        ({"headers": {"X-Y": "ü"}, "protocol": "grpc"}, "headers.X-Y"),
        ({"headers": {"X-Y": "a\nb"}}, "headers.X-Y"),
        ({"headers": {"x-bin": "a"}, "protocol": "grpc"}, "headers.x-bin"),
    ],
)
def test_what_no_request_can_carry_is_refused(keys: dict[str, Any], place: str) -> None:
    """Else the first request would stop the role, and the secret's name be nowhere."""
    assert list(refusals(sinks={"otlp": {"endpoint": "http://a:4318", **keys}})) == [f"sinks.otlp.{place}"]
