"""docs/reference is what the models and the metric list say."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pipeline.config import Config
from pipeline.configuration import reference
from pipeline.telemetry import METRICS


@pytest.mark.parametrize(("name", "page"), reference.PAGES.items())
def test_pages_are_current(name: str, page: Callable[[], str]) -> None:
    written = (reference.FOLDER / name).read_text("utf-8")
    assert written == page(), "run `python -m pipeline.configuration.reference`"


def test_every_key_and_metric_is_there() -> None:
    text = reference.configuration()
    for section, field in Config.model_fields.items():
        assert f"`{section}`" in text
        assert field.description
    for key in ("`kafka.security`", "`sampling.policies[].and`", "`sinks.NAME.batch`", "`and_sub_policy`"):
        assert key in text
    assert all(f"`{metric.name}`" in reference.metrics() for metric in METRICS)


def test_words_of_the_clock_lead_to_their_explanation() -> None:
    text = reference.configuration()
    assert "in [stream time](../explanation/two-cursors.md#whose-clock)" in text
    assert re.findall(r"(?<!\[)(?:stream time|holds the clock)|new mark", text) == []


def test_no_default_is_a_secret_or_a_python_value() -> None:
    for word in ("PydanticUndefined", "typing.", "None", "SecretStr", "<class"):
        assert word not in reference.configuration()
