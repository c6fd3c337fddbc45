"""From a file to a configuration: interpolation, positions, hints; every problem at once."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.configuration.config_file import InvalidConfig, load, parse
from pipeline.configuration.yaml_tree import ANYWHERE, CONNECTIONS, Problem, read
from tests.pipeline.configs import MINIMAL, as_yaml

ROOT = Path(__file__).parents[3]
NO_DURATION = "is not a duration; write a number with a unit, such as 500ms, 30s, 15m or 2h"


def problems(text: str, environ: dict[str, str] | None = None) -> list[Problem]:
    try:
        parse(text, "x.yaml", environ or {})
    except InvalidConfig as error:
        return error.problems
    return []


def interpolated(value: str, environ: dict[str, str] | None = None, folder: Path = Path("/")) -> Any:
    """What `value`, as it stands in a file, comes out as."""
    tree = read(f"a: {value}\n", folder, environ or {})
    assert not tree.problems, tree.problems
    return tree.data["a"]


def test_every_problem_at_once_each_with_its_place() -> None:
    found = problems(
        "kafka:\n"
        "  bootstrap_servers: [a:9092]\n"
        "  partitons: 3\n"
        "inputs:\n"
        "  - {topic: otlp_spans, signal: traces}\n"
        "  - topic: x\n"
        "    signal: profiles\n"
        "sampling:\n"
        "  decision_wait: 30\n"
        "  policies: []\n"
        "logs: {max_skew: 0s, max_skew: 1s}\n"
    )
    assert [(p.line, p.column, p.key) for p in found] == [
        (3, 3, "kafka.partitons"),
        (7, 5, "inputs[1].signal"),
        (9, 3, "sampling.decision_wait"),
        (10, 3, "sampling.policies"),
        (11, 8, "logs.max_skew"),
        (11, 22, "logs.max_skew"),
    ]
    assert found[0].hint == "did you mean partitions?"
    assert "500ms" in found[2].rule
    assert found[-1].rule == "is there twice; the first is in line 11"


def test_a_wrong_key_hides_no_rule_about_others() -> None:
    """What rests on a key that is wrong is not told: decision_wait and prefix may be right when they are mended."""
    found = problems(
        "kafka: {bootstrap_servers: [a:9092], prefx: raw, heartbeat_interval: 9s}\n"
        "inputs:\n"
        "  - {topic: x, signal: profiles}\n"
        "  - {topic: tailrace.x, signal: traces}\n"
        "  - {topic: y, signal: metrics, encoding: text}\n"
        "sampling:\n"
        "  decision_wait: 30\n"
        "  late_horizon: 1s\n"
        "  policies:\n"
        "    - {name: a, type: latency, latency: {threshold_ms: x}}\n"
        "    - {name: b, type: status_code, status_codes: {status_codes: [ERROR]}}\n"
        "    - {name: c, type: latency}\n"
        "metrics: {series_per_metric: 2, span_metrics: {enabled: maybe, dimensions: [le]}}\n"
        "sinks:\n"
        "  jaeger: {endpoint: 'http://a', timout: 5s}\n"
        "  elasticsearch: {}\n"
        "limits: {max_message_bytes: 9, max_batch_bytes: 2, max_span_bytes: 0}\n"
    )
    assert [p.key for p in found] == [
        "kafka.prefx",
        "kafka.heartbeat_interval",
        "inputs[0].signal",
        "inputs[2].encoding",
        "sampling.decision_wait",
        "sampling.policies[0].latency.threshold_ms",
        "sampling.policies[1].status_codes",
        "sampling.policies[2].latency",
        "metrics.series_per_metric",
        "metrics.span_metrics.enabled",
        "metrics.span_metrics.dimensions[0]",
        "sinks.jaeger.timout",
        "sinks.elasticsearch.endpoint",
        "limits.max_batch_bytes",
        "limits.max_span_bytes",
    ]
    assert [(p.line, p.column) for p in found if p.key.startswith("inputs")] == [(3, 16), (5, 33)]


def test_mistakes_of_ten_kinds_are_named_at_once() -> None:
    """Names and topics that are there twice, and blocks that are missing, came up once others had been mended."""
    found = problems(
        "kafka: {bootstrap_servers: [a:9092], partition: 3}\n"
        "inputs:\n"
        "  - {topic: x, signal: traces}\n"
        "  - {topic: x, signal: logs}\n"
        "  - {topic: y, signal: profiles}\n"
        "sampling:\n"
        "  decision_wait: 30\n"
        "  policies:\n"
        "    - {name: a, type: latency, latency: {threshold_ms: -1}}\n"
        "    - {name: a, type: always_sample}\n"
        "    - {name: b, type: latensy, latency: {threshold_ms: 1}}\n"
        "    - {name: c, type: and}\n"
        "    - {name: d, type: probabilistic}\n"
        "sinks:\n"
        "  jeager: {endpoint: 'http://a'}\n"
        "  prometheus: {}\n"
        "  otlp: {endpoint: 'http://a', timout: 5s}\n"
    )
    assert [p.key for p in found] == [
        "kafka.partition",
        "inputs[1].topic",
        "inputs[2].signal",
        "sampling.decision_wait",
        "sampling.policies[0].latency.threshold_ms",
        "sampling.policies[1].name",
        "sampling.policies[2].type",
        "sampling.policies[3].and",
        "sampling.policies[4].probabilistic",
        "sinks.jeager",
        "sinks.prometheus.endpoint",
        "sinks.otlp.timout",
    ]


def test_policies_that_only_together_are_too_much() -> None:
    """A worker would have found out."""
    fields = [[f"key{i}.{j}" for j in range(16)] for i in range(5)]
    policies = [
        {"name": f"p{i}", "type": "dynamic", "dynamic": {"field_list": names, "goal_sample_rate": 2}}
        for i, names in enumerate(fields)
    ]
    (problem,) = problems(as_yaml({**MINIMAL, "sampling": {"policies": policies}}))
    assert problem.key == "sampling.policies"
    assert problem.rule == "field_list: more than 64 different fields in all policies together"


def test_the_text_is_one_line_per_problem() -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse("kafka: 1\n", "dir/x.yaml", {})
    lines = str(raised.value).splitlines()
    assert len(lines) == len(raised.value.problems) == 3
    assert lines[0] == "dir/x.yaml:1:1: kafka: must be a mapping of keys (found 1)"
    assert lines[1] == "dir/x.yaml:1:1: inputs: is required"
    assert raised.value.path == "dir/x.yaml"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file(text: str) -> None:
    assert [p.rule for p in problems(text)] == ["the file is empty"]


@pytest.mark.parametrize("text", ["[1, 2]", "text", "12"])
def test_not_a_mapping(text: str) -> None:
    assert [p.rule for p in problems(text)] == ["must be a mapping of sections"]


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: b: c\n", "\ta: 1\n", "a: 'x\n", "a: *nowhere\n", "a: \x00\n", "a: 1\n---\nb: 2\n"]
)
def test_not_yaml(text: str) -> None:
    (problem,) = problems(text)
    assert problem.rule.startswith("not valid YAML: ")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("\ta: 1\n", "indent with spaces"),
        ("a:\n  b: 1\n   c: 2\n", ""),
        ("a: {b: ${C}}\n", "between braces or brackets ${...} must be in quotes"),
        ("a: [b, ${C}]\n", "between braces or brackets ${...} must be in quotes"),
        ("a:\n   b: 1\n  c: 2\n", "is it indented as the lines around it?"),
    ],
)
def test_what_is_usually_behind_it(text: str, hint: str) -> None:
    assert [problem.hint for problem in problems(text)] == [hint]


def test_a_forbidden_character_and_a_pit_of_brackets() -> None:
    (problem,) = problems("a: 1\nb: \x07\n")
    assert (problem.line, problem.column) == (2, 4)
    assert [p.rule for p in problems("[" * 5000)] == ["is nested too deeply"]


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No such file"):
        load(tmp_path / "x.yaml", {})
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="UTF-8"):
        load(tmp_path / "x.yaml", {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${A}", "one"),
        ('"${A}"', "one"),
        ("${env:A}", "one"),
        ("x${A}y${B:-z}", "xoneyz"),
        ("${B:-}", None),
        ('"${B:-}"', ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", None),
        ("${B:-http://a:1/?x=y}", "http://a:1/?x=y"),
        ("$${A}", "${A}"),
        ("$A $$ {A}", "$A $$ {A}"),
        ("${N}", "4"),
    ],
)
def test_interpolation(value: str, expected: Any) -> None:
    assert interpolated(value, {"A": "one", "EMPTY": "", "N": "4"}) == expected


def test_what_is_filled_in_is_not_read_as_yaml_again() -> None:
    assert interpolated("${A}", {"A": "a: [b]\n${B}"}) == "a: [b]\n${B}"


def test_a_variable_can_be_a_number_or_a_list_of_brokers() -> None:
    data: dict[str, Any] = copy.deepcopy(MINIMAL)
    data["kafka"] = {"bootstrap_servers": "${BROKERS}", "partitions": "${N}", "transactions": "${TX:-false}"}
    config = parse(as_yaml(data), "x.yaml", {"BROKERS": "a:1,b:2", "N": "16"})
    assert config.kafka.bootstrap_servers == ["a:1", "b:2"]
    assert (config.kafka.partitions, config.kafka.transactions) == (16, False)


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p\nw \n")
    assert interpolated(f"${{file:{tmp_path}/password}}") == "p\nw "
    assert interpolated("${file:password}", folder=tmp_path) == "p\nw "


def test_interpolation_problems_are_all_told_once(tmp_path: Path) -> None:
    text = as_yaml(MINIMAL | {"kafka": {"bootstrap_servers": "${NOT_SET}", "prefix": "${1:x}", "start": "${A"}})
    text += "telemetry: {host: '${file:/not/there}'}\n"
    assert [(p.key, p.rule.split(":")[0]) for p in problems(text)] == [
        ("kafka.bootstrap_servers", "environment variable NOT_SET is not set"),
        ("kafka.prefix", "'${1"),
        ("kafka.start", "'${' is not an interpolation"),
        ("telemetry.host", "file /not/there cannot be read"),
    ]


def test_without_secrets_something_else_stands_for_what_is_not_here() -> None:
    """A text, a URL, a number, a duration: whatever the key takes. What is wrong is told all the same."""
    data = copy.deepcopy(MINIMAL) | {
        "kafka": {
            "bootstrap_servers": ["${BROKER}"],
            "partitions": "${N}",
            "security": {"password": "${file:/not/there}"},
        },
        "sinks": {
            "elasticsearch": {"endpoint": "${ES}", "auth": {"api_key": "${KEY}"}},
            "jaeger": {"endpoint": "http://${H}:${P}"},
        },
        "telemetry": {"port": "${PORT}"},
    }
    data["sampling"] |= {"decision_wait": "${WAIT}"}
    data["kafka"]["security"] |= {"protocol": "SASL_SSL", "username": "me", "sasl_mechanism": "PLAIN"}
    text = as_yaml(data)
    assert {problem.rule for problem in problems(text)} >= {
        f"environment variable {name} is not set" for name in ["N", "ES", "KEY", "WAIT"]
    }
    config = parse(text, "a.yaml", {"N": "7"}, ANYWHERE)
    assert config.kafka.partitions == 7
    assert config.sinks["elasticsearch"].endpoint is not None
    with pytest.raises(InvalidConfig, match=r"kafka\.partitons"):
        parse(text.replace("partitions", "partitons"), "a.yaml", {}, ANYWHERE)


@pytest.mark.parametrize(
    "line",
    [
        "sampling: {policies: [{name: a, type: numeric_attribute, numeric_attribute: {key: k, max_value: '${M}'}}]}",
        "telemetry: {log_level: '${L}'}",
        "sinks: {elasticsearch: {endpoints: ['${A}', '${B}']}}",
        "kafka: {bootstrap_servers: 'a:1', session_timeout: '${T}'}",
        "inputs: [{topic: '${A}', signal: '${S}'}]",
        "sampling: {policies: [{name: a, type: latency, latency: {threshold_ms: 5000, upper_threshold_ms: '${U}'}}]}",
        "sampling: {policies: [{name: a, type: span_count, span_count: {min_spans: 5, max_spans: '${F}'}}]}",
        "sampling: {policies: [{name: a, type: always_sample, ids: {from_percentage: 20, to_percentage: '${F}'}}]}",
        "telemetry: {host: '${H}'}",
        "kafka: {bootstrap_servers: 'a:1', security: "
        "{protocol: '${A}', sasl_mechanism: '${B}', username: '${C}', password: '${D}'}}",
    ],
)
def test_whatever_is_missing_is_taken_for_right(line: str) -> None:
    key = line.split(":")[0]
    text = as_yaml({name: value for name, value in MINIMAL.items() if name != key}) + line + "\n"
    assert problems(text)
    parse(text, "a.yaml", {}, ANYWHERE)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "sinks: {elasticsearch: {endpoint: 'https://x', auth: {password: '${P}'}}}",
            "sinks.elasticsearch.auth: username and password belong together",
        ),
        (
            "kafka: {bootstrap_servers: 'a:1', security: "
            "{protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: '${P}'}}\n"
            "sinks: {elasticsearch: {endpoint: 'https://x', auth: {password: p}}}",
            "sinks.elasticsearch.auth: username and password belong together",
        ),
        (
            "sinks: {jaeger: {endpoint: '${E}'}, elasticsearch: {endpoint: 'https://a', endpoints: ['https://b']}}",
            "sinks.elasticsearch.endpoints: one of endpoint and endpoints is enough",
        ),
        (
            "sinks: {jaeger: &j {endpoint: 'http://a', timeout: '${T}'}, jaeger/b: {<<: *j, timeout: -5}}",
            "sinks.jaeger/b.timeout: -5 is not a duration; write a number with a unit, such as 500ms, 30s, 15m or 2h",
        ),
    ],
)
def test_that_a_key_is_there_is_known_without_its_value(lines: str, told: str) -> None:
    keys = {line.split(":")[0] for line in lines.splitlines()}
    text = as_yaml({name: value for name, value in MINIMAL.items() if name not in keys}) + lines + "\n"
    with pytest.raises(InvalidConfig) as refused:
        parse(text, "a.yaml", {}, ANYWHERE)
    assert [f"{problem.key}: {problem.rule}" for problem in refused.value.problems] == [told]


def test_what_a_command_goes_by_must_be_here() -> None:
    """A policy that nobody has would be tested, and topics of a name that nobody gave be made."""
    text = as_yaml(
        MINIMAL | {"kafka": {"bootstrap_servers": "a:1", "prefix": "${P}"}, "sinks": {"jaeger": {"endpoint": "${E}"}}}
    )
    with pytest.raises(InvalidConfig) as refused:
        parse(text, "a.yaml", {}, CONNECTIONS)
    assert [problem.key for problem in refused.value.problems] == ["kafka.prefix"]


def test_what_came_from_outside_is_never_shown() -> None:
    data: dict[str, Any] = copy.deepcopy(MINIMAL)
    data["kafka"] |= {"prefix": "${S}", "partitions": "${S}", "security": {"password": ["hunter2"], "protocol": "${S}"}}
    data["sinks"] = {"jaeger": {"endpoint": "${S}", "auth": {"api_key": 7777777}}}
    shown = "\n".join(map(str, problems(as_yaml(data), {"S": "hunter2 /"})))
    assert shown.count("\n") >= 4
    assert "hunter2" not in shown
    assert "7777777" not in shown


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("name: '${S}', type: latency", "missing; policy '${S}' of type: latency needs this block"),
        (
            "name: a, type: latency, latency: {threshold_ms: '${N}', upper_threshold_ms: 70}",
            "70 must be greater than threshold_ms (${N}), or 0 for no upper bound",
        ),
        (
            "name: a, type: string_attribute, string_attribute: "
            "{key: k, values: ['(${env:S}'], enabled_regex_matching: true}",
            "'(${env:S}' is not a regular expression of RE2: missing ): (${env:S}",
        ),
        (
            "name: a, type: dynamic, dynamic: {goal_sample_rate: 7, field_list: ['root.${S}', 'root.${S}']}",
            "'root.${S}' must be there once",
        ),
        (
            "name: a, type: composite, composite: {max_total_spans_per_second: 7, policy_order: [c], "
            "composite_sub_policy: [{name: '${S}', type: always_sample}]}",
            "'c' is none of the sub-policies (${S})",
        ),
        (
            "name: a, type: drop, drop: {drop_sub_policy: [{name: '${S}', type: and, "
            "and: {and_sub_policy: [{name: b, type: always_sample}]}}]}",
            "and must not stand here ('${S}'); every type but and, composite, drop may",
        ),
    ],
)
def test_what_came_from_outside_into_a_policy_is_named(policy: str, told: str) -> None:
    """Also where a rule of another key quotes it; the text of `1` in 10s or 100 is not taken for the variable."""
    text = as_yaml({name: value for name, value in MINIMAL.items() if name != "sampling"})
    text += f"sampling: {{policies: [{{{policy}}}], decision_wait: '${{ONE}}'}}\n"
    found = [problem.rule for problem in problems(text, {"S": "hunter2", "N": "100", "ONE": "1"})]
    assert found[0] == told
    assert found[1:] == ["'${ONE}' is not a duration; write a number with a unit, such as 500ms, 30s, 15m or 2h"]


def test_what_came_from_outside_into_another_section_is_named() -> None:
    kafka = {"bootstrap_servers": "a:1", "prefix": "${S}"}
    text = as_yaml(MINIMAL | {"kafka": kafka, "inputs": [{"topic": "hunter2.spans", "signal": "traces"}]})
    (found,) = problems(text, {"S": "hunter2"})
    assert found.rule == "names with ${S}. in front belong to the internal topics (kafka.prefix)"


@pytest.mark.parametrize(
    ("environ", "kafka", "rest", "told"),
    [
        ({"V": "1"}, {"partitions": "${V}", "metric_partitions": 0}, {}, "must be greater than or equal to 1"),
        (
            {"V": "latest"},
            {"prefix": "${V}", "start": "ear"},
            {},
            "'ear' is neither latest nor earliest nor a duration",
        ),
        (
            {"V": "kafka"},
            {"prefix": "${V}"},
            {"sinks": {"x": {"endpoint": "http://x"}}},
            "must be one of jaeger, otlp, ",
        ),
    ],
)
def test_what_only_looks_like_a_value_from_outside_stays(
    environ: dict[str, str], kafka: dict[str, Any], rest: dict[str, Any], told: str
) -> None:
    """A bound or a list of names: it would mislead, and say what the value is."""
    (found,) = problems(as_yaml(MINIMAL | {"kafka": {"bootstrap_servers": "a:1"} | kafka} | rest), environ)
    assert found.rule.startswith(told)
    assert "${" not in found.rule


def test_a_value_from_outside_that_is_there_more_than_twice_is_named_wherever_it_is() -> None:
    inputs = [{"topic": topic, "signal": "traces"} for topic in ("${S}", "${S}", "${env:S}")]
    found = problems(as_yaml(MINIMAL | {"inputs": inputs}), {"S": "hunter2"})
    assert [problem.key for problem in found] == ["inputs[1].topic", "inputs[2].topic"]
    assert "hunter2" not in str(found)


def test_what_a_merge_brought_in_and_something_else_replaced_is_passed_over() -> None:
    text = "sampling: {<<: {policies: [{name: '${S}'}]}, policies: hunter2, decision_wait: hunter2}\n"
    found = problems(as_yaml({k: v for k, v in MINIMAL.items() if k != "sampling"}) + text, {"S": "hunter2"})
    assert {problem.key for problem in found} == {"sampling.policies", "sampling.decision_wait"}


def test_anchors_and_merge_keys() -> None:
    text = (
        "kafka: {bootstrap_servers: [a:1]}\n"
        "inputs: [{topic: a, signal: traces}]\n"
        "sampling: {policies: [{name: all, type: always_sample}]}\n"
        "sinks:\n"
        "  jaeger: &j {endpoint: http://a, timeout: 5s, batch: &b {max_items: 7}}\n"
        "  jaeger/eu: {<<: *j, endpoint: http://b}\n"
        "  jaeger/us: {<<: [*j], batch: *b}\n"
    )
    sinks = parse(text, "x.yaml", {}).sinks
    assert (sinks["jaeger/eu"].endpoint, sinks["jaeger/eu"].timeout) == ("http://b", 5.0)
    assert sinks["jaeger/us"].batch.max_items == 7


def test_an_alias_inside_itself() -> None:
    assert "an alias must not contain itself" in [p.rule for p in problems("kafka: &a {security: *a}\n")]
    assert "<< takes a mapping, or a list of mappings" in [p.rule for p in problems("kafka: &a {<<: *a}\n")]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("telemetry: {log_level: on}", "found True: YAML's reading of on, off, yes and no; put it in quotes"),
        ("telemetry: {log_level: info}", "found 'info'; did you mean INFO?"),
        ("telemetry: {host: 127}", "found 127; put it in quotes"),
        ("telemetry: {decision_wait: 3s}", "it belongs to sampling"),
        ("telemetry: {prot: 1}", "did you mean port?"),
        ("telemetry: {zzz: 1}", "known here: host, port, token, public_metrics, log_level, metrics_level, live"),
        ("12: {}", "put it in quotes"),
        ("Telemetry: {}", "did you mean telemetry?"),
    ],
)
def test_hints(line: str, hint: str) -> None:
    (problem,) = problems(as_yaml(MINIMAL) + line + "\n")
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("line", "rule", "hint"),
    [
        ("telemetry: {token: hunter2}", "must have at least 16 characters", ""),
        ("telemetry: {tokn: x}", "unknown key", "did you mean token?"),
        ("telemetry: {live: {token: hunter2}}", "unknown key", "it belongs to telemetry"),
        ("sinks: {elasticsearch: {endpoint: http://a, index: shop}}", "unknown key", "did you mean dataset?"),
        ("sinks: {jaeger: {endpoint: a:1}}", "must begin with http:// or https://", "found 'a:1'"),
        ("logs: {max_skew: }", f"nothing {NO_DURATION}", ""),
        ("metrics: {interval: 40m}", "must be at least twice the interval (2400s), or 0s", "3600s by default"),
        ("metrics: {span_metrics: {namespace: '${B:-}'}}", "must match pattern '^[a-zA-Z_:][a-zA-Z0-9_:]*$'", ""),
        ("metrics:\n  span_metrics:\n    namespace: ${B:-}", "must be a valid string", "found nothing"),
    ],
)
def test_rules_in_words_and_nothing_secret(line: str, rule: str, hint: str) -> None:
    (problem,) = problems(as_yaml(MINIMAL) + line + "\n")
    assert (problem.rule, problem.hint) == (rule, hint)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("jager", "; did you mean jaeger?"),
        ("jaeger:prod", "; did you mean jaeger/prod?"),
        ("Elastic-search", "; did you mean elasticsearch/search?"),
        ("otlp/", "; did you mean otlp?"),
        ("tempo", ", such as otlp/tempo"),
        ("my tempo", ", such as otlp/my-tempo"),
    ],
)
def test_a_sink_of_no_kind_gets_the_kind_that_was_meant(name: str, meant: str) -> None:
    (problem,) = problems(as_yaml(MINIMAL) + f"sinks: {{'{name}': {{endpoint: http://a}}}}\n")
    assert problem.rule.endswith(f"alone or with /NAME behind it{meant}")


@pytest.mark.parametrize(
    ("policy", "key", "hint"),
    [
        ("type: and, and_sub_policy: []", "and_sub_policy", "it belongs to sampling.policies[0].and"),
        (
            "type: probabilistic, sampling_percentage: 5",
            "sampling_percentage",
            "it belongs to sampling.policies[0].prob",
        ),
        ("type: string_attribute, values: [x]", "values", "it belongs to sampling.policies[0].string_attribute"),
        ("type: status_code, status_codes: [ERROR]", "status_codes", "it belongs to sampling.policies[0].status_code"),
        ("type: or, or_sub_policy: []", "type", "found 'or'; write a policy for each, of which one is enough"),
        ("type: [or]", "type", ""),
    ],
)
def test_what_stands_beside_its_block_is_told_where_it_belongs(policy: str, key: str, hint: str) -> None:
    """There was a list of 23 keys instead."""
    found = problems(
        "kafka: {bootstrap_servers: [a:9092]}\ninputs: [{topic: x, signal: traces}]\n"
        f"sampling: {{policies: [{{name: a, {policy}}}]}}\n"
    )
    told = {problem.key: problem.hint for problem in found}[f"sampling.policies[0].{key}"]
    assert told.startswith(hint)


def test_every_entry_of_a_list_that_is_wrong_is_told_at_its_place() -> None:
    part = "{name: a, type: always_sample}"
    text = f"""\
