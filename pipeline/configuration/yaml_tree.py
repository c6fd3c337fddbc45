"""A YAML file as plain data that knows where each value stands and which were interpolated.

Duplicate keys, keys that are not text and aliases that contain themselves are problems; so are variables that are not
set and files that cannot be read. All of them are collected, none stops the reading.

In a value, `${NAME}` is an environment variable, `${NAME:-default}` has a default for one that is unset or empty,
`${file:/path}` is a file's content without its last line break (a relative path begins at the YAML file's folder), and
`$${` stands for `${`. The Collector's `${env:NAME}` works too. An unquoted value that comes out empty is null, as it
would be in YAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

Key = tuple[str | int, ...]
"""Where a value is: keys of mappings and indices of sequences from the top."""
Told = tuple[Key, str]
"""Where something is wrong, and the rule that does not hold there."""

_INTERPOLATION = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_OTHER_VARIABLE = re.compile(r"\$[A-Za-z_]\w*|\$\([A-Za-z_]\w*\)|%[A-Za-z_]\w*%")  # of a shell, Kubernetes, Windows
STAND_INS = ("not-here-{}", "not-here-{}:1", "https://not-here-{}", "1", "1000000", "1s", "1h", "localhost")
"""What takes the place of a value that is not on this machine: a text, an address, a URL, numbers, durations, a host
that nobody else reaches. Each value has a number of its own."""
CONNECTIONS: tuple[Key, ...] = (("sinks",), ("telemetry",), ("canary",), ("redaction",), ("kafka", "security"))
"""Where values may be missing for whoever connects to nothing but prints the addresses of brokers."""
CONNECTIONS_AND_BROKERS: tuple[Key, ...] = (*CONNECTIONS, ("kafka", "bootstrap_servers"))
"""Likewise for whoever does not print them."""
ANYWHERE: tuple[Key, ...] = ((),)
_NAMED = re.compile(r"\b(alias|anchor|tag|tag handle) ['\"].*", re.DOTALL)  # in a text of the parser
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (line and column count from 1), which key, which rule, and what may help."""

    line: int
    column: int
    key: str
    rule: str
    hint: str = ""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.line}:{self.column}: {key}{self.rule}" + (f" ({self.hint})" if self.hint else "")


@dataclass(slots=True)
class Tree:
    """`data` is what the file says; `keys` and `values` map paths to (line, column) of the key and of the value.

    `interpolated` has the values that came from the environment or from a file, which are never printed: by path, with
    what the file says for each and for parts of it, `${NAME}`. `unread` holds the paths of values that a problem left
    empty; `stood_in` what stands in which that is not on this machine; `literal` those that only look like a variable.
    """

    data: Any = None
    keys: dict[Key, tuple[int, int]] = field(default_factory=dict)
    values: dict[Key, tuple[int, int]] = field(default_factory=dict)
    interpolated: dict[Key, dict[str, str]] = field(default_factory=dict)
    unread: set[Key] = field(default_factory=set)
    stood_in: dict[Key, str] = field(default_factory=dict)
    literal: set[Key] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: Key) -> tuple[int, int]:
        """Where to look for `path`: its key, else its value, else what surrounds it."""
        for length in range(len(path), 0, -1):
            for positions in (self.keys, self.values):
                if path[:length] in positions:
                    return positions[path[:length]]
        return self.values.get((), (1, 1))

    def problem(self, path: Key, rule: str, hint: str = "") -> Problem:
        """A problem at the position of `path`."""
        return Problem(*self.position(path), dotted(path), rule, hint)

    def as_written(self, path: Key, rule: str, again: Callable[[Tree], Collection[Told]] = lambda _: ()) -> str:
        """A rule told of `path` that may quote values of any section: with what the file says for those from outside.

        `again` gives what is told of a tree with other data. What stays the same when such a value changes, a bound or
        a name that only looks like it, is no quotation.
        """
        written: dict[str, str] = {}
        for came, says in {came: says for parts in self.interpolated.values() for came, says in parts.items()}.items():
            forms = {form for form in (came, repr(came)[1:-1]) if form and re.search(_as_a_word(form), rule)}
            if forms and (path, rule) not in again(self._with_another(came)):
                written |= dict.fromkeys(forms, says)
        quoted = "|".join(map(_as_a_word, sorted(written, key=len, reverse=True)))
        return re.sub(quoted, lambda found: written[found[0]], rule) if quoted else rule

    def _with_another(self, came: str) -> Tree:
        """The tree where a text from outside is another everywhere, one that a number or a duration may be too."""
        data = deepcopy(self.data)
        for path in (path for path, parts in self.interpolated.items() if path and came in parts):
            with suppress(KeyError, IndexError, TypeError, AttributeError):  # behind a `<<` there may be something else
                around = reduce(getitem, path[:-1], data)
                around[path[-1]] = around[path[-1]].replace(came, f"1{came}")
        return replace(self, data=data)


