"""deploy/kibana: saved objects in Kibana's form, about fields that the index templates have."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import jsonschema
import pytest

from sinks.elasticsearch import template
from sinks.settings import Sink
from tests.repository import ROOT

FOLDER = ROOT / "deploy" / "kibana"
SCHEMA = json.loads((ROOT / "deploy" / "schemas" / "kibana-saved-objects.json").read_text(encoding="utf-8"))
# JSON inside strings of attributes, as Kibana stores it.
INNER = ("fields", "fieldFormatMap", "sourceFilters", "runtimeFieldMap", "fieldAttrs", "typeMeta")
MAPPINGS = ["otel", "ecs"]


def objects(mapping: str) -> dict[str, dict[str, Any]]:
    """The objects of a file by type."""
    lines = (FOLDER / f"{mapping}.ndjson").read_text(encoding="utf-8").splitlines()
    return {found["type"]: found for found in map(json.loads, lines)}


def has(mapping: str, field: str) -> bool:
    """Whether the index template has a field or an alias of this name."""
    fields = template(Sink.model_validate({"endpoint": "http://a", "mapping": mapping}))["template"]["mappings"]
    for part in field.split("."):
        fields = fields.get("properties", {}).get(part, {})
    return "type" in fields


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_object_is_one_and_what_it_refers_to_is_in_the_file(mapping: str) -> None:
    found = objects(mapping)
    assert found.keys() == {"index-pattern", "search"}
    ids = {(saved["type"], saved["id"]) for saved in found.values()}
    for saved in found.values():
        jsonschema.validate(saved, SCHEMA)
        assert {(to["type"], to["id"]) for to in saved["references"]} <= ids
    view = found["index-pattern"]["attributes"]
    assert all(json.loads(view[key]) is not None for key in INNER)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_field_is_in_the_index_template(mapping: str) -> None:
    view, search = (objects(mapping)[kind]["attributes"] for kind in ("index-pattern", "search"))
    source = json.loads(search["kibanaSavedObjectMeta"]["searchSourceJSON"])
    queried = re.findall(r"([\w.@]+):", source["query"]["query"])
    assert len(queried) == 2
    used = [view["timeFieldName"], *json.loads(view["fieldFormatMap"]), *search["columns"], search["sort"][0][0]]
    used += queried
    assert [field for field in used if not has(mapping, field)] == []
    (reference,) = objects(mapping)["search"]["references"]
    assert source["indexRefName"] == reference["name"]


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_view_is_of_the_data_streams_that_the_documents_show(mapping: str) -> None:
    title = objects(mapping)["index-pattern"]["attributes"]["title"]
    page = (ROOT / "docs" / "how-to" / "sinks.md").read_text(encoding="utf-8")
    dataset = "audit" if mapping == "ecs" else Sink.model_fields["dataset"].default
    assert title == f"logs-{dataset}-*"
    assert mapping == "otel" or re.search(rf"dataset: {dataset}\n +mapping: {mapping}", page)


@pytest.mark.parametrize(
    "change", [{"type": "dashboards"}, {"attributes": {"titel": "x"}}, {"references": [{"id": "x"}]}, {"extra": 1}]
)
def test_the_schema_finds_what_kibana_would_refuse(change: dict[str, Any]) -> None:
    wrong = copy.deepcopy(objects("otel")["index-pattern"]) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_the_readme_imports_files_that_are_there() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "/api/saved_objects/_import" in text
    for name in re.findall(r"`(\w+\.ndjson)`", text):
        assert (FOLDER / name).exists()
        assert "http://localhost:16686" in (FOLDER / name).read_text(encoding="utf-8")
