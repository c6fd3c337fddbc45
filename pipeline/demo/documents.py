"""Log documents as the Elasticsearch sink writes them, read back: nested objects and dotted keys alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.demo.facts import UID
from pipeline.demo.ledger import Document


def look(source: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, however its parts are split into objects; None if there is none.

    >>> look({"attributes": {"log.record.uid": "7"}}, "attributes.log.record.uid")
    '7'
    """
    if path in source:
        return source[path]
    for cut in range(len(path) - 1, 0, -1):
        if path[cut] == "." and isinstance(inner := source.get(path[:cut]), Mapping):
            found = look(inner, path[cut + 1 :])
            if found is not None:
                return found
    return None


def uid(source: Mapping[str, Any]) -> str:
    """The identity of a log; documents of foreign logs share the empty one."""
    return str(look(source, f"attributes.{UID}") or "")


def document(source: Mapping[str, Any]) -> Document:
    """What the ledger compares."""
    return Document(
        trace_id=bytes.fromhex(look(source, "trace_id") or ""),
        sampled=look(source, "trace.sampled"),
        service=str(look(source, "service.name") or look(source, "resource.attributes.service.name") or ""),
        span_name=str(look(source, "span.name") or ""),
    )
