"""Any condition of OTTL as a tree: made at random, written as text, and told true or false by walking it.

A tree is ("and" | "or", left, right), ("not", part) or (field, operator, value); None is nil. Operators are signs,
signs behind "Int " and "Double ", and functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from schemas.otlp_scan import AttributeValue

Tree = Any
VALUES: list[AttributeValue] = ["", "a", "b", "1", "1.5", 0, 1, 1.5, True, False, b"1"]
LITERALS = st.sampled_from([None, *(value for value in VALUES if not isinstance(value, bytes))])
CONVERTED = ["Int ==", "Int <", "Int >=", "Double !=", "Double <", "Double >="]
TEXTS = st.sampled_from(["", "a", "b"])
MAYBE = st.sampled_from([None, *VALUES])


def trees(attributes: Sequence[str], ordered: Sequence[str], names: Sequence[str]) -> st.SearchStrategy[Tree]:
    """Trees about these fields: attributes may be absent and of any type, `ordered` are those of them that are compared
    by size too, names are texts."""
    leaves = st.one_of(
        st.tuples(st.sampled_from(attributes), st.sampled_from(["==", "!="]), LITERALS),
        st.tuples(st.sampled_from(ordered), st.sampled_from(["<", ">="]), st.sampled_from(["a", 1, 1.5])),
        st.tuples(st.sampled_from(names), st.sampled_from(["==", "!=", "<"]), TEXTS),
        st.tuples(st.sampled_from([*attributes, *names]), st.sampled_from(["HasPrefix", "HasSuffix"]), TEXTS),
        st.tuples(st.sampled_from(attributes), st.sampled_from(CONVERTED), st.sampled_from([0, 1, 1.5])),
        st.tuples(st.sampled_from(attributes), st.sampled_from(["Int ==", "Double =="]), st.none()),
        st.tuples(st.sampled_from([*attributes, *names]), st.just("IsString"), st.none()),
    )
    return st.recursive(
        leaves,
        lambda part: st.one_of(st.tuples(st.sampled_from(["and", "or"]), part, part), st.tuples(st.just("not"), part)),
        max_leaves=5,
    )


def text_of(tree: Tree, fields: Mapping[str, str]) -> str:
    """The condition, with each field as it is written."""
    match tree:
        case ("and" | "or" as word, left, right):
            return f"({text_of(left, fields)} {word} {text_of(right, fields)})"
        case ("not", part):
            return f"not {text_of(part, fields)}"
        case (field, "IsString", _):
            return f"IsString({fields[field]})"
        case (field, "HasPrefix" | "HasSuffix" as function, value):
            return f"{function}({fields[field]}, {_literal(value)})"
        case (field, operator, value) if " " in operator:
            converter, sign = operator.split()
            return f"{converter}({fields[field]}) {sign} {_literal(value)}"
        case (field, operator, value):
            return f"{fields[field]} {operator} {_literal(value)}"
    raise AssertionError(tree)


def _literal(value: AttributeValue | None) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "nil" if value is None else str(value).lower()


def true_of(tree: Tree, found: Mapping[str, AttributeValue | None]) -> bool:
    """Whether the condition holds where the fields are so; not where it fails before it has an answer."""
    try:
        return _true_of(tree, found)
    except TypeError:
        return False


def _true_of(tree: Tree, found: Mapping[str, AttributeValue | None]) -> bool:
    """Only values of a type are alike, and numbers. Raises TypeError where a function fails."""
    match tree:
        case ("and", left, right):
            return _true_of(left, found) and _true_of(right, found)
        case ("or", left, right):
            return _true_of(left, found) or _true_of(right, found)
        case ("not", part):
            return not _true_of(part, found)
    field, operator, wanted = tree
    value: Any = found[field]
    if operator == "IsString":
        return isinstance(value, str)
    if operator in ("HasPrefix", "HasSuffix"):
        return bool((str.startswith if operator == "HasPrefix" else str.endswith)(value, wanted))
    if " " in operator:
        converter, operator = operator.split()
        value = None if value is None else _INTS[value] if converter == "Int" else _DOUBLES[value]
        if value is _FAILS:
            raise TypeError
    if wanted is None:
        return (value is None) is (operator == "==")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (value, wanted))
    alike = numbers or type(value) is type(wanted)
    if operator in ("==", "!="):
        return (alike and value == wanted) is (operator == "==")
    return alike and bool(value < wanted if operator == "<" else value >= wanted)


_FAILS = object()
_INTS = {"": None, "a": None, "b": None, "1": 1, "1.5": None, 0: 0, 1: 1, 1.5: 1, b"1": _FAILS}  # of True: 1
_DOUBLES = {"": _FAILS, "a": _FAILS, "b": _FAILS, "1": 1.0, "1.5": 1.5, 0: 0.0, 1: 1.0, 1.5: 1.5, b"1": _FAILS}
