"""The seeds of CI and others that are asked for."""

from __future__ import annotations

import subprocess

from tests.repository import ROOT

SEEDS = 3
DIGITS = 4  # of the commit's hash, for each seed


def seeds() -> list[int]:
    """From the commit; outside a clone always the same ones."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    commit = asked.stdout.strip() or "0123456789ab"
    return [int(commit[DIGITS * i : DIGITS * (i + 1)], 16) for i in range(SEEDS)]
