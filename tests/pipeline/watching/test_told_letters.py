"""What a worker's log says of dead letters."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from pipeline import telemetry
from pipeline.watching import told_letters
from pipeline.watching.told_letters import TELL_EVERY, ToldLetters
from schemas.dead_letter import DeadLetter


def letter(offset: int, reason: str = "malformed", topic: str = "otlp_spans") -> DeadLetter:
    return DeadLetter(b"s3cret", topic, 3, offset, 0, 1, "ingest", reason, "near s3cret")


def test_the_first_of_a_kind_is_told_then_how_many_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 1_000.0
    told = ToldLetters(lambda: now)
    caplog.set_level(logging.WARNING, told_letters.__name__)  # a demo in this process may have silenced it

    def lines() -> list[tuple[str, str, int, str]]:
        found = [(r.topic, r.reason, r.letters, r.record) for r in caplog.records]  # type: ignore[attr-defined]
        assert "s3cret" not in str([vars(record) for record in caplog.records])
        caplog.clear()
        return found

    told.tell([letter(7), letter(8)])
    assert lines() == [("otlp_spans", "malformed", 2, "otlp_spans/3/7/1")]
    told.tell([letter(9), letter(10, "too_large"), letter(11, topic="otlp_logs")])
    assert lines() == [
        ("otlp_spans", "too_large", 1, "otlp_spans/3/10/1"),
        ("otlp_logs", "malformed", 1, "otlp_logs/3/11/1"),
    ]
    now += TELL_EVERY
    told.tell([])
    assert lines() == []
    told.tell([letter(12)])
    assert lines() == [("otlp_spans", "malformed", 2, "otlp_spans/3/12/1")]


def test_each_letter_is_counted_under_its_stage_and_reason_told_or_not() -> None:
    def counted(stage: str, reason: str) -> float:
        labels = {"stage": stage, "reason": reason}
        return telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) or 0.0

    told, kinds = ToldLetters(lambda: 0.0), [("sample", "malformed"), ("sample", "too_large"), ("ingest", "malformed")]
    before = [counted(*kind) for kind in kinds]
    for topic in ("otlp_spans", "otlp_logs"):
        found = [replace(letter(n, topic=topic), stage="sample") for n in range(7)]
        told.tell([*found, replace(found[0], reason="too_large")])
    assert [counted(*kind) - was for kind, was in zip(kinds, before, strict=True)] == [14, 2, 0]
