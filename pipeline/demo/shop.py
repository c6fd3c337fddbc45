"""A shop as data: eleven services, what each does for a request and whom it calls.

The proportions are those of a small web shop: mostly browsing, a few orders, a health check that nobody looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.demo.facts import CLIENT, CONSUMER, INTERNAL, SERVER, Value

CUSTOMER = "customer.id"
"""The attribute whose values explode: a new one for nearly every request, and a configured metric dimension."""

TIER = "customer.tier"


@dataclass(frozen=True, slots=True)
class Operation:
    """One span of work in `service`: `ms` is the median of its own time, without its steps.

    `customer` says that the span carries the customer's id.
    """

    service: str
    name: str
    kind: int
    ms: float
    steps: tuple[Step, ...] = ()
    attributes: dict[str, Value] = field(default_factory=dict)
    customer: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Part of an operation.

    `local` is a span in the same service; `call` adds the caller's CLIENT span around it; `publish` adds the
    caller's PRODUCER span, and the operation begins after the queue's delay, when the caller may be done already.
    `share` is how often it happens (0–1); a step `beside` the one before it begins together with that.
    """

    operation: Operation
    how: Literal["local", "call", "publish"] = "call"
    share: float = 1.0
    beside: bool = False


def _server(service: str, method: str, route: str, ms: float, *steps: Step, customer: bool = False) -> Operation:
    attributes: dict[str, Value] = {"http.request.method": method, "http.route": route, "server.address": service}
    return Operation(service, f"{method} {route}", SERVER, ms, steps, attributes, customer)


def _rpc(service: str, method: str, ms: float, *steps: Step, customer: bool = False) -> Operation:
    rpc, name = method.split("/")
    attributes: dict[str, Value] = {"rpc.system": "grpc", "rpc.service": rpc, "rpc.method": name}
    return Operation(service, method, SERVER, ms, steps, attributes, customer)


def _database(service: str, system: str, statement: str, ms: float, share: float = 1.0) -> Step:
    name = " ".join(statement.split()[:1])
    attributes: dict[str, Value] = {
        "db.system.name": system, "db.query.text": statement, "db.operation.name": name,
        "server.address": f"{service}-{system}",
    }  # fmt: skip
    return Step(Operation(service, f"{name} {service}", CLIENT, ms, (), attributes), "local", share)


def _inside(service: str, name: str, ms: float, share: float = 1.0) -> Step:
    return Step(Operation(service, name, INTERNAL, ms), "local", share)


def _consumer(service: str, topic: str, ms: float, *steps: Step) -> Operation:
    attributes: dict[str, Value] = {"messaging.system": "kafka", "messaging.destination.name": topic}
    return Operation(service, f"process {topic}", CONSUMER, ms, steps, attributes)


_reserve = _rpc("inventory", "Inventory/Reserve", 4, _database("inventory", "postgresql", "UPDATE stock SET …", 6))
_stock = _rpc("inventory", "Inventory/Stock", 2, _database("inventory", "postgresql", "SELECT count FROM stock", 3))
_session = _rpc("auth", "Auth/Session", 2, _database("auth", "redis", "GET session", 1))
_recommend = _rpc("recommendation", "Recommendation/For", 12, _inside("recommendation", "rank", 15, 0.5))
_featured = _rpc(
    "catalog", "Catalog/Featured", 4, _database("catalog", "redis", "MGET featured", 1),
    _database("catalog", "postgresql", "SELECT * FROM products", 9, share=0.2),
)  # fmt: skip
_product = _rpc(
    "catalog", "Catalog/Product", 3, _database("catalog", "redis", "GET product", 1),
    _database("catalog", "postgresql", "SELECT * FROM product", 7, share=0.3),
)  # fmt: skip
_cart = _rpc("cart", "Cart/Get", 2, _database("cart", "redis", "HGETALL cart", 1), customer=True)
_provider: dict[str, Value] = {"http.request.method": "POST", "server.address": "psp.example"}
_charge = _server(
    "payment", "POST", "/v1/charge", 10,
    _inside("payment", "score fraud risk", 18, 0.4),
    Step(Operation("payment", "POST psp.example", CLIENT, 70, (), _provider), "local"),
    _database("payment", "postgresql", "INSERT INTO payments", 5),
)  # fmt: skip
_smtp = Operation("email", "SMTP send", CLIENT, 35, (), {"server.address": "smtp.example"})
_mail = _consumer("email", "orders", 8, _inside("email", "render", 12), Step(_smtp, "local"))
_ship = _consumer("shipping", "orders", 6, _database("shipping", "postgresql", "INSERT INTO parcels", 6))
_order = _rpc(
    "checkout", "Checkout/Place", 8,
    Step(_cart),
    Step(_reserve, beside=True),
    Step(_rpc("shipping", "Shipping/Quote", 9), beside=True),
    Step(_charge),
    _database("checkout", "postgresql", "INSERT INTO orders", 7),
    Step(_mail, "publish"),
    Step(_ship, "publish"),
    customer=True,
)  # fmt: skip

_query = _rpc(
    "search", "Search/Query", 14,
    _database("search", "elasticsearch", "search products", 22), _inside("search", "rank", 4),
)  # fmt: skip
_add = _rpc("cart", "Cart/Add", 3, _database("cart", "redis", "HSET cart", 1), Step(_stock), customer=True)
_login = _rpc(
    "auth", "Auth/Login", 6,
    _inside("auth", "verify password", 45), _database("auth", "postgresql", "SELECT * FROM users", 4),
)  # fmt: skip

ENTRANCES: tuple[tuple[float, Operation], ...] = (
    (18, _server("web", "GET", "/healthz", 0.4)),
    (24, _server("web", "GET", "/", 6, Step(_session), Step(_featured), Step(_recommend, share=0.7, beside=True),
                 customer=True)),
    (26, _server("web", "GET", "/products/{id}", 5, Step(_session, share=0.6), Step(_product),
                 Step(_stock, beside=True), Step(_recommend, share=0.5, beside=True), customer=True)),
    (14, _server("web", "GET", "/search", 4, Step(_query), customer=True)),
    (10, _server("web", "POST", "/cart", 5, Step(_session), Step(_add), customer=True)),
    (5, _server("web", "POST", "/login", 5, Step(_login))),
    (7, _server("web", "POST", "/checkout", 7, Step(_session), Step(_order), customer=True)),
)  # fmt: skip
"""What arrives from outside, with weights."""

SERVICES = (
    "web", "auth", "catalog", "search", "recommendation", "cart", "inventory", "checkout", "payment", "shipping",
    "email",
)  # fmt: skip

EXPLICIT_OK = frozenset({"payment", "auth"})
"""Services that set the status OK by hand; the others leave it unset, as instrumentation libraries do."""

CHORES: tuple[tuple[str, str, str], ...] = (
    ("catalog", "INFO", "price list refreshed"),
    ("search", "INFO", "index segment merged"),
    ("inventory", "DEBUG", "stock snapshot written"),
    ("shipping", "WARN", "carrier answers slowly"),
    ("payment", "INFO", "settlement file sent"),
    ("email", "ERROR", "bounce mailbox unreachable"),
)
"""Logs of background work, which no trace covers: service, severity, text."""
