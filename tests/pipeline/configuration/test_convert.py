"""A Collector's configuration as one of Tailrace."""

from __future__ import annotations

import re
import textwrap
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.parity_cases import TYPES, cases
from pipeline import cli as commands
from pipeline.config import Config
from pipeline.configuration.config_file import parse
from pipeline.configuration.convert import Converted, convert, written
from pipeline.configuration.otelcol.source import Gap
from schemas.errors import ConfigError

COLLECTOR = """\
receivers:
  kafka:
    brokers: [kafka-1:9092, kafka-2:9092]
    group_id: sampler
    traces: {topics: [spans-a, spans-b], encoding: otlp_json}
  kafka/old: {brokers: "kafka-1:9092,kafka-3:9092", topic: spans-c}
  otlp: {protocols: {http: {}}}
processors:
  batch: {}
  attributes: {actions: []}
  tail_sampling:
    decision_wait: 1m30s
    decision_wait_after_root_received: 5s
    num_traces: 100000
    maximum_trace_size_bytes: 1000000
    policies:
      - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
      - name: events
        type: ottl_condition
        ottl_condition:
          spanevent: ['name == "exception"', 'dropped_attributes_count > 0']
      - {name: ours, type: my_extension, my_extension: {}}
      - {name: share, type: probabilistic, probabilistic: {sampling_percentage: "${env:SHARE}"}}
      - {name: errors, type: always_sample}
exporters:
  otlp/jaeger: {endpoint: "jaeger:4317", tls: {insecure: true}}
  otlphttp: {endpoint: "https://tempo:4318", headers: {x-key: "${env:KEY}"}}
  kafka: {brokers: ["kafka-1:9092"], traces: {topic: kept}}
  debug: {}
service:
  pipelines:
    traces:
      receivers: [kafka, kafka/old]
      processors: [tail_sampling, batch]
      exporters: [otlp/jaeger, otlphttp, debug]
    traces/more: {receivers: [otlp], processors: [attributes, tail_sampling], exporters: [kafka]}
    logs: {receivers: [otlp], processors: [batch], exporters: [debug]}
"""


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(commands.cli, ["convert", "otelcol", str(file), *words])


