"""What the load is made of: traces of a shop of ten services, encoded once and used many times.

A `Shape` is a whole trace without its ids and times: bytes before and after each of them, so that making a span is
joining slices (about 300 bytes a span, 230 of them fixed by the shape). Shapes differ in size, services, attributes,
errors and durations; a pool of them is large enough that a batch compresses like real traffic and not like a copy.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

MS = 1_000_000  # nanoseconds
SERVICES = (
    "frontend",
    "cart",
    "checkout",
    "payment",
    "shipping",
    "catalog",
    "recommendation",
    "currency",
    "email",
    "inventory",
)
PODS_PER_SERVICE = 3
PODS = len(SERVICES) * PODS_PER_SERVICE
ROUTES = ("/api/products/{id}", "/api/cart", "/api/checkout", "/api/orders/{id}", "/api/search", "/api/quote")
TABLES = ("products", "carts", "orders", "payments", "stock", "rates")
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0",
    "shop-android/8.2.1",
    "okhttp/4.12.0",
)

ERROR_EVERY = 50  # one shape in 50 has an error (2 % of the traces)
SLOW_EVERY = 64  # one in 64 takes longer than SLOW_NS
SLOW_NS = 600 * MS
LARGE = 100  # spans; those of a larger trace are shorter by as much, so that it closes within a second as well
LOG_SEVERITIES = (
    ("INFO", SeverityNumber.SEVERITY_NUMBER_INFO, 0.86),
    ("WARN", SeverityNumber.SEVERITY_NUMBER_WARN, 0.13),
    ("ERROR", SeverityNumber.SEVERITY_NUMBER_ERROR, 0.01),
)


class ShapeSpan(NamedTuple):
    """One span: `head` is name and kind, `tail` attributes, events and status; times are ns after the trace's start."""

    parent: int
    service: int
    head: bytes
    tail: bytes
    start: int
    end: int


class ShapeLog(NamedTuple):
    """One log record of a span, written when the span ends: `middle` is severity, body and attributes."""

    span: int
    middle: bytes


class Shape(NamedTuple):
    """Spans, parents first, and the logs that belong to them."""

    spans: tuple[ShapeSpan, ...]
    logs: tuple[ShapeLog, ...]


def shapes(
    random: Random, count: int, spans_per_trace: int, logs_per_span: float, more_attributes: int = 0
) -> list[Shape]:
    """A pool of `count` shapes with `spans_per_trace` spans on average, between a third of it and three times it.

    Each span has its four to seven attributes, and `more_attributes`.
    """
    return [
        _shape(random, number, _size(random, spans_per_trace), logs_per_span, more_attributes)
        for number in range(count)
    ]


def headers() -> list[tuple[bytes, bytes]]:
    """For each pod the ResourceSpans/ResourceLogs and the ScopeSpans/ScopeLogs without their children."""
    return [_header(SERVICES[pod // PODS_PER_SERVICE], pod % PODS_PER_SERVICE) for pod in range(PODS)]


def _size(random: Random, mean: int) -> int:
    return max(1, round(mean * min(3.0, max(0.34, random.lognormvariate(-0.15, 0.6)))))


class _Node:
    """A span while its trace grows."""

    def __init__(
        self, parent: int, service: int, kind: Span.SpanKind.ValueType, name: str, attributes: dict[str, str | int]
    ) -> None:
        self.parent, self.service, self.kind, self.name, self.attributes = parent, service, kind, name, attributes
        self.own_ns = self.start = self.end = 0
        self.error = False


def _shape(random: Random, number: int, size: int, logs_per_span: float, more_attributes: int) -> Shape:
    nodes, servers = [_server(random, -1, 0)], [0]
    while len(nodes) < size:
        caller = random.choice(servers)
        if size - len(nodes) >= 2 and random.random() < 0.5:
            callee = random.randrange(1, len(SERVICES))
            nodes.append(_client(random, caller, nodes[caller].service, SERVICES[callee]))
            servers.append(len(nodes))
            nodes.append(_server(random, len(nodes) - 1, callee))
        else:
            nodes.append(_leaf(random, caller, nodes[caller].service))
    for node in nodes:
        node.own_ns = round(random.lognormvariate(0.9, 0.7) * MS * min(1.0, LARGE / size))
        for more in range(more_attributes):
            node.attributes[f"app.attribute.{more}"] = f"value {random.randrange(1_000)}"
    if number % SLOW_EVERY == SLOW_EVERY - 1:
        nodes[-1].own_ns = SLOW_NS + round(random.random() * 300 * MS)
    if number % ERROR_EVERY == ERROR_EVERY - 1:
        _fail(nodes, random.randrange(len(nodes)))
    _schedule(nodes)
    spans = tuple(ShapeSpan(n.parent, n.service, _head(n), _tail(n), n.start, n.end) for n in nodes)
    logs = tuple(ShapeLog(i, _log(random, n)) for i, n in enumerate(nodes) if random.random() < logs_per_span)
    return Shape(spans, logs)


def _server(random: Random, parent: int, service: int) -> _Node:
    route = random.choice(ROUTES)
    method = random.choice(("GET", "GET", "GET", "POST"))
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "url.path": route.replace("{id}", str(random.randrange(100_000))),
        "http.response.status_code": 200,
        "server.address": f"{SERVICES[service]}.shop.svc.cluster.local",
        "client.address": f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}",
        "user_agent.original": random.choice(AGENTS),
    }
    return _Node(parent, service, Span.SPAN_KIND_SERVER, f"{method} {route}", attributes)


def _client(random: Random, parent: int, service: int, callee: str) -> _Node:
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.service": f"shop.v1.{callee.title()}Service",
        "rpc.method": random.choice(("Get", "List", "Reserve", "Quote")),
        "rpc.grpc.status_code": 0,
        "server.address": f"{callee}.shop.svc.cluster.local",
        "server.port": 8080,
        "network.peer.address": f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}",
    }
    return _Node(parent, service, Span.SPAN_KIND_CLIENT, f"shop.v1.{callee.title()}Service/call", attributes)


