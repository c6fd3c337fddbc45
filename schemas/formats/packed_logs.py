"""A log inside a log: an application's JSON in what shippers, brokers and formatters have around it.

It is a text of JSON under one of TEXTS, behind a container runtime's `TIME stdout F ` or syslog's `@cee:` too; or an
object under one of OBJECTS, beside which stands no message. Under names that others use too (OF_OTHERS), and in a text
beside a logger's severity or trace, it is one only if it has a message and a severity: else it is what the message is
about. The innermost of DEPTH levels wins, whatever the others call their own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from schemas.errors import Malformed
from schemas.formats.json_mapping import exactly, load
from schemas.formats.log_fields import meaning_of, normal

#: Docker and Fluent Bit; Logstash, Vector, Filebeat and journald; rsyslog; GELF.
TEXTS = frozenset({"log", "message", "msg", "shortmessage"})
#: Filebeat, Fluent Bit's `Merge_Log_Key` as its documentation has it, OpenShift, loguru, Google Cloud's export.
OBJECTS = frozenset({"json", "logprocessed", "structured", "record", "jsonpayload"})
OF_OTHERS = frozenset({"msg", "shortmessage", "structured", "record", "jsonpayload"})
_LOGURU = "text"  # beside its record
DEPTH = 3  # a logger's, in a runtime's, in a shipper's, in a broker's
_CONNECT = {"schema", "payload"}  # Kafka Connect's JsonConverter writes these two
_VECTOR = {"log"}  # Vector's native_json writes this one
_SAYS_A_LOG = frozenset({"body", "severity", "trace"})
_OF_SHIPPERS = frozenset({"status", "priority"})  # what is around a log says them as well: Datadog's agent, journald
_BEFORE = re.compile(
    r"\s*(?:@cee:\s*|(?P<time>\d{4}-\S{1,40}) (?P<stream>stdout|stderr) (?P<logtag>[FP]) )?(?=\{)", re.ASCII
)
_OUTER = "outer"  # the map of what the outside has under names of the inside


def unpacked(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int], list[dict[str, Any]]]:
    """The innermost log, with what is around it merged in; how far outside the names of that are, from 1; its maps.

    Of names that both have, the outer's value is left out where it is the same: the shipper merged them, too. Where it
    differs it goes into a map, in which a rule of redaction finds it by its name. Raises RecursionError.
    """
    around: list[dict[str, Any]] = []
    while len(around) < DEPTH and (found := _inside(value)) is not None:
        value, rest = found
        around.append(rest)
    layers, maps = dict[str, int](), list[dict[str, Any]]()
    for layer, rest in enumerate(reversed(around), 1):
        value = {name: member for name, member in value.items() if name not in rest or member not in (None, "")}
        outer = {name: member for name, member in rest.items() if name not in value}
        hidden = {name: member for name, member in rest.items() if name in value and member != value[name]}
        if hidden:
            outer[_free(_OUTER, value | outer)] = hidden
            maps.append(hidden)
        value = value | outer
        layers |= dict.fromkeys(outer, layer)
    return value, layers, maps


def _inside(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The log inside an object, and what else the object has; None if there is no such log."""
    for key, member in value.items():
        if isinstance(member, str):
            name = normal(key)
            if "{" not in member or name not in TEXTS or (before := _BEFORE.match(member)) is None:
                continue
            inner = _read(member[before.end() :])
            if inner is not None and (_is_whole(inner) or not (name in OF_OTHERS or _is_a_loggers(value))):
                return inner, {name: text for name, text in before.groupdict().items() if text} | _without(value, key)
        elif isinstance(member, dict) and _is_log(normal(key), member, value):
            return member, _without(value, key)
    if len(value) == 2 and value.keys() == _CONNECT:
        payload = value["payload"]
        return payload if isinstance(payload, dict) else {"message": payload}, _without(value, "payload")
    return None


def _read(text: str) -> dict[str, Any] | None:
    """An object, since the text starts with a brace."""
    data = text.encode()
    try:
        inner: dict[str, Any] = exactly(load(data), data)
    except (Malformed, RecursionError):
        return None
    return inner


def _is_log(name: str, member: dict[str, Any], value: dict[str, Any]) -> bool:
    if name not in OBJECTS and value.keys() != _VECTOR:
        return False
    if any(isinstance(beside, str) and meaning_of(key) == "body" for key, beside in value.items()):
        return False
    if name == "record" and not isinstance(value.get(_LOGURU), str):
        return False
    return _is_whole(member) if name in OF_OTHERS else bool(_said(member) & _SAYS_A_LOG)


def _is_a_loggers(value: dict[str, Any]) -> bool:
    """Whether what has a message says itself how severe it is, or whose trace, as Java's, Node's and ECS loggers do."""
    names = (key for key, member in value.items() if normal(key) not in _OF_SHIPPERS and member not in (None, ""))
    return not {"severity", "trace"}.isdisjoint(map(meaning_of, names))


def _said(member: dict[str, Any]) -> set[str]:
    return {meaning_of(key) for key in member if normal(key) != "status"}


def _is_whole(member: dict[str, Any]) -> bool:
    """Whether it is a log of its own, and not what one is about."""
    return _said(member) >= {"body", "severity"}


def _without(value: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name != key}


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
