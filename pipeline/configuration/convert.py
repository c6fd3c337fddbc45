"""A Collector's configuration as one of Tailrace: what is taken over, and what has no counterpart.

Taken over are a tail_sampling processor and what reads Kafka and writes OTLP, Kafka or Elasticsearch: of the pipelines
that it is in, and of those of logs and metrics. A part of a configuration will do: `processors`, the block of the
processor, or its `policies`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import INPUT_ENCODINGS, Sampling
from pipeline.configuration.config_file import InvalidConfig, parse, told
from pipeline.configuration.yaml_tree import ANYWHERE, Key, Problem, dotted, not_allowed, not_yaml
from processors.sampling.ottl import CONTEXTS, Context, alternatives, may_fail
from processors.sampling.policies import Policy
from schemas.errors import ConfigError
from schemas.settings import format_duration, parse_duration
from sinks.settings import LOGS_PATH, TRACES_PATH, Sink

PROCESSOR = "tail_sampling"
COMPONENTS = ("receivers", "processors", "exporters")  # of a pipeline
BROKERS = ["localhost:9092"]  # what the Collector's kafka components have when they say none
PORT = 9092  # of a broker without one, as the Collector's client has it
TOPICS = {"traces": "otlp_spans", "logs": "otlp_logs", "metrics": "otlp_metrics"}  # where a component says none
NOT_NEEDED = {
    "num_traces": "undecided traces are in Kafka, nothing is evicted",
    "expected_new_traces_per_sec": "nothing has to be sized before",
    "block_on_overflow": "overload becomes lag",
    "decision_cache": "verdicts are in Kafka; sampling.late_horizon says for how long",
    "tail_storage": "undecided traces are in Kafka",
    "drop_pending_traces_on_shutdown": "a worker that stops leaves what is undecided to the next",
}
LIMITING = ("rate_limiting", "bytes_limiting", "composite")  # policies whose answer depends on what they were asked
LATE_HORIZON: float = Sampling.model_fields["late_horizon"].default  # seconds
TOGETHER = "`ingest` brings the spans of a trace together"
PRINTED = "it only prints"
PROBED = "a worker has /healthz and /readyz, see `telemetry`"
WITHOUT_LOSS = {  # kinds of components
    "batch": "sinks have a `batch` of their own",
    "memory_limiter": "overload becomes lag",
    "groupbytrace": TOGETHER,
    "loadbalancing": TOGETHER,
    "debug": PRINTED,
    "logging": PRINTED,
    "nop": "it does nothing",
    "health_check": PROBED,
    "healthcheckv2": PROBED,
    "pprof": "it is about the Collector",
    "zpages": "it is about the Collector",
}
SPAN_METRICS = "is not taken over: see `metrics.span_metrics`"
REDACTION = "is not taken over: see `redaction` (docs/how-to/redact.md)"
INSTEAD = {"redaction": REDACTION, "spanmetrics": SPAN_METRICS, "span_metrics": SPAN_METRICS}
NONE = "has no counterpart"
HIDING = ("delete", "hash")  # what the action of an `attributes` processor does with a value that must not be seen
ACTIONS = ("actions", "attributes")  # keys of the processors attributes and resource
SINK_OF = {
    "traces": "jaeger: {endpoint: …}",
    "logs": "otlp: {endpoint: …, signals: [logs]}",
    "metrics": "prometheus: {endpoint: …}",
}  # what to write where an exporter is none that is taken over
ALL_TO_ALL = "has receivers and exporters of its own: here all {} go to all sinks that take them"
SHAPES = ("missing", "model_type", "dict_type", "list_type")  # errors that no ${…} helps: it stands for a scalar
NESTED = "is nested too deeply"
DEEPEST = 100  # keys and indices to a value: no configuration needs that many
DEFAULTS = (("sampling_strategy", "trace-complete"), ("maximum_trace_size_bytes", 0))  # what others differ from
NOT_VALID = "is printed, but `tailrace check` refuses it"
READ_KAFKA = "let a Collector write to Kafka, and read that"
KAFKA_KEYS = "see `kafka` in docs/reference/configuration.md"
ASKED_OF_KAFKA = ("brokers", "topic", "topics", "encoding", "initial_offset", "auth", "tls")  # what is looked at
ASKED_OF_OTLP = ("endpoint", "traces_endpoint", "logs_endpoint", "compression", "auth", "tls", "headers")  # as well
ASKED_OF_ELASTICSEARCH = (
    *ASKED_OF_OTLP, "endpoints", "cloudid", "mapping", "logs_index", "index", "user", "password", "api_key",
)  # fmt: skip
ELSEWHERE = (  # keys that say where something goes, or what else is read
    "exclude_topic",
    "exclude_topics",
    "header_extraction",
    "topic_from_attribute",
    "topic_from_metadata_key",
    "logs_dynamic_index",
    "logs_dynamic_id",
    "logs_dynamic_pipeline",
    "logstash_format",
    "pipeline",
)
PATHS = {"traces": TRACES_PATH, "logs": LOGS_PATH}
DATA_STREAM = re.compile(r"logs-([a-z0-9._]{1,100})-([a-z0-9._]{1,100})")
STREAM = "logs-{}-{}".format(*(Sink.model_fields[key].default for key in ("dataset", "namespace")))


@dataclass(frozen=True, slots=True)
class Gap:
    """What has no counterpart. `matters`: other traces may be kept, or something goes elsewhere, without it."""

    line: int
    key: str
    why: str
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.line}: {self.key}: {self.why}"


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
    found: list[tuple[_Conversion, Key, Mapping[str, Any]]] = []
    wrong: list[ConfigError] = []
    mappings = 0
    for node in (each for root in _composed(text) for each in [*filter(_may_be_whole, _embedded(root)), root]):
        try:
            for data, lines in _read(node, text):
                mappings += 1
                found += ((_Conversion(data, lines), *each) for each in _processors(data))
        except ConfigError as error:  # of no account where another one has the processor
            wrong.append(error)
    if not found and wrong:
        raise wrong[0]
    if not mappings:
        raise ConfigError("a Collector's configuration is a mapping with processors and service")
    conversion, path, block = _chosen(found, processor)
    return conversion.convert(path, block)


def _read(node: yaml.Node, text: str) -> Iterator[tuple[Mapping[str, Any], dict[Key, int]]]:
    """The mappings in a node of a text, which may hold YAML itself, and the lines of their keys. Raises ConfigError."""
    inner, indent = [node], 0
    only: dict[Key, int] | None = None
    if isinstance(node, yaml.ScalarNode):
        start = node.start_mark.line
        if node.style == "|":
            indent = _indent(text.splitlines()[start + 1 :])
            inner = _composed("\n" * (start + 1) + node.value, indent)
        else:  # in quotes or folded: its own lines say nothing
            inner, only = _composed(node.value), {(): start + 1}
    for each in inner:
        if isinstance(each, yaml.MappingNode):
            lines = dict(_lines(each, ()))
            data = _unescaped(_constructed(each, indent))
            if isinstance(data, dict):  # no !!set
                yield data, lines if only is None else only


def _composed(text: str, indent: int = 0) -> list[yaml.Node]:
    """The documents in a text, in which columns begin behind an indent. Raises InvalidConfig."""
    try:
        return list(yaml.compose_all(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        problem = not_yaml(error)
    except yaml.reader.ReaderError as error:
        problem = not_allowed(error, text)
    except RecursionError:
        problem = Problem(1, 1, "", NESTED)
    raise InvalidConfig("", [replace(problem, column=problem.column + indent)])


class _Loader(yaml.SafeLoader):
    """Says where a scalar is that is not what its tag, or its look, says."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            why = f"cannot be read as its type: {error}"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from None


