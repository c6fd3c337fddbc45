"""Workers as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.services.process import spawn


class Processes:
    """What a test has started; `stop` kills what of it still runs."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def python(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = spawn([sys.executable, *arguments])
        self._running.append(process)
        return process

    def worker(self, file: Path, *roles: str) -> subprocess.Popen[bytes]:
        code = "from pipeline.cli import main; main()"
        return self.python("-c", code, "worker", "--config", str(file), "--role", ",".join(roles))

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
