"""A YAML file that is one section of its own (cases, policies), or everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.configuration.config_file import InvalidConfig, hint, text_of, told
from pipeline.configuration.yaml_tree import Told, Tree, read
from schemas.settings import Section

S = TypeVar("S", bound=Section)
_BRANCHES = ("str", "dict[str,any]")  # what pydantic calls the members of a union, in a location


def load_section(path: Path, model: type[S], environ: Mapping[str, str]) -> tuple[S, Tree]:
    """The file as `model`, and where everything in it stands. Raises InvalidConfig: file, line, key, rule."""
    found, tree = read_section(path, model, environ)
    if found is None:
        raise InvalidConfig(str(path), tree.problems)
    return found, tree


def read_section(path: Path, model: type[S], environ: Mapping[str, str]) -> tuple[S | None, Tree]:
    """The same with None for a file that is wrong; why is in the tree. Raises InvalidConfig if it cannot be read."""
    tree = read(text_of(path), path.parent, environ)
    if tree.problems:
        return None, tree
    found, errors = _validated(tree, model)

    def told_of(other: Tree) -> list[Told]:
        return [each for details in _validated(other, model)[1] for each in _told(details)]

    schema = model.model_json_schema() if errors else {}
    for details in errors:
        for place, rule in _told(details):
            meant = hint(details, place, tree, schema)
            tree.problems.append(tree.problem(place, tree.as_written(place, rule, told_of), meant))
    return found, tree


def _validated(tree: Tree, model: type[S]) -> tuple[S | None, list[ErrorDetails]]:
    """What is in the tree as `model`, or what is wrong with it."""
    try:
        return model.model_validate(tree.data), []
    except ValidationError as error:
        return None, error.errors()


def _told(details: ErrorDetails) -> Iterator[Told]:
    """The same as `told` with places as they are in the file."""
    for place, rule in told(details):
        yield tuple(part for part in place if part not in _BRANCHES), rule
