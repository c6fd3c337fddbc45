"""The roles and their topics as a drawing: layers from left to right, an order in each that crosses few arrows.

Sugiyama's method as far as a dozen boxes need it: longest paths make the layers, an arrow over several layers gets a
place in each of them, medians of neighbours give the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.roles import Role

SWEEPS = 8  # over all layers; more change nothing at this size
STRAIGHT = 12.0  # how much more two parts of one arrow want the same height than its ends do


ROLE, TOPIC, PASSED = 1.0, 0.6, 0.4  # heights of a role, a topic, and what an arrow takes that passes them


@dataclass(frozen=True, slots=True)
class Node:
    """A box in `layer` (0, 1, … from the left), its middle at `y`: a role is 1 high."""

    name: str
    kind: str
    layer: int
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow. `via` are the heights at which it passes the layers between."""

    source: str
    target: str
    via: list[float]


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes and arrows within `layers` and `height`."""

    nodes: list[Node]
    edges: list[Edge]
    layers: int
    height: float


EMPTY = Graph([], [], 0, 0.0)


def drawing(roles: Sequence[Role]) -> Graph:
    """The graph of some roles; topics that none of them reads are left out."""
    read = {topic for role in roles for topic in role.reads}
    pairs = [(topic, role.name) for role in roles for topic in role.reads]
    pairs += [(role.name, topic) for role in roles for topic in role.writes if topic in read]
    layers = _layers(roles, pairs)
    columns, chains = _columns(layers, pairs)
    for sweep in range(SWEEPS):
        _sweep(columns, chains, forwards=sweep % 2 == 0)
    names = {role.name for role in roles}
    sizes = {
        item: ROLE if item in names else TOPIC if item in layers else PASSED for column in columns for item in column
    }
    y, height = _heights(columns, chains, sizes)
    nodes = [Node(name, "role" if name in names else "topic", layers[name], y[name]) for name in layers]
    edges = [
        Edge(source, target, [y[item] for item in chain[1:-1]])
        for (source, target), chain in zip(pairs, chains, strict=True)
    ]
    return Graph(nodes, edges, len(columns), height)


def _layers(roles: Sequence[Role], pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    layers = {name: 0 for pair in pairs for name in pair}
    for _ in layers:  # longest paths: as many rounds as there are nodes are enough
        for source, target in pairs:
            layers[target] = max(layers[target], layers[source] + 1)
    last = max(layers.values(), default=0)
    sources = {source for source, _ in pairs}
    ends = {role.name: last for role in roles if role.name in layers and role.name not in sources}
    return layers | ends  # what feeds destinations stands together


def _columns(layers: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> tuple[list[list[str]], list[list[str]]]:
    columns: list[list[str]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for name, layer in layers.items():
        columns[layer].append(name)
    chains = []
    for source, target in pairs:
        passed = [f"{source}\0{target}\0{layer}" for layer in range(layers[source] + 1, layers[target])]
        for layer, item in enumerate(passed, layers[source] + 1):
            columns[layer].append(item)
        chains.append([source, *passed, target])
    return columns, chains


def _sweep(columns: Sequence[list[str]], chains: Sequence[Sequence[str]], forwards: bool) -> None:
    """Put each layer in the order of the mean place of what its items are joined to in the layer before (after)."""
    for index in range(1, len(columns)) if forwards else range(len(columns) - 2, -1, -1):
        beside = columns[index - 1 if forwards else index + 1]
        at = {item: place / max(1, len(beside) - 1) for place, item in enumerate(beside)}
        joined: dict[str, list[float]] = {item: [] for item in columns[index]}
        for chain in chains:
            for one, other in pairwise(chain):
                here, there = (other, one) if forwards else (one, other)
                if here in joined and there in at:
                    joined[here].append(at[there])
        size = max(1, len(columns[index]) - 1)
        own = {item: place / size for place, item in enumerate(columns[index])}
        columns[index].sort(key=lambda item: sum(joined[item]) / len(joined[item]) if joined[item] else own[item])


def _heights(
    columns: Sequence[Sequence[str]], chains: Sequence[Sequence[str]], sizes: Mapping[str, float]
) -> tuple[dict[str, float], float]:
    """Everything as near as its order allows to the middle of what it is joined to, and how much height that takes."""
    height = max((sum(sizes[item] for item in column) for column in columns), default=0.0)
    joined: dict[str, list[str]] = {item: [] for item in sizes}
    for chain in chains:
        for one, other in pairwise(chain):
            joined[one].append(other)
            joined[other].append(one)
    y: dict[str, float] = {}
    for column in columns:  # at first: spread evenly
        for place, item in enumerate(column):
            y[item] = height * (place + 0.5) / len(column)
    for sweep in range(4 * SWEEPS):
        for column in columns if sweep % 2 else reversed(columns):
            wanted = [_middle(item, joined[item], sizes, y) for item in column]
            y.update(zip(column, _apart(wanted, [sizes[item] for item in column], height), strict=True))
    return y, height


def _middle(item: str, joined: Sequence[str], sizes: Mapping[str, float], y: Mapping[str, float]) -> float:
    """The mean height of what an item is joined to; a long arrow would rather be straight."""
    weights = [STRAIGHT if sizes[item] == sizes[other] == PASSED else 1.0 for other in joined]
    return sum(weight * y[other] for weight, other in zip(weights, joined, strict=True)) / max(1.0, sum(weights))


def _apart(wanted: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """In this order, without touching, within 0 and `height`: the mean of pushing down and of pushing up."""
    down, edge = [], 0.0
    for middle, size in zip(wanted, sizes, strict=True):
        down.append(max(middle, edge + size / 2))
        edge = down[-1] + size / 2
    up, edge = [], height
    for middle, size in zip(reversed(wanted), reversed(sizes), strict=True):
        up.append(min(middle, edge - size / 2))
        edge = up[-1] - size / 2
    found = [(a + b) / 2 for a, b in zip(down, reversed(up), strict=True)]
    # Pushing down may leave at the bottom, pushing up at the top; everything fits, so one more pass each mends it.
    edge = height
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], edge - sizes[index] / 2)
        edge = found[index] - sizes[index] / 2
    edge = 0.0
    for index, size in enumerate(sizes):
        found[index] = max(found[index], edge + size / 2)
        edge = found[index] + size / 2
    return found
