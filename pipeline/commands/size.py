"""tailrace size: partitions, workers, memory and disk for a load."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import click

from pipeline.commands.console import loaded
from pipeline.config import Config, Kafka, Sampling
from pipeline.configuration.yaml_tree import CONNECTIONS_AND_BROKERS, dotted
from pipeline.operating import sizing
from pipeline.roles import diagram
from processors.regroup import AUTO
from schemas.settings import format_duration, parse_duration

REPLICATION = 3  # where neither the option nor the configuration says


class DurationType(click.ParamType):
    """A duration such as 30s, in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; anything that is not a duration, or takes no time, is a usage error."""
        try:
            seconds = value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 < seconds < math.inf:
            self.fail(f"{value} is not a time that passes", param, ctx)
        return seconds


class FiniteRange(click.FloatRange):
    """A number of a range, which click takes inf and nan for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; inf and nan are a usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


DURATION = DurationType()
POSITIVE = FiniteRange(min=0, min_open=True)


@click.command()
@click.option("--spans-per-second", type=POSITIVE, help="The load: all spans, before sampling.")
@click.option("--config", "file", type=click.Path(), help="Take times, replication, `regroup` and sinks from it.")
@click.option("--decision-wait", type=DURATION, help="Default: that of the file, or the key's default.")
@click.option("--late-horizon", type=DURATION, help="Likewise.")
@click.option("--retention", type=DURATION, help="Likewise: kafka.retention.")
@click.option("--replication", type=click.IntRange(1), help=f"Replicas. Default: that of the file, or {REPLICATION}.")
@click.option("--span-bytes", type=POSITIVE, help="Bytes of a span in the raw topic on disk, compressed.")
@click.option("--spans-per-trace", type=POSITIVE, help="Spans of a trace on average.")
@click.option("--kept-share", type=FiniteRange(0, 1), help="Share of the spans that policies keep, 0 to 1.")
@click.option("--constants", is_flag=True, help="Print what was measured, with its sources, and end.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def size(
    spans_per_second: float | None,
    file: str | None,
    decision_wait: float | None,
    late_horizon: float | None,
    retention: float | None,
    replication: int | None,
    span_bytes: float | None,
    spans_per_trace: float | None,
    kept_share: float | None,
    constants: bool,
    as_json: bool,
) -> None:
    """Say how much of everything a load takes: partitions, workers, memory, Kafka.

    Arithmetic on committed benchmarks; the output says on which machine they were run and what to measure yourself.
    Defaults of the last three options are the benchmark's own traffic. Logs are not asked for: beside the spans are as
    many as there, and what they take is in every number of a span. OTLP metrics are in none.

    \b
      tailrace size --spans-per-second 50000 --decision-wait 30s
      tailrace size --spans-per-second 50000 --config tailrace.yaml --span-bytes 180 --kept-share 0.05
      tailrace size --constants
    """
    known = sizing.measured()
    if constants:
        for each in known.constants:
            click.echo(f"{each['name']:<36} {each['value']:>12,g} {each['unit']}   ({each['source']})")
        click.echo(f"Measured on: {known.where()}.")
        return
    if spans_per_second is None:
        raise click.UsageError("--spans-per-second is needed: the load is yours to say")
    config = loaded(file, CONNECTIONS_AND_BROKERS) if file else None
    kafka, sampling = (config.kafka, config.sampling) if config else (None, None)
    factor = kafka.replication_factor if kafka and kafka.replication_factor > 0 else REPLICATION

    def default(model: type[Kafka] | type[Sampling], key: str) -> float:
        found = kafka if model is Kafka else sampling
        value: float = getattr(found, key) if found else model.model_fields[key].default
        return value

    load = sizing.Load(
        spans_per_second,
        decision_wait or default(Sampling, "decision_wait"),
        late_horizon or default(Sampling, "late_horizon"),
        retention or default(Kafka, "retention"),
        replication or factor,
        span_bytes or known["raw_bytes_per_span"],
        spans_per_trace or known["spans_per_trace"],
        known["kept_share"] if kept_share is None else kept_share,
    )
    if load.late_horizon <= load.decision_wait:
        raise click.UsageError(
            f"--late-horizon must be longer than decision_wait ({format_duration(load.decision_wait)})"
        )
    roles = [role.name for role in diagram(config)] if config else None
    regroup, alone = config is None or config.regroup != "never", config is not None and config.reads_whole_topics
    found = sizing.size(load, known, roles, regroup, alone)
    partitions = config.kafka.partitions if config else None
    needs_ingest = [f"{dotted(key)}: {rule}" for key, rule in config.needs_ingest] if config else []
    not_counted = list(_not_counted(config)) if config else []
    if as_json:
        answer = {"load": dataclasses.asdict(load), "size": dataclasses.asdict(found), "machine": known.machine}
        if config:
            answer["file"] = {"partitions": partitions, "needs_ingest": needs_ingest, "not_counted": not_counted}
        click.echo(json.dumps(answer, indent=2))
    else:
        metrics = config is not None and bool(config.measured)
        click.echo("\n".join(sizing.lines(load, found, known, partitions, needs_ingest, metrics, not_counted)))


def _not_counted(config: Config) -> Iterator[str]:
    """What a file has that costs CPU, and is in no measurement."""
    if redaction := config.redaction:
        every_key = redaction.blocked_key_patterns or not redaction.allow_all_keys
        role, cost = "sample" if config.regroup == "never" else "ingest", "3.5 us" if every_key else "0.6 us"
        yield f"redaction: it takes {role} {cost} of CPU a span of ten attributes, or more (docs/how-to/redact.md)"
    for topic in config.measured:
        yield f"{topic}: what its OTLP metrics take of ingest and aggregate (docs/how-to/size.md)"
    for source in config.inputs:
        if source.signal != "metrics" and source.encoding not in ("otlp_proto", AUTO):
            yield f"{source.topic}: {source.encoding} takes ingest more than otlp_proto (docs/how-to/size.md)"
