"""From a file to a `Config`, or to everything that is wrong with it at once.

Each problem has line, column, key, rule and, where one can be guessed, a hint: a misspelt key or value gets the
nearest right one, a key in the wrong section the section it belongs to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config import Config, same_topics
from pipeline.configuration.yaml_tree import STAND_INS, Key, Problem, Told, Tree, dotted, read
from processors.sampling.policies import same_names
from schemas.errors import ConfigError
from schemas.settings import (
    DURATION_PATTERN,
    URL_PATTERN,
    Broken,
    format_duration,
    without_credentials,
    without_parameters,
)

_MISSING_VALUE = object()
_ELSEWHERE = {"hosts": "endpoints", "index": "dataset", "logs_index": "dataset", "url": "endpoint"}
"""What others call a key."""
_INSTEAD = {"or": "write a policy for each, of which one is enough; or list `values`, or use an ottl_condition"}
"""What to write for a type of policy that there is not."""
_UNIQUE: tuple[tuple[Key, str, Callable[[Iterable[tuple[int, str]]], Iterator[Broken]]], ...] = (
    (("sampling", "policies"), "name", partial(same_names, "policies")),
    (("inputs",), "topic", same_topics),
)
"""Lists no two items of which may have the same under a key, and the rule that says so."""


class InvalidConfig(ConfigError):
    """A file that cannot be run. `problems` are sorted by line; the text has one line for each."""

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path, self.problems = path, sorted(problems, key=lambda problem: (problem.line, problem.column))
        super().__init__("\n".join(f"{path}:{problem}" for problem in self.problems))


def load(path: str | Path, environ: Mapping[str, str], missing: Sequence[Key] = ()) -> Config:
    """The configuration in the file at `path`, its `${...}` filled in from `environ` and from files.

    What is not here need not be below the keys `missing`: something stands there that the key takes.
    Raises InvalidConfig, with all problems.
    """
    return parse(text_of(Path(path)), str(path), environ, missing)


def text_of(path: Path) -> str:
    """What is in a file. Raises InvalidConfig."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "is not UTF-8"
        raise InvalidConfig(str(path), [Problem(1, 1, "", why)]) from None


def parse(text: str, path: str, environ: Mapping[str, str], missing: Sequence[Key] = ()) -> Config:
    """Like `load` for a text; `path` is where it came from: relative `${file:...}` begin in its folder."""
    tree = read(text, Path(path).parent, environ, missing)
    if tree.data is None and not tree.problems:
        tree.problems.append(Problem(1, 1, "", "the file is empty", "kafka, inputs and sampling are required"))
    elif tree.data is not None and not isinstance(tree.data, dict):
        tree.problems.append(tree.problem((), "must be a mapping of sections", "kafka, inputs, sampling, ..."))
    config = _config(tree) if isinstance(tree.data, dict) else None
    if config is None and not tree.problems:
        tree.problems += [
            tree.problem(each, "is not on this machine, and nothing can stand for it") for each in tree.stood_in
        ]
    if config is None or tree.problems:
        raise InvalidConfig(path, tree.problems)
    return config


def _config(tree: Tree) -> Config | None:
    """The configuration; None, with the reasons in `tree.problems`, if there is none.

    pydantic does not ask a rule of several keys while one of them, or any beside them, is wrong. So what is wrong is
    left out, and the rest validated again until nothing new is found. Rules that name something that was left out are
    not told: they may hold once it is mended.
    """
    told, wrong = set(tree.unread), set(tree.unread)
    # Beside a `<<` there may be something else, and nothing stands in.
    others = {path: _others(path, tree) for path in tree.stood_in if isinstance(_value(path, tree), str)}
    fitting: dict[Key, Any] = {}
    while True:
        config, found = _validated(tree, wrong)
        if config is not None:
            return None if wrong and (tree.problems or not tree.stood_in) else config
        if _stood_in_anew(found, tree, others, fitting):
            continue
        known, before = set(told), set(wrong)

        def told_of(other: Tree, before: set[Key] = before) -> set[Told]:
            return {(path, rule) for path, rule, _ in _validated(other, before)[1]}

        for path, rule, hint in found:
            again = any(path[: len(other)] == other or other[: len(path)] == path for other in known)
            unsure = {word for other in before for word in _words(other, tree, path)}
            named = re.findall(r"\w+", rule.partition("must be one of ")[0])
            sure = unsure.isdisjoint(named) and not _compared(path, rule, tree)
            if sure and not again:
                tree.problems.append(tree.problem(path, tree.as_written(path, rule, told_of), hint))
            told.add(path)
            while path and (path in before or _value(path, tree) is _MISSING_VALUE):
                path = path[:-1]  # what is required is wrong or missing: it goes with what is around it
            if path:
                wrong.add(path)
        if wrong == before:
            return None


