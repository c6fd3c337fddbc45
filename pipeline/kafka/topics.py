"""The internal topics: their names, their settings, and whether the brokers agree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from pipeline.config import Config
from pipeline.kafka import tools
from pipeline.kafka.admin import connected, counts, settings
from pipeline.kafka.reader import Reader
from schemas.envelope import ENVELOPE_BYTES
from schemas.errors import ConfigError
from schemas.ids import partition_of
from schemas.raw_offset import RawOffset
from schemas.sample import TickHeader, decode_record

# An envelope is cut well below this; one of a row of limits.max_span_bytes may hold as much as any other beside it.
INTERNAL_MESSAGE_BYTES = 8 << 20
# Headers, coordinates and record batch framing around a dead letter's bytes, and a resource around a span's.
MESSAGE_OVERHEAD_BYTES = 64 << 10
# Of so many replicas one may be away while what is acknowledged is on two; the broker's default, 1, lets a leader that
# is alone acknowledge. With two replicas that would stop the topic whenever one is away.
REPLICATED, LEAST_IN_SYNC = 3, 2
# How long all brokers may take to know a topic that the controller has created.
CREATED_WITHIN_SECONDS = 30.0
_POLL_SECONDS = 0.1


class Topics:
    """Names of everything in Kafka that belongs to one `kafka.prefix`.

    >>> Topics("tailrace").kept_spans, Topics("tailrace").transactional_id("sample", 3)
    ('tailrace.kept.spans', 'tailrace.sample.3')
    """

    __slots__ = (
        "decisions",
        "dlq",
        "kept_logs",
        "kept_spans",
        "logs",
        "points",
        "prefix",
        "samples",
        "spans",
        "untraced_logs",
    )

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.spans = f"{prefix}.spans"
        self.logs = f"{prefix}.logs"
        self.untraced_logs = f"{prefix}.untraced.logs"
        self.kept_spans = f"{prefix}.kept.spans"
        self.kept_logs = f"{prefix}.kept.logs"
        self.decisions = f"{prefix}.decisions"
        self.points = f"{prefix}.points"
        self.samples = f"{prefix}.samples"
        self.dlq = f"{prefix}.dlq"

    def group(self, role: str) -> str:
        """The consumer group of a role: ingest, sample, aggregate or sink.NAME.

        Kafka allows any group name, so the slash of `sink.jaeger/eu` stays.
        """
        return f"{self.prefix}.{role}"

    @property
    def ingest_groups(self) -> list[str]:
        """The groups that ingest may have: of all raw topics, and of those of one signal (`--signals`)."""
        whole = self.group("ingest")
        return [whole, *(f"{whole}.{signal}" for signal in ("traces", "logs", "metrics"))]

    @property
    def resize(self) -> str:
        """The transactional id of `tailrace topics resize`."""
        return f"{self.prefix}.resize"

    def transactional_id(self, role: str, partition: int, topic: str | None = None) -> str:
        """The id that fences an earlier owner of an input partition. `topic` is given by ingest: it reads several."""
        return f"{self.prefix}.{role}.{topic}.{partition}" if topic else f"{self.prefix}.{role}.{partition}"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must be. `configs` are Kafka's own topic settings, values as strings."""

    name: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicProblem:
    """One thing about a topic that is not as it must be, and what to do about it."""

    topic: str
    text: str
    stops: bool = True
    """Whether workers refuse to run on it."""

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