def _as_a_word(text: str) -> str:
    """An expression that finds it, but not `1` in `100`."""
    before, after = (r"\b" if re.match(r"\w", edge) else "" for edge in (text[0], text[-1]))
    return before + re.escape(text) + after


def dotted(path: Key) -> str:
    """A path as it is written in messages.

    >>> dotted(("sampling", "policies", 0, "type"))
    'sampling.policies[0].type'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read(text: str, folder: Path, environ: Mapping[str, str], missing: Sequence[Key] = ()) -> Tree:
    """The tree of one YAML document. What is wrong with it is in `problems`; `data` is then incomplete.

    A variable or a file that is not here is no problem below the keys `missing`: one of STAND_INS takes its place.
    """
    tree = Tree()
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        if (node := loader.get_single_node()) is not None:
            tree.data = _Reader(tree, loader, folder, environ, missing).value(node, (), frozenset())
    except yaml.MarkedYAMLError as error:
        tree.problems.append(not_yaml(error))
    except yaml.reader.ReaderError as error:
        tree.problems.append(not_allowed(error, text))
    except RecursionError:
        tree.problems.append(Problem(1, 1, "", "is nested too deeply"))
    finally:
        if loader is not None:
            loader.dispose()
    return tree


def not_yaml(error: yaml.MarkedYAMLError) -> Problem:
    """What the parser stumbled over, and where; without the name of an alias or a tag, which may be a password."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    context = f"{error.context}, " if error.context else ""
    problem = _NAMED.sub(r"\1", error.problem or "")
    return Problem(line, column, "", f"not valid YAML: {context}{problem}", _hint(error.problem or ""))


def not_allowed(error: yaml.reader.ReaderError, text: str) -> Problem:
    """A character that no YAML may have, and where."""
    line = text.count("\n", 0, error.position) + 1
    column = error.position - text.rfind("\n", 0, error.position)
    return Problem(line, column, "", f"not valid YAML: character U+{ord(text[error.position]):04X} is not allowed")


