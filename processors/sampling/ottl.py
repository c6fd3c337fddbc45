"""Conditions in the OpenTelemetry Transformation Language, as policies use them: a subset, taken apart into tests.

A condition is about one span, or about one of its events. It becomes alternatives (a disjunctive normal form): sets of
tests that must hold and of tests that must not. A test is about one field, so spans answer it like any other question
of a policy.

Comparisons follow pkg/ottl/LANGUAGE.md of the Collector: values of different types are unequal and in no order,
integers and doubles compare as numbers, what is missing is nil. A function may fail on a value, as HasPrefix on what is
no text. Then the whole condition is not met, as in the Collector, unless it was decided by what stands before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from processors.sampling.predicates import expression, text_of

if TYPE_CHECKING:
    from schemas.otlp_scan import AttributeValue

MOST_ALTERNATIVES = 64
MOST_OPERATORS = 64
KNOWN = (
    'a condition compares (==, !=, <, <=, >, >=) attributes["key"], resource.attributes["key"], name, kind, '
    "kind.string, status.code, status.message, instrumentation_scope.name or .version, "
    "end_time_unix_nano - start_time_unix_nano or end_time - start_time, or Int(field) or Double(field), with a "
    "literal, or asks IsMatch(field, pattern), HasPrefix or HasSuffix(field, text), IsString(field) or IsRootSpan(); "
    "and, or, not and parentheses join conditions"
)
KNOWN_OF_EVENTS = (
    'a condition about events compares (==, !=, <, <=, >, >=) attributes["key"] or name, which are the event\'s, '
    'resource.attributes["key"], instrumentation_scope.name or .version, or a field of its span, such as '
    'span.attributes["key"], or Int or Double of one, with a literal, or asks IsMatch(field, pattern), HasPrefix or '
    "HasSuffix(field, text) or IsString(field); and, or, not and parentheses join conditions"
)

Context = Literal["span", "spanevent"]
CONTEXTS: tuple[Context, ...] = get_args(Context)
Field = Literal[
    "attributes",
    "resource",
    "name",
    "kind",
    "status",
    "status message",
    "duration",
    "root",
    "scope name",
    "scope version",
    "event attributes",
    "event name",
]
Scalar = str | bool | int | float
Operator = Literal["==", "<", "<=", ">", ">=", "IsMatch", "HasPrefix", "HasSuffix", "IsString", "present", "failing"]
Converter = Literal["", "Int", "Double"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one field of a span or event, or about the attribute `key`; never true of what is missing.

    `converter` turns the value into a number first; "failing" asks for values with which it fails.
    """

    field: Field
    key: str
    operator: Operator
    value: Scalar | None = None
    converter: Converter = ""


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Joined:
    """All of the parts, or any."""

    every: bool
    parts: tuple[Condition, ...]


Condition = Question | Not | Joined
Alternative = tuple[frozenset[Question], frozenset[Question]]
"""The tests that must hold for a span (and event), and those that must not."""


def alternatives(text: str, context: Context = "span") -> list[Alternative]:
    """The ways in which a span, or an event, can meet a condition; none when it never can.

    `context` is what fields belong to that have no prefix. Raises ValueError with place and rule.
    """
    try:
        found = _alternatives(_Parser(text, context).whole(), True)
        if len(found) > MOST_ALTERNATIVES:
            raise _TooMany(len(found))
    except _TooMany as many:
        raise ValueError(
            f"{text!r} is {many} alternatives, more than {MOST_ALTERNATIVES}: split it into several"
        ) from None
    return found


def may_fail(text: str, context: Context = "span") -> bool:
    """Whether there are values on which a condition fails. Raises ValueError as `alternatives`."""
    return _may_fail(_Parser(text, context).whole())


class _TooMany(Exception):
    """How many alternatives a part of a condition has."""