def topic_specs(config: Config, raw_retention: int = 0) -> list[TopicSpec]:
    """Every internal topic with its settings, in the order data passes them.

    `raw_retention`: what of the raw topics that `sample` reads itself the decisions outlive as well, ms.
    """
    kafka, topics = config.kafka, Topics(config.kafka.prefix)
    window = _milliseconds(kafka.retention)
    largest = config.limits.max_span_bytes + ENVELOPE_BYTES + MESSAGE_OVERHEAD_BYTES
    rows = str(max(INTERNAL_MESSAGE_BYTES, largest))
    letters = str(config.limits.max_dead_letter_bytes + MESSAGE_OVERHEAD_BYTES)

    def spec(name: str, partitions: int, retention_ms: int, max_bytes: str = rows) -> TopicSpec:
        configs = {
            "cleanup.policy": "delete",
            _TIMESTAMPS: "LogAppendTime",
            "retention.ms": str(retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": max_bytes,
        }
        if kafka.replication_factor >= REPLICATED:
            configs[_IN_SYNC] = str(LEAST_IN_SYNC)
        return TopicSpec(name, partitions, configs)

    n, m = kafka.partitions, kafka.metric_partitions
    # A verdict is looked up while its trace's records, or late ones within the horizon, can still be read.
    decisions = max(window, raw_retention) + _milliseconds(config.sampling.late_horizon)
    regrouped = [] if config.regroup == "never" else [spec(topics.spans, n, window), spec(topics.logs, n, window)]
    return [
        *regrouped,
        spec(topics.untraced_logs, n, window),
        spec(topics.decisions, n, decisions),
        spec(topics.kept_spans, n, window),
        spec(topics.kept_logs, n, window),
        spec(topics.points, m, window),
        # The aggregate's state: counters go on after any outage that the group's offset outlives. It deletes old ticks.
        spec(topics.samples, m, -1),
        spec(topics.dlq, 1, _milliseconds(kafka.dead_letter_retention), letters),
    ]


def compare(
    config: Config,
    partitions: Mapping[str, int],
    settings: Mapping[str, Mapping[str, str]],
    in_force: int | None = None,
    ticked: int | None = None,
) -> list[TopicProblem]:
    """What differs between the internal topics as they must be and those found.

    `partitions` maps the names found to their partition counts, `settings` to their effective settings (one that the
    brokers did not tell is not judged; min.insync.replicas never is, see `thin`), `in_force` is the N that records are
    placed by, if that is known, `ticked` the M. Retention may be longer than wanted and messages larger; decisions must
    outlive spans and logs, as found, by sampling.late_horizon. More partitions than are in force are unused: a resize
    to fewer leaves them behind, and Kafka takes none back that somebody added. Dead letters are found in any.
    """
    problems = []
    topics, placed = Topics(config.kafka.prefix), placed_by_trace(config)
    for spec in topic_specs(config):
        if spec.name not in partitions:
            problems.append(TopicProblem(spec.name, "does not exist; `tailrace topics FILE --create` creates it"))
            continue
        found, wanted = partitions[spec.name], spec.partitions
        by_trace = spec.name in placed
        known = in_force if by_trace else wanted if spec.name == topics.dlq else ticked
        hint = _resize(config) if by_trace else _metric_partitions(config, spec, found, ticked)
        if known not in (None, wanted):
            which = "N" if by_trace else "M"
            text = f"{which} = {known} partitions are in force, the configuration says {wanted}; {hint}"
            problems.append(TopicProblem(spec.name, text))
        elif found < wanted or (found > wanted and known is None):
            text = f"has {found} partitions, the configuration says {wanted}; records are placed by that number: {hint}"
            problems.append(TopicProblem(spec.name, text))
        elif spec.name == topics.samples and ticked and found < (other := partitions.get(topics.points, 0)):
            text = f"has {found} partitions, {topics.points} has {other}: each of them has one of its own number"
            problems.append(TopicProblem(spec.name, f"{text}; {_more(config, spec.name, other)}"))
        effective = settings.get(spec.name, {})
        for key, value in spec.configs.items():
            if key != _IN_SYNC and key in effective and not _satisfies(key, value, effective[key]):
                least = "at least " if key in _MAY_EXCEED else ""
                text = f"{key} is {effective[key]}, must be {least}{value}"
                # Topics of earlier releases lack ENVELOPE_BYTES: they hold every row, if not all that may be beside it.
                stops = key != "max.message.bytes" or spec.name == topics.dlq
                stops = stops or int(effective[key]) + ENVELOPE_BYTES < int(value)
                problems.append(TopicProblem(spec.name, f"{text}; {_alter(config, spec.name, key, value)}", stops))
    return problems + _outlived(config, settings) + _direct(config, partitions, settings)


def _direct(
    config: Config, partitions: Mapping[str, int], settings: Mapping[str, Mapping[str, str]]
) -> list[TopicProblem]:
    """What is wrong with the raw topics that `sample` reads itself (`regroup: never`)."""
    problems = []
    for name in direct_topics(config):
        found, n = partitions.get(name), config.kafka.partitions
        if found is not None and found != n and not config.reads_whole_topics:
            text = (
                f"has {found} partitions, the configuration says {n}; with regroup: never all raw topics must have the "
                f"same number of partitions, and kafka.partitions must be that number, or 1: then one worker reads all"
            )
            problems.append(TopicProblem(name, text))
        needed = 2 * _milliseconds(config.sampling.decision_wait)
        if _amount(settings.get(name, {}).get("retention.ms", "-1")) < needed:
            text = f"retention.ms is below twice sampling.decision_wait ({needed}): undecided spans wait in it"
            problems.append(TopicProblem(name, f"{text}; {_alter(config, name, 'retention.ms', needed)}"))
    return problems


def direct_topics(config: Config) -> list[str]:
    """The raw topics that `sample` reads itself; none unless `regroup: never`."""
    return config.traced if config.regroup == "never" else []


def canary_topics(config: Config) -> tuple[str, str]:
    """The raw topics of spans and of logs that `tailrace canary` writes. Raises ConfigError if there are none."""
    if config.canary is None:
        page = "docs/how-to/watch-it-with-a-canary.md"
        raise ConfigError(f"canary: is required by `tailrace canary`: where the backends answer queries ({page})")
    chosen = []
    for signal, wanted in (("traces", config.canary.traces_topic), ("logs", config.canary.logs_topic)):
        fit = [i.topic for i in config.inputs if i.signal == signal and i.encoding in ("otlp_proto", "auto")]
        if wanted is not None and wanted not in fit:
            raise ConfigError(f"canary.{signal}_topic: {wanted} is not an input of {signal} as otlp_proto")
        if not fit:
            raise ConfigError(f"inputs: the canary needs an input of {signal} as otlp_proto")
        chosen.append(wanted or fit[0])
    return chosen[0], chosen[1]


def placed_by_trace(config: Config) -> tuple[str, ...]:
    """The topics with N partitions."""
    t = Topics(config.kafka.prefix)
    return t.spans, t.logs, t.untraced_logs, t.decisions, t.kept_spans, t.kept_logs


def places(config: Config, trace_id: bytes) -> Sequence[int]:
    """Partitions that the trace may be in: with `regroup: never` only its producers know."""
    n = config.kafka.partitions
    return range(n) if config.regroup == "never" else [partition_of(trace_id, n)]


def _resize(config: Config) -> str:
    if config.regroup == "never":
        other = "with regroup: never another number needs another kafka.prefix (docs/how-to/without-ingest.md)"
    else:
        other = f"`tailrace topics resize FILE --partitions {config.kafka.partitions}`"
    return f"correct kafka.partitions, or {other}"


def _metric_partitions(config: Config, spec: TopicSpec, found: int, ticked: int | None) -> str:
    if ticked == spec.partitions:
        return _more(config, spec.name, ticked)
    back = "kafka.metric_partitions cannot be changed once it is in use: set it back"
    if ticked is not None:
        return f"{back} to {ticked}"
    topics = Topics(config.kafka.prefix)
    return (
        f"{back}, to {found} unless the topic was given more partitions since: then to what it was, and let this user "
        f"read {topics.samples} and the group {topics.group('aggregate')}, which say so"
    )


def _more(config: Config, topic: str, partitions: int) -> str:
    return f"`{tools.partitions(config.kafka, topic, partitions)}` gives it as many"


def _alter(config: Config, topic: str, key: str, value: str | int) -> str:
    return f"`{tools.setting(config.kafka, topic, key, value)}` sets it"


_IN_SYNC = "min.insync.replicas"
_TIMESTAMPS = "message.timestamp.type"
_MAY_EXCEED = {"retention.ms", "retention.bytes", "max.message.bytes"}


def _satisfies(key: str, wanted: str, found: str) -> bool:
    if key not in _MAY_EXCEED:
        return wanted == found
    return _amount(found) >= _amount(wanted)


def _amount(setting: str) -> float:
    return float("inf") if setting == "-1" else float(setting)


def _outlived(config: Config, settings: Mapping[str, Mapping[str, str]]) -> list[TopicProblem]:
    topics = Topics(config.kafka.prefix)
    retention = {name: _amount(found["retention.ms"]) for name, found in settings.items() if "retention.ms" in found}
    if topics.decisions not in retention:
        return []
    problems = []
    for rows in (topics.spans, topics.logs):
        needed = retention.get(rows, 0.0) + _milliseconds(config.sampling.late_horizon)
        if retention[topics.decisions] < needed:
            least = -1 if needed == float("inf") else round(needed)
            text = f"retention.ms is below that of {rows} plus sampling.late_horizon ({least}): verdicts must outlive"
            command = _alter(config, topics.decisions, "retention.ms", least)
            problems.append(TopicProblem(topics.decisions, f"{text} their rows; {command}"))
    return problems


async def check(config: Config) -> list[TopicProblem]:
    """What is wrong with the internal topics; creates nothing. Raises like `ensure`."""
    if not config.kafka.transactions:
        return []
    async with connected(config) as admin:
        return await _problems(admin, config)


class Survey(NamedTuple):
    """What is wrong with the internal topics, and what might be better, for which no worker waits.

    `thin`: topics, internal and raw, that have REPLICATED replicas and may acknowledge what one broker alone has.
    `short_decisions`: what to set if the raw topics that `sample` reads itself outlive its verdicts, which shortens the
    outage that it survives; "" if they do not.
    """

    problems: list[TopicProblem]
    thin: list[str]
    short_decisions: str
    created: list[str]
    """Raw topics whose timestamps are the producers' own, which are the clock of the sampling."""


async def survey(admin: AIOKafkaAdminClient, config: Config, create: bool = False) -> Survey:
    """Like `check`, or like `ensure` with `create`, and with what might be better. Brokers must have transactions."""
    problems = await (_create_and_check if create else _problems)(admin, config)
    short = await _short_decisions(admin, config) if direct_topics(config) else ""
    told = await settings(admin, sorted(set(config.traced) & (await counts(admin)).keys()))
    created = [name for name, found in told.items() if found.get(_TIMESTAMPS) == "CreateTime"]
    return Survey(problems, await _thin(admin, config), short, created)


def told_thin(names: Collection[str]) -> str:
    """What to do about them."""
    return (
        f"{_IN_SYNC} is below {LEAST_IN_SYNC}: what one broker alone has is acknowledged, and lost with it; "
        f"set it to {LEAST_IN_SYNC} on {', '.join(names)}"
    )


def told_created(names: Collection[str]) -> str:
    """What to do about them."""
    return (
        f"{_TIMESTAMPS} is CreateTime on {', '.join(names)}: a producer's clock that is wrong shifts decisions; "
        "LogAppendTime is the better clock (docs/how-to/producers.md)"
    )


async def ensure(config: Config) -> list[TopicProblem]:
    """Create what is missing; what is wrong with the rest.

    Raises Unavailable when Kafka does not answer, Permanent when it refuses to talk about topics at all.

    Brokers without transactions (`kafka.transactions: false`, the embedded one) have no admin API either: their
    topics appear on first use and nothing is checked.
    """
    if not config.kafka.transactions:
        return []
    async with connected(config) as admin:
        return await _create_and_check(admin, config)


async def _problems(admin: AIOKafkaAdminClient, config: Config) -> list[TopicProblem]:
    partitions = await counts(admin)
    wanted = [*(spec.name for spec in topic_specs(config)), *direct_topics(config)]
    names = [name for name in wanted if name in partitions]
    told, in_force = await settings(admin, names), await _in_force(admin, config)
    return compare(config, partitions, told, in_force, await _ticked(admin, config, partitions))


async def _thin(admin: AIOKafkaAdminClient, config: Config) -> list[str]:
    listed = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics(None)}
    names = [*(item.topic for item in config.inputs), *(spec.name for spec in topic_specs(config))]
    replicated = [
        name for name in names if min((len(p["replicas"]) for p in listed.get(name, ())), default=0) >= REPLICATED
    ]
    told = await settings(admin, replicated)
    return [name for name in replicated if int(told[name].get(_IN_SYNC, LEAST_IN_SYNC)) < LEAST_IN_SYNC]