class _Reader:
    """Turns nodes into data, with everything that this needs at hand."""

    def __init__(
        self, tree: Tree, loader: yaml.SafeLoader, folder: Path, environ: Mapping[str, str], missing: Sequence[Key]
    ) -> None:
        self.tree, self.loader, self.folder, self.environ, self.missing = tree, loader, folder, environ, missing

    def value(self, node: yaml.Node, path: Key, inside: frozenset[int]) -> Any:
        """The data of one node; `inside` are the identities of the nodes around it."""
        self.tree.values[path] = _position(node)
        if id(node) in inside:
            self.unread(node, path, "an alias must not contain itself")
            return None
        inside |= {id(node)}
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, i), inside) for i, child in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Key, inside: frozenset[int]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for name, value in self.merge(value_node, path, inside).items():
                    merged.setdefault(name, value)
                continue
            key = self.key(key_node, path)
            if key is None:
                continue
            if key in data:
                first = self.tree.keys[(*path, key)][0]
                self.report(key_node, (*path, key), f"is there twice; the first is in line {first}")
                continue
            self.tree.keys[(*path, key)] = _position(key_node)
            data[key] = self.value(value_node, (*path, key), inside)
        return merged | data

    def merge(self, node: yaml.Node, path: Key, inside: frozenset[int]) -> dict[str, Any]:
        """What `<<` brings in: a mapping, or several of which the first wins."""
        merged: dict[str, Any] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if id(source) in inside or not isinstance(source, yaml.MappingNode):
                self.report(source, path, "<< takes a mapping, or a list of mappings")
                continue
            for name, value in self.mapping(source, path, inside | {id(source)}).items():
                merged.setdefault(name, value)
        for name in merged:
            self.tree.keys.setdefault((*path, name), _position(node))
        return merged

    def key(self, node: yaml.Node, path: Key) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            return str(node.value)
        shown = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
        self.report(node, path, f"a key must be text; YAML reads {shown} as {_kind(node)}", "put it in quotes")
        return None

    def scalar(self, node: yaml.Node, path: Key) -> Any:
        if "${" not in node.value:
            if _OTHER_VARIABLE.fullmatch(node.value):
                self.tree.literal.add(path)
            try:
                return self.loader.construct_object(node)
            except yaml.YAMLError:
                self.unread(node, path, "begins with !, which is a tag in YAML", "put it in quotes")
                return None
            except (ValueError, LookupError, AttributeError, TypeError) as error:  # by its tag
                self.unread(node, path, f"cannot be read as {_kind(node)}: {error}", "put it in quotes")
                return None
        written = self.tree.interpolated[path] = {}

        def came(match: re.Match[str]) -> str:
            text = self.replacement(match, node, path)
            if match[1] is not None:
                written[text] = match[0]
            return text

        text = _INTERPOLATION.sub(came, node.value)
        written[text] = node.value
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        return None if plain and not text else text

    def replacement(self, match: re.Match[str], node: yaml.Node, path: Key) -> str:
        """The text for one `${...}`; reports and gives nothing when there is none."""
        if match[0] == "$${":
            return "${"
        inner = match[1]
        if inner is not None and inner.startswith("file:"):
            file = self.folder / inner.removeprefix("file:")
            try:
                return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
            except (OSError, ValueError) as error:
                if self.may_miss(path) and isinstance(error, OSError):
                    return self.stand_in(path)
                told = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                reason = error.strerror if isinstance(error, OSError) else told
                self.unread(node, path, f"file {file} cannot be read: {reason}")
                return ""
        variable = _VARIABLE.fullmatch(inner or "")
        if variable is None:
            rule = f"{match[0]!r} is not an interpolation"
            self.unread(node, path, rule, "${NAME}, ${NAME:-default} or ${file:/path}; $${ for a literal ${")
            return ""
        name, default = variable.groups()
        found = self.environ.get(name)
        if default is not None:
            return found or default
        if found is None and self.may_miss(path):
            return self.stand_in(path)
        if found is None:
            self.unread(node, path, f"environment variable {name} is not set", f"${{{name}:-default}} gives a default")
        return found or ""

    def may_miss(self, path: Key) -> bool:
        return any(path[: len(each)] == each for each in self.missing)

    def stand_in(self, path: Key) -> str:
        return self.tree.stood_in.setdefault(path, STAND_INS[0].format(len(self.tree.stood_in) + 1))

    def unread(self, node: yaml.Node, path: Key, rule: str, hint: str = "") -> None:
        """Report why a value is empty."""
        self.tree.unread.add(path)
        self.report(node, path, rule, hint)

    def report(self, node: yaml.Node, path: Key, rule: str, hint: str = "") -> None:
        self.tree.problems.append(Problem(*_position(node), dotted(path), rule, hint))


def _hint(problem: str) -> str:
    """What usually is behind one of the parser's problems."""
    if r"'\t'" in problem:
        return "indent with spaces"
    if _NAMED.search(problem):
        return "a text that begins with *, & or ! must be in quotes"
    if problem.endswith("but got '{'"):
        return "between braces or brackets ${...} must be in quotes"
    return "is it indented as the lines around it?" if "<block end>" in problem else ""


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _kind(node: yaml.Node) -> str:
    name = node.tag.rsplit(":", 1)[-1].lstrip("!")
    return {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}.get(name, f"a {name}")
