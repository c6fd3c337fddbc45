"""What a Collector's configuration says, with the lines where it says it, and what was found to have no counterpart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.configuration.yaml_tree import Key, dotted
from schemas.errors import ConfigError

NONE = "has no counterpart"
_VARIABLE = r"\$\{(?:env:)?[A-Za-z_][A-Za-z0-9_]*\}|\$\{file:[^}]+\}"
_REFERENCE = re.compile(rf"(?:[A-Za-z][A-Za-z-]* )?(?:{_VARIABLE})")  # may have a scheme before it, as `Bearer`


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
class Source:
    """`left_out` is what policies lose; `origins` says where a section of the result, such as `sinks.otlp`, is from."""

    data: Mapping[str, Any]
    lines: Mapping[Key, int]
    gaps: list[Gap] = field(default_factory=list)
    left_out: list[Any] = field(default_factory=list)
    origins: dict[str, Key] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # by the secret that they stand for

    def gap(self, path: Key, why: str, matters: bool = True) -> None:
        """Note it, once: a component may be in several pipelines."""
        found = Gap(self.line(path), dotted(path), why, matters)
        if found not in self.gaps:
            self.gaps.append(found)

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

    def has(self, kind: str, name: str) -> bool:
        """Whether a component is in the file, which may be a part of one."""
        return name in self.mapping((kind,), self.data.get(kind))

    def secret(self, path: Key, value: Any) -> str:
        """The same if it only says where it is; one that the file holds is not printed: a variable stands for it."""
        text = str(value)
        if _REFERENCE.fullmatch(text):
            return text
        first = re.sub("[^A-Z0-9]+", "_", "_".join(map(str, path[1:2] + path[-1:])).upper()).strip("_")
        free = f"{first}_{len(self.variables)}" if first in self.variables.values() else first
        name = self.variables.setdefault(text, free)
        why = f"is not printed: put it into the environment as {name}, or write ${{file:…}} for ${{env:{name}}}"
        self.gap(path, why, matters=False)
        return f"${{env:{name}}}"
