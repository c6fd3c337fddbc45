"""tailrace check: everything that is wrong with a file, and with what it points at."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from pipeline.commands.console import EX_CONFIG, FILE, ROLES, bad, good, loaded, note, plural
from pipeline.config import Config
from pipeline.configuration.config_file import text_of
from pipeline.configuration.yaml_tree import ANYWHERE, read
from pipeline.kafka.topics import canary_topics
from pipeline.operating import connect as connecting
from processors.sampling.blocks import RateLimiting
from processors.sampling.compile import Compat
from processors.sampling.policies import Policy
from processors.sampling.probability import DEFAULT_SALT
from processors.sampling.votes import inside
from schemas.errors import ConfigError
from sinks import signals as signals_of
from sinks.contract import Signal
from sinks.settings import OTLP_KINDS, sink_kind

OF_ALL = ("always_sample", "probabilistic", "dynamic", "throughput")  # what these leave out counts say
GRPC_PORT, HTTP_PORT = 4317, 4318  # of OTLP
# By an input's signal: what it becomes, and which sinks take that.
_TAKEN: dict[str, tuple[Signal, str]] = {
    "traces": ("spans", "jaeger, otlp and kafka do"),
    "logs": ("logs", "elasticsearch does, and otlp with logs in its signals"),
    "metrics": ("samples", "prometheus does"),
}


@click.command()
@FILE
@click.option("--connect", is_flag=True, help="Also try the brokers, topics, rights and sinks, with timings.")
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Variables and files that are not on this machine are taken for right: where changes are reviewed.",
)
@ROLES
def check(file: str, connect: bool, without_secrets: bool, names: list[str]) -> None:
    """Say everything that is wrong with a configuration file, and with what it points at.

    Each problem of the file has line, column, key and rule. With --connect also: topics that are missing or have other
    partitions or settings, raw topics whose newest records are not what the file says, the rights that the user lacks
    with the command that grants each, sinks that do not answer.
    Exit code 0, or 78 if there is a problem.

    \b
      tailrace check tailrace.yaml
      tailrace check tailrace.yaml --without-secrets
      KAFKA_PASSWORD=... tailrace check tailrace.yaml --connect
      KAFKA_USER=sampler KAFKA_PASSWORD=... tailrace check tailrace.yaml --connect --role sample
    """
    if connect and without_secrets:
        raise click.UsageError("--connect needs the secrets")
    config = loaded(file, ANYWHERE if without_secrets else ())
    named = ", ".join(config.sinks) or "none"
    counts = f"{plural(len(config.inputs), 'input')}, {plural(len(config.sampling.policies), 'policy')}"
    good(f"{file}: {counts}, sinks: {named}")
    for text in [*_literal(file), *_notes(config)]:
        note(text)
    try:
        if connect and not asyncio.run(_connected(config, names)):
            sys.exit(EX_CONFIG)
    except ConfigError as error:
        bad(str(error))
        sys.exit(EX_CONFIG)


def _literal(file: str) -> Iterator[str]:
    """Values that look like variables: they are told by their place, for they may be passwords."""
    tree = read(text_of(Path(file)), Path(file).parent, {}, ANYWHERE)
    for path in sorted(tree.literal, key=tree.position):
        yield f"{file}:{tree.problem(path, 'is taken as it stands; the value of a variable is written ${NAME}')}"


def _notes(config: Config) -> list[str]:
    """What is allowed but may surprise."""
    notes = []
    if "start" not in config.kafka.model_fields_set:
        notes.append("kafka.start is not set: a new group begins with what arrives from now on (latest)")
    if not config.kafka.transactions:
        notes.append("kafka.transactions is false: at-least-once; internal topics are neither made nor checked")
    security = config.kafka.security
    if security.protocol == "SASL_PLAINTEXT" and security.sasl_mechanism in ("PLAIN", "OAUTHBEARER"):
        notes.append(
            "kafka.security.protocol is SASL_PLAINTEXT: password or token can be read on the way to the brokers"
        )
    if not config.sinks:
        notes.append("sinks is empty: nothing leaves Kafka")
    sent = {signal for name, sink in config.sinks.items() for signal in signals_of(name, sink)}
    read = {item.signal for item in config.inputs}
    if config.sinks and config.metrics.span_metrics.enabled and "samples" not in sent:
        notes.append("metrics.span_metrics are counted but no prometheus sink sends them")
    for signal, (taken, who) in _TAKEN.items():
        if config.sinks and signal in read and taken not in sent:
            notes.append(f"inputs has {signal} but no sink takes them: {who}")
    if "traces" not in read:
        notes.append("inputs has no traces: nothing will be sampled")
    for name, sink in config.sinks.items():
        ports = {urlsplit(url).port for url in sink.urls} if sink_kind(name) in OTLP_KINDS else set()
        other = GRPC_PORT if sink.protocol == "http/protobuf" else HTTP_PORT
        if other in ports:
            meant = "grpc" if other == GRPC_PORT else "http/protobuf"
            notes.append(f"sinks.{name}: port {other} is usually that of protocol: {meant}, this is {sink.protocol}")
        if sink_kind(name) == "prometheus" and any(urlsplit(url).path in ("", "/") for url in sink.urls):
            notes.append(f"sinks.{name}: its endpoint has no path; Prometheus takes remote write at /api/v1/write")
    if config.canary is not None:
        try:
            canary_topics(config)
        except ConfigError as error:
            notes.append(f"`tailrace canary` will not run: {error}")
    n = config.kafka.partitions
    for policy in config.sampling.policies:
        for named, limit in _rates(policy, repr(policy.name)):
            if limit.spans_per_second < n:
                text = f"spans_per_second of {named} is less than one for each of the {n} partitions"
                notes.append(f"sampling.policies: {text}")
        for block in _shares(policy.model_dump()):
            share = block["sampling_percentage"]
            if not 0 <= share <= 100:
                what = "keeps nothing, as 0 does" if share < 0 else "keeps everything, as 100 does"
                notes.append(f"sampling.policies: sampling_percentage of {policy.name!r} is {share:g}: it {what}")
            if block["hash_salt"] and config.sampling.compat == "none":
                notes.append(f"sampling.policies: hash_salt of {policy.name!r} has no effect without compat: otel")
    notes += (f"sampling.policies: {text}" for text in _uncounted(config.sampling.policies, config.sampling.compat))
    return notes


def _rates(policy: Policy, named: str) -> Iterator[tuple[str, RateLimiting]]:
    """The `rate_limiting` of a policy and of those inside it, and where each is."""
    if policy.rate_limiting is not None:
        yield named, policy.rate_limiting
    for part in inside(policy):
        yield from _rates(part, f"{part.name!r} in {named}")


def _uncounted(policies: Sequence[Policy], compat: Compat) -> Iterator[str]:
    """What is left out by a share that no threshold states, or by several that choose apart from each other."""
    asked = [policy for policy in policies if not policy.shadow]
    chances = list(dict.fromkeys(_chances(asked))) if compat == "otel" else []
    if len(chances) > 1:
        apart = f"{', '.join(chances[:-1])} and {chances[-1]}"
        yield f"shares go by {apart}, apart from each other: adjusted counts of what is kept do not say so"
    for policy in asked:
        if policy.type == "drop" and _is_share(policy):
            yield f"{policy.name!r} drops a share: adjusted counts of what is kept do not say so"
    some = [(each.ids.from_percentage, each.ids.to_percentage) for each in asked if each.ids and each.type != "drop"]
    end = 100.0 if not some or any(each.ids is None and each.type in OF_ALL for each in asked) else 0.0
    for begin, until in [*sorted(some), (100.0, 100.0)]:
        if begin > end:
            yield f"ids leaves out those from {end:g} to {begin:g} %: adjusted counts of what is kept do not say so"
        end = max(end, until)


def _chances(policies: Iterable[Policy]) -> Iterator[str]:
    """With `compat: otel`, what the thresholds of policies are of: a hash for each salt, or the trace's randomness."""
    for policy in policies:
        if policy.probabilistic is not None:
            if 0 < policy.probabilistic.sampling_percentage < 100:
                yield f"hash_salt {policy.probabilistic.hash_salt or DEFAULT_SALT!r}"
        elif policy.type in ("dynamic", "throughput"):
            yield "randomness (dynamic, throughput)"
        elif policy.type not in ("drop", "not"):  # which state none
            yield from _chances(inside(policy))


def _is_share(policy: Policy) -> bool:
    if policy.ids is not None or policy.type in ("dynamic", "throughput"):
        return True
    share = 0.0 if policy.probabilistic is None else policy.probabilistic.sampling_percentage
    return 0 < share < 100 or any(map(_is_share, inside(policy)))


def _shares(data: Any) -> Iterator[dict[str, Any]]:
    """The `probabilistic` of a policy and of those inside it."""
    if isinstance(data, dict) and "sampling_percentage" in data:
        yield data
    elif isinstance(data, dict | list):
        for below in data.values() if isinstance(data, dict) else data:
            yield from _shares(below)


async def _connected(config: Config, names: Sequence[str]) -> bool:
    failed = 0
    async for finding in connecting.connect(config, names):
        (note if finding.hint else good if finding.ok else bad)(str(finding))
        failed += not finding.ok
    return failed == 0
