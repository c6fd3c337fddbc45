"""Where bench.hops says that the time goes."""

from __future__ import annotations

from pathlib import Path

from bench.stages import Append, Stages, ingested, request_rows, requests, sampled, stage_rows, sunk
from bench.stamped import STEPS, Stamps, find

RAW, SPANS, KEPT, LOGS = ("raw", 1), ("t.spans", 0), ("t.kept.spans", 0), ("t.untraced.logs", 1)


def test_the_slowest_hundredth_is_told_apart() -> None:
    stages = Stages(["waits", "works"])
    stages.add([1000, 1010, 1012], 198)
    stages.add([1000, 1100, 1200], 1)
    stages.add([1000, 1020, 1300], 1)
    assert stages.figures() == [
        {"stage": "waits", "mean": 10.5, "slowest": 60.0},
        {"stage": "works", "mean": 3.9, "slowest": 190.0},
    ]
    assert stage_rows({"hop": stages.figures()})[0] == ["hop", "14", "250"]
    assert Stages(["waits"]).figures() == [{"stage": "waits", "mean": 0.0, "slowest": 0.0}]


def test_a_batch_is_found_by_any_of_its_records() -> None:
    rows: list[tuple[float, ...]] = [(4.0, 1.0), (9.0, 2.0)]
    assert [find(rows, offset) for offset in (0, 4, 5, 9, 10)] == [rows[0], rows[0], rows[1], rows[1], None]


def test_a_way_is_put_together_from_the_stamps_of_the_workers(tmp_path: Path) -> None:
    ingest, sample, sink = Stamps(), Stamps(), Stamps()
    ingest.fetched[RAW].append((7, 105, 106, 108))
    ingest.written[SPANS].append((3, 150, 160, 170))
    ingest.written[LOGS].append((5, 150, 160, 170))
    sample.fetched[SPANS].append((3, 180, 181, 185))
    sample.written[KEPT].append((9, 200, 210, 220))
    sink.fetched[LOGS].append((6, 175, 176, 177))
    sink.sent[RAW] += [(6, 0, 5, 1, 2, 3), (6, LOGS[1], 5, 178, 190, 195)]
    ingest.save(tmp_path / "stamps")
    ingest = Stamps.load(tmp_path / "stamps")
    raw, marked = Append(100, RAW, 6), Append(160, SPANS, 3)
    assert ingested(ingest, raw, marked) == [100, 105, 108, 150, 160]
    assert ingested(ingest, raw, Append(160, SPANS, 2)) is None
    due, kept = Append(140, SPANS, 2), Append(210, KEPT, 9)
    assert sampled(ingest, sample, due, marked, kept) == [140, 160, 170, 180, 185, 200, 210]
    assert sunk(ingest, sink, RAW, 6, Append(160, LOGS, 5)) == [160, 170, 175, 178, 190, 195]
    assert sunk(ingest, sink, RAW, 7, Append(160, LOGS, 5)) is None


def test_requests_that_had_to_be_asked_again_are_counted() -> None:
    stamps = Stamps()
    first = next(iter(STEPS))
    stamps.steps[first] += [(1000, 5, 0), (1500, 7, 1), (1990, 6, 0), (2000, 100, 1)]
    (told,) = requests(stamps, 1000, 2000)
    assert told == {"request": first, "rate": 3.0, "again": 1, "p50": 6, "p99": 7}
    assert request_rows({"ingest": [told]}) == [[f"ingest: {first}", "3", "1", "6.0", "7.0"]]
