"""The Collector's configurations: every setting says why it is there, and none is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bench.peer import FOLDER

FILES = sorted(FOLDER.glob("*.yaml"))
# What a pipeline is made of needs no reason.
WIRING = re.compile(r"^\s*(receivers|processors|exporters|connectors|extensions|pipelines|traces|kafka|service|nop|"
                    r"metrics|logs|telemetry|producer|sending_queue|batch|tail_sampling|decision_cache|http|exporter|"
                    r"prometheus|compression_params|span_metrics|message_marking|error_backoff|"
                    r"- pull): *(\[[a-z_0-9, ]+\])?$")  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_setting_has_its_reason(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if line.strip() and "#" not in line and not WIRING.match(line)]
    assert bare == []


@pytest.mark.parametrize("tier", ["sample", "split"])
def test_the_tuned_one_has_every_setting_of_the_default_one(tier: str) -> None:
    """But for telemetry, which it switches off."""
    left, tuned = (yaml.safe_load((FOLDER / f"{tier}.{kind}.yaml").read_text()) for kind in ("defaults", "tuned"))
    for found in (left, tuned):
        del found["service"]["telemetry"]
    assert _holds(tuned, left)


def _holds(larger: object, smaller: object) -> bool:
    if isinstance(larger, dict) and isinstance(smaller, dict):
        return all(key in larger and _holds(larger[key], value) for key, value in smaller.items())
    return larger == smaller
