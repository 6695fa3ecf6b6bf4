"""The short form of C{make torture}: twenty rounds."""

from __future__ import annotations

from typing import ClassVar

from tests.torture.scenarios import Torture

__all__ = ["ShortTortureTests"]


class ShortTortureTests(Torture):
    """Some rounds of each scenario."""

    rounds: ClassVar[int] = 3
    connections: ClassVar[int] = 3
    timeout = 120


del Torture