def test_a_whole_configuration(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(COLLECTOR)
    result = run(file)
    assert result.exit_code == 1
    config = parse(result.stdout, "tailrace.yaml", {"SHARE": "5", "KEY": "k"})
    assert config.kafka.bootstrap_servers == ["kafka-1:9092", "kafka-2:9092", "kafka-3:9092"]
    assert [(i.topic, i.signal, i.encoding) for i in config.inputs] == [
        ("spans-a", "traces", "otlp_json"), ("spans-b", "traces", "otlp_json"), ("spans-c", "traces", "otlp_proto"),
    ]  # fmt: skip
    assert (config.sampling.compat, config.sampling.decision_wait) == ("otel", 90)
    assert config.sampling.decision_wait_after_root_received == 5
    assert [policy.name for policy in config.sampling.policies] == ["errors", "events", "share"]
    assert {name: sink.endpoint for name, sink in config.sinks.items()} == {
        "otlp/jaeger": "http://jaeger:4317", "otlp": "https://tempo:4318", "kafka": None,
    }  # fmt: skip
    assert config.sinks["otlp/jaeger"].protocol == "grpc"
    assert config.sinks["kafka"].topic == "kept"
    assert config.sinks["otlp"].headers == {"x-key": "k"}
    told = [line.replace(f"{file}:", "", 1).split(": ", 2) for line in result.stderr.splitlines()]
    sampling, pipelines = "processors.tail_sampling", "service.pipelines"
    expected = [
        ("! 4", "receivers.kafka.group_id", "not taken over: see `kafka` in docs/reference/configuration.md"),
        ("! 14", f"{sampling}.num_traces", "not needed: undecided traces are in Kafka, nothing is evicted"),
        ("✗ 15", f"{sampling}.maximum_trace_size_bytes", "has no counterpart"),
        (
            "✗ 21",
            f"{sampling}.policies[1].ottl_condition.spanevent[1]",
            "a condition of policy 'events' is left out: 'dropped_attributes_count > 0', column 1: dropped_attributes",
        ),
        ("✗ 22", f"{sampling}.policies[2].type", "policy 'ours' is left out: must be one of always_sample, "),
        ("✗ 22", f"{sampling}.policies[2].my_extension", "policy 'ours' is left out: unknown key"),
        ("! 23", f"{sampling}.policies[3]", "policy 'share' is taken as it is: what ${…} stands for is not known here"),
        ("✗ 24", f"{sampling}.policies[4]", "policy 'errors' is left out: there is one of this name already"),
        ("! 34", f"{pipelines}.traces.processors", "batch is not needed: sinks have a `batch` of their own"),
        ("! 35", f"{pipelines}.traces.exporters", "debug is not needed: it only prints"),
        ("✗ 36", f"{pipelines}.traces/more", "has receivers and exporters of its own: here all traces go to all sinks"),
        (
            "✗ 36",
            f"{pipelines}.traces/more.processors",
            "attributes has no counterpart: leave it in the Collector that writes to Kafka",
        ),
        ("✗ 36", f"{pipelines}.traces/more.receivers", "otlp has no counterpart: let a Collector write to Kafka"),
        ("! 37", f"{pipelines}.logs", "not looked at: no receiver of it is kafka; let a Collector write to Kafka"),
    ]
    assert [(line, key) for line, key, _ in told] == [(line, key) for line, key, _ in expected]
    for (_, _, why), (_, _, begin) in zip(told, expected, strict=True):
        assert why.startswith(begin)


BLOCK: dict[str, Any] = {
    "decision_wait": "10s",
    "policies": [{"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}}],
}


@pytest.mark.parametrize(
    "pasted", [BLOCK, {"tail_sampling": BLOCK}, {"processors": {"tail_sampling/a": BLOCK}}, {"tail_sampling/x": BLOCK}]
)
def test_a_block_will_do(pasted: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "block.yaml"
    file.write_text(yaml.safe_dump(pasted))
    result = run(file)
    assert result.exit_code == 0
    assert "no kafka receiver is taken over: the topic otlp_spans on localhost:9092 is assumed" in result.stderr
    config = parse(result.stdout, "tailrace.yaml", {})
    assert config.sampling.decision_wait == 10
    assert [policy.name for policy in config.sampling.policies] == ["slow"]


def test_exporters_of_both_protocols_are_both_taken(tmp_path: Path) -> None:
    names = ("otlp", "otlphttp", "otlp/x", "otlphttp/x")
    exporters: dict[str, dict[str, Any]] = {
        name: {"endpoint": f"http://{name.replace('/', '-')}:4317", "tls": {"insecure": True}} for name in names
    }
    given: dict[str, Any] = {
        "processors": {"tail_sampling": {"policies": [{"name": "all", "type": "always_sample"}]}},
        "exporters": exporters,
        "service": {"pipelines": {"traces": {"processors": ["tail_sampling"], "exporters": list(exporters)}}},
    }
    pipelines = given["service"]["pipelines"]
    pipelines["traces/more"] = pipelines["traces"]  # each is taken once
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(given))
    sinks = yaml.safe_load(run(file).stdout)["sinks"]
    assert sorted(sink["endpoint"] for sink in sinks.values()) == sorted(
        each["endpoint"] for each in exporters.values()
    )
    assert sorted(sinks) == ["otlp", "otlp/otlphttp", "otlp/x", "otlp/x-otlphttp"]


KAFKA = """\
receivers:
  kafka/a: {brokers: "k:9092", traces: {topic: a, exclude_topics: [b]}, initial_offset: earliest, client_id: x}
  kafka/b: {brokers: "k:9092", traces: {topics: ["^all-.*", b]}, initial_offset: latest, header_extraction: {}}
  kafka/c: {brokers: "k:9092", traces: {topic: c, encoding: zipkin_proto}}
processors:
  redaction: {}
  tail_sampling: {policies: [{name: all, type: always_sample}]}
exporters:
  kafka/json: {brokers: "k:9092", traces: {topic: kept, encoding: otlp_json}}
  kafka: {brokers: "k:9092", topic_from_attribute: a, sending_queue: {}, traces: {topic_from_metadata_key: a}}
  otlphttp: {traces_endpoint: "http://tempo:4318/otlp/v1/traces"}
  otlphttp/odd: {endpoint: "http://odd:4318", traces_endpoint: "http://odd:4318/spans"}
  otlphttp/none: {traces_endpoint: "http://odd:4318/spans"}
  loadbalancing: {}
service:
  pipelines:
    traces:
      receivers: [kafka/a, kafka/b, kafka/c]
      processors: [redaction, tail_sampling]
      exporters: [kafka/json, kafka, otlphttp, otlphttp/odd, otlphttp/none, loadbalancing]
    traces/raw: {receivers: [otlp], exporters: [kafka]}
"""


def test_whatever_is_not_taken_over_is_told() -> None:
    found = convert(KAFKA)
    assert found.config["kafka"] == {"bootstrap_servers": ["k:9092"], "start": "earliest"}
    assert [given["topic"] for given in found.config["inputs"]] == ["a", "b"]
    assert {name: sink.get("endpoint", sink.get("topic")) for name, sink in found.config["sinks"].items()} == {
        "kafka": "otlp_spans", "otlp": "http://tempo:4318/otlp", "otlp/odd": "http://odd:4318",
    }  # fmt: skip
    expected = [
        ("receivers.kafka/a.traces.exclude_topics", "has no counterpart", True),
        ("receivers.kafka/a.client_id", "not taken over: see `kafka` in docs/reference/configuration.md", False),
        ("receivers.kafka/b.traces", "^all-.* is left out: a pattern; name the topics as `inputs`", True),
        ("receivers.kafka/b.initial_offset", "latest is not taken over: `kafka.start` is earliest for all", True),
        ("receivers.kafka/b.header_extraction", "has no counterpart", True),
        (
            "receivers.kafka/c.traces.encoding",
            "kafka/c is left out: zipkin_proto is none of otlp_proto, otlp_json, jaeger_proto, jaeger_json, auto",
            True,
        ),
        (
            "exporters.kafka/json.encoding",
            "kafka/json is left out: kept spans are written as otlp_proto, not as otlp_json",
            True,
        ),
        ("exporters.kafka.topic_from_attribute", "has no counterpart", True),
        ("exporters.kafka.sending_queue", "not taken over: see the sink's keys", False),
        ("exporters.kafka.traces.topic_from_metadata_key", "has no counterpart", True),
        *[
            (
                f"exporters.otlphttp/{name}.traces_endpoint",
                "not taken over: Tailrace writes to `endpoint` with /v1/traces behind it",
                True,
            )
            for name in ("odd", "none")
        ],
        (
            "service.pipelines.traces.processors",
            "redaction is not taken over: see `redaction` (docs/how-to/redact.md)",
            True,
        ),
        (
            "exporters.otlphttp/none",
            "otlphttp/none is left out: it has no endpoint for traces",
            True,
        ),
        (
            "service.pipelines.traces.exporters",
            "loadbalancing is not taken over: write `jaeger: {endpoint: …}` below `sinks`",
            True,
        ),
        (
            "service.pipelines.traces/raw",
            "not looked at: tail_sampling is not in it",
            False,
        ),
    ]
    assert sorted((gap.key, gap.why, gap.matters) for gap in found.gaps) == sorted(expected)


def test_conditions_that_are_known_are_kept_without_those_beside_them() -> None:
    """One of a list is enough, so the others keep what they kept; what is left out is a comment."""
    known, unknown = 'name == "exception"', "Len(name) > 1"
    both = {"error_mode": "ignore", "span": [unknown, known, unknown], "spanevent": [unknown]}
    some = {"name": "some", "type": "ottl_condition", "ottl_condition": both}
    none = {"name": "none", "type": "ottl_condition", "ottl_condition": {"span": [unknown]}}
    inner = {"name": "inner", "type": "and", "and": {"and_sub_policy": [some]}}
    found = convert(yaml.safe_dump({"policies": [some, none, inner]}))
    kept = {**some, "ottl_condition": {"error_mode": "ignore", "span": [known]}}
    assert found.config["sampling"]["policies"] == [kept, {**inner, "and": {"and_sub_policy": [kept]}}]
    told = {gap.key: gap.why for gap in found.gaps if gap.matters}
    parts = ("[0].ottl_condition", "[2].and.and_sub_policy[0].ottl_condition")
    places = {f"policies{part}.{at}" for part in parts for at in ("span[0]", "span[2]", "spanevent[0]")}
    assert set(told) == places | {"policies[1].ottl_condition.span[0]"}
    assert told["policies[0].ottl_condition.span[2]"].startswith(
        "a condition of policy 'some' is left out: 'Len(name) > 1', column 1: Len is not known here"
    )
    text = written(found.config, found.left_out)
    assert yaml.safe_load(text) == found.config
    _, _, comment = text.partition("\n\n# Left out of sampling.policies, because it has no counterpart:\n")
    left = {**some, "ottl_condition": {"span": [unknown, unknown], "spanevent": [unknown]}}
    assert yaml.safe_load("\n".join(line.removeprefix("# ") for line in comment.splitlines())) == [left, none, left]


@pytest.mark.parametrize(
    ("mode", "condition", "matters"),
    [
        ("propagate", 'HasPrefix(attributes["a"], "x")', True),
        ("propagate", 'name == "x" or not Int(attributes["a"]) == 1', True),
        ("propagate", 'HasPrefix(name, "x") and attributes["a"] == 1', False),
        ("ignore", 'HasPrefix(attributes["a"], "x")', False),
    ],
)
def test_a_condition_whose_failure_a_collector_propagates_is_told(mode: str, condition: str, matters: bool) -> None:
    block = {"error_mode": mode, "span": ["Len(name) > 1", condition]}
    policy = {"name": "a", "type": "ottl_condition", "ottl_condition": block}
    found = convert(yaml.safe_dump({"policies": [{"name": "b", "type": "not", "not": {"not_sub_policy": policy}}]}))
    told = {gap.key: gap.why for gap in found.gaps if gap.matters}
    key = "policies[0].not.not_sub_policy.ottl_condition.error_mode"
    assert (key in told) == matters
    assert not matters or condition in told[key]


IN_KUBERNETES = """\
apiVersion: v1
data:
  other.yaml: "a: b"
  relay: |

    ---
    processors:
      tail_sampling:
        policies:
        - {name: all, type: always_sample}
        - {name: ours, type: my_extension}
kind: ConfigMap
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (IN_KUBERNETES, 11),
        (yaml.safe_dump({"spec": {"config": yaml.safe_load(yaml.safe_load(IN_KUBERNETES)["data"]["relay"])}}), 9),
        (yaml.safe_dump({"config": yaml.safe_load(yaml.safe_load(IN_KUBERNETES)["data"]["relay"])}), 8),
        (
            'kind: ConfigMap\ndata: {a: "tail_sampling: {policies: [{name: all, type: always_sample}, {}]}"}',
            2,
        ),
    ],
)
def test_a_configuration_inside_of_what_kubernetes_reads(text: str, line: int) -> None:
    found = convert(text)
    assert [policy["name"] for policy in found.config["sampling"]["policies"]] == ["all"]
    assert {gap.line for gap in found.gaps if gap.matters} == {line}


def test_no_yaml_inside_of_it_has_its_place_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "map.yaml"
    file.write_text(IN_KUBERNETES.replace("policies:", "policies: ]"))
    result = run(file)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith(f"{file}:9:19: not valid YAML: ")


def test_one_of_several_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump({"tail_sampling/a": {**BLOCK, "decision_wait": "1s"}, "tail_sampling/b": BLOCK}))
    assert run(file).exit_code == 78
    assert "there are tail_sampling/a, tail_sampling/b: choose one with --processor" in run(file).stderr
    assert "decision_wait: 10s" in run(file, "--processor", "tail_sampling/b").stdout


def config_map(*values: str) -> str:
    data = "".join(f"  v{n}: |\n" + "".join(f"    {line}\n" for line in v.splitlines()) for n, v in enumerate(values))
    return f"kind: ConfigMap\ndata:\n{data}"


def only(name: str, processor: str = "tail_sampling") -> str:
    return f"processors:\n  {processor}:\n    policies: [{{name: {name}, type: always_sample}}]"


def test_every_configuration_in_a_file_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "map.yaml"
    for two in (
        config_map(only("a", "tail_sampling/a"), only("b", "tail_sampling/b")),
        config_map(only("a", "tail_sampling/a")) + "---\n" + config_map(only("b", "tail_sampling/b")),
    ):
        file.write_text(two)
        assert run(file).stderr == f"{file}: there are tail_sampling/a, tail_sampling/b: choose one with --processor\n"
        assert "name: b\n" in run(file, "--processor", "tail_sampling/b").stdout
        assert run(file, "--processor", "tail_sampling/c").stderr == f"{file}: there is no processor tail_sampling/c\n"
    file.write_text(config_map(only("a"), only("b")))
    several = "there are tail_sampling (line 5), tail_sampling (line 9): leave one configuration in the file"
    assert run(file).stderr == run(file, "--processor", "tail_sampling").stderr == f"{file}: {several}\n"


@pytest.mark.parametrize(
    "beside", ["about tail_sampling", "see: a: tail_sampling", "# tail_sampling", "tail_sampling: 5"]
)
def test_what_only_names_the_processor_is_passed_over(beside: str) -> None:
    for text in (config_map(beside, only("a")), config_map(only("a"), beside), f"kind: x\n---\n{only('a')}"):
        assert [policy["name"] for policy in convert(text).config["sampling"]["policies"]] == ["a"]


@pytest.mark.parametrize(
    ("policy", "key", "why"),
    [
        ("{name: a, latency: {threshold_ms: '${env:X}'}}", ".type", "policy 'a' is left out: is required"),
        ("{type: latency, latency: {threshold_ms: '${env:X}'}}", ".name", "policy None is left out: is required"),
        (
            "{name: a, type: latency, latency: '${env:X}'}",
            ".latency",
            "policy 'a' is left out: must be a mapping of keys",
        ),
        ("'${env:X}'", "", "policy None is left out: must be a mapping of keys"),
    ],
)
def test_a_variable_does_not_stand_for_what_a_policy_lacks(policy: str, key: str, why: str) -> None:
    text = (
        "sample_on_first_match: true\npolicies:\n- {name: z, type: always_sample}\n- {name: y, type: always_sample}\n- "
    )
    found = convert(text + policy)
    assert [policy["name"] for policy in found.config["sampling"]["policies"]] == ["z", "y"]
    assert [(g.line, g.key, g.why) for g in found.gaps if g.matters] == [(5, f"policies[2]{key}", why)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: [", "1:5: not valid YAML"),
        ("a: \0", r":1:4: not valid YAML: character U\+0000"),
        ("[]", "is a mapping"),
        ("processors: {batch: {}}", "there is no processor"),
    ],
)
def test_what_is_no_collectors_configuration(text: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rule):
        convert(text)
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert run(file).exit_code == 78


NESTED = "is nested too deeply, or an alias in it stands for what it is in"
PIPELINE = """\
receivers: {kafka: {topic: a}}
processors: {tail_sampling: {policies: []}}
service: {pipelines: {traces: {receivers: [kafka], processors: [tail_sampling], exporters: [otlp]}}}
"""


@pytest.mark.parametrize(
    ("was", "shape", "said"),
    [
        ("policies: []", "policies: 5", "line 2: processors.tail_sampling.policies: must be a list"),
        ("policies: []", "policies: {a: 1}", "line 2: processors.tail_sampling.policies: must be a list"),
        ("receivers: {kafka: {topic: a}}", "receivers: [kafka]", "line 1: receivers: must be a mapping"),
        ("{topic: a}", "a", "line 1: receivers.kafka: must be a mapping"),
        ("{topic: a}", "{traces: [x]}", "line 1: receivers.kafka.traces: must be a mapping"),
        ("{topic: a}", "{traces: {topics: x}}", "line 1: receivers.kafka.traces.topics: must be a list"),
        ("receivers: {kafka", "exporters: {otlp: x}\nreceivers: {kafka", "line 1: exporters.otlp: must be a mapping"),
        ("[otlp]", "otlp", "line 3: service.pipelines.traces.exporters: must be a list"),
        ("[otlp]", "[{otlp: x}]", "line 3: service.pipelines.traces.exporters: must be names"),
        ("pipelines: {", "pipelines: [a], b: {", "line 3: service.pipelines: must be a mapping"),
        ("receivers: {kafka", "a: &x [*x]\nreceivers: {kafka", f"a[0][0]: {NESTED}"),
        ("receivers: {kafka", "a: " + "[" * 3000 + "\nreceivers: {kafka", "1:1: is nested too deeply"),
        ("policies: []", "x: 2024-13-45", "2:33: not valid YAML: cannot be read as its type: month must be in 1..12"),
        ("policies: []", "x: !!bool foo", "2:33: not valid YAML: cannot be read as its type: 'foo'"),
        (
            "receivers: {kafka",
            "? [a]\n: b\nreceivers: {kafka",
            "1:3: not valid YAML: while constructing a mapping, found",
        ),
        (
            PIPELINE,
            'data: {a: "tail_sampling: &a {policies: [*a]}", ? [b] : c}',
            f"tail_sampling.policies[0]: {NESTED}",
        ),
    ],
)
def test_another_shape_is_named_with_its_line(was: str, shape: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(PIPELINE.replace(was, shape))
    result = run(file)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.removeprefix(f"{file}:").removeprefix(" ").startswith(said)
    assert len(result.stderr.splitlines()) == 1


def test_every_type_of_policy_is_taken_as_it_is() -> None:
    for case in cases(configs=2 * len(TYPES)):
        found = convert(yaml.safe_dump({"processors": {"tail_sampling": {"policies": case.policies}}}))
        assert found.config["sampling"]["policies"] == case.policies
        assert not any(gap.matters for gap in found.gaps)


def test_what_to_write_instead_is_said() -> None:
    actions = [{"key": "user", "action": "delete"}]
    given: dict[str, Any] = {
        "receivers": {"kafka": {"brokers": "k:9092", "topics": ["a", "b"]}},
        "processors": {
            "tail_sampling": BLOCK,
            "attributes/hide": {"actions": actions},
            "attributes/add": {"actions": [{"key": "a", "value": "b", "action": "insert"}]},
        },
        "service": {
            "pipelines": {
                "traces": {"receivers": ["kafka"], "processors": ["attributes/hide", "attributes/add", "tail_sampling"]}
            }
        },
    }
    pipeline = "service.pipelines.traces.processors"
    assert mattering(convert(yaml.safe_dump(given))) == [
        "receivers.kafka.topics: is no key of the receiver: otlp_spans is assumed; name topics as `inputs`",
        f"{pipeline}: attributes/hide is not taken over: see `redaction` (docs/how-to/redact.md)",
        f"{pipeline}: attributes/add has no counterpart: leave it in the Collector that writes to Kafka",
    ]


def test_span_ingest_has_no_counterpart() -> None:
    block = {**BLOCK, "sampling_strategy": "span-ingest"}
    assert [gap for gap in convert(yaml.safe_dump(block)).gaps if gap.matters] == [
        Gap(7, "sampling_strategy", "has no counterpart")
    ]
    assert not any(
        gap.matters for gap in convert(yaml.safe_dump({**BLOCK, "sampling_strategy": "trace-complete"})).gaps
    )


def mattering(found: Converted) -> list[str]:
    return [f"{gap.key}: {gap.why}" for gap in found.gaps if gap.matters]


ERRORS: dict[str, Any] = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
RATE: dict[str, Any] = {"name": "rate", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 100}}
DROP: dict[str, Any] = {"name": "out", "type": "drop", "drop": {"drop_sub_policy": [{**ERRORS, "name": "e"}]}}
SPARING = {"name": "rest", "type": "and", "and": {"and_sub_policy": [{**ERRORS, "name": "e"}, {**RATE, "name": "r"}]}}


@pytest.mark.parametrize(
    ("policies", "limit"),
    [
        ([ERRORS, *BLOCK["policies"]], ""),
        ([ERRORS, DROP], ""),  # the Collector asks it first
        ([RATE, ERRORS], ""),
        ([DROP, RATE, ERRORS], ""),
        ([ERRORS, DROP, RATE], "rate"),
        ([ERRORS, SPARING], "rest"),
    ],
)
def test_a_limit_behind_the_first_match_is_told(policies: list[Any], limit: str) -> None:
    """Every trace spends it here; what policies that have no state decide is the same."""
    block = {"sample_on_first_match": True, "policies": policies}
    told = mattering(convert(yaml.safe_dump({"processors": {"tail_sampling": block}})))
    begin = f"processors.tail_sampling.sample_on_first_match: has no counterpart: the limit of {limit!r} is spent"
    assert [why.startswith(begin) for why in told] == [True] * bool(limit)
    off = {**block, "sample_on_first_match": False}
    assert not mattering(convert(yaml.safe_dump({"processors": {"tail_sampling": off}})))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"decision_wait": "9m59s"}, {"decision_wait": "9m59s"}),
        ({"decision_wait": "15m"}, {"decision_wait": "15m", "late_horizon": "1500s"}),
        ({"decision_wait_after_root_received": "5s"}, {"decision_wait_after_root_received": "5s"}),
        ({"decision_wait": "5s", "decision_wait_after_root_received": "5s"}, {"decision_wait": "5s"}),
        ({"maximum_trace_size_bytes": 0}, {}),
    ],
)
def test_waits_fit_together(given: dict[str, Any], taken: dict[str, Any]) -> None:
    found = convert(yaml.safe_dump({"policies": BLOCK["policies"], **given}))
    assert not mattering(found)
    assert found.config["sampling"] == {"compat": "otel", "policies": BLOCK["policies"], **taken}
    parse(written(found.config), "tailrace.yaml", {})


@pytest.mark.parametrize(
    ("wait", "told"), [("13h", "must be at most half of kafka.retention"), (10, "10 is not a duration"), ("0s", "must")]
)
def test_what_check_will_refuse_is_told(wait: Any, told: str) -> None:
    (why,) = mattering(convert(yaml.safe_dump({**BLOCK, "decision_wait": wait})))
    assert why.startswith(f"sampling.decision_wait: is printed, but `tailrace check` refuses it: {told}")


def valid(found: Converted) -> Config:
    """What is converted, with something for each variable."""
    text = written(found.config)
    environ = {name: f"<{name}>" for name in re.findall(r"\$\{(?:env:)?(\w+)\}", text)}
    return parse(text, "tailrace.yaml", environ)


def collector(
    receivers: dict[str, Any], exporters: dict[str, Any], logs: dict[str, Any] | None = None, **block: Any
) -> str:
    """A Collector's configuration with one pipeline that all of them are in, and one for exporters of `logs`."""
    pipeline = {"receivers": [*receivers], "processors": ["tail_sampling"], "exporters": [*exporters]}
    others = {} if logs is None else {"logs": {"receivers": [*receivers], "exporters": [*logs]}}
    return yaml.safe_dump(
        {
            "receivers": receivers,
            "processors": {"tail_sampling": {**BLOCK, **block}},
            "exporters": exporters | (logs or {}),
            "service": {"pipelines": {"traces": pipeline, "traces/again": pipeline} | others},
        }
    )


@pytest.mark.parametrize(
    ("brokers", "taken"),
    [
        (["k-1", "k-2:9093"], ["k-1:9092", "k-2:9093"]),
        ("k-1, k-2", ["k-1:9092", "k-2:9092"]),
        ("${BROKERS}", "${BROKERS}"),
        (["${env:A}:9092", "b"], "${env:A}:9092,b:9092"),
        (None, ["localhost:9092"]),
    ],
)
def test_brokers_are_as_the_collectors_client_takes_them(brokers: Any, taken: Any) -> None:
    found = convert(collector({"kafka": {"brokers": brokers}}, {"kafka": {"brokers": brokers, "topic": "kept"}}))
    assert not mattering(found)
    assert found.config["kafka"]["bootstrap_servers"] == found.config["sinks"]["kafka"]["bootstrap_servers"] == taken
    assert [item["topic"] for item in found.config["inputs"]] == ["otlp_spans"]  # both pipelines have it
    config = parse(written(found.config), "tailrace.yaml", {"BROKERS": "a:1,b:2", "A": "a"})
    assert len(config.kafka.bootstrap_servers) == (1 if brokers is None else 2)


def test_a_second_cluster_is_told() -> None:
    found = convert(collector({"kafka/eu": {"brokers": ["eu:9092"]}, "kafka/us": {"brokers": ["us:9092"]}}, {}))
    assert found.config["kafka"]["bootstrap_servers"] == ["eu:9092"]
    assert mattering(found) == [
        "receivers.kafka/us.brokers: kafka/us is left out: one Tailrace reads from one cluster, this is eu:9092"
    ]


@pytest.mark.parametrize(
    ("exporter", "settings", "taken"),
    [
        ("otlp", {"endpoint": "a:4317", "tls": {"insecure": False}}, {"endpoint": "https://a:4317"}),
        ("otlp", {"endpoint": "${A}", "tls": {"insecure": True}}, {"endpoint": "http://${A}"}),
        ("otlp", {"endpoint": "http://a:1"}, {"endpoint": "https://a:1"}),
        ("otlp", {"endpoint": "http://a:1", "tls": {"insecure": True}}, {"endpoint": "http://a:1"}),
        ("otlphttp", {"endpoint": "${env:A}"}, {"endpoint": "${env:A}"}),
        ("otlp", {"endpoint": "a:1", "compression": "none"}, {"endpoint": "https://a:1", "compression": "none"}),
        ("otlp", {"endpoint": "a:1", "compression": "snappy", "timeout": "1s"}, {"endpoint": "https://a:1"}),
    ],
)
def test_an_exporters_settings(exporter: str, settings: dict[str, Any], taken: dict[str, Any]) -> None:
    found = convert(collector({"kafka": {}}, {exporter: settings}))
    assert not mattering(found)
    protocol = {} if "http" in exporter else {"protocol": "grpc"}
    assert found.config["sinks"] == {"otlp": {"signals": ["traces"], **taken, **protocol}}


LOGS = """\
receivers:
  kafka:
    brokers: [kafka:9092]
    traces: {topics: [spans]}
    logs: {topics: [app-logs, audit-logs], encoding: json}
    metrics: {topic: points, encoding: otlp_json}
  kafka/text: {brokers: [kafka:9092], logs: {encoding: text_utf-8}, metrics: {topic: unread}}
processors:
  batch: {}
  memory_limiter: {}
  tail_sampling: {policies: [{name: all, type: always_sample}]}
exporters:
  otlp/jaeger: {endpoint: "jaeger:4317", tls: {insecure: true}}
  elasticsearch:
    endpoints: ["https://es-1:9200", "https://es-2:9200"]
    logs_index: acme-logs
    mapping: {mode: ecs}
    auth: {authenticator: basicauth/es}
  debug: {}
  nop: {}
extensions:
  health_check: {}
  basicauth/es: {client_auth: {username: elastic, password: "${env:ES_PASSWORD}"}}
service:
  extensions: [health_check, basicauth/es]
  pipelines:
    logs: {receivers: [kafka, kafka/text], processors: [memory_limiter, batch], exporters: [elasticsearch, debug, nop]}
    logs/hosts: {receivers: [filelog], exporters: [elasticsearch]}
    metrics: {receivers: [kafka], exporters: [debug]}
    traces: {receivers: [kafka], processors: [tail_sampling], exporters: [otlp/jaeger]}
"""


def test_logs_and_metrics_that_are_read_from_kafka_are_inputs(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(LOGS)
    result = run(file)
    config = parse(result.stdout, "tailrace.yaml", {"ES_PASSWORD": "secret"})
    assert [(i.topic, i.signal, i.encoding) for i in config.inputs] == [
        ("spans", "traces", "otlp_proto"), ("app-logs", "logs", "json"), ("audit-logs", "logs", "json"),
        ("otlp_logs", "logs", "text"), ("points", "metrics", "otlp_json"),
    ]  # fmt: skip
    assert config.logs.unsampled == "all"  # the Collector's logs know of no verdict
    assert [*config.sinks] == ["otlp/jaeger", "elasticsearch"]
    sink = config.sinks["elasticsearch"]
    assert sink.urls == ["https://es-1:9200", "https://es-2:9200"]
    assert (sink.mapping, sink.dataset, sink.auth.username) == ("ecs", "tailrace", "elastic")
    assert sink.auth.password is not None
    assert sink.auth.password.get_secret_value() == "secret"
    told = [line.replace(f" {file}:", " ", 1) for line in result.stderr.splitlines()]
    assert told == [
        "! 7: receivers.kafka/text.metrics: not taken over: no pipeline that is taken over has it",
        "✗ 16: exporters.elasticsearch.logs_index: acme-logs is no name of a data stream: documents go to "
        "logs-tailrace-default; write `dataset: acme_logs` at the sink for logs-acme_logs-default",
        "! 25: service.extensions: health_check is not needed: a worker has /healthz and /readyz, see `telemetry`",
        "! 27: service.pipelines.logs.processors: memory_limiter is not needed: overload becomes lag",
        "! 27: service.pipelines.logs.processors: batch is not needed: sinks have a `batch` of their own",
        "! 27: service.pipelines.logs.exporters: debug is not needed: it only prints",
        "! 27: service.pipelines.logs.exporters: nop is not needed: it does nothing",
        "! 28: service.pipelines.logs/hosts: not looked at: no receiver of it is kafka; let a Collector write to "
        "Kafka, and read that",
        "! 29: service.pipelines.metrics.exporters: debug is not needed: it only prints",
    ]
    assert result.exit_code == 1
    file.write_text(LOGS.replace("acme-logs", "logs-acme-prod"))
    result = run(file)
    assert (result.exit_code, "✗" in result.stderr) == (0, False)
    sink = parse(result.stdout, "tailrace.yaml", {"ES_PASSWORD": "secret"}).sinks["elasticsearch"]
    assert (sink.dataset, sink.namespace) == ("acme", "prod")


@pytest.mark.parametrize(
    ("settings", "taken", "told"),
    [
        ({}, {"endpoint": "${ELASTICSEARCH_URL}"}, []),
        (
            {"endpoints": "https://a:1, https://b:1", "api_key": "${KEY}", "compression": "none"},
            {"endpoints": ["https://a:1", "https://b:1"], "auth": {"api_key": "${KEY}"}, "compression": "none"},
            [],
        ),
        (
            {"endpoint": "https://a:1", "user": "u", "password": "${P}", "mapping": {"mode": "otel"}, "flush": {}},
            {"endpoint": "https://a:1", "auth": {"username": "u", "password": "${P}"}},
            [],
        ),
        (
            {"endpoint": "https://a:1", "mapping": {"mode": "bodymap"}, "pipeline": "p", "headers": {"a": "${B}"}},
            {"endpoint": "https://a:1", "headers": {"a": "${B}"}},
            ["mapping.mode: bodymap is not taken over", "pipeline: has no"],
        ),
        (
            {"endpoint": "https://a:1", "index": "a-${env:B}", "auth": {"authenticator": "oauth2client"}},
            {"endpoint": "https://a:1"},
            [
                "index: a-${env:B} is no name of a data stream",
                "auth: oauth2client is not taken over: write `auth: {bea",
            ],
        ),
        (
            {"endpoint": "https://a:1", "logs_dynamic_index": {"enabled": False}, "logstash_format": {"enabled": True}},
            {"endpoint": "https://a:1"},
            ["logstash_format: has no counterpart"],
        ),
        ({"cloudid": "a:b"}, None, ["cloudid: elasticsearch is left out: write `elasticsearch: {endpoint: …}`"]),
    ],
)
def test_an_exporter_to_elasticsearch(settings: dict[str, Any], taken: dict[str, Any], told: list[str]) -> None:
    found = convert(collector({"kafka": {}}, {}, {"elasticsearch": settings}))
    assert found.config.get("sinks", {}).get("elasticsearch") == taken
    lines = sorted(line.removeprefix("exporters.elasticsearch.") for line in mattering(found))
    for line, begin in zip(lines, sorted(told), strict=True):
        assert line.startswith(begin)


def test_what_check_will_refuse_of_a_sink_has_the_line_of_its_exporter() -> None:
    text = LOGS.replace("es-2:9200", "es-2:99999").replace("acme-logs", "logs-a-b")
    (gap,) = (gap for gap in convert(text).gaps if gap.matters)
    assert (gap.line, gap.key) == (14, "sinks.elasticsearch.endpoints[1]")
    assert gap.why == "is printed, but `tailrace check` refuses it: has no port between 0 and 65535"


@pytest.mark.parametrize(
    ("own", "taken"),
    [
        ({}, {"otlp": ("http://a:4318", ["traces", "logs"])}),
        ({"logs_endpoint": "http://a:4318/v1/logs"}, {"otlp": ("http://a:4318", ["traces", "logs"])}),
        (
            {"logs_endpoint": "http://loki:3100/otlp/v1/logs"},
            {"otlp": ("http://a:4318", ["traces"]), "otlp/otlphttp": ("http://loki:3100/otlp", ["logs"])},
        ),
    ],
)
def test_an_exporter_of_spans_and_logs(own: dict[str, str], taken: dict[str, Any]) -> None:
    exporters = {"otlphttp": {"endpoint": "http://a:4318", **own}}
    found = convert(collector({"kafka": {}}, exporters, exporters))
    assert not mattering(found)
    assert {name: (sink["endpoint"], sink["signals"]) for name, sink in found.config["sinks"].items()} == taken


def test_what_logs_and_metrics_cannot_have_is_told_with_what_to_write() -> None:
    given = yaml.safe_load(collector({"kafka": {"logs": {"encoding": "raw"}}}, {"elasticsearch": {}}, {"kafka": {}}))
    given["receivers"]["kafka/json"] = {"metrics": {"encoding": "json"}}
    given["service"]["pipelines"] |= {
        "metrics": {"receivers": ["kafka/json"], "exporters": ["prometheus"]},
        "logs/other": {"receivers": ["kafka/json"], "processors": ["transform"], "exporters": ["otlp"]},
    }
    assert sorted(mattering(convert(yaml.safe_dump(given)))) == [
        "exporters.otlp: otlp is left out: it has no endpoint for logs",
        "receivers.kafka.logs.encoding: kafka is left out: raw is none of otlp_proto, otlp_json, text, json, auto",
        "receivers.kafka/json.metrics.encoding: kafka/json is left out: json is none of otlp_proto, otlp_json, auto",
        "service.pipelines.logs.exporters: kafka is not taken over: "
        "write `otlp: {endpoint: …, signals: [logs]}` below `sinks`",
        "service.pipelines.logs/other.processors: transform has no counterpart: "
        "leave it in the Collector that writes to Kafka",
        "service.pipelines.logs/other: has receivers and exporters of its own: here all logs go to all sinks that "
        "take them",
        "service.pipelines.metrics.exporters: prometheus is not taken over: write `prometheus: {endpoint: …}` below "
        "`sinks`",
        "service.pipelines.traces.exporters: elasticsearch is not taken over: write `jaeger: {endpoint: …}` "
        "below `sinks`",
    ]


def notes(found: Converted) -> list[str]:
    return [f"{gap.key}: {gap.why}" for gap in found.gaps if not gap.matters]


VERIFIED = (
    "has no counterpart: certificates are always verified; write `ca_file: …`, the authority (PEM) that signed the "
    "server's"
)
SCRAM = {"username": "u", "password": "${env:P}", "mechanism": "SCRAM-SHA-512"}
SCRAM_HERE = {"sasl_mechanism": "SCRAM-SHA-512", "username": "u", "password": "${env:P}"}
TOKENS: dict[str, Any] = {
    "client_id": "us",
    "client_secret": "${file:/run/secrets/kafka}",
    "token_url": "https://id/token",
    "scopes": ["a", "b"],
    "tls": {"ca_file": "/id.pem"},
}
TOKENS_HERE = {
    "token_endpoint_url": "https://id/token",
    "client_id": "us",
    "client_secret": "${file:/run/secrets/kafka}",
    "scope": "a b",
    "token_endpoint_ca_file": "/id.pem",
}


@pytest.mark.parametrize(
    ("settings", "taken", "told"),
    [
        ({"tls": {"insecure": True}}, {}, []),
        ({"tls": {}}, {"protocol": "SSL"}, []),
        ({"tls": {"insecure": True, "ca_file": "/ca"}}, {"protocol": "SSL", "ca_file": "/ca"}, []),
        (
            {"tls": {"ca_file": "/ca", "cert_file": "/c", "key_file": "${file:/k}", "min_version": "1.3"}},
            {"protocol": "SSL", "ca_file": "/ca", "cert_file": "/c", "key_file": "${file:/k}"},
            [],
        ),
        ({"auth": {"tls": {"ca_file": "/ca"}}}, {"protocol": "SSL", "ca_file": "/ca"}, []),  # before 0.124
        (
            {"tls": {"insecure_skip_verify": True, "server_name_override": "k", "key_pem": "x", "tpm": {"path": "p"}}},
            {"protocol": "SSL"},
            [
                f"tls.insecure_skip_verify: {VERIFIED}, and `verify_hostname: false` if they are of another name",
                "tls.key_pem: not taken over: write it into a file, and `key_file: …`",
                "tls.server_name_override: not taken over: write `verify_hostname: false`",
            ],
        ),
        ({"auth": {"sasl": SCRAM}}, {"protocol": "SASL_PLAINTEXT", **SCRAM_HERE}, []),
        ({"auth": {"sasl": SCRAM}, "tls": {}}, {"protocol": "SASL_SSL", **SCRAM_HERE}, []),
        (
            {"auth": {"plain_text": {"username": "u", "password": "${P}"}}},
            {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": "${P}"},
            [],
        ),
        (
            {"tls": {}, "auth": {"sasl": {"mechanism": "OAUTHBEARER", "oauthbearer_token_source": "oauth2client/id"}}},
            {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **TOKENS_HERE},
            [],
        ),
        (
            {"tls": {}, "auth": {"sasl": {"mechanism": "AWS_MSK_IAM_OAUTHBEARER", "aws_msk": {"region": "eu"}}}},
            {"protocol": "SSL"},
            [
                "auth.sasl.mechanism: not taken over: write `sasl_mechanism: OAUTHBEARER` and `token_file: …`, a file "
                "with a token that something keeps current"
            ],
        ),
        (
            {"auth": {"kerberos": {"realm": "r"}}},
            {},
            ["auth.kerberos: has no counterpart: `kafka.security` has PLAIN, SCRAM and OAUTHBEARER"],
        ),
    ],
)
def test_how_kafka_is_reached(settings: dict[str, Any], taken: dict[str, Any], told: list[str]) -> None:
    given = yaml.safe_load(collector({"kafka": settings}, {"kafka": {**settings, "topic": "kept"}}))
    given["extensions"] = {"oauth2client/id": TOKENS}
    found = convert(yaml.safe_dump(given))
    assert found.config["kafka"].get("security", {}) == taken
    assert found.config["sinks"]["kafka"].get("security", {}) == taken
    of = ("exporters.kafka.", "receivers.kafka.")
    assert sorted(mattering(found)) == sorted(f"{place}{line}" for place in of for line in told)
    parse(re.sub(r"\$\{.*?\}", "x", written(found.config)), "tailrace.yaml", {})


def test_one_way_to_reach_kafka_is_for_all_receivers() -> None:
    sasl = {"auth": {"sasl": {**SCRAM, "password": "said"}}}
    found = convert(collector({"kafka": sasl, "kafka/b": sasl, "kafka/c": {"tls": {}}}, {}))
    assert found.config["kafka"]["security"]["password"] == "${env:KAFKA_PASSWORD}"
    assert mattering(found) == ["receivers.kafka/c.tls: not taken over: `kafka.security` is that of kafka for all"]
    valid(found)


EXTENSIONS: dict[str, Any] = {
    "basicauth/a": {"client_auth": {"username": "u", "password": "${env:P}"}},
    "basicauth/files": {"client_auth": {"username_file": "/u", "password_file": "/p"}},
    "bearertokenauth": {"token": "${T}"},
    "bearertokenauth/file": {"token": "ignored", "filename": "/token"},
    "bearertokenauth/scheme": {"scheme": "Api-Token", "token": "${T}"},
    "headers_setter": {
        "headers": [
            {"key": "X-Scope-OrgID", "value": "us"},
            {"key": "X-Key", "value": "Bearer ${K}", "action": "insert"},
            {"key": "X-User", "from_context": "user", "default_value": "u"},
        ]
    },
}


@pytest.mark.parametrize(
    ("settings", "taken", "told"),
    [
        ({"tls": {"ca_file": "/ca", "cert_file": "/c", "key_file": "/k"}}, "tls", []),
        ({"headers": {"X-Scope-OrgID": 5, "x": "${X}"}}, {"headers": {"X-Scope-OrgID": "5", "x": "${X}"}}, []),
        ({"headers": [{"name": "x", "value": "${X}"}]}, {"headers": {"x": "${X}"}}, []),
        ({"auth": {"authenticator": "basicauth/a"}}, {"auth": {"username": "u", "password": "${env:P}"}}, []),
        (
            {"auth": {"authenticator": "basicauth/files"}},
            {"auth": {"username": "${file:/u}", "password": "${file:/p}"}},
            [],
        ),
        ({"auth": {"authenticator": "bearertokenauth"}}, {"auth": {"bearer_token": "${T}"}}, []),
        ({"auth": {"authenticator": "bearertokenauth/file"}}, {"auth": {"bearer_token_file": "/token"}}, []),
        (
            {"auth": {"authenticator": "bearertokenauth/scheme"}},
            {"headers": {"Authorization": "Api-Token ${T}"}},
            [],
        ),
        (
            {"auth": {"authenticator": "headers_setter"}, "headers": {"x": "${X}"}},
            {"headers": {"x": "${X}", "X-Scope-OrgID": "us", "X-Key": "Bearer ${K}"}},
            [
                "extensions.headers_setter.headers[2]: X-User differs by request: write `headers: {X-User: …}` at the "
                "sink if all get the same"
            ],
        ),
        (
            {"auth": {"authenticator": "basicauth/gone"}},
            {},
            ["auth: basicauth/gone is not in the file: write `auth: {…}` or `headers: {…}` at the sink"],
        ),
        (
            {"auth": {"authenticator": "sigv4auth"}, "tls": {"insecure_skip_verify": True}},
            {},
            [
                "auth: sigv4auth has no counterpart: send through a proxy that signs requests, and write its "
                "`endpoint`",
                f"tls.insecure_skip_verify: {VERIFIED}",
            ],
        ),
    ],
)
@pytest.mark.parametrize(
    ("exporter", "signal"),
    [("otlp", "traces"), ("otlphttp", "logs"), ("elasticsearch", "logs"), ("prometheusremotewrite", "metrics")],
)
def test_how_a_destination_is_reached(
    exporter: str, signal: str, settings: dict[str, Any], taken: Any, told: list[str]
) -> None:
    given = yaml.safe_load(collector({"kafka": {}}, {}))
    given |= {"exporters": {exporter: {"endpoint": "https://a:1", "logs_index": "logs-a-b", **settings}}}
    given["extensions"] = EXTENSIONS
    pipelines = given["service"]["pipelines"]
    pipelines[signal] = {**pipelines.get(signal, {"receivers": ["kafka"]}), "exporters": [exporter]}
    found = convert(yaml.safe_dump(given))
    (sink,) = found.config["sinks"].values()
    keys = ("auth", "headers", "ca_file", "cert_file", "key_file")
    assert {key: sink[key] for key in keys if key in sink} == (settings["tls"] if taken == "tls" else taken)
    place = f"exporters.{exporter}."
    told = [line if line.startswith("extensions") else place + line for line in told]
    assert [line for line in sorted(mattering(found)) if not line.startswith("service")] == sorted(told)
    if "file:" not in str(sink):
        valid(found)


URLS = ["https://a:p1@es1:1", "https://b:p2@es2:1", "https://a:p1@es3:1"]
ANOTHER_LOGIN = "a login in it is not taken over: a sink has one for all, see its `auth` or `headers`"


@pytest.mark.parametrize(
    ("settings", "auth", "variables", "dropped"),
    [
        ({"endpoints": URLS}, {"username": "a", "password": "${env:ELASTICSEARCH_PASSWORD}"}, ["p1"], True),
        ({"endpoints": URLS[::2]}, {"username": "a", "password": "${env:ELASTICSEARCH_PASSWORD}"}, ["p1"], False),
        ({"endpoints": URLS, "api_key": "k"}, {"api_key": "${env:ELASTICSEARCH_API_KEY}"}, ["k"], True),
        (
            {"endpoint": URLS[0], "user": "a", "password": "p1"},
            {"username": "a", "password": "${env:ELASTICSEARCH_PASSWORD}"},
            ["p1"],
            False,
        ),
        ({"endpoint": URLS[0], "auth": {"authenticator": "bearertokenauth"}}, {"bearer_token": "${T}"}, [], True),
        ({"endpoint": URLS[0], "auth": {"authenticator": "bearertokenauth/scheme"}}, None, [], True),
        ({"endpoint": URLS[0], "headers": {"authorization": "Api-Token ${T}"}}, None, [], True),
    ],
)
def test_a_sink_has_one_login(
    settings: dict[str, Any], auth: dict[str, str] | None, variables: list[str], dropped: bool
) -> None:
    """Others are told, and are no variables: nothing would use them."""
    given = yaml.safe_load(collector({"kafka": {}}, {}, {"elasticsearch": {"logs_index": "logs-a-b", **settings}}))
    found = convert(yaml.safe_dump(given | {"extensions": EXTENSIONS}))
    assert found.config["sinks"]["elasticsearch"].get("auth") == auth
    told = [line for line in mattering(found) if not line.startswith("service")]
    key = "endpoints" if "endpoints" in settings else "endpoint"
    assert told == [f"exporters.elasticsearch.{key}: {ANOTHER_LOGIN}"] * dropped
    named = [note for note in notes(found) if "into the environment" in note]
    assert len(named) == len(variables), named
    assert not [note for note in named if not any(f"as {name}," in note for name in re.findall(r":(\w+)}", str(auth)))]


@pytest.mark.parametrize("authenticator", ["bearertokenauth/scheme", "bearertokenauth", "basicauth/a"])
def test_a_header_that_the_authenticator_sets_is_there_once(authenticator: str) -> None:
    settings = {
        "endpoint": "https://a:1",
        "headers": {"authorization": "Bearer s3cret", "x": "${X}"},
        "auth": {"authenticator": authenticator},
    }
    given = yaml.safe_load(collector({"kafka": {}}, {"otlphttp": settings}))
    found = convert(yaml.safe_dump(given | {"extensions": EXTENSIONS}))
    sink = found.config["sinks"]["otlp"]
    assert [*sink["headers"]] == ["x"] + ["Authorization"] * ("auth" not in sink)
    assert notes(found) == ["exporters.otlphttp.headers.authorization: not taken over: the authenticator sets it"]


def test_credentials_go_over_http_if_they_did() -> None:
    settings = {"endpoint": "http://a:4318", "headers": {"x-api-key": "${K}"}, "tls": {"ca_file": "/unused"}}
    found = convert(
        collector({"kafka": {}}, {"otlphttp": settings, "otlphttp/b": {**settings, "headers": {"b": "${B}"}}})
    )
    assert not mattering(found)
    assert [sink.get("auth") for sink in found.config["sinks"].values()] == [{"allow_http": True}, None]
    assert notes(found) == [
        "exporters.otlphttp: credentials go over http://, where anybody on the way reads them: `auth.allow_http: true` "
        "is said for it"
    ]
    valid(found)


METRICS = """\
receivers: {kafka: {}}
processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}}
exporters:
  prometheusremotewrite/mimir:
    endpoint: https://mimir/api/v1/push
    headers: {X-Scope-OrgID: us}
    tls: {ca_file: /ca.pem}
    add_metric_suffixes: false
    disable_scope_info: true
    remote_write_queue: {num_consumers: 5}
    resource_to_telemetry_conversion: {enabled: false}
    external_labels: {}
    target_info: {enabled: false}
service:
  pipelines:
    metrics: {receivers: [kafka], exporters: [prometheusremotewrite/mimir]}
    traces: {receivers: [kafka], processors: [tail_sampling], exporters: []}
"""


def test_an_exporter_to_prometheus() -> None:
    found = convert(METRICS)
    assert not mattering(found)
    assert found.config["sinks"] == {
        "prometheus/mimir": {
            "endpoint": "https://mimir/api/v1/push", "headers": {"X-Scope-OrgID": "us"}, "ca_file": "/ca.pem",
        }
    }  # fmt: skip
    series = {"translation_strategy": "UnderscoreEscapingWithoutSuffixes", "scope_labels": False}
    assert found.config["metrics"] == {"otlp": series}
    place = "exporters.prometheusremotewrite/mimir"
    said = dict(note.split(": ", 1) for note in notes(found))
    assert said.keys() == {place, f"{place}.remote_write_queue", f"{place}.target_info"}
    assert said[place].startswith("a metric has 10,000 series, more become __overflow__")
    valid(found)


def test_what_an_exporter_to_prometheus_cannot_have_is_told_with_what_to_write() -> None:
    given = yaml.safe_load(METRICS)
    settings = given["exporters"]["prometheusremotewrite/mimir"]
    settings |= {
        "external_labels": {"cluster": "eu", "env": "prod"},
        "resource_to_telemetry_conversion": {"enabled": True},
        "namespace": "acme",
    }
    given["exporters"]["prometheusremotewrite"] = {"endpoint": "https://b"}
    given["service"]["pipelines"]["metrics"]["exporters"].append("prometheusremotewrite")
    found = convert(yaml.safe_dump(given))
    place, promote = "exporters.prometheusremotewrite", "write `metrics: {otlp: {promote_resource_attributes: "
    assert sorted(mattering(found)) == [
        f"{place}/mimir.external_labels: has no counterpart: {promote}[cluster, env]}}}}`, and have producers "
        "say them, as in OTEL_RESOURCE_ATTRIBUTES",
        f"{place}/mimir.namespace: has no counterpart: metrics keep their names",
        f"{place}/mimir.resource_to_telemetry_conversion: all resource attributes are not taken over: "
        f"{promote}[service.name, …]}}}}`",
        f"{place}: prometheusremotewrite says other names or labels of series: `metrics.otlp` has one of them for all "
        "sinks",
    ]
    assert [*found.config["sinks"]] == ["prometheus/mimir", "prometheus"]
    valid(found)


SECRET = "s3cr3t-that-nobody-may-see"


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"endpoint": f"https://u:{SECRET}@a:1"}, "OTLPHTTP_PASSWORD"),
        ({"endpoint": f"https://a:1/?api_key={SECRET}"}, "OTLPHTTP_API_KEY"),
        ({"endpoint": f"https://a:1/write?db=m&p={SECRET}"}, "OTLPHTTP_P"),
        ({"headers": {"x-team": SECRET}}, "OTLPHTTP_X_TEAM"),
        ({"headers": {"Authorization": f"Bearer ${{env:A:-{SECRET}}}"}}, "OTLPHTTP_AUTHORIZATION"),
        ({"auth": {"authenticator": "basicauth/a"}}, "BASICAUTH_A_PASSWORD"),
        ({"auth": {"authenticator": "bearertokenauth"}}, "BEARERTOKENAUTH_TOKEN"),
        ({"auth": {"authenticator": "bearertokenauth/scheme"}}, "BEARERTOKENAUTH_SCHEME_TOKEN"),
        ({"auth": {"authenticator": "headers_setter"}}, "HEADERS_SETTER_X_KEY"),
        ({"tls": {"key_pem": SECRET}}, ""),
        ({"kafka": {"auth": {"sasl": {**SCRAM, "password": SECRET}}}}, "KAFKA_PASSWORD"),
        ({"kafka": {"auth": {"plain_text": {"username": "u", "password": SECRET}}}}, "KAFKA_PASSWORD"),
        (
            {"kafka": {"auth": {"sasl": {"mechanism": "OAUTHBEARER", "oauthbearer_token_source": "oauth2client"}}}},
            "OAUTH2CLIENT_CLIENT_SECRET",
        ),
        ({"kafka": {"auth": {"kerberos": {"password": SECRET}}}}, ""),
        ({"elasticsearch": {"user": "u", "password": SECRET}}, "ELASTICSEARCH_PASSWORD"),
        ({"elasticsearch": {"api_key": SECRET}}, "ELASTICSEARCH_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_not_printed(settings: dict[str, Any], variable: str, tmp_path: Path) -> None:
    exporter = {"endpoint": "https://a:1", **{k: v for k, v in settings.items() if k not in ("kafka", "elasticsearch")}}
    elastic = {"elasticsearch": {"endpoint": "https://b:1", **settings.get("elasticsearch", {})}}
    given = yaml.safe_load(collector({"kafka": settings.get("kafka", {})}, {"otlphttp": exporter}, elastic))
    given["extensions"] = {
        "basicauth/a": {"client_auth": {"username": "u", "password": SECRET}},
        "bearertokenauth": {"token": SECRET},
        "bearertokenauth/scheme": {"scheme": "Api-Token", "token": SECRET},
        "headers_setter": {"headers": [{"key": "X-Key", "value": SECRET}]},
        "oauth2client": {"client_id": "a", "client_secret": SECRET, "token_url": "https://id"},
    }
    file = tmp_path / "collector.yaml"
    file.write_text(yaml.safe_dump(given))
    result = run(file)
    assert SECRET not in result.output
    assert SECRET not in result.stderr
    assert (f"${{env:{variable}}}" in result.stdout) == bool(variable)
    assert (f"into the environment as {variable}, or write ${{file:…}}" in result.stderr) == bool(variable)
    parse(result.stdout, "tailrace.yaml", {variable: SECRET})


def test_of_parameters_only_those_that_are_no_secret_are_printed() -> None:
    url = "https://a:1/write?db=m&u=us&precision=ms&p=${env:P}"
    found = convert(collector({"kafka": {}}, {"otlphttp": {"endpoint": url}}))
    assert found.config["sinks"]["otlp"]["endpoint"] == url.replace("=us", "=${env:OTLPHTTP_U}")
    found = convert(collector({"kafka": {}}, {"otlp": {"endpoint": "${OTLP}?p=s3cret"}}))
    assert not [note for note in notes(found) if "s3cret" in note]
    given = yaml.safe_load(
        collector(
            {"kafka": {"auth": {"sasl": {"mechanism": "OAUTHBEARER", "oauthbearer_token_source": "oauth2client"}}}}, {}
        )
    )
    given["extensions"] = {"oauth2client": TOKENS | {"token_url": "https://id/token?code=s3cret"}}
    security = convert(yaml.safe_dump(given)).config["kafka"]["security"]
    assert security["token_endpoint_url"] == "https://id/token?code=${env:OAUTH2CLIENT_CODE}"


def test_secrets_of_one_name_have_a_variable_each() -> None:
    exporters = {name: {"endpoint": "https://a:1", "headers": {"x": f"of {name}"}} for name in ("otlp/a-b", "otlp/a.b")}
    found = convert(collector({"kafka": {}}, exporters))
    assert [sink["headers"]["x"] for sink in found.config["sinks"].values()] == [
        "${env:OTLP_A_B_X}", "${env:OTLP_A_B_X_1}",
    ]  # fmt: skip


def test_a_dollar_is_read_as_the_collector_reads_it() -> None:
    policy: dict[str, Any] = {"name": "a", "type": "string_attribute"}
    values = ["^/healthz$$", "^/ready$", "$${env:A}"]
    policy["string_attribute"] = {"key": "http.route", "values": values, "enabled_regex_matching": True}
    found = convert(collector({"kafka": {}}, {}, policies=[policy]))
    config = parse(written(found.config), "tailrace.yaml", {})
    block = config.sampling.policies[0].string_attribute
    assert block is not None
    assert block.values == ["^/healthz$", "^/ready$", "${env:A}"]


WAITS = st.sampled_from([None, 5, "0s", "10s", "1m30s", "10m", "15m", "2h", "13h", "-1s", "100us", "1.5h"])
NAMES = st.sampled_from(
    ["a:9092", "a", "", "a/b", "ü", "a:99999", "http://a", "https://u:p@a:4317", "unix:///a", "dns:///a:1"]
)
TOPICS = st.sampled_from(["a", "otlp_spans", "tailrace.spans", "a b", "^a", "", 5, None])
POLICIES = st.lists(st.sampled_from([case.policies for case in cases(configs=40)]), max_size=2).map(
    lambda several: [policy for policies in several for policy in policies]
)


@settings(max_examples=200, deadline=None)
@given(
    waits=st.fixed_dictionaries({}, optional={"decision_wait": WAITS, "decision_wait_after_root_received": WAITS}),
    block=st.fixed_dictionaries({}, optional={"sample_on_first_match": st.booleans(), "policies": POLICIES}),
    receivers=st.lists(st.fixed_dictionaries({"brokers": NAMES | st.lists(NAMES), "topic": TOPICS}), max_size=2),
    exporters=st.dictionaries(
        st.sampled_from(["otlp", "otlphttp", "otlp/a b", "otlp/1", "kafka", "kafka/x", "otlp_http/é"]),
        st.fixed_dictionaries({"endpoint": NAMES, "brokers": NAMES, "topic": TOPICS}),
        max_size=3,
    ),
    logs=st.none()
    | st.dictionaries(
        st.sampled_from(["otlp", "otlphttp/1", "elasticsearch", "elasticsearch/x"]),
        st.fixed_dictionaries({"endpoint": NAMES}, optional={"logs_index": TOPICS, "user": TOPICS, "password": TOPICS}),
        max_size=2,
    ),
)
def test_what_is_converted_without_a_gap_is_valid(
    waits: dict[str, Any],
    block: dict[str, Any],
    receivers: list[Any],
    exporters: dict[str, Any],
    logs: dict[str, Any] | None,
) -> None:
    named = {f"kafka/{i}": receiver for i, receiver in enumerate(receivers)}
    found = convert(collector(named, exporters, logs, **waits, **block))
    if not mattering(found):
        valid(found)


LEAVES = st.sampled_from(
    ["a", "${env:X}", "5s", "kafka", "tail_sampling", "always_sample", "latency", "ottl_condition", "and", "propagate"]
) | st.sampled_from([None, True, 5, -1, 1.5, float("nan"), date(2024, 12, 12), b"x", {"a"}])
SHAPES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["a", "name", "type", 5]), below),
)
CLIENT: dict[str, Any] = {
    "tls": {"insecure": True, "ca_file": "/ca", "key_pem": "x", "tpm": {"enabled": True}, "min_version": "1.2"},
    "headers": {"a": "b"},
}
LOG_IN: dict[str, Any] = {"auth": {"sasl": {"mechanism": "OAUTHBEARER", "oauthbearer_token_source": "oauth2client/id"}}}
SERIES: dict[str, Any] = {
    "endpoint": "https://u:p@a/?token=b",
    "auth": {"authenticator": "headers_setter"},
    "add_metric_suffixes": False,
    "external_labels": {"a": "b"},
    "resource_to_telemetry_conversion": {"enabled": True},
    "target_info": {"enabled": False},
}


def secured() -> dict[str, Any]:
    """LOGS with ways to log in, and Prometheus."""
    found: dict[str, Any] = yaml.safe_load(LOGS)
    found["receivers"]["kafka"] |= CLIENT | LOG_IN
    found["exporters"]["otlp/jaeger"] |= CLIENT | {"auth": {"authenticator": "bearertokenauth/scheme"}}
    found["exporters"]["prometheusremotewrite"] = CLIENT | SERIES
    found["extensions"] |= EXTENSIONS | {"oauth2client/id": TOKENS}
    found["service"]["pipelines"]["metrics"]["exporters"].append("prometheusremotewrite")
    return found


WHOLE: dict[str, Any] = {
    **secured(),
    "processors": {
        "resource": {"attributes": [{"key": "a", "action": "delete"}]},
        "tail_sampling": {
            **{key: "10s" for key in ("decision_wait", "decision_wait_after_root_received")},
            "sample_on_first_match": True,
            "policies": [
                {"name": "a", "type": "latency", "latency": {"threshold_ms": 5}},
                {
                    "name": "b",
                    "type": "ottl_condition",
                    "ottl_condition": {"error_mode": "propagate", "span": ["true"]},
                },
                {"name": "c", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 5}},
            ],
        },
    },
}


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(each for key, value in below for each in places(value, (*path, key)))]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = replaced(copied[path[0]], path[1:], value)
    return copied


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(places(WHOLE)), value=SHAPES, embedded=st.booleans())
def test_whatever_is_in_it_is_converted_or_refused(place: tuple[Any, ...], value: Any, embedded: bool) -> None:
    text = yaml.safe_dump(replaced(WHOLE, place, value))
    with suppress(ConfigError):
        found = convert(yaml.safe_dump({"data": {"a": text}}) if embedded else text)
        written(found.config, found.left_out)


