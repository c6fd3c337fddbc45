"""What is read once more, without Kafka."""

from __future__ import annotations

from pipeline.operating.history import History
from tests.pipeline.configs import config_for


async def test_a_feed_whose_next_records_have_not_been_fetched_is_not_silent() -> None:
    """Its clock would run ahead of records that are there."""
    history = History(config_for("nowhere:1"), 0, {})
    spans, logs = history.feeds
    spans.between(0, 10)
    logs.between(0, 0)
    assert history.silent(100) == [logs.name]
    spans.buffer.append((0, 200, b""))
    assert history.silent(100) == [spans.name, logs.name]
    assert history.silent(200) == [logs.name]
    spans.buffer.clear()
    spans.position = 10
    assert history.silent(200) == [spans.name, logs.name]