def _validated(tree: Tree, wrong: Collection[Key]) -> tuple[Config | None, list[tuple[Key, str, str]]]:
    """The configuration without what is wrong, or path, rule and hint of each problem that there is beside it."""
    indices: dict[Key, list[int]] = {}
    data = _without(wrong, tree.data, (), indices)
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        errors = [*_repeated(tree), *(_in_file(one, data, indices) for one in error.errors())]
        return None, list(dict.fromkeys(each for one in errors for each in _problems(one, tree)))


def _repeated(tree: Tree) -> Iterator[ErrorDetails]:
    """Names and topics that are there twice: pydantic does not look while anything beside them is wrong."""
    for place, key, same in _UNIQUE:
        items = _value(place, tree)
        texts = ((i, _value((*place, i, key), tree)) for i in range(len(items) if isinstance(items, list) else 0))
        if broken := list(same((i, text) for i, text in texts if isinstance(text, str))):
            yield cast("ErrorDetails", {"type": "rules", "loc": place, "ctx": {"broken": broken}})


def _others(path: Key, tree: Tree) -> Iterator[str]:
    """What else may stand at a path where something stands in."""
    text, value, number = tree.stood_in[path], _value(path, tree), list(tree.stood_in).index(path) + 1
    for other in (*STAND_INS[1:], *_schema_at(path).get("enum", ())):
        yield value.replace(text, other.format(number))


def _stood_in_anew(
    found: Sequence[tuple[Key, str, str]], tree: Tree, others: Mapping[Key, Iterator[str]], fitting: dict[Key, Any]
) -> bool:
    """Whether something else stands now where a problem is, or else where several keys have one.

    After the last of the `others` it is what the key took first, in `fitting`: the problem is none of the value.
    """
    keys = {path[-1] for path in others}
    named = [(path, keys.intersection(re.findall(r"\w+", rule))) for path, rule, _ in found]
    there = [path for path in others if (path, set()) in named]
    anew = False
    for path in there or [path for path in others if any(path == at or path[-1] in names for at, names in named)]:
        value, around = _value(path, tree), _value(path[:-1], tree)
        if not there:
            fitting.setdefault(path, value)
        around[path[-1]] = next(others[path], fitting.get(path, value))
        anew |= around[path[-1]] != value
    return anew


def _compared(path: Key, rule: str, tree: Tree) -> bool:
    """Whether a rule goes by the value of a key beside this one where something stands in: it says `KEY (VALUE)`."""
    return any((*path[:-1], key) in tree.stood_in for key in re.findall(r"(\w+) \(", rule))


def _without(wrong: Collection[Key], data: Any, path: Key, indices: dict[Key, list[int]]) -> Any:
    """The data without what is wrong; `indices` gets those in the file of what is left of each list."""
    if isinstance(data, dict):
        left = {key: (*path, key) for key in data if (*path, key) not in wrong}
        return {key: _without(wrong, data[key], below, indices) for key, below in left.items()}
    if isinstance(data, list):
        indices[path] = [i for i in range(len(data)) if (*path, i) not in wrong]
        return [_without(wrong, data[i], (*path, i), indices) for i in indices[path]]
    return data


def _in_file(details: ErrorDetails, data: Any, indices: Mapping[Key, list[int]]) -> ErrorDetails:
    """The error with its locations as they are in the file."""

    def in_file(location: Key) -> Key:
        found: Key = ()
        path: Key = ()
        here = data
        for part in location:
            own = part
            if isinstance(here, list) and isinstance(part, int) and part < len(here):
                own, here = indices[path][part], here[part]
                path = (*path, own)
            elif isinstance(here, dict) and part in here:
                here = here[part]
                path = (*path, own)
            found = (*found, own)
        return found

    loc = details["loc"]
    changed = {**details, "loc": in_file(loc)}
    if details["type"] == "rules":
        broken = [(in_file((*loc, *below))[len(loc) :], rule) for below, rule in details["ctx"]["broken"]]
        changed["ctx"] = {"broken": broken}
    return cast("ErrorDetails", changed)


