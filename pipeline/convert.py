"""A Collector's configuration as one of Tailrace: what is taken over, and what has no counterpart.

Taken over are a tail_sampling processor and, of the pipelines that it is in, what reads Kafka and what writes OTLP or
Kafka. A part of a configuration will do: `processors`, the block of the processor, or its `policies`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Sampling
from pipeline.config_file import InvalidConfig, parse, told
from pipeline.yaml_tree import Key, Problem, dotted, not_allowed, not_yaml
from processors.regroup import ENCODINGS
from processors.sampling.ottl import CONTEXTS, Context, alternatives, may_fail
from processors.sampling.policies import Policy
from schemas.errors import ConfigError
from schemas.settings import format_duration, parse_duration
from sinks.settings import TRACES_PATH

PROCESSOR = "tail_sampling"
COMPONENTS = ("receivers", "processors", "exporters")  # of a pipeline
BROKERS = ["localhost:9092"]  # what the Collector's kafka components have when they say none
PORT = 9092  # of a broker without one, as the Collector's client has it
TOPIC = "otlp_spans"
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
HARMLESS = ("batch", "memory_limiter", "groupbytrace")  # processors that change no span
SPAN_METRICS = "see `metrics.span_metrics`"
REDACTION = "see `redaction` (docs/how-to/redact.md)"
INSTEAD = {"redaction": REDACTION, "spanmetrics": SPAN_METRICS, "span_metrics": SPAN_METRICS}
HIDING = ("delete", "hash")  # what the action of an `attributes` processor does with a value that must not be seen
ACTIONS = ("actions", "attributes")  # keys of the processors attributes and resource
NO_SINK = "has no counterpart that could be taken over: see `sinks`"
SHAPES = ("missing", "model_type", "dict_type", "list_type")  # errors that no ${…} helps: it stands for a scalar
NESTED = "is nested too deeply"
DEEPEST = 100  # keys and indices to a value: no configuration needs that many
DEFAULTS = (("sampling_strategy", "trace-complete"), ("maximum_trace_size_bytes", 0))  # what others differ from
NOT_VALID = "is printed, but `tailrace check` refuses it"
NO_TIER = "is not needed: `ingest` brings the spans of a trace together"
KAFKA_KEYS = "see `kafka` in docs/reference/configuration.md"
ASKED_OF_KAFKA = (
    "brokers",
    "traces",
    "topic",
    "topics",
    "encoding",
    "initial_offset",
    "auth",
    "tls",
)  # what is looked at
ASKED_OF_OTLP = ("endpoint", "traces_endpoint", "compression", "auth", "tls", "headers")  # as well
OTHER_TOPICS = ("exclude_topics", "header_extraction", "topic_from_attribute", "topic_from_metadata_key")


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that has no counterpart. `matters`: other traces may be kept, or go elsewhere, without it."""

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


