"""The drawing of the roles: left to right, nothing on top of anything, arrows that do not cross."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.live.graph import ROLE, TOPIC, Graph, drawing
from pipeline.roles import Role, diagram
from tests.pipeline.configs import MINIMAL

SINKS = {
    "jaeger": {"endpoint": "http://jaeger:4318"},
    "elasticsearch": {"endpoint": "http://elasticsearch:9200"},
    "prometheus": {"endpoint": "http://prometheus:9090/api/v1/write"},
}


def config(inputs: int = 3, **sinks: Any) -> Config:
    topics = [{"topic": f"raw-{n}", "signal": "logs" if n else "traces"} for n in range(inputs)]
    return Config.model_validate({**MINIMAL, "inputs": topics, "sinks": sinks or SINKS})


def assert_apart(graph: Graph) -> None:
    """No two boxes of a layer touch, and all are inside."""
    for layer in range(graph.layers):
        column = sorted((node for node in graph.nodes if node.layer == layer), key=lambda node: node.y)
        tall = [ROLE if node.kind == "role" else TOPIC for node in column]
        for (upper, above), (lower, below) in itertools.pairwise(zip(column, tall, strict=True)):
            assert lower.y - upper.y >= (above + below) / 2 - 1e-9
        if column:
            assert column[0].y >= tall[0] / 2 - 1e-9
            assert column[-1].y <= graph.height - tall[-1] / 2 + 1e-9


def test_every_role_and_every_topic_that_is_read_has_a_box() -> None:
    settings = config()
    roles = diagram(settings)
    graph = drawing(roles)
    assert {node.name for node in graph.nodes if node.kind == "role"} == {role.name for role in roles}
    assert {node.name for node in graph.nodes if node.kind == "topic"} == {t for role in roles for t in role.reads}
    layers = {node.name: node.layer for node in graph.nodes}
    for edge in graph.edges:
        assert layers[edge.source] < layers[edge.target]
        assert len(edge.via) == layers[edge.target] - layers[edge.source] - 1
    assert {layers[f"sink.{name}"] for name in SINKS} == {graph.layers - 1}
    assert_apart(graph)


DIRECT = Config.model_validate(config(2).model_dump(by_alias=True, exclude_unset=True) | {"regroup": "never"})


@pytest.mark.parametrize("settings", [config(), config(2), DIRECT], ids=["three inputs", "two inputs", "direct"])
def test_arrows_of_the_usual_pipelines_do_not_cross(settings: Config) -> None:
    graph = drawing(diagram(settings))
    assert_apart(graph)
    at = {node.name: node for node in graph.nodes}
    segments: dict[int, list[tuple[float, float]]] = {}
    for edge in graph.edges:
        first = at[edge.source].layer
        heights = [at[edge.source].y, *edge.via, at[edge.target].y]
        for n, pair in enumerate(itertools.pairwise(heights)):
            segments.setdefault(first + n, []).append(pair)
    for layer in segments.values():
        for (a, b), (c, d) in itertools.combinations(layer, 2):
            assert (a - c) * (b - d) >= -1e-9, layer


@given(st.integers(1, 6), st.integers(0, 5))
def test_any_number_of_inputs_and_sinks_fits(inputs: int, more: int) -> None:
    sinks = SINKS | {f"jaeger/{n}": SINKS["jaeger"] for n in range(more)}
    assert_apart(drawing(diagram(config(inputs, **sinks))))


def test_nothing_is_a_graph_too() -> None:
    assert drawing([]).nodes == []
    assert drawing([Role("lonely", (), ("dead.end",))]).nodes == []
