"""What C{next_event} of every wire machine returns when it has to wait for octets."""

from __future__ import annotations

import enum
from typing import Final, Literal

__all__ = ["NEED_DATA", "NeedData"]


class NeedData(enum.Enum):
    """The type of L{NEED_DATA}; an enumeration, so that C{event is NEED_DATA} narrows types."""

    NEED_DATA = "NEED_DATA"

    def __repr__(self) -> str:
        return "NEED_DATA"


#: Nothing can be said before more octets arrive, or before the last event is answered.
NEED_DATA: Final[Literal[NeedData.NEED_DATA]] = NeedData.NEED_DATA
