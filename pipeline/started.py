"""How a worker was started, which holds for as long as it runs, whatever becomes of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config import Config

if TYPE_CHECKING:  # where the live page is off it is not imported
    from pipeline.live.watch import Watch


@dataclass(frozen=True, slots=True)
class Started:
    """What roles are told beside the configuration.

    `since` overrides `kafka.start`. With `accept_loss` sample goes on after records that retention deleted before it
    had forwarded them (Window.resume), and whoever reads raw topics after batches that stay corrupt, which become dead
    letters. `watch` shows on the live page what is committed, if that is on.
    """

    since: str | None = None
    accept_loss: bool = False
    watch: Watch | None = None

    def start(self, config: Config) -> str:
        """Where a new group begins, as `kafka.start` says it."""
        return self.since or config.kafka.start
