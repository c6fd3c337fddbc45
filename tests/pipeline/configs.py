"""Configurations for tests: the smallest one that is valid, and changes to it."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.config import Config

MINIMAL: dict[str, Any] = {
    "kafka": {"bootstrap_servers": ["localhost:9092"]},
    "inputs": [{"topic": "otlp_spans", "signal": "traces"}],
    "sampling": {"policies": [{"name": "all", "type": "always_sample"}]},
}


def as_yaml(data: Any) -> str:
    """The text of a file with this content; aliases are written out."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def config_for(bootstrap: str, **kafka: Any) -> Config:
    """The minimal configuration with these brokers and these keys of `kafka`."""
    return Config.model_validate({**MINIMAL, "kafka": {"bootstrap_servers": [bootstrap], **kafka}})
