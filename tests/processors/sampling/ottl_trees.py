"""Any condition of OTTL as a tree: made at random, written as text, and told true or false by walking it.

A tree is ("and" | "or", left, right), ("not", part) or (field, operator, value); None is nil.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from schemas.otlp_scan import AttributeValue

Tree = Any
VALUES: list[AttributeValue] = ["", "a", "b", 0, 1, 1.5, True, False]
TEXTS = st.sampled_from(["", "a", "b"])
MAYBE = st.sampled_from([None, *VALUES])


def trees(attributes: Sequence[str], ordered: Sequence[str], names: Sequence[str]) -> st.SearchStrategy[Tree]:
    """Trees about these fields: attributes may be absent and of any type, `ordered` are those of them that are compared
    by size too, names are texts."""
    leaves = st.one_of(
        st.tuples(st.sampled_from(attributes), st.sampled_from(["==", "!="]), MAYBE),
        st.tuples(st.sampled_from(ordered), st.sampled_from(["<", ">="]), st.sampled_from(["a", 1, 1.5])),
        st.tuples(st.sampled_from(names), st.sampled_from(["==", "!=", "<"]), TEXTS),
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
        case (field, operator, value):
            return f"{fields[field]} {operator} {_literal(value)}"
    raise AssertionError(tree)


def _literal(value: AttributeValue | None) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "nil" if value is None else str(value).lower()


def true_of(tree: Tree, found: Mapping[str, AttributeValue | None]) -> bool:
    """Whether the condition holds where the fields are so; only values of a type are alike, and numbers."""
    match tree:
        case ("and", left, right):
            return true_of(left, found) and true_of(right, found)
        case ("or", left, right):
            return true_of(left, found) or true_of(right, found)
        case ("not", part):
            return not true_of(part, found)
    field, operator, wanted = tree
    value: Any = found[field]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (value, wanted))
    alike = numbers or type(value) is type(wanted)
    if operator in ("==", "!="):
        return (alike and value == wanted) is (operator == "==")
    return alike and bool(value < wanted if operator == "<" else value >= wanted)
