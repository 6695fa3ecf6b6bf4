"""A bound on the memory that messages take while they are being received."""

from __future__ import annotations

__all__ = ["ReceptionBudget"]


class ReceptionBudget:
    """Octets of messages in reception, over all sessions of a listener.

    @param limit: how many there may be.
    @ivar used: how many there are.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def has_room(self, octets: int) -> bool:
        """Whether so many more would fit."""
        return self.used + octets <= self.limit

    @property
    def exceeded(self) -> bool:
        """Whether there are more than there may be."""
        return self.used > self.limit
