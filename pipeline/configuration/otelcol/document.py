"""Where a Collector's configuration is in a text, which may be a ConfigMap or a chart's values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from pipeline.configuration.config_file import InvalidConfig
from pipeline.configuration.otelcol.source import Source
from pipeline.configuration.yaml_tree import Key, Problem, dotted, not_allowed, not_yaml
from schemas.errors import ConfigError

PROCESSOR = "tail_sampling"
NESTED = "is nested too deeply"
DEEPEST = 100  # keys and indices to a value: no configuration needs that many

_Found = tuple[Source, Key, Mapping[str, Any]]
"""A configuration, and in it where the processor is and what it says."""


def found_in(text: str, processor: str | None) -> _Found:
    """The configuration with the processor of that name, or with the only one. Raises ConfigError, InvalidConfig."""
    found: list[_Found] = []
    wrong: list[ConfigError] = []
    mappings = 0
    for node in (each for root in _composed(text) for each in [*filter(_may_be_whole, _embedded(root)), root]):
        try:
            for data, lines in _read(node, text):
                mappings += 1
                found += ((Source(data, lines), *each) for each in _processors(data))
        except ConfigError as error:  # of no account where another one has the processor
            wrong.append(error)
    if not found and wrong:
        raise wrong[0]
    if not mappings:
        raise ConfigError("a Collector's configuration is a mapping with processors and service")
    return _chosen(found, processor)


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
    """What may be the configuration in a ConfigMap, in an OpenTelemetryCollector, or in charts' values."""
    left, seen = [root], {id(taken_in) for node in _nodes(root) for taken_in in _merged(node)}
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias, or a part of another one
            continue
        seen.add(id(node))
        whole = "processors" in _below(node)
        if node is not root and (whole or isinstance(node, yaml.ScalarNode)):
            yield node
        elif not whole:
            left += reversed(_members(node))


def _members(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """All, each once."""
    left, seen = [root], set[int]()
    while left:
        if id(node := left.pop()) not in seen:
            seen.add(id(node))
            yield node
            left += _members(node)


def _merged(node: yaml.Node) -> list[yaml.Node]:
    """What a mapping takes in (`<<`)."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    taken_in = [value for key, value in pairs if key.tag == "tag:yaml.org,2002:merge"]
    return [
        each for value in taken_in for each in (_members(value) if isinstance(value, yaml.SequenceNode) else [value])
    ]


def _below(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """The values of a mapping by their keys."""
    pairs = (
        [pair for each in (node, *_merged(node)) if isinstance(each, yaml.MappingNode) for pair in each.value]
        if node
        else []
    )
    return {key.value: value for key, value in reversed(pairs) if isinstance(key, yaml.ScalarNode)}


def _may_be_whole(node: yaml.Node) -> bool:
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    return isinstance(node, yaml.MappingNode) or (PROCESSOR in text and ":" in text)


def _indent(lines: Sequence[str]) -> int:
    """That of the first line that is not empty."""
    first = next(filter(str.strip, lines), "")
    return len(first) - len(first.lstrip(" "))


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


def _chosen(found: Sequence[_Found], wanted: str | None) -> _Found:
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
