"""Every secret of a configuration is of a type that does not print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.commands.config import effective
from pipeline.config import Config
from pipeline.configuration.config_file import InvalidConfig, parse
from pipeline.configuration.convert import convert
from pipeline.configuration.reference import _models
from pipeline.watching.identity import config_hash
from schemas.errors import ConfigError
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


GRPC = {"endpoint": "https://x:4317", "protocol": "grpc"}
OAUTH = {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "client_id": "a", "client_secret": SECRET}
CREDENTIALS = f"elastic:{SECRET}"


@pytest.mark.parametrize(
    ("place", "section"),
    [
        ("sinks.elasticsearch.endpoint", {"endpoint": f"https://{CREDENTIALS}@es:9200"}),
        ("sinks.elasticsearch.endpoint", {"endpoint": f"https://elastic:x/a?b://@{SECRET}@es:9200"}),
        ("sinks.elasticsearch.endpoint", {"endpoint": f"{CREDENTIALS}@es:9200"}),
        ("sinks.elasticsearch.endpoint", {"endpoint": f"https://es:92000/?api_key={SECRET}"}),
        ("sinks.prometheus.endpoint", {"endpoint": f"https://es:92000/?u=a&p={SECRET}"}),
        ("sinks.prometheus.endpoint", {"endpoint": f"ftp://es/?u=a&p={SECRET}"}),
        ("sinks.elasticsearch.endpoints[0]", {"endpoints": [f"https://{CREDENTIALS}@es:9200"]}),
        ("sinks.elasticsearch.endpoints", {"endpoints": f"https://{CREDENTIALS}@es:9200"}),
        ("sinks.elasticsearch.auth", {"endpoint": "https://es:9200", "auth": f"ApiKey {SECRET}"}),
        ("sinks.elasticsearch.headers", {"endpoint": "https://es:9200", "headers": f"X-Api-Key: {SECRET}"}),
        ("sinks.otlp.headers.Authorization", {**GRPC, "headers": {"Authorization": f"Bearer {SECRET}\n"}}),
        ("sinks.otlp.headers.X-Scope", {**GRPC, "headers": {"X-Scope": f"{SECRET}é"}}),
        ("sinks.otlp.headers.X-Scope", {**GRPC, "headers": {"X-Scope": [SECRET]}}),
        ("sinks.otlp.headers.x-bin", {**GRPC, "headers": {"x-bin": SECRET}}),
        ("sinks.kafka.bootstrap_servers[1]", {"bootstrap_servers": ["a:1", f"{CREDENTIALS}@b"]}),
        ("sinks.kafka.bootstrap_servers", {"bootstrap_servers": f"a:1, {CREDENTIALS}@b"}),
        ("kafka.security", f"PLAIN {SECRET}"),
        ("kafka.security.token_endpoint_url", {**OAUTH, "token_endpoint_url": f"https://{CREDENTIALS}@idp/token"}),
        ("telemetry.live.peers[0]", {"live": {"peers": [f"http://{CREDENTIALS}@h:1"]}}),
        ("telemetry.live.peers[0]", {"live": {"peers": [f"{CREDENTIALS}@h:1"]}}),
        ("canary.jaeger.endpoint", {"jaeger": {"endpoint": f"http://{CREDENTIALS}@h:1"}}),
        ("canary.jaeger.headers.X-Scope", {"jaeger": {"endpoint": "http://h:1", "headers": {"X-Scope": [SECRET]}}}),
    ],
)  # fmt: skip
def test_an_error_quotes_none_that_is_in_the_file(place: str, section: Any) -> None:
    """Nor one from the environment; a worker that reloads logs the same."""
    data = {**MINIMAL}
    match place.replace("[", ".").split("."):
        case ["sinks", name, *_]:
            data["sinks"] = {name: section}
        case ["kafka", key, *_]:
            data["kafka"] = {**MINIMAL["kafka"], key: section}
        case [name, *_]:
            data[name] = section
    text = as_yaml(data)
    for given, environ in ((text, {}), (text.replace(SECRET, "${S}"), {"S": SECRET})):
        with pytest.raises(InvalidConfig) as invalid:
            parse(given, "file", environ)
        assert place in [problem.key for problem in invalid.value.problems]
        assert SECRET not in str(invalid.value)


@pytest.mark.parametrize("sign", ["*", "!", "&a !", "!!", "!a!"])
def test_yaml_that_is_none_quotes_none(sign: str) -> None:
    """A password that is not in quotes may begin with what is a sign of YAML."""
    with pytest.raises(InvalidConfig, match="quotes") as invalid:
        parse(f"password: {sign}{SECRET}\n", "file", {})
    assert SECRET not in str(invalid.value)
    with pytest.raises(ConfigError) as refused:
        convert(f"password: {sign}{SECRET}\n")
    assert SECRET not in str(refused.value)


def test_pydantic_quotes_none() -> None:
    with pytest.raises(ValidationError) as invalid:
        Config.model_validate({**FULL, "sinks": {"otlp": {**GRPC, "headers": {"X-Scope": [SECRET]}}}})
    assert SECRET not in str(invalid.value)
    assert SECRET in str(invalid.value.errors())  # what is told of it is chosen in config_file


def test_a_printed_configuration_has_no_key_in_a_url() -> None:
    sink = {"endpoint": f"https://a/write?api_key={SECRET}&b=1"}
    config = Config.model_validate({**MINIMAL, "sinks": {"prometheus": sink}})
    assert effective(config)["sinks"]["prometheus"]["endpoint"] == "https://a/write?api_key=**********&b=1"