def _alternatives(condition: Condition, wanted: bool) -> list[Alternative]:
    match condition:
        case Not(part):
            return _alternatives(part, not wanted)
        case Joined(every, parts) if every == wanted:
            found: list[Alternative] = [(frozenset(), frozenset())]
            for part in parts:
                found = _both(found, _alternatives(part, wanted))
            return found
        case Joined(_, parts):
            # One part is enough, if none before it fails.
            either: list[Alternative] = []
            before: list[Alternative] = [(frozenset(), frozenset())]
            for number, part in enumerate(parts, 1):
                either += _both(before, _alternatives(part, wanted))
                if number < len(parts) and _may_fail(part):
                    before = _both(before, _alternatives(part, not wanted))
            return list(dict.fromkeys(either))
        case _:
            alone, nothing = frozenset([condition]), frozenset[Question]()
            if wanted:
                return [(alone, nothing)]
            text, failing = _failures(condition)
            return [(text, alone | failing)]


def _both(some: list[Alternative], others: list[Alternative]) -> list[Alternative]:
    """One of each, where they do not contradict each other."""
    found = [(a | c, b | d) for a, b in some for c, d in others if not (a | c) & (b | d)]
    found = list(dict.fromkeys(found))
    if len(found) > MOST_ALTERNATIVES:
        raise _TooMany(len(found))  # what follows might contradict some, but may be very many before
    return found


def _failures(question: Question) -> Alternative:
    """What must hold, and what must not, for a question to have an answer."""
    nothing = frozenset[Question]()
    if question.operator in ("HasPrefix", "HasSuffix") and question.field not in _TEXTS:
        return frozenset([Question(question.field, question.key, "IsString")]), nothing
    if question.converter:
        return nothing, frozenset([Question(question.field, question.key, "failing", None, question.converter)])
    return nothing, nothing


def _may_fail(condition: Condition) -> bool:
    match condition:
        case Not(part):
            return _may_fail(part)
        case Joined(_, parts):
            return any(map(_may_fail, parts))
        case _:
            return any(_failures(condition))


def holds(test: Question) -> Callable[[AttributeValue], bool]:
    """The test of a value that is there."""
    if test.converter:
        return _holds_converted(test, _CONVERTERS[test.converter])
    wanted = test.value
    match test.operator:
        case "present":
            return lambda _: True
        case "IsString":
            return lambda value: isinstance(value, str)
        case "HasPrefix":
            return lambda value: isinstance(value, str) and value.startswith(str(wanted))
        case "HasSuffix":
            return lambda value: isinstance(value, str) and value.endswith(str(wanted))
        case "IsMatch":
            search = expression(str(wanted)).search

            def matches(value: AttributeValue) -> bool:
                if isinstance(value, float) and not math.isfinite(value):
                    return False  # no text to the Collector (JSON), which fails on it
                return search(value.hex() if isinstance(value, bytes) else text_of(value)) is not None

            return matches
        case "==":
            return lambda value: _family(value) == _family(wanted) and value == wanted
        case operator:
            order = _ORDERS[operator]
            return lambda value: _family(value) == _family(wanted) and order(value, wanted)


def _holds_converted(
    test: Question, converted: Callable[[AttributeValue], int | float | None]
) -> Callable[[AttributeValue], bool]:
    """The test of what a converter makes of the value: nothing, which is nil, or a failure, or a number."""
    asked = None if test.operator == "failing" else holds(replace(test, converter=""))

    def answer(value: AttributeValue) -> bool:
        try:
            number = converted(value)
        except _Failing:
            return asked is None
        return asked is not None and number is not None and asked(number)

    return answer


class _Failing(Exception):
    """A converter fails on a value."""


def _int(value: AttributeValue) -> int | None:
    """As `Int` of the Collector; text that is no whole number of 64 bits is nil."""
    match value:
        case str():
            found = _WHOLE.fullmatch(value)
            number = int(found[1] + found[2]) if found else _HIGHEST + 1
            return number if _LOWEST <= number <= _HIGHEST else None
        case bytes():
            raise _Failing
        case float():  # Go on amd64: the lowest number for what does not fit, NaN included
            return int(value) if _LOWEST <= value < -_LOWEST else _LOWEST
        case _:
            return int(value)