def _words(path: Key, tree: Tree, place: Key) -> Iterator[str]:
    """The keys that are in doubt at a place when what is at a path is: it, what was meant by it, and those in it.

    Of another item of a list nothing is but the list: a rule may say which item it means.
    """
    same = next((i for i, (one, other) in enumerate(zip(path, place, strict=False)) if one != other), len(path))
    if other_item := isinstance((*path, "")[same], int):
        path = path[:same]
    value = _value(path, tree)
    yield from value if isinstance(value, dict) and not other_item else ()
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    yield key
    yield from difflib.get_close_matches(key, _keys(_schema_at(path[:-1])), 1)


def _problems(details: ErrorDetails, tree: Tree) -> Iterator[tuple[Key, str, str]]:
    """Path, rule and hint of each problem in an error."""
    path, rest = _located(details["loc"], tree.data)
    match details["type"]:
        case "rules":
            for below, rule in details["ctx"]["broken"]:
                place = path + tuple(below)
                found = _found(place, tree)
                quoted = found.removeprefix("found ") in rule
                yield place, _quoting(rule, place, tree), "" if quoted else found
        case "extra_forbidden":
            yield path, worded(details), _hint_for_key(path, tree, _SCHEMA)
        case "missing":
            yield (*path, *rest), worded(details), ""
        case "literal_error" | "enum":
            yield path, worded(details), _hint_for_value(path, tree, _allowed(details))
        case "value_error":
            # A section's own rule names the key it is about: "KEY: rule".
            rule = str(details["ctx"]["error"])
            key, colon, after = rule.partition(": ")
            if colon and key in _keys(_schema_at(path)):
                path, rule = (*path, key), after
            yield path, _quoting(rule, path, tree), ""
        case "model_type" | "dict_type":
            yield path, worded(details), _found(path, tree)
        case "string_pattern_mismatch" if details["ctx"]["pattern"] == URL_PATTERN:
            yield path, "must begin with http:// or https://", _found(path, tree)
        case "too_short" if _schema_at(path).get("format") == "password":
            yield path, f"must have at least {details['ctx']['min_length']} characters", ""
        case kind:
            hint = _found(path, tree)
            if kind == "string_type" and isinstance(_value(path, tree), bool | int | float):
                hint = "; ".join(filter(None, [hint, "put it in quotes"]))
            yield path, worded(details), hint


def _located(loc: tuple[str | int, ...], data: Any) -> tuple[Key, Key]:
    """The part of pydantic's location that is in the file, and what is missing behind it.

    Pydantic also names what it tried (`[key]`, the members of a union); those names are skipped.
    """
    path: list[str | int] = []
    for i, part in enumerate(loc):
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if inside:
            path.append(part)
            data = data[part]
        elif i == len(loc) - 1 and isinstance(data, dict) and part != "[key]":
            return tuple(path), (part,)
    return tuple(path), ()


def _value(path: Key, tree: Tree) -> Any:
    data = tree.data
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING_VALUE
    return data


def _hidden(path: Key, tree: Tree) -> bool:
    """Whether what is there must not be printed: a secret, a header, or what came from the environment."""
    return _schema_at(path).get("format") == "password" or "headers" in path[:-1] or path in tree.interpolated


def _quoting(rule: str, path: Key, tree: Tree) -> str:
    """A rule that quotes the value, or a part of it between commas, without what must not be printed."""
    value = _value(path, tree)
    for part in {value, *map(str.strip, value.split(","))} if isinstance(value, str) else ():
        if part not in tree.interpolated.get(path, ()):  # which Tree.as_written names
            rule = rule.replace(repr(part), "this" if _hidden(path, tree) else repr(_shown(part)))
    return rule


def _found(path: Key, tree: Tree) -> str:
    """`found VALUE`, but nothing that is long or hidden, and no credentials of a URL; of a duration the default."""
    value, schema = _value(path, tree), _schema_at(path)
    if value is None:
        return "found nothing"
    if value is _MISSING_VALUE:
        default = schema.get("default") if schema.get("pattern") == DURATION_PATTERN else None
        return "" if default is None else f"{format_duration(default)} by default"
    if isinstance(value, str) and (schema.get("type") == "object" or "properties" in schema):
        return "found a text"  # which may be the secret that belongs into the section
    if _hidden(path, tree) or isinstance(value, dict | list) or len(str(value)) > 60:
        return ""
    return f"found {_shown(value) if isinstance(value, str) else value!r}"


