"""Counters that are there before anything happened; the main job checks that no others appear (tests/end_to_end)."""

from __future__ import annotations

from pipeline import telemetry
from pipeline.config import Config
from pipeline.roles import diagram
from pipeline.telemetry import METRICS
from pipeline.watching import zeros
from tests.pipeline.configs import MINIMAL

CONFIG = Config.model_validate(
    MINIMAL
    | {
        "inputs": [{"topic": "otlp_spans", "signal": "traces"}, {"topic": "otlp_logs", "signal": "logs"}],
        "sinks": {"jaeger/eu": {"endpoint": "http://jaeger:4318"}},
    }
)
ROLES = [role.name for role in diagram(CONFIG)]


def test_labels_are_those_of_the_metric_and_each_set_is_there_once() -> None:
    metrics = {metric.name: metric for metric in METRICS}
    found = list(zeros.zeros(CONFIG, ROLES))
    for name, labels in found:
        assert metrics[name].kind == "counter"
        assert tuple(labels) == metrics[name].labels
    assert len({(name, *labels.items()) for name, labels in found}) == len(found)


def test_a_worker_tells_the_counters_of_its_roles_and_no_others() -> None:
    found = list(zeros.zeros(CONFIG, ["sink.jaeger/eu"]))
    stages = {labels["stage"] for _, labels in found if "stage" in labels}
    assert stages == {"sink.jaeger/eu"}
    assert ("tailrace_sink_retries_total", {"sink": "jaeger/eu", "reason": "dead_letters"}) in found
    assert not [name for name, _ in zeros.zeros(CONFIG, ["aggregate"]) if "policy" in name]


def test_the_first_event_is_an_increase() -> None:
    """And what was counted already stays."""
    labels = {"stage": "ingest", "reason": "no_span_id"}
    zeros.begin(CONFIG, ["ingest"])
    before = telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels)
    assert before is not None
    telemetry.count("tailrace_dead_letters_total", 3, **labels)
    zeros.begin(CONFIG, ["ingest"])
    assert telemetry.REGISTRY.get_sample_value("tailrace_dead_letters_total", labels) == before + 3
