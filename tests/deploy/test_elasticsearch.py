"""deploy/elasticsearch: the files are what the sink would install, and a real Elasticsearch takes what it can."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import aiohttp
import jsonschema
import pytest

from sinks.elasticsearch import template
from sinks.settings import Sink
from tests.repository import ROOT
from tests.services import Elasticsearch

FOLDER = ROOT / "deploy" / "elasticsearch"
LIFECYCLES = {"": {"data_retention": "30d"}, "-ilm": {"policy": "tailrace-logs"}}
ILM = json.loads((ROOT / "deploy" / "schemas" / "elasticsearch-ilm.json").read_text(encoding="utf-8"))
POLICY: dict[str, Any] = json.loads((FOLDER / "ilm-policy.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
@pytest.mark.parametrize("suffix", LIFECYCLES)
def test_a_file_is_what_the_sink_would_install(mapping: str, suffix: str) -> None:
    settings = {"endpoint": "http://a", "mapping": mapping, "lifecycle": LIFECYCLES[suffix]}
    file = json.loads((FOLDER / f"logs-{mapping}{suffix}.json").read_text(encoding="utf-8"))
    assert file == template(Sink.model_validate(settings))


@pytest.mark.parametrize("mapping", ["otel", "ecs"])
async def test_elasticsearch_takes_the_template(elasticsearch: Elasticsearch, mapping: str) -> None:
    body = (FOLDER / f"logs-{mapping}.json").read_text(encoding="utf-8")
    apart = body.replace("logs-tailrace-*", f"logs-byhand.{mapping}-*")
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.put(f"{elasticsearch.url}/_index_template/byhand-{mapping}", data=apart) as response,
    ):
        assert response.status == 200, await response.text()


def test_the_policy_is_one_and_the_templates_name_it() -> None:
    jsonschema.validate(POLICY, ILM)
    assert LIFECYCLES["-ilm"]["policy"] in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("hot", {"actions": {"delete": {}}}),
        ("hot", {"actions": {"rollover": {"max_agee": "1d"}}}),
        ("hot", {"actions": {"forcemerge": {"max_num_segments": 1}}}),
        ("warm", {"min_age": "2 days"}),
        ("tepid", {"actions": {}}),
    ],
)
def test_the_schema_finds_what_elasticsearch_would_refuse(phase: str, change: dict[str, Any]) -> None:
    wrong = copy.deepcopy(POLICY)
    wrong["policy"]["phases"][phase] = change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, ILM)


def test_every_file_of_the_folder_is_explained() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in FOLDER.glob("*.json")} == set(re.findall(r"`([\w-]+\.json)`", text))
