"""OTLP names to Prometheus names.

The four strategies are Prometheus' `translation_strategy`; the rules are those of "Prometheus and OpenMetrics
Compatibility" in the OpenTelemetry specification, and where that leaves room, of Prometheus' own translator
(github.com/prometheus/otlptranslator), which the Collector uses as well. Labels are those of Prometheus' OTLP receiver
at its defaults (label_name_preserve_multiple_underscores, label_name_underscore_sanitization), though the specification
makes one underscore of several.
"""

from __future__ import annotations

import re
from typing import Literal

from schemas.remembered import remembered

Strategy = Literal[
    "UnderscoreEscapingWithSuffixes",
    "NoUTF8EscapingWithSuffixes",
    "UnderscoreEscapingWithoutSuffixes",
    "NoTranslation",
]

_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "TiBy": "tibibytes", "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes", "m": "meters",
    "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius", "Hz": "hertz", "1": "",
    "%": "percent",
}  # fmt: skip
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_TOKEN = re.compile(r"[a-zA-Z0-9:]+")
_CACHED = 4096  # names; a label name of every attribute key is asked for with every point
LONGEST_NAME = 1024  # characters: names are in the keys of records and in each tick, whose size is bounded


@remembered(_CACHED)
def metric_name(name: str, unit: str, kind: str, strategy: Strategy) -> str:
    """The name of a metric of this kind (schemas/point.py). Raises ValueError if there is none, or a very long one.

    >>> metric_name("http.server.request.duration", "s", "histogram", "UnderscoreEscapingWithSuffixes")
    'http_server_request_duration_seconds'
    >>> metric_name("cache.hits", "{hit}", "counter", "NoUTF8EscapingWithSuffixes")
    'cache.hits_total'
    """
    escapes, suffixes = strategy.startswith("Underscore"), strategy.endswith("WithSuffixes")
    if not escapes:
        found = _with_suffixes(name, unit, kind) if suffixes else name
    elif suffixes:
        found = "_".join(_tokens_with_suffixes(name, unit, kind))
    else:
        found = "_".join(re.findall(r"[a-zA-Z0-9:_]+", name))
    if escapes and found[:1].isdigit():
        found = f"_{found}"
    if not name or not found or (found != name and not found.strip("_")):
        raise ValueError(f"{name[:100]!r} has nothing to make a metric name of")
    return _short(found)


@remembered(_CACHED)
def label_name(key: str, strategy: Strategy) -> str:
    """The label of an attribute key. Raises ValueError if there is none, or a very long one.

    >>> label_name("http.route", "UnderscoreEscapingWithSuffixes"), label_name("2xx", "UnderscoreEscapingWithSuffixes")
    ('http_route', 'key_2xx')
    """
    found, escapes = key, strategy.startswith("Underscore")
    if escapes:
        found = re.sub(r"[^a-zA-Z0-9_]", "_", key)
        if found[:1].isdigit():
            found = f"key_{found}"
        elif found.startswith("_") and not found.startswith("__"):
            found = f"key{found}"
    if not (found.strip("_") if escapes else found):
        raise ValueError(f"{key[:100]!r} has nothing to make a label name of")
    return _short(found)


def _short(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name {name[:100]!r}… has {len(name)} characters, {LONGEST_NAME} are the most")
    return name


def _unit_words(unit: str) -> tuple[str, str]:
    """A unit's words: what, and per what. What is in braces is no unit."""
    what, _, per = unit.partition("/")
    what, per = what.strip(), per.strip()
    found = "" if re.search(r"[{}]", what) else _UNITS.get(what, what)
    below = "" if re.search(r"[{}]", per) else _PER.get(per, per)
    return found, f"per_{below}" if below else ""


def _tokens_with_suffixes(name: str, unit: str, kind: str) -> list[str]:
    tokens = _TOKEN.findall(name)
    what, per = map(_clean, _unit_words(unit))
    what = "" if what in tokens else what
    per = "" if per == "per_" or per.removesuffix("_") in tokens else per.removesuffix("_")
    if per:
        what = what.removesuffix("_")
    tokens += [word for word in (what, per) if word]
    for suffix in _kind_suffixes(unit, kind):
        tokens = [*(token for token in tokens if token != suffix), suffix]
    return tokens


def _clean(words: str) -> str:
    return re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9:]", "_", words)).removeprefix("_")


def _with_suffixes(name: str, unit: str, kind: str) -> str:
    """The name as it is, with those suffixes behind it that it does not have."""
    what, per = _unit_words(unit)
    suffixes = [*([per] if per else []), *_kind_suffixes(unit, kind)]
    for suffix in reversed(suffixes):
        if name.endswith(suffix) and len(name) > len(suffix) + 1:
            name = name[: -len(suffix) - 1]
    if what and not name.endswith(what):
        name = f"{name}_{what}"
    return "_".join([name, *suffixes])


def _kind_suffixes(unit: str, kind: str) -> list[str]:
    # Only a gauge's 1 is a ratio: many producers give it to counts of things.
    return ["total"] if kind == "counter" else ["ratio"] if kind == "gauge" and unit == "1" else []
