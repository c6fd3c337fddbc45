"""The pipelines that are looked at, and what their kafka receivers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import INPUT_ENCODINGS
from pipeline.configuration.otelcol.components import REDACTION, TOPICS, WITHOUT_LOSS, rest, without
from pipeline.configuration.otelcol.document import PROCESSOR
from pipeline.configuration.otelcol.security import Keys, kafka_security
from pipeline.configuration.otelcol.source import NONE, Source
from pipeline.configuration.yaml_tree import Key

COMPONENTS = ("receivers", "processors", "exporters")  # of a pipeline
BROKERS = ["localhost:9092"]  # what the Collector's kafka components have when they say none
PORT = 9092  # of a broker without one, as the Collector's client has it
HIDING = ("delete", "hash")  # what the action of an `attributes` processor does with a value that must not be seen
ACTIONS = ("actions", "attributes")  # keys of the processors attributes and resource
ALL_TO_ALL = "has receivers and exporters of its own: here all {} go to all sinks that take them"
READ_KAFKA = "let a Collector write to Kafka, and read that"
BEFORE_KAFKA = "leave it in the Collector that writes to Kafka"
KAFKA_KEYS = "see `kafka` in docs/reference/configuration.md"
ASKED_OF_KAFKA = ("brokers", "topic", "topics", "encoding", "initial_offset", "auth", "tls")  # what is looked at

Pipeline = tuple[Key, str, Mapping[str, Sequence[str]]]
"""Where it is, its signal, and the names of its components by kind."""


def pipelines(source: Source, path: Key) -> list[Pipeline]:
    """Those that the processor is in, then those of logs and of metrics that read Kafka. The others are told."""
    found: list[Pipeline] = []
    others: list[Pipeline] = []
    service = source.mapping(("service",), source.data.get("service"))
    for name in source.names(("service", "extensions"), service.get("extensions")):
        if name.split("/")[0] in WITHOUT_LOSS:
            without(source, ("service", "extensions"), name)
    for name, pipeline in source.mapping(("service", "pipelines"), service.get("pipelines")).items():
        here: Key = ("service", "pipelines", name)
        told = source.mapping(here, pipeline)
        names = {kind: source.names((*here, kind), told.get(kind)) for kind in COMPONENTS}
        signal = str(name).split("/")[0]
        if path and path[-1] in names["processors"]:
            found.append((here, "traces", names))
        elif signal not in ("logs", "metrics"):
            others.append((here, signal, names))
        elif any(map(_is_kafka, names["receivers"])):
            found.append((here, signal, names))
        else:
            source.gap(here, f"not looked at: no receiver of it is kafka; {READ_KAFKA}", matters=False)
    processor = path[-1] if path else PROCESSOR
    if path and others and all(signal != "traces" for _, signal, _ in found):
        source.gap(("service", "pipelines"), f"nothing of them is taken over for traces: {processor} is in none")
    near = [each for each in found if each[1] == "traces"]
    while joined := [each for each in others if each not in near and _joined(source, each, near)]:
        near += joined
    for each in others:
        _leave_out(source, each, str(processor), near)
    return sorted(found, key=lambda each: [*TOPICS].index(each[1]))


def _joined(source: Source, pipeline: Pipeline, others: Sequence[Pipeline]) -> set[str]:
    """The connectors between it and others."""
    connectors = source.mapping(("connectors",), source.data.get("connectors"))
    ways = (("exporters", "receivers"), ("receivers", "exporters"))
    return {
        name
        for mine, theirs in ways
        for name in pipeline[2][mine]
        if name in connectors and any(name in other[2][theirs] for other in others)
    }


def _leave_out(source: Source, pipeline: Pipeline, processor: str, near: Sequence[Pipeline]) -> None:
    """Tell a pipeline that is not looked at; it matters what one does that connectors join with one that is."""
    here, _, names = pipeline
    joined = _joined(source, pipeline, near)
    text = f"not looked at: {processor} is not in it"
    if joined:
        parts = ", ".join(dict.fromkeys(each for kind in COMPONENTS for each in names[kind] if each not in joined))
        by = ", ".join(sorted(joined))
        text += f", but through {by} it is joined with one that has it: take over by hand what is in it, {parts}"
    source.gap(here, text, matters=bool(joined))


def inputs(source: Source, path: Key, pipelines: Sequence[Pipeline]) -> tuple[list[dict[str, Any]], Keys]:
    """The raw topics, and `kafka`."""
    read = _Read(source, pipelines)
    taken: set[tuple[str, str]] = set()  # receivers that another pipeline has as well
    first: dict[str, Mapping[str, Sequence[str]]] = {}
    for here, signal, pipeline in pipelines:
        one = first.setdefault(signal, pipeline)
        if all(_needed(one[kind]) != _needed(pipeline[kind]) for kind in ("receivers", "exporters")):
            source.gap(here, ALL_TO_ALL.format(signal))
        for other in pipeline["processors"]:
            if other not in path[-1:]:
                without(
                    source,
                    (*here, "processors"),
                    other,
                    REDACTION if _hides(source, other) else f"{NONE}: {BEFORE_KAFKA}",
                )
        for name in pipeline["receivers"]:
            if (name, signal) in taken:
                continue
            taken.add((name, signal))
            if _is_kafka(name):
                read.receiver(name, signal, source.component("receivers", name))
            else:
                without(source, (*here, "receivers"), name, f"{NONE}: {READ_KAFKA}")
    if not read.left_out and all(given["signal"] != "traces" for given in read.topics):
        assumed, broker = TOPICS["traces"], (read.brokers or BROKERS)[0]
        why = f"no kafka receiver is taken over: the topic {assumed} on {broker} is assumed"
        source.gap(path, why, matters=False)
        read.topics.insert(0, {"topic": assumed, "signal": "traces"})
    return read.topics, {"bootstrap_servers": addresses(read.brokers or BROKERS)} | read.settings


@dataclass(slots=True)
class _Read:
    """What kafka receivers read, one after another: from one cluster, with one start and one way to log in for all.

    `left_out`: one of traces cannot be read. `settings` are those of `kafka`, but for the brokers.
    """

    source: Source
    pipelines: Sequence[Pipeline]
    topics: list[dict[str, Any]] = field(default_factory=list)
    brokers: list[str] = field(default_factory=list)
    settings: Keys = field(default_factory=dict)
    left_out: bool = False
    _start: str | None = None
    _security: Keys | None = None

    def receiver(self, name: str, signal: str, settings: Mapping[str, Any]) -> None:
        source, place = self.source, ("receivers", name)
        block = source.mapping((*place, signal), settings.get(signal))
        topics = source.listed((*place, signal, "topics"), block.get("topics")) or [
            block.get("topic") or settings.get("topic") or TOPICS[signal]
        ]
        encoding = block.get("encoding") or settings.get("encoding") or "otlp_proto"
        if signal == "logs" and encoding == "text_utf-8":
            encoding = "text"
        own = listed(settings.get("brokers"))
        if self.brokers and not set(own) & set(self.brokers):
            why = f"{name} is left out: one Tailrace reads from one cluster, this is {', '.join(self.brokers)}"
            source.gap((*place, "brokers"), why)
            return
        self.brokers += [broker for broker in own if broker not in self.brokers]
        if encoding not in INPUT_ENCODINGS[signal]:
            where = (*place, signal, "encoding") if "encoding" in block else (*place, "encoding")
            source.gap(where, f"{name} is left out: {encoding} is none of {', '.join(INPUT_ENCODINGS[signal])}")
            self.left_out |= signal == "traces"
            return
        for topic in topics:
            if str(topic).startswith("^"):
                source.gap((*place, signal), f"{topic} is left out: a pattern; name the topics as `inputs`")
                self.left_out |= signal == "traces"
            elif (given := {"topic": topic, "signal": signal, "encoding": encoding}) not in self.topics:
                self.topics.append(given)
        if "topics" in settings and "topics" not in block:
            why = f"is no key of the receiver: {', '.join(map(str, topics))} is assumed; name topics as `inputs`"
            source.gap((*place, "topics"), why)
        self._begin(place, settings)
        self._log_in(place, settings)
        signals = [each for _, each, names in self.pipelines if name in names["receivers"]]
        rest(source, place, settings, KAFKA_KEYS, (*ASKED_OF_KAFKA, *signals))

    def _begin(self, place: Key, settings: Mapping[str, Any]) -> None:
        offset = settings.get("initial_offset", "latest")
        if self._start not in (None, offset):
            why = f"{offset} is not taken over: `kafka.start` is {self._start} for all"
            self.source.gap((*place, "initial_offset"), why)
        self._start = self._start or offset
        if "initial_offset" in settings:
            self.settings["start"] = self._start

    def _log_in(self, place: Key, settings: Mapping[str, Any]) -> None:
        security = kafka_security(self.source, place, settings)
        if self._security is None:
            self._security = security
            self.source.origins["kafka.security"] = place
            if security:
                self.settings["security"] = security
        elif self._security != security:
            why = f"not taken over: `kafka.security` is that of {self.source.origins['kafka.security'][1]} for all"
            self.source.gap((*place, "auth" if settings.get("auth") else "tls"), why)


def _hides(source: Source, name: str) -> bool:
    """Whether a processor keeps values of attributes from who comes behind it."""
    settings = source.component("processors", name)
    listed = [each for key in ACTIONS if isinstance(actions := settings.get(key), list) for each in actions]
    return any(isinstance(each, dict) and each.get("action") in HIDING for each in listed)


def _needed(names: Sequence[str]) -> set[str]:
    return {name for name in names if name.split("/")[0] not in WITHOUT_LOSS}


def _is_kafka(receiver: str) -> bool:
    return receiver.split("/")[0] == "kafka"


def listed(brokers: Any) -> list[str]:
    """Addresses with their ports, or what stands for some."""
    texts = map(str, brokers) if isinstance(brokers, list) else str(brokers or BROKERS[0]).split(",")
    found = [text.strip() for text in texts]
    return [text if ":" in text or "${" in text else f"{text}:{PORT}" for text in found] or BROKERS


def addresses(brokers: list[str]) -> list[str] | str:
    """As a list, or as one text where a variable may stand for several."""
    return ",".join(brokers) if any("${" in broker for broker in brokers) else brokers