kafka: {{bootstrap_servers: ["a:1"]}}
inputs: [{{topic: t, signal: traces}}]
sampling:
  policies:
  - name: x
    type: string_attribute
    string_attribute: {{key: k, enabled_regex_matching: true, values: ["(?!bot)", ok, "[a-"]}}
  - name: y
    type: ottl_condition
    ottl_condition: {{span: [kind > 2, "true", Len(name) > 1], spanevent: [a]}}
  - name: z
    type: composite
    composite:
      max_total_spans_per_second: 1
      composite_sub_policy: [{part}]
      policy_order: [b, a, a]
      rate_allocation: [{{policy: a}}, {{policy: c}}]
  - {{name: w, type: and, and: {{and_sub_policy: [{{name: a, type: drop, drop: {{drop_sub_policy: [{part}]}}}},
      {{name: b, type: and, and: {{and_sub_policy: [{part}]}}}}]}}}}
  - {{name: t, type: trace_state, trace_state: {{key: k, values: ["a,b", a, "c,d"]}}}}
  - {{name: e, type: drop, drop: {{drop_sub_policy: []}}}}
"""
    place = {(p.line, p.key.removeprefix("sampling.policies")): p.rule.split(";")[0] for p in problems(text)}
    assert place[7, "[0].string_attribute.values[0]"].startswith("'(?!bot)' is not a regular expression of RE2: ")
    assert place[18, "[3].and.and_sub_policy[0].type"] == "drop must not stand here ('a')"
    assert place[21, "[5].drop.drop_sub_policy"] == "must not be empty"
    assert set(place) == {
        (7, "[0].string_attribute.values[0]"), (7, "[0].string_attribute.values[2]"),
        (10, "[1].ottl_condition.span[0]"), (10, "[1].ottl_condition.span[2]"), (10, "[1].ottl_condition.spanevent[0]"),
        (16, "[2].composite.policy_order[0]"), (16, "[2].composite.policy_order[2]"),
        (17, "[2].composite.rate_allocation[1].policy"),
        (18, "[3].and.and_sub_policy[0].type"), (19, "[3].and.and_sub_policy[1].type"),
        (20, "[4].trace_state.values[0]"), (20, "[4].trace_state.values[2]"),
        (21, "[5].drop.drop_sub_policy"),
    }  # fmt: skip


def test_a_name_that_is_taken_says_by_whom() -> None:
    policies = [{"name": name, "type": "always_sample"} for name in ("a", "b", "a", "b", "a")]
    found = problems(as_yaml({**MINIMAL, "sampling": {"policies": policies}}))
    assert [(p.key, p.rule) for p in found] == [
        (f"sampling.policies[{n}].name", f"{name!r} is that of policies[{first}] already; names must be unique")
        for n, name, first in ((2, "a", 0), (3, "b", 1), (4, "a", 0))
    ]


def test_look_around_gets_what_to_write_instead() -> None:
    asked = {"key": "k", "enabled_regex_matching": True, "values": ["^(?!bot)"]}
    policies = [{"name": "a", "type": "string_attribute", "string_attribute": asked}]
    (problem,) = problems(as_yaml({**MINIMAL, "sampling": {"policies": policies}}))
    assert problem.rule.endswith("; look for what must not be there, with invert_match or `not`")


def test_dates_and_unknown_tags_are_problems_not_surprises() -> None:
    wrong = [
        "{host: 2026-01-01, log_level: !x y}",
        "{port: !!int '', live: !!bool maybe}",
        '{host: "${file:a\\0}", port: x}',
    ]
    for telemetry in wrong:
        rules = [p.rule for p in problems(as_yaml(MINIMAL) + f"telemetry: {telemetry}\n")]
        assert len(rules) == 2


@given(st.text(max_size=200))
def test_any_text_gives_a_configuration_or_problems(text: str) -> None:
    for problem in problems(text):
        assert problem.line >= 1
        assert problem.column >= 1


_KEYS = [
    (section, key)
    for section in ("kafka", "sampling", "logs", "metrics", "limits", "telemetry")
    for key in Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    if len(key) > 4
]


@given(st.sampled_from(_KEYS), st.integers(0, 100))
def test_a_letter_too_few_finds_the_key(key: tuple[str, str], at: int) -> None:
    section, right = key
    at %= len(right)
    wrong = right[:at] + right[at + 1 :]
    data: dict[str, Any] = copy.deepcopy(MINIMAL)
    data.setdefault(section, {})[wrong] = 1
    found = [p for p in problems(as_yaml(data)) if p.rule == "unknown key"]
    assert [p.hint for p in found] == [f"did you mean {right}?"]


def test_the_example_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "deploy/tailrace.yaml").read_text("utf-8")
    (tmp_path / "secret").write_text("hunter2-or-longer\n")
    config = parse(re.sub(r"\$\{file:[^}]*\}", f"${{file:{tmp_path}/secret}}", text), "deploy/tailrace.yaml", {})
    assert set(config.sinks) == {"jaeger", "elasticsearch", "prometheus"}
    assert config.kafka.bootstrap_servers == ["kafka-1:9093", "kafka-2:9093"]
    assert config.kafka.security.password is not None
    assert config.kafka.security.password.get_secret_value() == "hunter2-or-longer"


def test_the_example_shows_every_section() -> None:
    tree = read((ROOT / "deploy/tailrace.yaml").read_text("utf-8"), Path("/"), {})
    assert set(tree.data) == set(Config.model_fields) - {"limits", "regroup"}  # for few: deploy/tailrace-keyed.yaml
