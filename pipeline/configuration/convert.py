"""A Collector's configuration as one of Tailrace: what is taken over, and what has no counterpart.

Taken over are a tail_sampling processor and what reads Kafka and writes OTLP, Kafka, Elasticsearch or Prometheus: of
the pipelines that it is in, and of those of logs and metrics. A part of a configuration will do: `processors`, the
block of the processor, or its `policies`. The parts are in pipeline/configuration/otelcol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.configuration.config_file import InvalidConfig, parse
from pipeline.configuration.otelcol.document import found_in
from pipeline.configuration.otelcol.exporters import sinks
from pipeline.configuration.otelcol.pipelines import inputs, pipelines
from pipeline.configuration.otelcol.policies import sampling
from pipeline.configuration.otelcol.source import Gap, Source
from pipeline.configuration.yaml_tree import ANYWHERE, Key

NOT_VALID = "is printed, but `tailrace check` refuses it"


@dataclass(slots=True)
class Converted:
    """Tailrace's configuration as plain data, the gaps in order of lines, and what is left out of its policies."""

    config: dict[str, Any]
    gaps: list[Gap]
    left_out: list[Any] = field(default_factory=list)


def convert(text: str, processor: str | None = None) -> Converted:
    """The configuration in `text` (YAML). `processor` chooses one of several, as `tail_sampling/NAME`.

    That of a ConfigMap, an OpenTelemetryCollector or a chart's values is found in it.
    Raises ConfigError when there is none to be found, and for what has another shape than a Collector would take;
    InvalidConfig for what is not YAML.
    """
    source, path, block = found_in(text, processor)
    policies = sampling(source, path, block)
    looked_at = pipelines(source, path)
    topics, kafka = inputs(source, path, looked_at)
    config: dict[str, Any] = {"kafka": kafka, "inputs": topics, "sampling": policies}
    if any(given["signal"] == "logs" for given in topics):
        config["logs"] = {"unsampled": "all"}  # a Collector's logs know of no verdict
    destinations, series = sinks(source, looked_at)
    if series:
        config["metrics"] = {"otlp": series}
    if destinations:
        config["sinks"] = destinations
    _check(source, path, config)
    return Converted(config, sorted(source.gaps, key=lambda gap: gap.line), source.left_out)


def _check(source: Source, path: Key, config: Mapping[str, Any]) -> None:
    """Tell what `tailrace check` will say of the result where its variables are set."""
    try:
        parse(written(config), "", {}, ANYWHERE)
    except InvalidConfig as invalid:
        for problem in invalid.problems:
            section, _, key = problem.key.partition(".")
            place = (*path, key) if section == "sampling" else ()
            # A name may have dots.
            of = (origin for name, origin in source.origins.items() if f"{problem.key}.".startswith(f"{name}."))
            line = source.line(next(of, place))
            source.gaps.append(Gap(line, problem.key, f"{NOT_VALID}: {problem.rule}"))


def written(config: Mapping[str, Any], left_out: Sequence[Any] = ()) -> str:
    """The text of a file with this content; what is left out of its policies is a comment at its end."""
    text = _dumped(config)
    if left_out:
        text += "\n# Left out of sampling.policies, because it has no counterpart:\n"
        text += "".join(f"# {line}\n" for line in _dumped(left_out).splitlines())
    return text


def _dumped(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
