"""The C{kumo} command and its subcommands."""

from __future__ import annotations

import sys

import click

from kumotwist import __version__
from kumotwist.cli.inject import inject
from kumotwist.cli.queues import COMMANDS
from kumotwist.cli.source import source
from kumotwist.cli.spool import spool

__all__ = ["main"]


@click.group()
@click.version_option(__version__, prog_name="kumo")
def main() -> None:
    """Talk to a kumotwist node."""


@main.command("config")
@click.argument("file", type=click.Path(dir_okay=False))
def show_config(file: str) -> None:
    """Print the effective configuration of FILE: defaults filled in, secrets masked."""
    from kumotwist.config import ConfigErrors, load, render

    try:
        configuration = load(file)
    except ConfigErrors as errors:
        click.echo(str(errors), err=True)
        sys.exit(1)
    click.echo(render(configuration))


for command in COMMANDS:
    main.add_command(command)
main.add_command(inject)
main.add_command(source)
main.add_command(spool)
