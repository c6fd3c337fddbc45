"""What redaction should do, said with protobuf's own objects: for tests to hold it against."""

from __future__ import annotations

from typing import Any

from processors.redaction import Redactor
from schemas.otlp_texts import IGNORE, MASK, REMOVE, REMOVE_OR_MASK

ATTRIBUTES = ("attributes", "filtered_attributes")


def redacted(message: Any, redactor: Redactor, numbers: bool = False) -> Any:
    """The message, changed in place; strings are bytes (schemas/otlp_check.py). Unknown fields are left out."""
    message.DiscardUnknownFields()
    _walk(message, redactor, numbers, body=False)
    return message


def _walk(message: Any, redactor: Redactor, numbers: bool, body: bool) -> None:
    name = message.DESCRIPTOR.name
    if name == "AnyValue" and numbers and message.WhichOneof("value") in ("int_value", "double_value"):
        value = getattr(message, message.WhichOneof("value"))
        text = (str(value) if isinstance(value, int) else repr(value)).encode()
        if (new := redactor.text(text)) != text:
            message.string_value = new
        return
    for field, value in message.ListFields():
        if field.name in ATTRIBUTES or (name, field.name) == ("KeyValueList", "values"):
            keys_count = body or field.name in ATTRIBUTES
            kept = [pair for pair in value if not keys_count or redactor.key(pair.key) not in (REMOVE, REMOVE_OR_MASK)]
            for pair in kept:
                _pair(pair, redactor, numbers, body)
            copies = [type(pair).FromString(pair.SerializeToString()) for pair in kept]
            del value[:]
            value.extend(copies)
        elif field.type == field.TYPE_MESSAGE:
            inside = body or (name, field.name) == ("LogRecord", "body")
            for one in value if field.is_repeated else [value]:
                _walk(one, redactor, numbers, inside)
        elif field.type == field.TYPE_BYTES and _is_text(name, field.name):
            if field.is_repeated:
                value[:] = [redactor.text(text) for text in value]
            else:
                setattr(message, field.name, redactor.text(value))


def _pair(pair: Any, redactor: Redactor, numbers: bool, body: bool) -> None:
    decided = redactor.key(pair.key)
    if decided == IGNORE:
        return
    if decided in (MASK, REMOVE_OR_MASK):  # of the latter only those that are inside a value are left
        key = redactor.text(pair.key)
        pair.Clear()  # of an index into a table of keys as well, which spans and logs have no use for
        pair.key, pair.value.string_value = key, b"****"
        return
    pair.key = redactor.text(pair.key)
    _walk(pair.value, redactor, numbers, body)


def _is_text(message: str, field: str) -> bool:
    """Of the fields that are bytes in schemas/otlp_check.py: not the ids."""
    return not field.endswith(("trace_id", "span_id"))