def _shown(value: str) -> str:
    """What a file says, in a worker's log as well once it is read again."""
    return without_parameters(without_credentials(value))


def told(details: ErrorDetails) -> Iterator[Told]:
    """Where something is wrong, and what, in our words."""
    if details["type"] == "rules":
        yield from (((*details["loc"], *below), rule) for below, rule in details["ctx"]["broken"])
    else:
        yield details["loc"], worded(details)


def worded(details: ErrorDetails) -> str:
    """What pydantic found, in our words."""
    match details["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "is required"
        case "literal_error" | "enum":
            return f"must be one of {', '.join(_allowed(details))}"
        case "model_type" | "dict_type":
            return "must be a mapping of keys"
        case "value_error":
            return str(details["ctx"]["error"])
        case "too_short" if details["ctx"]["actual_length"] == 0:
            return "must not be empty"
    message = re.sub(r"^(Input|String|List|Dictionary|Value) should ", "must ", details["msg"])
    return message[:1].lower() + message[1:]


def _allowed(details: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", str(details["ctx"]["expected"]))


def hint(details: ErrorDetails, path: Key, tree: Tree, schema: dict[str, Any]) -> str:
    """What may help with a key or a word that is not known in a file of this schema."""
    if details["type"] == "extra_forbidden":
        return _hint_for_key(path, tree, schema)
    return _hint_for_value(path, tree, _allowed(details)) if details["type"] in ("literal_error", "enum") else ""


def _hint_for_value(path: Key, tree: Tree, allowed: Sequence[str]) -> str:
    """What was found instead of one of the allowed words, and the word that was probably meant."""
    value, found = _value(path, tree), _found(path, tree)
    if isinstance(value, bool):
        return f"{found}: YAML's reading of on, off, yes and no; put it in quotes"
    if path[-1] == "type" and isinstance(value, str) and value in _INSTEAD:
        return f"{found}; {_INSTEAD[value]}"
    close = difflib.get_close_matches(str(value).lower(), [word.lower() for word in allowed], 1)
    meant = [f"did you mean {word}?" for word in allowed if close and word.lower() == close[0]]
    return "; ".join([found, *meant] if found else meant)


def _hint_for_key(path: Key, tree: Tree, schema: dict[str, Any]) -> str:
    """The right spelling or place of an unknown key."""
    key, around = str(path[-1]), path[:-1]
    siblings = _keys(_schema_at(around, schema))
    below = [each for each in siblings if key in _keys(_schema_at((*around, each), schema))]
    own = [each for each in below if each == _value((*around, "type"), tree)]  # of a policy
    if len(homes := own or below) == 1:
        return f"it belongs to {dotted((*around, homes[0]))}"
    if key in _INSTEAD and "type" in siblings:
        return _INSTEAD[key]
    if close := [each for each in (_ELSEWHERE.get(key),) if each in siblings] or difflib.get_close_matches(
        key, siblings, 1
    ):
        return f"did you mean {close[0]}?"
    if len(elsewhere := [home for home in _homes(schema, (), schema) if home[-1] == key]) == 1:
        return f"it belongs to {dotted(elsewhere[0][:-1]) or 'the top level'}"
    return f"known here: {', '.join(siblings)}" if siblings else ""


# The models as JSON schema: the one form in which keys can be looked up by path, whatever the models are made of.
_SCHEMA: dict[str, Any] = Config.model_json_schema()


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A schema behind its references; of an optional one, the branch that is not null, a section before a word."""
    while True:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        elif branches := [branch for branch in schema.get("anyOf", []) if branch.get("type") != "null"]:
            schema = next((branch for branch in branches if "$ref" in branch), branches[0])
        else:
            return schema


def _schema_at(path: Key, whole: dict[str, Any] = _SCHEMA) -> dict[str, Any]:
    """The schema of what may stand at a path; empty if nothing may."""
    schema = _resolved(whole, whole)
    for part in path:
        if isinstance(part, int):
            below = schema.get("items", {})
        else:
            below = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
        schema = _resolved(below, whole) if isinstance(below, dict) else {}
    return schema


def _keys(schema: dict[str, Any]) -> list[str]:
    return list(schema.get("properties", {}))


def _homes(schema: dict[str, Any], path: Key, whole: dict[str, Any]) -> Iterator[Key]:
    """Every path of nested sections to a key; maps, lists and recursive models are not entered."""
    for key, below in _resolved(schema, whole).get("properties", {}).items():
        yield (*path, key)
        yield from _homes(below, (*path, key), whole)
