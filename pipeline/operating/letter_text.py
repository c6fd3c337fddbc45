"""The bytes of a dead letter for a reader: OTLP as JSON, text as it is, anything else as a hex dump."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

KINDS: dict[str, type[Message]] = {"traces": TracesData, "logs": LogsData, "metrics": MetricsData}
DUMPED_BYTES = 4096  # of what is neither OTLP nor text
ROW = 16


def readable(value: bytes, signal: str | None = None) -> str:
    """Never raises, and holds no control characters but line ends. `signal`: what OTLP in it is, if that is known.

    >>> print(readable(b"\\x00abc"))
    00000000  00 61 62 63                                      .abc
    """
    for kind in KINDS.values() if signal is None else (KINDS[signal],):
        if (text := _otlp(kind(), value)) is not None:
            return text
    try:
        return _text(value.decode())
    except UnicodeDecodeError:
        return _dump(value)


def _otlp(message: Message, value: bytes) -> str | None:
    """As JSON if these are its bytes and nothing else: any of the three takes the others for unknown fields."""
    try:
        message.MergeFromString(value)
    except DecodeError:
        return None
    known = value and message.ListFields()
    if not known or len(message.SerializeToString()) != len(value):
        return None
    message.DiscardUnknownFields()
    whole = message.ByteSize() == len(value)
    return MessageToJson(message, ensure_ascii=False) if whole else None


def _text(text: str) -> str:
    if all(c.isprintable() or c in "\n\t" for c in text):
        return text
    raise UnicodeDecodeError("utf-8", b"", 0, 1, "control characters")


def _dump(value: bytes) -> str:
    rows = [
        f"{at:08x}  {value[at : at + ROW].hex(' '):47}  {''.join(_shown(b) for b in value[at : at + ROW])}"
        for at in range(0, min(len(value), DUMPED_BYTES), ROW)
    ]
    if len(value) > DUMPED_BYTES:
        rows.append(f"... {len(value) - DUMPED_BYTES} bytes more")
    return "\n".join(rows)


def _shown(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else "."
