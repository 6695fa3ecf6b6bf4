"""The C{kumo} command, for people: hand a message in and watch it, look at a configuration."""

from kumotwist.cli.main import main

__all__ = ["main"]