@settings(max_examples=100, deadline=None)
@given(
    at=st.integers(0, len(COLLECTOR)), put=st.text(alphabet="[]{}:?-!&*|>\"'a0 \n", max_size=4), cut=st.integers(0, 9)
)
def test_whatever_is_wrong_with_its_text_is_refused(at: int, put: str, cut: int) -> None:
    with suppress(ConfigError):
        found = convert(COLLECTOR[:at] + put + COLLECTOR[at + cut :])
        written(found.config, found.left_out)


JOINED = """\
receivers: {kafka: {brokers: [b:1]}}
processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}, filter/health: {}}
connectors: {forward/in: {}, forward/out: {}}
exporters: {otlp: {endpoint: "a:1"}}
service:
  pipelines:
    traces: {receivers: [kafka], processors: [filter/health], exporters: [forward/in]}
    traces/sample: {receivers: [forward/in], processors: [tail_sampling], exporters: [forward/out]}
    traces/out: {receivers: [forward/out], processors: [], exporters: [otlp]}
    traces/else: {receivers: [otlp], processors: [], exporters: [otlp]}
"""


def test_pipelines_that_a_connector_joins_are_told_with_what_is_in_them() -> None:
    found = convert(JOINED)
    assert {gap.key: gap.why for gap in found.gaps if "not looked at" in gap.why and gap.matters} == {
        "service.pipelines.traces": "not looked at: tail_sampling is not in it, but through forward/in it is joined "
        "with one that has it: take over by hand what is in it, kafka, filter/health",
        "service.pipelines.traces/out": "not looked at: tail_sampling is not in it, but through forward/out it is "
        "joined with one that has it: take over by hand what is in it, otlp",
    }


