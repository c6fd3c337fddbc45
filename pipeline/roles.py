"""The diagram as code: which topics each role reads and writes. A test holds the docs' picture against it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.kafka.admin import partition_counts
from pipeline.kafka.overheard import Overheard
from pipeline.kafka.topics import Topics, check, topic_specs
from schemas.errors import ConfigError, Permanent, TailraceError
from sinks import signals as signals_of

if TYPE_CHECKING:  # commands that only look at the diagram do not wait for Faust
    import faust

    from pipeline.kafka.consume import Group, Leases
    from pipeline.started import Started
    from sinks.contract import Signal

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between attempts to reach Kafka
SILENT = 3.0  # seconds after which it is said that there is no answer: to give up takes as long as a request may


@dataclass(frozen=True, slots=True)
class Role:
    """What a role does with which topics; its ACLs follow from it (pipeline/rights.py).

    `reads` is what its group consumes. `replays` is what it has written and reads again, outside its group, when it
    takes over; `trims`, what it deletes old records of. `by_signal`: `--signals` gives it a group for each signal.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    replays: tuple[str, ...] = ()
    trims: tuple[str, ...] = ()
    transactional: bool = True
    by_signal: bool = False


def sources(config: Config, name: str) -> dict[str, Signal]:
    """The topics that a sink reads, each with what it holds."""
    topics = Topics(config.kafka.prefix)
    holding: dict[Signal, list[str]] = {
        "spans": [topics.kept_spans],
        "logs": [topics.kept_logs, topics.untraced_logs],
        "samples": [topics.samples],
    }
    return {topic: signal for signal in signals_of(name, config.sinks[name]) for topic in holding[signal]}


def diagram(config: Config) -> list[Role]:
    """All roles of a configuration, in the order that data passes them."""
    t = Topics(config.kafka.prefix)
    sampled = (t.kept_spans, t.kept_logs, t.decisions, t.points)
    points = (t.points,) if config.measured else ()
    found = []
    if config.regroup == "never":
        if config.measured:
            found.append(Role("ingest", tuple(config.measured), (*points, t.dlq), by_signal=True))
        raw = tuple(config.traced)
        found.append(Role("sample", raw, (*sampled, t.untraced_logs, t.dlq), replays=(t.decisions,)))
    else:
        outputs = (t.spans, t.logs, t.untraced_logs, *points, t.dlq)
        fed = (t.spans, t.logs)
        found.append(Role("ingest", tuple(config.ingested), outputs, replays=fed, by_signal=True))
        found.append(Role("sample", (t.spans, t.logs), sampled, replays=(t.decisions,)))
    found.append(Role("aggregate", (t.points,), (t.samples, t.dlq), replays=(t.samples,), trims=(t.samples,)))
    found += [
        Role(f"sink.{name}", tuple(sources(config, name)), (t.dlq,), transactional=False) for name in config.sinks
    ]
    return found


def expand(config: Config, names: Sequence[str]) -> list[str]:
    """Role names as given to `--role`: `all` and `sinks` stand for several. Raises ConfigError for others."""
    known = [role.name for role in diagram(config)]
    expanded: list[str] = []
    for name in names:
        if name == "all":
            expanded += known
        elif name == "sinks":
            expanded += [role for role in known if role.startswith("sink.")]
        elif name in known:
            expanded.append(name)
        elif name == "ingest":
            raise ConfigError("--role ingest: with regroup: never there is none; sample reads the raw topics itself")
        else:
            raise ConfigError(f"--role {name}: no such role; this configuration has {', '.join(known)}, sinks, all")
    return list(dict.fromkeys(expanded))


def check_signals(config: Config, roles: Sequence[str], signals: Sequence[str]) -> list[str]:
    """The signals given to `--signals`, once each. Raises ConfigError for those that no input has."""
    known = list(dict.fromkeys(item.signal for item in config.inputs if item.topic in config.ingested))
    if signals and "ingest" not in roles:
        raise ConfigError("--signals: goes with --role ingest: it says which raw topics that reads")
    for signal in signals:
        if signal not in known:
            raise ConfigError(f"--signals {signal}: ingest reads no topic of it; it reads {', '.join(known)}")
    return list(dict.fromkeys(signals))


