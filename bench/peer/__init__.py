"""The peer: the OpenTelemetry Collector, with the configurations beside this file.

`sample.*` is kafka -> tail_sampling -> kafka, `split.*` the tier before it that keys a topic by trace id; `batch` and
`metrics` go over them. Why each line is there is said in the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.services import Kafka, Server, free_port
from tests.services.process import HOST, answers
from tests.services.recipes import ensure

FOLDER = Path(__file__).resolve().parent
# Of the sweep in bench/results/tuning.json, of 200,000 spans: the least CPU, and the least memory with nothing lost.
# Four million spans reach a limit of 4 GiB, and garbage is collected; of them larger fetches lose traces.
LEAST_CPU = {"GOGC": "off", "GOMEMLIMIT": "12GiB"}
LEAST_MEMORY = {"GOGC": "50"}


class Peer(Server):
    """One Collector. `files` are names beside this module without `.yaml`, the later over the earlier."""

    name = "peer"

    def __init__(
        self,
        kafka: Kafka,
        files: Sequence[str],
        topics: tuple[str, str],
        group: str,
        *,
        policies: Sequence[Mapping[str, Any]] = (),
        decision_wait: float = 0.0,
        traces: int = 0,
        runtime: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.group = group
        self._files, self._policies = files, policies
        health = f"{HOST}:{free_port()}"
        self._health_url = f"http://{health}/status"
        self._environment = {
            "BROKERS": kafka.bootstrap,
            "INPUT": topics[0],
            "OUTPUT": topics[1],
            "GROUP": group,
            "DECISION_WAIT": f"{decision_wait:g}s",
            "NUM_TRACES": str(traces),
            "HEALTH": health,
            "METRICS_PORT": str(free_port()),
            **(runtime or {}),
        }

    def command(self) -> list[str]:
        """The binary, its environment and its files; the policies are one of them."""
        files = [FOLDER / f"{name}.yaml" for name in self._files]
        if self._policies:
            files.append(self.data / "policies.yaml")
            processors = {"tail_sampling": {"policies": self._policies}}
            files[-1].write_text(json.dumps({"processors": processors}), encoding="utf-8")  # JSON is YAML
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        binary = str(ensure("collector") / "collector")
        return ["env", *environment, binary, *(f"--config={file}" for file in files)]

    def is_ready(self) -> bool:
        """Whether every component has started."""
        return answers(self._health_url)