def test_a_pipeline_that_several_connectors_join_is_told_as_well() -> None:
    first = "traces/in: {receivers: [kafka/raw], processors: [attributes], exporters: [forward/first]}"
    text = JOINED.replace("  pipelines:\n", f"  pipelines:\n    {first}\n")
    text = text.replace("forward/out: {}", "forward/out: {}, forward/first: {}")
    found = convert(text.replace("traces: {receivers: [kafka]", "traces: {receivers: [forward/first]"))
    told = {gap.key: gap.why for gap in found.gaps if "not looked at" in gap.why and gap.matters}
    assert told.keys() == {f"service.pipelines.traces{name}" for name in ("", "/in", "/out")}
    assert told["service.pipelines.traces/in"].endswith("take over by hand what is in it, kafka/raw, attributes")


CONFIGURATION = """\
receivers: {kafka: {brokers: ["k1:9092"], traces: {topic: my_spans}}}
exporters: {otlp: {endpoint: "jaeger:4317", tls: {insecure: true}}}
service: {pipelines: {traces: {receivers: [kafka], processors: [tail_sampling], exporters: [otlp]}}}
"""
TAKEN_IN = "&base {processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}}}"


@pytest.mark.parametrize("merge", ["*base", "[*base]", "[{}, *base]"])
@pytest.mark.parametrize("within", [False, True], ids=["the file", "a chart"])
def test_what_a_mapping_takes_in_is_a_part_of_it(merge: str, within: bool) -> None:
    """And no configuration of its own."""
    text = f"<<: {merge}\n{CONFIGURATION}"
    text = f"common: {TAKEN_IN}\n" + ("config:\n" + textwrap.indent(text, "  ") if within else text)
    found = convert(text)
    assert [each["topic"] for each in found.config["inputs"]] == ["my_spans"]
    assert found.config["kafka"]["bootstrap_servers"] == ["k1:9092"]
    assert not mattering(found)


