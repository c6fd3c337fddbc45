"""docs/reference/ out of the models and the metric list: `python -m pipeline.configuration.reference` writes it.

A test compares the files with what this module gives, so a key or a metric without its line cannot be merged.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline.config import Config
from pipeline.configuration import editor_schema
from pipeline.telemetry import METRICS
from schemas.reasons import Reason
from schemas.settings import Duration, format_duration

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
_GENERATED = "<!-- Written by `python -m pipeline.configuration.reference`; do not edit. -->"
_CONFIGURATION = """\
# Configuration

One YAML file for all roles. [deploy/tailrace.yaml](../../deploy/tailrace.yaml) is an example to copy.

- Unknown keys, and keys that are there twice, are refused. `tailrace check FILE` names everything that is wrong at
  once, with line, column, key and rule, and exits with 0 or 78.
- A duration is a number with a unit, or several: `500ms`, `30s`, `1h30m`, `2d`.
- `${NAME}` in a value is an environment variable, `${NAME:-default}` has a default for one that is unset or empty,
  `${file:/path}` is the content of a file without its last line break (a relative path begins at the configuration's
  folder), `$${` is a literal `${`. The Collector's `${env:NAME}` works too, `$NAME` does not. What is filled in is
  text, whatever it looks like; where a number is wanted, it is read as one. An unquoted value that comes out empty
  counts as not set.
- Anchors, aliases and `<<` work. A word that YAML reads as something else (`no`, `on`, `12`) must be quoted where text
  is wanted.
- `tailrace config print FILE` shows what comes out, with secrets blotted out.

## In an editor

An editor with a YAML language server (VS Code, Neovim, IntelliJ, …) completes keys, shows the texts of this page and
underlines mistakes while you type, if the first line of the file names [the schema](tailrace.schema.json):

```yaml
# yaml-language-server: $schema=tailrace.schema.json
```

`tailrace config schema > tailrace.schema.json` writes it beside your file, for the version that you run; the path may
also be an URL. It knows keys, types, words and ranges. Rules between keys are those of `tailrace check`."""
_METRICS = """\
# Metrics of a worker

Served as Prometheus text at `/metrics` on `telemetry.host`:`telemetry.port`. Base units; every label is bounded by the
configuration."""
_REASONS = """\
## Reasons

The label `reason` of drops and dead letters. What is dropped unintentionally has its bytes in the dead-letter queue,
but for `retention`: Kafka had deleted it before it was read."""
_DURATION = typing.get_args(Duration)[1:]
_EXPLAINED = re.compile(r"stream time|holds the clock|(?<=new )mark\b")
_EXPLANATION = "../explanation/two-cursors.md#whose-clock"


def configuration() -> str:
    """docs/reference/configuration.md."""
    parts = [_GENERATED, _CONFIGURATION]
    parts += _section(Config, "", "The whole file", set())
    return "\n\n".join(parts) + "\n"


def metrics() -> str:
    """docs/reference/metrics.md."""
    rows = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.help)} |")
    reasons = ["| Reason | Intentional |", "|---|---|"]
    reasons += [f"| `{reason.value}` | {'yes' if reason.intentional else 'no'} |" for reason in Reason]
    parts = [_GENERATED, _METRICS, "\n".join(rows), _REASONS, "\n".join(reasons)]
    return "\n\n".join(parts) + "\n"


def _section(model: type[BaseModel], path: str, title: str, done: set[type[BaseModel]]) -> Iterator[str]:
    """A section's heading, text and table, then those of the sections in it; each model once."""
    done.add(model)
    yield f"## {title}"
    yield _paragraph(model.__doc__ or "")
    rows, below = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        rows.append(f"| `{key}` | {_type(field)} | {_default(field)} | {_cell(field.description or '')} |")
        below += [(inner, f"{path}{key}{suffix}") for inner, suffix in _models(field.annotation)]
    yield "\n".join(rows)
    for inner, inner_path in below:
        if inner not in done:
            yield from _section(inner, f"{inner_path}.", f"`{inner_path}`", done)


def _models(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """The sections inside a type, and how a path goes on into them: nothing, [] for a list, .NAME for a map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    suffix = {list: "[]", dict: ".NAME"}.get(typing.get_origin(annotation), "")
    return [(model, suffix + more) for inner in typing.get_args(annotation) for model, more in _models(inner)]


def _type(field: FieldInfo) -> str:
    words = _words(field.annotation, tuple(field.metadata))
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for kind, sign, name in ((Gt, ">", "gt"), (Ge, "≥", "ge"), (Le, "≤", "le"))
        for rule in field.metadata
        if isinstance(rule, kind)
    ]
    return " ".join([words, *bounds])


def _words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type as a reader of YAML would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if any(item in _DURATION for item in metadata if not isinstance(item, Gt | Ge | Le)):
        return "duration"
    if origin is typing.Annotated:
        return _words(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        inner = _words(arguments[0])
        return f"list of {inner}" + ("s" if inner in ("section", "number") else "")
    if origin is dict:
        return f"map of name to {_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "integer", float: "number", bool: "`true`, `false`", SecretStr: "secret text"}
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or isinstance(value, BaseModel):
        return "–"
    if _words(field.annotation, tuple(field.metadata)) == "duration":
        return f"`{_clock(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value not in ("", {}) else "empty"


def _clock(seconds: float) -> str:
    """A duration in the largest unit that gives a whole number."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds > unit and seconds % unit == 0:
            return f"{seconds / unit:g}{name}"
    return format_duration(seconds)


def _paragraph(text: str) -> str:
    return _linked("\n".join(line.strip() for line in text.strip().splitlines()))


def _cell(text: str) -> str:
    return _linked(" ".join(text.split()).replace("|", "\\|"))


def _linked(text: str) -> str:
    """Words that a page explains lead to it, wherever a reader meets them."""
    return _EXPLAINED.sub(rf"[\g<0>]({_EXPLANATION})", text)


PAGES = {"configuration.md": configuration, "metrics.md": metrics, "tailrace.schema.json": editor_schema.text}


def write(folder: Path = FOLDER) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
