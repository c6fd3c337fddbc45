"""What the members of a log in JSON mean, by their names.

Names count without case, `_` and `-`: trace_id, traceId and TraceID are one. They are found at the top, nested or
dotted (`trace.id`, {"trace": {"id": …}}), and, if they are of the trace context, in the objects that loggers put their
context into (CONTEXTS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from schemas.remembered import LONGEST

#: Meaning of names, best first. Shippers add `@timestamp` on their own: an application's own time goes before it.
FIELDS: dict[str, tuple[str, ...]] = {
    "time": ("timestamp", "time", "ts", "@t", "@timestamp", "datetime", "asctime", "timemillis", "instant", "date",
             "time.timestamp", "sourcerealtimetimestamp", "realtimetimestamp", "timereported", "isodate", "msec",
             "timeiso8601", "timelocal"),
    "severity": ("severitynumber", "severitytext", "level", "severity", "log.level", "levelname", "loglevel", "lvl",
                 "@l", "errorseverity", "severitylevel", "log.syslog.severity.name", "log.syslog.severity.code",
                 "syslogseveritytext", "syslogseverity", "status", "priority", "level.name"),
    "body": ("formattedmessage", "message", "msg", "body", "log", "@m", "event", "shortmessage", "@mt", "textpayload",
             "jsonpayload.message", "renderedmessage", "fields.message", "messagetemplate", "content"),
    "trace": ("traceid", "trace.id", "oteltraceid", "@tr", "mdc.traceid", "traceparent", "b3", "xb3traceid",
              "ubertraceid", "xamzntraceid", "awsxraytraceid", "xraytraceid", "logging.googleapis.com/trace",
              "xcloudtracecontext", "operationid", "dd.traceid", "trace.traceid", "span.traceid",
              "otel.traceid", "xdatadogtraceid", "trace"),
    "span": ("spanid", "span.id", "otelspanid", "@sp", "xb3spanid", "logging.googleapis.com/spanid", "dd.spanid",
             "transaction.id", "span.spanid", "trace.spanid", "otel.spanid"),
    "flags": ("traceflags",),
    "service": ("service.name", "servicename", "otelservicename", "service", "dd.service"),
    "version": ("service.version", "serviceversion", "dd.version", "version"),
    "environment": ("deployment.environment.name", "deployment.environment", "service.environment", "dd.env",
                    "environment"),
    "logger": ("logger", "loggername", "log.logger", "scope.name"),
}  # fmt: skip
_MEANING = {name: (meaning, rank) for meaning, names in FIELDS.items() for rank, name in enumerate(names)}
#: Objects whose members count as if they were dotted names.
NESTED = frozenset(
    {
        "trace",
        "span",
        "transaction",
        "log",
        "service",
        "dd",
        "deployment",
        "jsonpayload",
        "fields",
        "level",
        "time",
        "scope",
    }
)
_DEEPEST = 2  # levels below a NESTED object: log.syslog.severity.code
#: Objects that loggers put their context into; only trace context is taken from them.
CONTEXTS = frozenset(
    {"mdc", "contextmap", "contextdata", "properties", "context", "ctx", "fields", "extra", "metadata", "namedtags",
     "otel", "opentelemetry", "spancontext", "headers", "attributes", "labels"}
)  # fmt: skip
#: Those of them that may be of something else, as of a request that the log is about.
_GENERAL = frozenset({"metadata", "headers", "attributes", "labels"})
_OF_CONTEXT = frozenset({"trace", "span", "flags"})
SCOPES = "Scopes"  # .NET's, written like this alone: elsewhere scopes are OAuth's and others'
_SPANS = "spans"  # of Rust's tracing: those that the log's is in, and it, last
_PAIR = {"key", "value"}  # an entry of Log4j2's contextMap with propertiesAsList
LAYER = 100  # more than any meaning has names: what is around a log comes after all that is in it
_NESTING = (dict, list)
_INSIDE = 0.5  # a name in a context comes after the same one at the top
_APART = LAYER // 2  # more than any meaning has names: what is in a general one comes after all others of its layer
_RUST = {"target", "span"}  # beside its spans stands one of these


class Field(NamedTuple):
    """A member of the object (or of an object inside it) that a meaning was found for."""

    rank: float
    name: str
    owner: dict[str, Any]
    key: str
    value: Any

    def take(self) -> None:
        """Its meaning is elsewhere now: it is no attribute any more."""
        del self.owner[self.key]

    @property
    def is_general(self) -> bool:
        """Whether it may be of something else than the log."""
        return self.rank % LAYER >= _APART


def fields_of(value: dict[str, Any], layers: Mapping[str, int]) -> dict[str, list[Field]]:
    """Members by meaning, best first; `layers` says how far outside the log a name is, from 1."""
    found: dict[str, list[Field]] = {}
    for key, member in value.items():
        name, after = normal(key), LAYER * layers[key] if key in layers else 0
        if (meaning := _MEANING.get(name)) is not None:
            found.setdefault(meaning[0], []).append(Field(meaning[1] + after, name, value, key, member))
        if isinstance(member, _NESTING) and (name != _SPANS or not _RUST.isdisjoint(value)):
            _add_nested(found, key, name, member, after)
    for several in found.values():
        if len(several) > 1:
            several.sort(key=_rank)
    return found


def meaning_of(name: str) -> str:
    """The meaning of a name at the top, "" if it has none."""
    meaning = _MEANING.get(normal(name))
    return meaning[0] if meaning is not None else ""


def normal(name: str) -> str:
    """A name as FIELDS has it."""
    return _short(name) if len(name) <= LONGEST else name  # no name that long has a meaning


@lru_cache(4096)  # names repeat for ever
def _short(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _rank(field: Field) -> float:
    return field.rank


def _dotted(name: str, value: dict[str, Any], deeper: int) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Owner, dotted name and key of the members of an object of this name."""
    for key, leaf in value.items():
        inner = f"{name}.{normal(key)}"
        yield value, inner, key
        if deeper and isinstance(leaf, dict):
            yield from _dotted(inner, leaf, deeper - 1)


def _add_nested(found: dict[str, list[Field]], key: str, name: str, member: Any, after: int) -> None:
    """What an object or an array has."""
    if isinstance(member, dict):
        for owner, inner, inner_key in _dotted(name, member, _DEEPEST) if name in NESTED else ():
            if (meaning := _MEANING.get(inner)) is not None:
                field = Field(meaning[1] + after, inner, owner, inner_key, owner[inner_key])
                found.setdefault(meaning[0], []).append(field)
        if name in CONTEXTS:
            _add_context(found, member, after + _APART * (name in _GENERAL))
    elif key == SCOPES or name == _SPANS or name in CONTEXTS:
        for entry in reversed(member):  # the innermost first
            if isinstance(entry, dict):
                _add_context(found, entry, after + _APART * (name in _GENERAL))


def _add_context(found: dict[str, list[Field]], context: dict[str, Any], after: int) -> None:
    named = context.get("key") if context.keys() == _PAIR else None
    for key, member in context.items():
        name = normal(named if isinstance(named, str) and key == "value" else key)
        if (meaning := _MEANING.get(name)) is not None and meaning[0] in _OF_CONTEXT:
            field = Field(meaning[1] + after + _INSIDE, name, context, key, member)
            found.setdefault(meaning[0], []).append(field)