def build(
    app: faust.App,
    config: Config,
    names: Sequence[str],
    started: Started,
    signals: Sequence[str] = (),
) -> list[Group]:
    """The groups of the chosen roles; with `signals` ingest has one for each.

    A role is imported when it is chosen: what only the others need takes 10 MiB.
    """
    groups: list[Group] = []
    for name in expand(config, names):
        if name == "ingest":
            from pipeline import ingest

            groups += [ingest.group(app, config, started, signal) for signal in signals or (None,)]
        elif name == "sample" and config.regroup == "never":
            from pipeline import direct

            groups.append(direct.group(app, config, started))
        elif name == "sample":
            from pipeline import sample

            groups.append(sample.group(app, config, started))
        elif name == "aggregate":
            from pipeline import aggregate

            groups.append(aggregate.group(app, config, started.watch))
        else:
            from pipeline import deliver

            groups.append(deliver.group(app, config, name.removeprefix("sink.")))
    return groups


def leases(old: Config, config: Config, role: str, started: Started) -> Leases | None:
    """What makes a role's leases of this configuration; None for a role to which it says nothing that is new."""
    if role == "ingest":
        from pipeline import ingest

        return None if ingest.reloaded(config) == ingest.reloaded(old) else ingest.leases(config, started)
    if role == "sample" and config.regroup == "never":
        from pipeline import direct

        return direct.leases(config, started)
    if role == "sample":
        from pipeline import sample

        return sample.leases(config, started)
    if role == "aggregate":
        from pipeline import aggregate

        return aggregate.leases(config, started.watch)
    return None


def patience(config: Config, role: str) -> float | None:
    """Seconds that what a role reads may wait, as a reload may change it; None: it does not."""
    if role != "sample":
        return None
    from pipeline import sample

    return sample.interval(config)


async def _check_topics(config: Config, needed: set[str]) -> None:
    """Refuse to run on topics whose settings break the protocol (retention, timestamps, partition counts)."""
    try:
        problems = [problem for problem in await check(config) if problem.topic in needed]
    except Permanent as error:
        log.warning("the topics' settings cannot be checked", extra={"error": str(error)})
        return
    for problem in problems:
        if not problem.stops:
            log.warning("a topic should be altered", extra={"topic": problem.topic, "problem": problem.text})
    if problems := [problem for problem in problems if problem.stops]:
        raise ConfigError("; ".join(map(str, problems)) + "; `tailrace topics` says how to mend them")


async def wait_for_servers(config: Config, names: Sequence[str]) -> None:
    """Wait with back-off until Kafka answers and every topic of these roles exists, saying for what."""
    chosen = [role for role in diagram(config) if role.name in expand(config, names)]
    internal = {spec.name for spec in topic_specs(config)}
    needed = {topic for role in chosen for topic in (*role.reads, *role.writes)}
    wait = FIRST_WAIT
    while True:
        silent = asyncio.get_running_loop().call_later(SILENT, _tell_waiting, config, "no answer yet")
        try:
            with Overheard() as overheard:
                found = await partition_counts(config)
            missing = sorted(needed - set(found))
            if not missing:
                await _check_topics(config, needed)
                return
            ours = set(missing) & internal
            hint = "run `tailrace topics FILE --create`" if ours else "raw topics are made by producers"
            hint += "; one that this user may not see is missing too: `tailrace check FILE --connect` tells them apart"
            log.warning("waiting for topics", extra={"missing": missing, "hint": hint})
        except ConfigError:
            raise
        except (KafkaError, TailraceError, OSError) as error:
            _tell_waiting(config, overheard.after(str(error)))
        finally:
            silent.cancel()
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)


def _tell_waiting(config: Config, error: str) -> None:
    log.warning("waiting for Kafka", extra={"servers": config.kafka.bootstrap_servers, "error": error})