async def _short_decisions(admin: AIOKafkaAdminClient, config: Config) -> str:
    decisions, partitions = Topics(config.kafka.prefix).decisions, await counts(admin)
    told = await settings(admin, [name for name in (decisions, *direct_topics(config)) if name in partitions])
    needed = _raw_retention(told, config) + _milliseconds(config.sampling.late_horizon)
    found = told.get(decisions, {}).get("retention.ms", "-1")
    if _amount(found) >= needed:
        return ""
    return (
        f"{decisions}: retention.ms is {found}: an outage of sample that outlasts that loses verdicts, though the raw "
        f"topics keep their records for longer; set it to {needed}, theirs plus sampling.late_horizon"
    )


def _raw_retention(settings: Mapping[str, Mapping[str, str]], config: Config) -> int:
    """The longest retention.ms of the raw topics that `sample` reads itself, 0 if that is not known.

    One that keeps everything does not count: the decisions would grow for ever as well.
    """
    told = [int(settings.get(name, {}).get("retention.ms", "-1")) for name in direct_topics(config)]
    return max([0, *told])


async def _in_force(admin: AIOKafkaAdminClient, config: Config) -> int | None:
    """The N by which ingest placed its last records; None if it never ran, or if its offsets may not be read."""
    for group in Topics(config.kafka.prefix).ingest_groups:
        with contextlib.suppress(KafkaError):
            for offset in (await admin.list_consumer_group_offsets(group)).values():
                if (known := RawOffset.unpack(offset.metadata).partitions) is not None:
                    return known
    return None


