"""What is committed, for the tests that look at the repository itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


def committed(*patterns: str) -> list[Path]:
    """The files that git tracks, or would on `git add .`, of these patterns (`*.md`, `deploy/*.yaml`)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(path for path in map(ROOT.joinpath, listed.splitlines()) if path.is_file())


def read_yaml(path: Path | str) -> Any:
    """A YAML file's content, by its path from the root."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
