"""Workers of several releases, in the simulation: what a record says its version is, and who reads that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

from schemas import decision, envelope, point, sample
from schemas.errors import ProtocolError
from schemas.packing import pack, unpack

FORMATS = (decision, envelope, point, sample)
NEXT = 3  # of all formats: points and ticks have a version 2


@dataclass(frozen=True, slots=True)
class Release:
    """`reads_next`: the version after this one, which it writes only if `writes_next`.

    `writes_place`: where its mark is, is in the metadata of ingest's offsets, which it once was not
    (schemas/raw_offset.py).
    """

    name: str
    reads_next: bool = False
    writes_next: bool = False
    writes_place: bool = True


THIS = Release("this release")
BEFORE = Release("the one before", writes_place=False)
READS = Release("the next one", reads_next=True)
WRITES = Release("the one after the next", reads_next=True, writes_next=True)
ROLLING = ((BEFORE, THIS), (THIS, READS), (READS, WRITES), (WRITES, READS))
"""Releases that run beside each other, in the order of three upgrades and a downgrade."""


@contextlib.contextmanager
def next_is_read() -> Iterator[None]:
    """The next version is a version: who may read it is asked by `read`."""
    with contextlib.ExitStack() as patches:
        for module in FORMATS:
            patches.enter_context(patch.object(module, "READS", (*module.READS, NEXT)))
        yield


def written(release: Release, value: bytes) -> bytes:
    """A record as this release writes it."""
    return pack(unpack(value) | {"v": NEXT}) if release.writes_next else value


def read(release: Release, value: bytes) -> None:
    """Raises ProtocolError if this release does not read the record."""
    if not release.reads_next and version_of(value) == NEXT:
        raise ProtocolError(f"version {NEXT}, {release.name} does not read it")


def version_of(value: bytes) -> int:
    """What a record says its version is."""
    found: int = unpack(value)["v"]
    return found
