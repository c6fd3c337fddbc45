"""The configuration file while a worker runs: policies and limits follow it; a file that is wrong changes nothing.

The file is read again every second, so it does not matter how it is replaced: in place, by a rename, or by the swap of
a symlink, as Kubernetes does with a ConfigMap. SIGHUP reads it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from pipeline import telemetry
from pipeline.config import Config
from pipeline.configuration.config_file import InvalidConfig, text_of
from pipeline.configuration.yaml_tree import ANYWHERE, Key, read
from pipeline.watching.identity import config_hash, version
from schemas.errors import ConfigError
from schemas.settings import format_duration

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two looks
RELOADED = (("sampling",), ("logs",), ("metrics",))
# A histogram's bounds must not change in the middle of a series; what sinks say of a threshold hangs on the hash.
FIXED = (("metrics", "span_metrics"), ("sampling", "compat"))
RESTART = "changed, which needs a restart"
MORE_THAN_RESTART: dict[Key, str] = {
    ("kafka", "partitions"): "changed, which `tailrace topics resize` does while ingest and sample are stopped "
    "(docs/how-to/upgrade.md#change-the-number-of-partitions)",
    ("kafka", "metric_partitions"): "changed, and cannot be but with another kafka.prefix",
    ("kafka", "prefix"): "changed, which takes other topics: the old ones must be emptied by workers with the old "
    "prefix (docs/how-to/without-ingest.md#changing-over)",
    ("regroup",): "changed, which needs another kafka.prefix (docs/how-to/without-ingest.md#changing-over)",
}
"""What a worker that restarts would refuse, or what would leave something behind."""


def fixed(old: Config, new: Config) -> list[Key]:
    """Keys that differ and need a restart: everything but `sampling`, `logs` and the limits of `metrics`."""
    return [
        path
        for path in _differing(old, new, ())
        if any(path[: len(key)] == key for key in FIXED) or not any(path[: len(key)] == key for key in RELOADED)
    ]


def _refused(path: Path, keys: Sequence[Key]) -> InvalidConfig:
    """The problems of a file in which these keys are others than those that run. Raises InvalidConfig if it is gone."""
    tree = read(text_of(path), path.parent, {}, ANYWHERE)
    rules = [f"{MORE_THAN_RESTART.get(key, RESTART)}; nothing of the file is used" for key in keys]
    return InvalidConfig(str(path), [tree.problem(key, rule) for key, rule in zip(keys, rules, strict=True)])


def _differing(old: object, new: object, path: Key) -> Iterator[Key]:
    if old == new:
        return
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            yield from _differing(getattr(old, name), getattr(new, name), (*path, field.alias or name))
    else:
        yield path


class File(NamedTuple):
    """A configuration file, and what reads it; `load` raises ConfigError."""

    path: Path
    load: Callable[[], Config]


class Reload:
    """`config` is what runs, `problem` why what is in the file is not (empty: it is).

    `apply` makes the worker run another configuration.
    """

    def __init__(self, config: Config, apply: Callable[[Config], Awaitable[None]], file: File | None = None) -> None:
        self.config, self.problem = config, ""
        self._file, self._apply = file, apply
        self._horizon = config.sampling.late_horizon  # for which the topic was looked at
        self._wait = config.sampling.decision_wait  # of which raw topics were asked whether they keep twice as much
        self._seen: bytes | None = None  # so that the first look follows what was written since the start
        self._asked = asyncio.Event()
        self._succeeded()

    def ask(self) -> None:
        """Look now (SIGHUP)."""
        self._asked.set()

    def state(self) -> dict[str, str | None]:
        """What /readyz says of it."""
        return {"hash": config_hash(self.config), "stale": self.problem or None}

    async def run(self) -> None:
        """Follow the file until cancelled."""
        assert self._file is not None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), EVERY)
            asked = self._asked.is_set()
            self._asked.clear()
            content = await asyncio.to_thread(_content, self._file.path)
            if asked or content != self._seen:
                self._seen = content
                await self._follow(self._file)

    async def _follow(self, file: File) -> None:
        try:
            new = file.load()
            if keys := fixed(self.config, new):
                raise _refused(file.path, keys)
            if new.sampling.late_horizon > self._horizon:
                raise ConfigError(
                    f"sampling.late_horizon: longer than at the start ({format_duration(self._horizon)}), which needs "
                    "a restart, and before it a retention.ms of the decisions that is as much longer; nothing of the "
                    "file is used"
                )
            if new.regroup == "never" and new.sampling.decision_wait > self._wait:
                raise ConfigError(
                    f"sampling.decision_wait: longer than at the start ({format_duration(self._wait)}), which with "
                    "regroup: never needs a restart: raw topics must keep twice as much; nothing of the file is used"
                )
        except ConfigError as error:
            self.problem = str(error)
            telemetry.gauge("tailrace_config_last_reload_successful", 0)
            log.error(
                "the configuration file was refused, the old configuration goes on",
                extra={"file": str(file.path), "error": self.problem, "hash": config_hash(self.config)},
            )
            return
        if new != self.config:
            old, self.config = self.config, new
            telemetry.remove("tailrace_config_info", **_identity(old))
            await self._apply(new)
            log.info("the configuration was reloaded", extra={"file": str(file.path), "hash": config_hash(new)})
        elif self.problem:
            what = {"file": str(file.path), "hash": config_hash(new)}
            log.info("the configuration file is right again, and what runs", extra=what)
        self._succeeded()

    def _succeeded(self) -> None:
        self.problem = ""
        telemetry.gauge("tailrace_config_info", 1, **_identity(self.config))
        telemetry.gauge("tailrace_config_last_reload_successful", 1)
        telemetry.gauge("tailrace_config_last_reload_success_timestamp_seconds", time.time())


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _identity(config: Config) -> dict[str, str]:
    return {"prefix": config.kafka.prefix, "hash": config_hash(config), "version": version()}