def _constructed(node: yaml.Node, indent: int) -> Any:
    """Its data. Raises InvalidConfig."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        problem = not_yaml(error)
        raise InvalidConfig("", [replace(problem, column=problem.column + indent)]) from None
    finally:
        loader.dispose()


def _embedded(root: yaml.Node) -> Iterator[yaml.Node]:
    """What may be the configuration in a ConfigMap, in an OpenTelemetryCollector, or in a chart's values."""
    top = _below(root)
    if "processors" not in top:
        yield from _below(top.get("data")).values()
        yield from (each["config"] for each in (_below(top.get("spec")), top) if "config" in each)


def _below(node: yaml.Node | None) -> dict[str, yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}


def _may_be_whole(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) or (isinstance(node, yaml.ScalarNode) and PROCESSOR in node.value)


def _indent(lines: Sequence[str]) -> int:
    """That of the first line that is not empty."""
    first = next(filter(str.strip, lines), "")
    return len(first) - len(first.lstrip(" "))


def written(config: Mapping[str, Any], left_out: Sequence[Any] = ()) -> str:
    """The text of a file with this content; what is left out of its policies is a comment at its end."""
    text = _dumped(config)
    if left_out:
        text += "\n# Left out of sampling.policies, because it has no counterpart:\n"
        text += "".join(f"# {line}\n" for line in _dumped(left_out).splitlines())
    return text


