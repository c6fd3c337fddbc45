"""What a worker's process makes of its limits."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.repository import ROOT, python_path

FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
from pipeline import process
async def told(): print(*resource.getrlimit(resource.RLIMIT_NOFILE))
process.run(told())
"""


def test_it_may_open_as_many_files_as_it_is_allowed_to() -> None:
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, "-c", FEW], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["128", "128"], done.stderr
