"""A record of each internal format."""

from __future__ import annotations

from array import array

from schemas.decision import DROPPED, Checkpoint, DecisionRecord, Enrichment, Verdict
from schemas.point import HistogramValue, PointBatch, Shape
from schemas.sample import SeriesBlock, Tick

DECISION_RECORD = DecisionRecord(
    12,
    array("Q", [258, (1 << 64) - 1]),
    array("q", [1_700_000_000_123, -1]),
    [
        Verdict(
            kept=True,
            policy="errors",
            threshold=1 << 55,
            root=Enrichment("cart", "GET /cart", 2),
            spans={b"12345678": Enrichment("cart", "größe", 0)},
        ),
        DROPPED,
    ],
    Checkpoint(
        tails={"tailrace.spans": 7, "tailrace.logs": 0},
        counted={"tailrace.spans": 9},
        marks={("otlp_spans", 3): (1_700_000_000_123, 1_700_000_000_200)},
        raw_topics={"otlp_spans": 4},
        policy_version="5f1d",
        full=True,
    ),
)


POINTS = PointBatch(
    "traces_span_metrics_duration_milliseconds",
    Shape("histogram", ("service_name", "span_name", "span_kind", "status_code", "tenant"), (2.0, 10.5), 4),
    1_700_000_000_123,
    [
        (("cart", "GET /cart", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET", ""), HistogramValue(3, 21.25, (1, 1, 1))),
        (("cart", "größe", "SPAN_KIND_CLIENT", "STATUS_CODE_ERROR", "a"), HistogramValue(1, 0.0, (1, 0, 0))),
    ],
)


TICK = Tick(
    7,
    1_700_000_015_000,
    4711,
    4,
    [
        SeriesBlock(
            "traces_span_metrics_calls_total",
            Shape("counter", ("service_name", "tenant"), (), 1),
            [(("cart", "a"), 12), (("cart", "__overflow__"), 3.5)],
            [("gone", "")],
        ),
        SeriesBlock(
            "traces_span_metrics_duration_milliseconds",
            Shape("histogram", ("service_name",), (2.0, 10.5), 1),
            [(("größe",), HistogramValue(3, 21.25, (1, 1, 1)))],
        ),
    ],
)