def _leaf(random: Random, parent: int, service: int) -> _Node:
    if random.random() < 0.6:
        table = random.choice(TABLES)
        attributes: dict[str, str | int] = {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "db.collection.name": table,
            "db.query.text": f"SELECT id, name, amount, updated_at FROM {table} WHERE id = ? AND tenant = ? LIMIT ?",
            "server.address": f"postgres-{random.randrange(4)}.shop.svc.cluster.local",
            "db.response.returned_rows": random.randrange(100),
        }
        return _Node(parent, service, Span.SPAN_KIND_CLIENT, f"SELECT {table}", attributes)
    attributes = {
        "code.function.name": f"shop.{SERVICES[service]}.{random.choice(('render', 'validate', 'price', 'encode'))}",
        "app.customer.id": f"{random.getrandbits(48):012x}",
        "app.items": random.randrange(1, 30),
        "thread.name": f"worker-{random.randrange(64)}",
    }
    return _Node(parent, service, Span.SPAN_KIND_INTERNAL, str(attributes["code.function.name"]), attributes)


def _fail(nodes: list[_Node], index: int) -> None:
    """An error goes up to the root, as an unhandled one does."""
    while index >= 0:
        node = nodes[index]
        node.error = True
        if "http.response.status_code" in node.attributes:
            node.attributes["http.response.status_code"] = 500
        index = node.parent


def _schedule(nodes: list[_Node]) -> None:
    """Calls one after the other: a span lasts as long as its own work and its children's."""
    lasts = [node.own_ns for node in nodes]
    for index in range(len(nodes) - 1, 0, -1):
        lasts[nodes[index].parent] += lasts[index]
    begun = [node.own_ns // 2 for node in nodes]  # where a node's next child begins, after the node's start
    for index, node in enumerate(nodes):
        if index:
            parent = nodes[node.parent]
            node.start = parent.start + begun[node.parent]
            begun[node.parent] += lasts[index]
        node.end = node.start + lasts[index]


def _attributes(values: dict[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def _head(node: _Node) -> bytes:
    encoded: bytes = Span(name=node.name, kind=node.kind).SerializeToString()
    return encoded


def _tail(node: _Node) -> bytes:
    span = Span(attributes=_attributes(node.attributes))
    if node.error:
        exception: dict[str, str | int] = {"exception.type": "TimeoutError", "exception.message": "no answer in 2 s"}
        span.events.append(Span.Event(name="exception", attributes=_attributes(exception)))
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="no answer in 2 s"))
    encoded: bytes = span.SerializeToString()
    return encoded


def _log(random: Random, node: _Node) -> bytes:
    (text, number, _) = random.choices(LOG_SEVERITIES, [share for *_, share in LOG_SEVERITIES])[0]
    body = f"{node.name} took {node.own_ns // 1000} us, attempt {random.randrange(1, 4)}"
    values: dict[str, str | int] = {"logger.name": f"shop.{SERVICES[node.service]}", "thread.id": random.randrange(64)}
    record = LogRecord(
        severity_number=number, severity_text=text, body=AnyValue(string_value=body), attributes=_attributes(values)
    )
    encoded: bytes = record.SerializeToString()
    return encoded


def _header(service: str, pod: int) -> tuple[bytes, bytes]:
    values: dict[str, str | int] = {
        "service.name": service,
        "service.version": "2.14.0",
        "service.namespace": "shop",
        "deployment.environment.name": "production",
        "k8s.pod.name": f"{service}-7c9f6d5b8-{pod:05d}",
        "k8s.node.name": f"node-{pod}",
        "telemetry.sdk.language": "java",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.43.0",
    }
    resource: bytes = ResourceSpans(resource=Resource(attributes=_attributes(values))).SerializeToString()
    scope: bytes = ScopeSpans(
        scope=InstrumentationScope(name="io.opentelemetry.netty-4.1", version="2.9.0-alpha")
    ).SerializeToString()
    return resource, scope
