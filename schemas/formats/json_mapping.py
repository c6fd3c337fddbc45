"""protobuf's JSON mapping, read into messages: what OTLP/JSON and Jaeger's JSON have in common.

`reader` walks a message's descriptor once and gives a function from JSON to keyword arguments, which the message
class takes nested as they are; protobuf builds the message in C. Names count in lowerCamelCase and in snake_case,
enums as number or name, 64-bit integers as text or number, `null` as absent, bytes as base64 with or without padding
and in both alphabets; unknown names are ignored. What has the wrong type is refused.
Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from schemas.errors import Malformed
from schemas.reasons import Reason

Read = Callable[[Any], Any]
Place = tuple[str | int, ...]
"""Names and indices from the top."""

_INTEGERS = {  # type of field: bits, signed
    FieldDescriptor.TYPE_INT32: (32, True), FieldDescriptor.TYPE_SINT32: (32, True),
    FieldDescriptor.TYPE_SFIXED32: (32, True), FieldDescriptor.TYPE_UINT32: (32, False),
    FieldDescriptor.TYPE_FIXED32: (32, False), FieldDescriptor.TYPE_INT64: (64, True),
    FieldDescriptor.TYPE_SINT64: (64, True), FieldDescriptor.TYPE_SFIXED64: (64, True),
    FieldDescriptor.TYPE_UINT64: (64, False), FieldDescriptor.TYPE_FIXED64: (64, False),
}  # fmt: skip
_BEYOND = 1 << 64  # orjson's integers are from half of it below zero to right below it
_LONGEST_INTEGER = len(str(-_BEYOND))
# A number that may be one beyond: of 19 digits and a minus, or of more. In texts digits stand behind other characters.
_SHAPES = bytes.maketrans(b"0123456789-:,[\t\n\r", b"0" * 11 + b" " * 6)
_LONG = b" " + b"0" * (_LONGEST_INTEGER - 1)
_SPECIAL_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
# A pair of surrogates, one without its partner, or any other escape, so that `\\ud800` is read as a backslash first.
_ESCAPE = re.compile(
    r"\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


def load(data: bytes) -> Any:
    """JSON to Python. Raises Malformed.

    Bytes that are not UTF-8, and halves of surrogate pairs, become U+FFFD: one badly cut log line must not cost the
    message that it came in. Nor must the NaN and Infinity that Python writes, which are texts then.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        text = _mended(data)
        try:
            return _leniently(text) if "NaN" in text or "Infinity" in text else orjson.loads(text)
        except (ValueError, RecursionError):
            raise Malformed(Reason.MALFORMED, f"not JSON: {error}") from None


def exactly(value: Any, data: bytes) -> Any:
    """What `load` made of `data`, with the digits of integers beyond 64 bits, which orjson makes doubles of.

    Where there may be one it is read again, several times slower. Raises RecursionError then, above some hundred
    levels.
    """
    return _leniently(_mended(data)) if _LONG in data.translate(_SHAPES) else value


def _leniently(text: str) -> Any:
    return json.loads(text, parse_int=_digits, parse_constant=str)


def _digits(text: str) -> int | str:
    number = int(text) if len(text) <= _LONGEST_INTEGER else _BEYOND
    return number if -_BEYOND <= 2 * number < 2 * _BEYOND else text


def _mended(data: bytes) -> str:
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    return _ESCAPE.sub(lambda match: "\ufffd" if match[1] else match[0], text)


def read(how: Read, value: Any, what: str) -> Any:
    """`how(value)`, with the errors of readers as Malformed. `what` names the message that was expected."""
    try:
        return how(value)
    except (ValueError, TypeError) as error:
        raise Malformed(Reason.MALFORMED, f"not {what} in JSON: {error}") from None
    except RecursionError:  # beyond what protobuf's parsers read back: they stop at 100 levels, far below
        raise Malformed(Reason.MALFORMED, f"not {what} in JSON: nested too deeply") from None


def reader(message: Descriptor, special: Mapping[str, Read]) -> Read:
    """A function from JSON to the keyword arguments of `message`'s class; it raises ValueError or TypeError.

    `special` has readers for fields and messages with a form of their own, by the end of their full name
    (`Span.trace_id`, `Timestamp`).
    """
    return _message(message, special, {})


