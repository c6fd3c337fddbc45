"""What tests of roles share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pipeline.stages import Stages
from tests.services import Kafka


@pytest.fixture
async def stages(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Stages]:
    """Topics of ingest and sample; no worker runs yet."""
    found = await Stages(kafka.bootstrap, tmp_path).create()
    yield found
    found.stop()
