"""TLS as every client here begins it."""

from __future__ import annotations

import ssl

from schemas.errors import ConfigError


def trusting(ca_file: str | None, key: str) -> ssl.SSLContext:
    """A context that trusts the authorities in a file (PEM; unset: the system's). Raises ConfigError naming the key."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{key}: {ca_file}: {error}") from error