def _double(value: AttributeValue) -> float:
    """As `Double` of the Collector, which fails on text that is no number or too large a one."""
    match value:
        case str():
            number = float(value) if _DECIMAL.fullmatch(value) else math.nan
            if math.isfinite(number):
                return number
            if _WORDS.fullmatch(value):
                return float(value)
            raise _Failing
        case bytes():
            raise _Failing
        case _:
            return float(value)


def bounds(test: Question) -> tuple[int, int]:
    """The lowest and the highest duration (ns) that a test of it allows; the highest is below where none is."""
    assert isinstance(test.value, int)
    low = {"==": test.value, ">=": test.value, ">": test.value + 1}.get(test.operator, _LOWEST)
    high = {"==": test.value, "<=": test.value, "<": test.value - 1}.get(test.operator, _HIGHEST)
    if low > _HIGHEST or high < _LOWEST:
        return _HIGHEST, _LOWEST
    return max(low, _LOWEST), min(high, _HIGHEST)


def _family(value: object) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _is_code(value: object) -> bool:
    return type(value) is int and 0 <= value < len(_KINDS)


_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_WHOLE = re.compile(r"([-+]?)0*([0-9]{1,19})")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS = re.compile(r"[-+]?inf(?:inity)?|nan", re.IGNORECASE)
_CONVERTERS: dict[str, Callable[[AttributeValue], int | float | None]] = {"Int": _int, "Double": _double}
_ORDERS: dict[str, Callable[[object, object], bool]] = {
    "<": lambda a, b: a < b,  # type: ignore[operator]  # of one family
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>[-+]?(?:\d*\.\d+(?:[eE][-+]?\d+)?|\d+))"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)|(?P<sign>==|!=|<=|>=|[<>()\[\],-]))"""
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUSES = ("UNSET", "OK", "ERROR")
_ENUMS = {f"SPAN_KIND_{kind.upper()}": code for code, kind in enumerate(_KINDS)}
_ENUMS |= {f"STATUS_CODE_{status}": code for code, status in enumerate(_STATUSES)}
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_ASKED: dict[str, Operator] = {
    "IsMatch": "IsMatch", "HasPrefix": "HasPrefix", "HasSuffix": "HasSuffix", "IsString": "IsString",
}  # fmt: skip
_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ATTRIBUTES: dict[str, Field] = {"resource": "resource", "span": "attributes", "spanevent": "event attributes"}
_FIELDS: dict[tuple[str, str], Field] = {
    ("span", "name"): "name",
    ("span", "kind"): "kind",
    ("span", "kind.string"): "kind",
    ("span", "status.code"): "status",
    ("span", "status.message"): "status message",
    ("scope", "name"): "scope name",
    ("scope", "version"): "scope version",
    ("spanevent", "name"): "event name",
}
_TEXTS: tuple[Field, ...] = ("name", "status message", "scope name", "scope version", "event name")  # empty, never nil
_TIMES = {"end_time_unix_nano": "start_time_unix_nano", "end_time": "start_time"}