def test_pipelines_of_which_none_has_the_processor_are_told() -> None:
    found = convert(JOINED.replace("processors: [tail_sampling]", "processors: []"))
    assert "service.pipelines: nothing of them is taken over for traces: tail_sampling is in none" in mattering(found)


def test_the_wait_of_groupbytrace_is_told() -> None:
    found = convert(JOINED.replace("[tail_sampling]", "[groupbytrace, tail_sampling]"))
    assert any("add its `wait_duration` to `sampling.decision_wait`" in each for each in mattering(found))


@pytest.mark.parametrize("others", [0, 1])
def test_an_inverted_match_was_a_veto(others: int) -> None:
    """It kept traces that older Collectors drop: those of health checks that are slow."""
    block = {"key": "http.url", "values": ["/health"], "invert_match": True}
    policies = [{"name": "n", "type": "string_attribute", "string_attribute": block}]
    policies += [{"name": "slow", "type": "latency", "latency": {"threshold_ms": 9}}] * others
    found = convert(yaml.safe_dump({"tail_sampling": {"policies": policies}}))
    assert any("write a `drop` policy if yours does" in gap.why for gap in found.gaps) == bool(others)


def test_within_not_no_condition_is_left_out() -> None:
    """With fewer of them it would drop what a Collector keeps."""
    conditions = {"type": "ottl_condition", "ottl_condition": {"span": ['name == "a"', 'parent_span_id == "b"']}}
    refused = {
        "name": "n",
        "type": "drop",
        "drop": {
            "drop_sub_policy": [{"type": "not", "not": {"not_sub_policy": {**conditions, "name": "x"}}, "name": "y"}]
        },
    }
    kept = {"name": "k", "type": "drop", "drop": {"drop_sub_policy": [{**conditions, "name": "x"}]}}
    found = convert(yaml.safe_dump({"tail_sampling": {"policies": [refused, kept]}}))
    assert [policy["name"] for policy in found.config["sampling"]["policies"]] == ["k"]


@pytest.mark.parametrize("indent", [0, 2], ids=["as text", "as a mapping"])
def test_a_configuration_is_found_in_an_umbrella_charts_values(indent: int) -> None:
    block = "processors: {tail_sampling: {policies: [{name: all, type: always_sample}]}}"
    text = f"image: x\nagents:\n  gateway:\n    extraConfig: {'' if indent else '|'}\n      {block}\n"
    assert convert(text).config["sampling"]["policies"] == [{"name": "all", "type": "always_sample"}]
