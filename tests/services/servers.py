"""The servers the tests run against, each with the settings the tests need."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from tests.services.process import HOST, PROBE_SECONDS, Server, ServerFailed, answers, free_port
from tests.services.recipes import ensure

KAFKA_CLUSTER_ID = "dGFpbHJhY2UtdGVzdHMtMQ"
# The dead letter topic takes a raw message of 32 MiB and its envelope (34 MB); the broker takes a little more.
KAFKA_MESSAGE_MAX_BYTES = 36 * 1024 * 1024
# "No topics", version 1: the smallest request whose answer lists the brokers a client could use.
KAFKA_METADATA_REQUEST = struct.pack(">hhih", 3, 1, 0, -1) + struct.pack(">i", 0)
KAFKA_TOLD = "org.apache.kafka.coordinator.group"  # who joined, left and was removed, and why a group rebalances
JAEGER_MAX_TRACES = 500_000


class Kafka(Server):
    """One KRaft node, broker and controller. Topics must be created; `properties` override the settings.

    `recipe` is the version: `kafka`, or `kafka-3.9`. `flags` are the JVM's.
    """

    name = "kafka"

    def __init__(self, properties: Mapping[str, str] | None = None, recipe: str = "kafka") -> None:
        super().__init__()
        self._recipe = recipe
        self.flags: list[str] = []
        self._port, self._controller = free_port(), free_port()
        self.bootstrap = f"{HOST}:{self._port}"
        self.properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{HOST}:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self.data / "logs"),
            "num.partitions": "4",
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(KAFKA_MESSAGE_MAX_BYTES),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "5",
            # How soon a dead producer's transaction stops holding read_committed readers, after its own time-out.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "2000",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker may register again only when its old session has expired: 9 s by default.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
        } | dict(properties or {})

    def another(self) -> Kafka:
        """A further broker of its cluster, not started yet. It has nothing but what is made or moved afterwards."""
        made = Kafka(recipe=self._recipe)
        made.properties |= {
            "process.roles": "broker",
            "node.id": "2",
            "controller.quorum.voters": self.properties["controller.quorum.voters"],
            "listeners": made.properties["advertised.listeners"],
        }
        return made

    def command(self) -> list[str]:
        """Format the log folder the first time; then the broker."""
        logger = "-Dorg.slf4j.simpleLogger"
        told = [f"{logger}.defaultLogLevel=warn", f"{logger}.log.{KAFKA_TOLD}=info", f"{logger}.showDateTime=true"]
        java = ["java", f"-Djava.io.tmpdir={self.data}", *told, "-cp", f"{ensure(self._recipe)}/libs/*"]
        file = self.data / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in self.properties.items()))
        if not (self.data / "logs" / "meta.properties").exists():
            tool = ["kafka.tools.StorageTool", "format", "-t", KAFKA_CLUSTER_ID, "-c", str(file)]
            done = subprocess.run([*java, *tool], capture_output=True, text=True)
            if done.returncode != 0:
                raise ServerFailed(f"kafka cannot format its log folder:\n{done.stdout}{done.stderr}")
        return [*java, "-Xmx1g", *self.flags, "kafka.Kafka", str(file)]

    def is_ready(self) -> bool:
        """Whether the broker lists itself to a client (the port alone opens earlier)."""
        try:
            with socket.create_connection((HOST, self._port), PROBE_SECONDS) as connection:
                connection.sendall(struct.pack(">i", len(KAFKA_METADATA_REQUEST)) + KAFKA_METADATA_REQUEST)
                answer = connection.makefile("rb").read(12)
        except OSError:
            return False
        return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0


class Elasticsearch(Server):
    """One node without security, ILM, x-pack and the info page (`GET /` answers 405)."""

    name = "elasticsearch"

    def __init__(self) -> None:
        super().__init__()
        self._port, self._transport = free_port(), free_port()
        self.url = f"http://{HOST}:{self._port}"

    def command(self) -> list[str]:
        """The node; its home is the installed one, shared and read only."""
        home = ensure("elasticsearch")
        settings = {
            "path.home": home / "home",
            "path.data": self.data / "data",
            "path.logs": self.data / "logs",
            "http.port": self._port,
            "transport.port": self._transport,
            "network.host": HOST,
            "discovery.type": "single-node",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        java = ["java", "-Xmx1g", f"-Djava.io.tmpdir={self.data}", "-cp", f"{home}/classes{os.pathsep}{home}/libs/*"]
        return [*java, "ElasticsearchNode", *(f"{key}={value}" for key, value in settings.items())]

    def is_ready(self) -> bool:
        """Whether it has elected itself and every primary is there."""
        return answers(f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s")


class Collector(Server):
    """The OpenTelemetry Collector 0.140 inside the Jaeger binary, with `config` as its configuration.

    Added where `config` does not say otherwise: receiver `otlp` (at `otlp_http` and `otlp_grpc`), the health check
    which `start` waits for, and no metrics of its own, whose fixed port would allow one Collector per machine.
    """

    name = "collector"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        http, grpc, health = (f"{HOST}:{free_port()}" for _ in range(3))
        self.otlp_http = f"http://{http}"
        self.otlp_grpc = grpc
        self._health_url = f"http://{health}/status"
        self.config: dict[str, Any] = copy.deepcopy(dict(config))
        protocols = {"http": {"endpoint": http}, "grpc": {"endpoint": grpc}}
        self.config.setdefault("receivers", {}).setdefault("otlp", {"protocols": protocols})
        self.config.setdefault("extensions", {})["healthcheckv2"] = {"use_v2": True, "http": {"endpoint": health}}
        service = self.config["service"]
        service["extensions"] = [*service.get("extensions", ()), "healthcheckv2"]
        service.setdefault("telemetry", {}).setdefault("metrics", {"level": "none"})

    def command(self) -> list[str]:
        """The Jaeger binary; JSON is YAML."""
        file = self.data / "config.yaml"
        file.write_text(json.dumps(self.config, indent=2))
        return [str(ensure("jaeger") / "jaeger"), "--config", str(file)]

    def is_ready(self) -> bool:
        """Whether every component has started."""
        return answers(self._health_url)


def start_collector(kafka_bootstrap: str, traces_topic: str, logs_topic: str) -> Collector:
    """A started Collector which puts OTLP requests into two Kafka topics, as protobuf, one message per request.

    Without a sending queue: its answer means that Kafka has the message.
    """
    exporter = {
        "brokers": [kafka_bootstrap],
        "traces": {"topic": traces_topic, "encoding": "otlp_proto"},
        "logs": {"topic": logs_topic, "encoding": "otlp_proto"},
        "sending_queue": {"enabled": False},
    }
    pipeline = {"receivers": ["otlp"], "exporters": ["kafka"]}
    service = {"pipelines": {"traces": pipeline, "logs": pipeline}}
    return Collector({"exporters": {"kafka": exporter}, "service": service}).start()


class Jaeger(Collector):
    """Jaeger v2, storing in memory: a restart forgets every trace. It has no batch step: its answer means stored."""

    name: ClassVar[str] = "jaeger"

    def __init__(self, max_traces: int = JAEGER_MAX_TRACES) -> None:
        query, query_grpc = (f"{HOST}:{free_port()}" for _ in range(2))
        self.query_url = f"http://{query}"
        store = "memory"
        super().__init__(
            {
                "extensions": {
                    "jaeger_storage": {"backends": {store: {"memory": {"max_traces": max_traces}}}},
                    "jaeger_query": {
                        "storage": {"traces": store},
                        # Its own traces go to port 4317 whatever is there; if nothing is, stopping takes 10 s.
                        "enable_tracing": False,
                        "http": {"endpoint": query},
                        "grpc": {"endpoint": query_grpc},
                    },
                },
                "exporters": {"jaeger_storage_exporter": {"trace_storage": store}},
                "service": {
                    "extensions": ["jaeger_storage", "jaeger_query"],
                    "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                },
            }
        )

    def is_ready(self) -> bool:
        """Whether both ends serve: receivers and queries."""
        return super().is_ready() and answers(f"{self.query_url}/api/v3/services")


class Prometheus(Server):
    """Prometheus with the remote-write receiver; `config` overrides top-level blocks of its configuration."""

    name = "prometheus"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._address = f"{HOST}:{free_port()}"
        self.url = f"http://{self._address}"
        self.remote_write_url = f"{self.url}/api/v1/write"
        storage = {"tsdb": {"out_of_order_time_window": "10m"}, "exemplars": {"max_exemplars": 100_000}}
        self.config: dict[str, Any] = {"storage": storage} | dict(config or {})
        self._file = self.data / "prometheus.yml"

    def command(self) -> list[str]:
        """The server; JSON is YAML."""
        self._file.write_text(json.dumps(self.config, indent=2))
        return [
            str(ensure("prometheus") / "prometheus"),
            f"--config.file={self._file}",
            f"--storage.tsdb.path={self.data / 'data'}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={self._address}",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
        ]

    @contextmanager
    def scraping(self, job: str, targets: Sequence[str], interval: str = "1s", **settings: Any) -> Iterator[None]:
        """Scrape these addresses while the block runs, with more `settings` of a job; afterwards their series end."""
        where = [{"targets": list(targets)}]
        scrape = {"job_name": job, "scrape_interval": interval, "static_configs": where, **settings}
        jobs = self.config.get("scrape_configs", [])
        self._reload(self.config | {"scrape_configs": [*jobs, scrape]})
        try:
            yield
        finally:
            self._reload(self.config)

    def _reload(self, config: Mapping[str, Any]) -> None:
        self._file.write_text(json.dumps(config, indent=2))
        self._signal(signal.SIGHUP)

    def is_ready(self) -> bool:
        """Whether the write-ahead log is replayed and queries are served."""
        return answers(f"{self.url}/-/ready")
