"""`tailrace test`: what it prints and its exit codes; the examples in the documents and under deploy/ pass."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.cli import cli
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.repository import ROOT, blocks

POLICIES = [
    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
]


def spans(*status: int, trace: str = "4bf92f3577b34da6a3ce929d0e0e4736") -> dict[str, Any]:
    found = [
        {"traceId": trace, "spanId": f"{number:016x}", "name": f"s{number}", "status": {"code": code}}
        for number, code in enumerate(status, 1)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": found}]}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tailrace.yaml"
    path.write_text(as_yaml(MINIMAL | {"sampling": {"policies": POLICIES}}))
    return path


def run(config: Path, *cases: dict[str, Any], words: tuple[str, ...] = ()) -> Result:
    path = config.parent / "cases.yaml"
    path.write_text(as_yaml({"cases": list(cases)}))
    return CliRunner().invoke(cli, ["test", "--config", str(config), str(path), *words])


def test_a_case_that_passes(config: Path) -> None:
    result = run(
        config, {"name": "kept", "spans": spans(0, 2), "expect": {"verdict": "kept", "policy": "errors"}}, words=("-v",)
    )
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "✓ kept",
        "    2 spans, 0 logs, 0 ms, randomness ce929d0e0e4736",
        "    ● errors [status_code] status_codes: [ERROR]: keeps; met by span 0000000000000002 s2",
        "    ○ slow [latency] threshold_ms: 500: no",
        "1 case, 0 failed",
    ]


def test_names_of_spans_cannot_command_the_terminal(config: Path) -> None:
    hostile = spans(2)
    hostile["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] = "s\x1b[2J"
    result = run(config, {"name": "kept", "spans": hostile, "expect": {"verdict": "kept"}}, words=("-v",))
    assert result.exit_code == 0, result.output
    assert r" s\x1b[2J" in result.output


def test_a_case_that_fails_shows_expected_got_and_all_votes(config: Path) -> None:
    wrong = {"verdict": "kept", "policy": "slow", "votes": ["errors", "slow"]}
    result = run(config, {"name": "a", "spans": spans(0), "expect": wrong})
    assert result.exit_code == 1
    shown = [line.split() for line in result.output.splitlines()]
    assert ["verdict", "-", "kept", "(expected)"] in shown
    assert ["+", "dropped", "(got)"] in shown
    assert ["policy", "-", "slow", "(expected)"] in shown
    assert ["votes", "-", "errors,", "slow", "(expected)"] in shown
    assert any(line[:2] == ["○", "slow"] for line in shown)
    assert result.output.endswith("1 case, 1 failed\n")


def test_what_a_limit_keeps_is_told_by_votes(tmp_path: Path) -> None:
    """No case could expect a drop beside it, and nothing said why."""
    path = tmp_path / "tailrace.yaml"
    rate = {"name": "rate", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 10}}
    path.write_text(as_yaml(MINIMAL | {"sampling": {"policies": [*POLICIES, rate]}}))
    failing = run(path, {"name": "calm", "spans": spans(0), "expect": {"verdict": "dropped"}})
    assert failing.exit_code == 1
    assert "kept by rate alone, asked as if there were no other traces: compare `votes`" in failing.output
    failing = run(path, {"name": "broken", "spans": spans(2), "expect": {"verdict": "dropped"}})
    assert "compare `votes`" not in failing.output  # an error is kept, whatever the limit says
    passing = run(path, {"name": "calm", "spans": spans(0), "expect": {"verdict": "kept", "votes": ["rate"]}})
    assert passing.exit_code == 0, passing.output


def test_a_shadow_votes_without_effect(tmp_path: Path) -> None:
    path = tmp_path / "tailrace.yaml"
    policies = [POLICIES[0], {"name": "all", "type": "always_sample", "shadow": True}]
    path.write_text(as_yaml(MINIMAL | {"sampling": {"policies": policies}}))
    failed = {"name": "a", "spans": spans(2), "expect": {"verdict": "kept", "votes": ["errors", "all"]}}
    calm = {"name": "b", "spans": spans(0), "expect": {"verdict": "dropped", "policy": "", "votes": ["all"]}}
    result = run(path, failed, calm)
    assert result.exit_code == 0, result.output


def test_policies_see_what_redaction_leaves(tmp_path: Path) -> None:
    """As they do of live traffic."""
    asked = {"name": "user", "type": "string_attribute"}
    policies = [
        asked | {"string_attribute": {"key": "user", "values": ["ada@example.org"]}},
        asked | {"name": "masked", "string_attribute": {"key": "user", "values": ["****"]}},
    ]
    redaction = {"allow_all_keys": True, "presets": ["email"]}
    path = tmp_path / "tailrace.yaml"
    path.write_text(as_yaml(MINIMAL | {"redaction": redaction, "sampling": {"policies": policies}}))
    sent = spans(0)
    attributes = [{"key": "user", "value": {"stringValue": "ada@example.org"}}]
    sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = attributes
    result = run(path, {"name": "a", "spans": sent, "expect": {"verdict": "kept", "votes": ["masked"]}})
    assert result.exit_code == 0, result.output


def test_spans_as_text_and_in_a_file(config: Path) -> None:
    (config.parent / "failed.json").write_text(json.dumps(spans(2)))
    kept = {"verdict": "kept"}
    result = run(
        config,
        {"name": "text", "spans": json.dumps(spans(2)), "expect": kept},
        {"name": "file", "spans_file": "failed.json", "expect": kept},
    )
    assert result.output == "✓ text\n✓ file\n2 cases, 0 failed\n"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"spans": spans(0), "expect": {"verdict": "lost"}}, "cases[0].expect.verdict: must be one of kept, dropped"),
        ({"spans": spans(0), "expect": {"verdict": "kept"}, "span": 1}, "cases[0].span: unknown key"),
        ({"expect": {"verdict": "kept"}}, "spans: is required"),
        ({"spans": spans(0), "spans_file": "x", "expect": {"verdict": "kept"}}, "must not stand beside spans"),
        ({"spans_file": "nowhere.json", "expect": {"verdict": "kept"}}, "cannot be read: No such file"),
        (
            {"spans": {"resourceSpan": []}, "expect": {"verdict": "kept"}},
            "cases[0].spans.resourceSpan: unknown key of OTLP's TracesData",
        ),
        (
            {"spans": {"resourceSpans": []}, "expect": {"verdict": "kept"}},
            "cases[0].spans: must hold one trace, found no spans",
        ),
        ({"spans": "{", "expect": {"verdict": "kept"}}, "cases[0].spans: is no OTLP-JSON"),
        (
            {"spans": {"a": date(2024, 12, 12)}, "expect": {"verdict": "kept"}},
            "cases[0].spans: is no OTLP-JSON: JSON has no date: put it in quotes",
        ),
        ({"spans": "\ud800", "expect": {"verdict": "kept"}}, "cases[0].spans: is no UTF-8"),
        ({"spans": spans(0, trace="00"), "expect": {"verdict": "kept"}}, "cases[0].spans: "),
        ({"spans": spans(0), "expect": {"verdict": "kept", "policy": "error"}}, "expects policy 'error', which"),
    ],
)
def test_wrong_files_are_refused_with_line_key_and_rule(config: Path, case: dict[str, Any], said: str) -> None:
    result = run(config, {"name": "wrong"} | case)
    assert result.exit_code == 78, result.output
    assert said in result.output
    assert re.search(r"cases.yaml:\d+:", result.output)


def test_what_a_worker_would_pass_over_in_a_case_is_refused(config: Path) -> None:
    """A case with `statuss: {code: 2}` passed as one that is dropped."""
    wrong = spans(0)
    (span,) = wrong["resourceSpans"][0]["scopeSpans"][0]["spans"]
    span |= {"statuss": {"code": 2}, "attributes": [{"key": "a", "value": {"intvalue": 1}}], "start_time_unix_nano": 5}
    (config.parent / "wrong.json").write_text(json.dumps(wrong))
    dropped = {"verdict": "dropped"}
    result = run(
        config,
        {"name": "mapping", "spans": wrong, "expect": dropped},
        {"name": "file", "spans_file": "wrong.json", "expect": dropped},
    )
    assert result.exit_code == 78
    lines = (config.parent / "cases.yaml").read_text().splitlines()
    told = re.findall(r"cases.yaml:(\d+):\d+: cases\[(\d)\]\.(\S+): (.*)", result.output)
    at = "resourceSpans[0].scopeSpans[0].spans[0]"
    assert [(number, key, rule) for _, number, key, rule in told] == [
        (number, f"{source}.{at}.{key}", f"unknown key of OTLP's {message}")
        for number, source in (("0", "spans"), ("1", "spans_file"))
        for key, message in (("statuss", "Span"), ("attributes[0].value.intvalue", "AnyValue"))
    ]
    assert [lines[int(line) - 1].strip().partition(":")[0] for line, *_ in told] == [
        "statuss", "intvalue", "spans_file", "spans_file"
    ]  # fmt: skip


def test_what_is_wrong_with_one_case_hides_nothing_of_the_others(config: Path) -> None:
    kept = {"verdict": "kept"}
    result = run(
        config,
        {"name": "a", "spans": spans(0), "expect": {"verdict": "keep"}},
        {"name": "b", "spans": "{", "expect": kept},
        {"name": "c", "spans": spans(0), "expect": {**kept, "policy": "error", "votes": ["errors", "slower"]}},
        {"name": "d", "spans": spans(0), "expects": kept},
    )
    assert result.exit_code == 78
    for text in (
        "cases[0].expect.verdict: must be one of kept, dropped (found 'keep'; did you mean kept?)",
        "cases[1].spans: is no OTLP-JSON",
        "cases[2].expect.policy: c: expects policy 'error', which the configuration does not have (did you mean errors",
        "cases[2].expect.votes[1]: c: expects policy 'slower', which",
        "cases[3].expect: is required",
        "cases[3].expects: unknown key (did you mean expect?)",
        "6 problems",
    ):
        assert text in result.output, text


def test_one_case_is_one_trace(config: Path) -> None:
    both = spans(0)
    both["resourceSpans"] += spans(0, trace="4bf92f3577b34da6a3ce929d0e0e4737")["resourceSpans"]
    result = run(config, {"name": "two", "spans": both, "expect": {"verdict": "kept"}})
    assert (result.exit_code, "found 2: one case is one trace" in result.output) == (78, True)


def test_the_example_under_deploy_passes(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "tailrace.yaml").read_text("utf-8")
    config = tmp_path / "tailrace.yaml"
    config.write_text(as_yaml(MINIMAL | {"sampling": yaml.safe_load(text)["sampling"]}))
    words = ["test", "--config", str(config), str(ROOT / "deploy" / "policies-test.yaml")]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "3 cases, 0 failed")


def test_the_example_in_the_how_to_passes(tmp_path: Path) -> None:
    found = blocks(ROOT / "docs" / "how-to" / "write-a-policy.md", "yaml")
    (tmp_path / "tailrace.yaml").write_text(next(text for text in found if text.startswith("kafka:")))
    (cases,) = [text for text in found if text.startswith("cases:")]
    (tmp_path / "cases.yaml").write_text(cases)
    result = CliRunner().invoke(
        cli, ["test", "--config", str(tmp_path / "tailrace.yaml"), str(tmp_path / "cases.yaml")]
    )
    assert (result.exit_code, result.output) == (0, "✓ a failed payment is kept\n1 case, 0 failed\n")


def of_service(service: str, number: int, status: int) -> dict[str, Any]:
    """A span of 300 ms with its resource."""
    found: dict[str, Any] = spans(status)["resourceSpans"][0]
    times = {"startTimeUnixNano": "1764104400000000000", "endTimeUnixNano": "1764104400300000000"}
    found["scopeSpans"][0]["spans"][0] |= {"spanId": f"{number:016x}"} | times
    return found | {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}}


def test_of_the_how_to_different_spans_meet_an_and_and_one_alone_a_condition(tmp_path: Path) -> None:
    (text,) = [text for text in blocks(ROOT / "docs" / "how-to" / "write-a-policy.md", "yaml") if "ottl" in text]
    config = tmp_path / "tailrace.yaml"
    config.write_text(text)
    kept = {"verdict": "kept", "policy": "slow-checkout"}
    failed_elsewhere = {"resourceSpans": [of_service("checkout", 1, 0), of_service("cart", 2, 2)]}
    failed_itself = {"resourceSpans": [of_service("checkout", 1, 2), of_service("cart", 2, 0)]}
    result = run(
        config,
        {"name": "elsewhere", "spans": failed_elsewhere, "expect": kept | {"votes": ["slow-checkout"]}},
        {"name": "itself", "spans": failed_itself, "expect": kept | {"votes": ["slow-checkout", "checkout-failed"]}},
    )
    assert result.exit_code == 0, result.output
