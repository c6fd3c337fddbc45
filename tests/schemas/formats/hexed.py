"""OTLP/JSON as the protocol has it, made of what protobuf writes."""

from __future__ import annotations

import base64
from typing import Any

IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}


def hexed(value: Any, key: str = "") -> Any:
    """protobuf's JSON with OTLP's ids."""
    if isinstance(value, dict):
        return {name: hexed(member, name) for name, member in value.items()}
    if isinstance(value, list):
        return [hexed(entry) for entry in value]
    return base64.b64decode(value).hex() if key in IDS else value
