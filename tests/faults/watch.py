"""What workers take and do while something happens to them, looked at again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client.samples import Sample

from bench.measure import peak_rss
from tests.faults.measure import Measured
from tests.faults.stage import Stage

MEMORY_BOUND = 1 << 30  # bytes, of each worker; the default of sampling.cache_bytes is a quarter of it


class Watch:
    """Looks at the workers of a stage again and again."""

    def __init__(self, stage: Stage) -> None:
        self._workers = [(slot.roles, slot.worker) for slot in stage.slots if slot.worker is not None]
        self.not_ready = 0
        self.window = self.limit = self.passed = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watch]:
        """While the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(1.0)

    async def look(self) -> None:
        """Once."""
        samples: list[Sample] = []
        try:
            for roles, worker in self._workers:
                samples += await asyncio.to_thread(worker.samples) if roles == "sample" else ()
        except OSError:
            self.not_ready += 1
            return

        def total(name: str, **labels: str) -> float:
            return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

        self.window = max(self.window, total("tailrace_window_bytes"))
        self.limit = max(self.limit, total("tailrace_window_limit_bytes"))
        self.passed = total("tailrace_spans_kept_total") + total("tailrace_dropped_total", signal="spans")
        for _, each in self._workers:
            self.not_ready += not await asyncio.to_thread(each.is_ready)

    def takeovers(self) -> float:
        """Partitions that workers got so far."""
        return sum(worker.metric("tailrace_takeovers_total") for _, worker in self._workers)

    def measured(self) -> list[Measured]:
        """Memory beside its bounds, and what was dropped that no policy dropped."""
        found = [
            Measured(f"peak RSS of {roles}", peak_rss(worker.pid) / 2**20, MEMORY_BOUND / 2**20, "MiB")
            for roles, worker in self._workers
        ]
        lost = sum(worker.metric("tailrace_dropped_total", intentional="false") for _, worker in self._workers)
        return [
            Measured("window in the cache of sample, at most", self.window / 2**20, self.limit / 2**20, "MiB"),
            *found,
            Measured("spans, logs, points dropped against the will", lost, 0, ""),
        ]