@dataclass(slots=True)
class _Conversion:
    data: Mapping[str, Any]
    lines: Mapping[Key, int]
    gaps: list[Gap] = field(default_factory=list)
    left_out: list[Any] = field(default_factory=list)

    def gap(self, path: Key, why: str, matters: bool = True) -> None:
        self.gaps.append(Gap(self.line(path), dotted(path), why, matters))

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
        """What is said of a receiver or an exporter."""
        return self.mapping((kind, name), self.mapping((kind,), self.data.get(kind)).get(name))

    def convert(self, path: Key, settings: Mapping[str, Any]) -> Converted:
        sampling: dict[str, Any] = {"compat": "otel"}
        for key, value in settings.items():
            if key in ("decision_wait", "decision_wait_after_root_received"):
                sampling[key] = value
            elif key in NOT_NEEDED:
                self.gap((*path, key), f"not needed: {NOT_NEEDED[key]}", matters=False)
            elif key not in ("policies", "sample_on_first_match") and (key, value) not in DEFAULTS:
                self.gap((*path, key), "has no counterpart")
        self.waits(path, sampling)
        sampling["policies"] = self.policies((*path, "policies"), settings.get("policies"))
        if settings.get("sample_on_first_match"):
            self.first_match((*path, "sample_on_first_match"), sampling["policies"])
        inputs, kafka = self.inputs(path)
        config: dict[str, Any] = {"kafka": kafka, "inputs": inputs, "sampling": sampling}
        if sinks := self.sinks(path):
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
            parse(written(config), "", {}, secrets=False)
        except InvalidConfig as invalid:
            for problem in invalid.problems:
                section, _, key = problem.key.partition(".")
                place = (*path, key) if section == "sampling" else ()
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

    def pipelines(self, path: Key, without: bool = False) -> Iterator[tuple[Key, Mapping[str, Sequence[str]]]]:
        """Those that the processor is in, or the others."""
        service = self.mapping(("service",), self.data.get("service"))
        for name, pipeline in self.mapping(("service", "pipelines"), service.get("pipelines")).items():
            here: Key = ("service", "pipelines", name)
            told = self.mapping(here, pipeline)
            names = {kind: self.names((*here, kind), told.get(kind)) for kind in COMPONENTS}
            if path and (path[-1] in names["processors"]) != without:
                yield here, names

    def inputs(self, path: Key) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The raw topics, and `kafka`."""
        found: list[dict[str, Any]] = []
        brokers: list[str] = []
        taken: set[str] = set()  # receivers that another pipeline has as well
        start: str | None = None
        said = left_out = False
        for here, _ in self.pipelines(path, without=True):
            why = f"not looked at: {path[-1]} is not in it; logs and metrics are `inputs` as well"
            self.gap(here, why, matters=False)
        for here, pipeline in self.pipelines(path):
            for other in pipeline["processors"]:
                kind = other.split("/")[0]
                if other != path[-1] and kind not in HARMLESS:
                    instead = f"is not taken over: {REDACTION}" if self.hides(other) else _instead(kind)
                    self.gap((*here, "processors"), f"{other} {instead}")
            for name in pipeline["receivers"]:
                if name in taken:
                    continue
                taken.add(name)
                if name.split("/")[0] != "kafka":
                    why = f"{name} has no counterpart: let a Collector write to Kafka, and read that"
                    self.gap((*here, "receivers"), why)
                    continue
                settings = self.component("receivers", name)
                traces = self.mapping(("receivers", name, "traces"), settings.get("traces"))
                topics = self.listed(("receivers", name, "traces", "topics"), traces.get("topics")) or [
                    traces.get("topic") or settings.get("topic") or TOPIC
                ]
                encoding = traces.get("encoding") or settings.get("encoding") or "otlp_proto"
                place: Key = ("receivers", name)
                own = _listed(settings.get("brokers"))
                if brokers and not set(own) & set(brokers):
                    why = f"{name} is left out: one Tailrace reads from one cluster, this is {', '.join(brokers)}"
                    self.gap((*place, "brokers"), why)
                    continue
                brokers += [broker for broker in own if broker not in brokers]
                if encoding not in ENCODINGS["traces"]:
                    where = (*place, "traces", "encoding") if "encoding" in traces else (*place, "encoding")
                    self.gap(where, f"{name} is left out: {encoding} is none of {', '.join(ENCODINGS['traces'])}")
                    left_out = True
                    continue
                for topic in topics:
                    if str(topic).startswith("^"):
                        self.gap((*place, "traces"), f"{topic} is left out: a pattern; name the topics as `inputs`")
                        left_out = True
                    elif (given := {"topic": topic, "signal": "traces", "encoding": encoding}) not in found:
                        found.append(given)
                offset = settings.get("initial_offset", "latest")
                said |= "initial_offset" in settings
                if start not in (None, offset):
                    self.gap(
                        (*place, "initial_offset"), f"{offset} is not taken over: `kafka.start` is {start} for all"
                    )
                start = start or offset
                if "topics" in settings and "topics" not in traces:
                    why = (
                        f"is no key of the receiver: {', '.join(map(str, topics))} is assumed; name topics as `inputs`"
                    )
                    self.gap((*place, "topics"), why)
                self.rest(place, settings, KAFKA_KEYS)
                self.secured(place, settings, "kafka.security")
        if not found and not left_out:
            self.gap(path, f"no kafka receiver: the topic {TOPIC} on {BROKERS[0]} is assumed", matters=False)
            found.append({"topic": TOPIC, "signal": "traces"})
        return found, {"bootstrap_servers": _addresses(brokers or BROKERS)} | ({"start": start} if said else {})

    def hides(self, name: str) -> bool:
        """Whether a processor keeps values of attributes from who comes behind it."""
        settings = self.component("processors", name)
        listed = [each for key in ACTIONS if isinstance(actions := settings.get(key), list) for each in actions]
        return any(isinstance(each, dict) and each.get("action") in HIDING for each in listed)

    def rest(self, path: Key, settings: Mapping[str, Any], where: str, asked: Sequence[str] = ASKED_OF_KAFKA) -> None:
        """What else a component says: most of it is about its client."""
        for key in settings:
            if key in OTHER_TOPICS:
                self.gap((*path, key), "has no counterpart")
            elif key not in asked:
                self.gap((*path, key), f"not taken over: {where}", matters=False)
        for key in settings.get("traces") or {}:
            if key in OTHER_TOPICS:
                self.gap((*path, "traces", key), "has no counterpart")

    def sinks(self, path: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        taken: set[str] = set()  # exporters that another pipeline has as well
        for here, pipeline in self.pipelines(path):
            for name in pipeline["exporters"]:
                if name in taken:
                    continue
                taken.add(name)
                settings = self.component("exporters", name)
                kind, _, rest = name.partition("/")
                insecure = self.mapping(("exporters", name, "tls"), settings.get("tls")).get("insecure") is True
                grpc = "http" not in kind
                address = settings.get("endpoint")
                if not grpc and "traces_endpoint" in settings:
                    address = str(settings["traces_endpoint"]).removesuffix(TRACES_PATH)
                    if address == settings["traces_endpoint"]:
                        why = f"not taken over: Tailrace writes to `endpoint` with {TRACES_PATH} behind it"
                        self.gap(("exporters", name, "traces_endpoint"), why)
                        address = settings.get("endpoint")
                if kind in ("otlp", "otlp_grpc", "otlphttp", "otlp_http") and address:
                    scheme = "http" if insecure else "https"
                    address = str(address).removeprefix("dns:///")
                    # OTLP/HTTP cannot be without a scheme, so it is in the variable.
                    whole = "://" in address or (not grpc and address.startswith("${"))
                    if address.startswith("${") and not whole:
                        why = f"{scheme}:// is put in front: leave it away if it is in {address}"
                        self.gap(("exporters", name, "endpoint"), why, matters=False)
                    sink: dict[str, Any] = {
                        "endpoint": address if whole else f"{scheme}://{address}", "signals": ["traces"],
                    }  # fmt: skip
                    if (compression := settings.get("compression", "gzip")) in ("none", ""):
                        sink["compression"] = "none"
                    elif compression != "gzip":
                        why = f"{compression} is not taken over: spans are compressed with gzip"
                        self.gap(("exporters", name, "compression"), why, matters=False)
                    self.rest(("exporters", name), settings, "see the sink's keys", ASKED_OF_OTLP)
                    key = "otlp" + (f"/{rest}" if rest else "")
                    if key in found:  # the other protocol's exporter of that name
                        key = f"otlp/{rest}-{kind}" if rest else f"otlp/{kind}"
                    found[key] = sink | ({"protocol": "grpc"} if grpc else {})
                elif kind == "kafka":
                    traces = self.mapping(("exporters", name, "traces"), settings.get("traces"))
                    topic = traces.get("topic") or settings.get("topic") or TOPIC
                    encoding = traces.get("encoding") or settings.get("encoding") or "otlp_proto"
                    if encoding != "otlp_proto":
                        why = f"{name} is left out: kept spans are written as otlp_proto, not as {encoding}"
                        self.gap(("exporters", name, "encoding"), why)
                        continue
                    self.rest(("exporters", name), settings, "see the sink's keys")
                    sink = {"bootstrap_servers": _addresses(_listed(settings.get("brokers"))), "topic": topic}
                    found["kafka" + (f"/{rest}" if rest else "")] = sink
                else:
                    why = NO_TIER if kind == "loadbalancing" else _instead(kind, NO_SINK)
                    self.gap((*here, "exporters"), f"{name} {why}", matters=kind != "loadbalancing")
                    continue
                self.secured(("exporters", name), settings, "the sink")
        return found

    def secured(self, path: Key, settings: Mapping[str, Any], where: str) -> None:
        """Credentials and certificates are not taken over."""
        for key in ("auth", "tls", "headers"):
            value = settings.get(key)
            if value and value not in ({"insecure": True}, {"insecure": False}):
                self.gap((*path, key), f"not taken over: say it at {where}")


def _instead(kind: str, otherwise: str = "has no counterpart") -> str:
    """What is said of a component that is not taken over."""
    return f"is not taken over: {INSTEAD[kind]}" if kind in INSTEAD else otherwise


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
