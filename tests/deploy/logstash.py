"""Enough of Logstash's configuration language to read a pipeline: sections, plugins, conditions, settings.

Source: Logstash reference, "Structure of a pipeline". Raises SyntaxError for what is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*|(?P<word>[\w.-]+|(?:\[[\w.@-]+\])+)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<pattern>/(?:[^/\\\n]|\\.)*/)|(?P<sign>=>|=~|!~|==|!=|[{}()\[\],]))"""
)
SECTIONS = ("input", "filter", "output")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin with its settings, in whatever branch of a section it stands."""

    section: str
    name: str
    settings: dict[str, Any]


def plugins(text: str) -> list[Plugin]:
    """The plugins of a pipeline, in order."""
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SyntaxError(f"not a token: {text[position : position + 30]!r}")
        position = match.end()
        if match.lastgroup:
            tokens.append(match[match.lastgroup])
    found: list[Plugin] = []
    while tokens:
        section = tokens.pop(0)
        if section not in SECTIONS:
            raise SyntaxError(f"{section} is not one of {', '.join(SECTIONS)}")
        _expect(tokens, "{")
        _body(tokens, section, found)
    return found


def _body(tokens: list[str], section: str, found: list[Plugin]) -> None:
    while (word := _next(tokens)) != "}":
        if word in ("if", "else"):
            while (condition := _next(tokens)) != "{":
                if condition in ("}", "=>"):
                    raise SyntaxError(f"{condition} in a condition")
            _body(tokens, section, found)
            continue
        _expect(tokens, "{")
        settings = {}
        while (key := _next(tokens)) != "}":
            _expect(tokens, "=>")
            settings[key] = _value(tokens)
        found.append(Plugin(section, word, settings))


def _value(tokens: list[str]) -> Any:
    word = _next(tokens)
    if word == "{":
        members = {}
        while (key := _next(tokens)) != "}":
            _expect(tokens, "=>")
            members[_plain(key)] = _value(tokens)
        return members
    if word == "[":
        entries = []
        while True:
            entries.append(_value(tokens))
            if (sign := _next(tokens)) == "]":
                return entries
            if sign != ",":
                raise SyntaxError(f"{sign} where , or ] is wanted")
    if word in ("}", "=>", "]", ","):
        raise SyntaxError(f"{word} where a value is wanted")
    return _plain(word)


def _plain(word: str) -> str:
    return word[1:-1] if word[0] in "\"'" else word


def _expect(tokens: list[str], sign: str) -> None:
    if (found := _next(tokens)) != sign:
        raise SyntaxError(f"{found} where {sign} is wanted")


def _next(tokens: list[str]) -> str:
    if not tokens:
        raise SyntaxError("the text ends too early")
    return tokens.pop(0)