def _dumped(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _unescaped(data: Any) -> Any:
    """The same with `$` for `$$`, as the Collector reads it; `$${` means the same here."""
    if isinstance(data, str):
        return re.sub(r"\$\$(?!\{)", "$", data)
    if isinstance(data, dict):
        return {key: _unescaped(value) for key, value in data.items()}
    return [_unescaped(value) for value in data] if isinstance(data, list) else data


def _processors(data: Mapping[str, Any]) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Where settings of the processor are, and what they say."""
    processors = data.get("processors")
    path: Key = ("processors",) if isinstance(processors, dict) else ()
    around = processors if isinstance(processors, dict) else data
    names = [name for name in around if str(name).split("/")[0] == PROCESSOR]
    if not path and not names and isinstance(data.get("policies"), list):
        yield (), data
    yield from (((*path, name), around[name]) for name in names if isinstance(around[name], dict))


def _chosen(
    found: Sequence[tuple[_Conversion, Key, Mapping[str, Any]]], wanted: str | None
) -> tuple[_Conversion, Key, Mapping[str, Any]]:
    """The processor of that name; a block without a name has any."""
    several = [each for each in found if wanted is None or not each[1] or each[1][-1] == wanted]
    if not several:
        raise ConfigError(f"there is no processor {wanted or PROCESSOR}")
    if len(several) == 1:
        return several[0]
    names = [str(path[-1]) if path else PROCESSOR for _, path, _ in several]
    if len(set(names)) == len(names):
        raise ConfigError(f"there are {', '.join(names)}: choose one with --processor")
    places = (f"{name} (line {which.line(path)})" for name, (which, path, _) in zip(names, several, strict=True))
    raise ConfigError(f"there are {', '.join(places)}: leave one configuration in the file")


def _lines(node: yaml.Node, path: Key) -> Iterator[tuple[Key, int]]:
    """On which line each key is, counted from 1. Raises ConfigError for what no data can be."""
    if len(path) > DEEPEST:
        raise ConfigError(f"{dotted(path[:3])}: {NESTED}, or an alias in it stands for what it is in")
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
            yield from _lines(value, below)
            yield below, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(value, (*path, number))


_Pipeline = tuple[Key, str, Mapping[str, Sequence[str]]]
"""Where it is, its signal, and the names of its components by kind."""


@dataclass(slots=True)
class _Conversion:
    data: Mapping[str, Any]
    lines: Mapping[Key, int]
    gaps: list[Gap] = field(default_factory=list)
    left_out: list[Any] = field(default_factory=list)
    exporters: dict[str, str] = field(default_factory=dict)  # by the name of the sink

    def gap(self, path: Key, why: str, matters: bool = True) -> None:
        """Note it, once: a component may be in several pipelines."""
        found = Gap(self.line(path), dotted(path), why, matters)
        if found not in self.gaps:
            self.gaps.append(found)

    def without(self, path: Key, name: str, otherwise: str = NONE) -> None:
        """A component that is not taken over."""
        kind = name.split("/")[0]
        if kind in WITHOUT_LOSS:
            self.gap(path, f"{name} is not needed: {WITHOUT_LOSS[kind]}", matters=False)
        else:
            self.gap(path, f"{name} {INSTEAD.get(kind, otherwise)}")

    def line(self, path: Key) -> int:
        return next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), 1)

    def mapping(self, path: Key, value: Any) -> Mapping[str, Any]:
        """What is there, empty if nothing is."""
        if value and not isinstance(value, dict):
            raise ConfigError(f"line {self.line(path)}: {dotted(path)}: must be a mapping")
        return value or {}

    def listed(self, path: Key, value: Any) -> Sequence[Any]:
        """What is there, empty if nothing is."""
        if value and not isinstance(value, list):
            raise ConfigError(f"line {self.line(path)}: {dotted(path)}: must be a list")
        return value or []

    def names(self, path: Key, value: Any) -> Sequence[str]:
        """Components of a pipeline."""
        found = self.listed(path, value)
        if not all(isinstance(name, str) for name in found):
            raise ConfigError(f"line {self.line(path)}: {dotted(path)}: must be names")
        return found

    def component(self, kind: str, name: Any) -> Mapping[str, Any]:
        """What is said of it where components of its kind are."""
        return self.mapping((kind, name), self.mapping((kind,), self.data.get(kind)).get(name))

    def convert(self, path: Key, settings: Mapping[str, Any]) -> Converted:
        sampling: dict[str, Any] = {"compat": "otel"}
        for key, value in settings.items():
            if key in ("decision_wait", "decision_wait_after_root_received"):
                sampling[key] = value
            elif key in NOT_NEEDED:
                self.gap((*path, key), f"not needed: {NOT_NEEDED[key]}", matters=False)
            elif key not in ("policies", "sample_on_first_match") and (key, value) not in DEFAULTS:
                self.gap((*path, key), NONE)
        self.waits(path, sampling)
        sampling["policies"] = self.policies((*path, "policies"), settings.get("policies"))
        if settings.get("sample_on_first_match"):
            self.first_match((*path, "sample_on_first_match"), sampling["policies"])
        pipelines = self.pipelines(path)
        inputs, kafka = self.inputs(path, pipelines)
        config: dict[str, Any] = {"kafka": kafka, "inputs": inputs, "sampling": sampling}
        if any(given["signal"] == "logs" for given in inputs):
            config["logs"] = {"unsampled": "all"}  # a Collector's logs know of no verdict
        if sinks := self.sinks(pipelines):
            config["sinks"] = sinks
        self.checked(path, config)
        return Converted(config, sorted(self.gaps, key=lambda gap: gap.line), self.left_out)

    def waits(self, path: Key, sampling: dict[str, Any]) -> None:
        """Waits that the Collector takes and Tailrace has a rule about."""
        root = "decision_wait_after_root_received"
        try:
            wait = parse_duration(sampling["decision_wait"])
            if root in sampling and parse_duration(sampling[root]) >= wait:
                del sampling[root]
                self.gap((*path, root), "not needed: no shorter than decision_wait", matters=False)
        except (KeyError, ValueError):
            return  # the default, or for `checked` to tell
        if wait >= LATE_HORIZON:
            sampling["late_horizon"] = longer = format_duration(wait + LATE_HORIZON)
            self.gap((*path, "decision_wait"), f"needs a sampling.late_horizon that is longer: {longer}", matters=False)

    def first_match(self, path: Key, policies: Sequence[Mapping[str, Any]]) -> None:
        """Which policies are asked here, and not by a Collector that stops at the first that keeps a trace.

        It asks `drop` policies before all others, wherever they stand, so only what a limit has left differs (its
        processor.go: loadSamplingPolicies and makeDecision).
        """
        for policy in [policy for policy in policies if policy["type"] != "drop"][1:]:
            if _is_limiting(policy):
                why = f"has no counterpart: the limit of {policy['name']!r} is spent by traces that others keep, too"
                self.gap(path, f"{why}; `and` with `not` of the others before it spares it")

    def checked(self, path: Key, config: Mapping[str, Any]) -> None:
        """What `tailrace check` will say of the result where its variables are set."""
        try:
            parse(written(config), "", {}, ANYWHERE)
        except InvalidConfig as invalid:
            for problem in invalid.problems:
                section, _, key = problem.key.partition(".")
                place = (*path, key) if section == "sampling" else ()
                if section == "sinks":  # a name may have dots
                    names = (name for name in self.exporters if f"{key}.".startswith(f"{name}."))
                    place = next((("exporters", self.exporters[name]) for name in names), ())
                self.gaps.append(Gap(self.line(place), problem.key, f"{NOT_VALID}: {problem.rule}"))

    def policies(self, path: Key, given: Any) -> list[dict[str, Any]]:
        taken: list[dict[str, Any]] = []
        for number, whole in enumerate(self.listed(path, given)):
            here: Key = (*path, number)
            name = whole.get("name") if isinstance(whole, dict) else None
            policy = self.met_without(here, whole)
            try:
                Policy.model_validate(policy)
            except ValidationError as error:
                wrong = [
                    details
                    for details in error.errors()
                    if details["type"] in SHAPES or "${" not in str(details["input"])
                ]
                for place, why in (each for details in wrong for each in told(details)):
                    self.gap(here + place, f"policy {name!r} is left out: {why}")
                if wrong:
                    self.left_out.append(whole)
                    continue
                self.gap(here, f"policy {name!r} is taken as it is: what ${{…}} stands for is not known here", False)
            if any(name == other["name"] for other in taken):
                self.gap(here, f"policy {name!r} is left out: there is one of this name already")
                self.left_out.append(whole)
                continue
            taken.append(policy)
        return taken

    def met_without(self, path: Key, policy: Any) -> Any:
        """The same without conditions that are not known here: one of a list is enough, so the others still keep.

        A policy whose conditions are all unknown stays as it is, for its own validation to tell.
        """
        if isinstance(policy, list):
            return [self.met_without((*path, number), part) for number, part in enumerate(policy)]
        if not isinstance(policy, dict):
            return policy
        block = policy.get("ottl_condition")
        if not isinstance(block, dict):
            return {key: self.met_without((*path, key), value) for key, value in policy.items()}
        kept: dict[str, Any] = dict(block)
        refused: dict[Context, dict[int, str]] = {}
        for context in CONTEXTS:
            conditions = block.get(context)
            if not isinstance(conditions, list) or not all(isinstance(one, str) for one in conditions):
                continue
            wrong = {n: why for n, one in enumerate(conditions) if "${" not in one and (why := _refused(one, context))}
            kept[context] = [one for n, one in enumerate(conditions) if n not in wrong]
            refused |= {context: wrong} if wrong else {}
        if block.get("error_mode") == "propagate" and (failing := list(_failing(kept))):
            rest = "keeps no trace with a span on which it fails before one that meets a condition"
            self.gap(
                (*path, "ottl_condition", "error_mode"), f"has no counterpart: with {failing[0]!r} a Collector {rest}"
            )
        if not refused or not any(kept.get(context) for context in CONTEXTS):
            return policy
        for context, wrong in refused.items():
            for n, why in wrong.items():
                place: Key = (*path, "ottl_condition", context, n)
                self.gap(place, f"a condition of policy {policy.get('name')!r} is left out: {why}")
        left_out = {context: [block[context][n] for n in wrong] for context, wrong in refused.items()}
        self.left_out.append({**policy, "ottl_condition": left_out})
        return {**policy, "ottl_condition": {key: value for key, value in kept.items() if value != []}}

    def pipelines(self, path: Key) -> list[_Pipeline]:
        """Those that the processor is in, then those of logs and of metrics that read Kafka. The others are told."""
        found: list[_Pipeline] = []
        service = self.mapping(("service",), self.data.get("service"))
        for name in self.names(("service", "extensions"), service.get("extensions")):
            if name.split("/")[0] in WITHOUT_LOSS:
                self.without(("service", "extensions"), name)
        for name, pipeline in self.mapping(("service", "pipelines"), service.get("pipelines")).items():
            here: Key = ("service", "pipelines", name)
            told = self.mapping(here, pipeline)
            names = {kind: self.names((*here, kind), told.get(kind)) for kind in COMPONENTS}
            signal = str(name).split("/")[0]
            if path and path[-1] in names["processors"]:
                found.append((here, "traces", names))
            elif signal not in ("logs", "metrics"):
                self.gap(here, f"not looked at: {path[-1] if path else PROCESSOR} is not in it", matters=False)
            elif any(map(_is_kafka, names["receivers"])):
                found.append((here, signal, names))
            else:
                self.gap(here, f"not looked at: no receiver of it is kafka; {READ_KAFKA}", matters=False)
        return sorted(found, key=lambda each: [*TOPICS].index(each[1]))

    def inputs(self, path: Key, pipelines: Sequence[_Pipeline]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The raw topics, and `kafka`."""
        found: list[dict[str, Any]] = []
        brokers: list[str] = []
        taken: set[tuple[str, str]] = set()  # receivers that another pipeline has as well
        start: str | None = None
        said = left_out = False
        first: dict[str, Mapping[str, Sequence[str]]] = {}
        for here, signal, pipeline in pipelines:
            one = first.setdefault(signal, pipeline)
            if all(_needed(one[kind]) != _needed(pipeline[kind]) for kind in ("receivers", "exporters")):
                self.gap(here, ALL_TO_ALL.format(signal))
            for other in pipeline["processors"]:
                if other not in path[-1:]:
                    self.without((*here, "processors"), other, REDACTION if self.hides(other) else NONE)
            for name in pipeline["receivers"]:
                if (name, signal) in taken:
                    continue
                taken.add((name, signal))
                if not _is_kafka(name):
                    self.without((*here, "receivers"), name, f"{NONE}: {READ_KAFKA}")
                    continue
                settings = self.component("receivers", name)
                place: Key = ("receivers", name)
                block = self.mapping((*place, signal), settings.get(signal))
                topics = self.listed((*place, signal, "topics"), block.get("topics")) or [
                    block.get("topic") or settings.get("topic") or TOPICS[signal]
                ]
                encoding = block.get("encoding") or settings.get("encoding") or "otlp_proto"
                if signal == "logs" and encoding == "text_utf-8":
                    encoding = "text"
                own = _listed(settings.get("brokers"))
                if brokers and not set(own) & set(brokers):
                    why = f"{name} is left out: one Tailrace reads from one cluster, this is {', '.join(brokers)}"
                    self.gap((*place, "brokers"), why)
                    continue
                brokers += [broker for broker in own if broker not in brokers]
                if encoding not in INPUT_ENCODINGS[signal]:
                    where = (*place, signal, "encoding") if "encoding" in block else (*place, "encoding")
                    known = ", ".join(INPUT_ENCODINGS[signal])
                    self.gap(where, f"{name} is left out: {encoding} is none of {known}")
                    left_out |= signal == "traces"
                    continue
                for topic in topics:
                    if str(topic).startswith("^"):
                        self.gap((*place, signal), f"{topic} is left out: a pattern; name the topics as `inputs`")
                        left_out |= signal == "traces"
                    elif (given := {"topic": topic, "signal": signal, "encoding": encoding}) not in found:
                        found.append(given)
                offset = settings.get("initial_offset", "latest")
                said |= "initial_offset" in settings
                if start not in (None, offset):
                    self.gap(
                        (*place, "initial_offset"), f"{offset} is not taken over: `kafka.start` is {start} for all"
                    )
                start = start or offset
                if "topics" in settings and "topics" not in block:
                    why = (
                        f"is no key of the receiver: {', '.join(map(str, topics))} is assumed; name topics as `inputs`"
                    )
                    self.gap((*place, "topics"), why)
                signals = [each for _, each, names in pipelines if name in names["receivers"]]
                self.rest(place, settings, KAFKA_KEYS, (*ASKED_OF_KAFKA, *signals))
                self.secured(place, settings, "kafka.security")
        if not left_out and all(given["signal"] != "traces" for given in found):
            assumed, broker = TOPICS["traces"], (brokers or BROKERS)[0]
            self.gap(path, f"no kafka receiver: the topic {assumed} on {broker} is assumed", matters=False)
            found.insert(0, {"topic": assumed, "signal": "traces"})
        return found, {"bootstrap_servers": _addresses(brokers or BROKERS)} | ({"start": start} if said else {})

    def hides(self, name: str) -> bool:
        """Whether a processor keeps values of attributes from who comes behind it."""
        settings = self.component("processors", name)
        listed = [each for key in ACTIONS if isinstance(actions := settings.get(key), list) for each in actions]
        return any(isinstance(each, dict) and each.get("action") in HIDING for each in listed)

    def rest(self, path: Key, settings: Mapping[str, Any], where: str, asked: Sequence[str]) -> None:
        """What else a component says: most of it is about its client."""
        for key, value in settings.items():
            if key in ELSEWHERE and not (isinstance(value, dict) and value.get("enabled") is False):
                self.gap((*path, key), NONE)
            elif key in (*TOPICS, "profiles") and key not in asked:
                self.gap((*path, key), "not taken over: no pipeline that is taken over has it", matters=False)
            elif key not in asked:
                self.gap((*path, key), f"not taken over: {where}", matters=False)
        for signal in (key for key in TOPICS if key in asked):
            for key in self.mapping((*path, signal), settings.get(signal)):
                if key in ELSEWHERE:
                    self.gap((*path, signal, key), NONE)

    def sinks(self, pipelines: Sequence[_Pipeline]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        taken: dict[tuple[str, str], str] = {}  # exporters that another pipeline has as well, and their sinks
        for here, signal, pipeline in pipelines:
            for name in pipeline["exporters"]:
                if (name, signal) in taken:
                    continue
                taken[name, signal] = ""
                settings = self.component("exporters", name)
                kind, _, rest = name.partition("/")
                if kind in ("otlp", "otlp_grpc", "otlphttp", "otlp_http") and signal in PATHS:
                    target, sink = "otlp", self.otlp(name, signal, settings)
                elif (kind, signal) == ("kafka", "traces"):
                    target, sink = kind, self.kafka(name, settings)
                elif (kind, signal) == ("elasticsearch", "logs"):
                    target, sink = kind, self.elasticsearch(name, settings)
                else:
                    self.without(
                        (*here, "exporters"), name, f"is not taken over: write `{SINK_OF[signal]}` below `sinks`"
                    )
                    continue
                if not sink:
                    continue
                self.secured(("exporters", name), {k: v for k, v in settings.items() if k not in sink}, "the sink")
                same = found.get(taken.get((name, "traces"), ""))
                if same and same == sink | {"signals": same.get("signals")}:
                    same["signals"].append(signal)
                    continue
                key = f"{target}/{rest}" if rest else target
                if key in found:  # the other protocol's exporter of that name, or this one's other address
                    key = f"{target}/{rest}-{kind}" if rest else f"{target}/{kind}"
                if key in found:
                    key += f"-{signal}"
                found[key] = sink
                self.exporters[key] = name
                taken[name, signal] = key
        return found

    def otlp(self, name: str, signal: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The sink of an exporter of OTLP, empty if there is none."""
        place: Key = ("exporters", name)
        grpc = "http" not in name.split("/")[0]
        insecure = self.mapping((*place, "tls"), settings.get("tls")).get("insecure") is True
        address = settings.get("endpoint")
        own, behind = f"{signal}_endpoint", PATHS[signal]
        if not grpc and own in settings:
            address = str(settings[own]).removesuffix(behind)
            if address == settings[own]:
                why = f"not taken over: Tailrace writes to `endpoint` with {behind} behind it"
                self.gap((*place, own), why)
                address = settings.get("endpoint")
        if not address:
            self.gap(place, f"{name} is left out: it has no endpoint for {signal}")
            return {}
        scheme = "http" if insecure else "https"
        address = str(address).removeprefix("dns:///")
        # OTLP/HTTP cannot be without a scheme, so it is in the variable.
        whole = "://" in address or (not grpc and address.startswith("${"))
        if address.startswith("${") and not whole:
            why = f"{scheme}:// is put in front: leave it away if it is in {address}"
            self.gap((*place, "endpoint"), why, matters=False)
        sink = {"endpoint": address if whole else f"{scheme}://{address}", "signals": [signal]}
        self.rest(place, settings, "see the sink's keys", ASKED_OF_OTLP)
        return sink | self.compression(place, settings) | ({"protocol": "grpc"} if grpc else {})

    def kafka(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The sink of an exporter to Kafka, empty if there is none."""
        place: Key = ("exporters", name)
        traces = self.mapping((*place, "traces"), settings.get("traces"))
        topic = traces.get("topic") or settings.get("topic") or TOPICS["traces"]
        encoding = traces.get("encoding") or settings.get("encoding") or "otlp_proto"
        if encoding != "otlp_proto":
            why = f"{name} is left out: kept spans are written as otlp_proto, not as {encoding}"
            self.gap((*place, "encoding"), why)
            return {}
        self.rest(place, settings, "see the sink's keys", (*ASKED_OF_KAFKA, "traces"))
        return {"bootstrap_servers": _addresses(_listed(settings.get("brokers"))), "topic": topic}

    def elasticsearch(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The sink of an exporter of logs to Elasticsearch, empty if there is none."""
        place: Key = ("exporters", name)
        sink: dict[str, Any]
        if settings.get("endpoint"):
            sink = {"endpoint": settings["endpoint"]}
        elif urls := settings.get("endpoints"):
            sink = {"endpoints": urls if isinstance(urls, list) else [url.strip() for url in str(urls).split(",")]}
        elif "cloudid" in settings:
            why = f"{name} is left out: write `{name}: {{endpoint: …}}`, the URL behind the id, below `sinks`"
            self.gap((*place, "cloudid"), why)
            return {}
        else:
            sink = {"endpoint": "${ELASTICSEARCH_URL}"}
            self.gap(place, "has no endpoint: ${ELASTICSEARCH_URL}, one URL, is assumed", matters=False)
        mode = self.mapping((*place, "mapping"), settings.get("mapping")).get("mode", "otel")
        if mode == "ecs":
            sink["mapping"] = "ecs"
        elif mode != "otel":
            why = f"{mode} is not taken over: it is otel; write `mapping: ecs` at the sink for the other one"
            self.gap((*place, "mapping", "mode"), why)
        key = "logs_index" if settings.get("logs_index") else "index"
        if not (index := str(settings.get(key) or "")):
            why = f"has no logs_index: documents go to the data stream {STREAM}; see `dataset` and `namespace`"
            self.gap(place, why, matters=False)
        elif stream := DATA_STREAM.fullmatch(index):
            sink["dataset"], sink["namespace"] = stream.groups()
        else:
            dataset = "…" if "${" in index else re.sub("[^a-z0-9._]", "_", index.lower())[:100]
            why = f"{index} is no name of a data stream: documents go to {STREAM}"
            self.gap((*place, key), f"{why}; write `dataset: {dataset}` at the sink for logs-{dataset}-default")
        if auth := self.credentials(settings):
            sink["auth"] = auth
        self.rest(place, settings, "see the sink's keys", ASKED_OF_ELASTICSEARCH)
        return sink | self.compression(place, settings)

    def compression(self, path: Key, settings: Mapping[str, Any]) -> dict[str, str]:
        """That of a sink that has gzip or none."""
        if (compression := settings.get("compression", "gzip")) in ("none", ""):
            return {"compression": "none"}
        if compression != "gzip":
            self.gap((*path, "compression"), f"{compression} is not taken over: it is gzip", matters=False)
        return {}

    def credentials(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those of an exporter to Elasticsearch, its own or those of a basicauth extension; empty if there are none."""
        if settings.get("api_key"):
            return {"api_key": settings["api_key"]}
        given, user = settings, "user"
        auth = settings.get("auth")
        name = str(auth.get("authenticator")) if isinstance(auth, dict) else ""
        if name.split("/")[0] == "basicauth":
            block = self.component("extensions", name).get("client_auth")
            given, user = self.mapping(("extensions", name, "client_auth"), block), "username"
        keys = {"username": user, "password": "password"}
        return {key: given[own] for key, own in keys.items() if given.get(own)}

    def secured(self, path: Key, settings: Mapping[str, Any], where: str) -> None:
        """Credentials and certificates that are not taken over."""
        for key in ("auth", "tls", "headers"):
            value = settings.get(key)
            if value and value not in ({"insecure": True}, {"insecure": False}):
                self.gap((*path, key), f"not taken over: say it at {where}")


def _needed(names: Sequence[str]) -> set[str]:
    return {name for name in names if name.split("/")[0] not in WITHOUT_LOSS}


def _is_kafka(receiver: str) -> bool:
    return receiver.split("/")[0] == "kafka"


def _refused(condition: str, context: Context) -> str:
    """Why a condition in OTTL is not known here; nothing if it is."""
    try:
        alternatives(condition, context)
    except ValueError as error:
        return str(error)
    return ""


def _failing(block: Mapping[str, Any]) -> Iterator[str]:
    """The conditions that are known here and fail on some values."""
    for context in CONTEXTS:
        conditions = block.get(context)
        for one in conditions if isinstance(conditions, list) else []:
            if isinstance(one, str) and not _refused(one, context) and may_fail(one, context):
                yield one


def _is_limiting(policy: Any) -> bool:
    """Whether a policy, or one inside it, has a limit."""
    if isinstance(policy, dict):
        return policy.get("type") in LIMITING or any(map(_is_limiting, policy.values()))
    return isinstance(policy, list) and any(map(_is_limiting, policy))


def _listed(brokers: Any) -> list[str]:
    """Addresses with their ports, or what stands for some."""
    texts = map(str, brokers) if isinstance(brokers, list) else str(brokers or BROKERS[0]).split(",")
    found = [text.strip() for text in texts]
    return [text if ":" in text or "${" in text else f"{text}:{PORT}" for text in found] or BROKERS


def _addresses(brokers: list[str]) -> list[str] | str:
    """As a list, or as one text where a variable may stand for several."""
    return ",".join(brokers) if any("${" in broker for broker in brokers) else brokers
