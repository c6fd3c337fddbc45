"""The bytes of each version of the internal records, and the rule by which a version changes.

Workers of two releases that follow each other share topics and groups, in both directions, without a setting:

- What is added stands under a key of its own, which older readers pass over, and is left out while it says nothing:
  the version stays. It must not be needed to read what older readers read.
- Any other change is a new version. It is *read one release before it is written*: a release that writes version v
  reads v - 1, v and, if the next one will write it, v + 1. So writers switch last.
- What only a new key of the configuration makes (OTLP metrics) may be written at once in a version of its own: whoever
  can be given that key reads it, and everything else stays in the lowest version that can say it.

VERSION in a module of schemas/ is what it writes, READS what it reads. `v1/` and so on hold golden bytes: whoever adds
to a format adds a file, nobody changes one (tests/schemas/test_versions.py). Upgrades: docs/how-to/upgrade.md.
"""

from __future__ import annotations

from collections.abc import Collection

from schemas.errors import ProtocolError


def require(what: str, found: object, reads: Collection[int]) -> None:
    """Raises ProtocolError if this worker does not read version `found` of `what`."""
    if found not in reads:
        own = ", ".join(map(str, sorted(reads)))
        raise ProtocolError(
            f"{what} version {found}, this worker reads {own}: upgrade or downgrade one release at a time "
            "(docs/how-to/upgrade.md)"
        )
