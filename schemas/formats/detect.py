"""Which encoding a Kafka value has, by its first bytes: `encoding: auto`, for topics with mixed producers.

A guess, made anew for every message: name the encoding where there is one. The rules, in their order:

| First bytes | Traces | Logs | Metrics |
|---|---|---|---|
| `{` and then `"` or `}` | `otlp_json` if the name `resourceSpans` (`resource_spans`) is in it, else `jaeger_json` | `otlp_json` if the name `resourceLogs` is in it, else `json` | `otlp_json` |
| `[` and then `{`, `[` or `]` | with `{`: `jaeger_json`, which names Zipkin's | `json` | – |
| 0A 10 or 0A 08 (a trace id of 16 or 8 bytes), and behind it 12 08 (a span id) | `jaeger_proto` | – | – |
| 0A, a length, and then such a span | `jaeger_proto` (a Batch) | – | – |
| fields with tag 0A, one behind the other up to the very end, or 65,536 of them | `otlp_proto` | `otlp_proto` | `otlp_proto` |
| anything else | `otlp_proto`, which will not decode | `text` | `otlp_proto`, which will not decode |

A byte order mark and white space before JSON do not count. What is guessed wrong does not decode and goes to the
dead-letter queue as it is; known cases: logs in text that begin with `{"` count as JSON, and a text whose first line
is empty and whose lengths happen to add up counts as OTLP.
"""  # noqa: E501 (a table)

from __future__ import annotations

import re
from typing import Literal

Encoding = Literal["otlp_proto", "otlp_json", "jaeger_proto", "jaeger_json", "json", "text"]

_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*[\"}]")
_OBJECTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*[{\[\]]")
# The name, not the text in some value: a quote inside a JSON string has a backslash before it.
_RESOURCE_SPANS = re.compile(rb"\"resource(?:S|_s)pans\"\s*:")
_RESOURCE_LOGS = re.compile(rb"\"resource(?:L|_l)ogs\"\s*:")
_JAEGER_SPAN = re.compile(rb"\x0a(?:\x10.{16}|\x08.{8})\x12\x08", re.DOTALL)
_LENGTH = re.compile(rb"\x0a([\x80-\xff]{0,4}[\x00-\x7f])", re.DOTALL)
_MOST_FIELDS = 1 << 16  # are looked at: 16 MiB may be of 8 million, and a text is not framed that far by chance
_ATTRIBUTE_IN_RESOURCE = re.compile(rb"\x0a\x10\x0a\x0e\x0a", re.DOTALL)  # 16 bytes that are one attribute, not an id


def detect_traces(data: bytes) -> Encoding:
    """The encoding of a message with spans."""
    if _OBJECT.match(data):
        return "otlp_json" if _RESOURCE_SPANS.search(data) else "jaeger_json"
    if _OBJECTS.match(data):
        return "jaeger_json"
    if _JAEGER_SPAN.match(data):
        return "jaeger_proto"
    head = _LENGTH.match(data)
    if head and _JAEGER_SPAN.match(data, head.end()) and not _ATTRIBUTE_IN_RESOURCE.match(data, head.end()):
        return "jaeger_proto"
    return "otlp_proto"


def detect_logs(data: bytes) -> Encoding:
    """The encoding of a message with logs."""
    if _OBJECT.match(data):
        return "otlp_json" if _RESOURCE_LOGS.search(data) else "json"
    if _ARRAY.match(data):
        return "json"
    return "otlp_proto" if _is_framed(data) else "text"


def detect_metrics(data: bytes) -> Encoding:
    """The encoding of a message with metrics."""
    return "otlp_json" if _OBJECT.match(data) else "otlp_proto"


def _is_framed(data: bytes) -> bool:
    """Whether data is fields of tag 0A (field 1, length-delimited) from end to end: all that LogsData has."""
    pos = 0
    for _ in range(_MOST_FIELDS):
        head = _LENGTH.match(data, pos)
        if head is None:
            return False
        length = 0
        for place, byte in enumerate(head[1]):
            length |= (byte & 0x7F) << 7 * place
        pos = head.end() + length
        if pos >= len(data):
            return pos == len(data)
    return True
