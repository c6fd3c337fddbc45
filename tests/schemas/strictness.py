"""Where the scanner refuses what protobuf parses."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from schemas.ids import trace_key


def parsed_or_none(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def has_wrong_wire_type(parsed: Any, known: int) -> bool:
    """A known field (1 to `known`) landed among the unknown ones, which protobuf does with a wrong wire type."""
    unknown: Any = UnknownFieldSet(parsed)
    return any(field.field_number <= known for field in unknown)


def parts_of(data: Any, resources: str, scopes: str, rows: str) -> list[tuple[Any, Any, Any]]:
    """(Resource…, Scope…, row) of every row in wire order; the names are those of the fields of either signal."""
    return [
        (part, scope, row)
        for part in getattr(data, resources)
        for scope in getattr(part, scopes)
        for row in getattr(scope, rows)
    ]


def is_stricter(data: Any, resources: str, scopes: str) -> bool:
    """The scanner's one rule beyond protobuf's."""
    return has_wrong_wire_type(data, 1) or any(
        has_wrong_wire_type(part, 3) or any(has_wrong_wire_type(scope, 3) for scope in getattr(part, scopes))
        for part in getattr(data, resources)
    )


def has_id(found: bytes, size: int) -> bool:
    return len(found) == size and any(found)


def key_of(row: Any, is_span: bool) -> int:
    """0 for a row that goes nowhere, or to no trace."""
    named = has_id(row.trace_id, 16) and (not is_span or has_id(row.span_id, 8))
    return trace_key(row.trace_id) if named else 0