def unknown(message: Descriptor, value: Any, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Where in JSON of a message names are that a reader of it passes over, each with the message that it is in."""
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    for key, member in value.items() if isinstance(value, dict) else ():
        field = fields.get(key)
        if field is None:
            yield (*path, key), message.name
        elif field.message_type is not None:
            entries = enumerate(member) if isinstance(member, list) else [(None, member)]
            for number, entry in entries:
                below = (*path, key) if number is None else (*path, key, number)
                yield from unknown(field.message_type, entry, below)


def base64(value: Any) -> bytes:
    """Bytes of their base64. Raises ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{_kind(value)} instead of base64")
    standard = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except ValueError:
        raise ValueError(f"{value[:40]!r} is not base64") from None


_HOLDERS, _HELD = ("Resource", "Scope"), ("spans", "logs", "metrics")  # of what is neither a field nor to be ignored


def _message(message: Descriptor, special: Mapping[str, Read], known: dict[str, Read]) -> Read:
    own = special.get(message.name)
    if own is not None:
        return own
    if message.full_name in known:
        return known[message.full_name]
    fields: dict[str, tuple[str, Read]] = {}

    def read_message(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"{_kind(value)} instead of a {message.name}")
        read: dict[str, Any] = {}
        for key, member in value.items():
            field = fields.get(key)
            if field is not None and member is not None:
                read[field[0]] = field[1](member)
            elif field is None and member and message.name.startswith(_HOLDERS) and key.lower().endswith(_HELD):
                raise ValueError(f"{key} in {message.name}: not a name of OTLP 1.0, what is in it would be lost")
        return read

    known[message.full_name] = read_message  # before its fields: AnyValue holds AnyValues
    for field in message.fields:
        kind = field.message_type
        own = special.get(f"{message.name}.{field.name}")
        one = own or (_message(kind, special, known) if kind is not None else _scalar(field))
        entry = field.name, _list(field.name, one) if field.is_repeated else one
        fields[field.name] = fields[field.json_name] = entry
    return read_message


def _list(name: str, one: Read) -> Read:
    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError(f"{name}: {_kind(value)} instead of an array")
        return [one(entry) for entry in value]

    return read_list


def _scalar(field: FieldDescriptor) -> Read:
    name, kind = field.name, field.type
    if kind in _INTEGERS:
        return _integer(name, *_INTEGERS[kind])
    if field.enum_type is not None:
        return _enum(name, field.enum_type)
    return {
        FieldDescriptor.TYPE_STRING: _plain(name, str),
        FieldDescriptor.TYPE_BOOL: _plain(name, bool),
        FieldDescriptor.TYPE_BYTES: base64,
        FieldDescriptor.TYPE_DOUBLE: _double(name),
    }[kind]


def _plain(name: str, kind: type) -> Read:
    def read_plain(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{name}: {_kind(value)} instead of a {kind.__name__}")
        return value

    return read_plain


def _integer(name: str, bits: int, signed: bool) -> Read:
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def read_integer(value: Any) -> int:
        number = value
        if type(value) is str or (type(value) is float and value.is_integer()):  # 1e9, as protobuf allows
            number = int(value)
        elif type(value) is not int:
            raise TypeError(f"{name}: {_kind(value)} instead of an integer")
        if not lowest <= number <= highest:
            raise ValueError(f"{name}: {number} is out of range")
        return int(number)

    return read_integer


def _enum(name: str, enum: EnumDescriptor) -> Read:
    numbers = {value.name: value.number for value in enum.values}
    integer = _integer(name, 32, True)

    def read_enum(value: Any) -> int:
        if type(value) is not str:
            return int(integer(value))
        if value not in numbers:
            raise ValueError(f"{name}: {value[:40]!r} is not one of {enum.name}")
        return numbers[value]

    return read_enum


def _double(name: str) -> Read:
    def read_double(value: Any) -> float:
        if type(value) is str:
            special = _SPECIAL_FLOATS.get(value)
            return float(value) if special is None else special
        if type(value) is not float and type(value) is not int:
            raise TypeError(f"{name}: {_kind(value)} instead of a number")
        return float(value)

    return read_double


def _kind(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
