"""Exporters as `sinks`: EXPORTERS has those that are taken over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.config import Metrics
from pipeline.configuration.otelcol.components import TOPICS, rest, without
from pipeline.configuration.otelcol.pipelines import ASKED_OF_KAFKA, Pipeline, addresses, listed
from pipeline.configuration.otelcol.security import (
    Keys,
    address,
    elastic_credentials,
    in_the_clear,
    is_plain,
    kafka_security,
    log_in,
    secured,
)
from pipeline.configuration.otelcol.source import NONE, Source
from pipeline.configuration.yaml_tree import Key
from sinks.settings import LOGS_PATH, TRACES_PATH, Sink

SINK_OF = {
    "traces": "jaeger: {endpoint: …}",
    "logs": "otlp: {endpoint: …, signals: [logs]}",
    "metrics": "prometheus: {endpoint: …}",
}  # what to write where an exporter is none that is taken over
SINK_KEYS = "see the sink's keys"
ASKED_OF_CLIENTS = ("endpoint", "auth", "tls", "headers")  # what is looked at
ASKED_OF_OTLP = (*ASKED_OF_CLIENTS, "traces_endpoint", "logs_endpoint", "compression")
ASKED_OF_ELASTICSEARCH = (
    *ASKED_OF_CLIENTS, "compression", "endpoints", "cloudid", "mapping", "logs_index", "index", "user", "password",
    "api_key",
)  # fmt: skip
PATHS = {"traces": TRACES_PATH, "logs": LOGS_PATH}
DATA_STREAM = re.compile(r"logs-([a-z0-9._]{1,100})-([a-z0-9._]{1,100})")
STREAM = "logs-{}-{}".format(*(Sink.model_fields[key].default for key in ("dataset", "namespace")))
PROMOTED = "write `metrics: {otlp: {promote_resource_attributes: [%s]}}`"
LABELLED = "and have producers say them, as in OTEL_RESOURCE_ATTRIBUTES"
REMOTE_WRITE: dict[str, Callable[[Any], Keys]] = {  # keys of prometheusremotewrite as those of `metrics.otlp`
    "add_metric_suffixes": lambda on: {} if on else {"translation_strategy": "UnderscoreEscapingWithoutSuffixes"},
    "translation_strategy": lambda name: {"translation_strategy": name} if name else {},
    "disable_scope_info": lambda off: {"scope_labels": False} if off else {},
}
SERIES: int = Metrics.model_fields["series_per_metric"].default
OF_SERIES = (
    f"a metric has {SERIES:,} series, more become __overflow__ (`metrics.series_per_metric`), and spans are counted "
    "(`metrics: {span_metrics: {enabled: false}}` if not)"
)


def sinks(source: Source, pipelines: Sequence[Pipeline]) -> tuple[dict[str, Keys], Keys]:
    """The section of that name, and `metrics.otlp` as what exporters to Prometheus say of it."""
    found: dict[str, Keys] = {}
    series: Keys | None = None
    taken: dict[tuple[str, str], str] = {}  # exporters that another pipeline has as well, and their sinks
    for here, signal, pipeline in pipelines:
        for name in pipeline["exporters"]:
            if (name, signal) in taken:
                continue
            taken[name, signal] = ""
            kind, _, rest_of_name = name.partition("/")
            if signal not in EXPORTERS.get(kind, {}):
                why = f"is not taken over: write `{SINK_OF[signal]}` below `sinks`"
                without(source, (*here, "exporters"), name, why)
                continue
            settings = source.component("exporters", name)
            target, made = EXPORTERS[kind][signal]
            if not (sink := made(source, name, signal, settings)):
                continue
            if target == "prometheus":
                own = _series(source, ("exporters", name), settings)
                if series not in (None, own):
                    why = f"{name} says other names or labels of series: `metrics.otlp` has one of them for all sinks"
                    source.gap(("exporters", name), why)
                series = own if series is None else series
            same = found.get(taken.get((name, "traces"), ""))
            if same and same == sink | {"signals": same.get("signals")}:
                same["signals"].append(signal)
                continue
            key = f"{target}/{rest_of_name}" if rest_of_name else target
            if key in found:  # the other protocol's exporter of that name, or this one's other address
                key = f"{target}/{rest_of_name}-{kind}" if rest_of_name else f"{target}/{kind}"
            if key in found:
                key += f"-{signal}"
            found[key] = sink
            source.origins[f"sinks.{key}"] = ("exporters", name)
            taken[name, signal] = key
    return found, series or {}


def _otlp(source: Source, name: str, signal: str, settings: Mapping[str, Any]) -> Keys:
    """The sink of an exporter of OTLP, empty if there is none."""
    place: Key = ("exporters", name)
    grpc = "http" not in name.split("/")[0]
    url = settings.get("endpoint")
    own, behind = f"{signal}_endpoint", PATHS[signal]
    if not grpc and own in settings:
        url = str(settings[own]).removesuffix(behind)
        if url == settings[own]:
            why = f"not taken over: Tailrace writes to `endpoint` with {behind} behind it"
            source.gap((*place, own), why)
            url = settings.get("endpoint")
    if not url:
        source.gap(place, f"{name} is left out: it has no endpoint for {signal}")
        return {}
    scheme = "http" if is_plain(source, (*place, "tls"), settings.get("tls")) else "https"
    url = str(url).removeprefix("dns:///")
    # OTLP/HTTP cannot be without a scheme, so it is in the variable.
    whole = "://" in url or (not grpc and url.startswith("${"))
    if url.startswith("${") and not whole:
        why = f"{scheme}:// is put in front: leave it away if it is in {url.partition('?')[0]}"
        source.gap((*place, "endpoint"), why, matters=False)
    if grpc and scheme == "https" and url.startswith("http://"):
        url = url.replace("http", "https", 1)
        why = "https: without tls.insecure a Collector's gRPC speaks TLS, whatever the scheme says"
        source.gap((*place, "endpoint"), why, matters=False)
    sink = _client(source, name, settings, url if whole else f"{scheme}://{url}") | {"signals": [signal]}
    rest(source, place, settings, SINK_KEYS, ASKED_OF_OTLP)
    return sink | _compression(source, place, settings) | ({"protocol": "grpc"} if grpc else {})


def _kafka(source: Source, name: str, signal: str, settings: Mapping[str, Any]) -> Keys:
    """The sink of an exporter to Kafka, empty if there is none."""
    place: Key = ("exporters", name)
    traces = source.mapping((*place, signal), settings.get(signal))
    topic = traces.get("topic") or settings.get("topic") or TOPICS[signal]
    encoding = traces.get("encoding") or settings.get("encoding") or "otlp_proto"
    if encoding != "otlp_proto":
        why = f"{name} is left out: kept spans are written as otlp_proto, not as {encoding}"
        source.gap((*place, "encoding"), why)
        return {}
    rest(source, place, settings, SINK_KEYS, (*ASKED_OF_KAFKA, signal))
    security = kafka_security(source, place, settings)
    sink = {"bootstrap_servers": addresses(listed(settings.get("brokers"))), "topic": topic}
    return sink | ({"security": security} if security else {})


def _elasticsearch(source: Source, name: str, signal: str, settings: Mapping[str, Any]) -> Keys:
    """The sink of an exporter of logs to Elasticsearch, empty if there is none."""
    place: Key = ("exporters", name)
    urls = settings.get("endpoint") or settings.get("endpoints")
    if not urls and "cloudid" in settings:
        why = f"{name} is left out: write `{name}: {{endpoint: …}}`, the URL behind the id, below `sinks`"
        source.gap((*place, "cloudid"), why)
        return {}
    if not urls:
        urls = "${ELASTICSEARCH_URL}"
        source.gap(place, "has no endpoint: ${ELASTICSEARCH_URL}, one URL, is assumed", matters=False)
    elif not settings.get("endpoint") and not isinstance(urls, list):
        urls = [url.strip() for url in str(urls).split(",")]
    sink = _client(source, name, settings, urls, partial(elastic_credentials, source, place, settings))
    mode = source.mapping((*place, "mapping"), settings.get("mapping")).get("mode", "otel")
    if mode == "ecs":
        sink["mapping"] = "ecs"
    elif mode != "otel":
        why = f"{mode} is not taken over: it is otel; write `mapping: ecs` at the sink for the other one"
        source.gap((*place, "mapping", "mode"), why)
    key = "logs_index" if settings.get("logs_index") else "index"
    if not (index := str(settings.get(key) or "")):
        why = f"has no logs_index: documents go to the data stream {STREAM}; see `dataset` and `namespace`"
        source.gap(place, why, matters=False)
    elif stream := DATA_STREAM.fullmatch(index):
        sink["dataset"], sink["namespace"] = stream.groups()
    else:
        dataset = "…" if "${" in index else re.sub("[^a-z0-9._]", "_", index.lower())[:100]
        why = f"{index} is no name of a data stream: documents go to {STREAM}"
        source.gap((*place, key), f"{why}; write `dataset: {dataset}` at the sink for logs-{dataset}-default")
    rest(source, place, settings, SINK_KEYS, ASKED_OF_ELASTICSEARCH)
    return sink | _compression(source, place, settings)


def _remote_write(source: Source, name: str, signal: str, settings: Mapping[str, Any]) -> Keys:
    """The sink of a prometheusremotewrite exporter, empty if there is none."""
    place: Key = ("exporters", name)
    if not settings.get("endpoint"):
        source.gap(place, f"{name} is left out: it has no endpoint")
        return {}
    source.gap(place, OF_SERIES, matters=False)
    asked = (*ASKED_OF_CLIENTS, *REMOTE_WRITE, "external_labels", "resource_to_telemetry_conversion", "namespace")
    rest(source, place, settings, SINK_KEYS, (*asked, "target_info"))
    return _client(source, name, settings, settings["endpoint"])


def _series(source: Source, place: Key, settings: Mapping[str, Any]) -> Keys:
    """What an exporter to Prometheus says of names and labels, as `metrics.otlp`."""
    if labels := source.mapping((*place, "external_labels"), settings.get("external_labels")):
        why = f"{PROMOTED % ', '.join(map(str, labels))}, {LABELLED}"
        source.gap((*place, "external_labels"), f"{NONE}: {why}")
    promoting = source.mapping((*place, key := "resource_to_telemetry_conversion"), settings.get(key))
    if promoting.get("enabled"):
        why = f"all resource attributes are not taken over: {PROMOTED % 'service.name, …'}"
        source.gap((*place, key), why)
    if settings.get("namespace"):
        source.gap((*place, "namespace"), f"{NONE}: metrics keep their names")
    info = source.mapping((*place, "target_info"), settings.get("target_info"))
    if info.get("enabled") is False:
        source.gap((*place, "target_info"), "not taken over: target_info is written", matters=False)
    return {
        key: value
        for each, said in REMOTE_WRITE.items()
        if each in settings
        for key, value in said(settings[each]).items()
    }


def _client(source: Source, name: str, settings: Mapping[str, Any], urls: Any, own: Callable[[], Keys] = dict) -> Keys:
    """`endpoint` (of one URL) or `endpoints`, with what it takes to get there.

    `own` are credentials of its own, which count where no authenticator is named.
    """
    place: Key = ("exporters", name)
    key = "endpoints" if isinstance(urls, list) else "endpoint"
    found = [address(source, (*place, key), url) for url in (urls if isinstance(urls, list) else [urls])]
    texts = [url for url, _ in found]
    sink = secured(source, place, settings, texts)
    logins = [login for _, login in found if login]
    auth = log_in(source, (*place, key), logins, sink.pop("auth", None) or own(), sink.get("headers", ()))
    sink = {key: texts if key == "endpoints" else texts[0], **({"auth": auth} if auth else {}), **sink}
    in_the_clear(source, place, sink)
    return sink


def _compression(source: Source, path: Key, settings: Mapping[str, Any]) -> Keys:
    """That of a sink that has gzip or none."""
    if (compression := settings.get("compression", "gzip")) in ("none", ""):
        return {"compression": "none"}
    if compression != "gzip":
        source.gap((*path, "compression"), f"{compression} is not taken over: it is gzip", matters=False)
    return {}


_Made = Callable[[Source, str, str, Mapping[str, Any]], Keys]
_OTLP: dict[str, tuple[str, _Made]] = dict.fromkeys(PATHS, ("otlp", _otlp))
EXPORTERS: dict[str, dict[str, tuple[str, _Made]]] = {
    "otlp": _OTLP,
    "otlp_grpc": _OTLP,
    "otlphttp": _OTLP,
    "otlp_http": _OTLP,
    "kafka": {"traces": ("kafka", _kafka)},
    "elasticsearch": {"logs": ("elasticsearch", _elasticsearch)},
    "prometheusremotewrite": {"metrics": ("prometheus", _remote_write)},
}
"""By kind and signal: the kind of the sink, and what makes it."""
