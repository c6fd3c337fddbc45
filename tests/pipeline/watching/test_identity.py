"""The hash of a configuration: equal for workers that do the same, whatever their secrets and places."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Config
from pipeline.watching.identity import config_hash
from tests.pipeline.configs import MINIMAL

PASSWORD = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "a", "password": "first"}
CONFIG = MINIMAL | {"kafka": {"bootstrap_servers": ["localhost:9092"], "security": PASSWORD}}


def changed(section: str, **values: Any) -> Config:
    return Config.model_validate(CONFIG | {section: CONFIG.get(section, {}) | values})


@pytest.mark.parametrize(
    "same",
    [
        changed("telemetry", port=1, host="0.0.0.0", token="x" * 16, log_level="DEBUG"),
        changed("kafka", client_rack="eu-1"),
        changed("kafka", security=PASSWORD | {"password": "second"}),
        changed("sampling", decision_wait="30s"),  # the default, said
    ],
)
def test_what_may_differ_between_workers(same: Config) -> None:
    assert config_hash(same) == config_hash(Config.model_validate(CONFIG))


@pytest.mark.parametrize(
    "other",
    [
        changed("sampling", decision_wait="31s"),
        changed("sampling", policies=[{"name": "every", "type": "always_sample"}]),
        changed("kafka", bootstrap_servers=["elsewhere:9092"]),
        changed("metrics", series_per_metric=500),
    ],
)
def test_what_is_drift(other: Config) -> None:
    assert config_hash(other) != config_hash(Config.model_validate(CONFIG))
