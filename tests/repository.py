"""What is committed, for the tests that look at the repository itself."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
HOT = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("schemas", "processors")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\nimport cython\n" in path.read_text(encoding="utf-8")
]
"""The modules that are compiled."""
_scanner = find_spec("schemas.otlp_scan")
COMPILED = _scanner is not None and not str(_scanner.origin).endswith(".py")
"""Whether the hot modules run compiled here."""
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def python_path() -> str:
    """PYTHONPATH for a process of this checkout: as here, so that it runs the compiled hot modules if the tests do."""
    here = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(path for path in (*here, str(ROOT)) if path))


def committed(*patterns: str) -> list[Path]:
    """The files that git tracks, or would on `git add .`, of these patterns (`*.md`, `deploy/*.yaml`)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(path for path in map(ROOT.joinpath, listed.splitlines()) if path.is_file())


def read_yaml(path: Path | str) -> Any:
    """A YAML file's content, by its path from the root."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """What a page shows in a language."""
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]
