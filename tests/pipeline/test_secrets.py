"""Every secret of a configuration is of a type that does not print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from pipeline.commands.config import effective
from pipeline.config import Config
from pipeline.config_file import InvalidConfig, parse
from pipeline.identity import config_hash
from pipeline.reference import _models
from tests.pipeline.configs import MINIMAL, as_yaml

SECRET = "s3cr3t-that-nobody-may-see"
TELLING = re.compile(r"(password|secret|token|api_key|hmac_key)$")
FULL: dict[str, Any] = {
    **MINIMAL,
    "kafka": {
        "bootstrap_servers": ["a:1"],
        "security": {
            "protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u", "password": SECRET,
            "key_password": SECRET, "client_secret": SECRET,
        },
    },
    "sinks": {
        "jaeger": {"endpoint": "https://a", "auth": {"bearer_token": SECRET}, "headers": {"X-Api-Key": SECRET}},
        "elasticsearch": {"endpoint": "https://b", "auth": {"api_key": SECRET}},
        "prometheus": {"endpoint": "https://c", "auth": {"username": "u", "password": SECRET}},
    },
    "canary": {"jaeger": {"endpoint": "https://a", "auth": {"api_key": SECRET}, "headers": {"Cookie": SECRET}}},
    "redaction": {"allow_all_keys": True, "hash_function": "hmac-sha256", "hmac_key": SECRET},
    "telemetry": {"token": SECRET, "live": True},
}  # fmt: skip


def fields(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[str, Any]]:
    """Names and types of all keys."""
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name, field.annotation
        for inner, _ in _models(field.annotation):
            if inner not in seen:
                yield from fields(inner, seen)


def test_keys_that_tell_of_a_secret_are_secrets() -> None:
    telling = {name: kind for name, kind in fields(Config, set()) if TELLING.search(name)}
    assert telling.keys() == {
        "password",
        "key_password",
        "client_secret",
        "bearer_token",
        "api_key",
        "hmac_key",
        "token",
    }
    assert all("SecretStr" in str(kind) for kind in telling.values()), telling
    assert SECRET not in str(SecretStr(SECRET))


def test_a_configuration_prints_none() -> None:
    config = Config.model_validate(FULL)
    sections = [config.kafka, config.telemetry, config.redaction, *(sink.auth for sink in config.sinks.values())]
    shown = [*map(repr, sections), yaml.safe_dump(effective(config)), config_hash(config)]
    assert not [text for text in shown if SECRET in text]


def test_an_error_quotes_none() -> None:
    """Whatever else is wrong with the section that it is in."""
    wrong = as_yaml(FULL).replace("protocol: SASL_SSL", "protocol: SASL").replace("username: u", "usrname: u")
    with pytest.raises(InvalidConfig, match="usrname") as invalid:
        parse(wrong.replace(SECRET, "${S}"), "file", {"S": SECRET})
    assert SECRET not in str(invalid.value)