@dataclass(frozen=True, slots=True)
class _Path:
    """Something a span or event has; `kind` says what it is compared with."""

    field: Field
    key: str
    kind: Literal["value", "text", "code", "kind name", "ns", "Duration", "Int", "Double"]


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Scalar | None
    duration: bool = False


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, text: str, context: Context) -> None:
        self._text, self._context = text, context
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise self._error(at + len(text[at:]) - len(text[at:].lstrip()), "this is no OTTL")
            self._tokens.append((found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
            at = found.end()
        self._tokens.append(("end", "", len(text)))
        self._next = 0
        if self._operators() > MOST_OPERATORS:
            raise ValueError(f"{text!r} joins more than {MOST_OPERATORS} conditions: split it into several")

    def _operators(self) -> int:
        """How many join conditions; a parenthesis behind the name of a function does not."""
        words = ("and", "or", "not")
        before = [("end", "", 0), *self._tokens]
        return sum(
            text in words if kind == "word" else text == "(" and (last != "word" or word in words)
            for (last, word, _), (kind, text, _) in zip(before, self._tokens, strict=False)
        )

    def _error(self, at: int, rule: str) -> ValueError:
        known = KNOWN if self._context == "span" else KNOWN_OF_EVENTS
        return ValueError(f"{self._text!r}, column {at + 1}: {rule}; {known}")

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> bool:
        """Whether the next token is one of these; then it is taken."""
        kind, text, _ = self._peek()
        found = kind in ("word", "sign") and text in texts
        self._next += found
        return found

    def _want(self, text: str) -> None:
        if not self._take(text):
            raise self._error(self._peek()[2], f"{text} expected")

    def whole(self) -> Condition:
        found = self._either()
        if self._peek()[0] != "end":
            raise self._error(self._peek()[2], "and, or, or the end expected")
        return found

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Joined(False, tuple(parts))

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Joined(True, tuple(parts))

    def _one(self) -> Condition:
        if self._take("not"):
            return Not(self._one())
        if self._peek()[1] == "(" and not self._around_operand():
            self._next += 1
            found = self._either()
            self._want(")")
            return found
        at = self._peek()[2]
        if self._peek()[1] in _ASKED:
            return self._asked()
        if self._context == "span" and self._take("IsRootSpan"):
            self._want("(")
            self._want(")")
            return Question("root", "", "present")
        left = self._operand()
        kind, operator, sign_at = self._peek()
        if kind != "sign" or operator not in _FLIPPED:
            if left == _Literal(True) or left == _Literal(False):
                return Joined(left.value is True, ())  # all of nothing holds, any of nothing does not
            raise self._error(sign_at, "a comparison expected")
        self._next += 1
        right = self._operand()
        if isinstance(left, _Path) and isinstance(right, _Literal):
            return self._compared(left, operator, right, at)
        if isinstance(left, _Literal) and isinstance(right, _Path):
            return self._compared(right, _FLIPPED[operator], left, at)
        raise self._error(at, "one side must be a field, the other one a literal")

    def _around_operand(self) -> bool:
        """Whether the parenthesis that is next is around one side of a comparison."""
        depth = 0
        for number, (kind, text, _) in enumerate(self._tokens[self._next :], self._next):
            depth += (text == "(") - (text == ")") if kind == "sign" else 0
            if depth == 0:
                return self._tokens[min(number + 1, len(self._tokens) - 1)][1] in _FLIPPED
        return False

    def _asked(self) -> Condition:
        """A function that is true or false."""
        _, function, _ = self._peek()
        self._next += 1
        self._want("(")
        path = self._value(function)
        if function == "IsString":
            self._want(")")
            return Question(path.field, path.key, "present" if path.kind == "text" else "IsString")
        self._want(",")
        kind, _, pattern_at = self._peek()
        pattern = self._operand()
        self._want(")")
        if kind != "string" or not isinstance(pattern, _Literal):
            raise self._error(pattern_at, f"the {'pattern' if function == 'IsMatch' else 'text'} must be a string")
        if function == "IsMatch":
            try:
                expression(str(pattern.value))
            except ValueError as error:
                raise self._error(pattern_at, str(error)) from None
        return Question(path.field, path.key, _ASKED[function], pattern.value)

    def _value(self, function: str) -> _Path:
        """What a function looks at."""
        at = self._peek()[2]
        path = self._operand()
        if not isinstance(path, _Path) or path.kind not in ("value", "text"):
            raise self._error(at, f"{function} looks at an attribute or a text")
        return path

    def _operand(self) -> _Path | _Literal:
        kind, text, at = self._peek()
        self._next += 1
        if text == "(" and kind == "sign":
            inner = self._operand()
            self._want(")")
            return inner
        if kind == "string":
            return _Literal(self._unquoted(text, at))
        if kind == "number":
            return _Literal(float(text) if "." in text else int(text))
        if text in ("true", "false"):
            return _Literal(text == "true")
        if text == "nil":
            return _Literal(None)
        if text in _ENUMS:
            return _Literal(_ENUMS[text])
        if text == "Duration":
            return self._duration()
        if text == "Int" or text == "Double":
            self._want("(")
            path = self._value(text)
            self._want(")")
            return _Path(path.field, path.key, text)  # type: ignore[arg-type]  # one of the two
        if kind == "word":
            return self._path(text, at)
        raise self._error(at, "a field or a literal expected")

    def _named(self, text: str) -> tuple[str, str]:
        """Whose field it is, and its name."""
        prefix, _, rest = text.partition(".")
        if prefix in ("scope", "instrumentation_scope"):
            return "scope", rest
        return (prefix, rest) if prefix in ("resource", "span", self._context) and rest else (self._context, text)

    def _path(self, text: str, at: int) -> _Path:
        of, name = self._named(text)
        if name == "attributes" and of in _ATTRIBUTES:
            self._want("[")
            kind, key, key_at = self._peek()
            if kind != "string":
                raise self._error(key_at, "the key of an attribute expected")
            self._next += 1
            self._want("]")
            if self._peek()[1] == "[":
                raise self._error(self._peek()[2], "what is inside of an attribute cannot be asked for")
            return _Path(_ATTRIBUTES[of], self._unquoted(key, key_at), "value")
        if (field := _FIELDS.get((of, name))) is not None:
            return _Path(field, "", "text" if field in _TEXTS else "kind name" if name == "kind.string" else "code")
        if of == "span" and name in _TIMES:
            self._want("-")
            _, other, other_at = self._peek()
            if self._named(other) != ("span", _TIMES[name]):
                raise self._error(other_at, f"{_TIMES[name]} expected")
            self._next += 1
            return _Path("duration", "", "ns" if name.endswith("nano") else "Duration")
        raise self._error(at, f"{text} is not known here")

    def _duration(self) -> _Literal:
        self._want("(")
        kind, quoted, at = self._peek()
        self._next += 1
        text = self._unquoted(quoted, at) if kind == "string" else ""
        if not _DURATION.fullmatch(text):
            raise self._error(at, 'a duration such as "1.5s" expected')
        self._want(")")
        parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
        return _Literal(sum(round(float(n) * _NS[unit]) if "." in n else int(n) * _NS[unit] for n, unit in parts), True)

    def _compared(self, path: _Path, operator: str, literal: _Literal, at: int) -> Condition:
        if operator == "!=":
            return Not(self._compared(path, "==", literal, at))
        value = literal.value
        rules = {
            "code": (_is_code(value) and operator == "==", "it is compared by == and != with its enumeration"),
            "kind name": (
                value in _KINDS and operator == "==",
                f"it is compared by == and != with {', '.join(_KINDS)}",
            ),
            "text": (isinstance(value, str), "it is compared with a string"),
            "ns": (type(value) is int and not literal.duration, "it is compared with a whole number of nanoseconds"),
            "Duration": (literal.duration, 'it is compared with a duration, as in Duration("1s")'),
            "value": (not literal.duration, "it is compared with a string, a number, true, false or nil"),
        }
        number = (value is None or type(value) in (int, float)) and not literal.duration
        rules |= {kind: (number, "it is compared with a number or nil") for kind in _CONVERTERS}
        right, rule = rules[path.kind]
        if not right:
            raise self._error(at, rule)
        converter: Converter = path.kind if path.kind == "Int" or path.kind == "Double" else ""
        if value is None or isinstance(value, bool):
            if operator != "==":
                raise self._error(at, "true, false and nil are compared by == and !=")
            if value is None:
                return Not(Question(path.field, path.key, "present", None, converter))
        if path.kind == "kind name":
            value = _KINDS.index(str(value))
        return Question(path.field, path.key, operator, value, converter)  # type: ignore[arg-type]  # one of the signs

    def _unquoted(self, quoted: str, at: int) -> str:
        def escaped(found: re.Match[str]) -> str:
            if found[1] not in _ESCAPES:
                raise self._error(at + 1 + found.start(), f"\\{found[1]} is no escape; a backslash is \\\\")
            return _ESCAPES[found[1]]

        return re.sub(r"\\(.)", escaped, quoted[1:-1])