async def _ticked(admin: AIOKafkaAdminClient, config: Config, partitions: Mapping[str, int]) -> int | None:
    """The M that `aggregate` wrote its last tick with; None if there is none yet, or if it may not be read.

    Asked only if the topics have another number than the configuration says.
    """
    topics = Topics(config.kafka.prefix)
    if {partitions.get(name) for name in (topics.points, topics.samples)} <= {None, config.kafka.metric_partitions}:
        return None
    reader = Reader(config.kafka)
    try:
        with contextlib.suppress(GroupAuthorizationFailedError, TopicAuthorizationFailedError, OffsetOutOfRangeError):
            offsets = await admin.list_consumer_group_offsets(topics.group("aggregate"))
            for points, offset in offsets.items():
                if offset.metadata.isdecimal():
                    begin, samples = int(offset.metadata), TopicPartition(topics.samples, points.partition)
                    header = decode_record((await reader.read(samples, begin, begin + 1, 0)).records[0][2])
                    return header.partitions if isinstance(header, TickHeader) else None
    finally:
        await reader.close()
    return None


async def _create_and_check(admin: AIOKafkaAdminClient, config: Config) -> list[TopicProblem]:
    found = await counts(admin)
    raw = await settings(admin, [name for name in direct_topics(config) if name in found])
    specs = topic_specs(config, _raw_retention(raw, config))
    missing = [spec for spec in specs if spec.name not in found]
    refused = await _create(admin, missing, config.kafka.replication_factor) if missing else []
    made = {spec.name for spec in missing} - {problem.topic for problem in refused}
    async with asyncio.timeout(CREATED_WITHIN_SECONDS):
        while not made <= (await counts(admin)).keys():  # noqa: ASYNC110 (another process is waited for)
            await asyncio.sleep(_POLL_SECONDS)
    named = {problem.topic for problem in refused}
    return refused + [problem for problem in await _problems(admin, config) if problem.topic not in named]


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> list[TopicProblem]:
    new = [NewTopic(s.name, s.partitions, 1, topic_configs=dict(s.configs)) for s in specs]
    for topic in new:
        topic.replication_factor = replication  # NewTopic's constructor refuses -1, the broker's default
    response = await admin.create_topics(new)
    problems = []
    for name, code, message, *_ in response.topic_errors:
        # Another worker may have been quicker; what it made is checked like anything else.
        if code and for_code(code) is not TopicAlreadyExistsError:
            text = f"cannot be created: {message or for_code(code).__name__}"
            if for_code(code) is TopicAuthorizationFailedError:
                text += "; `tailrace acls FILE --role topics` says what is missing"
            problems.append(TopicProblem(name, text))
    return problems


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
