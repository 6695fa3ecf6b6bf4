"""The configuration: INI files to frozen values, every mistake reported at once.

L{load} reads a file, checks it whole and returns a L{Configuration}, or raises L{ConfigErrors}
with one L{ConfigError} for each problem. The way of a file:

  1. C{reader} splits the text into sections and keys and remembers their lines;
  2. C{sections} knows the kinds of sections; each is filled from the settings class of the room
     that uses it (C{kumotwist.ROOM.settings}), where its keys are declared once;
  3. C{build} makes settings of a section; C{checks} and C{listening} look at what goes wrong
     between sections;
  4. C{loading} follows C{include} and puts the C{Configuration} together.

L{render} goes the other way, C{reference} makes the reference page from the declarations, and
C{planned} lists what is agreed on and not built yet, so that it is refused and not silently taken.
Nothing outside of this package knows that there are INI files.
"""

from kumotwist.config.configuration import Configuration
from kumotwist.config.errors import ConfigError, ConfigErrors
from kumotwist.config.loading import load
from kumotwist.config.rendering import render
from kumotwist.config.settings import NodeSettings

__all__ = ["ConfigError", "ConfigErrors", "Configuration", "NodeSettings", "load", "render"]
