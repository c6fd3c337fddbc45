"""The configuration as a JSON schema for editors: completion, descriptions and mistakes while typing.

Made from the models, for the text as it is written: durations are strings with a unit, and `${...}` may stand wherever
a value stands. It knows keys, types, words and ranges; rules between keys are `tailrace check`'s. Draft 7, the newest
that the YAML language server reads in full.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import Config
from schemas.settings import DURATION_PATTERN, format_duration

INTERPOLATED = "Interpolated"
_HERE = {"$ref": f"#/$defs/{INTERPOLATED}"}
# Constraints of durations in seconds, which the pattern of the text cannot say.
_SECONDS = ("gt", "ge", "lt", "le")
_SCALARS = ("integer", "number", "boolean")
_OF_TEXT = ("enum", "pattern", "minLength", "maxLength")


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    found: dict[str, Any] = _for_text(Config.model_json_schema())
    found["$defs"][INTERPOLATED] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "${NAME}, ${NAME:-default} or ${file:/path}, filled in when the file is read.",
    }
    first = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Configuration of Tailrace"}
    return first | {key: value for key, value in found.items() if key not in first}


def text() -> str:
    """What `tailrace config schema` prints and docs/reference/tailrace.schema.json holds."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _for_text(node: Any) -> Any:
    """A schema of values as one of the text that they are written in."""
    if isinstance(node, list):
        return [_for_text(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: _named(key, value) for key, value in node.items() if key not in _SECONDS}
    found.pop("title", None)
    if isinstance(found.get("default"), dict):
        del found["default"]  # of a section: its keys have their own
    if found.get("pattern") == DURATION_PATTERN and isinstance(found.get("default"), float):
        found["default"] = format_duration(found["default"])
    if found.get("type") in _SCALARS or any(rule in found for rule in _OF_TEXT):
        about = {key: found.pop(key) for key in ("description", "default") if key in found}
        return about | {"anyOf": [found, _HERE]}
    return found


def _named(key: str, value: Any) -> Any:
    """What stands below a keyword; names of properties are no keywords."""
    if key in ("properties", "$defs"):
        return {name: _for_text(below) for name, below in value.items()}
    return value if key in ("default", "enum", "required", "const") else _for_text(value)
