"""What a worker is told on its command line."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs

__all__ = ["WorkerOrders"]


@attrs.define(frozen=True)
class WorkerOrders:
    """What a worker is told when it is started.

    @ivar worker: its number, from 1.
    @ivar workers: how many there are.
    @ivar sockets: the descriptors that it finds, by what they are for.
    """

    worker: int
    workers: int
    sockets: Mapping[str, int]

    @classmethod
    def parse(cls, text: str) -> WorkerOrders:
        """Read the option C{--worker}; raise L{ValueError}."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from None

    def __str__(self) -> str:
        return json.dumps(attrs.asdict(self))
