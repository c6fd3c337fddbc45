"""A demo as a process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.repository import ROOT
from tests.services.process import guarded

DEADLINE_SECONDS = 120.0


async def begun(nothing: Path, *arguments: str) -> asyncio.subprocess.Process:
    """The command in a process of its own, on a machine without any program: no Java, no Go, no compiler."""
    environment = {**os.environ, "PATH": str(nothing), "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        *guarded([sys.executable, "-m", *arguments]), cwd=nothing, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
