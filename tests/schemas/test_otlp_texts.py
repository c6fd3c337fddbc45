"""Texts of OTLP exchanged: nothing else changes, whatever protobuf allows on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.redaction import Redaction, Redactor
from schemas.errors import Malformed
from schemas.otlp_check import LogsData, TracesData
from schemas.otlp_texts import KINDS, MAX_DEPTH
from tests.processors.redacting import redacted
from tests.schemas import otlp_wire
from tests.schemas.otlp_wire import data_of, mutated

# The texts of otlp_wire: http.route, error, k, runs of x.
SETTINGS = [
    {"allow_all_keys": True, "blocked_values": ["err", "x{100}"]},
    {"allow_all_keys": True, "blocked_values": ["^err", "route$"], "redact_all_types": True},
    {"allow_all_keys": True, "blocked_values": ["[0-9]{3}", "k"], "redact_all_types": True, "ignored_keys": ["error"]},
    {"allowed_keys": ["http.route", "k"], "blocked_key_patterns": ["^k$"], "blocked_values": ["http"]},
    {"allow_all_keys": True, "blocked_key_patterns": ["route"]},
]
SIGNALS = {"traces": (TracesData, data_of(otlp_wire.SPANS)), "logs": (LogsData, data_of(otlp_wire.LOG_RECORDS))}


def parsed(kind: Any, data: bytes) -> Any:
    """What protobuf reads, None for nothing."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def assert_as_said(data: bytes, signal: str, keys: dict[str, Any]) -> None:
    kind = SIGNALS[signal][0]
    whole = parsed(kind, data)
    if whole is None:
        return
    redactor = Redactor(Redaction.model_validate(keys))
    found = redactor.message(data, signal)
    changed = redactor.take()
    said = redacted(whole, redactor, keys.get("redact_all_types", False))
    result = parsed(kind, found)
    assert result is not None
    result.DiscardUnknownFields()
    assert result.SerializeToString(deterministic=True) == said.SerializeToString(deterministic=True)
    if found is data:
        assert not changed


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), keys=st.sampled_from(SETTINGS))
def test_as_protobuf_says(signal: str, data: st.DataObject, keys: dict[str, Any]) -> None:
    assert_as_said(data.draw(SIGNALS[signal][1]), signal, keys)


@pytest.mark.parametrize("signal", SIGNALS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), keys=st.sampled_from(SETTINGS))
def test_damaged_messages_are_read_or_malformed(signal: str, data: st.DataObject, keys: dict[str, Any]) -> None:
    """What protobuf reads is redacted; of anything else there is an end and no other error than Malformed."""
    damaged = data.draw(mutated(SIGNALS[signal][1]))
    assert_as_said(damaged, signal, keys)
    try:
        Redactor(Redaction.model_validate(keys)).message(damaged, signal)
    except Malformed:
        assert parsed(SIGNALS[signal][0], damaged) is None


def test_what_is_not_touched_is_the_same_object() -> None:
    data = TracesData().SerializeToString() + b"\x0a\x00"
    redactor = Redactor(Redaction(allow_all_keys=True, blocked_values=["secret"]))
    assert redactor.message(data, "traces") is data


def test_an_unknown_field_with_a_match_is_left_out() -> None:
    unknown = otlp_wire.varint(1000 << 3 | 2) + b"\x06secret"
    fine = otlp_wire.varint(1001 << 3 | 2) + b"\x04fine"
    span = b"\x2a\x01n" + unknown + fine
    redactor = Redactor(Redaction(allow_all_keys=True, blocked_values=["secret"]))
    assert redactor.part(span, "trace.v1.Span") == b"\x2a\x01n" + fine


def test_messages_that_nest_too_deeply_are_malformed() -> None:
    value = b"\x0a\x06secret"
    for _ in range(MAX_DEPTH):
        value = (
            b"\x2a"
            + otlp_wire.varint(len(value) + 1 + len(otlp_wire.varint(len(value))))
            + (b"\x0a" + otlp_wire.varint(len(value)) + value)
        )
    redactor = Redactor(Redaction(allow_all_keys=True, blocked_values=["secret"]))
    with pytest.raises(Malformed, match="too deeply"):
        redactor.part(b"\x2a" + otlp_wire.varint(len(value)) + value, "logs.v1.LogRecord")


def test_every_message_of_the_three_signals_is_known() -> None:
    assert {"trace.v1.Span", "logs.v1.LogRecord", "metrics.v1.Exemplar", "common.v1.KeyValueList"} <= KINDS.keys()
