"""tailrace config: a configuration as the workers see it."""

from __future__ import annotations

from typing import Any

import click
import yaml

from pipeline.commands.console import FILE, loaded
from pipeline.config import Config
from pipeline.configuration.editor_schema import text
from pipeline.watching.identity import config_hash
from processors.sampling.compile import compile_policies
from schemas.settings import REDACTED, is_secret_name, without_credentials
from sinks.settings import of_kind, sink_kind


@click.group("config")
def config_group() -> None:
    """Look at a configuration as the workers see it.

    \b
      tailrace config print tailrace.yaml
      tailrace config schema > tailrace.schema.json
    """


@config_group.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration file, for editors.

    An editor with a YAML language server then completes keys, shows what they mean and underlines mistakes, if the
    file's first line names the schema: `# yaml-language-server: $schema=tailrace.schema.json`

    \b
      tailrace config schema > tailrace.schema.json
    """
    click.echo(text(), nl=False)


@config_group.command("print")
@FILE
@click.option("--hash", "hashed", is_flag=True, help="Only its hash, as in tailrace_config_info and /readyz.")
@click.option(
    "--policies-version", "versioned", is_flag=True, help="Only the version of its policies, as in `tailrace explain`."
)
def config_print(file: str, hashed: bool, versioned: bool) -> None:
    """Print the effective configuration: defaults and interpolated values filled in, secrets blotted out.

    The hash is of everything but telemetry and kafka.client_rack; the version of sampling.policies and sampling.compat
    alone, with what they mean to this version of Tailrace.

    \b
      tailrace config print tailrace.yaml
      tailrace config print tailrace.yaml --hash       to compare with tailrace_config_info of the workers
      tailrace config print tailrace.yaml --policies-version       to compare with what `tailrace explain` says
    """
    if versioned:
        sampling = loaded(file).sampling
        click.echo(compile_policies(sampling.policies, compat=sampling.compat).version)
        return
    if hashed:
        click.echo(config_hash(loaded(file)))
        return
    click.echo(yaml.safe_dump(effective(loaded(file)), sort_keys=False, allow_unicode=True, width=120), nl=False)


def effective(config: Config) -> dict[str, Any]:
    """Everything that is set or has a default, as plain data without secrets."""
    data: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    canary = data.get("canary") or {}
    for section in (
        *data["sinks"].values(),
        *(canary[k] for k in ("jaeger", "elasticsearch", "prometheus") if k in canary),
    ):
        section["headers"] = {
            header: REDACTED if is_secret_name(header) else value for header, value in section["headers"].items()
        }
        if "endpoint" in section:
            section["endpoint"] = without_credentials(section["endpoint"])
        if "endpoints" in section:
            section["endpoints"] = [*map(without_credentials, section["endpoints"])]
    data["sinks"] = {name: of_kind(sink_kind(name), sink) for name, sink in data["sinks"].items()}
    return data
