"""Who a worker is, and what it runs: the version of the program and a hash of the configuration."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config

HASH_DIGITS = 12  # enough for a person to compare and for chance never to agree


def version() -> str:
    """The program's, or `unknown` in a checkout that is on the path but not installed."""
    try:
        return installed("tailrace")
    except PackageNotFoundError:
        return "unknown"


def process_name() -> str:
    """The same for as long as the process runs, and in a container for every start: host name and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


def config_hash(config: Config) -> str:
    """The same for two workers that do the same work.

    Without what may differ between workers of one prefix: where they listen, how much they log, the rack they are in.
    Secrets are not in it, so it changes with none and tells none.
    """
    data = config.model_dump(mode="json", by_alias=True, exclude={"telemetry": True, "kafka": {"client_rack"}})
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
