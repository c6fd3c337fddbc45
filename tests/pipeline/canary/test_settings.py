"""What the section `canary` must hold, and what the command says without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import Config
from tests.pipeline.configs import MINIMAL, as_yaml

JAEGER = {"jaeger": {"endpoint": "http://jaeger:16686"}}
LOGS = {"topic": "otlp_logs", "signal": "logs"}


def said(folder: Path, **sections: Any) -> tuple[int, str]:
    """Exit code and output of `tailrace canary --once` with these sections."""
    file = folder / "tailrace.yaml"
    file.write_text(as_yaml(MINIMAL | sections), encoding="utf-8")
    result = CliRunner().invoke(cli, ["canary", "--config", str(file), "--once"])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, "canary: is required by `tailrace canary`"),
        ({"canary": {}}, "canary: needs at least one of jaeger, elasticsearch and prometheus to look at"),
        ({"canary": JAEGER | {"timeout": "30s"}}, "canary.timeout: must be longer than sampling.decision_wait (30s)"),
        (
            {"canary": {"jaeger": {"endpoint": "http://jaeger:16686", "index": "logs"}}},
            "canary.jaeger.index: is for elasticsearch only",
        ),
        ({"canary": JAEGER}, "inputs: the canary needs an input of logs as otlp_proto"),
        (
            {"canary": JAEGER, "inputs": [*MINIMAL["inputs"], LOGS | {"encoding": "json"}]},
            "inputs: the canary needs an input of logs as otlp_proto",
        ),
        (
            {"canary": JAEGER | {"traces_topic": "other"}, "inputs": [*MINIMAL["inputs"], LOGS]},
            "canary.traces_topic: other is not an input of traces as otlp_proto",
        ),
        (
            {
                "canary": {"jaeger": {"endpoint": "https://jaeger:16686", "ca_file": "/not/here.pem"}},
                "inputs": [*MINIMAL["inputs"], LOGS],
            },
            "canary.jaeger.ca_file: /not/here.pem: ",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    code, output = said(tmp_path, **sections)
    assert code == 78
    assert expected in output


def test_a_logs_topic_of_its_own_choice() -> None:
    from pipeline.kafka.topics import canary_topics

    inputs = [*MINIMAL["inputs"], LOGS | {"encoding": "json"}, LOGS | {"topic": "a"}, LOGS | {"topic": "b"}]
    config = Config.model_validate(MINIMAL | {"inputs": inputs, "canary": JAEGER | {"logs_topic": "b"}})
    assert canary_topics(config) == ("otlp_spans", "b")
