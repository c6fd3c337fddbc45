"""The key of a trace in words: the values that its hash stands for (processors.sampling.features)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

from processors.sampling.features import SPAN_NAME, SPAN_STATUS, STATUSES, Feature, feature
from processors.sampling.predicates import text_of
from schemas.envelope import Envelope
from schemas.otlp_scan import (
    ATTRIBUTES,
    NAME,
    PARENT_SPAN_ID,
    STATUS,
    AttributeValue,
    SpanColumns,
    attribute_value,
    resource_attributes,
)

FAILED = 2

KeyText = tuple[tuple[str, tuple[str, ...]], ...]
"""Each field of a key with its distinct values in order; a value of several parts has a space between them."""


def key_text(
    names: Sequence[str], keys: Mapping[bytes, int], envelopes: Iterable[Envelope]
) -> Generator[None, None, KeyText]:
    """What the fields of a `field_list` have in a trace's spans; `keys` are the slots of at least their attributes.

    A step is one envelope; there is none without `names`.
    """
    found: dict[str, set[str]] = {name: set() for name in names}
    for envelope in envelopes if names else ():
        columns = SpanColumns(dict(keys))
        columns.scan(envelope.body, envelope.ends, envelope.starts)
        resources = [resource_attributes(header, keys) for header in envelope.resources]
        for row in range(columns.rows):
            resource = resources[envelope.resource[row]]
            for name in names:
                if text := _text(feature(name), keys, columns, row, resource):
                    found[name].add(text)
        yield
    return tuple((name, tuple(sorted(values))) for name, values in found.items())


def _text(
    one: Feature, keys: Mapping[bytes, int], columns: SpanColumns, row: int, resource: Sequence[AttributeValue | None]
) -> str:
    """The value of a feature, "" where this span has none."""
    at = row * columns.width
    cells = columns.cells
    root = not any(columns.data[cells[at + PARENT_SPAN_ID] : cells[at + PARENT_SPAN_ID + 1]])
    failed = cells[at + STATUS] == FAILED
    if (one.spans == "roots" and not root) or (one.spans == "failed" and not failed):
        return ""
    texts = []
    for part in one.parts:
        if part == SPAN_STATUS:
            texts.append(STATUSES.get(int(cells[at + STATUS]), str(cells[at + STATUS])))
        elif part == SPAN_NAME:
            texts.append(columns.data[cells[at + NAME] : cells[at + NAME + 1]].decode(errors="replace"))
        else:
            slot = keys[part.encode()]
            begin, end = (cells[at + ATTRIBUTES + 2 * slot + side] for side in (0, 1))
            value = attribute_value(columns.data, begin, end) if begin < end else None
            value = resource[slot] if value is None else value
            texts.append("" if value is None else value.hex() if isinstance(value, bytes) else text_of(value))
    return " ".join(filter(None, texts))
