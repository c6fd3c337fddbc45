"""What a worker's process makes of its limits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.repository import ROOT, python_path

FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
"""
MACOS = """
import resource
given = (64, 2**63 - 1)
def setrlimit(which, limits):
    global given
    if limits[0] > 10240:
        raise ValueError("current limit exceeds maximum limit")
    given = limits
resource.getrlimit, resource.setrlimit = lambda which: given, setrlimit
"""
RUN = """
from pipeline import process
async def told(): print(*resource.getrlimit(resource.RLIMIT_NOFILE))
process.run(told())
"""


@pytest.mark.parametrize(("begun", "told"), [(FEW, (128, 128)), (MACOS, (10240, 2**63 - 1))], ids=["few", "macos"])
def test_it_may_open_as_many_files_as_it_is_allowed_to(begun: str, told: tuple[int, int]) -> None:
    command = [sys.executable, "-c", begun + RUN]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert tuple(map(int, done.stdout.split())) == told, done.stderr
