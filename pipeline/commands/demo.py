"""tailrace demo: see it work; the real thing is in pipeline/demo."""

from __future__ import annotations

import importlib

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.pass_context
def demo(context: click.Context) -> None:
    """See it work: embedded broker, generated traffic, all roles, a live table.

    \b
      tailrace demo
      tailrace demo --seconds 20 --json
    """
    # Imported only now: confluent-kafka, whose wheel carries the embedded broker, is an extra.
    try:
        command = importlib.import_module("pipeline.demo").command
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("confluent_kafka"):
            raise
        raise click.ClickException("the demo needs its extra: pip install 'tailrace[demo]'") from None
    command.main(args=context.args, prog_name="tailrace demo")
